//! When a reload of NGINX has taken hold: its command only sends a signal. For a moment after that the old workers still take
//! requests and send them as the old configuration says. They go on doing so where NGINX cannot do what it was told (a port
//! that another program has): then its command has succeeded all the same, and only its log says why.
//!
//! A worker that takes no more says so in its title. Which NGINX it is, the reload alone knows: the one is waited for that has
//! new workers. One that was told and has none is known by that: its master, which sleeps until it gets a signal, was awake.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use tokio::time::sleep;

use crate::clock;

const LOOK: Duration = Duration::from_millis(20);
/// No less than a check may take: an NGINX that reads its configuration for longer than this is taken to have failed.
const PATIENCE_MS: u64 = 10_000;
/// Where no master that can be seen was told anything, the one that was told is taken to have turned over after this.
const UNTOLD_MS: u64 = 5_000;
/// Where no worker can be seen (an NGINX without a master, in another PID namespace): long enough for most.
const UNSEEN: Duration = Duration::from_millis(500);

const TITLE: &str = "nginx: worker process";
const LEAVING: &str = "nginx: worker process is shutting down";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Worker {
    master: u32,
    /// It finishes what it has and takes no more.
    leaving: bool,
}

/// By pid.
type Workers = BTreeMap<u32, Worker>;

/// How often each master has slept, by pid.
type Sleeps = BTreeMap<u32, u64>;

/// NGINX read its configuration, and works on as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it was told to read its configuration anew and works on with the old one; its error log says why \
     (as `bind() failed` where another program has a port that it is to listen on)"
)]
pub(super) struct WorksOn;

/// The workers of before a reload.
pub(super) struct Before {
    workers: Workers,
    sleeps: Sleeps,
}

impl Before {
    pub(super) fn look() -> Self {
        let workers = workers();
        let masters: BTreeSet<u32> = workers.values().map(|it| it.master).collect();
        let sleeps = masters.into_iter().filter_map(|it| Some((it, sleeps(it)?))).collect();
        Self { workers, sleeps }
    }

    /// Until new workers have taken their place. An error: they have not, and will not.
    pub(super) async fn turned_over(self) -> Result<(), WorksOn> {
        if self.workers.values().all(|it| it.leaving) {
            sleep(UNSEEN).await;
            return Ok(());
        }
        let since = clock::now();
        loop {
            if turned_over(&self.workers, &workers()) {
                return Ok(());
            }
            let waited = clock::now().since(since);
            if waited >= UNTOLD_MS && !self.was_any_told() {
                return Ok(());
            }
            if waited >= PATIENCE_MS {
                return Err(WorksOn);
            }
            sleep(LOOK).await;
        }
    }

    /// A master that is there still was awake since.
    fn was_any_told(&self) -> bool {
        self.sleeps.iter().any(|(master, before)| sleeps(*master).is_some_and(|now| now != *before))
    }
}

/// There is a master whose workers are all new, or leave.
fn turned_over(before: &Workers, now: &Workers) -> bool {
    let had_any = |master: u32| before.values().any(|it| it.master == master && !it.leaving);
    let all_new = |master: u32| {
        now.iter().all(|(pid, it)| it.master != master || it.leaving || !before.contains_key(pid))
    };
    now.values().any(|it| !it.leaving && had_any(it.master) && all_new(it.master))
}

fn workers() -> Workers {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, worker(pid)?))).collect()
}

fn worker(pid: u32) -> Option<Worker> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let title = String::from_utf8_lossy(&words);
    if !title.starts_with(TITLE) {
        return None;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let master = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
    Some(Worker { master, leaving: title.starts_with(LEAVING) })
}

/// `None`: it is gone, or this system does not say.
fn sleeps(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|it| it.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(workers: &[(u32, u32, bool)]) -> Workers {
        workers
            .iter()
            .map(|(pid, master, leaving)| (*pid, Worker { master: *master, leaving: *leaving }))
            .collect()
    }

    #[test]
    fn a_reload_has_taken_hold_once_no_old_worker_takes_requests() {
        let before = seen(&[(2, 1, false), (3, 1, false), (4, 1, true), (8, 7, false)]);
        for not_yet in [
            before.clone(),
            // The new ones are there, the old ones not yet told.
            seen(&[(2, 1, false), (3, 1, false), (5, 1, false), (6, 1, false), (8, 7, false)]),
            seen(&[(3, 1, false), (5, 1, false), (6, 1, false), (8, 7, false)]),
            seen(&[(8, 7, false)]),
        ] {
            assert!(!turned_over(&before, &not_yet), "{not_yet:?}");
        }
        for then in [
            seen(&[(5, 1, false), (6, 1, false), (8, 7, false)]),
            seen(&[(2, 1, true), (3, 1, true), (5, 1, false), (8, 7, false)]),
        ] {
            assert!(turned_over(&before, &then), "{then:?}");
        }
    }
}
