//! Releases of an application: what was found in the bucket, what is ghosted.

use serde::{Deserialize, Serialize};

use crate::ids::{NodeName, ReleaseKey, Slot};
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
