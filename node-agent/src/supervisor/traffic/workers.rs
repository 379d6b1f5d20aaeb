//! When a reload of NGINX has taken hold: its command only sends a signal. For a moment after that the old workers still take
//! requests and send them as the old configuration says.
//!
//! A worker that takes no more says so in its title. Which NGINX it is, the reload alone knows: the one is waited for that has
//! new workers.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use tokio::time::sleep;

use crate::clock;

const LOOK: Duration = Duration::from_millis(20);
/// An NGINX that reads its configuration for longer than this is taken to have turned over.
const PATIENCE_MS: u64 = 5_000;
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

/// The workers of before a reload.
pub(super) struct Before(Workers);

impl Before {
    pub(super) fn look() -> Self {
        Self(workers())
    }

    /// Until new workers have taken their place.
    pub(super) async fn turned_over(self) {
        if self.0.values().all(|it| it.leaving) {
            return sleep(UNSEEN).await;
        }
        let since = clock::now();
        while !turned_over(&self.0, &workers()) && clock::now() < since.plus(PATIENCE_MS) {
            sleep(LOOK).await;
        }
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
