//! What `/proc` says of a process: memory, CPU time, children. The parsing is pure.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Resident bytes, shared pages included.
pub(super) fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    kilobytes(&text, &["VmRSS"]).with_context(|| format!("{path} has no VmRSS"))
}

/// Bytes that nobody else has: what would be free if the process ended (USS).
pub(super) fn private(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    kilobytes(&text, &["Private_Clean", "Private_Dirty"]).with_context(|| format!("{path} is not understood"))
}

/// The sum of these lines, in bytes; `None` where one is missing.
fn kilobytes(text: &str, names: &[&str]) -> Option<u64> {
    let line = |name: &&str| {
        let mut words =
            text.lines().find_map(|line| line.strip_prefix(*name)?.strip_prefix(':'))?.split_whitespace();
        words.next()?.parse::<u64>().ok()
    };
    names.iter().map(line).sum::<Option<u64>>().map(|sum| sum * 1024)
}

/// CPU time so far, of all threads.
#[derive(Clone, Debug, Default)]
pub(super) struct CpuTime {
    /// By thread, in nanoseconds.
    threads: Vec<(u32, u64)>,
    /// Of the whole process, those that ended included, in ticks of 10 ms.
    ticks: u64,
}

impl CpuTime {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let tasks = format!("/proc/{pid}/task");
        let entries = fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))?;
        let threads = entries.flatten().filter_map(|entry| {
            let thread = entry.file_name().to_str()?.parse().ok()?;
            Some((thread, nanoseconds(&fs::read_to_string(entry.path().join("schedstat")).ok()?)?))
        });
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Ok(Self {
            threads: threads.collect(),
            ticks: Stat::parse(&stat).context("a process has a stat line")?.ticks,
        })
    }

    /// Seconds used since `earlier`. Threads that ended in between are in the ticks alone, which are coarse; so it is the
    /// larger of the two.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of minutes")]
    pub(super) fn since(&self, earlier: &Self) -> f64 {
        let before =
            |thread: u32| earlier.threads.iter().find(|(it, _)| *it == thread).map_or(0, |(_, used)| *used);
        let used: u64 = self.threads.iter().map(|(thread, used)| used.saturating_sub(before(*thread))).sum();
        let ticks =
            self.ticks.saturating_sub(earlier.ticks) as f64 / rustix::param::clock_ticks_per_second() as f64;
        (used as f64 / 1e9).max(ticks)
    }
}

/// Of `/proc/PID/task/TID/schedstat`: time on the CPU, time waiting for it, turns.
fn nanoseconds(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

struct Stat {
    parent: u32,
    ticks: u64,
}

impl Stat {
    /// The name in parentheses may hold anything, so fields are counted from the last one.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self { parent: u32::try_from(number(4)?).ok()?, ticks: number(14)? + number(15)? })
    }
}

/// Who has that parent.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|it| parent(*it) == Some(pid))
        .collect()
}

pub(super) fn parent(pid: u32) -> Option<u32> {
    Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(|it| it.parent)
}

/// The name of the file that it executes.
pub(super) fn program(pid: u32) -> Option<String> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Path::new(&exe).file_name()?.to_str().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_what_is_clean_and_dirty_together() {
        let rollup = "00400000-7ffc rollup\nRss:    1348 kB\nPrivate_Clean:        20 kB\nPrivate_Dirty:       180 kB\n";
        assert_eq!(kilobytes(rollup, &["Private_Clean", "Private_Dirty"]), Some(200 * 1024));
        assert_eq!(kilobytes(rollup, &["Rss"]), Some(1348 * 1024));
        assert_eq!(kilobytes(rollup, &["Pss"]), None);
    }

    #[test]
    fn cpu_time_counts_new_threads_and_those_that_ended() {
        let before = CpuTime { threads: vec![(1, 1_000_000_000), (2, 5)], ticks: 100 };
        let after = CpuTime { threads: vec![(1, 1_500_000_000), (3, 250_000_000)], ticks: 100 };
        assert!((after.since(&before) - 0.75).abs() < 1e-9);
        let ended = CpuTime { threads: Vec::new(), ticks: 300 };
        assert!(ended.since(&before) > 0.5);
        assert_eq!(nanoseconds("123456 789 10\n"), Some(123_456));
        assert_eq!(nanoseconds(""), None);
    }

    #[test]
    fn a_stat_line_is_read_past_the_name() {
        let stat =
            Stat::parse("42 (a) b (c)) S 7 8 9 0 -1 4194304 1 2 3 4 70 30 0 0 20 0 1 0 777 1000 5").unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 100));
        assert!(Stat::parse("42 (a").is_none());
    }

    #[test]
    fn this_very_process_can_be_looked_at() {
        let own = std::process::id();
        assert!(resident(own).unwrap() > private(own).unwrap() / 2);
        assert!(CpuTime::of(own).unwrap().since(&CpuTime::default()) > 0.0);
        assert!(children(parent(own).unwrap()).contains(&own));
    }
}
