//! Watches the host: what `host::thresholds` decides is remembered, told and done here.
//!
//! Which limits there are is part of the assignment, so that it survives agent and control plane; whom a restart hits is
//! ended and started anew by the slot's own machine, as everything that runs.

use std::time::Duration;

use proto::ids::{AppName, Slot};
use proto::pb;
use proto::state::HostLevel;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use super::acts;
use super::slot::SlotOrder;
use super::{SlotId, Supervisor, notes};
use crate::clock::{self, Time};
use crate::host::Sample;
use crate::host::thresholds::{Candidate, Figure, Limit, Limits, Look, Standing, Thresholds, Verdict};
use crate::link::Observed;
use crate::replica::{Charge, Condemned};

/// A slot that is about its own business says within this whether it takes an order; more slots wait for us.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// As it lies in the node's ledger: another boot id means that nothing of it counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) boot_id: String,
    pub(super) thresholds: Thresholds,
}

pub(super) struct Watch {
    samples: watch::Receiver<Option<Sample>>,
    /// How each figure stands, for the control plane.
    standing: watch::Sender<Vec<pb::HostLimit>>,
    limits: Limits,
    thresholds: Thresholds,
}

impl Watch {
    /// With what an agent before this one remembered, if the host has not booted since.
    pub(super) fn new(
        limits: Option<&pb::HostMonitoring>,
        remembered: Option<Remembered>,
        boot_id: &str,
    ) -> Self {
        let remembered = remembered.filter(|it| it.boot_id == boot_id);
        Self {
            // Whoever watches gives it another one.
            samples: watch::Sender::new(None).subscribe(),
            standing: watch::Sender::new(Vec::new()),
            limits: limits.map(read).unwrap_or_default(),
            thresholds: remembered.map(|it| it.thresholds).unwrap_or_default(),
        }
    }

    pub(super) fn assigned(&mut self, limits: Option<&pb::HostMonitoring>) {
        self.limits = limits.map(read).unwrap_or_default();
    }

