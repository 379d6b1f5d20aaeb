//! Laws of a rollout that moves: batches, canaries, pauses, and what a person says of it.

use std::collections::BTreeSet;

use control_plane::fleet::{AppFleet, Place};
use control_plane::rollout::{Batch, InForce, Plan, PreCommandsState, Rollout};
use control_plane::spec::{Amount, DeploySpec, Promote};
use proto::ids::{NodeId, ReleaseKey, RolloutId};
use proto::state::{Liveness, RolloutPhase, Service};

use super::hot::is_left_as_it_was;
use super::{
    BATCHES, CANARY, Checked, GIVEN_UP, LOST_ALL, Made, PAUSE, PAUSED, STABLE_IN_FORCE, TOLERATED, broken,
    is_stable,
};
use crate::control_plane::place;

/// Since when the last batch has been stable, told from what was reported and in the hosts' own time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Canary {
    of: Option<(RolloutId, u32)>,
    since: Option<u64>,
    now: u64,
}

impl Canary {
    /// A look at the fleet that this plan was made from.
    pub(crate) fn look(&mut self, fleet: &AppFleet, plan: &Plan, now: u64) {
        self.now = now;
        let made = Made::of(fleet, plan);
        let rollout = fleet.rollout.as_ref().filter(|it| it.phase.moves());
        let batch = rollout.and_then(|it| it.progress.batch.as_ref().map(|batch| (it, batch)));
        let of = batch.map(|(rollout, batch)| (rollout.id, batch.number));
        if of != self.of {
            (self.of, self.since) = (of, None);
        }
        // Where it failed just now counts no more.
        let stable = batch.is_some_and(|(before, batch)| {
            let rollout = made.rollout.filter(|it| it.id == before.id).unwrap_or(before);
            is_over(&made, rollout, batch)
        });
        self.since = self.since.filter(|_| stable).or(stable.then_some(now));
    }

    fn stable_for(&self) -> u64 {
        self.since.map_or(0, |since| self.now - since)
    }
}

/// Every slot of every node of it that is seen, and on which it did not fail, is stable.
fn is_over(made: &Made<'_>, rollout: &Rollout, batch: &Batch) -> bool {
    let failed = |id: &NodeId| rollout.progress.failed.contains_key(id);
    let mut seen = made.seen().filter(|(id, _)| batch.nodes.contains(id) && !failed(id));
    seen.all(|(id, _)| {
        (1..=made.count(id)).all(|slot| {
            let place = place(id, slot);
            told(made.fleet, place, &rollout.release) && is_stable(made.fleet, place)
        })
    })
}

fn told(fleet: &AppFleet, place: Place, release: &ReleaseKey) -> bool {
    fleet.assigned.get(&place).is_some_and(|it| it.release.as_ref() == Some(release))
}

