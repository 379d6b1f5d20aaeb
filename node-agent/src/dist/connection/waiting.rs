//! Who waits for which process on the node to end. No task and no I/O: a table, and what its entries go through.
//!
//! ```text
//!   asked ── started ──▶ runs ── ended ──▶ told, and gone
//!     │ given up           │ given up
//!     ▼                    └──────────────▶ gone; whoever gave up ends the process
//!   given up ── started ──▶ gone; the reader ends the process
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Lost;
use crate::dist::control::Reason;
use crate::dist::term::{Pid, Reference, Term};

/// How waiting ends.
#[derive(Debug, PartialEq)]
pub(super) enum Ended {
    Process(Reason),
    /// With a message of `length` bytes, of which `longest` were allowed; it was not read.
    TooLarge {
        length: usize,
        longest: usize,
    },
    NotStarted(Term),
    Lost(Lost),
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    /// By the words of the reference: the rest of it is the same for all of a connection.
    of: HashMap<Vec<u32>, Awaited>,
    /// Set once nothing can come any more.
    lost: Option<Lost>,
}

#[derive(Debug)]
enum Awaited {
    By {
        who: oneshot::Sender<Ended>,
        process: Option<Pid>,
        /// No longer message is of use, in bytes.
        longest: usize,
    },
    /// Nobody waits, and the node has not said yet which process it is. It still counts as a call, so that a node that says
    /// nothing is not asked without end.
    GivenUp(#[expect(dead_code, reason = "held, not looked at")] Option<Permits>),
}

/// That a call may be under way: one of the caller's, and one of the connection's.
#[derive(Debug)]
pub(super) struct Permits {
    pub(super) _own: OwnedSemaphorePermit,
    pub(super) _shared: OwnedSemaphorePermit,
}

/// One who waits.
#[derive(Debug)]
pub(super) struct Ticket(oneshot::Receiver<Ended>);

impl Ticket {
    /// Safe to give up.
    pub(super) async fn wait(&mut self) -> Ended {
        (&mut self.0).await.unwrap_or(Ended::Lost(Lost::ClosedHere))
    }
}

impl Waiting {
    /// `longest`: of the message that tells the end, in bytes.
    pub(super) fn for_process(&self, id: &Reference, longest: usize) -> Ticket {
        let (who, ticket) = oneshot::channel();
        let mut entries = self.entries();
        match entries.lost.clone() {
            Some(why) => {
                let _ = who.send(Ended::Lost(why));
            }
            None => {
                entries.of.insert(id.words.clone(), Awaited::By { who, process: None, longest });
            }
        }
        Ticket(ticket)
    }

    /// The process to be ended, where nobody waits for it any more.
    pub(super) fn started(&self, id: &Reference, started: Pid) -> Option<Pid> {
        let mut entries = self.entries();
        match entries.of.entry(id.words.clone()) {
            Entry::Occupied(mut entry) => match entry.get_mut() {
                Awaited::By { process, .. } => {
                    *process = Some(started);
                    None
                }
                Awaited::GivenUp(_) => {
                    entry.remove();
                    Some(started)
                }
            },
            // It ended before we were told that it was started.
            Entry::Vacant(_) => None,
        }
    }

    /// How long a message that tells the end may be, in bytes. None is of use where nobody waits.
    pub(super) fn longest(&self, id: &Reference) -> usize {
        match self.entries().of.get(&id.words) {
            Some(Awaited::By { longest, .. }) => *longest,
            Some(Awaited::GivenUp(_)) | None => 0,
        }
    }

    /// Told by a message of `length` bytes. `reason`: `None` where it was too long to be held.
    pub(super) fn ended(&self, id: &Reference, reason: Option<Reason>, length: usize) {
        if let Some(Awaited::By { who, longest, .. }) = self.entries().of.remove(&id.words) {
            let _ = who.send(match reason {
                Some(reason) if length <= longest => Ended::Process(reason),
                _ => Ended::TooLarge { length, longest },
            });
        }
    }

    pub(super) fn not_started(&self, id: &Reference, why: Term) {
        if let Some(Awaited::By { who, .. }) = self.entries().of.remove(&id.words) {
            let _ = who.send(Ended::NotStarted(why));
        }
    }

