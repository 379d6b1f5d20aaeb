//! What each phase tells the slots: moving to a new release, going back, and keeping what is in force where it should be.
//! Which nodes' turn it is, is `batch`'s to say.

use proto::ids::{ReleaseKey, RolloutId, Slot};
use proto::state::{Liveness, RolloutPhase, Service};

use super::batch::Moved;
use super::draft::{Draft, Host};
use super::fault::planted;
use super::place::{Next, NodeSlots, Pace, Standing};
use super::sight::Sight;
use super::told::Bearer;
use super::waiting::NoNode;
use super::{PreCommandsState, Rollout, Waiting};
use crate::fleet::{Place, PreCommandsOutcome};
use crate::spec::{AppSpec, PreCommandsRun};

impl Rollout {
    /// Where each replica runs its own pre-commands: whose they are.
    fn own_pre_commands(&self) -> Option<RolloutId> {
        (self.pre_commands == PreCommandsState::EveryReplica).then_some(self.id)
    }
}

impl<'a> Draft<'a> {
    /// Takes away what is to be nowhere, whatever else goes on, and forgets what is gone.
    pub(super) fn tidy(&mut self) {
        let leader = self.leading();
        let fleet = self.fleet;
        let mut asked: Option<(Host<'_>, u16)> = None;
        for at in 0..self.sights.all().len() {
            let Some(Sight { place, assigned, release, .. }) = self.sights.all().get(at).copied() else {
                break;
            };
            let (host, highest) = match asked.filter(|(host, _)| host.id == place.node) {
                Some(same) => same,
                None => {
                    let Some(node) = fleet.nodes.get(&place.node) else { continue };
                    *asked.insert((Host { id: place.node, node }, self.highest_on(place.node)))
                }
            };
            if self.has_been_told(place) {
                continue;
            }
            if release.is_none() {
                if self.is_gone(place, assigned, host.node) {
                    self.forget(place);
                } else {
                    self.wait_until_empty(host, place);
                }
                continue;
            }
            // What a node that drains holds of a spread goes as others take it over; of the rest, as much as may be missing.
            let drains_by_itself = host.node.is_to_be_emptied() && !self.is_spread();
            let too_high = place.slot.number() > highest && leader != Some(place);
            if fleet.spec.is_none() || (too_high && !drains_by_itself) {
                self.withdraw(place);
            }
        }
        self.drain();
    }

    /// The slot that runs the pre-commands of a rollout that moves.
    pub(super) fn leading(&self) -> Option<Place> {
        let moving = self.rollout.as_ref().filter(|rollout| rollout.phase != RolloutPhase::Reverting)?;
        match &moving.pre_commands {
            PreCommandsState::RunBy { place, .. } => Some(*place),
            _ => None,
        }
    }

    /// Moves the application to the rollout's release. True once every slot of every node that is not lost is stable on it.
    pub(super) fn roll(&mut self, rollout: &mut Rollout) -> bool {
        let hosts = self.hosts().to_vec();
        if hosts.is_empty() {
            // Who leads them may stand on a node that drains.
            self.pre_commands_passed(rollout);
            self.wait_for_nodes();
            // What was withdrawn meanwhile has all of its time once it is told anew.
            self.keep_trials(rollout);
            return false;
        }
        // A node whose only slot of the release is given back has not begun: it is filled with what is in force.
        self.excuse_late_leaders(rollout);
        self.fill_in_force(rollout, &hosts);
        if rollout.progress.paused.is_some() {
            self.mend_elsewhere(rollout);
            // Where that was all that was left to do, the rollout is there.
            self.drop_spares(rollout, &hosts);
        }
        let passed = self.pre_commands_passed(rollout);
        self.drop_former_leaders(rollout);
        let stable = passed && self.roll_on(rollout, &hosts);
        self.drop_spares(rollout, &hosts);
        if rollout.phase == RolloutPhase::Pending && !self.bearers(&rollout.release).is_empty() {
            self.enter(rollout, RolloutPhase::Running);
        }
        self.keep_trials(rollout);
        stable
    }

    /// A slot that is one too many since the configuration changed was left alone while it ran the pre-commands.
    fn drop_former_leaders(&mut self, rollout: &Rollout) {
        let leads = |place: &Place| matches!(&rollout.pre_commands, PreCommandsState::RunBy { place: it, .. } if it == place);
        for Bearer { place, .. } in self.bearers(&rollout.release) {
            if place.slot.number() > self.highest_on(place.node) && !leads(&place) {
                self.withdraw(place);
            }
        }
    }

    /// New nodes, and new slots on nodes whose turn has not come, get what is in force.
    fn fill_in_force(&mut self, rollout: &Rollout, hosts: &[Host<'_>]) {
        let Some(in_force) = self.in_force.clone() else { return };
        let own_pre_commands = self.brought_by(&in_force);
        let release = if planted!(NewNodesGetTheNewest) { &rollout.release } else { &in_force };
        for host in hosts.iter().filter(|host| host.is(Liveness::Up)) {
            let slots = self.slots_of(*host, &rollout.release);
            if !slots.has_begun() {
                self.fill(*host, &slots.vacant(), release, own_pre_commands);
            }
        }
    }

    /// Whether what a slot was told took the place of this release and was taken back: it ran this before.
    fn comes_back(&self, place: Place, release: &ReleaseKey) -> bool {
        let Some(told) = self.release_at(place) else { return false };
        let over = self.last.iter().chain(&self.tried);
        let mut back = over.filter(|it| it.phase == RolloutPhase::Reverted && it.release == *told);
        !planted!(RunOnTheWayBack) && back.any(|it| it.from.as_ref() == Some(release))
    }

    /// `own_pre_commands`: whose they are, where each replica runs its own.
    fn fill(
        &mut self,
        host: Host<'_>,
        slots: &[Slot],
        release: &ReleaseKey,
        own_pre_commands: Option<RolloutId>,
    ) {
        for slot in slots {
            let own_pre_commands = own_pre_commands.filter(|_| !self.comes_back(host.place(*slot), release));
            // Each time that it is told is a run of its own.
            let told = |rollout| format!("{rollout}-{}-{}", host.place(*slot), self.fleet.generation);
            let run = own_pre_commands.map(told);
            self.assign(host.place(*slot), release, run);
        }
    }

    fn roll_on(&mut self, rollout: &mut Rollout, hosts: &[Host<'a>]) -> bool {
        let paused = rollout.progress.paused.is_some() && !planted!(IgnorePause);
        if self.in_force.is_none() && !paused {
            // Nothing serves yet that could be disturbed: all at once.
            for host in hosts.iter().filter(|host| host.is(Liveness::Up)) {
                let vacant = self.slots_of(*host, &rollout.release).vacant();
                self.fill(*host, &vacant, &rollout.release, rollout.own_pre_commands());
            }
        }
        self.excuse_late_leaders(rollout);
        self.name_failed(rollout);
        // Once for each batch that is over by now, and one more.
        for _ in 0..=hosts.len() {
            match self.move_batch(rollout, hosts) {
                Moved::Waits => return false,
                Moved::BatchIsOver => {}
                Moved::AllThere => return true,
            }
        }
        false
    }

    pub(super) fn name_failed(&mut self, rollout: &Rollout) {
        for (node, because) in &rollout.progress.failed {
            if let Some(host) = self.host(*node) {
                self.wait(Waiting::NodeFailed { node: host.node.name.clone(), because: because.clone() });
            }
        }
    }

    /// What a node of a batch is told next. True once there is nothing more to tell it.
    pub(super) fn move_node(&mut self, host: Host<'a>, rollout: &Rollout) -> bool {
        match (host.node.liveness, self.next(host, &rollout.release, Pace::OneByOne)) {
            (Liveness::Lost, _) => {
                self.wait(Waiting::NodeLost { node: host.node.name.clone() });
                true
            }
            (Liveness::Up | Liveness::Suspect, Next::Settled) => true,
            (Liveness::Suspect, _) => {
                self.wait(Waiting::NodeSuspect { node: host.node.name.clone() });
                false
            }
            (Liveness::Up, Next::Withdraw(spare)) => {
                self.withdraw(host.place(spare));
                true
            }
            (Liveness::Up, Next::Assign(slots)) => {
                match rollout.progress.paused.as_ref().filter(|_| !planted!(IgnorePause)) {
                    Some(paused) => {
                        self.wait(Waiting::Paused { app: self.fleet.app.clone(), by: paused.by.clone() });
                    }
                    None => self.fill(host, &slots, &rollout.release, rollout.own_pre_commands()),
                }
                false
            }
            (Liveness::Up, Next::Wait { slot, others }) => {
                if others.is_empty() {
                    self.mend_elsewhere(rollout);
                }
                self.wait_for_others(host, slot, others);
                false
            }
            (Liveness::Up, Next::TakingUp(slot)) => {
                self.wait(Waiting::ToBeTakenUp { node: host.node.name.clone(), slot });
                false
            }
        }
    }

    /// What a rollout before this one broke where this one does not go on now goes back to what is in force: it may hold up
    /// those whose turn it is, and nobody knows how long a pause lasts. So does what could not be upgraded from it, which would
    /// else take up the other release as soon as it ends by itself. While it is paused, new slots get that on every node: one
    /// that drains may wait for them.
    pub(super) fn mend_elsewhere(&mut self, rollout: &Rollout) {
        let Some(in_force) = self.in_force.clone() else { return };
        let own_pre_commands = self.brought_by(&in_force);
        let paused = rollout.progress.paused.is_some();
        let batch = rollout.progress.batch.as_ref();
        let in_batch = |host: &Host<'_>| batch.is_some_and(|batch| batch.nodes.contains(&host.id));
        for host in self.hosts().to_vec().into_iter().filter(|host| host.is(Liveness::Up)) {
            // Elsewhere a slot may run the release from before: that is no move that goes on.
            if !paused && in_batch(&host) && self.slots_of(host, &rollout.release).has_begun() {
                continue;
            }
            let slots = self.slots_of(host, &in_force);
            let broken = slots.wanted().filter(|view| {
                let vacant = view.standing == Standing::Vacant && paused;
                let serves_nobody = view.standing == Standing::Unready || vacant;
                let ours = self.release_at(host.place(view.slot)) == Some(&rollout.release);
                let left = view.runs_it && (paused || !in_batch(&host));
                !view.on_target && (serves_nobody && !ours || left)
            });
            let broken: Vec<Slot> = broken.map(|view| view.slot).collect();
            self.fill(host, &broken, &in_force, own_pre_commands);
        }
    }

    /// Replacing or withdrawing a slot now would leave fewer ready than there must be.
    pub(super) fn wait_for_others(&mut self, host: Host<'_>, slot: Slot, others: Vec<Slot>) {
        let node = host.node.name.clone();
        self.wait(match others.is_empty() {
            false => Waiting::ForOthersFirst { node, slot, others },
            true => Waiting::ForOthersElsewhere { node, slot, may_be_missing: self.may_be_missing() },
        });
    }

    /// Slots that were told the release and are not stable on it, where that can be seen and matters.
    pub(super) fn on_trial(&self, rollout: &Rollout) -> Vec<(Host<'a>, Place)> {
        let told = self.bearers(&rollout.release).into_iter();
        let seen = told.filter(|it| !it.host.is(Liveness::Lost) && !it.is_stable());
        // One that could not be upgraded is told anew: nothing is to be waited for.
        let seen = seen.filter(|it| !self.is_left_as_it_was(it.place));
        let seen = seen.filter(|it| !rollout.progress.failed.contains_key(&it.host.id));
        seen.map(|it| (it.host, it.place)).collect()
    }

    /// A leader that was lost and comes back with a failed run, after another's run has passed, need not run them. Until one has,
    /// it goes back to what is in force, like a slot in which they failed for an earlier rollout: its turn comes. One that runs the
    /// release all the same, since before, is there already.
    fn excuse_late_leaders(&mut self, rollout: &Rollout) {
        let not_needed =
            matches!(rollout.pre_commands, PreCommandsState::Passed | PreCommandsState::NotNeeded);
        for Bearer { place, host, report, .. } in self.bearers(&rollout.release) {
            let has_run = report.is_some_and(|seen| seen.pre_commands.is_some());
            let serves = self.standing(place).is_ready();
            if !has_run || serves || !host.is(Liveness::Up) || !self.leads_too_late(rollout, place) {
                continue;
            }
            match self.in_force.clone() {
                _ if not_needed => self.assign(place, &rollout.release, None),
                Some(in_force) => self.assign(place, &in_force, None),
                None => self.withdraw(place),
            }
        }
    }

    /// Spares that earlier rollouts left on nodes whose turn has not come, or whose move is paused.
    fn drop_spares(&mut self, rollout: &Rollout, hosts: &[Host<'_>]) {
        for host in hosts.iter().filter(|host| host.is(Liveness::Up)) {
            let Some(spare) = self.spare_on(host.id) else { continue };
            let place = host.place(spare);
            if self.release_at(place).is_none() {
                continue;
            }
            let slots = self.slots_of(*host, &rollout.release);
            let wanted_ready = slots.wanted().all(|view| view.standing.is_ready());
            let needless = wanted_ready || !self.standing(place).is_ready();
            let ours = self.release_at(place) == Some(&rollout.release);
            let rests = !slots.has_begun() || (rollout.progress.paused.is_some() && !ours);
            if rests && needless {
                self.withdraw(place);
            }
        }
    }

    /// Brings every slot to `target`: nodes side by side. True once all of it is stable.
    pub(super) fn settle(&mut self, target: Option<&ReleaseKey>, pace: Pace) -> bool {
        let Some(target) = target else { return self.withdraw_all() };
        // A revert runs none: what is gone back to ran its own there when it came, and must not be held up by them.
        let goes_back = pace == Pace::Settle && !planted!(RunOnTheWayBack);
        let own_pre_commands = self.brought_by(target).filter(|_| !goes_back);
        let mut settled = true;
        let mut seen = false;
        for host in self.hosts().to_vec() {
            match host.node.liveness {
                Liveness::Up => {
                    seen = true;
                    settled &= self.settle_node(host, target, pace, own_pre_commands);
                }
                Liveness::Suspect => {
                    settled = false;
                    self.wait(Waiting::NodeSuspect { node: host.node.name.clone() });
                }
                Liveness::Lost => self.wait(Waiting::NodeLost { node: host.node.name.clone() }),
            }
        }
        if !seen {
            self.wait_for_nodes();
        }
        settled && seen
    }

    /// The rollout that brought a release, where each replica runs its own pre-commands: those that come to it late do too.
    fn brought_by(&self, release: &ReleaseKey) -> Option<RolloutId> {
        let known = self.rollout.iter().chain(&self.predecessor).chain(&self.last).chain(&self.fleet.brought);
        let mut brought = known.filter(|it| it.release == *release && it.phase != RolloutPhase::Reverting);
        brought.next().and_then(Rollout::own_pre_commands)
    }

    fn settle_node(
        &mut self,
        host: Host<'_>,
        target: &ReleaseKey,
        pace: Pace,
        own_pre_commands: Option<RolloutId>,
    ) -> bool {
        let slots = self.slots_of(host, target);
        if planted!(RevertTouchesAll) && !slots.has_moved() {
            let all: Vec<_> = slots.wanted().map(|view| view.slot).collect();
            self.fill(host, &all, target, None);
            return false;
        }
        if slots.has_moved() && slots.wanted().all(|view| view.standing == Standing::Stable) {
            return true;
        }
        // Where each replica runs its own, none does without.
        let once = |spec: &AppSpec| {
            spec.deploy.pre_commands_run == PreCommandsRun::Once && own_pre_commands.is_none()
        };
        if self.fleet.spec.as_ref().is_some_and(once) {
            self.excuse_from_pre_commands(host, &slots, target);
        }
        // One thing may allow the next: at most every slot is told something once.
        for _ in 0..=slots.slots.len() {
            match self.next(host, target, pace) {
                Next::Settled => break,
                Next::Assign(slots) => self.fill(host, &slots, target, own_pre_commands),
                Next::Withdraw(_) if self.lent_to == Some(host.id) => break,
                Next::Withdraw(spare) => self.withdraw(host.place(spare)),
                Next::TakingUp(slot) => {
                    self.wait(Waiting::ToBeTakenUp { node: host.node.name.clone(), slot });
                    break;
                }
                Next::Wait { slot, others } => {
                    self.wait_for_others(host, slot, others);
                    break;
                }
            }
        }
        let slots = self.slots_of(host, target);
        let mut stable = slots.has_moved();
        for view in slots.wanted().filter(|view| view.standing != Standing::Stable) {
            stable = false;
            if view.on_target {
                self.wait_for(host, host.place(view.slot), None);
            }
        }
        stable
    }

    /// A leader whose run was cut off while it was lost, and that comes back when all is over, need not run them: it would stay
    /// on what ran before for ever.
    fn excuse_from_pre_commands(&mut self, host: Host<'_>, slots: &NodeSlots, target: &ReleaseKey) {
        for view in slots.slots.iter().filter(|it| it.on_target && it.standing == Standing::Unready) {
            let place = host.place(view.slot);
            let told = self.assigned(place).and_then(|it| it.pre_commands_run.as_ref());
            let run = self.report(place).and_then(|seen| seen.pre_commands.as_ref());
            let failed = run.is_some_and(|it| {
                matches!(it.outcome, PreCommandsOutcome::Failed { .. }) && Some(&it.run_id) == told
            });
            // One that is started anew is waited for first: told another thing, it would count as having started.
            if failed && !self.is_being_restarted(place) {
                self.assign(place, target, None);
            }
        }
    }

    /// Nothing is to run anywhere. True once nothing does, as far as nodes are not lost.
    fn withdraw_all(&mut self) -> bool {
        let fleet = self.fleet;
        let mut empty = true;
        for place in fleet.assigned.keys() {
            let Some(node) = fleet.nodes.get(&place.node) else { continue };
            let host = Host { id: place.node, node };
            if self.release_at(*place).is_some() {
                self.withdraw(*place);
                empty &= host.is(Liveness::Lost);
                self.wait_until_empty(host, *place);
            } else if !self.forgets(*place) {
                empty &= host.is(Liveness::Lost);
            }
        }
        empty
    }

    fn wait_until_empty(&mut self, host: Host<'_>, place: Place) {
        let (node, slot) = (host.node.name.clone(), place.slot);
        self.wait(match host.node.liveness {
            Liveness::Up => Waiting::ToBeEmpty { node, slot },
            Liveness::Suspect => Waiting::NodeSuspect { node },
            Liveness::Lost => Waiting::NodeLost { node },
        });
    }

    pub(super) fn wait_for_nodes(&mut self) {
        let eligible: Vec<_> = self.fleet.nodes.values().filter(|node| node.eligible).collect();
        let why = if eligible.is_empty() {
            NoNode::NotEnrolled
        } else if self.hosts().is_empty() && eligible.iter().all(|node| node.service != Service::Open) {
            NoNode::KeptAway
        } else {
            NoNode::NotConnected
        };
        self.wait(Waiting::NoNode { app: self.fleet.app.clone(), why });
    }
}
