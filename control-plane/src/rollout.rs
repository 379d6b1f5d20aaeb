//! The move of an application from what runs to a wanted release: plain data, and `plan`, which decides the next steps.
//!
//! Pure: no clock, no database, no network. `reconcile` loads the fleet, calls it, stores what comes out and tells agents.

use std::collections::BTreeMap;

use proto::ids::{AppName, ReleaseKey, RolloutId};
use proto::state::RolloutPhase;

use crate::clock::Time;
use crate::fleet::Place;

/// One rollout as it is stored: compare-and-set by `generation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    pub id: RolloutId,
    pub app: AppName,
    pub release: ReleaseKey,
    /// Where it goes back to. `None`: a first deployment.
    pub from: Option<ReleaseKey>,
    pub phase: RolloutPhase,
    /// Why it is in this phase where that needs saying: the evidence of a revert.
    pub reason: Option<String>,
    pub pre_commands: PreCommandsState,
    /// Crash counts of each place when the watch began, so that the watch counts its own.
    pub watched_from: BTreeMap<Place, u32>,
    pub by: String,
    pub started_at: Time,
    /// When the present phase began.
    pub phase_since: Time,
    pub finished_at: Option<Time>,
    /// Of the stored row.
    pub generation: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreCommandsState {
    NotNeeded,
    /// No slot was told to run them yet.
    Waiting,
    RunBy {
        place: Place,
        run_id: String,
    },
    Passed,
    Failed {
        error: String,
    },
}
