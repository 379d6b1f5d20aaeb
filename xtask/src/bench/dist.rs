//! How fast a live node is asked: the agent's client of the distribution protocol beside an Erlang hidden node that asks the same.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::statistics::{interval, median};
use super::table::{Table, verdict};
use super::{fleet, machine};
use crate::command::{command, run_quietly};
use crate::setup::{Tool, require};
use crate::workspace;

pub(super) const ABOUT: &str = "Latency and rate of calls into a live node, beside an Erlang hidden node\n\n\
    `erlang:memory/0` by `erpc` on a node of the host's OTP, with one call in flight and with 64: by the agent's own client, built \
    for release, and by `erl -hidden`, over TCP and over TLS 1.3 with mutual certificates. Both keep their one connection; \
    their turns alternate in pairs, each with as many calls. Ratios are those of each pair by itself.";

/// Ours over the peer's: of what a call takes, and of calls a second.
const LATENCY_BAR: f64 = 1.05;
const RATE_BAR: f64 = 1.0;

/// Calls of a turn, in flight together in the second.
const ONE: usize = 2_000;
const MANY: usize = 20_000;
const FLIGHT: usize = 64;

const NODE: &str = "asked@127.0.0.1";
const COOKIE: &str = "oats-and-honey";
const PEER: &str = include_str!("dist/asker.erl");

/// Of a start.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn run(pairs: usize) -> Result<()> {
    require(&[Tool::Erlang])?;
    fleet::build_agent()?;
    let folder = TempDir::new()?;
    fs::write(folder.path().join("asker.erl"), PEER)?;
    run_quietly(command("erlc").arg("-o").arg(folder.path()).arg(folder.path().join("asker.erl")))?;
    let mut certificates = command(workspace::release_program("deployex-calls"));
    run_quietly(certificates.arg("certificates").arg(folder.path()).arg("127.0.0.1"))?;
    let mut table = Table::new(&["", "DeployEx", "erl -hidden", "ours / its", "bar", ""]);
    for (over, certificates) in [("TCP", None), ("TLS", Some(folder.path()))] {
        println!("calling over {over}, {pairs} pairs");
        let mut both = Both::start(folder.path(), certificates)?;
        let mut turns = Turns::default();
        // The first is for the caches alone.
        for pair in 0..=pairs {
            let (ours, theirs) = if pair % 2 == 0 {
                let ours = both.ours.turn()?;
                (ours, both.theirs.turn()?)
            } else {
                let theirs = both.theirs.turn()?;
                (both.ours.turn()?, theirs)
            };
            if pair > 0 {
                turns.ours.push(ours);
                turns.theirs.push(theirs);
            }
        }
        turns.tell(over, &mut table);
    }
    println!("\n{}", machine::describe(folder.path()));
    println!(
        "{pairs} alternating pairs of {ONE} calls one by one and {MANY} calls with {FLIGHT} in flight\n"
    );
    print!("{table}");
    Ok(())
}

/// What one turn found: nanoseconds, and calls a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Turn {
    p50: f64,
    p99: f64,
    one: f64,
    many: f64,
}

#[derive(Default)]
struct Turns {
    ours: Vec<Turn>,
    theirs: Vec<Turn>,
}

impl Turns {
    fn tell(&self, over: &str, table: &mut Table) {
        let micros = |nanos: f64| format!("{:.0} µs", nanos / 1000.0);
        let rate = |rate: f64| format!("{rate:.0}/s");
        self.row(table, format!("{over}, p50"), |it| it.p50, micros, true);
        self.row(table, format!("{over}, p99"), |it| it.p99, micros, true);
        self.row(table, format!("{over}, 1 in flight"), |it| it.one, rate, false);
        self.row(table, format!("{over}, {FLIGHT} in flight"), |it| it.many, rate, false);
    }

    fn row(
        &self,
        table: &mut Table,
        name: String,
        of: fn(&Turn) -> f64,
        shown: impl Fn(f64) -> String,
        is_latency: bool,
    ) {
        let middle = |turns: &[Turn]| shown(median(&turns.iter().map(of).collect::<Vec<_>>()));
        let ratios: Vec<f64> =
            self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| of(ours) / of(theirs)).collect();
        let (ratio, (low, high)) = (median(&ratios), interval(&ratios));
        let (bar, met) = match is_latency {
            true => (format!("≤ {LATENCY_BAR}"), ratio <= LATENCY_BAR),
            false => (format!("≥ {RATE_BAR:.1}"), ratio >= RATE_BAR),
        };
        table.row([
            name,
            middle(&self.ours),
            middle(&self.theirs),
            format!("{ratio:.2} (95 %: {low:.2} to {high:.2})"),
            bar,
            verdict(met),
        ]);
    }
}

/// The two that ask, connected to one node. All of it ends with it.
struct Both {
    ours: Asker,
    theirs: Asker,
    _node: Ends,
    _epmd: Ends,
}

