//! Which nodes are moved side by side, and what the next ones wait for.
//!
//! ```text
//!   canary ── stable, soaked or promoted ──▶ batch 2 ── stable, paused ──▶ batch 3 … ──▶ all there
//! ```
//! A batch is drawn when the one before it is over, from the nodes whose turn is next: those whose move has begun already, then
//! by the label of `order_by` and by name. What was drawn is kept with the rollout, so that a batch stays what it is while
//! nodes come and go.

use std::collections::BTreeSet;

use proto::ids::NodeId;
use proto::state::Liveness;

use super::draft::{Draft, Host};
use super::fault::planted;
use super::gate::Failure;
use super::place::Standing;
use super::{Batch, Evidence, HappeningKind, Progress, Rollout, Trial, Waiting};
use crate::spec::{CanarySpec, Promote};

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// Something is waited for, and said.
    Waits,
    /// The next one may be moved at once.
    BatchIsOver,
    /// Every slot of every node that is not lost is stable on the release.
    AllThere,
}

/// Nodes that do not run the release yet.
#[derive(Default)]
struct NotMoved<'a> {
    /// Their move has begun; or an earlier one took something of them; or they were never disturbed: in this order.
    up: Vec<Host<'a>>,
    moved: usize,
    /// Nobody knows yet where they stand.
    unsure: bool,
    /// Lost in the middle of their move.
    lost: Vec<Host<'a>>,
}

impl Rollout {
    /// Its canary has been stable: from then on a crash loop is told from crashes on the way there.
    pub(super) fn soaks(&self) -> bool {
        let Progress { batch, watched_from, .. } = &self.progress;
        let canary = batch.as_ref().filter(|batch| batch.canary);
        canary.is_some_and(|batch| batch.stable_since.is_some() || !watched_from.is_empty())
    }
}

