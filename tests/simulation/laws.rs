//! What must always hold. Each law has a name, which is what a failing fleet says.

use control_plane::fleet::{AppFleet, Place};
use control_plane::rollout::{InForce, Plan, Step};
use node_agent::replica::{Restart, Stage, Ticket};
use proto::ids::ReleaseKey;
use proto::state::{Liveness, RolloutPhase, SlotState};

use crate::agent::STABLE_AFTER;
use crate::control_plane::place;
use crate::world::World;

pub(crate) type Law = &'static str;

pub(crate) const ENOUGH_READY: Law = "a ready slot is replaced only while enough others are ready";
pub(crate) const ONE_DOWN: Law = "no more replicas of a host are down by our own doing than is allowed";
pub(crate) const TWO_RELEASES: Law = "a slot gets what is rolled out, or what is in force";
pub(crate) const NO_GHOST: Law = "a ghosted release is never assigned";
pub(crate) const GOOD_STAYS: Law = "a release that does nothing wrong is not ghosted for an outage";
pub(crate) const SAYS_WHY: Law = "a plan that does not move says why";
pub(crate) const ONCE: Law = "a plan that was stored leaves nothing over";
pub(crate) const ENDS: Law = "once all is quiet, every rollout ends and every slot is as it should be";
pub(crate) const ONE_PROCESS: Law = "a slot has one process, and its folders rest while it runs";
pub(crate) const NO_DOUBLE_START: Law = "nothing is started twice for one word";
pub(crate) const WHAT_LIES_THERE: Law = "what is started is what took its place";
pub(crate) const PRE_COMMANDS_ONCE: Law = "a run of pre-commands is run once, and in order";
pub(crate) const RESTARTS_ONCE: Law = "a restart that was asked for is done once in each slot";
pub(crate) const SERVES_ON: Law = "what runs goes on until what follows it is staged";
pub(crate) const UNASKED: Law = "what is stable is not ended without being asked";

/// A law, and where it broke.
pub(crate) struct Broken {
    pub(crate) law: Law,
    pub(crate) detail: String,
    pub(crate) log: Vec<String>,
}

pub(crate) type Checked<T = ()> = Result<T, (Law, String)>;

pub(crate) fn broken<T>(law: Law, detail: impl Into<String>) -> Checked<T> {
    Err((law, detail.into()))
}

/// As far as the planner knows, requests are answered there.
pub(crate) fn is_ready(fleet: &AppFleet, place: Place) -> bool {
    let (Some(assigned), Some(seen)) = (fleet.assigned.get(&place), fleet.observed.get(&place)) else {
        return false;
    };
    seen.generation >= assigned.generation
        && assigned.release.is_some()
        && seen.running == assigned.release
        && matches!(seen.state, SlotState::Ready | SlotState::Stable)
}

/// How many replicas may be down by our own doing.
fn allowed_down(fleet: &AppFleet) -> usize {
    let Some(spec) = &fleet.spec else { return usize::MAX };
    let all = u64::from(spec.replicas.get()) * u64::try_from(fleet.nodes.len()).unwrap();
    usize::try_from(spec.deploy.may_be_missing(all)).unwrap()
}

/// The laws of a plan, told from what it was made from.
pub(crate) fn planned(fleet: &AppFleet, plan: &Plan) -> Checked {
    let replicas = fleet.spec.as_ref().map_or(0, |spec| spec.replicas.get());
    let after = plan.rollouts.last().or(fleet.rollout.as_ref()).filter(|it| !it.phase.is_over());
    let in_force = match &plan.in_force {
        Some(InForce::Release(release)) => Some(release),
        Some(InForce::Nothing) => None,
        None => fleet.in_force.as_ref(),
    };
    for step in &plan.steps {
        let place = step.place();
        if let Step::Assign { release, .. } = step {
            let ghosted_now = plan.ghost.as_ref().is_some_and(|ghost| ghost.release == *release);
            if fleet.ghosted.contains(release) || ghosted_now {
                return broken(NO_GHOST, format!("{release} at {place}"));
            }
            if !may_be_given(release, after, in_force) {
                return broken(TWO_RELEASES, format!("{release} at {place}"));
            }
        }
        // A first deployment that failed leaves nothing to serve with.
        let taken_down = in_force.is_none() && after.is_none_or(|it| it.from.is_none());
        let goes = matches!(step, Step::Withdraw { .. } | Step::Forget { .. })
            && (place.slot.number() > replicas || taken_down);
        let stepped = |other: &Place| plan.steps.iter().any(|step| step.place() == *other);
        let others = fleet.assigned.keys().filter(|it| it.node == place.node && **it != place);
        let ready = others.filter(|it| !stepped(it) && is_ready(fleet, **it)).count();
        let needed = usize::from(replicas).saturating_sub(allowed_down(fleet));
        if is_ready(fleet, place) && !goes && ready < needed {
            return broken(ENOUGH_READY, format!("{step:?} with {ready} others ready of {needed}"));
        }
    }
    Ok(())
}