impl Both {
    /// `certificates`: where they are, for TLS.
    fn start(folder: &Path, certificates: Option<&Path>) -> Result<Self> {
        let port = fleet::free_ports(1)?.to_string();
        let mut epmd = command("epmd");
        let epmd = Ends::start(epmd.args(["-port", &port, "-address", "127.0.0.1"]))?;
        let erl = |name: &str| {
            let mut erl = command("erl");
            erl.args(["-noshell", "-name", name, "-setcookie", COOKIE, "-start_epmd", "false"]);
            erl.args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"]);
            if let Some(folder) = certificates {
                erl.args(["-proto_dist", "inet_tls", "-ssl_dist_optfile"]).arg(folder.join("inet_tls.conf"));
            }
            erl.env("ERL_EPMD_PORT", &port).env("HOME", folder).current_dir(folder);
            erl
        };
        let node = Ends::start(&mut erl(NODE))?;
        known(&port)?;
        let mut ours = command(workspace::release_program("deployex-calls"));
        ours.args(["calls", NODE, "--epmd-port", &port, "--cookie", COOKIE]);
        if let Some(folder) = certificates {
            ours.arg("--certificates").arg(folder);
        }
        let mut theirs = erl("theirs@127.0.0.1");
        theirs.arg("-hidden").arg("-pa").arg(folder).args(["-run", "asker", "start", NODE]);
        Ok(Self { ours: Asker::start(ours)?, theirs: Asker::start(theirs)?, _node: node, _epmd: epmd })
    }
}

/// Until the name server knows the node.
fn known(port: &str) -> Result<()> {
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        let names = run_quietly(command("epmd").args(["-port", port, "-names"])).unwrap_or_default();
        if names.contains("name asked at port") {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    bail!("erl did not start as {NODE} within {} s", PATIENCE.as_secs())
}

/// A program that asks as it is told by lines, and says what it found by lines.
struct Asker {
    program: Ends,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Asker {
    fn start(mut asker: Command) -> Result<Self> {
        let mut program = Ends::start(asker.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let to = program.0.stdin.take().context("no standard input")?;
        let from = BufReader::new(program.0.stdout.take().context("no standard output")?);
        Ok(Self { program, to, from })
    }

    fn turn(&mut self) -> Result<Turn> {
        let one = self.ask(&format!("one {ONE}"))?;
        let many = self.ask(&format!("many {MANY} {FLIGHT}"))?;
        ensure!(one.len() == 3 && many.len() == 1, "these are no figures: {one:?} {many:?}");
        Ok(Turn { p50: one[0], p99: one[1], one: one[2], many: many[0] })
    }

    fn ask(&mut self, line: &str) -> Result<Vec<f64>> {
        let lost = || format!("process {} does not answer {line:?}", self.program.0.id());
        writeln!(self.to, "{line}").with_context(lost)?;
        let mut said = String::new();
        self.from.read_line(&mut said).with_context(lost)?;
        figures(line, &said).with_context(|| format!("{said:?} is no answer to {line:?}"))
    }
}

/// The numbers behind the word that was asked.
fn figures(asked: &str, said: &str) -> Option<Vec<f64>> {
    let mut words = said.split_whitespace();
    (words.next()? == asked.split(' ').next()?).then(|| words.map(|it| it.parse().ok()).collect())?
}

/// A program that ends with it.
struct Ends(Child);

impl Ends {
    fn start(program: &mut Command) -> Result<Self> {
        let name = program.get_program().to_string_lossy().into_owned();
        program.spawn().map(Self).with_context(|| format!("{name} could not be started"))
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_is_held_to_the_bar_by_itself() {
        let turn = |slower: f64, faster: f64| {
            let theirs: Vec<Turn> =
                (1..=9).map(f64::from).map(|it| Turn { p50: it, p99: it * 2.0, one: it, many: it }).collect();
            let ours = theirs
                .iter()
                .map(|it| Turn {
                    p50: it.p50 * slower,
                    p99: it.p99 * slower,
                    one: it.one * faster,
                    many: it.many * faster,
                })
                .collect();
            let mut table = Table::new(&["", "DeployEx", "erl -hidden", "ours / its", "bar", ""]);
            Turns { ours, theirs }.tell("TCP", &mut table);
            table.to_string()
        };
        let text = turn(1.04, 1.1);
        assert!(text.matches("  met").count() == 4 && text.contains("1.04 (95 %: 1.04 to 1.04)"), "{text}");
        let text = turn(1.06, 0.99);
        assert_eq!(text.matches("NOT MET").count(), 4, "{text}");
    }

    #[test]
    fn figures_are_told_from_anything_else_that_is_said() {
        assert_eq!(figures("one 2000", "one 1 2 3\n"), Some(vec![1.0, 2.0, 3.0]));
        assert_eq!(figures("many 2000 64", "one 1 2 3\n"), None);
        assert_eq!(figures("one 2000", ""), None);
        assert_eq!(figures("one 2000", "one badarg\n"), None);
    }
}
