//! The move of an application from what runs to a wanted release: plain data, and `plan`, which decides the next steps.
//!
//! Pure: no clock, no database, no network. `reconcile` loads the fleet, calls it, stores what comes out and tells agents.

mod back;
mod batch;
mod draft;
mod drain;
mod fallback;
mod fault;
#[cfg(any(test, all(feature = "simulation", debug_assertions)))]
#[allow(dead_code, clippy::unwrap_used, reason = "for tests, some of which are in another crate")]
pub(crate) mod fixture;
mod gate;
mod hot;
mod lifecycle;
mod place;
mod placement;
mod plan;
mod pre_commands;
mod predecessor;
mod progress;
mod record;
mod restart;
mod roll;
mod room;
mod sight;
#[cfg(test)]
mod simulate;
#[cfg(any(test, all(feature = "simulation", debug_assertions)))]
pub mod simulation;
mod steering;
#[cfg(test)]
mod stories;
mod thresholds;
mod told;
mod waiting;

use std::collections::BTreeMap;

use proto::ids::{AppName, NodeId, ReleaseKey, RestartId, RolloutId};
use proto::state::{RolloutPhase, Severity};
use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::fleet::{Hot, ObservedCheck, ObservedExit, Place, RestartWish};

pub use back::{NoWayBack, back_to};
pub use fallback::has_way_back;
pub use plan::plan;
pub use progress::{Batch, Progress, Promoted, Said, Trial};
pub use record::{Drawn, EndedNode, OwnRuns, Ran, Record, Recorded, Runs};
pub use steering::{Held, Steering};
pub use waiting::Waiting;

/// One rollout as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    pub id: RolloutId,
    pub app: AppName,
    pub release: ReleaseKey,
    /// Where it goes back to. `None`: a first deployment.
    pub from: Option<ReleaseKey>,
    /// [`Wish::at`](crate::fleet::Wish::at) of the wish that it carries out.
    pub wished_at: Time,
    pub phase: RolloutPhase,
    /// Why it is in this phase where that needs saying: the evidence of a revert.
    pub reason: Option<String>,
    pub pre_commands: PreCommandsState,
    pub progress: Progress,
    pub by: String,
    pub started_at: Time,
    /// When the present phase began.
    pub phase_since: Time,
    pub finished_at: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum PreCommandsState {
    NotNeeded,
    /// No slot was told to run them yet.
    Waiting,
    RunBy {
        place: Place,
        run_id: String,
    },
    /// Each slot runs its own before it starts the release.
    EveryReplica,
    Passed,
    Failed {
        error: String,
    },
}

/// What is to be stored, in one transaction and only if the fleet's generation is still the one that was planned from:
/// all of it or nothing. Planning again after it was stored gives an empty plan until something else happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rows to write, by id: the rollout under way, and before it the one that it superseded.
    pub rollouts: Vec<Rollout>,
    /// More rows to write after those: of rollouts that gave way in their watch, which goes on, or is over.
    pub predecessors: Vec<Rollout>,
    pub steps: Vec<Step>,
    pub in_force: Option<InForce>,
    pub ghosts: Vec<Ghost>,
    /// What a rollout under way comes from is another release now: whoever may go back by itself is to be told. Not stored.
    pub way_back_changed: bool,
    /// Of a replica that has passed a limit of its own; its generation is the one that storing the plan raises to.
    pub asked: Option<RestartWish>,
    pub restarts: Vec<RestartOver>,
    /// [`AppFleet::placed`](crate::fleet::AppFleet::placed) from now on.
    pub placed: Option<BTreeMap<NodeId, u16>>,
    pub events: Vec<Happening>,
    /// What is kept of its rollouts for people.
    pub records: Vec<Recorded>,
    /// Why nothing more happens now. Not stored.
    pub waiting: Vec<Waiting>,
    /// When to plan again even if nothing is heard. Not stored.
    pub wake_at: Option<Time>,
}

impl Plan {
    /// Nothing is to be stored.
    pub fn is_empty(&self) -> bool {
        self.rollouts.is_empty()
            && self.predecessors.is_empty()
            && self.steps.is_empty()
            && self.in_force.is_none()
            && self.ghosts.is_empty()
            && self.asked.is_none()
            && self.restarts.is_empty()
            && self.placed.is_none()
            && self.events.is_empty()
            && self.records.is_empty()
    }
}

/// A change of what a place is assigned: desired state, not a command, so that carrying it out twice does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Assign {
        place: Place,
        release: ReleaseKey,
        /// Set where this slot is to run the pre-commands first.
        pre_commands_run: Option<String>,
        /// The slot says that it runs something else: `release` is started for this word. Otherwise it may run already, and go
        /// on running.
        begins: bool,
        /// How it comes there; `None`: what ran ends before it.
        hot: Option<Hot>,
    },
    /// Nothing is to run there.
    Withdraw { place: Place },
    /// It was withdrawn and nothing is there any more: forget it.
    Forget { place: Place },
    /// What runs there is to be started anew.
    Restart {
        place: Place,
        restart: RestartId,
        /// It may have been started anew for this very wish already, and then is not once more: of what was asked for later
        /// nothing is done. The application's generation of the wish; `None`: whatever was asked for so far is done by this.
        only_since: Option<u64>,
    },
}

