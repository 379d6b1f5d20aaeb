//! What the figures of a host, and of a replica's VM, were during the last hour, as the control plane remembers them.

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, NodeName, Slot};
use crate::nodes::Pressure;
use crate::timestamp::Timestamp;

/// How far back anything is kept.
pub const KEPT_MS: u64 = 3_600_000;

/// How far apart two samples of an agent are.
pub const EVERY_MS: u64 = 5_000;

/// The same of the VM of a replica.
pub const VM_EVERY_MS: u64 = 2_000;

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
pub(crate) fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl HostHistory {
    /// Adds what came after it, and forgets what is older than an hour by then. A whole history takes its place.
    pub fn absorb(&mut self, next: Self) {
        if next.since.is_none() {
            *self = next;
            return;
        }
        self.every_ms = next.every_ms;
        go_on(&mut self.points, next.points, |it| it.at);
    }
}

/// `GET /replicas/{node}/{app}/{slot}/metrics`: the last hour of a replica's VM, or what came after a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmHistory {
    pub node: NodeName,
    pub application: AppName,
    pub slot: Slot,
    /// Only what came after it; absent: everything that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How far apart two points are where none is missing: 2 s, and more in a fleet whose replicas do not all find room.
    pub every_ms: u64,
    /// As they are now.
    #[serde(default)]
    pub bounds: VmBounds,
    /// Oldest first.
    pub points: Vec<VmPoint>,
}

/// What the figures of a VM are compared with. Absent: nobody knows how much there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmBounds {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<VmBound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<VmBound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub atoms: Option<VmBound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ets_tables: Option<VmBound>,
    /// Of the replica's limit; where it has none and is watched, of its host's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<VmBound>,
}

/// How much there may be of something, and what its application's `monitoring` does at which shares of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmBound {
    pub limit: u64,
    /// Absent: it is not watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning_percent: Option<u32>,
    /// Absent: nothing is restarted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_percent: Option<u32>,
}

/// The VM of a replica at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmPoint {
    pub at: Timestamp,
    /// In bytes, as all sizes here. All of it; the heaps of its processes; and of what is not theirs some parts.
    pub memory: u64,
    pub memory_processes: u64,
    pub memory_atom: u64,
    pub memory_binary: u64,
    pub memory_code: u64,
    pub memory_ets: u64,
    pub processes: u32,
    pub ports: u32,
    pub atoms: u32,
    pub ets_tables: u32,
    /// Ready to run and waiting, in all queues, and in the longest of them.
    pub run_queue: u32,
    pub longest_run_queue: u32,
    /// 0..=100 of all schedulers, as the kernel counts it: busy waiting counts; absent: it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedulers: Option<f32>,
    /// Per second, as all below.
    pub reductions: f32,
    pub collections: f32,
    pub reclaimed: f32,
    /// Through its ports.
    pub input: f32,
    pub output: f32,
}

impl VmHistory {
    /// As [`HostHistory::absorb`].
    pub fn absorb(&mut self, next: Self) {
        if next.since.is_none() {
            *self = next;
            return;
        }
        self.every_ms = next.every_ms;
        self.bounds = next.bounds;
        go_on(&mut self.points, next.points, |it| it.at);
    }
}

fn go_on<P>(points: &mut Vec<P>, next: Vec<P>, at: fn(&P) -> Timestamp) {
    let last = points.last().map_or(Timestamp(0), at);
    points.extend(next.into_iter().filter(|it| at(it) > last));
    if let Some(newest) = points.last().map(at) {
        points.retain(|it| newest.0.saturating_sub(at(it).0) <= KEPT_MS);
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

    #[test]
    fn how_far_apart_points_are_is_as_the_newest_answer_says() {
        let mut host = history(None, &[0]);
        host.absorb(HostHistory { every_ms: 2 * EVERY_MS, ..history(Some(0), &[]) });
        assert_eq!((host.every_ms, host.points.len()), (2 * EVERY_MS, 1));

        let mut vm = VmHistory {
            node: "web-1".parse().unwrap(),
            application: "shop".parse().unwrap(),
            slot: "1".parse().unwrap(),
            since: None,
            every_ms: VM_EVERY_MS,
            bounds: VmBounds::default(),
            points: vec![VmPoint::default()],
        };
        vm.absorb(VmHistory {
            since: Some(Timestamp(0)),
            every_ms: 2 * VM_EVERY_MS,
            points: Vec::new(),
            ..vm.clone()
        });
        assert_eq!((vm.every_ms, vm.points.len()), (2 * VM_EVERY_MS, 1));
    }
}
