//! Applications: what is configured, what runs of it and what it is doing.

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, Digest, ReleaseKey, RolloutId, Version};
use crate::releases::Ghost;
use crate::replicas::{Replica, ReplicaTile};
use crate::rollouts::Rollout;
use crate::state::{FaultKind, Language, RolloutPhase, Strategy, Tone};
use crate::timestamp::Timestamp;

/// An application in lists and in the overview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApplicationSummary {
    pub name: AppName,
    pub language: Language,
    pub tone: Tone,
    /// What it is doing, or what is wrong with it, in one line.
    pub sentence: String,
    /// A person has to look at it; `sentence` says why.
    pub needs_attention: bool,
    /// What became stable last.
    pub in_force: Option<ReleaseKey>,
    pub in_force_since: Option<Timestamp>,
    /// The newest wish.
    pub wanted: Option<ReleaseKey>,
    /// Slots 1..N on every node that may hold it.
    pub replicas_wanted: u32,
    pub replicas_ready: u32,
    pub rollout: Option<RolloutId>,
    pub ghosted: u32,
    /// By node, then slot; also slots that are being withdrawn.
    pub replicas: Vec<ReplicaTile>,
}

/// An application with all that its page shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Application {
    #[serde(flatten)]
    pub summary: ApplicationSummary,
    pub settings: Settings,
    /// What is wrong with its releases in the bucket, or waited for there; absent: nothing.
    pub release_fault: Option<ReleaseFault>,
    /// By node, then slot. Named so beside `replicas`, which are the tiles.
    pub slots: Vec<Replica>,
    /// The rollout that is not over.
    pub current_rollout: Option<Rollout>,
    pub ghosts: Vec<Ghost>,
    /// The release that it is held to, whatever its bucket names; absent: it is not.
    #[serde(default)]
    pub pinned: Option<Pin>,
    /// What a rollback goes to, as far as that can be told without its history; absent: look there.
    #[serde(default)]
    pub rolls_back_to: Option<ReleaseKey>,
}

/// A release that an application is held to until it is unpinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pin {
    pub release: ReleaseKey,
    pub by: String,
    pub at: Timestamp,
}

/// What came of `DELETE /applications/{app}/pin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Unpinned {
    pub application: AppName,
    /// What the bucket names, which counts again; absent: it names nothing.
    pub wanted: Option<ReleaseKey>,
    pub sentence: String,
}

/// What a person would want to know of its configuration without opening the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Settings {
    pub replicas_per_node: u16,
    pub strategy: Strategy,
    pub stable_after_ms: u64,
    pub rollback_timeout_ms: u64,
    /// The first port of each variable; slot n has `base + n - 1`.
    pub ports: Vec<PortBase>,
    pub run_as: String,
    /// Labels that a node must have, `key=value`.
    pub nodes: Vec<String>,
    /// Names of the variables it is given; never their values.
    pub env_keys: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortBase {
    pub key: String,
    pub base: u16,
}

/// The bucket offers something that cannot be deployed, or not yet; the last good release stays in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseFault {
    pub kind: FaultKind,
    pub text: String,
    pub since: Timestamp,
}

/// `POST /applications/{app}/deploy`, and `/pin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    pub version: Version,
    /// Which tarball, where the version was published more than once; absent: the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// `POST /applications/{app}/scale`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Replicas: over all nodes where the application is spread, else on each node.
    #[cfg_attr(feature = "openapi", schema(value_type = u16))]
    pub count: std::num::NonZeroU16,
}

/// What came of a [`Deploy`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Deployment {
    pub application: AppName,
    pub release: ReleaseKey,
    /// The rollout to follow; absent: it has not begun yet, and `sentence` says why.
    pub rollout: Option<RolloutId>,
    pub sentence: String,
}

/// One line of an application's history: a rollout and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryEntry {
    pub rollout: RolloutId,
    pub release: ReleaseKey,
    pub from: Option<ReleaseKey>,
    /// How its slots were told to take it; absent: none was told yet.
    #[serde(default)]
    pub kind: Option<DeploymentKind>,
    pub by: String,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub outcome: RolloutPhase,
    pub reason: Option<String>,
}

/// One line of a replica's history: a release that its slot was told to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplicaHistoryEntry {
    pub release: ReleaseKey,
    /// How it was told to take it. A hot upgrade that could not be is followed by an entry that says how it went on.
    pub kind: DeploymentKind,
    /// What the slot was told before, or what ran there was upgraded of; absent: nothing, or an older version wrote the entry.
    #[serde(default)]
    pub from: Option<ReleaseKey>,
    pub started_at: Timestamp,
    /// When it was told something else; absent: it is what the slot is to run.
    pub finished_at: Option<Timestamp>,
    /// The rollout that put it there, or took it back; absent: the slot was filled or put right outside of any.
    pub rollout: Option<RolloutId>,
    /// On whose word: of that rollout, or of who took it back, `rollback` where that was nobody. Absent: nobody's.
    pub by: Option<String>,
    /// What became of the rollout, where it was of this release.
    pub outcome: Option<RolloutPhase>,
    pub reason: Option<String>,
}

/// How a release came into the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DeploymentKind {
    /// What ran before ended, or nothing did.
    Full,
    /// What ran was upgraded while it ran on.
    Hot,
    /// Of a rollout: some slots so, some so.
    Mixed,
    /// In another way, which a newer version knows.
    #[serde(other)]
    Unknown,
}

impl DeploymentKind {
    /// As in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Hot => "hot",
            Self::Mixed => "mixed",
            Self::Unknown => "unknown",
        }
    }
}
