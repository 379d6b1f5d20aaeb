//! How long a replica that was killed is missing: from its SIGKILL until its successor's program is executed, ours beside
//! other supervisors that run the same program.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::fleet::{self, Fleet, Published};
use super::machine;
use super::statistics::{interval, median};
use super::table::{Table, verdict};
use crate::command::{command, run_quietly};
use crate::fixtures::{self, Sample};
use crate::setup::{Tool, require};
use program::Program;
use subject::Subject;

pub(super) mod program;
pub(super) mod subject;
mod watch;

pub(super) const ABOUT: &str = "From the SIGKILL of a replica to the execution of its successor, beside runit and supervisord\n\n\
    The Erlang sample's release, and a small C program in the shape of a release, each under an agent built for release with \
    its control plane, under runit's `runsv` and under supervisord at the same time. Each turn kills the replica of one and \
    waits until the kernel says that the program's file was opened again to be executed, which is the same observer for all; \
    then it waits until the successor is ready and the machine calm. Ours and runit's turns alternate in pairs. Every crash is \
    the first after a stable time, so nobody holds a restart back.";

/// Longer than runit, in milliseconds.
const BAR: f64 = 2.0;
/// Restarts by supervisord take one to two seconds each, and are not what is compared with.
const SUPERVISORD_EVERY: usize = 10;

pub(super) fn run(pairs: usize) -> Result<()> {
    require(&[
        Tool::CCompiler,
        Tool::Erlang,
        Tool::Rebar3,
        Tool::Runit,
        Tool::Supervisord,
        Tool::ApplicationUser,
    ])?;
    fleet::build()?;
    let tarball = fixtures::tarball(Sample::Erlang, "0.1.0")?;
    let beam = Published { app: tarball.sample.name(), version: "0.1.0", path: tarball.path };
    let work = TempDir::new()?;
    let small = Published { app: program::SMALL, version: "0.1.0", path: program::small(work.path())? };
    let mut table = Table::new(&["", "turns", "median", "longer than runit", "bar", ""]);
    for program in [Program::beam(&beam)?, Program::small(&small)] {
        println!("killing {}, {pairs} times each", program.name);
        let turns = measure(&program, pairs)?;
        turns.tell(program.name, &mut table);
    }
    println!("\n{}", machine::describe(&std::env::temp_dir()));
    println!("from SIGKILL to the execution of the successor; {pairs} alternating pairs\n");
    print!("{table}");
    Ok(())
}

#[derive(Default)]
struct Turns {
    ours: Vec<f64>,
    runit: Vec<f64>,
    supervisord: Vec<f64>,
}

fn measure(program: &Program<'_>, pairs: usize) -> Result<Turns> {
    let fleet = Fleet::start(std::slice::from_ref(program.published), &program.application(1))?;
    fleet.rests(program.published.app)?;
    let mut ours = Subject::ours(program, &fleet)?;
    let mut runit = Subject::runit(program, &fleet, &peer_folder(&fleet, program, "runit")?)?;
    let mut supervisord =
        Subject::supervisord(program, &fleet, &peer_folder(&fleet, program, "supervisord")?)?;
    let mut turns = Turns::default();
    // The first pair warms the caches.
    for pair in 0..=pairs {
        let (our_turn, runits_turn) = if pair % 2 == 0 {
            let our_turn = ours.kill()?;
            (our_turn, runit.kill()?)
        } else {
            let runits_turn = runit.kill()?;
            (ours.kill()?, runits_turn)
        };
        if pair > 0 {
            turns.ours.push(our_turn);
            turns.runit.push(runits_turn);
        }
        if pair % SUPERVISORD_EVERY == 1 {
            turns.supervisord.push(supervisord.kill()?);
        }
    }
    Ok(turns)
}

/// With the release unpacked in it, as people do by hand.
fn peer_folder(fleet: &Fleet, program: &Program<'_>, peer: &str) -> Result<PathBuf> {
    let folder = fleet.path().join(peer);
    let release = folder.join("release");
    fs::create_dir_all(&release).with_context(|| format!("cannot create {}", release.display()))?;
    run_quietly(command("tar").arg("-xzf").arg(&program.published.path).arg("-C").arg(&release))?;
    Ok(folder)
}

impl Turns {
    fn tell(&self, program: &str, table: &mut Table) {
        let row = |name: &str, samples: &[f64], difference: [String; 3]| {
            let [difference, bar, verdict] = difference;
            let median = format!("{:.1} ms", median(samples));
            [format!("{program}, {name}"), samples.len().to_string(), median, difference, bar, verdict]
        };
        let none = || [String::new(), String::new(), String::new()];
        let differences: Vec<f64> =
            self.ours.iter().zip(&self.runit).map(|(ours, runit)| ours - runit).collect();
        let (low, high) = interval(&differences);
        let middle = median(&differences);
        let difference = [
            format!("{middle:+.2} ms (95 %: {low:+.2} to {high:+.2})"),
            format!("≤ {BAR:+} ms"),
            verdict(middle <= BAR),
        ];
        table.row(row("DeployEx", &self.ours, difference));
        table.row(row("runit", &self.runit, none()));
        table.row(row("supervisord", &self.supervisord, none()));
    }
}

/// Where an executable of a release lies.
fn executable(release: &Path, app: &str) -> PathBuf {
    release.join("bin").join(app)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paired_difference_is_what_is_held_to_the_bar() {
        let table = |over: f64| {
            let runit: Vec<f64> = (0..50).map(f64::from).collect();
            let ours = runit.iter().map(|it| it + over).collect();
            let mut table = Table::new(&["", "turns", "median", "longer than runit", "bar", ""]);
            Turns { ours, runit, supervisord: vec![1000.0] }.tell("a release", &mut table);
            table.to_string()
        };
        assert!(table(1.5).contains("+1.50 ms (95 %: +1.50 to +1.50)"), "{}", table(1.5));
        assert!(table(1.5).contains("  met") && table(2.5).contains("NOT MET"));
        assert!(table(-3.0).contains("-3.00 ms"));
    }
}
