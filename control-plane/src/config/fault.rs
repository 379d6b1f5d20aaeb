//! What is wrong with a configuration, and where: one sentence for each fault, that says what was found and what is allowed.
//!
//! Faults are gathered, never returned at the first one: an operator mends a file once. Which value is wrong is decided by
//! the readers; this only keeps and words it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

/// So many are shown: a file with more than this is not read to its end by anybody.
const SHOWN: usize = 50;
/// So many are kept, which bounds what a hostile file can cost.
const KEPT: usize = 1_000;
/// A value in a message is cut here, so that a pasted key or a long line does not fill the screen.
const SHOWN_VALUE: usize = 60;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Counted from 1.
    File {
        line: usize,
        column: usize,
    },
    /// The file as such: it is missing something, or cannot be read.
    WholeFile,
    Variable(String),
    Flag(&'static str),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    pub origin: Origin,
    /// `applications[myapp].replicas`; empty for the file as a whole.
    pub path: String,
    /// What was found, as a noun: `"three"`, `a list`.
    pub found: String,
    /// What is allowed or to be done.
    pub advice: String,
}

impl Fault {
    /// What follows the place: the same words wherever it is shown.
    pub fn message(&self) -> String {
        format!("found {}; {}", self.found, self.advice)
    }
}

/// Every fault of one reading, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// As the operator named it; `None`: variables and flags alone.
    pub file: Option<String>,
    pub faults: Vec<Fault>,
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        let what = self.file.as_deref().unwrap_or("the configuration");
        write!(
            f,
            "{what} has {count} fault{s}; nothing of it was applied",
            s = if count == 1 { "" } else { "s" }
        )?;
        for fault in self.faults.iter().take(SHOWN) {
            f.write_str("\n  ")?;
            self.line(fault, f)?;
        }
        if count > SHOWN {
            write!(f, "\n  and {} more", count - SHOWN)?;
        }
        Ok(())
    }
}

impl Faults {
    fn line(&self, fault: &Fault, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_deref().unwrap_or("configuration");
        match &fault.origin {
            Origin::File { line, column } => write!(f, "{file}:{line}:{column}: ")?,
            Origin::WholeFile => write!(f, "{file}: ")?,
            Origin::Variable(name) => write!(f, "{name}: ")?,
            Origin::Flag(flag) => write!(f, "{flag}: ")?,
        }
        if !fault.path.is_empty() {
            write!(f, "{}: ", fault.path)?;
        }
        f.write_str(&fault.message())
    }
}

/// A value, and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub value: T,
    pub origin: Origin,
}

/// What every reader is given: the variables, and where to put what it finds wrong or worth saying.
pub(super) struct Sink<'a> {
    pub variables: &'a BTreeMap<String, String>,
    faults: RefCell<Vec<Fault>>,
    notices: RefCell<Vec<String>>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(variables: &'a BTreeMap<String, String>) -> Self {
        Self { variables, faults: RefCell::default(), notices: RefCell::default() }
    }

    /// A variable that is set to nothing counts as unset: that is how unit files and shells take one back.
    pub(super) fn variable(&self, name: &str) -> Option<&'a str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn fault(
        &self,
        origin: Origin,
        path: &str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let fault = Fault { origin, path: path.to_owned(), found: found.into(), advice: advice.into() };
        if !self.is_full() {
            self.faults.borrow_mut().push(fault);
        }
    }

    pub(super) fn notice(&self, text: String) {
        self.notices.borrow_mut().push(text);
    }

    /// Nothing more is kept.
    pub(super) fn is_full(&self) -> bool {
        self.faults.borrow().len() >= KEPT
    }

    pub(super) fn is_clean(&self) -> bool {
        self.faults.borrow().is_empty()
    }

    /// Faults in the order of the file, those that an alias brought twice once; then what is worth saying.
    pub(super) fn into_parts(self) -> (Vec<Fault>, Vec<String>) {
        let mut faults = self.faults.into_inner();
        faults.sort();
        faults.dedup();
        (faults, self.notices.into_inner())
    }
}

/// A value as it is shown in a message.
pub(super) fn shown(value: &str) -> String {
    let mut text: String = value.chars().take(SHOWN_VALUE).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    format!("{text:?}")
}

/// The known word that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance takes time and memory with the length of both.
    if word.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    known
        .into_iter()
        .map(|it| (strsim::damerau_levenshtein(&word, &plain(it)), it))
        // A third of the letters may differ, so that `x` is not taken for every short key.
        .filter(|(distance, it)| *distance <= it.len().max(word.len()) / 3)
        .min()
        .map(|(_, it)| it)
}

/// `a, b or c`.
pub(super) fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_finds_its_neighbour_and_a_strange_one_finds_none() {
        let known = ["replicas", "replica_ports", "name", "env", "env_file"];
        assert_eq!(nearest("replica", known), Some("replicas"));
        assert_eq!(nearest("Replica-Ports", known), Some("replica_ports"));
        assert_eq!(nearest("nmae", known), Some("name"));
        assert_eq!(nearest("x", known), None);
        assert_eq!(nearest("kubernetes", known), None);
    }

    #[test]
    fn many_faults_are_counted_and_the_first_are_shown() {
        let faults = (1..=60)
            .map(|line| Fault {
                origin: Origin::File { line, column: 3 },
                path: "x".to_owned(),
                found: "an unknown key".to_owned(),
                advice: "remove it".to_owned(),
            })
            .collect();
        let text = Faults { file: Some("deployex.yaml".to_owned()), faults }.to_string();
        assert!(text.starts_with("deployex.yaml has 60 faults; nothing of it was applied\n  deployex.yaml:1:3: x: found an unknown key; remove it\n"), "{text}");
        assert!(text.ends_with("and 10 more"), "{text}");
    }

    #[test]
    fn a_long_value_is_cut_and_control_characters_are_escaped() {
        assert_eq!(shown("a\nb"), "\"a\\nb\"");
        assert!(shown(&"ä".repeat(1000)).chars().count() < 70);
    }
}
