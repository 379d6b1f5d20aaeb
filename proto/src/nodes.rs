//! Nodes: the hosts that run an agent, and the tokens by which a host joins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, NodeId, NodeName, TokenId};
use crate::replicas::Replica;
use crate::state::{HostLevel, Liveness, Service};
use crate::timestamp::Timestamp;

/// A node in lists and in the overview.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeSummary {
    pub id: NodeId,
    pub name: NodeName,
    pub liveness: Liveness,
    pub labels: BTreeMap<String, String>,
    /// Whether a person keeps replicas away from it. Missing in what an earlier version says.
    #[serde(default)]
    pub service: Service,
    pub agent_version: String,
    /// When the agent was last heard; absent: never. Known to a few seconds across a restart of the control plane.
    pub heard_at: Option<Timestamp>,
    pub replicas: u32,
    pub replicas_ready: u32,
    /// Absent: nothing was measured lately.
    pub usage: Option<HostUsage>,
    /// Limits of the host that are passed now; none where nothing was measured lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<HostLimit>,
}

/// A node with all that its page shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Node {
    #[serde(flatten)]
    pub summary: NodeSummary,
    pub enrolled_at: Timestamp,
    /// When the newest certificate of its agent ends; agents renew theirs at two thirds of its life.
    pub certificate_expires_at: Option<Timestamp>,
    /// When its agent's program began; absent: it has not said yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_started_at: Option<Timestamp>,
    /// How far the host's wall clock is ahead of ours.
    pub clock_ahead_ms: Option<i64>,
    /// Samples of VMs that its agent threw away since its program began, because they waited too long to be told.
    #[serde(default, skip_serializing_if = "crate::metrics::is_zero")]
    pub vm_samples_dropped: u64,
    /// Absent: its agent has not said yet.
    pub inventory: Option<Inventory>,
    /// Further figures of the host; absent: nothing was measured lately, or by an agent that is older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostDetail>,
    /// Every limit of the host that its agent watches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<HostLimit>,
    /// By application, then slot. Named so beside `replicas`, which counts them.
    pub slots: Vec<Replica>,
    /// Those replicas counted by application, and what becomes of them where the node is drained.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<Holding>,
    /// Of one that is drained: why it is not empty yet, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<String>,
}

/// What a node holds of one application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Holding {
    pub application: AppName,
    pub replicas: u32,
    /// Another node takes over what is withdrawn here; otherwise there are so many replicas fewer.
    pub moves: bool,
}

/// What a drain does to what a node holds, for whoever has to decide.
pub fn drain_sentence(holds: &[Holding]) -> String {
    let said = |holding: &Holding| {
        let Holding { application, replicas, moves } = holding;
        match (replicas, moves) {
            (1, true) => format!("1 replica of {application} moves to another node"),
            (many, true) => format!("{many} replicas of {application} move to other nodes"),
            (1, false) => format!("1 replica of {application} is withdrawn and nothing takes its place"),
            (many, false) => {
                format!("{many} replicas of {application} are withdrawn and nothing takes their place")
            }
        }
    };
    let parts: Vec<String> = holds.iter().map(said).collect();
    match parts.is_empty() {
        true => "It holds nothing, and is given nothing.".to_owned(),
        false => format!(
            "Little by little, never with more missing than each application allows: {}.",
            parts.join("; ")
        ),
    }
}

/// `PATCH /nodes/{node}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeChange {
    /// All that it is to have: what is not among them is taken away.
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Inventory {
    pub hostname: String,
    pub os: String,
    pub kernel: String,
    pub arch: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    /// Whom the agent runs as.
    pub user: String,
    /// OTP release of the host's own `erl`; absent: none.
    pub erl: Option<String>,
    /// What replicas can be limited in there: `cpu`, `memory`, `pids`.
    #[serde(default)]
    pub limits: Vec<String>,
    /// Why not in all of them, or how they are less safe than they could be; absent: nothing is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits_fault: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostUsage {
    /// 0..=100 over all cores.
    pub cpu_percent: f64,
    pub memory_used_bytes: u64,
    pub memory_total_bytes: u64,
    pub disk_used_bytes: u64,
    pub disk_total_bytes: u64,
    /// Over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    pub uptime_ms: u64,
}

/// What only a node's own page shows of its host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostDetail {
    /// 0..=100 each.
    pub cores_percent: Vec<f32>,
    pub memory_available_bytes: u64,
    pub swap_used_bytes: u64,
    pub swap_total_bytes: u64,
    /// To those who are not root.
    pub disk_available_bytes: u64,
    /// Bytes per second, of all disks.
    pub disk_read: f64,
    pub disk_write: f64,
    /// Bytes per second, of all interfaces but the loopback.
    pub network_received: f64,
    pub network_sent: f64,
    /// Absent: its kernel does not say.
    pub pressure: Option<Pressure>,
}

/// Share of the last ten seconds in which some, or all (full), that could run waited: 0..=100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pressure {
    pub cpu_some: f32,
    pub memory_some: f32,
    pub memory_full: f32,
    pub io_some: f32,
    pub io_full: f32,
}

/// How one figure of a host stands to its limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostLimit {
    /// `memory` or `disk`.
    #[serde(rename = "type")]
    pub kind: String,
    pub percent: f64,
    pub warning_percent: u32,
    /// Absent: nothing is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_percent: Option<u32>,
    pub level: HostLevel,
    pub since: Timestamp,
    /// What is done about it, or why nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
}

/// `DELETE /nodes/{node}`: its certificate is revoked and its session cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeRemoved {
    pub node: NodeName,
    /// Replicas that go on running there until the host is cleaned up.
    pub replicas_left: u32,
}

/// `POST /join-tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewJoinToken {
    /// How many hosts may join with it; 1 where not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// How long it is good for; one hour where not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_ms: Option<u64>,
    /// What every host that joins with it is labelled with, whatever it says of itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A join token: shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JoinToken {
    pub id: TokenId,
    pub token: String,
    pub uses: u32,
    pub expires_at: Timestamp,
    /// What those who join with it are labelled with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What to type on the host.
    pub command: String,
    /// What should be known before it is typed, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_says_what_moves_and_what_is_lost() {
        let holding =
            |app: &str, replicas, moves| Holding { application: app.parse().unwrap(), replicas, moves };
        let said = drain_sentence(&[holding("shop", 2, true), holding("blog", 1, false)]);
        assert!(said.ends_with(
            ": 2 replicas of shop move to other nodes; 1 replica of blog is withdrawn and nothing takes its place."
        ));
        assert_eq!(drain_sentence(&[]), "It holds nothing, and is given nothing.");
    }
}
