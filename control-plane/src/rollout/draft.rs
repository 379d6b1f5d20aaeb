//! A plan in the making: the fleet as it was loaded, with what this plan has already decided laid over it, so that each
//! part of the planner sees what the parts before it did, and a plan that was stored leaves nothing over.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proto::ids::{NodeId, ReleaseKey, Slot};
use proto::state::{Liveness, Service, SlotState, Strategy};
use rustc_hash::FxHashMap;

use super::fault::planted;
use super::hot::{Moving, Ways, standing_as_it_was};
use super::place::{Next, NodeSlots, Pace, SlotView, Standing};
use super::placement::{self, Placement};
use super::room::Missing;
use super::sight::{self, Sight, Sights};
use super::told::{self, Told};
use super::{Happening, HappeningKind, InForce, Plan, Rollout, Said, Step, Waiting};
use crate::clock::Time;
use crate::fleet::{AppFleet, Assigned, Node, Observed, Place};

/// Nobody reads more reasons than this; a first deployment on a thousand hosts has one for every slot.
const MAX_WAITING: usize = 50;

pub(super) struct Draft<'a> {
    pub(super) fleet: &'a AppFleet,
    pub(super) now: Time,
    /// The rollout under way.
    pub(super) rollout: Option<Rollout>,
    /// The newest one that is over.
    pub(super) last: Option<Rollout>,
    pub(super) in_force: Option<ReleaseKey>,
    pub(super) plan: Plan,
    /// A restart needs this node's spare slot: it is not to be withdrawn.
    pub(super) lent_to: Option<NodeId>,
    /// Of a rollout that gave way to a newer release: whoever paused it paused its successor.
    pub(super) pause_carried: Option<Said>,
    /// The rollout of what the one under way comes from, where that is watched still.
    pub(super) predecessor: Option<Rollout>,
    /// The rollout of the present wish that is over.
    pub(super) tried: Option<Rollout>,
    pub(super) placement: Placement,
    /// The same, for whoever asks for one node. Nobody chooses the id of a node, so that the hash need not be a guarded one.
    holds: FxHashMap<NodeId, Holds<'a>>,
    pub(super) sights: Sights<'a>,
    /// Nodes on which the rollout under way failed, which is tolerated: what is missing there is not waited for.
    pub(super) failed: BTreeSet<NodeId>,
    /// In the order in which they are visited.
    hosts: Vec<Host<'a>>,
    /// Slots 1..=N of all nodes that may hold some.
    pub(super) replicas_in_all: u64,
    /// `None`: not counted yet.
    pub(super) missing: RefCell<Option<Missing>>,
    pub(super) told: Told,
    pub(super) ways: RefCell<Ways>,
    /// `None`: nothing moves.
    pub(super) moving: Option<Moving>,
    forgotten: BTreeSet<Place>,
}

/// What is decided for one node.
struct Holds<'a> {
    node: &'a Node,
    replicas: u16,
    spare: Option<Slot>,
}

impl Holds<'_> {
    /// No slot above it is to run anything.
    fn highest(&self) -> u16 {
        self.spare.map_or(self.replicas, Slot::number)
    }
}

/// A node that may hold replicas.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host<'a> {
    pub(super) id: NodeId,
    pub(super) node: &'a Node,
}

impl Host<'_> {
    pub(super) fn is(self, liveness: Liveness) -> bool {
        self.node.liveness == liveness
    }

    pub(super) fn place(self, slot: Slot) -> Place {
        Place { node: self.id, slot }
    }
}

