//! How busy the schedulers of a VM are, as the kernel counts it: the CPU time of its scheduler threads.
//!
//! The VM's own figure (`scheduler_wall_time`) is off until somebody switches it on, is on for as long as that process lives,
//! and then has every scheduler read the clock whenever it turns to something else. For that a process of ours would have to
//! live in the node. What the kernel counts costs the node nothing; it holds busy waiting, too, which a scheduler does for
//! a moment before it sleeps (`+sbwt`).

use std::path::PathBuf;

use tokio::time::Instant;

use crate::kernel_file;

/// A VM has no more than this.
const MOST_SCHEDULERS: usize = 1_024;

/// The scheduler threads of one process, and what they had used at the last look.
#[derive(Debug)]
pub struct Schedulers {
    /// Where the CPU time of each stands.
    files: Vec<PathBuf>,
    last: Option<(u64, Instant)>,
}

impl Schedulers {
    /// The threads are made when the VM boots, and stay.
    pub fn of(pid: u32) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let is_scheduler = |folder: &PathBuf| {
            kernel_file::read(folder.join("comm")).is_ok_and(|name| is_scheduler(name.trim_end()))
        };
        let folders = tasks.map(|it| it.path()).filter(is_scheduler).take(MOST_SCHEDULERS);
        Self { files: folders.map(|it| it.join("schedstat")).collect(), last: None }
    }

    /// Since the last look, 0 to 100 of all of them. `None`: this is the first, or the kernel does not count.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of some seconds")]
    pub fn percent(&mut self) -> Option<f64> {
        let used = |file: &PathBuf| nanoseconds(&kernel_file::read(file).ok()?);
        let used: u64 = self.files.iter().map(used).sum::<Option<u64>>()?;
        let now = Instant::now();
        let (before, at) = self.last.replace((used, now))?;
        let passed = now.duration_since(at).as_nanos() as f64 * self.files.len() as f64;
        (passed > 0.0).then(|| (100.0 * used.saturating_sub(before) as f64 / passed).min(100.0))
    }
}

/// `1_scheduler` up to OTP 25, `erts_sched_1` from 26 on; those that do what is dirty are others.
fn is_scheduler(thread: &str) -> bool {
    let is_number = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit());
    thread.strip_suffix("_scheduler").or_else(|| thread.strip_prefix("erts_sched_")).is_some_and(is_number)
}

/// The first of three numbers: time on a CPU.
fn nanoseconds(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_that_run_processes_are_told_from_the_others() {
        let names = ["1_scheduler", "24_scheduler", "erts_sched_1", "erts_sched_128"];
        assert!(names.into_iter().all(is_scheduler));
        let others = [
            "beam.smp",
            "1_dirty_cpu_sch",
            "10_dirty_io_sch",
            "erts_dcpus_1",
            "_scheduler",
            "1_aux",
            "0_poller",
        ];
        assert!(!others.into_iter().any(is_scheduler));
    }

    #[test]
    fn a_process_that_is_no_vm_or_is_gone_has_no_figure() {
        for pid in [std::process::id(), u32::MAX - 1] {
            let mut none = Schedulers::of(pid);
            assert_eq!(none.files.len(), 0);
            assert!(none.percent().is_none() && none.percent().is_none());
        }
    }

    #[test]
    fn time_on_a_cpu_is_a_share_of_what_passed_on_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> = ["a", "b"].map(|name| folder.path().join(name)).to_vec();
        let write = |used: [u64; 2]| {
            for (file, used) in files.iter().zip(used) {
                std::fs::write(file, format!("{used} 7 3\n")).unwrap();
            }
        };
        write([1_000, 2_000]);
        let mut schedulers = Schedulers { files: files.clone(), last: None };
        assert_eq!(schedulers.percent(), None);
        assert_eq!(schedulers.percent(), Some(0.0));
        // More than there was time for: never above the whole.
        write([u64::MAX / 4, u64::MAX / 4]);
        assert_eq!(schedulers.percent(), Some(100.0));
        std::fs::remove_file(&files[1]).unwrap();
        assert_eq!(schedulers.percent(), None);
    }
}
