//! What this host and the replicas on it use: sampled every few seconds, cheaply, because it runs for ever on every host.
//!
//! The host's numbers come from files of the kernel (`kernel`, read by `figures`), the replicas' from their control groups, or
//! from `/proc/{pid}/stat` where they have none: all processes of a host are never listed. From which share on something is
//! done is decided in `thresholds`; the supervisor does it.

mod figures;
mod kernel;
pub mod thresholds;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use proto::ids::{AppName, Slot};
use proto::pb;
use sysinfo::System;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use self::kernel::Kernel;
use crate::cgroup::home::{Hierarchy, Home};
use crate::kernel_file;
use crate::link::Observed;

/// A chart needs no more; each sample costs some hundred microseconds.
const EVERY: Duration = Duration::from_secs(5);
/// What only grows is compared with what it was: the first look is so long after the start.
const FIRST: Duration = Duration::from_secs(1);

/// One look at the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    pub host: pb::HostSample,
    pub replicas: Vec<pb::ReplicaSample>,
}

/// Samples until cancelled. Which processes are replicas is what was observed last.
pub async fn sample(
    var_path: PathBuf,
    observed: watch::Receiver<Observed>,
    samples: watch::Sender<Option<Sample>>,
    cancel: CancellationToken,
) {
    let mut sampler = Sampler::new(var_path);
    let mut turn = interval_at(Instant::now() + FIRST, EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased; // stopping comes before new work
            () = cancel.cancelled() => return,
            _ = turn.tick() => {}
        }
        let replicas: Vec<_> = observed.borrow().slots.iter().filter_map(process).collect();
        samples.send_replace(Some(sampler.look(&replicas)));
    }
}

/// Bytes; `None`: this kernel does not say.
pub fn memory_total() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some(figures::memory(&meminfo).total).filter(|it| *it > 0)
}

fn process(((app, slot), report): (&(AppName, Slot), &pb::SlotReport)) -> Option<(AppName, Slot, u32)> {
    (report.pid != 0).then(|| (app.clone(), *slot, report.pid))
}

struct Sampler {
    kernel: Kernel,
    ticks_per_second: u64,
    page: u64,
    /// Microseconds of CPU time that each process, or its control group, had used at the last look.
    used: HashMap<u32, (u64, Instant)>,
    hierarchy: Option<Hierarchy>,
}

impl Sampler {
    fn new(var_path: PathBuf) -> Self {
        let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        let hierarchy = Hierarchy::of_this_process();
        Self { kernel: Kernel::open(var_path), ticks_per_second, page, used: HashMap::new(), hierarchy }
    }

    fn look(&mut self, replicas: &[(AppName, Slot, u32)]) -> Sample {
        Sample { host: self.kernel.look(), replicas: self.replicas(replicas) }
    }

    fn replicas(&mut self, replicas: &[(AppName, Slot, u32)]) -> Vec<pb::ReplicaSample> {
        let now = Instant::now();
        let before = std::mem::take(&mut self.used);
        let mut samples = Vec::with_capacity(replicas.len());
        for (app, slot, pid) in replicas {
            let Some(stat) = kernel_file::read(format!("/proc/{pid}/stat")).ok() else { continue };
            let Some(usage) = usage(&stat) else { continue };
            // With all its children, where it has a group of its own.
            let group = self.hierarchy.as_ref().and_then(|it| it.group_of(*pid, app, *slot));
            let (used, limits) = group.map(|it| (it.usage(), it.limits())).unwrap_or_default();
            let cpu_us =
                used.cpu_us.unwrap_or_else(|| usage.ticks.saturating_mul(1_000_000) / self.ticks_per_second);
            self.used.insert(*pid, (cpu_us, now));
            let cpu_percent = before.get(pid).map_or(0.0, |(earlier, at)| {
                let spent = Duration::from_micros(cpu_us.saturating_sub(*earlier));
                100.0 * spent.as_secs_f64() / now.duration_since(*at).as_secs_f64().max(0.001)
            });
            samples.push(pb::ReplicaSample {
                app: app.to_string(),
                slot: u32::from(slot.number()),
                cpu_percent,
                memory_bytes: used.memory_bytes.unwrap_or_else(|| usage.pages.saturating_mul(self.page)),
                pids: used.pids,
                memory_limit_bytes: limits.memory_max.unwrap_or(0),
                cpu_limit_percent: limits.cpu_percent.unwrap_or(0),
                pids_limit: limits.pids_max.unwrap_or(0),
            });
        }
        samples
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Usage {
    ticks: u64,
    pages: u64,
}

/// Of `/proc/{pid}/stat`. The name may hold spaces and brackets, so fields count from the last bracket.
fn usage(stat: &str) -> Option<Usage> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Usage { ticks: number(14)?.saturating_add(number(15)?), pages: number(24)? })
}

/// Another id means another boot: nothing that ran before runs now.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// What this host is.
pub fn inventory(groups: Option<&Home>) -> pb::Inventory {
    let memory = System::new().map(|mut system| {
        system.refresh_memory();
        system.total_memory()
    });
    let root = rustix::process::geteuid().is_root();
    pb::Inventory {
        hostname: System::host_name().unwrap_or_default(),
        os: System::long_os_version().unwrap_or_default(),
        kernel: System::kernel_version().unwrap_or_default(),
        arch: System::cpu_arch(),
        cpus: std::thread::available_parallelism()
            .map_or(1, |it| u32::try_from(it.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory.unwrap_or(0),
        user: if root { "root".to_owned() } else { format!("uid {}", rustix::process::geteuid().as_raw()) },
        erl: installed_otp().unwrap_or_default(),
        limits: groups.iter().flat_map(|it| it.controllers()).map(|&it| it.to_owned()).collect(),
        limits_fault: groups.and_then(Home::why_not).unwrap_or_default().to_owned(),
    }
}

/// The newest OTP release where distributions put it. Nothing is run for it.
fn installed_otp() -> Option<String> {
    ["/usr/lib/erlang/releases", "/usr/local/lib/erlang/releases"]
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse::<u32>().ok())
        .max()
        .map(|release| release.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_past_a_name_with_brackets_and_spaces() {
        let stat = "42 (beam) smp (x) S 1 42 42 0 -1 4194304 1 2 3 4 70 30 0 0 20 0 1 0 555 9999 1234 18446744073709551615";
        assert_eq!(usage(stat), Some(Usage { ticks: 100, pages: 1234 }));
        assert_eq!(usage("42 (beam"), None);
        assert_eq!(usage("42 (beam) S 1"), None);
    }

    #[test]
    fn a_host_and_a_process_have_plausible_numbers() {
        let mut sampler = Sampler::new(std::env::temp_dir());
        let me = ("me".parse().unwrap(), Slot::new(1).unwrap(), std::process::id());
        let gone = ("gone".parse().unwrap(), Slot::new(1).unwrap(), u32::MAX - 1);
        let sample = sampler.look(&[me, gone]);
        assert_eq!(sample.replicas.len(), 1);
        assert!(sample.replicas[0].memory_bytes > 1 << 20);
        assert!(sample.host.memory_total_bytes > sample.host.memory_used_bytes);
    }

    #[test]
    fn the_host_says_what_it_is() {
        let inventory = inventory(None);
        assert!(inventory.cpus > 0 && inventory.memory_bytes > 0);
        assert!(!inventory.kernel.is_empty() && !inventory.arch.is_empty());
        assert_eq!(boot_id().len(), 36);
    }
}