    /// Waits for the next look at the host; for ever where nobody looks, or nothing is to be watched.
    pub(super) async fn sampled(&mut self) {
        if self.limits.watch_nothing() && self.standing.borrow().is_empty() {
            return std::future::pending().await;
        }
        if self.samples.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Supervisor {
    /// From now on the host is watched. Returns how each figure that is watched stands, as of the last look.
    pub fn watch_host(
        &mut self,
        samples: watch::Receiver<Option<Sample>>,
    ) -> watch::Receiver<Vec<pb::HostLimit>> {
        self.watch.samples = samples;
        self.watch.standing.subscribe()
    }

    pub(super) async fn look_at_host(&mut self) {
        let Some(sample) = self.watch.samples.borrow_and_update().clone() else { return };
        let now = clock::now();
        let (memory, disk) = (memory_percent(&sample.host), disk_percent(&sample.host));
        let replicas = candidates(&self.shared.observed.borrow(), &sample.replicas);
        let before = self.watch.thresholds.clone();
        let look = Look { now, memory, disk, replicas: &replicas };
        let mut verdict = self.watch.thresholds.look(self.watch.limits, &look);
        // Before it is done: the next agent must not do it a second time.
        if !verdict.changes.is_empty() || verdict.restart.is_some() || self.watch.thresholds != before {
            self.remember();
        }
        if let (Some(candidate), Some(limit)) = (verdict.restart.clone(), self.watch.limits.memory)
            && !self.restart_for_memory(candidate, limit, memory.unwrap_or_default()).await
        {
            self.watch.thresholds.nothing_restarted(&before);
            self.remember();
            verdict.restart = None;
        }
        self.tell(&verdict, memory);
        self.watch.standing.send_replace(self.standing(&verdict, memory, disk, now));
    }

    /// A full disk is one of the things that are told here: what cannot be stored is told and done all the same.
    fn remember(&self) {
        let remembered =
            Remembered { boot_id: self.shared.boot_id.clone(), thresholds: self.watch.thresholds.clone() };
        if let Err(fault) = self.shared.paths.node_ledger().store_watch(&remembered) {
            warn!(fault = %acts::chain(&fault), "the next agent will not know what this one has warned of");
        }
    }

    fn tell(&self, verdict: &Verdict, memory: Option<f64>) {
        let at = clock::unix_ms();
        for change in &verdict.changes {
            let event = match (change.level, change.figure) {
                // Told below, with what is done about it.
                (HostLevel::Exceeded, _) => continue,
                _ => notes::level_changed(change, at),
            };
            match change.level {
                HostLevel::Normal => info!("{}", event.text),
                _ => warn!("{}", event.text),
            }
            self.shared.note(event);
        }
        let Some(limit) = self.watch.limits.memory else { return };
        let exceeded = verdict.changes.iter().any(|it| it.level == HostLevel::Exceeded);
        let event = match (&verdict.restart, &verdict.waiting) {
            (Some(candidate), _) => {
                notes::restarted_for_memory(candidate, limit, memory.unwrap_or_default(), at)
            }
            (None, Some(waiting)) if exceeded => {
                notes::nothing_restarted(&waiting.to_string(), limit, memory.unwrap_or_default(), at)
            }
            _ => return,
        };
        warn!("{}", event.text);
        self.shared.note(event);
    }

    /// Whether it is restarted: it may have ended since it was looked at, or be about to.
    async fn restart_for_memory(&self, candidate: Candidate, limit: Limit, percent: f64) -> bool {
        let because = notes::because_of_memory(&candidate, limit, percent);
        let Candidate { app, slot, pid, .. } = candidate;
        let condemned = Condemned { charge: Charge::OverLimit, because };
        let Some(orders) = self.slots.get(&SlotId { app, slot }) else { return false };
        let (taken, answer) = oneshot::channel();
        if orders.send(SlotOrder::Condemned { pid, condemned, taken }).await.is_err() {
            return false;
        }
        match timeout(ANSWER_WITHIN, answer).await {
            Ok(answer) => answer.unwrap_or(false),
            // Its disk stalls: it will be taken.
            Err(_) => true,
        }
    }

    fn standing(
        &self,
        verdict: &Verdict,
        memory: Option<f64>,
        disk: Option<f64>,
        now: Time,
    ) -> Vec<pb::HostLimit> {
        let one = |(figure, percent): (Figure, Option<f64>)| {
            let limit = self.watch.limits.of(figure)?;
            let (level, since) = self.watch.thresholds.level(figure);
            let waiting = verdict.waiting.as_ref().filter(|_| figure == Figure::Memory);
            let restarted = verdict.restart.as_ref().filter(|_| figure == Figure::Memory);
            let sentence = match (restarted, waiting) {
                (Some(it), _) => format!("slot {} of {} is being restarted for it", it.slot, it.app),
                (None, Some(waiting)) => waiting.to_string(),
                (None, None) => String::new(),
            };
            Some(pb::HostLimit {
                r#type: figure.word().to_owned(),
                percent: percent.unwrap_or_default(),
                warning_percent: limit.warning,
                restart_percent: limit.restart.unwrap_or_default(),
                level: pb::HostLevel::from(level).into(),
                level_for_ms: now.since(since),
                sentence,
            })
        };
        [(Figure::Memory, memory), (Figure::Disk, disk)].into_iter().filter_map(one).collect()
    }
}

/// Of an assignment. What cannot be a share is kept within reason; a disk restarts nothing.
fn read(limits: &pb::HostMonitoring) -> Limits {
    let limit = |it: &pb::HostThreshold| Limit {
        warning: it.warning_percent.clamp(1, 100),
        restart: Some(it.restart_percent.min(100)).filter(|it| *it > 0),
        cooldown: it.cooldown_ms,
    };
    Limits {
        memory: limits.memory.as_ref().map(limit),
        disk: limits.disk.as_ref().map(limit).map(|it| Limit { restart: None, ..it }),
    }
}

/// `None`: it could not be had.
fn memory_percent(host: &pb::HostSample) -> Option<f64> {
    share(host.memory_used_bytes, host.memory_total_bytes)
}

/// As `df` has it: what is kept for root is no room.
fn disk_percent(host: &pb::HostSample) -> Option<f64> {
    share(host.disk_used_bytes, host.disk_used_bytes.saturating_add(host.disk_available_bytes))
}

#[expect(clippy::cast_precision_loss, reason = "a percentage")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part as f64 / whole as f64)
}

fn candidates(observed: &Observed, samples: &[pb::ReplicaSample]) -> Vec<Candidate> {
    let sampled = |app: &AppName, slot: Slot| {
        samples.iter().find(|it| it.app == app.as_str() && it.slot == u32::from(slot.number()))
    };
    let candidate = |((app, slot), report): (&(AppName, Slot), &pb::SlotReport)| Candidate {
        app: app.clone(),
        slot: *slot,
        pid: report.pid,
        bytes: sampled(app, *slot).map_or(0, |it| it.memory_bytes),
        standing: standing(report),
    };
    // What was withdrawn is nobody to be waited for.
    let is_used = |report: &pb::SlotReport| report.state() != pb::SlotState::Empty;
    observed.slots.iter().filter(|(_, report)| is_used(report)).map(candidate).collect()
}

fn standing(report: &pb::SlotReport) -> Standing {
    match report.state() {
        pb::SlotState::Starting | pb::SlotState::Stopping => Standing::Moving,
        pb::SlotState::Stable if report.staging.is_none() && report.pid > 0 => Standing::Ready,
        pb::SlotState::Ready | pb::SlotState::Stable => Standing::Deploying,
        _ => Standing::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ready_may_go_and_what_is_being_deployed_may_not() {
        let report = |state: pb::SlotState, staging| pb::SlotReport {
            state: state.into(),
            pid: 7,
            staging: Some(pb::Staging::default()).filter(|_| staging),
            ..Default::default()
        };
        assert_eq!(standing(&report(pb::SlotState::Stable, false)), Standing::Ready);
        assert_eq!(standing(&report(pb::SlotState::Stable, true)), Standing::Deploying);
        // A spare on trial is one.
        assert_eq!(standing(&report(pb::SlotState::Ready, false)), Standing::Deploying);
        assert_eq!(standing(&report(pb::SlotState::Starting, true)), Standing::Moving);
        assert_eq!(standing(&report(pb::SlotState::BackingOff, false)), Standing::Other);
        assert_eq!(standing(&report(pb::SlotState::Unready, false)), Standing::Other);
    }

    #[test]
    fn a_slot_that_was_withdrawn_is_none_of_those_that_are_waited_for() {
        let mut observed = Observed::default();
        for (slot, state) in [(1, pb::SlotState::Stable), (2, pb::SlotState::Empty)] {
            let slot = Slot::new(slot).unwrap();
            let report = pb::SlotReport { state: state.into(), pid: 7, ..Default::default() };
            observed.slots.insert(("shop".parse().unwrap(), slot), report);
        }
        let slots: Vec<u16> = candidates(&observed, &[]).iter().map(|it| it.slot.number()).collect();
        assert_eq!(slots, [1]);
    }

    #[test]
    fn a_disk_is_as_full_as_df_says_and_restarts_nothing() {
        let host = pb::HostSample {
            disk_used_bytes: 90,
            disk_available_bytes: 10,
            disk_total_bytes: 120,
            ..Default::default()
        };
        assert_eq!(disk_percent(&host), Some(90.0));
        assert_eq!(memory_percent(&host), None);
        let threshold = pb::HostThreshold { warning_percent: 400, restart_percent: 95, cooldown_ms: 5 };
        let limits = read(&pb::HostMonitoring { memory: None, disk: Some(threshold) });
        assert_eq!(limits.disk, Some(Limit { warning: 100, restart: None, cooldown: 5 }));
    }

    #[test]
    fn what_was_remembered_before_a_boot_counts_no_more() {
        let mut thresholds = Thresholds::default();
        let disk = Some(Limit { warning: 10, restart: None, cooldown: 0 });
        for n in 1..5 {
            let look = Look { now: Time(n), memory: None, disk: Some(50.0), replicas: &[] };
            thresholds.look(Limits { memory: None, disk }, &look);
        }
        let remembered = Remembered { boot_id: "one".to_owned(), thresholds };
        let level =
            |boot: &str| Watch::new(None, Some(remembered.clone()), boot).thresholds.level(Figure::Disk).0;
        assert_eq!((level("one"), level("two")), (HostLevel::Warning, HostLevel::Normal));
    }
}