impl Made<'_> {
    /// A slot may be told it now.
    pub(super) fn may_move(&self, place: Place, release: &ReleaseKey) -> Checked {
        let moving = self.rollout.filter(|it| it.phase.moves() && it.release == *release);
        let Some(rollout) = moving.filter(|_| !told(self.fleet, place, release)) else { return Ok(()) };
        if rollout.progress.paused.is_some() {
            return broken(PAUSED, format!("{release} at {place}"));
        }
        if self.in_force.is_none() {
            // Nothing serves yet that could be disturbed.
            return Ok(());
        }
        if matches!(&rollout.pre_commands, PreCommandsState::RunBy { place: leader, .. } if *leader == place)
        {
            return Ok(());
        }
        let batch = rollout.progress.batch.as_ref();
        let in_batch = |node: &NodeId| batch.is_some_and(|batch| batch.nodes.contains(node));
        let beside = |other: &Place| in_batch(&other.node) && other.node != place.node;
        let trial = self.on_trial(rollout).find(|other| !beside(other));
        if trial.is_some() || !in_batch(&place.node) {
            return broken(BATCHES, format!("{release} at {place} beside {trial:?} in {batch:?}"));
        }
        Ok(())
    }

    /// Slots that were told its release before, and are not stable on it where that matters.
    fn on_trial<'b>(&'b self, rollout: &'b Rollout) -> impl Iterator<Item = Place> + 'b {
        let of_it =
            self.fleet.assigned.iter().filter(|(_, it)| it.release.as_ref() == Some(&rollout.release));
        let counts = |place: &Place| {
            let failed = rollout.progress.failed.contains_key(&place.node);
            self.is_seen(place.node) && !failed && !self.withdraws(*place)
        };
        let places = of_it.map(|(place, _)| *place).filter(counts);
        places.filter(|place| !is_stable(self.fleet, *place) && !is_left_as_it_was(self.fleet, *place))
    }

    pub(super) fn moves(&self, canary: &Canary) -> Checked {
        self.given_up()?;
        self.in_force()?;
        let Some(rollout) = self.rollout.filter(|it| it.phase.moves()) else { return Ok(()) };
        let Some(deploy) = self.fleet.spec.as_ref().map(|spec| &spec.deploy) else { return Ok(()) };
        let earlier = self.fleet.rollout.as_ref().filter(|it| it.id == rollout.id);
        let failed = |it: &Rollout| it.progress.failed.len();
        let tolerated = usize::try_from(deploy.tolerate_failed_nodes).unwrap();
        if failed(rollout) > tolerated.max(earlier.map_or(0, failed)) {
            return broken(TOLERATED, format!("{:?}", rollout.progress.failed));
        }
        let Some(batch) = &rollout.progress.batch else { return Ok(()) };
        let last = earlier.and_then(|it| it.progress.batch.as_ref());
        match last.filter(|it| it.number == batch.number) {
            Some(same) if same.nodes == batch.nodes => Ok(()),
            Some(other) => broken(BATCHES, format!("{other:?} became {batch:?}")),
            None => self.drawn(rollout, deploy, batch, last, canary),
        }
    }

    fn drawn(
        &self,
        rollout: &Rollout,
        deploy: &DeploySpec,
        batch: &Batch,
        last: Option<&Batch>,
        canary: &Canary,
    ) -> Checked {
        let gone = last.is_some_and(|last| last.canary && self.is_gone(rollout, last));
        let fresh = self.in_force.is_none() || self.fleet.proven.contains(&rollout.release);
        let goes_first = (batch.number == 1 || gone) && !fresh;
        if goes_first && deploy.canary.is_some() && !batch.canary {
            return broken(CANARY, format!("{batch:?} goes first"));
        }
        let amount = deploy.canary.filter(|_| batch.canary).map_or(deploy.batch, |it| it.nodes);
        let all = self.fleet.nodes.values().filter(|it| it.service != Service::Draining).count() as u64;
        let label = |id: &NodeId| {
            let label = deploy.order_by.as_ref()?;
            self.fleet.nodes.get(id)?.labels.get(label)
        };
        let labels: BTreeSet<_> = batch.nodes.iter().map(label).collect();
        if batch.nodes.len() as u64 > most(amount, all) || labels.len() > 1 {
            return broken(BATCHES, format!("{batch:?} of {all} nodes by {amount}, {labels:?}"));
        }
        let Some(last) = last else { return Ok(()) };
        if let Some(trial) = self.on_trial(rollout).next() {
            return broken(BATCHES, format!("{batch:?} before {trial} is stable"));
        }
        let lost = self.lost_in_their_move(rollout);
        if lost > usize::try_from(deploy.tolerate_failed_nodes).unwrap() + 1 {
            return broken(LOST_ALL, format!("{batch:?} with {lost} lost"));
        }
        let promoted = rollout.progress.promoted.as_ref().is_some_and(|it| it.batch == last.number);
        let stable_for = canary.stable_for();
        match deploy.canary.filter(|_| last.canary) {
            _ if promoted || gone => Ok(()),
            Some(it) if it.promote == Promote::Manual || stable_for < it.soak.0 => {
                broken(CANARY, format!("{batch:?} behind {last:?}, stable for {stable_for} ms"))
            }
            None if stable_for < deploy.pause_between.0 => {
                broken(PAUSE, format!("{batch:?} behind {last:?}, stable for {stable_for} ms"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Nothing is left of it that shows anything.
    fn is_gone(&self, rollout: &Rollout, batch: &Batch) -> bool {
        let moved = |node: NodeId| {
            let mut slots = (1..=self.count(node)).map(|slot| place(node, slot));
            slots.all(|place| told(self.fleet, place, &rollout.release))
        };
        let mut seen = self.seen().filter(|(id, _)| batch.nodes.contains(id));
        !seen.any(|(id, _)| moved(id) && !rollout.progress.failed.contains_key(&id))
    }

    fn lost_in_their_move(&self, rollout: &Rollout) -> usize {
        let lost = self.fleet.nodes.iter().filter(|(id, node)| {
            let counts = node.service != Service::Draining && self.counts.contains_key(id);
            node.liveness == Liveness::Lost && counts && !rollout.progress.failed.contains_key(id)
        });
        let in_their_move = lost.filter(|(id, _)| {
            let slots = (1..=self.count(**id)).map(|slot| place(**id, slot));
            let done =
                slots.clone().all(|it| told(self.fleet, it, &rollout.release) && is_stable(self.fleet, it));
            !done && slots.clone().any(|it| told(self.fleet, it, &rollout.release))
        });
        in_their_move.count()
    }

    fn given_up(&self) -> Checked {
        let goes_on = |it: &&Rollout| it.progress.aborted.is_some() && it.phase != RolloutPhase::Reverting;
        if let Some(rollout) = self.rollout.filter(goes_on) {
            return broken(GIVEN_UP, format!("{} is {}", rollout.release, rollout.phase));
        }
        let back = |it: &&Rollout| matches!(it.phase, RolloutPhase::Reverted | RolloutPhase::Failed);
        let over = self.fleet.last.as_ref().filter(|it| it.progress.aborted.is_some()).filter(back);
        let began = self.rollout.filter(|it| self.fleet.rollout.as_ref().is_none_or(|old| old.id != it.id));
        match (over, began) {
            (Some(over), Some(it)) if it.release == over.release && it.wished_at == over.wished_at => {
                broken(GIVEN_UP, format!("{} is begun again", it.release))
            }
            _ => Ok(()),
        }
    }

    /// What comes into force is there.
    fn in_force(&self) -> Checked {
        let Some(rollout) = self.rollout.filter(|it| it.phase == RolloutPhase::Watching) else {
            return Ok(());
        };
        if self.plan.in_force != Some(InForce::Release(rollout.release.clone())) {
            return Ok(());
        }
        let seen = self.seen().filter(|(id, _)| !rollout.progress.failed.contains_key(id));
        let mut places = seen.flat_map(|(id, _)| (1..=self.count(id)).map(move |slot| place(id, slot)));
        let missing = places
            .find(|place| !told(self.fleet, *place, &rollout.release) || !is_stable(self.fleet, *place));
        match missing {
            Some(place) => broken(STABLE_IN_FORCE, format!("{} at {place}", rollout.release)),
            None => Ok(()),
        }
    }
}

/// Nodes that it may be: a share of all is one at least.
fn most(amount: Amount, all: u64) -> u64 {
    amount.of(all).max(1)
}