fn may_be_given(
    release: &ReleaseKey,
    rollout: Option<&control_plane::rollout::Rollout>,
    in_force: Option<&ReleaseKey>,
) -> bool {
    let moving = rollout.filter(|it| it.phase != RolloutPhase::Reverting);
    let back = rollout.and_then(|it| it.from.as_ref());
    in_force == Some(release) || moving.is_some_and(|it| it.release == *release) || back == Some(release)
}

/// `plan` adds nothing to the fleet: whoever looks at it is told why.
pub(crate) fn says_why(fleet: &AppFleet, plan: &Plan) -> Checked {
    if !plan.waiting.is_empty() {
        return Ok(());
    }
    let unsettled = fleet.assigned.iter().find(|(place, assigned)| {
        let up = fleet.nodes.get(&place.node).is_some_and(|it| it.liveness == Liveness::Up);
        let stable = fleet.observed.get(place).is_some_and(|it| it.state == SlotState::Stable);
        up && (assigned.release.is_none() || !(stable && is_ready(fleet, **place)))
    });
    match (&fleet.rollout, unsettled) {
        (None, None) => Ok(()),
        (rollout, unsettled) => {
            broken(SAYS_WHY, format!("{:?}, {unsettled:?}", rollout.as_ref().map(|it| it.phase)))
        }
    }
}

impl World {
    /// The agent is about to end what runs: for a reason, and one at a time.
    pub(crate) fn may_stop(&mut self, host: usize, slot: u16, ticket: Ticket) -> Checked {
        let now = self.now;
        let at = place(self.hosts[host].id, slot);
        let it = self.slot(host, slot);
        let Some(alive) = it.alive.clone().filter(|it| it.ticket == ticket) else { return Ok(()) };
        let wanted = it.replica.wanted().map(|it| it.release.clone());
        let asked = wanted.as_ref() != Some(&alive.release) || it.replica.restart_is_due();
        // A machine that was just begun has not heard of it for as long.
        let stable = alive.ready_at.is_some_and(|ready| now >= ready + STABLE_AFTER + 1_000);
        if stable && !asked && !alive.told {
            return broken(UNASKED, format!("{alive:?} on host {host}: {:?}", it.replica));
        }
        let target = it.replica.target().map(|it| it.release);
        let staged = target.clone().is_some_and(|release| it.replica.stage == Stage::Staged { release });
        let stale = it.replica.current.as_ref().is_some_and(|it| ticket < it.since);
        let restarts = it.replica.restart_is_due();
        if !alive.told && target.is_some() && !staged && !stale && !restarts {
            return broken(SERVES_ON, format!("{alive:?} on host {host}: {:?}", it.replica));
        }
        let by_itself = it.replica.fell_back().is_some();
        if let (Restart::Due { request }, false) = (&it.replica.restart, alive.told) {
            let once = (host, slot, request.clone());
            if !self.restarted.insert(once) {
                return broken(RESTARTS_ONCE, format!("{alive:?} on host {host}"));
            }
        }
        let it = self.slot(host, slot);
        if wanted.is_none() {
            it.taken_down = false;
            return Ok(());
        }
        let replicas = self.fleet.spec.as_ref().map_or(0, |spec| spec.replicas.get());
        let believed = self.believed_ready.remove(&at);
        if !believed || by_itself || slot > replicas || !alive.is_ready(now) {
            return Ok(());
        }
        let slots = self.hosts[host].slots.iter();
        let down: Vec<u16> = slots
            .filter(|(other, it)| **other != slot && **other <= replicas && it.taken_down)
            .map(|(other, _)| *other)
            .collect();
        // One more slot covers for the one that is replaced, where nothing is stopped first.
        if down.len() >= allowed_down(&self.fleet).max(1) {
            return broken(ONE_DOWN, format!("slot {slot} on host {host} beside {down:?}"));
        }
        self.slot(host, slot).taken_down = true;
        Ok(())
    }
}
