//! One control group (cgroup v2): its limits, what is used in it, who is in it, and ending them all.
//!
//! A group is a folder, and every question and order is a small file in it; the folder is given as a value, so that a test may
//! lay out one of its own. Where groups are made, and what a host lets us do with them, is said in `cgroup::home`. Agent and
//! keeper use the same few functions, none of which waits.

pub(crate) mod deaths;
pub mod home;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

use crate::kernel_file;

/// Accounting periods of the CPU's bandwidth, in microseconds; the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;

/// What a replica may use at most; `None`: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory_max: Option<u64>,
    /// 100 is one core.
    pub cpu_percent: Option<u32>,
    /// Processes and threads together: the kernel counts both.
    pub pids_max: Option<u32>,
}

/// What is used in a group now; `None`: its host does not count that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Microseconds of CPU time since the group was made.
    pub cpu_us: Option<u64>,
    /// Bytes that cannot be had back at once: without the part of the page cache that nobody has touched lately.
    pub memory_bytes: Option<u64>,
    pub pids: Option<u32>,
}

/// The folder of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it anew, so that nothing is counted that an earlier one has used. One that somebody is still in is left as it is.
    pub fn create(&self) -> io::Result<()> {
        match fs::create_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let _ = fs::remove_dir(&self.0);
                match fs::create_dir(&self.0) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    other => other,
                }
            }
            other => other,
        }
    }

    /// Nobody may be in it. The kernel takes a moment to see a process out that has just been waited for.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir(&self.0)
    }

    /// For a process that is to begin in it.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        Ok(open(&self.0, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Takes the calling process in. Slow: the kernel holds up every start and end of a process for some milliseconds.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.take_in(0)
    }

    pub(crate) fn take_in(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Gives it these limits and no others. All that could not be set is said, in one sentence.
    ///
    /// May take long where it asks for less memory than is used: the kernel looks for some to take back first.
    pub fn limit(&self, limits: &Limits) -> Result<(), String> {
        let unset: Vec<String> = files(limits)
            .into_iter()
            .filter_map(|(file, what, value)| {
                let set = match value {
                    Some(value) => self.write(file, &value),
                    // What was never limited needs no controller to be lifted.
                    None if !self.0.join(file).exists() => Ok(()),
                    None => self.write(file, "max"),
                };
                Some(format!("{what} ({file}: {})", set.err()?))
            })
            .collect();
        if unset.is_empty() { Ok(()) } else { Err(unset.join(", ")) }
    }

    /// Which of these limits do not hold here, as words for a person.
    pub fn unmet(&self, limits: &Limits) -> Vec<&'static str> {
        files(limits)
            .into_iter()
            .filter(|(file, _, value)| {
                value.as_ref().is_some_and(|value| self.read(file).as_deref() != Some(value.as_str()))
            })
            .map(|(_, what, _)| what)
            .collect()
    }

    /// The limits that hold in it.
    pub fn limits(&self) -> Limits {
        Limits {
            memory_max: self.number("memory.max"),
            cpu_percent: self.read("cpu.max").and_then(|text| cpu_percent(&text)),
            pids_max: self.number("pids.max").and_then(|it| u32::try_from(it).ok()),
        }
    }

    pub fn usage(&self) -> Usage {
        let memory_bytes = self.number("memory.current").map(|current| {
            let idle = self.read("memory.stat").and_then(|text| field(&text, "inactive_file"));
            current.saturating_sub(idle.unwrap_or(0))
        });
        Usage {
            cpu_us: self.read("cpu.stat").and_then(|text| field(&text, "usage_usec")),
            memory_bytes,
            pids: self.number("pids.current").and_then(|it| u32::try_from(it).ok()),
        }
    }

    /// Processes in it and in groups that they made below it. Zombies of others may be among them.
    pub fn members(&self) -> Vec<u32> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.clone()];
        // Bounded: a program may make groups below its own where it was given the right to.
        while let Some(folder) = folders.pop().filter(|_| found.len() < 4096) {
            let procs = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(procs.lines().filter_map(|it| it.parse::<u32>().ok()).filter(|it| *it != 0));
            let below = fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(below.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())).map(|it| it.path()));
        }
        found
    }

    /// SIGKILL to everybody in it at once: also to those who have left group, session and parents, and those who fork just now.
    pub fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", "1")
    }

    fn read(&self, file: &str) -> Option<String> {
        let mut text = kernel_file::read(self.0.join(file)).ok()?;
        text.truncate(text.trim_end().len());
        Some(text)
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.read(file)?.parse().ok()
    }

    /// Never makes the file: what the kernel does not offer is an error.
    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).truncate(true).open(self.0.join(file))?;
        io::Write::write_all(&mut file, value.as_bytes())
    }
}

