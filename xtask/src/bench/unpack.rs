//! What it takes to turn a large tarball into a release that can be started: ours beside the two commands that people use.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rustix::fs::IFlags;
use rustix::io::Errno;
use tempfile::TempDir;

use super::statistics::{interval, median};
use super::table::{Table, verdict};
use super::{fleet, machine, now, release};
use crate::command::{command, need_space, run_quietly};
use crate::fixtures::{Sample, Tarball};
use crate::setup::{Tool, require};
use crate::workspace;

pub(super) const ABOUT: &str = "CPU time of unpacking a release, beside `sha256sum FILE && tar xzf FILE`\n\n\
    A release of at least 50 MB, made of the Erlang sample and copies of the host's OTP. Ours is the agent's own code, built \
    for release: the tarball is brought from a file, verified, checked, unpacked, flushed to the disk, which the peer does not \
    do, and laid into a slot; then into a second slot. What lies in a slot is flushed once it runs, which nobody waits for and \
    is not in these figures. The turns alternate; CPU time is user and system together, of all processes of a turn.";

/// CPU time of the peer's turn over ours.
const RATIO_BAR: f64 = 1.5;
/// Of the second replica, over the first.
const SECOND_BAR: f64 = 0.1;
/// Most memory, resident.
const PEAK_BAR: f64 = 32.0;

pub(super) fn run(turns: usize) -> Result<()> {
    require(&[Tool::Erlang, Tool::Rebar3])?;
    fleet::build_agent()?;
    let tarball = release::large(Sample::Erlang)?;
    let digest = tarball.digest()?;
    let disk = workspace::target().join("bench");
    need_space(&disk, 500 * (turns as u64 + 1), "unpacking so often")?;
    let all_folders = TempDir::new_in(&disk)?;
    spread_folders(all_folders.path());
    let mut all = Turns::default();
    println!("unpacking, {turns} turns of each");
    // The first is for the caches alone.
    for turn in 0..=turns {
        // Removed with all others at the end: just after many files were removed, making new ones is slow on ext4.
        let folder = all_folders.path().join(turn.to_string());
        fs::create_dir(&folder)?;
        let ours = || -> Result<_> {
            let mut peak = 0.0_f64;
            let first = spent(&mut unpack(&tarball, &digest, &folder, 1), &mut peak)?;
            let second = spent(&mut unpack(&tarball, &digest, &folder, 2), &mut peak)?;
            Ok((first, second, peak))
        };
        let theirs = || spent(&mut peer(&tarball, &folder)?, &mut 0.0);
        // Who comes second finds the disk busy with what the first wrote, so they take turns at that too.
        let ((first, second, peak), theirs) = if turn % 2 == 0 {
            let ours = ours()?;
            (ours, theirs()?)
        } else {
            let theirs = theirs()?;
            (ours()?, theirs)
        };
        if turn > 0 {
            all.first.push(first);
            all.second.push(second);
            all.theirs.push(theirs);
            all.peak = all.peak.max(peak);
        }
    }
    println!("\n{}", machine::describe(&disk));
    println!("{turns} turns of each; tarball of {} MB\n", fs::metadata(&tarball.path)?.len() / 1_000_000);
    print!("{}", all.table());
    Ok(())
}

/// Asks ext4 to put each folder below this one somewhere else on the disk, as it does with those of users: away from where
/// files were removed lately, be it by an earlier benchmark or a compiler. Other file systems do not know the wish.
fn spread_folders(folder: &Path) {
    let set = File::open(folder).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)).and_then(
        |folder| {
            let flags = rustix::fs::ioctl_getflags(&folder)?;
            rustix::fs::ioctl_setflags(&folder, flags | IFlags::TOPDIR)
        },
    );
    if let Err(error) = set {
        println!("(folders are not spread over the disk: {error})");
    }
}

/// What one turn took, in seconds.
#[derive(Clone, Copy, Debug)]
struct Spent {
    cpu: f64,
    wall: f64,
}

#[derive(Default)]
struct Turns {
    first: Vec<Spent>,
    second: Vec<Spent>,
    theirs: Vec<Spent>,
    /// In MB.
    peak: f64,
}

