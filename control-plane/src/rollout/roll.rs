//! What each phase tells the slots: moving to a new release, going back, and keeping what is in force where it should be.

use proto::ids::{ReleaseKey, Slot};
use proto::state::{Liveness, RolloutPhase};

use super::draft::{Draft, Host};
use super::fault::planted;
use super::place::{Next, Pace, Standing};
use super::{PreCommandsState, Rollout, Step, Waiting};
use crate::fleet::Place;

impl<'a> Draft<'a> {
    /// Takes away what is to be nowhere, whatever else goes on, and forgets what is gone.
    pub(super) fn tidy(&mut self) {
        let highest = self.highest();
        let moving = self.rollout.as_ref().filter(|rollout| rollout.phase != RolloutPhase::Reverting);
        let leader = match moving.map(|rollout| &rollout.pre_commands) {
            Some(PreCommandsState::RunBy { place, .. }) => Some(*place),
            _ => None,
        };
        let fleet = self.fleet;
        for (place, assigned) in &fleet.assigned {
            let Some(node) = fleet.nodes.get(&place.node) else { continue };
            let host = Host { id: place.node, node };
            if self.has_been_told(*place) {
                continue;
            }
            if assigned.release.is_none() {
                if self.is_gone(*place, assigned, node) {
                    self.forget(*place);
                } else {
                    self.wait_until_empty(host, *place);
                }
            } else if !node.eligible || (place.slot.number() > highest && leader != Some(*place)) {
                self.withdraw(*place);
            }
        }
    }

    /// Moves the application to the rollout's release. True once every slot of every node that is not lost is stable on it.
    pub(super) fn roll(&mut self, rollout: &mut Rollout) -> bool {
        let hosts = self.hosts();
        if hosts.is_empty() {
            self.wait_for_nodes();
            return false;
        }
        self.fill_in_force(rollout, &hosts);
        let passed = self.pre_commands_passed(rollout);
        self.drop_former_leaders(rollout);
        let stable = passed && self.roll_on(rollout, &hosts);
        self.drop_spares(rollout, &hosts);
        if rollout.phase == RolloutPhase::Pending && !self.told(&rollout.release).is_empty() {
            self.enter(rollout, RolloutPhase::Running);
        }
        self.keep_trials(rollout);
        stable
    }

    /// A slot that is one too many since the configuration changed was left alone while it ran the pre-commands.
    fn drop_former_leaders(&mut self, rollout: &Rollout) {
        let leads = |place: &Place| matches!(&rollout.pre_commands, PreCommandsState::RunBy { place: it, .. } if it == place);
        let highest = self.highest();
        if self.fleet.assigned.keys().all(|place| place.slot.number() <= highest) {
            return;
        }
        for place in self.told(&rollout.release) {
            if place.slot.number() > highest && !leads(&place) {
                self.withdraw(place);
            }
        }
    }

