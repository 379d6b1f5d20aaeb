//! What comes back from an action, where it is more than that it was done.

use serde::{Deserialize, Serialize};

use super::Ticket;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepareFailure {
    pub error: String,
    /// Trying again cannot help: the archive itself is at fault.
    pub permanent: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreCommandFailure {
    pub error: String,
    pub output: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Launch {
    Started {
        pid: u32,
    },
    Failed {
        error: String,
    },
    /// The host is why: it lacks what any program needs.
    Hindered {
        error: String,
    },
    /// The slot's lock is taken by a process that was started with that ticket.
    Held {
        by: Ticket,
        pid: u32,
    },
}

/// Why the slot's folders were not touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    Failed {
        error: String,
    },
    /// The slot's lock is taken by a process that was started with that ticket.
    Held {
        by: Ticket,
        pid: u32,
    },
}
