//! What a host's figures were during the last hour, as the control plane remembers them.

use serde::{Deserialize, Serialize};

use crate::ids::NodeName;
use crate::nodes::Pressure;
use crate::timestamp::Timestamp;

/// How far back anything is kept.
pub const KEPT_MS: u64 = 3_600_000;

/// How far apart two samples of an agent are.
pub const EVERY_MS: u64 = 5_000;

/// `GET /metrics-history?node=`: the last hour, or what came after a moment. The console is sent the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostHistory {
    pub node: NodeName,
    /// Only what came after it; absent: everything that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How far apart two points are where none is missing.
    pub every_ms: u64,
    /// Oldest first.
    pub points: Vec<HostPoint>,
}

/// A host at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostPoint {
    pub at: Timestamp,
    /// 0..=100 over all cores.
    pub cpu: f32,
    /// 0..=100 each; of a host with very many the first ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cores: Vec<u8>,
    /// In bytes, as all sizes here.
    pub memory_used: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub swap_used: u64,
    /// Over one minute.
    pub load: f32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
    pub disk_used: u64,
    /// Per second, as all below.
    pub disk_read: f32,
    pub disk_write: f32,
    pub network_received: f32,
    pub network_sent: f32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl HostHistory {
    /// Adds what came after it, and forgets what is older than an hour by then. A whole history takes its place.
    pub fn absorb(&mut self, next: Self) {
        if next.since.is_none() {
            *self = next;
            return;
        }
        let last = self.points.last().map_or(Timestamp(0), |it| it.at);
        self.points.extend(next.points.into_iter().filter(|it| it.at > last));
        if let Some(newest) = self.points.last().map(|it| it.at) {
            self.points.retain(|it| newest.0.saturating_sub(it.at.0) <= KEPT_MS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(since: Option<u64>, at: &[u64]) -> HostHistory {
        let points = at.iter().map(|at| HostPoint { at: Timestamp(*at), ..HostPoint::default() });
        HostHistory {
            node: "web-1".parse().unwrap(),
            since: since.map(Timestamp),
            every_ms: EVERY_MS,
            points: points.collect(),
        }
    }

    #[test]
    fn what_came_after_is_added_once_and_what_is_old_is_forgotten() {
        let mut kept = history(None, &[0, 5_000]);
        kept.absorb(history(Some(5_000), &[5_000, 10_000]));
        let at = |it: &HostHistory| it.points.iter().map(|it| it.at.0).collect::<Vec<_>>();
        assert_eq!(at(&kept), [0, 5_000, 10_000]);
        kept.absorb(history(Some(10_000), &[KEPT_MS + 5_000]));
        assert_eq!(at(&kept), [5_000, 10_000, KEPT_MS + 5_000]);
        kept.absorb(history(None, &[7]));
        assert_eq!(at(&kept), [7]);
    }
}