impl Turns {
    fn table(&self) -> Table {
        let mut table = Table::new(&["", "CPU", "wall", "bar", ""]);
        for (name, spent) in [
            ("sha256sum && tar xzf", &self.theirs),
            ("DeployEx, first replica", &self.first),
            ("DeployEx, second replica", &self.second),
        ] {
            let middle = |of: fn(&Spent) -> f64| median(&spent.iter().map(of).collect::<Vec<_>>());
            let cell = |seconds: f64| format!("{:.0} ms", seconds * 1000.0);
            table.row([
                name.into(),
                cell(middle(|it| it.cpu)),
                cell(middle(|it| it.wall)),
                String::new(),
                String::new(),
            ]);
        }
        let cpu = ratios(&self.theirs, &self.first, |it| it.cpu);
        let wall = ratios(&self.theirs, &self.first, |it| it.wall);
        table.row([
            "peer / first replica".into(),
            with_interval(&cpu),
            format!("{:.2}", median(&wall)),
            format!("≥ {RATIO_BAR} (CPU)"),
            verdict(median(&cpu) >= RATIO_BAR),
        ]);
        let cpu = ratios(&self.second, &self.first, |it| it.cpu);
        let wall = ratios(&self.second, &self.first, |it| it.wall);
        table.row([
            "second / first replica".into(),
            with_interval(&cpu),
            format!("{:.2}", median(&wall)),
            format!("≤ {SECOND_BAR}"),
            verdict(median(&cpu) <= SECOND_BAR && median(&wall) <= SECOND_BAR),
        ]);
        table.row([
            "most memory".into(),
            format!("{:.1} MB", self.peak),
            String::new(),
            format!("≤ {PEAK_BAR} MB"),
            verdict(self.peak <= PEAK_BAR),
        ]);
        table
    }
}

/// Of each turn by itself.
fn ratios(over: &[Spent], under: &[Spent], of: fn(&Spent) -> f64) -> Vec<f64> {
    over.iter().zip(under).map(|(over, under)| of(over) / of(under)).collect()
}

fn with_interval(samples: &[f64]) -> String {
    let (low, high) = interval(samples);
    format!("{:.2} (95 %: {low:.2} to {high:.2})", median(samples))
}

/// Runs it with the disk at rest; raises `peak` to the memory that it says it took, in MB.
fn spent(command: &mut Command, peak: &mut f64) -> Result<Spent> {
    rustix::fs::sync();
    let before = children_cpu()?;
    let since = now();
    let said = run_quietly(command)?;
    let wall = since.elapsed().as_secs_f64();
    *peak = peak.max(said.lines().find_map(said_peak).unwrap_or(0.0));
    Ok(Spent { cpu: (children_cpu()?.saturating_sub(before)).as_secs_f64(), wall })
}

/// `peak  12345 kB`, in MB.
fn said_peak(line: &str) -> Option<f64> {
    let kilobytes: f64 = line.strip_prefix("peak")?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0 / 1e6)
}

/// User and system time of all children that have ended, and of theirs.
fn children_cpu() -> Result<Duration> {
    let usage =
        getrusage(UsageWho::RUSAGE_CHILDREN).context("the system does not tell the CPU time of children")?;
    let duration = |time: TimeVal| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
        Duration::from_secs(seconds)
            + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or_default())
    };
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

fn unpack(tarball: &Tarball, digest: &str, folder: &Path, slot: u32) -> Command {
    let mut unpack = command(workspace::release_program("deployex-unpack"));
    unpack.arg(&tarball.path).args(["--sha256", digest, "--version", &tarball.version]);
    unpack.args(["--app", tarball.sample.name(), "--language", tarball.sample.language()]);
    unpack.arg("--store").arg(folder.join("store")).arg("--slot").arg(folder.join(format!("slot{slot}")));
    unpack
}

fn peer(tarball: &Tarball, folder: &Path) -> Result<Command> {
    let into: PathBuf = folder.join("peer");
    fs::create_dir(&into)?;
    let path = &tarball.path;
    if !path.is_absolute() {
        bail!("{} is relative, and the peer works in a folder of its own", path.display());
    }
    let mut shell = command("sh");
    shell.args(["-c", "sha256sum \"$0\" >/dev/null && tar xzf \"$0\""]).arg(path).current_dir(into);
    Ok(shell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_held_to_their_bars() {
        let spent = |cpu: f64| vec![Spent { cpu, wall: cpu }; 5];
        let mut turns = Turns { first: spent(1.0), second: spent(0.09), theirs: spent(1.6), peak: 20.0 };
        let text = turns.table().to_string();
        assert_eq!(text.matches("  met").count(), 3, "{text}");
        assert!(text.contains("1.60 (95 %: 1.60 to 1.60)"), "{text}");
        turns = Turns { first: spent(1.0), second: spent(0.2), theirs: spent(1.4), peak: 33.0 };
        let text = turns.table().to_string();
        assert_eq!(text.matches("NOT MET").count(), 3, "{text}");
    }

    #[test]
    fn memory_and_cpu_time_are_told_by_whoever_used_them() {
        assert_eq!(said_peak("peak    2000 kB"), Some(2.048));
        assert_eq!(said_peak("unpacked"), None);
        let mut peak = 0.0;
        let spent = spent(command("sh").args(["-c", "echo peak 1000 kB"]), &mut peak).unwrap();
        assert!(spent.wall > 0.0 && spent.cpu < 5.0 && peak > 1.0);
    }
}
