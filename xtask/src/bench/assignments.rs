//! How fast the control plane commits to the disk what nodes are to run, on both of its databases.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::statistics::{interval, median};
use super::table::{Table, verdict};
use super::{machine, now};
use crate::command::{self, command, need_space, run_quietly};
use crate::postgres::Server;
use crate::setup::{Tool, detect};
use crate::workspace;

pub(super) const ABOUT: &str = "Assignments committed durably per second, on SQLite and on PostgreSQL\n\n\
    The control plane's own code, optimized, stores plans one after another: each reads the application's generation and is \
    one transaction, with the new generations of the nodes and the history of the slots; every slot gets another release \
    than it had. It is on the disk when the next one begins: SQLite with `synchronous=FULL`, PostgreSQL (where it is \
    installed) with `fsync` and `synchronous_commit` on. Beside it how often the same disk flushes 4 KiB that were appended \
    to a file: a plan of one slot is bounded by that, and the bar is for plans of a fleet, from 100 slots on. The peers' \
    figures are published ones, of schedulers on clusters of their own, and not measured here.";

/// Where files outlive a restart, so that a flush is one, and where the user of PostgreSQL may have a folder.
const DISK: &str = "/var/tmp";

/// Slots in a plan.
const BATCHES: [u32; 4] = [1, 10, 100, 1000];
/// From so many on the bar counts.
const FLEET: u32 = 100;
/// Assignments per second.
const BAR: f64 = 4_000.0;
const PEERS: [(&str, f64); 2] = [("Nomad C1M, published", 3_750.0), ("Nomad C2M, published", 1_500.0)];

pub(super) fn run(turns: usize, each: Duration) -> Result<()> {
    build()?;
    let disk = Path::new(DISK);
    need_space(disk, 1000, "databases")?;
    let folder = TempDir::new_in(disk)?;
    let server = detect::is_present(Tool::Postgres).then(|| Server::durable(disk)).transpose()?;
    if server.is_none() {
        println!("PostgreSQL is left out, as it is not installed: cargo xtask setup");
    }
    println!("storing plans, {turns} turns of each");
    let (mut flushes, mut sqlite, mut postgres) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..turns {
        flushes.push(flushes_per_second(folder.path(), each)?);
        let file = folder.path().join(format!("{turn}.db"));
        sqlite.extend(store(&format!("sqlite://{}", file.display()), each)?);
        if let Some(server) = &server {
            postgres.extend(store(&server.create_database(&format!("turn_{turn}"))?, each)?);
        }
    }
    println!("\n{}", machine::describe(disk));
    let (low, high) = interval(&flushes);
    println!(
        "{turns} turns of {} ms each; the disk alone: {:.0} flushes/s (95 %: {low:.0} to {high:.0})\n",
        each.as_millis(),
        median(&flushes)
    );
    print!("{}", table(&sqlite, &postgres));
    Ok(())
}

fn build() -> Result<()> {
    println!("building what stores plans, optimized");
    let mut build = command("cargo");
    build.args(["build", "--quiet", "--profile", "measured", "--package", "control-plane"]);
    build.args(["--bin", "deployex-assignments", "--features", "bench"]);
    command::run(build.current_dir(workspace::root()))
}

fn flushes_per_second(folder: &Path, lasting: Duration) -> Result<f64> {
    let mut file = File::create(folder.join("flushed"))?;
    let (since, mut count) = (now(), 0_u32);
    while since.elapsed() < lasting {
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / since.elapsed().as_secs_f64())
}

/// One turn at one batch.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stored {
    batch: u32,
    plans_per_second: f64,
}

/// A turn at every batch, into an empty database.
fn store(url: &str, each: Duration) -> Result<Vec<Stored>> {
    let batches = BATCHES.map(|batch| batch.to_string()).join(",");
    let mut program = command(workspace::measured_program("deployex-assignments"));
    program.args(["--database-url", url, "--batches", &batches, "--millis", &each.as_millis().to_string()]);
    let said = run_quietly(&mut program)?;
    let stored: Vec<_> = said.lines().filter_map(said_stored).collect();
    ensure!(stored.len() == BATCHES.len(), "not a figure for each batch:\n{said}");
    Ok(stored)
}

/// `stored 20 plans of 10 in 1003 ms`.
fn said_stored(line: &str) -> Option<Stored> {
    let (plans, rest) = line.strip_prefix("stored ")?.split_once(" plans of ")?;
    let (batch, millis) = rest.strip_suffix(" ms")?.split_once(" in ")?;
    let (plans, millis): (f64, f64) = (plans.parse().ok()?, millis.parse().ok()?);
    Some(Stored { batch: batch.parse().ok()?, plans_per_second: plans * 1000.0 / millis })
}

fn table(sqlite: &[Stored], postgres: &[Stored]) -> Table {
    let mut table = Table::new(&["", "slots in a plan", "plans/s", "assignments/s", "bar", ""]);
    for (engine, stored) in [("SQLite", sqlite), ("PostgreSQL", postgres)] {
        for batch in BATCHES {
            let plans: Vec<_> =
                stored.iter().filter(|it| it.batch == batch).map(|it| it.plans_per_second).collect();
            if plans.is_empty() {
                continue;
            }
            let assignments: Vec<_> = plans.iter().map(|plans| plans * f64::from(batch)).collect();
            let (middle, (low, high)) = (median(&assignments), interval(&assignments));
            let (bar, met) = match batch >= FLEET {
                true => (format!("≥ {BAR}"), verdict(middle >= BAR)),
                false => Default::default(),
            };
            table.row([
                engine.into(),
                batch.to_string(),
                format!("{:.0}", median(&plans)),
                format!("{middle:.0} (95 %: {low:.0} to {high:.0})"),
                bar,
                met,
            ]);
        }
    }
    for (peer, rate) in PEERS {
        let empty = String::new;
        table.row([peer.into(), empty(), empty(), format!("{rate:.0}"), empty(), empty()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_understood() {
        let stored = said_stored("stored 20 plans of 10 in 2000 ms");
        assert_eq!(stored, Some(Stored { batch: 10, plans_per_second: 10.0 }));
        assert_eq!(said_stored("building"), None);
    }

    #[test]
    fn plans_of_a_fleet_are_held_to_the_bar_and_others_are_not() {
        let at = |plans_per_second| BATCHES.map(|batch| Stored { batch, plans_per_second });
        let text = table(&at(50.0), &[]).to_string();
        assert_eq!((text.matches("  met").count(), text.matches("NOT MET").count()), (2, 0), "{text}");
        assert!(text.contains("Nomad C1M") && !text.contains("PostgreSQL"), "{text}");
        let text = table(&at(30.0), &at(1.0)).to_string();
        assert_eq!((text.matches("  met").count(), text.matches("NOT MET").count()), (1, 3), "{text}");
    }
}