/// The file of each limit, what it bounds, and what is to stand in it.
fn files(limits: &Limits) -> [(&'static str, &'static str, Option<String>); 3] {
    let Limits { memory_max, cpu_percent, pids_max } = limits;
    // The kernel counts whole pages, and says so when it is asked again.
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let memory = memory_max.map(|it| (it - it % page).to_string());
    let cpu = cpu_percent.map(|it| format!("{} {CPU_PERIOD_US}", u64::from(it) * CPU_PERIOD_US / 100));
    [
        ("memory.max", "memory", memory),
        ("cpu.max", "CPU", cpu),
        ("pids.max", "processes", pids_max.map(|it| it.to_string())),
    ]
}

/// `{quota} {period}`.
fn cpu_percent(text: &str) -> Option<u32> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    u32::try_from(quota.saturating_mul(100).checked_div(period)?).ok()
}

/// A line `{name} {number}` of a flat file.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group as the kernel lays it out, of files that keep what is written to them.
    fn group(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let group = Cgroup::at(folder.path());
        (folder, group)
    }

    const LIMITS: Limits = Limits { memory_max: Some(2 << 30), cpu_percent: Some(250), pids_max: Some(4096) };

    #[test]
    fn limits_are_written_as_the_kernel_reads_them_and_lifted_again() {
        let (folder, group) = group(&[("memory.max", ""), ("cpu.max", ""), ("pids.max", "")]);
        group.limit(&LIMITS).unwrap();
        let read = |name| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("memory.max"), "2147483648");
        assert_eq!(read("cpu.max"), "250000 100000");
        assert_eq!(read("pids.max"), "4096");
        assert_eq!((group.limits(), group.unmet(&LIMITS)), (LIMITS, vec![]));
        group.limit(&Limits::default()).unwrap();
        assert_eq!((read("memory.max"), group.limits()), ("max".to_owned(), Limits::default()));
    }

    #[test]
    fn a_limit_without_its_controller_is_named_and_the_others_hold() {
        let (_folder, group) = group(&[("pids.max", "")]);
        let unset = group.limit(&LIMITS).unwrap_err();
        assert!(unset.starts_with("memory (memory.max: No such file"), "{unset}");
        assert!(unset.contains("CPU (cpu.max") && !unset.contains("pids"), "{unset}");
        assert_eq!(group.unmet(&LIMITS), ["memory", "CPU"]);
        assert_eq!(group.limit(&Limits { pids_max: Some(64), ..Limits::default() }), Ok(()));
    }

    #[test]
    fn a_limit_that_is_no_whole_number_of_pages_still_holds() {
        let (_folder, group) = group(&[("memory.max", "")]);
        let odd = Limits { memory_max: Some((1 << 30) + 1), ..Limits::default() };
        group.limit(&odd).unwrap();
        assert_eq!(group.limits().memory_max, Some(1 << 30));
        assert_eq!(group.unmet(&odd), [""; 0]);
    }

    #[test]
    fn usage_leaves_out_the_cache_that_can_be_had_back() {
        let (_folder, group) = group(&[
            ("memory.current", "1000000\n"),
            ("memory.stat", "anon 600000\nfile 400000\ninactive_file 300000\n"),
            ("cpu.stat", "usage_usec 4200\nuser_usec 4000\nsystem_usec 200\n"),
            ("pids.current", "7\n"),
        ]);
        let usage = Usage { cpu_us: Some(4200), memory_bytes: Some(700_000), pids: Some(7) };
        assert_eq!(group.usage(), usage);
        assert_eq!(Cgroup::at("/nowhere").usage(), Usage::default());
    }

    #[test]
    fn members_below_are_members_too() {
        let (folder, group) = group(&[("cgroup.procs", "12\n0\n13\n")]);
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("below/cgroup.procs"), "14\n").unwrap();
        assert_eq!(group.members(), [12, 13, 14]);
    }

    #[test]
    fn a_group_is_made_anew_unless_somebody_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let group = Cgroup::at(folder.path().join("shop-1-7"));
        group.create().unwrap();
        group.create().unwrap();
        fs::write(group.path().join("somebody"), "").unwrap();
        group.create().unwrap();
        assert!(group.path().join("somebody").exists());
        assert!(group.remove().is_err());
    }
}
