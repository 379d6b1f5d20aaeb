//! The life of a keeper once it has a process: drain, answer, wait, end what is left, go.
//!
//! ```text
//!            stop: SIGTERM, and kill when the grace is over       SIGTERM, after 2 s SIGKILL
//!   Running ──────────────────────────────────────────▶ exit ──▶ Ending ──▶ gone: the slot is free
//! ```
//! At the exit, in this order: the FIFOs are drained, the exit is written down, everybody connected is told, what is left of the
//! family is told to end. Nothing sleeps and nothing is synced on that way, for a successor waits at its end.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use proto::state::ExitCause;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use super::HERE;
use super::fifo::printers;
use super::log_file::Drain;
use super::protocol::{Request, Said, Stream};
use super::reap::{Family, end_cause, reap, signal_group};
use super::record::{Ended, Process};
use super::signals::Signals;
use super::socket::Clients;
use crate::cgroup::Cgroup;
use crate::cgroup::deaths::Deaths;
use crate::clock::{monotonic_ms, unix_ms};

/// For what a program leaves behind. Port programs of a BEAM see their input close and need milliseconds.
const ENDING_GRACE_MS: u64 = 2_000;

/// Between two rounds of SIGTERM to those who were found since the last. A script that goes on starts child after child, which
/// would be told as fast as it forks.
const TELL_AGAIN_MS: u64 = 10;

/// What cannot be asked when the program has ended is looked at while it runs: at most so often, however often we are woken …
const LOOK_AGAIN_MS: u64 = 1_000;
/// … and at least so often, if nothing wakes it.
const LOOK_EVERY_MS: u64 = 5_000;

/// Between two times that the end of an orphan wakes us. A program that starts children as fast as it can has at most those of
/// such a while counted as its processes still.
const REAP_AGAIN_MS: u64 = 20;

pub(super) struct Watch {
    pub(super) process: Process,
    /// The session that the process was started in; that of its first keeper.
    pub(super) session: Option<u32>,
    /// Not launched by this keeper, so that the system does not tell it how it ended.
    pub(super) adopted: bool,
    /// When it was looked last at what cannot be asked at the end.
    pub(super) looked_at: u64,
    pub(super) signals: Signals,
    /// From when on children that ended are heard of again.
    pub(super) reap_at: u64,
    pub(super) drains: [Drain; 2],
    pub(super) clients: Clients,
    pub(super) family: Family,
    /// What the program began in, and all that it starts with it.
    pub(super) cgroup: Option<Cgroup>,
    /// For want of memory, in there.
    pub(super) deaths: Option<Deaths>,
    pub(super) phase: Phase,
}

pub(super) enum Phase {
    Running { handle: OwnedFd, stop: Stop },
    Ending { ended: Ended, kill_at: u64, tell_at: u64, hard: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    NotAsked,
    /// Asked nicely.
    By(u64),
    Killed,
}

impl Phase {
    pub(super) fn running(handle: OwnedFd) -> Self {
        Self::Running { handle, stop: Stop::NotAsked }
    }

