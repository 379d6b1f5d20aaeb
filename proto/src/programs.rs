//! The programs themselves: the control plane and the agents, which can be restarted without touching a replica.

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// `GET /control-plane`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ControlPlane {
    pub version: String,
    /// When its program began.
    pub started_at: Timestamp,
}

/// `POST /control-plane/restart` and `POST /nodes/{node}/restart-agent`: it was asked to, and is back once it says that it
/// began later than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProgramRestart {
    pub requested_at: Timestamp,
}
