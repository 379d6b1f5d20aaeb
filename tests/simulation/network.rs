//! What happens later: answers to agents, ends of processes, and what is on its way between hosts and control plane.

use std::collections::BTreeMap;

use node_agent::replica::{Assignment, Event, Ticket};
use proto::ids::ReleaseKey;
use proto::pb;
use proto::state::ExitCause;

/// All that a host is to run, as it was when it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) slots: BTreeMap<u16, Assignment>,
}

#[derive(Clone, Debug)]
pub(crate) enum Due {
    /// For the agent that asked; lost when that one is dead.
    Answer {
        host: usize,
        agent: u32,
        slot: u16,
        event: Event,
    },
    Prepared {
        host: usize,
        agent: u32,
        slot: u16,
        ticket: Ticket,
        release: ReleaseKey,
    },
    Swapped {
        host: usize,
        agent: u32,
        slot: u16,
        ticket: Ticket,
        release: ReleaseKey,
    },
    Cleared {
        host: usize,
        agent: u32,
        slot: u16,
        ticket: Ticket,
    },
    PreCommandEnds {
        host: usize,
        slot: u16,
        ticket: Ticket,
        passed: bool,
    },
    ProcessEnds {
        host: usize,
        slot: u16,
        pid: u32,
        cause: ExitCause,
    },
    /// Its check passes.
    ProcessReady {
        host: usize,
        slot: u16,
        pid: u32,
    },
    AgentBegins {
        host: usize,
    },
    // Each is lost with the session that it was sent over.
    Told {
        host: usize,
        session: u32,
        snapshot: Snapshot,
    },
    Report {
        host: usize,
        session: u32,
        slot: u16,
        report: Box<pb::SlotReport>,
    },
    Connects {
        host: usize,
    },
    ControlPlaneBegins,
    /// A host that was silent for a moment counts as lost now.
    IsLost,
    /// Somebody is to look at the fleet.
    Plan,
    Mischief,
}