    /// The process to be ended, where it is known already; where it is not, whoever reads its name ends it.
    pub(super) fn give_up(&self, id: &Reference, permits: Option<Permits>) -> Option<Pid> {
        let mut entries = self.entries();
        let Entry::Occupied(mut entry) = entries.of.entry(id.words.clone()) else { return None };
        match entry.get() {
            Awaited::By { process: Some(_), .. } => match entry.remove() {
                Awaited::By { process, .. } => process,
                Awaited::GivenUp(_) => None,
            },
            Awaited::By { process: None, .. } | Awaited::GivenUp(_) => {
                entry.insert(Awaited::GivenUp(permits));
                None
            }
        }
    }

    /// No process on the node belongs to it.
    pub(super) fn forget(&self, id: &Reference) {
        self.entries().of.remove(&id.words);
    }

    /// Whoever waits now or later is told that nothing comes.
    pub(super) fn all_lost(&self, why: &Lost) {
        let mut entries = self.entries();
        entries.lost = Some(why.clone());
        for (_, awaited) in entries.of.drain() {
            if let Awaited::By { who, .. } = awaited {
                let _ = who.send(Ended::Lost(why.clone()));
            }
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.entries().of.len()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::term::Atom;

    fn id(number: u32) -> Reference {
        Reference { node: Atom::of("a@b"), creation: 1, words: vec![number, 0, 0] }
    }

    fn pid(id: u32) -> Pid {
        Pid { node: Atom::of("c@d"), id, serial: 0, creation: 1 }
    }

    const LONGEST: usize = 100;

    fn reason() -> Reason {
        Reason::Read(Term::atom("normal"))
    }

    fn normal() -> Ended {
        Ended::Process(reason())
    }

    #[tokio::test]
    async fn who_waits_is_told_whether_or_not_the_start_was_told_first() {
        let waiting = Waiting::default();
        let [mut first, mut second] = [1, 2].map(|number| waiting.for_process(&id(number), LONGEST));
        assert_eq!(waiting.started(&id(1), pid(1)), None);
        waiting.ended(&id(1), Some(reason()), LONGEST);
        waiting.ended(&id(2), Some(reason()), 0);
        assert_eq!(waiting.started(&id(2), pid(2)), None);
        assert_eq!((first.wait().await, second.wait().await), (normal(), normal()));
        assert!(waiting.entries().of.is_empty());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_ended_by_whoever_knows_it() {
        let waiting = Waiting::default();
        let _tickets = [1, 2].map(|number| waiting.for_process(&id(number), LONGEST));
        waiting.started(&id(1), pid(1));
        assert_eq!(waiting.give_up(&id(1), None), Some(pid(1)));
        assert_eq!(waiting.give_up(&id(2), None), None);
        assert_eq!(waiting.started(&id(2), pid(2)), Some(pid(2)));
        // It ended by itself meanwhile.
        assert_eq!(waiting.give_up(&id(3), None), None);
        assert!(waiting.entries().of.is_empty());
    }

    #[tokio::test]
    async fn more_than_who_waits_is_ready_to_hold_is_told_as_a_length() {
        let waiting = Waiting::default();
        let [mut first, mut second] = [1, 2].map(|number| waiting.for_process(&id(number), LONGEST));
        assert_eq!([1, 2, 3].map(|number| waiting.longest(&id(number))), [LONGEST, LONGEST, 0]);
        // Short enough to have been held all the same, and not held.
        waiting.ended(&id(1), Some(reason()), LONGEST + 1);
        waiting.ended(&id(2), None, 9_000);
        assert_eq!(first.wait().await, Ended::TooLarge { length: LONGEST + 1, longest: LONGEST });
        assert_eq!(second.wait().await, Ended::TooLarge { length: 9_000, longest: LONGEST });
        let _given_up = waiting.for_process(&id(4), LONGEST);
        waiting.give_up(&id(4), None);
        assert_eq!(waiting.longest(&id(4)), 0);
    }

    #[tokio::test]
    async fn once_the_connection_is_lost_nobody_waits() {
        let waiting = Waiting::default();
        let mut before = waiting.for_process(&id(1), LONGEST);
        waiting.all_lost(&Lost::ClosedByPeer);
        let mut after = waiting.for_process(&id(2), LONGEST);
        assert_eq!(before.wait().await, Ended::Lost(Lost::ClosedByPeer));
        assert_eq!(after.wait().await, Ended::Lost(Lost::ClosedByPeer));
    }
}
