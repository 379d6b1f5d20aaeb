//! Events: what changed, when, and on whose word.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, EventId, NodeName, RolloutId, Slot};
use crate::state::Severity;
use crate::timestamp::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    pub id: EventId,
    pub at: Timestamp,
    pub severity: Severity,
    /// For programs: `crash_restart`, `deployment_started`, …
    pub kind: String,
    /// For people: a sentence.
    pub text: String,
    pub application: Option<AppName>,
    pub node: Option<NodeName>,
    pub slot: Option<Slot>,
    pub rollout: Option<RolloutId>,
    /// On whose word; absent: nobody's.
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
}