impl<'a> Draft<'a> {
    pub(super) fn new(fleet: &'a AppFleet, now: Time) -> Self {
        let mut draft = Self {
            fleet,
            now,
            rollout: fleet.rollout.clone(),
            last: fleet.last.clone(),
            in_force: fleet.in_force.clone(),
            plan: Plan::default(),
            lent_to: None,
            pause_carried: None,
            predecessor: fleet.predecessor.clone(),
            tried: fleet.tried.clone(),
            placement: Placement::default(),
            holds: FxHashMap::default(),
            sights: Sights::of(fleet),
            failed: BTreeSet::new(),
            hosts: Vec::new(),
            replicas_in_all: 0,
            missing: RefCell::new(None),
            told: Told::default(),
            ways: RefCell::default(),
            moving: None,
            forgotten: BTreeSet::new(),
        };
        let failed = fleet.rollout.iter().flat_map(|rollout| rollout.progress.failed.keys());
        draft.failed = failed.copied().collect();
        let placement = draft.placed();
        draft.place_replicas(placement);
        draft.hosts = draft.visited();
        draft
    }

    fn placed(&self) -> Placement {
        let Some(spec) = &self.fleet.spec else { return Placement::default() };
        let Some(total) = spec.spread else { return placement::everywhere(self.fleet, spec.replicas.get()) };
        let total = total.get();
        let may_be_missing = spec.deploy.max_unavailable.of(total.into());
        let (nodes, patience) = (&self.fleet.nodes, spec.rollback_timeout.0);
        let goes = |(place, told): &(&Place, &Assigned)| {
            let Some(node) = nodes.get(&place.node).filter(|node| node.liveness != Liveness::Lost) else {
                return false;
            };
            match (told.release.is_some(), self.release_at(**place).is_some()) {
                (true, false) => true,
                (false, false) => !self.is_gone(**place, told, node),
                // What we told it is why it is missing, for as long as that takes; for ever is nobody's doing but its own.
                (_, true) => {
                    let (standing, young) = (self.standing(**place), self.now.since(told.since) < patience);
                    !standing.is_ready() && (standing == Standing::Told || young)
                }
            }
        };
        let going = self.fleet.assigned.iter().filter(goes).count();
        placement::spread(self.fleet, total, may_be_missing, going, |node, slot| {
            let slot = Slot::new(slot.into()).ok();
            slot.map_or(Standing::Vacant, |slot| self.standing(Place { node, slot }))
        })
    }

    /// What a spread was decided to be, and what cordoned nodes hold, where that is to be stored.
    pub(super) fn keep_placement(&mut self) {
        let spread = self.is_spread();
        // Once more, with what this plan told: planning again is to find the same. What was let go stays let go.
        let mut placement = self.placed();
        for (node, count) in &mut placement.counts {
            *count = (*count).min(self.replicas_on(*node));
        }
        placement.counts.retain(|_, count| *count > 0);
        placement.held.retain(|node| self.placement.held.contains(node));
        self.place_replicas(placement);
        let cordoned =
            |id: &NodeId| self.fleet.nodes.get(id).is_some_and(|node| node.service == Service::Cordoned);
        let kept = self.placement.counts.iter().filter(|(id, _)| spread || cordoned(id));
        let mut counts: BTreeMap<NodeId, u16> = kept.map(|(id, count)| (*id, *count)).collect();
        // Where a slot is still to be withdrawn, nobody is to take it for one that is held.
        let mut empties: Vec<NodeId> = Vec::new();
        if spread || self.fleet.nodes.keys().any(cordoned) {
            let told = self.fleet.assigned.keys().filter(|place| spread || cordoned(&place.node));
            let empty = told
                .filter(|place| !self.placement.counts.contains_key(&place.node) && !self.forgets(**place));
            empties.extend(empty.map(|place| place.node));
        }
        counts.extend(empties.into_iter().map(|node| (node, 0)));
        // Of one that is not configured, what it was is kept until it comes back.
        if self.fleet.spec.is_some() && counts != self.fleet.placed {
            self.plan.placed = Some(counts);
        }
        let away = |(id, node): &(&NodeId, &Node)| {
            let holds = spread && self.placement.counts.contains_key(*id);
            holds && node.is_to_be_emptied() && node.liveness != Liveness::Up
        };
        let away: Vec<&Node> = self.fleet.nodes.iter().filter(away).map(|(_, node)| node).collect();
        for node in away {
            let node = node.name.clone();
            self.wait(Waiting::NodeLost { node });
        }
        for node in self.placement.held.clone() {
            if let (Some(host), Ok(slot)) =
                (self.host_to_empty(node), Slot::new(self.replicas_on(node).into()))
            {
                self.wait(Waiting::ForSuccessor { node: host.node.name.clone(), slot });
            }
        }
    }