impl<'a> Draft<'a> {
    /// Moves the nodes whose turn it is; draws the next ones where those before them are there.
    pub(super) fn move_batch(&mut self, rollout: &mut Rollout, hosts: &[Host<'a>]) -> Moved {
        let batch = rollout.progress.batch.as_ref();
        let in_batch = |host: &Host<'_>| batch.is_some_and(|batch| batch.nodes.contains(&host.id));
        let mut on_trial = self.on_trial(rollout);
        if planted!(DoNotWaitForStable) {
            on_trial.clear();
        }
        let elsewhere = on_trial.iter().any(|(host, _)| !in_batch(host));
        let trying: BTreeSet<NodeId> = on_trial.iter().map(|(host, _)| host.id).collect();
        for (host, place) in &on_trial {
            self.wait_for(*host, *place, Some(rollout));
        }
        let mut over = on_trial.is_empty();
        if !elsewhere {
            let own: Vec<Host<'a>> = hosts.iter().filter(|host| in_batch(host)).copied().collect();
            for host in own {
                if !trying.contains(&host.id) && !rollout.progress.failed.contains_key(&host.id) {
                    over &= self.move_node(host, rollout);
                }
            }
        }
        let (now, has_batch) = (self.now, rollout.progress.batch.is_some());
        if let Some(batch) = &mut rollout.progress.batch {
            // A clock that was put back begins the time anew.
            batch.stable_since =
                over.then(|| batch.stable_since.filter(|since| *since <= now).unwrap_or(now));
            if !over {
                batch.rested = Trial::default();
            }
        }
        if !over {
            return Moved::Waits;
        }
        let left = self.not_moved(rollout, hosts);
        if left.up.is_empty() {
            return if left.moved > 0 && !left.unsure {
                Moved::AllThere
            } else {
                if left.moved == 0 && !left.unsure {
                    self.wait_for_nodes();
                }
                Moved::Waits
            };
        }
        // A canary that is gone has shown nothing: another is drawn.
        let gone = self.canary_is_gone(rollout);
        if (has_batch && !gone && !self.may_go_on(rollout)) || self.too_many_lost(&left.lost) {
            self.mend_elsewhere(rollout);
            return Moved::Waits;
        }
        if let Some(paused) = rollout.progress.paused.as_ref().filter(|_| !planted!(IgnorePause)) {
            self.wait(Waiting::Paused { app: self.fleet.app.clone(), by: paused.by.clone() });
            return Moved::Waits;
        }
        self.draw(rollout, &left.up, hosts.len());
        Moved::BatchIsOver
    }

    /// Who is left, and who cannot be told now.
    fn not_moved(&mut self, rollout: &Rollout, hosts: &[Host<'a>]) -> NotMoved<'a> {
        let mut left = NotMoved::default();
        let (mut broken, mut fresh) = (Vec::new(), Vec::new());
        for host in hosts.iter().filter(|host| !rollout.progress.failed.contains_key(&host.id)) {
            let slots = self.slots_of(*host, &rollout.release);
            match (host.node.liveness, slots.has_moved()) {
                (Liveness::Up | Liveness::Suspect, true) => left.moved += 1,
                (Liveness::Up, false) if slots.has_begun() => left.up.push(*host),
                (Liveness::Up, false) if self.missing_on(*host) > 0 => broken.push(*host),
                (Liveness::Up, false) => fresh.push(*host),
                (Liveness::Suspect, false) => {
                    left.unsure = true;
                    self.wait(Waiting::NodeSuspect { node: host.node.name.clone() });
                }
                (Liveness::Lost, moved) => {
                    left.unsure |= planted!(WaitForLostNodes);
                    self.wait(Waiting::NodeLost { node: host.node.name.clone() });
                    let was_stable = moved && slots.wanted().all(|view| view.standing == Standing::Stable);
                    if slots.has_begun() && !was_stable {
                        left.lost.push(*host);
                    }
                }
            }
        }
        left.up.append(&mut broken);
        left.up.append(&mut fresh);
        left
    }

    /// A release that takes whole hosts with it must not take all of them: one may be lost by chance while it is moved, and as
    /// many more as may fail.
    fn too_many_lost(&mut self, lost: &[Host<'_>]) -> bool {
        let tolerated = self.fleet.spec.as_ref().map_or(0, |spec| spec.deploy.tolerate_failed_nodes);
        let allowed = usize::try_from(tolerated).unwrap_or(usize::MAX).saturating_add(1);
        if lost.len() <= allowed || planted!(LoseThemAll) {
            return false;
        }
        let nodes = lost.iter().map(|host| host.node.name.clone()).collect();
        self.wait(Waiting::TooManyLost { app: self.fleet.app.clone(), nodes, allowed });
        true
    }

    fn canary_is_gone(&self, rollout: &Rollout) -> bool {
        let Some(batch) = rollout.progress.batch.as_ref().filter(|batch| batch.canary) else { return false };
        let failed = &rollout.progress.failed;
        let shows = |host: &Host<'_>| {
            let counts = !host.is(Liveness::Lost) && !failed.contains_key(&host.id);
            counts && self.slots_of(*host, &rollout.release).all_told()
        };
        !batch.nodes.iter().filter_map(|id| self.host(*id)).any(|host| shows(&host))
            && !planted!(TrustALostCanary)
    }

    /// Whether the batch that is over lets the next one begin.
    fn may_go_on(&mut self, rollout: &mut Rollout) -> bool {
        let Progress { batch, promoted, .. } = &mut rollout.progress;
        let (Some(batch), Some(spec)) = (batch, &self.fleet.spec) else { return true };
        let promoted = promoted.as_ref().is_some_and(|it| it.batch == batch.number);
        if promoted && !planted!(IgnorePromotion) {
            return true;
        }
        let canary = spec.deploy.canary.as_ref().filter(|_| batch.canary && !planted!(SkipTheSoak));
        let (pause, waiting): (u64, fn(u64) -> Waiting) = match canary {
            Some(CanarySpec { promote: Promote::Manual, .. }) => {
                let (app, canary) = (self.fleet.app.clone(), self.names(&batch.nodes));
                self.wait(Waiting::Promotion { app, canary });
                return false;
            }
            Some(CanarySpec { soak, .. }) => (soak.0, |left_ms| Waiting::Soak { left_ms }),
            None if planted!(SkipThePause) => return true,
            None => (spec.deploy.pause_between.0, |left_ms| Waiting::BetweenBatches { left_ms }),
        };
        match self.count_span(&mut batch.rested, pause) {
            0 => true,
            left_ms => {
                self.wait(waiting(left_ms));
                false
            }
        }
    }

    pub(super) fn names(&self, nodes: &BTreeSet<NodeId>) -> Vec<proto::ids::NodeName> {
        nodes.iter().filter_map(|id| self.fleet.nodes.get(id)).map(|node| node.name.clone()).collect()
    }

    /// `left`: not empty. `all`: nodes that may run it.
    fn draw(&mut self, rollout: &mut Rollout, left: &[Host<'a>], all: usize) {
        let Some(deploy) = self.fleet.spec.as_ref().map(|spec| &spec.deploy) else { return };
        let number = rollout.progress.batch.as_ref().map_or(0, |batch| batch.number) + 1;
        let first = number == 1 || self.canary_is_gone(rollout);
        let canary = deploy.canary.as_ref().filter(|_| first && self.wants_canary(rollout));
        let amount = canary.map_or(deploy.batch, |canary| canary.nodes);
        let size = amount.of(u64::try_from(all).unwrap_or(u64::MAX)).max(1);
        let size =
            if planted!(BatchTooLarge) { usize::MAX } else { usize::try_from(size).unwrap_or(usize::MAX) };
        let group = left.first().map(|host| self.group_of(*host));
        let same = left.iter().filter(|host| Some(self.group_of(**host)) == group || planted!(MixLabels));
        let nodes = same.take(size).map(|host| host.id).collect();
        let (canary, rested) = (canary.is_some(), Trial::default());
        rollout.progress.batch = Some(Batch { number, canary, nodes, stable_since: None, rested });
        self.record_batch(rollout);
    }

    /// What outlived a watch before has shown what it does, and where nothing serves there is nothing to protect.
    fn wants_canary(&self, rollout: &Rollout) -> bool {
        self.in_force.is_some() && !self.fleet.proven.contains(&rollout.release)
    }

    /// Whether the release may fail where it did and go on elsewhere.
    pub(super) fn tolerates(&self, rollout: &Rollout, failure: &Failure) -> bool {
        let (Some(spec), Some(place)) = (&self.fleet.spec, failure.place) else { return false };
        let failed = &rollout.progress.failed;
        let others = self.hosts().iter().filter(|host| host.id != place.node && !host.is(Liveness::Lost));
        let some_left = others.into_iter().any(|host| !failed.contains_key(&host.id));
        let room = failed.len() < usize::try_from(spec.deploy.tolerate_failed_nodes).unwrap_or(usize::MAX);
        failure.pre_commands.is_none() && (room || planted!(TolerateAll)) && some_left
    }

    /// Every node that is connected is one on which it failed: there is none left to show that it is good.
    pub(super) fn failed_wherever_seen(&self, rollout: &Rollout) -> Option<Failure> {
        let failed = &rollout.progress.failed;
        if failed.is_empty() {
            return None;
        }
        // Of those that are lost nobody knows what became of it.
        let mut seen = self.hosts().iter().filter(|host| !host.is(Liveness::Lost)).peekable();
        let reason = failed.get(&seen.peek()?.id)?;
        if seen.any(|host| !failed.contains_key(&host.id)) {
            return None;
        }
        let reason = format!("{reason}; no other node is connected on which it could be stable");
        Some(Failure {
            place: None,
            reason,
            evidence: Evidence::default(),
            pre_commands: None,
            never_began: false,
        })
    }

    /// It stays as it is: its agent goes on trying, and what still serves there goes on serving.
    pub(super) fn tolerate(&mut self, rollout: &mut Rollout, failure: Failure) {
        self.note_tolerated(rollout, &failure);
        if let Some(place) = failure.place {
            self.has_failed(place.node);
        }
    }

    pub(super) fn note_tolerated(&mut self, rollout: &mut Rollout, failure: &Failure) {
        let Some(place) = failure.place else { return };
        rollout.progress.failed.insert(place.node, failure.reason.clone());
        let allowed = self.fleet.spec.as_ref().map_or(0, |spec| spec.deploy.tolerate_failed_nodes);
        let text = format!(
            "{} failed, which is tolerated on {allowed} nodes, of which this is number {}: {}",
            rollout.release.version,
            rollout.progress.failed.len(),
            failure.reason
        );
        self.happened(HappeningKind::NodeFailed, rollout, Some(place), text);
    }
}