    /// New nodes, and new slots on nodes whose turn has not come, get what is in force.
    fn fill_in_force(&mut self, rollout: &Rollout, hosts: &[Host<'_>]) {
        let Some(in_force) = self.in_force.clone() else { return };
        let release = if planted!(NewNodesGetTheNewest) { &rollout.release } else { &in_force };
        for host in hosts.iter().filter(|host| host.is(Liveness::Up)) {
            let slots = self.slots_of(*host, &rollout.release);
            if !slots.has_begun() {
                self.fill(*host, &slots.vacant(), release);
            }
        }
    }

    fn fill(&mut self, host: Host<'_>, slots: &[Slot], release: &ReleaseKey) {
        for slot in slots {
            self.assign(host.place(*slot), release, None);
        }
    }

    fn roll_on(&mut self, rollout: &mut Rollout, hosts: &[Host<'_>]) -> bool {
        let paused = rollout.progress.paused.as_ref().filter(|_| !planted!(IgnorePause));
        let paused = paused.map(|it| Waiting::Paused { by: it.by.clone() });
        if self.in_force.is_none() && paused.is_none() {
            // Nothing serves yet that could be disturbed: all at once.
            for host in hosts.iter().filter(|host| host.is(Liveness::Up)) {
                let vacant = self.slots_of(*host, &rollout.release).vacant();
                self.fill(*host, &vacant, &rollout.release);
            }
        }
        self.excuse_late_leaders(rollout);
        let on_trial = self.on_trial(rollout);
        if !on_trial.is_empty() && !planted!(DoNotWaitForStable) {
            for (host, place) in on_trial {
                self.wait_for(host, place, Some(rollout));
            }
            return false;
        }
        // A node whose move has begun comes before one that would begin.
        let (begun, later): (Vec<Host<'_>>, Vec<Host<'_>>) =
            hosts.iter().partition(|host| self.slots_of(**host, &rollout.release).has_begun());
        let mut moved = 0;
        let mut unsure = false;
        for host in begun.into_iter().chain(later) {
            let slots = self.slots_of(host, &rollout.release);
            match (host.node.liveness, slots.next(Pace::OneByOne)) {
                (Liveness::Up | Liveness::Suspect, Next::Settled) => moved += 1,
                (Liveness::Up, Next::Withdraw(spare)) => {
                    self.withdraw(host.place(spare));
                    moved += 1;
                }
                (Liveness::Up, Next::Assign(slots)) => {
                    match paused {
                        Some(paused) => self.wait(paused),
                        None => self.fill(host, &slots, &rollout.release),
                    }
                    return false;
                }
                (Liveness::Up, Next::Wait { slot, others }) => {
                    self.wait(Waiting::ForOthersFirst { node: host.node.name.clone(), slot, others });
                    return false;
                }
                (Liveness::Up, Next::TakingUp(slot)) => {
                    unsure = true;
                    self.wait(Waiting::ToBeTakenUp { node: host.node.name.clone(), slot });
                }
                (Liveness::Suspect, _) => {
                    unsure = true;
                    self.wait(Waiting::NodeSuspect { node: host.node.name.clone() });
                    if slots.has_begun() {
                        return false;
                    }
                }
                (Liveness::Lost, _) => {
                    unsure |= planted!(WaitForLostNodes);
                    self.wait(Waiting::NodeLost { node: host.node.name.clone() });
                }
            }
        }
        if moved == 0 && !unsure {
            self.wait_for_nodes();
        }
        moved > 0 && !unsure
    }

    /// Slots that were told the release and are not stable on it, where that can be seen.
    fn on_trial(&self, rollout: &Rollout) -> Vec<(Host<'a>, Place)> {
        let told = self.told(&rollout.release).into_iter().filter(|place| !self.is_stable(*place));
        let hosts = told.filter_map(|place| Some((self.host(place.node)?, place)));
        hosts.filter(|(host, _)| !host.is(Liveness::Lost)).collect()
    }

    /// A leader that was lost and comes back with a failed run, after another's run has passed, need not run them.
    fn excuse_late_leaders(&mut self, rollout: &Rollout) {
        if rollout.pre_commands != PreCommandsState::Passed {
            return;
        }
        for place in self.told(&rollout.release) {
            if self.leads_too_late(rollout, place) {
                self.assign(place, &rollout.release, None);
            }
        }
    }

    /// Spares that earlier rollouts left on nodes whose turn has not come.
    fn drop_spares(&mut self, rollout: &Rollout, hosts: &[Host<'_>]) {
        let Some(spare) = self.spare() else { return };
        for host in hosts.iter().filter(|host| host.is(Liveness::Up)) {
            let place = host.place(spare);
            if self.release_at(place).is_none() {
                continue;
            }
            let slots = self.slots_of(*host, &rollout.release);
            let wanted_ready = slots.wanted().all(|view| view.standing.is_ready());
            let needless = wanted_ready || !self.standing(place).is_ready();
            if !slots.has_begun() && needless {
                self.withdraw(place);
            }
        }
    }

    /// Brings every slot to `target`, known to be good: nodes side by side. True once all of it is stable.
    pub(super) fn settle(&mut self, target: Option<&ReleaseKey>) -> bool {
        let Some(target) = target else { return self.withdraw_all() };
        let mut settled = true;
        let mut seen = false;
        for host in self.hosts() {
            match host.node.liveness {
                Liveness::Up => {
                    seen = true;
                    settled &= self.settle_node(host, target);
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

    fn settle_node(&mut self, host: Host<'_>, target: &ReleaseKey) -> bool {
        let slots = self.slots_of(host, target);
        if planted!(RevertTouchesAll) && !matches!(slots.next(Pace::Settle), Next::Settled) {
            let all: Vec<_> = slots.wanted().map(|view| view.slot).collect();
            self.fill(host, &all, target);
            return false;
        }
        // One thing may allow the next: at most every slot is told something once.
        for _ in 0..=slots.slots.len() {
            match self.slots_of(host, target).next(Pace::Settle) {
                Next::Settled => break,
                Next::Assign(slots) => self.fill(host, &slots, target),
                Next::Withdraw(_) if self.lent_to == Some(host.id) => break,
                Next::Withdraw(spare) => self.withdraw(host.place(spare)),
                Next::TakingUp(slot) => {
                    self.wait(Waiting::ToBeTakenUp { node: host.node.name.clone(), slot });
                    break;
                }
                Next::Wait { slot, others } => {
                    self.wait(Waiting::ForOthersFirst { node: host.node.name.clone(), slot, others });
                    break;
                }
            }
        }
        let slots = self.slots_of(host, target);
        let mut stable = slots.next(Pace::Settle) == Next::Settled;
        for view in slots.wanted().filter(|view| view.standing != Standing::Stable) {
            stable = false;
            if view.on_target {
                self.wait_for(host, host.place(view.slot), None);
            }
        }
        stable
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
            } else if !self.plan.steps.contains(&Step::Forget { place: *place }) {
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
        let enrolled = self.fleet.nodes.values().any(|node| node.eligible);
        self.wait(Waiting::NoNode { app: self.fleet.app.clone(), enrolled });
    }
}
