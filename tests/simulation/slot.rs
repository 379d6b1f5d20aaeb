//! One slot of a host: the machine as its agent holds it, what the ledger says, what lies in the folders, and what runs.

use node_agent::clock::Time;
use node_agent::replica::held::must_last;
use node_agent::replica::recover::{Boot, Found};
use node_agent::replica::{Assignment, Replica, Ticket};
use proto::ids::ReleaseKey;
use proto::pb;
use proto::state::ExitCause;

/// A process of the slot.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) ticket: Ticket,
    pub(crate) pid: u32,
    pub(crate) release: ReleaseKey,
    /// From when on its check passes; `None`: never.
    pub(crate) ready_at: Option<u64>,
    /// It was told to stop.
    pub(crate) told: bool,
}

impl Process {
    pub(crate) fn is_ready(&self, now: u64) -> bool {
        self.ready_at.is_some_and(|at| at <= now) && !self.told
    }
}

#[derive(Debug, Default)]
pub(crate) struct Slot {
    // Of the agent, and lost with it.
    pub(crate) replica: Replica,
    pub(crate) told_at: Time,
    pub(crate) reported: Option<pb::SlotReport>,
    /// When the machine is to be called back.
    pub(crate) wake: Option<u64>,
    pub(crate) preparing: Option<Ticket>,
    /// The upgrade that is under way was begun by an agent before this one.
    pub(crate) inherited_upgrade: bool,
    // The ledger.
    pub(crate) assignment: Option<Assignment>,
    written: Replica,
    /// What of it outlives a power cut.
    lasting: Replica,
    is_ours: bool,
    boot: u32,
    // The folders.
    pub(crate) new: Option<ReleaseKey>,
    pub(crate) current: Option<ReleaseKey>,
    // What runs.
    pub(crate) alive: Option<Process>,
    pub(crate) newest: Ticket,
    pub(crate) ended: Option<(Ticket, ExitCause)>,
    pub(crate) pre_alive: Option<Ticket>,
    pub(crate) pre_ended: Option<(Ticket, bool)>,
    /// A ready process was ended here because the planner, which knew it to be ready, had said so; none was ready since.
    pub(crate) taken_down: bool,
}

impl Slot {
    /// The ledger says what was decided.
    pub(crate) fn write(&mut self, boot: u32) {
        if !self.is_ours || must_last(&self.written, &self.replica) {
            self.lasting = self.replica.clone();
        }
        self.written = self.replica.clone();
        (self.is_ours, self.boot) = (true, boot);
    }

    /// Its host has lost its power.
    pub(crate) fn lose_power(&mut self, forgets: bool) {
        if forgets {
            self.written = self.lasting.clone();
        }
        (self.alive, self.ended) = (None, None);
        (self.pre_alive, self.pre_ended) = (None, None);
        self.newest = Ticket(0);
    }

    /// What a new agent goes on from, and what it asks for once more.
    pub(crate) fn recover(&mut self, boot: u32, now: Time) -> Vec<node_agent::replica::Action> {
        let found = match (&self.alive, self.ended) {
            (Some(alive), _) => Found::Running { ticket: alive.ticket, pid: alive.pid },
            (None, Some((ticket, cause))) => Found::Ended { ticket, cause },
            (None, None) => Found::Nothing,
        };
        let pre_found = match (self.pre_alive, self.pre_ended) {
            (Some(ticket), _) => Found::Running { ticket, pid: 1 },
            (None, Some((ticket, passed))) => {
                Found::Ended { ticket, cause: ExitCause::Code(i32::from(!passed)) }
            }
            (None, None) => Found::Nothing,
        };
        let same = self.boot == boot || !self.is_known();
        let boot = if same { Boot::Present } else { Boot::Earlier { whole: self.current.clone() } };
        let (replica, again) = self.written.recover(found, pre_found, boot, now);
        self.inherited_upgrade = replica.upgrade.is_some();
        self.replica = replica;
        (self.is_ours, self.preparing, self.reported) = (false, None, None);
        again
    }

    /// Whether the ledger was ever written.
    fn is_known(&self) -> bool {
        self.written != Replica::default()
    }

    /// Whether the ledger that the new agent found is of this boot.
    pub(crate) fn is_of(&self, boot: u32) -> bool {
        self.boot == boot
    }
}
