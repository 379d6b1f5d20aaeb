//! What people read on a terminal: tables of at most 100 columns, states as shape and word, colour only beside them.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use proto::ids::{NodeName, Slot};
use proto::state::Tone;
use proto::timestamp::Timestamp;
use serde::Serialize;

use super::CliError;
use crate::clock::Clock;

/// No line is longer.
const WIDTH: usize = 100;
/// Between columns.
const GAP: usize = 2;
/// No column is cut below this.
const NARROWEST: usize = 6;

/// Standard output of one command.
pub(super) struct Out {
    json: bool,
    pub(super) paint: Paint,
    clock: Clock,
}

impl Out {
    pub(super) fn standard(json: bool) -> Self {
        Self { json, paint: Paint { on: std::io::stdout().is_terminal() }, clock: Clock::start() }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    /// The answer: as JSON where that was asked for, else as `text` says.
    pub(super) fn show<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        let text = match self.json {
            true => {
                let json = serde_json::to_string_pretty(value);
                json.map_err(|error| CliError::Output(error.into()))? + "\n"
            }
            false => text(value),
        };
        write(&text)
    }

    /// One of many answers: one JSON object per line.
    pub(super) fn show_line<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        let line = match self.json {
            true => serde_json::to_string(value).map_err(|error| CliError::Output(error.into()))? + "\n",
            false => text(value),
        };
        write(&line)
    }

    pub(super) fn json(&self) -> bool {
        self.json
    }
}

/// What is said while one waits: not part of the answer, so on standard error.
pub(super) fn note(text: &str) {
    // Whoever cannot read it loses nothing that counts.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A question, and the cursor behind it.
pub(super) fn ask(text: &str) -> Result<(), CliError> {
    let mut stderr = std::io::stderr().lock();
    stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).map_err(CliError::Output)
}

/// Asks, behind what will happen, whether it is to.
pub(super) fn go_on(sentence: &str) -> Result<bool, CliError> {
    ask(format!("{sentence} Go on? [y/N] ").trim_start())?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(CliError::Output)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What is waited for, so that each is said once: a sentence in which only the time that is left has changed is the same one.
#[derive(Default)]
pub(super) struct News(Vec<String>);

impl News {
    /// Those that were not there last time.
    pub(super) fn of(&mut self, sentences: &[String]) -> Vec<String> {
        let kinds: Vec<String> = sentences.iter().map(|it| without_times(it)).collect();
        let new = sentences.iter().zip(&kinds).filter(|(_, kind)| !self.0.contains(kind));
        let new = new.map(|(sentence, _)| sentence.clone()).collect();
        self.0 = kinds;
        new
    }

    /// Says them to whoever waits.
    pub(super) fn say(&mut self, sentences: &[String]) {
        for sentence in self.of(sentences) {
            note(&format!("Waiting: {sentence}"));
        }
    }
}

/// A sentence with its durations (`18 s`, `1 min 3 s`) left out.
fn without_times(sentence: &str) -> String {
    let words: Vec<&str> = sentence.split(' ').collect();
    let unit = |word: &str| matches!(word.trim_end_matches([';', ',', '.']), "s" | "min" | "h");
    let is_time = |at: usize| {
        let number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        let next = words.get(at + 1).is_some_and(|next| unit(next));
        (number(words[at]) && next) || (unit(words[at]) && at > 0 && number(words[at - 1]))
    };
    let kept = (0..words.len()).filter(|at| !is_time(*at)).map(|at| words[at]);
    kept.collect::<Vec<_>>().join(" ")
}

/// Why a command failed.
pub(super) fn complain(text: &str) {
    note(&format!("deployex: {text}"));
}

/// What a program wrote to its standard error goes to ours.
pub(super) fn pass_on_error(line: &str) -> Result<(), CliError> {
    writeln!(std::io::stderr(), "{line}").map_err(CliError::Output)
}

fn write(text: &str) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(CliError::Output)
}

/// Colours, where there is a terminal to show them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    pub(super) on: bool,
}

impl Paint {
    /// `● stable`: the shape and the word say it, the colour repeats it.
    pub(super) fn state(self, tone: Tone, word: impl std::fmt::Display) -> Cell {
        let (shape, colour) = match tone {
            Tone::Ok => ("●", 32),
            Tone::Moving => ("◐", 34),
            Tone::Waiting => ("◷", 33),
            Tone::Bad => ("▲", 31),
            Tone::Off => ("○", 90),
        };
        Cell { text: format!("{shape} {}", one_line(&word.to_string())), colour: self.on.then_some(colour) }
    }

    pub(super) fn headline(self, tone: Tone, text: &str) -> String {
        self.state(tone, text).painted()
    }
}

/// What stands in one place of a table.
pub(super) struct Cell {
    text: String,
    colour: Option<u8>,
}

impl Cell {
    fn width(&self) -> usize {
        self.text.chars().count()
    }

    pub(super) fn painted(&self) -> String {
        match self.colour {
            Some(colour) => format!("\x1b[{colour}m{}\x1b[0m", self.text),
            None => self.text.clone(),
        }
    }

