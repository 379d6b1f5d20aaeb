//! A keeper that owes a word and says nothing: stopped by somebody, or stuck. It is woken, and where that does not help ended
//! and replaced, which costs no more than the exit status of its process.
//!
//! It owes one when it was asked for something, and when its process is over; nothing else is ever waited for. So that one of
//! which nothing is wanted does not stand still unnoticed, with its program held up as soon as the pipes are full, each is
//! asked how it is from time to time.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use super::Process;
use crate::clock::Time;
use crate::keeper::procfs;

/// A keeper answers in milliseconds. After this it is taken to be stopped …
const WAKE_AFTER: Duration = Duration::from_secs(2);
/// … and after this, from when it was woken, for lost. Generous, for a host that swaps.
const GIVE_UP_AFTER: Duration = Duration::from_secs(13);

/// Between two times that a keeper is asked how it is. A program that prints at its usual pace does not fill a pipe meanwhile.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// How long it is until then. All keepers of a host are asked at the same moments: the agent wakes once for them, however many
/// they are.
pub(super) fn until_asked(now: Time) -> Duration {
    let every = u64::try_from(ASK_EVERY.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(every - now.0 % every)
}

/// What to do about the silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Wake,
    GiveUp,
}

/// Since when a word is owed, and whether the keeper was woken for it.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: Option<Instant>,
    woken: Option<Instant>,
}

impl Silence {
    /// It owes a word now.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// It has said something.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// What comes next, and when; `None`: nothing is owed.
    fn next(&self) -> Option<(Turn, Instant)> {
        let since = self.since?;
        Some(match self.woken {
            None => (Turn::Wake, since + WAKE_AFTER),
            // Not from when it was asked: an agent that stood still itself would give it no time at all.
            Some(woken) => (Turn::GiveUp, woken + GIVE_UP_AFTER),
        })
    }

    /// Waits until it has lasted too long; for ever where nothing is owed. May be dropped and called again.
    pub(super) async fn lasts(&mut self) -> Turn {
        match self.next() {
            None => std::future::pending().await,
            Some((turn, at)) => {
                sleep_until(at).await;
                self.woken.get_or_insert(Instant::now());
                turn
            }
        }
    }
}

/// Readable once the process is over; `None`: it is over already, or cannot be watched.
#[expect(unsafe_code, reason = "the runtime's only way to wait for a descriptor that is no socket")]
pub(super) fn watch(process: &Process) -> Option<AsyncFd<OwnedFd>> {
    let handle = procfs::handle(process.pid, process.start_ticks)?;
    // SAFETY: it owns its descriptor, which stays open and the same for as long as the runtime knows of it.
    unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }.ok()
}

/// Waits for the end of what is watched; for ever where nothing is.
pub(super) async fn over(process: Option<&AsyncFd<OwnedFd>>) {
    match process {
        Some(process) => drop(process.readable().await),
        None => std::future::pending().await,
    }
}

pub(super) fn act(turn: Turn, keeper: &OwnedFd) {
    let signal = match turn {
        Turn::Wake => Signal::CONT,
        Turn::GiveUp => Signal::KILL,
    };
    let _ = pidfd_send_signal(keeper, signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_keeper_is_woken_once_and_then_given_up() {
        let mut silence = Silence::default();
        let begun = Instant::now();
        silence.begin(begun);
        // A second question makes the wait no longer.
        silence.begin(begun + Duration::from_secs(1));
        assert_eq!((silence.lasts().await, begun.elapsed()), (Turn::Wake, WAKE_AFTER));
        assert_eq!((silence.lasts().await, begun.elapsed()), (Turn::GiveUp, WAKE_AFTER + GIVE_UP_AFTER));
        silence.end();
        assert_eq!(silence.next(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_stood_still_itself_gives_a_keeper_its_time() {
        let mut silence = Silence::default();
        silence.begin(Instant::now());
        tokio::time::advance(Duration::from_hours(1)).await;
        let goes_on = Instant::now();
        assert_eq!((silence.lasts().await, goes_on.elapsed()), (Turn::Wake, Duration::ZERO));
        assert_eq!((silence.lasts().await, goes_on.elapsed()), (Turn::GiveUp, GIVE_UP_AFTER));
    }

    #[test]
    fn all_keepers_are_asked_at_the_same_moments() {
        for now in [0, 1, 1_234, 29_999, 30_000, 98_765] {
            let pause = until_asked(Time(now));
            assert!(!pause.is_zero() && pause <= ASK_EVERY, "{pause:?} from {now}");
            assert_eq!((u128::from(now) + pause.as_millis()) % ASK_EVERY.as_millis(), 0);
        }
    }
}