impl Step {
    pub fn place(&self) -> Place {
        match self {
            Self::Assign { place, .. }
            | Self::Withdraw { place }
            | Self::Forget { place }
            | Self::Restart { place, .. } => *place,
        }
    }
}

/// What new places get from now on, and where a failed rollout goes back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InForce {
    Release(ReleaseKey),
    /// The first deployment failed in its watch: there is none.
    Nothing,
}

/// A restart that was asked for and is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartOver {
    pub id: RestartId,
    /// Why not all of it was done, a sentence.
    pub failure: Option<String>,
}

/// A release that is not deployed again until a person clears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ghost {
    pub release: ReleaseKey,
    /// In which it failed.
    pub rollout: Option<RolloutId>,
    /// A sentence.
    pub reason: String,
    pub evidence: Evidence,
}

/// What the slot that failed said last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub place: Option<Place>,
    pub last_exit: Option<ObservedExit>,
    /// Missing in what an earlier version stored.
    #[serde(default)]
    pub failed_check: Option<ObservedCheck>,
    /// Empty: it named none.
    pub fault: String,
    /// Last lines of the pre-commands, where they failed.
    pub pre_commands_output: String,
}

impl Evidence {
    /// The last lines that bear on the failure: of the pre-commands, of the crash, or from when its check failed.
    pub fn log_tail(&self) -> Option<&str> {
        let exit = self.last_exit.as_ref().filter(|exit| !exit.asked_for && !exit.log_tail.is_empty());
        let check = self.failed_check.as_ref().filter(|check| !check.log_tail.is_empty());
        let text = match (exit, check) {
            _ if !self.pre_commands_output.is_empty() => &self.pre_commands_output,
            (Some(exit), Some(check)) if check.at <= exit.at => &exit.log_tail,
            (_, Some(check)) => &check.log_tail,
            (Some(exit), None) => &exit.log_tail,
            (None, None) => return None,
        };
        Some(text)
    }
}

/// Something to be written down as an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    pub kind: HappeningKind,
    pub place: Option<Place>,
    pub rollout: Option<RolloutId>,
    pub release: Option<ReleaseKey>,
    /// A sentence.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HappeningKind {
    DeploymentStarted,
    /// Every slot is stable on the release.
    DeploymentComplete,
    /// It outlived its watch.
    DeploymentDone,
    DeploymentSuperseded,
    /// What took its place is back: its watch goes on. Whoever is told of deployments was told of it before.
    DeploymentTakenUp,
    /// It turned: what was moved goes back.
    DeploymentReverting,
    DeploymentRolledBack,
    /// The revert's time was over before all of it was back.
    RollBackIncomplete,
    /// A first deployment failed: there is nothing to go back to.
    DeploymentFailed,
    /// One slot has shown that it will not do: the others are deployed in full.
    HotUpgradeGivenUp,
    /// The release failed on a node, and goes on elsewhere.
    NodeFailed,
    VersionGhosted,
    PreCommandsStarted,
    PreCommandsPassed,
    PreCommandsFailed,
    /// For a limit that was passed; what people ask for is written down where they do.
    RestartRequested,
    RestartComplete,
    RestartFailed,
}

impl HappeningKind {
    /// For programs, as in the HTTP API's events.
    pub fn word(self) -> &'static str {
        match self {
            Self::DeploymentStarted => "deployment_started",
            Self::DeploymentComplete => "deployment_complete",
            Self::DeploymentDone => "deployment_done",
            Self::DeploymentSuperseded => "deployment_superseded",
            Self::DeploymentTakenUp => "deployment_taken_up",
            Self::DeploymentReverting => "deployment_reverting",
            Self::DeploymentRolledBack | Self::RollBackIncomplete => "deployment_rolled_back",
            Self::DeploymentFailed => "deployment_failed",
            Self::HotUpgradeGivenUp => "hot_upgrade_given_up",
            Self::NodeFailed => "deployment_failed_on_node",
            Self::VersionGhosted => "version_ghosted",
            Self::PreCommandsStarted => "pre_commands_started",
            Self::PreCommandsPassed => "pre_commands_passed",
            Self::PreCommandsFailed => "pre_commands_failed",
            Self::RestartRequested => "restart_requested",
            Self::RestartComplete => "restart_complete",
            Self::RestartFailed => "restart_failed",
        }
    }

    pub fn severity(self) -> Severity {
        match self {
            Self::DeploymentStarted
            | Self::DeploymentComplete
            | Self::DeploymentDone
            | Self::DeploymentSuperseded
            | Self::DeploymentTakenUp
            | Self::PreCommandsStarted
            | Self::PreCommandsPassed
            | Self::RestartComplete => Severity::Info,
            Self::DeploymentReverting
            | Self::DeploymentRolledBack
            | Self::HotUpgradeGivenUp
            | Self::NodeFailed
            | Self::VersionGhosted
            | Self::RestartRequested
            | Self::RestartFailed => Severity::Warning,
            Self::DeploymentFailed | Self::RollBackIncomplete | Self::PreCommandsFailed => Severity::Error,
        }
    }
}