    pub(super) fn ending(ended: Ended, hard: bool) -> Self {
        let now = monotonic_ms();
        Self::Ending { ended, kill_at: now + ENDING_GRACE_MS, tell_at: now, hard }
    }
}

/// Which of the files that were waited for have something.
#[derive(Default)]
struct Ready {
    drains: [bool; 2],
    children: bool,
    ended: bool,
    clients: Vec<bool>,
}

impl Watch {
    /// Returns when nothing is left to be kept; what is to be removed then is the control group.
    pub(super) fn run(mut self) -> Option<Cgroup> {
        loop {
            let ready = self.wait();
            for (drain, ready) in self.drains.iter_mut().zip(ready.drains) {
                if ready {
                    drain.step();
                }
            }
            if ready.children {
                // They are taken up below, as whenever we wake up.
                self.signals.hear();
                self.reap_at = monotonic_ms() + REAP_AGAIN_MS;
            }
            if ready.ended && self.is_running() {
                self.end(None);
            }
            self.converse(&ready.clients);
            self.look();
            if self.advance() {
                self.drains.iter_mut().for_each(Drain::finish);
                return self.cgroup;
            }
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    fn look(&mut self) {
        let now = monotonic_ms();
        if self.is_running() && self.looked_at + LOOK_AGAIN_MS <= now {
            self.looked_at = now;
            self.meet_family();
            if let Some(deaths) = &mut self.deaths {
                deaths.look(now);
            }
        }
    }

    /// What a keeper that took over does not know when the program ends it cannot find out any more: whoever lost the parents
    /// comes to another. A group of its own tells it at the end.
    fn meet_family(&mut self) {
        if let Phase::Running { handle, .. } = &self.phase
            && self.adopted
            && self.cgroup.is_none()
        {
            self.family.forget_dead();
            self.family.add_descendants(self.process.pid, handle);
        }
    }

    fn wait(&self) -> Ready {
        let [out, err] = &self.drains;
        let mut fds = vec![PollFd::new(&out.fifo, PollFlags::IN), PollFd::new(&err.fifo, PollFlags::IN)];
        let now = monotonic_ms();
        // Always at this place; where it is too early it waits for nothing.
        let heard = if self.reap_at <= now { PollFlags::IN } else { PollFlags::empty() };
        fds.push(PollFd::from_borrowed_fd(self.signals.of_children(), heard));
        match &self.phase {
            Phase::Running { handle, .. } => fds.push(PollFd::new(handle, PollFlags::IN)),
            Phase::Ending { .. } => {
                fds.extend(self.family.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            }
        }
        let own = fds.len();
        fds.extend(self.clients.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        if poll(&mut fds, self.patience(now).as_ref()).is_err() {
            return Ready::default();
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        Ready {
            drains: [ready(&fds[0]), ready(&fds[1])],
            children: ready(&fds[2]),
            ended: self.is_running() && ready(&fds[3]),
            clients: fds[own..].iter().map(ready).collect(),
        }
    }

    /// `None`: until something happens.
    fn patience(&self, now: u64) -> Option<Timespec> {
        let deadline = match self.phase {
            Phase::Ending { tell_at, hard: false, .. } if self.family.is_to_be_told(Signal::TERM) => {
                Some(tell_at)
            }
            Phase::Running { stop: Stop::By(kill_at), .. } | Phase::Ending { kill_at, .. } => Some(kill_at),
            Phase::Running { .. } => None,
        };
        let has_to_look = self.is_running() && (self.adopted || self.deaths.is_some());
        let look = has_to_look.then_some(self.looked_at + LOOK_EVERY_MS);
        let reap = Some(self.reap_at).filter(|at| *at > now);
        let next = [deadline, look, reap].into_iter().flatten().min()?;
        Some(Timespec::try_from(Duration::from_millis(next.saturating_sub(now))).unwrap_or_default())
    }

    /// What time and the family call for. Whether all is over.
    fn advance(&mut self) -> bool {
        match &mut self.phase {
            Phase::Running { stop, .. } => {
                if matches!(stop, Stop::By(kill_at) if *kill_at <= monotonic_ms()) {
                    self.kill();
                } else if !self.adopted && reap(self.process.pid).is_some_and(|cause| self.end(Some(cause))) {
                    return self.advance();
                }
                false
            }
            Phase::Ending { kill_at, tell_at, hard, .. } => {
                reap(self.process.pid);
                match self.adopted {
                    true => self.family.add_below(),
                    false => self.family.add_own_children(),
                }
                if let Some(cgroup) = &self.cgroup {
                    self.family.add_members(cgroup);
                }
                if self.family.forget_dead() {
                    return true;
                }
                let now = monotonic_ms();
                let late = *kill_at <= now;
                if late && *hard {
                    // Not even SIGKILL ends it: it hangs in the kernel. That must not take the slot for ever.
                    return true;
                }
                if late {
                    *hard = true;
                    *kill_at = now + ENDING_GRACE_MS;
                }
                if *hard {
                    self.family.tell(Signal::KILL);
                } else if *tell_at <= now {
                    self.family.tell(Signal::TERM);
                    *tell_at = now + TELL_AGAIN_MS;
                }
                if let Some(cgroup) = self.cgroup.as_ref().filter(|_| *hard) {
                    let _ = cgroup.kill();
                }
                false
            }
        }
    }

    /// The process has ended. Its status may have been taken up already; always true, for it is a step of a chain.
    pub(super) fn end(&mut self, cause: Option<ExitCause>) -> bool {
        let hard = matches!(self.phase, Phase::Running { stop: Stop::Killed, .. });
        let signal = if hard { Signal::KILL } else { Signal::TERM };
        if hard && !self.adopted {
            // At once, for it may fork.
            signal_group(self.process.pid, signal);
        }
        let cause = match cause {
            None if self.adopted => None,
            None => reap(self.process.pid),
            known => known,
        };
        self.drains.iter_mut().for_each(Drain::finish);
        let cause = cause.unwrap_or(ExitCause::Unknown);
        let now = monotonic_ms();
        // What we kill ourselves was not killed for its memory, even where the kernel has just ended one of its children.
        let killed = self.deaths.as_mut().filter(|_| !hard).and_then(|deaths| {
            deaths.look(now);
            deaths.recent(now)
        });
        // First of all, because whoever hears it has a successor to prepare while we look for what is left.
        self.finish(end_cause(cause, killed), hard);
        self.find_what_is_left(hard);
        self.family.tell(signal);
        true
    }

    fn find_what_is_left(&mut self, hard: bool) {
        if self.adopted {
            // Whoever took over does not wait for the process, so the number of its group may be another's by now. The family is
            // known one by one.
            self.family.add_below();
            self.family.add_strays(&self.process, self.session);
        } else {
            if !hard {
                // One by one, to know who was told.
                self.family.add_group(self.process.pid);
            }
            self.family.add_own_children();
        }
        match &self.cgroup {
            Some(cgroup) => self.family.add_members(cgroup),
            None if self.adopted => self.family.add_all(printers(Path::new(HERE))),
            None => {}
        }
    }

    /// Writes the exit down and tells it.
    fn finish(&mut self, cause: ExitCause, hard: bool) {
        let ended = Ended { process: self.process, cause, dropped: self.dropped(), unix_ms: unix_ms() };
        // What cannot be written down is still told. An agent that is not there will find that it ended, not how.
        let _ = ended.store(Path::new(HERE));
        self.clients.tell_all(&Said::Exited(ended));
        self.phase = Phase::ending(ended, hard);
    }

    fn dropped(&self) -> u64 {
        self.drains.iter().map(Drain::dropped).sum()
    }

    pub(super) fn greeting(&self) -> Said {
        match &self.phase {
            Phase::Running { .. } => Said::Hello(self.process),
            Phase::Ending { ended, .. } => Said::Exited(*ended),
        }
    }

    fn converse(&mut self, ready: &[bool]) {
        let mut requests = Vec::new();
        let (process, adopted, dropped) = (self.process, self.adopted, self.dropped());
        let drains = &mut self.drains;
        self.clients.serve(ready, |line| match Request::parse(line) {
            None => Said::Refused("this keeper does not know that request".to_owned()),
            Some(Request::Status) => Said::Status { process, adopted, dropped },
            Some(Request::Rotate { stream, name }) => {
                let drain = match stream {
                    Stream::Stdout => &mut drains[0],
                    Stream::Stderr => &mut drains[1],
                };
                match drain.rotate(&name) {
                    Ok(()) => Said::Done,
                    Err(error) => Said::Refused(format!("cannot rotate to {name}: {error}")),
                }
            }
            Some(request) => {
                requests.push(request);
                Said::Done
            }
        });
        for request in requests {
            match request {
                Request::Stop { grace_ms } => self.stop(grace_ms),
                Request::Kill => self.kill(),
                Request::Status | Request::Rotate { .. } => {}
            }
        }
        if ready.first().copied().unwrap_or(false) {
            let greeting = self.greeting();
            self.clients.accept(&[greeting]);
        }
    }

    /// A later stop may shorten the grace of an earlier one, never lengthen it.
    fn stop(&mut self, grace_ms: u64) {
        let kill_at = monotonic_ms().saturating_add(grace_ms);
        self.meet_family();
        if let Phase::Running { handle, stop } = &mut self.phase {
            match stop {
                Stop::NotAsked => {
                    let _ = pidfd_send_signal(&*handle, Signal::TERM);
                    // One that stands still could not hear it.
                    let _ = pidfd_send_signal(&*handle, Signal::CONT);
                    *stop = Stop::By(kill_at);
                }
                Stop::By(earlier) => *earlier = kill_at.min(*earlier),
                Stop::Killed => {}
            }
        }
    }

    fn kill(&mut self) {
        self.meet_family();
        match &mut self.phase {
            Phase::Running { handle, stop } => {
                signal_group(self.process.pid, Signal::KILL);
                let _ = pidfd_send_signal(handle, Signal::KILL);
                if let Some(cgroup) = &self.cgroup {
                    let _ = cgroup.kill();
                }
                *stop = Stop::Killed;
            }
            Phase::Ending { kill_at, .. } => *kill_at = 0,
        }
    }
}
