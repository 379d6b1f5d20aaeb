//! What a program leaves behind: waiting for children, and ending those that outlive it.
//!
//! The keeper is a child subreaper, so whatever the program started becomes its child when the parents between are gone;
//! ending them layer by layer reaches all. A keeper that took over has no children, and goes by what it saw of the family,
//! by group and session, and by who prints where the program printed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use proto::state::ExitCause;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, pidfd_send_signal, wait};

use super::procfs::{Stat, all, children, descendants, handle};
use super::record::Process;
use crate::cgroup::Cgroup;
use crate::cgroup::deaths::OutOfMemory;

/// Takes up all children that have ended, and says how `main` did, if it is among them.
pub(super) fn reap(main: u32) -> Option<ExitCause> {
    let mut cause = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get().unsigned_abs() == main => {
                cause = Some(cause_of(status));
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return cause,
        }
    }
}

fn cause_of(status: WaitStatus) -> ExitCause {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitCause::Code(code),
        (None, Some(signal)) => ExitCause::Signal(signal),
        (None, None) => ExitCause::Unknown,
    }
}

/// With what its control group has just told. A process that was killed for want of memory sees SIGKILL as any other; a shell
/// that waited for one ends with 137; and whoever took over from a keeper is told nothing by the system.
pub(super) fn end_cause(cause: ExitCause, killed: Option<OutOfMemory>) -> ExitCause {
    match cause {
        ExitCause::Signal(9) | ExitCause::Code(137) | ExitCause::Unknown => {
            killed.map_or(cause, |it| ExitCause::OutOfMemory(it.limit.unwrap_or(0)))
        }
        ExitCause::Code(_) | ExitCause::Signal(_) | ExitCause::OutOfMemory(_) => cause,
    }
}

/// A signal to the group that the program leads. Only while its leader is there, be it dead: then the number is still its.
pub(super) fn signal_group(leader: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, signal);
    }
}

/// Each is held by a descriptor, of which a process has 1,024 where nobody gave it more, and somebody is to connect still. Of
/// more the rest is found when these have ended.
const MOST_MEMBERS: usize = 512;

/// Processes that belong to the program and are not the program.
#[derive(Default)]
pub(super) struct Family {
    members: Vec<Member>,
}

struct Member {
    pid: u32,
    start_ticks: u64,
    handle: OwnedFd,
    /// The signal that it got last.
    told: Option<Signal>,
}

impl Family {
    pub(super) fn add(&mut self, pid: u32, stat: Stat) {
        let known = self.members.iter().any(|it| it.pid == pid && it.start_ticks == stat.start_ticks);
        if !known
            && self.members.len() < MOST_MEMBERS
            && let Some(handle) = handle(pid, stat.start_ticks)
        {
            self.members.push(Member { pid, start_ticks: stat.start_ticks, handle, told: None });
        }
    }

    /// All below the program, if it lives: else they are another's.
    pub(super) fn add_descendants(&mut self, pid: u32, program: &OwnedFd) {
        let found = descendants(pid);
        if !is_over(program) {
            self.add_all(found);
        }
    }

    /// All below those who are known, while these live: a keeper that took over cannot find them later.
    pub(super) fn add_below(&mut self) {
        let below = |it: &Member| Some(descendants(it.pid)).filter(|_| !is_over(&it.handle));
        let found: Vec<_> = self.members.iter().filter_map(below).flatten().collect();
        self.add_all(found);
    }

    pub(super) fn add_all(&mut self, found: impl IntoIterator<Item = (u32, Stat)>) {
        for (pid, stat) in found {
            self.add(pid, stat);
        }
    }

    /// Our own children, which of a keeper that launched are the orphans of the program.
    pub(super) fn add_own_children(&mut self) {
        for pid in children(std::process::id()) {
            if let Some(stat) = Stat::of(pid) {
                self.add(pid, stat);
            }
        }
    }

    /// Whoever is in the program's control group: nobody else ever gets there, and nobody gets out.
    pub(super) fn add_members(&mut self, cgroup: &Cgroup) {
        for pid in cgroup.members() {
            if let Some(stat) = Stat::of(pid).filter(|it| !it.dead) {
                self.add(pid, stat);
            }
        }
    }

    /// Whoever is in the program's group, or in the session that it had with its first keeper and nobody else.
    pub(super) fn add_strays(&mut self, process: &Process, session: Option<u32>) {
        for pid in all().filter(|pid| *pid != process.pid && *pid != std::process::id()) {
            if let Some(stat) = Stat::of(pid)
                && (stat.group == process.pid || Some(stat.session) == session)
            {
                self.add(pid, stat);
            }
        }
    }

    /// The group that the program leads, where this keeper launched it: all of that descends from us.
    pub(super) fn add_group(&mut self, leader: u32) {
        for (pid, stat) in descendants(std::process::id()) {
            if stat.group == leader {
                self.add(pid, stat);
            }
        }
    }

    /// A signal to each that has not got it yet: many programs take a second SIGTERM for an order to end at once.
    pub(super) fn tell(&mut self, signal: Signal) {
        for member in self.members.iter_mut().filter(|it| it.told != Some(signal)) {
            let _ = pidfd_send_signal(&member.handle, signal);
            member.told = Some(signal);
        }
    }

    /// Whether somebody is to get it still.
    pub(super) fn is_to_be_told(&self, signal: Signal) -> bool {
        self.members.iter().any(|it| it.told != Some(signal))
    }

    /// Readable when one of them ends.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.members.iter().map(|it| it.handle.as_fd())
    }

    /// Whether nobody is left.
    pub(super) fn forget_dead(&mut self) -> bool {
        self.members.retain(|it| !is_over(&it.handle));
        self.members.is_empty()
    }
}

fn is_over(handle: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(handle, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_that_looks_like_it_is_laid_to_the_memory() {
        let killed = Some(OutOfMemory { limit: Some(1 << 20) });
        for cause in [ExitCause::Signal(9), ExitCause::Code(137), ExitCause::Unknown] {
            assert_eq!(end_cause(cause, killed), ExitCause::OutOfMemory(1 << 20));
            assert_eq!(end_cause(cause, Some(OutOfMemory { limit: None })), ExitCause::OutOfMemory(0));
            assert_eq!(end_cause(cause, None), cause);
        }
        // One of its children was killed, and it ended in its own way.
        for cause in [ExitCause::Code(1), ExitCause::Signal(11)] {
            assert_eq!(end_cause(cause, killed), cause);
        }
    }
}
