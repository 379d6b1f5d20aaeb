//! What happened in a fleet, counted: a world in which nothing goes wrong, and nobody wants anything, shows nothing.

use std::collections::{BTreeMap, BTreeSet};

use control_plane::rollout::{HappeningKind, Plan, Rollout, Step};
use control_plane::spec::Promote;
use proto::ids::NodeId;
use proto::state::{Liveness, RolloutPhase, Service};

use crate::world::World;

/// Each of them must have happened so often in a quarter of the fleets.
const ENOUGH: u32 = 20;

macro_rules! deeds {
    ($($(#[$about:meta])* $name:ident),+ $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Deed { $($(#[$about])* $name),+ }

        impl Deed {
            const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

deeds! {
    // What goes wrong.
    AgentDied,
    CutOff,
    Outage,
    FellBack,
    /// What ran was brought to another release, and went on.
    Upgraded,
    /// The same, by an agent that was not the one that had begun it.
    UpgradedAfterDeath,
    /// It could not be, and went on as it was.
    LeftAsItWas,
    /// It failed in the middle, and was started anew.
    HalfUpgraded,
    /// The process ended, or its host lost its power, while it was being upgraded.
    UpgradeCutOff,
    /// The rest of a rollout went on in full.
    HotGivenUp,
    /// A release was taken back because nothing but an upgrade was allowed, and that failed.
    GhostedForItsUpgrade,
    Ghosted,
    Reverted,
    /// The release failed on a node, and went on elsewhere.
    Tolerated,
    // How rollouts end and go on.
    Done,
    Superseded,
    PreCommandRun,
    /// Nodes were moved side by side.
    WideBatch,
    /// A batch was drawn from nodes of more than one value of the label that orders them.
    OrderedBatch,
    /// A batch waited for the pause after the one before it.
    PausedBetween,
    /// Others followed a canary that had soaked.
    Soaked,
    /// Others followed a canary on somebody's word.
    Promoted,
    /// More than one replica was down at a time, as was allowed.
    SeveralDown,
    // What people want.
    Restart,
    Paused,
    Resumed,
    /// A rollout that was given up came to its end.
    Aborted,
    Cordoned,
    /// A node that held something is empty.
    Drained,
    Reopened,
    Removed,
    Joined,
    /// A part of a spread left a node for others.
    SpreadMoved,
    /// All is quiet, and a rollout waits for somebody who does not come.
    LeftWaiting,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(BTreeMap<Deed, u32>);

impl Seen {
    pub(crate) fn saw(&mut self, deed: Deed) {
        *self.0.entry(deed).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (deed, count) in &other.0 {
            *self.0.entry(*deed).or_default() += count;
        }
    }

    /// What happened too seldom.
    pub(crate) fn missing(&self) -> Vec<Deed> {
        let seldom = |deed: &&Deed| self.0.get(deed).is_none_or(|count| *count < ENOUGH);
        Deed::ALL.iter().filter(seldom).copied().collect()
    }
}

impl World {
    /// What a plan that is about to be stored does.
    pub(crate) fn saw_plan(&mut self, plan: &Plan) {
        for rollout in &plan.rollouts {
            match rollout.phase {
                RolloutPhase::Reverted | RolloutPhase::Failed => self.seen.saw(Deed::Reverted),
                RolloutPhase::Done => self.seen.saw(Deed::Done),
                RolloutPhase::Superseded => self.seen.saw(Deed::Superseded),
                _ => {}
            }
            if rollout.phase.is_over() && rollout.progress.aborted.is_some() {
                self.seen.saw(Deed::Aborted);
            }
            let before = self.fleet.rollout.clone().filter(|it| it.id == rollout.id);
            self.saw_moves(before.as_ref(), rollout);
        }
        if !plan.ghosts.is_empty() {
            self.seen.saw(Deed::Ghosted);
        }
        if plan.ghosts.iter().any(|it| it.reason.contains("could not be hot-upgraded")) {
            self.seen.saw(Deed::GhostedForItsUpgrade);
        }
        if plan.events.iter().any(|it| it.kind == HappeningKind::HotUpgradeGivenUp) {
            self.seen.saw(Deed::HotGivenUp);
        }
        let moved = |(id, placed): (&NodeId, &u16)| {
            let node = self.fleet.nodes.get(id).filter(|it| it.liveness == Liveness::Up);
            let now = plan.placed.as_ref().map(|it| it.get(id).copied().unwrap_or(0));
            node.is_some() && now.is_some_and(|now| now < *placed)
        };
        let is_spread = self.fleet.spec.as_ref().is_some_and(|spec| spec.spread.is_some());
        if is_spread && self.fleet.placed.iter().any(moved) {
            self.seen.saw(Deed::SpreadMoved);
        }
        self.saw_emptied(plan);
    }

    fn saw_moves(&mut self, before: Option<&Rollout>, rollout: &Rollout) {
        let failed = |it: &Rollout| it.progress.failed.len();
        if failed(rollout) > before.map_or(0, failed) {
            self.seen.saw(Deed::Tolerated);
        }
        let last = before.and_then(|it| it.progress.batch.as_ref());
        let Some(batch) = rollout.progress.batch.as_ref() else { return };
        let (Some(spec), false) = (&self.fleet.spec, last.map(|it| it.number) == Some(batch.number)) else {
            return;
        };
        let deploy = &spec.deploy;
        let label = |id: &NodeId| {
            let label = deploy.order_by.as_ref()?;
            self.fleet.nodes.get(id)?.labels.get(label)
        };
        let groups: BTreeSet<_> = self.fleet.nodes.keys().map(label).collect();
        let canary = last.filter(|it| it.canary).and(deploy.canary);
        let promoted = rollout.progress.promoted.as_ref().map(|it| it.batch);
        let is_promoted = promoted.is_some() && promoted == last.map(|it| it.number);
        if batch.nodes.len() > 1 {
            self.seen.saw(Deed::WideBatch);
        }
        if groups.len() > 1 {
            self.seen.saw(Deed::OrderedBatch);
        }
        if let Some(canary) = canary {
            if is_promoted {
                self.seen.saw(Deed::Promoted);
            } else if canary.promote == Promote::Auto && canary.soak.0 > 0 {
                self.seen.saw(Deed::Soaked);
            }
        }
    }

    fn saw_emptied(&mut self, plan: &Plan) {
        let forgotten = plan.steps.iter().filter(|step| matches!(step, Step::Forget { .. }));
        let emptied: BTreeSet<NodeId> = forgotten.map(|step| step.place().node).collect();
        for id in emptied {
            let drains = self.fleet.nodes.get(&id).is_some_and(|it| it.service == Service::Draining);
            let left = self.fleet.assigned.keys().filter(|place| place.node == id);
            let mut left = left.filter(|place| plan.steps.iter().all(|step| step.place() != **place));
            if drains && left.next().is_none() {
                self.seen.saw(Deed::Drained);
            }
        }
    }
}
