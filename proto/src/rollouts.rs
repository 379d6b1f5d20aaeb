//! Rollouts: the move of an application to a release, how far it is and what it waits for.

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, NodeName, ReleaseKey, RolloutId, Slot};
use crate::state::{RolloutPhase, SlotState};
use crate::timestamp::Timestamp;

/// A rollout in lists and in the overview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutSummary {
    pub id: RolloutId,
    pub application: AppName,
    pub release: ReleaseKey,
    /// Where it goes back to; absent: a first deployment.
    pub from: Option<ReleaseKey>,
    pub phase: RolloutPhase,
    /// Why it is in this phase, where that needs saying.
    pub reason: Option<String>,
    /// A user, a token, or `bucket`.
    pub by: String,
    pub started_at: Timestamp,
    /// When the present phase began.
    pub phase_since: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// Who paused it: no further slot is told the release until it is resumed. Absent: it goes on.
    #[serde(default)]
    pub paused_by: Option<String>,
    pub progress: Progress,
    /// What it waits for, a sentence each; empty: it does not wait.
    pub waiting: Vec<String>,
}

/// Slots that run what the rollout now moves to, of all that are to. Of a rollout that is over: as it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    pub stable: u32,
    pub total: u32,
}

/// A rollout with each of its slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rollout {
    #[serde(flatten)]
    pub summary: RolloutSummary,
    pub pre_commands: RolloutPreCommands,
    /// By node, in the order in which they are visited; empty once the rollout is over.
    pub nodes: Vec<RolloutNode>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum RolloutPreCommands {
    NotNeeded,
    Waiting,
    Running {
        node: NodeName,
        slot: Slot,
    },
    /// Each slot runs its own before it starts the release.
    EveryReplica,
    Passed,
    Failed {
        error: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutNode {
    pub node: NodeName,
    pub slots: Vec<RolloutSlot>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutSlot {
    pub slot: Slot,
    pub state: SlotState,
    pub running: Option<ReleaseKey>,
    /// It was told to run the rollout's release.
    pub told: bool,
}