    fn cut(mut self, width: usize) -> Self {
        self.text = cut(&self.text, width);
        self
    }
}

impl<T: std::fmt::Display> From<T> for Cell {
    fn from(value: T) -> Self {
        Self { text: one_line(&value.to_string()), colour: None }
    }
}

/// A table whose widest columns give way until a row fits.
pub(super) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(titles: &[&str]) -> Self {
        Self { rows: vec![titles.iter().map(|title| Cell::from(*title)).collect()] }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(super) fn render(self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let widest =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max();
        let mut widths: Vec<usize> = (0..columns).map(|column| widest(column).unwrap_or(0)).collect();
        let room = WIDTH.saturating_sub(GAP * columns.saturating_sub(1));
        while widths.iter().sum::<usize>() > room {
            let Some(widest) = widths.iter_mut().max().filter(|width| **width > NARROWEST) else { break };
            *widest -= 1;
        }
        let mut text = String::new();
        for row in self.rows {
            let mut line = String::new();
            for (cell, width) in row.into_iter().zip(&widths) {
                let cell = cell.cut(*width);
                line.push_str(&cell.painted());
                line.extend(std::iter::repeat_n(' ', width - cell.width() + GAP));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `key  value` lines.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (key, value) in facts {
        let value = cut(&one_line(value), WIDTH - width - GAP);
        text.push_str(format!("{key:width$}  {value}").trim_end());
        text.push('\n');
    }
    text
}

/// A paragraph, set in by `indent`, and what does not fit on its first line by two more.
pub(super) fn wrap_below(indent: &str, text: &str) -> String {
    let room = WIDTH.saturating_sub(indent.len() + 2);
    let lines = broken(text, room);
    let set = |(index, line): (usize, &String)| match index {
        0 => format!("{indent}{line}\n"),
        _ => format!("{indent}  {line}\n"),
    };
    lines.iter().enumerate().map(set).collect()
}

/// A paragraph, broken at spaces.
pub(super) fn wrap(text: &str) -> String {
    broken(text, WIDTH).join("\n") + "\n"
}

fn broken(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in one_line(text).split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => word.clone_into(line),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `3m`, of a moment that is past; nothing of one that never was.
pub(super) fn age(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "-".to_owned(), |at| duration(now.0.saturating_sub(at.0)))
}

/// In the largest unit that fits.
pub(super) fn duration(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*size);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

pub(super) fn or_dash(value: Option<impl std::fmt::Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub(super) fn place(node: &NodeName, slot: Slot) -> String {
    format!("{node}/{slot}")
}

/// What a program wrote may hold anything; none of it moves the cursor of the one who reads.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The last lines of what somebody else printed, set apart from our own words.
pub(super) fn quoted(text: &str, most: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(most)..];
    last.iter()
        .flat_map(|line| ["  | ".to_owned(), cut(&one_line(line), WIDTH - 4), "\n".to_owned()])
        .collect()
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(std::iter::once('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_gives_way_where_it_is_widest() {
        let mut table = Table::new(&["NAME", "TEXT"]);
        table.row(vec!["short".into(), "word ".repeat(50).into()]);
        let text = table.render();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("short  word"));
        assert!(text.contains('…'));
    }

    #[test]
    fn colour_is_only_on_a_terminal_and_changes_no_width() {
        let (plain, coloured) = (Paint { on: false }, Paint { on: true });
        assert_eq!(plain.state(Tone::Bad, "failed").painted(), "▲ failed");
        assert_eq!(coloured.state(Tone::Bad, "failed").painted(), "\x1b[31m▲ failed\x1b[0m");
        assert_eq!(plain.state(Tone::Bad, "failed").width(), coloured.state(Tone::Bad, "failed").width());
    }

    #[test]
    fn what_others_wrote_cannot_move_the_cursor() {
        assert_eq!(Cell::from("a\x1b[2Jb\nc").text, "a [2Jb c");
    }

    #[test]
    fn sizes_and_ages_are_short() {
        assert_eq!([bytes(17), bytes(1_536), bytes(52_428_800)], ["17 B", "1.5 KiB", "50.0 MiB"]);
        assert_eq!([duration(59_999), duration(3_600_000), duration(180_000_000)], ["59s", "1h", "2d"]);
        assert_eq!(age(None, Timestamp(0)), "-");
    }

    #[test]
    fn what_is_waited_for_is_said_once_while_only_its_time_runs() {
        let sentence = |left: &str| vec![format!("slot 2 on web-1 must stay ready for {left} more")];
        let mut said = News::default();
        assert_eq!(said.of(&sentence("1 min 3 s")).len(), 1);
        assert_eq!(said.of(&sentence("59 s")).len(), 0);
        let other = vec!["slot 3 on web-1 must stay ready for 59 s more".to_owned()];
        assert_eq!(said.of(&other), other);
        assert_eq!(said.of(&sentence("58 s")).len(), 1, "it was not said last time");
    }

    #[test]
    fn a_paragraph_is_broken_at_spaces() {
        let text = wrap(&"deployment ".repeat(20));
        assert!(text.lines().count() > 1 && text.lines().all(|line| line.len() <= WIDTH));
    }
}
