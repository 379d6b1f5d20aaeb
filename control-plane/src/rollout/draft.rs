//! A plan in the making: the fleet as it was loaded, with what this plan has already decided laid over it, so that each
//! part of the planner sees what the parts before it did, and a plan that was stored leaves nothing over.

use std::collections::BTreeMap;

use proto::ids::{NodeId, ReleaseKey, Slot};
use proto::state::{Liveness, SlotState, Strategy};

use super::fault::planted;
use super::place::{NodeSlots, SlotView, Standing};
use super::{Happening, HappeningKind, InForce, Plan, Rollout, Step, Waiting};
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
    /// What this plan tells slots, over what they were told before; `None`: nothing is to run.
    told: BTreeMap<Place, Option<ReleaseKey>>,
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
        Self {
            fleet,
            now,
            rollout: fleet.rollout.clone(),
            last: fleet.last.clone(),
            in_force: fleet.in_force.clone(),
            plan: Plan::default(),
            lent_to: None,
            told: BTreeMap::new(),
        }
    }

    /// Closes the draft: the rollout's row is written where it differs from the stored one.
    pub(super) fn finish(mut self) -> Plan {
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
        self.last = Some(rollout.clone());
        self.plan.rollouts.push(rollout);
        self.rollout = None;
    }

    pub(super) fn set_in_force(&mut self, release: Option<ReleaseKey>) {
        if self.in_force != release {
            self.plan.in_force = Some(release.clone().map_or(InForce::Nothing, InForce::Release));
            self.in_force = release;
        }
    }

    pub(super) fn assign(&mut self, place: Place, release: &ReleaseKey, pre_commands_run: Option<String>) {
        let (release, begins) = (release.clone(), self.begins_with(place, release));
        self.tell(Some(release.clone()), Step::Assign { place, release, pre_commands_run, begins });
    }

    /// What it was told last may never have taken the place of what ran before: a slot that is turned back to that never
    /// stopped it.
    fn begins_with(&self, place: Place, release: &ReleaseKey) -> bool {
        let Some(assigned) = self.fleet.assigned.get(&place) else { return true };
        let runs_another =
            self.report_of(place, assigned).is_some_and(|seen| seen.running.as_ref() != Some(release));
        runs_another || planted!(TakeAWordForAStart)
    }

    pub(super) fn withdraw(&mut self, place: Place) {
        self.tell(None, Step::Withdraw { place });
    }

    pub(super) fn forget(&mut self, place: Place) {
        self.tell(None, Step::Forget { place });
    }

    /// What it was told before, once more.
    pub(super) fn tell_anew(&mut self, step: Step, release: ReleaseKey) {
        self.tell(Some(release), step);
    }

    /// The last word on a place is the only one.
    fn tell(&mut self, release: Option<ReleaseKey>, step: Step) {
        if self.told.insert(step.place(), release).is_some() {
            self.plan.steps.retain(|earlier| earlier.place() != step.place());
        }
        self.plan.steps.push(step);
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

    pub(super) fn replicas(&self) -> u16 {
        self.fleet.spec.as_ref().map_or(0, |spec| spec.replicas.get())
    }

    /// The extra slot of a `start_first` deployment; `None` where there is none.
    pub(super) fn spare(&self) -> Option<Slot> {
        match self.fleet.spec.as_ref().map(|spec| spec.deploy.strategy) {
            Some(Strategy::StartFirst) => Slot::new(u32::from(self.replicas()) + 1).ok(),
            Some(Strategy::StopFirst) | None => None,
        }
    }

    /// No slot above it is to run anything.
    pub(super) fn highest(&self) -> u16 {
        self.replicas().saturating_add(u16::from(self.spare().is_some()))
    }

    pub(super) fn host(&self, id: NodeId) -> Option<Host<'a>> {
        self.fleet.nodes.get(&id).filter(|node| node.eligible).map(|node| Host { id, node })
    }

    /// Nodes that may run it, in the order in which they are visited: by name.
    pub(super) fn hosts(&self) -> Vec<Host<'a>> {
        let eligible = self.fleet.nodes.iter().filter(|(_, node)| node.eligible);
        let mut hosts: Vec<_> = eligible.map(|(id, node)| Host { id: *id, node }).collect();
        hosts.sort_by_key(|host| &host.node.name);
        hosts
    }

    /// Places that were told `release`, on nodes that may run it.
    pub(super) fn told(&self, release: &ReleaseKey) -> Vec<Place> {
        let before =
            self.fleet.assigned.iter().filter(|(place, _)| self.told_by_this_plan(**place).is_none());
        let before = before.map(|(place, assigned)| (place, &assigned.release));
        let all = before.chain(&self.told).filter(|(_, told)| told.as_ref() == Some(release));
        let mut places: Vec<Place> =
            all.map(|(place, _)| *place).filter(|place| self.host(place.node).is_some()).collect();
        if !self.told.is_empty() {
            places.sort_unstable();
        }
        places
    }

    pub(super) fn has_been_told(&self, place: Place) -> bool {
        self.told.contains_key(&place)
    }

    /// What a place was last told to run, by this plan or before it.
    pub(super) fn release_at(&self, place: Place) -> Option<&ReleaseKey> {
        match self.told_by_this_plan(place) {
            Some(told) => told.as_ref(),
            None => self.fleet.assigned.get(&place)?.release.as_ref(),
        }
    }

    fn told_by_this_plan(&self, place: Place) -> Option<&Option<ReleaseKey>> {
        if self.told.is_empty() { None } else { self.told.get(&place) }
    }

    /// A report counts only once it speaks of what the slot was last told.
    pub(super) fn report(&self, place: Place) -> Option<&'a Observed> {
        if self.told_by_this_plan(place).is_some() {
            return None;
        }
        self.report_of(place, self.fleet.assigned.get(&place)?)
    }

    fn report_of(&self, place: Place, assigned: &Assigned) -> Option<&'a Observed> {
        let seen = self.fleet.observed.get(&place)?;
        (seen.generation >= assigned.generation || planted!(BelieveOldReports)).then_some(seen)
    }

    pub(super) fn standing(&self, place: Place) -> Standing {
        self.look(place).1
    }

    /// What a place was last told to run, and how it stands to that.
    fn look(&self, place: Place) -> (Option<&ReleaseKey>, Standing) {
        if let Some(told) = self.told_by_this_plan(place) {
            return (told.as_ref(), if told.is_some() { Standing::Told } else { Standing::Vacant });
        }
        let Some(assigned) = self.fleet.assigned.get(&place) else { return (None, Standing::Vacant) };
        let Some(release) = &assigned.release else { return (None, Standing::Vacant) };
        let standing = match self.report_of(place, assigned) {
            None => Standing::Told,
            Some(seen) if seen.running.as_ref() != Some(release) => Standing::Unready,
            Some(seen) => match seen.state {
                SlotState::Stable => Standing::Stable,
                SlotState::Ready => Standing::Ready,
                SlotState::Empty
                | SlotState::Preparing
                | SlotState::Starting
                | SlotState::Unready
                | SlotState::Stopping
                | SlotState::BackingOff
                | SlotState::Failed
                | SlotState::Unknown => Standing::Unready,
            },
        };
        (Some(release), standing)
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

    /// It was told a release and went back from it by itself: it takes it up once it is told anew.
    fn fell_back(&self, place: Place) -> bool {
        self.report(place).is_some_and(|seen| seen.fell_back.is_some())
    }

    /// The slots of a node as they stand to `target`: those that are to be, the spare, and any other that was told
    /// something.
    pub(super) fn slots_of(&self, host: Host<'_>, target: &ReleaseKey) -> NodeSlots {
        let (replicas, spare) = (self.replicas(), self.spare());
        let numbered = (1..=self.highest()).filter_map(|number| Slot::new(u32::from(number)).ok());
        let view = |slot: Slot| {
            let place = host.place(slot);
            let (release, standing) = self.look(place);
            let fell_back = standing == Standing::Unready && self.fell_back(place);
            SlotView { slot, on_target: release == Some(target) && !fell_back, standing }
        };
        NodeSlots { slots: numbered.map(view).collect(), replicas, spare }
    }
}