    /// Closes the draft: the rollout's row is written where it differs from the stored one.
    pub(super) fn finish(mut self) -> Plan {
        if self.predecessor != self.fleet.predecessor {
            self.plan.predecessors.extend(self.predecessor.take());
        }
        if self.rollout != self.fleet.rollout {
            self.plan.rollouts.extend(self.rollout);
        }
        if planted!(SayNothing) {
            self.plan.waiting.clear();
        }
        self.plan
    }

    /// Puts the rollout that is over behind us; its row is written before that of a next one.
    pub(super) fn close(&mut self, rollout: Rollout) {
        self.tried_and_over(&rollout);
        self.last = Some(rollout.clone());
        self.plan.rollouts.push(rollout);
        self.rollout = None;
        self.failed.clear();
        self.count_anew();
    }

    pub(super) fn tried_and_over(&mut self, rollout: &Rollout) {
        if self.fleet.wanted.as_ref().is_some_and(|wish| rollout.carries_out(wish)) {
            self.tried = Some(rollout.clone());
        }
    }

    /// It is the one under way again.
    pub(super) fn take_up(&mut self, rollout: Rollout) {
        self.failed = rollout.progress.failed.keys().copied().collect();
        self.rollout = Some(rollout);
        self.count_anew();
    }

    pub(super) fn has_failed(&mut self, node: NodeId) {
        self.failed.insert(node);
        self.count_anew();
    }

    pub(super) fn set_in_force(&mut self, release: Option<ReleaseKey>) {
        if self.in_force != release {
            self.plan.in_force = Some(release.clone().map_or(InForce::Nothing, InForce::Release));
            self.in_force = release;
            self.count_anew();
        }
    }

    pub(super) fn assign(&mut self, place: Place, release: &ReleaseKey, pre_commands_run: Option<String>) {
        let hot = self.hot_to(place, release);
        // Nothing is started by an upgrade.
        let (release, begins) = (release.clone(), hot.is_none() && self.begins_with(place, release));
        self.tell(Some(release.clone()), Step::Assign { place, release, pre_commands_run, begins, hot });
    }

    /// What it was told last may never have taken the place of what ran before: a slot that is turned back to that never
    /// stopped it.
    fn begins_with(&self, place: Place, release: &ReleaseKey) -> bool {
        let Some(sight) = self.sights.at(place) else { return true };
        let runs_another = sight.report.is_some_and(|seen| seen.running.as_ref() != Some(release));
        runs_another || planted!(TakeAWordForAStart)
    }

    pub(super) fn withdraw(&mut self, place: Place) {
        self.tell(None, Step::Withdraw { place });
    }

    pub(super) fn forget(&mut self, place: Place) {
        self.tell(None, Step::Forget { place });
        self.forgotten.insert(place);
    }

    /// What it was told before, once more.
    pub(super) fn tell_anew(&mut self, step: Step, release: ReleaseKey) {
        self.tell(Some(release), step);
    }

    /// The last word on a place is the only one.
    pub(super) fn tell(&mut self, release: Option<ReleaseKey>, step: Step) {
        let place = step.place();
        self.forgotten.remove(&place);
        if self.told.tell(place, release) {
            self.plan.steps.retain(|earlier| earlier.place() != place);
        }
        self.plan.steps.push(step);
        self.count_node_anew(place.node);
    }

    pub(super) fn wait(&mut self, waiting: Waiting) {
        if self.plan.waiting.len() < MAX_WAITING && !self.plan.waiting.contains(&waiting) {
            self.plan.waiting.push(waiting);
        }
    }

