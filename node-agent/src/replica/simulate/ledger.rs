//! The slot's ledger in the simulation: what a new agent would find, on a disk that fills up and is cut from its power.

use super::super::held::{Held, must_last};
use super::*;

/// A ledger that could not be written is tried again after this.
const AGAIN: u64 = 5_000;

pub(super) struct Ledger {
    pub(super) written: Replica,
    /// What of it is sure to outlive a power cut.
    lasting: Replica,
    /// It was written by the agent that lives.
    is_ours: bool,
    /// In which boot of the host it was written.
    pub(super) boot: u32,
    held: Held,
    pub(super) disk_is_full: bool,
    pub(super) again: Option<Time>,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            written: Replica::default(),
            lasting: Replica::default(),
            is_ours: false,
            boot: 0,
            held: Held::default(),
            disk_is_full: false,
            again: None,
        }
    }

    pub(super) fn hold(&mut self, actions: Vec<Action>, now: Time) {
        self.held.add(actions, now);
    }

    /// As the slot's task does it: whether it holds the state.
    pub(super) fn store(&mut self, replica: &Replica, boot: u32, now: Time) -> bool {
        self.written.link = replica.link;
        if self.is_ours && self.written == *replica {
            self.again = None;
            return true;
        }
        if self.disk_is_full {
            self.again = Some(now.plus(AGAIN));
            return false;
        }
        if !self.is_ours || must_last(&self.written, replica) {
            self.lasting = replica.clone();
        }
        self.written = replica.clone();
        self.is_ours = true;
        self.boot = boot;
        self.again = None;
        true
    }

    /// What may begin, and whether the ledger says so.
    pub(super) fn begun(&mut self, stored: bool, replica: &Replica, now: Time) -> Vec<Action> {
        if stored { self.held.take(now) } else { self.held.take_free(&self.written, replica) }
    }

    /// A start of what it knows to lie in the slot waits for it.
    pub(super) fn keeps_down(&self, replica: &Replica) -> bool {
        let knows = self.written.current.is_some() && self.written.current == replica.current;
        knows && self.held.waits_to_launch()
    }

    /// The agent is gone, and with it what it had not written. `power_cut`: perhaps also what was not made to last.
    pub(super) fn outlives(&mut self, power_cut: bool) -> Replica {
        if power_cut {
            self.written = self.lasting.clone();
        }
        self.is_ours = false;
        self.held = Held::default();
        self.again = None;
        self.written.clone()
    }
}
