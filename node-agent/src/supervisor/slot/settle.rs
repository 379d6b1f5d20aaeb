//! Store, then act: what is decided is begun when the slot's ledger holds it, and not before.
//!
//! While the ledger cannot be written (a full or read-only disk) what runs goes on, nothing new is begun, the report says why,
//! and it is tried again after pauses. One thing is begun all the same: the start of what the ledger already knows to lie in
//! the slot, after it ended. A full disk must not keep a crashed replica down for as long as it lasts, and that nothing is
//! started twice does not rest on the ledger: the lock is the truth, the ledger is memory. The next agent, reading an older
//! ledger, finds by the slot's lock what runs and takes it up; that its ticket is a later one says that there was a crash.

use tracing::{error, info};

use super::super::ledger::Runtime;
use super::super::{acts, crash_point};
use super::SlotTask;
use crate::clock::{self, Time};
use crate::replica::held::{Held, must_last};
use crate::replica::{Action, Event, Health, Process, Replica, decide};

/// First pause before a ledger that could not be written is tried again …
const AGAIN_MIN: u64 = 250;
/// … and the longest: room that was made is used soon.
const AGAIN_MAX: u64 = 15_000;

/// The slot's ledger as the task knows it.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// What it holds, as far as that matters.
    written: Replica,
    /// It was written in this boot of the host, and by this agent.
    is_ours: bool,
    held: Held,
    trouble: Option<Trouble>,
}

/// It could not be written.
#[derive(Debug)]
struct Trouble {
    fault: String,
    attempts: u32,
    again: Time,
}

impl Book {
    /// One that holds this, from before.
    pub(super) fn of(written: Replica) -> Self {
        Self { written, ..Self::default() }
    }

    /// What an earlier agent had asked for and is asked for once more.
    pub(super) fn asked_again(&mut self, actions: Vec<Action>) {
        self.held.add(actions, clock::now());
    }

    /// When it is to be tried again.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.trouble.as_ref().map(|it| it.again)
    }

    /// For the slot's report.
    pub(super) fn fault(&self) -> Option<String> {
        let trouble = self.trouble.as_ref()?;
        Some(format!(
            "the ledger cannot be written: {}; what runs goes on, nothing new is begun, and it is tried again",
            trouble.fault
        ))
    }

    /// The process is one that requests may be sent to. Also where it is to stop and that could not be written: it runs on until
    /// it can.
    pub(super) fn serves(&self, replica: &Replica) -> bool {
        match &replica.process {
            Process::Up { health: Health::Ready { .. }, .. } => true,
            Process::Draining { ticket, .. } | Process::Stopping { ticket, .. } => {
                matches!(&self.written.process,
                    Process::Up { ticket: it, health: Health::Ready { .. }, .. } if it == ticket)
            }
            _ => false,
        }
    }
}

impl SlotTask {
    pub(super) fn happen(&mut self, event: Event) {
        // Becoming stable changes nothing in the machine but what is to be said of it.
        let told_by_time = event == Event::Tick;
        let cause = crash_point::variant(&event);
        let now = clock::now();
        let (next, actions) = decide(&self.replica, event, now);
        let changed = next != self.replica;
        self.replica = next;
        self.book.held.add(actions, now);
        if changed || told_by_time || !self.book.held.is_empty() {
            self.settle(&cause);
        }
        self.watch_health();
    }

    /// Makes the ledger say what was decided, and then begins it. `cause` names this place for a test.
    pub(super) fn settle(&mut self, cause: &str) {
        let stored = self.store(cause);
        let Book { written, held, .. } = &mut self.book;
        let mut begun = if stored { held.take(clock::now()) } else { held.take_free(written, &self.replica) };
        // What there is to say of it can wait for what there is to do.
        begun.sort_by_key(|action| matches!(action, Action::Note(_)));
        for action in begun {
            let what = crash_point::variant(&action);
            self.carry_out(action);
            crash_point::here(|| format!("{} {what}: begun", self.place()));
        }
        self.publish();
    }

    /// Where in its life the slot is, to tell one place of a story from another.
    fn place(&self) -> String {
        let wanted = self.replica.wanted().map_or("nothing", |it| it.release.version.as_str());
        format!("{} for {wanted} after {} crashes,", self.id, self.replica.crash_restarts)
    }

    /// Whether the ledger holds the present state.
    fn store(&mut self, cause: &str) -> bool {
        // Of this agent alone, and not written down.
        self.book.written.link = self.replica.link;
        let Book { written, is_ours, .. } = &self.book;
        if *is_ours && *written == self.replica {
            return true;
        }
        let durable = !is_ours || must_last(written, &self.replica);
        let runtime = Runtime { boot_id: self.shared.boot_id.clone(), replica: self.replica.clone() };
        crash_point::here(|| format!("{} {cause}: to be written", self.place()));
        match self.shared.paths.ledger(&self.id).store_runtime(&runtime, durable) {
            Ok(()) => {
                crash_point::here(|| format!("{} {cause}: written", self.place()));
                self.book.written = runtime.replica;
                self.book.is_ours = true;
                if self.book.trouble.take().is_some() {
                    info!("the slot's ledger is written again");
                }
                true
            }
            Err(fault) => {
                let attempts = self.book.trouble.as_ref().map_or(0, |it| it.attempts);
                let fault = acts::chain(&fault);
                // Once, not with every try: it stays in the report.
                if attempts == 0 {
                    error!(fault, "the slot's ledger cannot be written; nothing new is begun until it can");
                }
                let pause = AGAIN_MIN.saturating_mul(1 << attempts.min(16)).min(AGAIN_MAX);
                let again = clock::now().plus(pause);
                self.book.trouble = Some(Trouble { fault, attempts: attempts.saturating_add(1), again });
                false
            }
        }
    }
}
