//! Restarts on request: what is started anew, and how far that is.

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, NodeName, RestartId, Slot};
use crate::timestamp::Timestamp;

/// The body of a request for a restart of an application: of all of it, or of what is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct NewRestart {
    /// Only there.
    pub node: Option<NodeName>,
    /// Only these slots.
    pub slot: Option<Slot>,
}

/// One restart that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Restart {
    pub id: RestartId,
    pub application: AppName,
    /// Absent: on every node.
    pub node: Option<NodeName>,
    /// Absent: every slot.
    pub slot: Option<Slot>,
    /// A user or a token; `thresholds` where `because` says why.
    pub by: String,
    /// Which limit the replica has passed, where that asks for it; absent: a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    pub requested_at: Timestamp,
    /// Absent: it is under way.
    pub finished_at: Option<Timestamp>,
    /// Why not all of it was done, a sentence; absent: nothing is wrong.
    pub failure: Option<String>,
    /// What it waits for, a sentence each.
    pub waiting: Vec<String>,
}