    pub(super) fn wake_at(&mut self, at: Time) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(super) fn happened(
        &mut self,
        kind: HappeningKind,
        rollout: &Rollout,
        place: Option<Place>,
        text: String,
    ) {
        let (rollout, release) = (Some(rollout.id), Some(rollout.release.clone()));
        self.plan.events.push(Happening { kind, place, rollout, release, text });
    }

    /// Slots 1..=N are to run it on this node.
    pub(super) fn replicas_on(&self, node: NodeId) -> u16 {
        self.holds.get(&node).map_or(0, |it| it.replicas)
    }

    /// The extra slot of a `start_first` deployment; `None` where there is none.
    pub(super) fn spare_on(&self, node: NodeId) -> Option<Slot> {
        self.holds.get(&node)?.spare
    }

    /// No slot above it is to run anything.
    pub(super) fn highest_on(&self, node: NodeId) -> u16 {
        self.holds.get(&node).map_or(0, Holds::highest)
    }

    /// One that may run it, and is not to be emptied.
    pub(super) fn host(&self, id: NodeId) -> Option<Host<'a>> {
        let holds = self.holds.get(&id).filter(|it| !it.node.is_to_be_emptied())?;
        Some(Host { id, node: holds.node })
    }

    fn place_replicas(&mut self, placement: Placement) {
        let strategy = self.fleet.spec.as_ref().map(|spec| spec.deploy.strategy);
        let nodes = &self.fleet.nodes;
        let holds = |(id, replicas): (&NodeId, &u16)| {
            let (node, replicas) = (nodes.get(id)?, *replicas);
            // What drains is given nothing more, and what is above its count is withdrawn.
            let spares = strategy == Some(Strategy::StartFirst) && !node.is_to_be_emptied();
            let spare = Slot::new(u32::from(replicas) + 1).ok().filter(|_| spares);
            Some((*id, Holds { node, replicas, spare }))
        };
        self.holds = placement.counts.iter().filter(|(_, count)| **count > 0).filter_map(holds).collect();
        self.replicas_in_all = placement.counts.values().map(|count| u64::from(*count)).sum();
        self.placement = placement;
    }

    /// One that may still run something of it.
    pub(super) fn host_to_empty(&self, id: NodeId) -> Option<Host<'a>> {
        self.fleet.nodes.get(&id).map(|node| Host { id, node })
    }

    /// Nodes that may run it, in the order in which they are visited: by the label of `order_by`, those without it last, and by
    /// name.
    pub(super) fn hosts(&self) -> &[Host<'a>] {
        &self.hosts
    }

    fn visited(&self) -> Vec<Host<'a>> {
        let ids = self.placement.counts.keys();
        let mut hosts: Vec<Host<'a>> = ids.filter_map(|id| self.host(*id)).collect();
        hosts.sort_by_key(|host| {
            let value = self.group_of(*host);
            (value.is_none(), value, &host.node.name)
        });
        hosts
    }

    /// The value of the label by which nodes are ordered.
    pub(super) fn group_of(&self, host: Host<'a>) -> Option<&'a str> {
        let label = self.fleet.spec.as_ref()?.deploy.order_by.as_ref()?;
        host.node.labels.get(label).map(String::as_str)
    }

    /// By this plan, and nothing was told to it since.
    pub(super) fn forgets(&self, place: Place) -> bool {
        self.forgotten.contains(&place)
    }

    pub(super) fn has_been_told(&self, place: Place) -> bool {
        self.told.at(place).is_some()
    }

    /// What a place was last told to run, by this plan or before it.
    pub(super) fn release_at(&self, place: Place) -> Option<&ReleaseKey> {
        match self.told.at(place) {
            Some(told) => told.as_ref(),
            None => self.sights.at(place)?.release,
        }
    }

    /// A report counts only once it speaks of what the slot was last told.
    pub(super) fn report(&self, place: Place) -> Option<&'a Observed> {
        if self.told.at(place).is_some() {
            return None;
        }
        self.sights.at(place)?.report
    }

    /// What a place was told before this plan.
    pub(super) fn assigned(&self, place: Place) -> Option<&'a Assigned> {
        self.sights.at(place).map(|sight| sight.assigned)
    }

    pub(super) fn standing(&self, place: Place) -> Standing {
        look(self.told.at(place), self.sights.at(place)).1
    }

    /// Withdrawn, and its agent has seen it through.
    pub(super) fn is_gone(&self, place: Place, assigned: &Assigned, node: &Node) -> bool {
        match self.fleet.observed.get(&place) {
            Some(seen) if seen.state != SlotState::Empty => false,
            Some(seen) if seen.generation >= assigned.generation => true,
            // An agent lists every slot that it holds, so one that it does not list is not there; nor one that was empty
            // before, and was given something and withdrawn again before the agent heard of either.
            Some(_) | None => node.liveness == Liveness::Up && node.stored >= assigned.generation,
        }
    }

    /// The slots of a node as they stand to `target`: those that are to be, the spare, and any other that was told
    /// something.
    pub(super) fn slots_of(&self, host: Host<'_>, target: &ReleaseKey) -> NodeSlots {
        let (replicas, spare, highest) = match self.holds.get(&host.id) {
            Some(holds) => (holds.replicas, holds.spare, holds.highest()),
            None => (0, None, 0),
        };
        let view = |(slot, told, sight): (Slot, Option<&Option<ReleaseKey>>, Option<&Sight<'a>>)| {
            let (release, mut standing) = look(told, sight);
            let (mut on_target, mut runs_it) = (release == Some(target), false);
            // It serves as it did, and takes the release up in another way once it is told anew.
            if let Some(as_it_was) = standing_as_it_was(told, sight) {
                let running = sight.and_then(|it| it.report?.running.as_ref());
                (on_target, runs_it, standing) = (false, running == Some(target), as_it_was);
            }
            // It goes back by itself, or has, and takes the release up once it is told anew.
            let fell_back = standing == Standing::Unready
                && sight.and_then(|it| it.report).is_some_and(|seen| seen.fell_back.is_some());
            let on_target = on_target && !fell_back;
            // To be told what it runs costs it nothing.
            let in_place =
                !on_target && standing.is_ready() && (runs_it || self.is_in_place(host, slot, target));
            SlotView { slot, on_target, standing, runs_it, in_place }
        };
        NodeSlots { slots: self.looks(host.id, highest).map(view).collect(), replicas, spare }
    }

    /// What this plan and those before it told the first slots of a node, and what was seen of them.
    pub(super) fn looks(
        &self,
        node: NodeId,
        highest: u16,
    ) -> impl Iterator<Item = (Slot, Option<&Option<ReleaseKey>>, Option<&Sight<'a>>)> {
        let (told, sights) = (self.told.on(node), self.sights.on(node));
        let numbered = (1..=highest).filter_map(|number| Slot::new(u32::from(number)).ok());
        numbered.map(move |slot| (slot, told::find(told, slot), sight::of_slot(sights, slot)))
    }

    /// What a node's slots call for on their way to `target`.
    pub(super) fn next(&self, host: Host<'_>, target: &ReleaseKey, pace: Pace) -> Next {
        let slots = self.slots_of(host, target);
        let room = if slots.all_told() { 0 } else { self.room_on(host.id) };
        slots.next(pace, room)
    }
}

/// What a slot was last told to run, and how it stands to that.
pub(super) fn look<'a>(
    told: Option<&'a Option<ReleaseKey>>,
    sight: Option<&Sight<'a>>,
) -> (Option<&'a ReleaseKey>, Standing) {
    match (told, sight) {
        (Some(Some(release)), _) => (Some(release), Standing::Told),
        (Some(None), _) | (None, None) => (None, Standing::Vacant),
        (None, Some(sight)) => (sight.release, sight.standing),
    }
}
