//! Releases of an application: what was found in the bucket, what is ghosted.

use serde::{Deserialize, Serialize};

use crate::hot_upgrade::HotUpgradePolicy;
use crate::ids::{AppName, NodeName, ReleaseKey, Slot, Version};
use crate::replicas::{FailedCheck, LastExit};
use crate::timestamp::Timestamp;

/// A release that the control plane has read and recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Release {
    pub key: ReleaseKey,
    /// Of the tarball, in bytes.
    pub size: u64,
    pub pre_commands: Vec<String>,
    pub recorded_at: Timestamp,
    /// It is what the application runs, or goes back to.
    pub in_force: bool,
    /// It is what the bucket or a person asks for.
    pub wanted: bool,
    pub ghosted: Option<Ghost>,
}

/// A release that failed to become stable: not deployed again until a person clears it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ghost {
    pub key: ReleaseKey,
    pub at: Timestamp,
    /// The evidence, as a sentence.
    pub reason: String,
    /// Where it failed; absent: nowhere in particular, or the node was removed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// The last check there that did not pass; absent: none failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_check: Option<FailedCheck>,
    /// How it ended there last; absent: it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<LastExit>,
    /// What the slot said was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// What the slot that failed printed last; absent: nothing is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<String>,
}

/// How many releases were taken off the list of ghosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GhostsCleared {
    pub cleared: Vec<ReleaseKey>,
}

/// What a deployment of a release would be, replica by replica, as the packages say; nothing was done for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseCheck {
    pub application: AppName,
    pub release: ReleaseKey,
    /// `deploy.hot_upgrade` of the application.
    pub policy: HotUpgradePolicy,
    /// All of it in a sentence: `hot from 1.1.0 on 6 replicas; full on 3 replicas: …`.
    pub summary: String,
    /// Those that run.
    pub replicas: Vec<ReplicaCheck>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplicaCheck {
    pub node: NodeName,
    pub slot: Slot,
    /// What runs there.
    pub from: Version,
    pub way: CheckedWay,
    /// Why it would be a full deployment; of a hot upgrade: which changed settings it leaves waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// How a release would come to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckedWay {
    /// Inside the VM that runs.
    Hot,
    /// In a new VM.
    Full,
    /// It runs it already.
    None,
}

impl ReleaseCheck {
    /// The application's settings forbid its deployment as it is.
    pub fn is_refused(&self) -> bool {
        self.policy == HotUpgradePolicy::Require && self.count(CheckedWay::Full) > 0
    }

    pub fn count(&self, way: CheckedWay) -> usize {
        self.replicas.iter().filter(|it| it.way == way).count()
    }
}
