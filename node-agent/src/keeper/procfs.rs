//! What `/proc` tells about processes that are not necessarily our children. Looks only; every answer may be outdated when
//! it arrives, so whoever acts on one holds a pidfd and checks the start time after having opened it.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::kernel_file;

/// One line of `/proc/PID/stat`, the fields that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) dead: bool,
    /// By a signal, until another lets it go on.
    pub(crate) stopped: bool,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) session: u32,
    pub(crate) start_ticks: u64,
}

impl Stat {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::parse(&kernel_file::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name in parentheses may hold anything, parentheses included; the fields start after the last one.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        Some(Self {
            dead: matches!(*fields.first()?, "Z" | "X" | "x"),
            stopped: *fields.first()? == "T",
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Changes with every boot, so that a record of an earlier one is known to be void.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// A handle on this very process; `None` if it is gone, be it that its pid now belongs to another.
pub(crate) fn handle(pid: u32, start_ticks: u64) -> Option<OwnedFd> {
    let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let handle = pidfd_open(raw, PidfdFlags::empty()).ok()?;
    Stat::of(pid).filter(|stat| !stat.dead && stat.start_ticks == start_ticks).map(|_| handle)
}

pub(crate) fn all() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The children of all threads of a process. A kernel without that file gets the slow way.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        match fs::read_to_string(task.path().join("children")) {
            Ok(line) => found.extend(line.split_ascii_whitespace().filter_map(|it| it.parse::<u32>().ok())),
            Err(_) => {
                return all().filter(|it| Stat::of(*it).is_some_and(|stat| stat.parent == pid)).collect();
            }
        }
    }
    found
}

/// Children, their children, and so on. Bounded, because a fork bomb may be among them.
pub(crate) fn descendants(pid: u32) -> Vec<(u32, Stat)> {
    const MOST: usize = 4096;
    let mut found = Vec::new();
    let mut next = vec![pid];
    while let Some(parent) = next.pop() {
        for child in children(parent) {
            if found.len() < MOST
                && let Some(stat) = Stat::of(child)
            {
                found.push((child, stat));
                next.push(child);
            }
        }
    }
    found
}

/// Who has this file open, keepers and what they have just forked apart.
pub(super) struct Holders {
    /// A keeper's child is about to become a program or to give up.
    pub(super) launching: bool,
    pub(super) programs: Vec<(u32, Stat)>,
}

impl Holders {
    pub(super) fn none() -> Self {
        Self { launching: false, programs: Vec::new() }
    }

    pub(super) fn of(path: &Path) -> Self {
        let mut holders = Self::none();
        let (Some(file), own) = (identity(path), identity(Path::new("/proc/self/exe"))) else {
            return holders;
        };
        for pid in all().filter(|pid| *pid != std::process::id()) {
            let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            if !fds.into_iter().any(|fd| identity(&fd.path()) == Some(file)) {
                continue;
            }
            if own.is_some() && identity(Path::new(&format!("/proc/{pid}/exe"))) == own {
                holders.launching = true;
            } else if let Some(stat) = Stat::of(pid) {
                holders.programs.push((pid, stat));
            }
        }
        holders
    }

    /// The one that the others descend from.
    pub(super) fn eldest(&self) -> Option<(u32, Stat)> {
        self.programs.iter().copied().min_by_key(|(pid, stat)| (stat.start_ticks, *pid))
    }
}

/// Which file that is, by whatever path.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|it| (it.dev(), it.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_hides_no_field() {
        let line = "42 (a) Z 1 (b)) S 7 8 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 777 1000 5";
        let stat = Stat { dead: false, stopped: false, parent: 7, group: 8, session: 9, start_ticks: 777 };
        assert_eq!(Stat::parse(line), Some(stat));
        let stopped = line.replace(") S 7", ") T 7");
        assert_eq!(Stat::parse(&stopped), Some(Stat { stopped: true, ..stat }));
        assert_eq!(Stat::parse("42 (a"), None);
        assert_eq!(Stat::parse("42 (a) S 1"), None);
    }

    #[test]
    fn a_handle_is_only_given_on_the_very_process() {
        let pid = std::process::id();
        let stat = Stat::of(pid).unwrap();
        assert!(handle(pid, stat.start_ticks).is_some());
        assert!(handle(pid, stat.start_ticks + 1).is_none());
        assert!(!boot_id().is_empty());
    }

    #[test]
    fn children_and_holders_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        fs::write(&path, "").unwrap();
        let file = fs::File::open(&path).unwrap();
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(file)
            .spawn()
            .unwrap();
        assert!(descendants(std::process::id()).iter().any(|(pid, _)| *pid == child.id()));
        assert_eq!(Holders::of(&path).eldest().map(|(pid, _)| pid), Some(child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
