//! What must hold of every plan, told from what the planner could know when it made it. Each law has a name, which is what a
//! failing history says.

mod back;
mod places;
mod restarts;

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::{NodeId, ReleaseKey, RestartId, Slot};
use proto::state::{Liveness, RolloutPhase, Service, SlotState};

use self::back::{brought_back, ghosts, given_up, in_force, still_serves, watched_on, watched_whole};
use self::places::{drains, placed};
pub(super) use self::restarts::restarted_by;
use self::restarts::{cooldowns, restarts, restarts_over, rolls};
use super::host::{Behaviour, behaviour};
use crate::clock::Time;
use crate::fleet::{AppFleet, Node, Place, PreCommandsOutcome, RestartWish};
use crate::rollout::draft::{Draft, Host};
use crate::rollout::place::Standing;
use crate::rollout::{InForce, Plan, PreCommandsState, Rollout, Step, Waiting};
use crate::spec::Promote;

pub(super) type Law = &'static str;

pub(super) const ENOUGH_READY: Law = "a ready slot is replaced only while enough others are ready";
pub(super) const BATCHES: Law =
    "slots are moved on the nodes of one batch, the next after all of it is stable";
pub(super) const CANARY: Law = "nothing is moved behind a canary before it has soaked or was promoted";
pub(super) const BEYOND: Law = "never more replicas are missing by our own doing than may be";
pub(super) const DRAINS: Law = "a node is emptied no faster than replicas may be missing";
pub(super) const KEPT_AWAY: Law = "a cordoned node is given no replica more";
pub(super) const LOST_ALL: Law = "what loses its nodes one after the other is held up";
pub(super) const GIVEN_UP: Law = "a rollout that was given up is not begun again for the same wish";
pub(super) const SUCCESSORS: Law = "a spread leaves no node before as many are ready as there are to be";
pub(super) const TWO_RELEASES: Law =
    "a slot gets what is rolled out, or what is in force, and new ones what is in force";
pub(super) const NO_GHOST: Law = "a ghosted release is never assigned nor in force";
pub(super) const SAYS_WHY: Law = "a plan that does not move says why";
pub(super) const ONCE: Law = "a plan that was stored leaves nothing over";
pub(super) const PRE_COMMANDS_ONCE: Law = "pre-commands run once, unless their leader was lost unfinished";
pub(super) const PRE_COMMANDS_FIRST: Law = "nothing is moved before the pre-commands have passed";
pub(super) const REVERTS_RUN_NONE: Law = "what is gone back to runs no pre-commands again";
pub(super) const JUST_GHOSTS: Law = "a release is ghosted for what it did, never for an outage";
pub(super) const UNTOUCHED: Law = "a revert touches no slot that runs what it goes back to";
pub(super) const ENDS: Law = "once all is quiet, every rollout ends and every slot is as it should be";
pub(super) const STABLE_IN_FORCE: Law = "a release is in force once every slot is stable on it";

pub(super) const BROUGHT_BACK: Law =
    "what failed is taken back before anything newer begins, and each slot has its time for it";
pub(super) const STILL_SERVES: Law = "a node on which the release is not stable keeps what serves there";
pub(super) const PAUSED: Law = "while a rollout is paused no further slot is told its release";
pub(super) const RESTARTS_ROLL: Law =
    "a rolling restart moves one slot at a time, after the last one was stable";
pub(super) const RESTARTS_ALL: Law = "a restart that is complete left nothing out";
pub(super) const RESTARTS_ONCE: Law = "a restart starts each slot that it is about anew once";
pub(super) const COOLDOWNS: Law =
    "what was started anew is not once more for its limits before its cooldown is over";
pub(super) const WATCHED_ON: Law = "what gave way in its watch is watched on until it is judged";
pub(super) const WATCHED_WHOLE: Law = "a release is good once it was watched for the whole of its watch";
pub(super) const ALL_THERE_IS: Law =
    "a release that runs is not taken down for one slot's crashes where there is none to go back to";

/// What the plan breaks, given the fleet that it was made from.
pub(super) fn broken(fleet: &AppFleet, plan: &Plan, now: Time) -> Option<Law> {
    let before = Draft::new(fleet, now);
    let after = plan.rollouts.last().or(fleet.rollout.as_ref());
    let rollout = after.filter(|rollout| !rollout.phase.is_over());
    let stepped = |place: &Place| plan.steps.iter().any(|step| step.place() == *place);
    let mut restarted = 0;
    for step in &plan.steps {
        let place = step.place();
        let gives = match step {
            Step::Assign { release, .. } => Some(release),
            Step::Withdraw { .. } => None,
            Step::Forget { .. } => continue,
            Step::Restart { restart, .. } => {
                restarted += usize::from(rolls(fleet, *restart));
                if let Some(law) = restarts(fleet, &before, place, *restart, &stepped) {
                    return Some(law);
                }
                continue;
            }
        };
        if let Some(release) = gives {
            let ghosted_now = plan.ghosts.iter().any(|ghost| ghost.release == *release);
            if fleet.ghosted.contains(release) || ghosted_now {
                return Some(NO_GHOST);
            }
            if let Some(law) = given(fleet, plan, &before, rollout, step) {
                return Some(law);
            }
        }
        let reverting = rollout.filter(|rollout| rollout.phase == RolloutPhase::Reverting);
        if let Some(from) = reverting.and_then(|rollout| rollout.from.as_ref())
            && gives.is_some()
            && before.release_at(place) == Some(from)
        {
            return Some(UNTOUCHED);
        }
        if reverting.is_some() && matches!(step, Step::Assign { pre_commands_run: Some(_), .. }) {
            return Some(REVERTS_RUN_NONE);
        }
        let goes_down = gives.is_none()
            && (place.slot.number() > before.highest_on(place.node)
                || fleet.nodes.get(&place.node).is_none_or(Node::is_to_be_emptied)
                || fleet.spec.is_none()
                || taken_down(rollout, plan));
        // Whoever named the replica accepted that it is away.
        let named = fleet.restarts.iter().any(|wish| wish.named() == Some(place));
        if before.standing(place).is_ready()
            && !goes_down
            && !named
            && !enough_others(fleet, &before, place, &stepped)
        {
            return Some(ENOUGH_READY);
        }
    }
    if restarted > 1 {
        return Some(RESTARTS_ROLL);
    }
    restarts_over(fleet, plan, now)
        .or_else(|| cooldowns(fleet, plan, now))
        .or_else(|| batches(fleet, &before, plan, rollout))
        .or_else(|| drains(fleet, &before, plan).filter(|_| rollout.is_none() || !taken_down(rollout, plan)))
        .or_else(|| placed(fleet, &before, plan).filter(|_| rollout.is_none() || !taken_down(rollout, plan)))
        .or_else(|| given_up(fleet, plan))
        .or_else(|| brought_back(fleet, &before, plan, now))
        .or_else(|| still_serves(fleet, &before, plan, after))
        .or_else(|| ghosts(fleet, &before, plan))
        .or_else(|| watched_on(fleet, plan))
        .or_else(|| watched_whole(fleet, plan, now))
        .or_else(|| in_force(fleet, &before, plan, after))
        .or_else(|| silent(fleet, &before, plan))
}

/// A slot that ran the release, or was to, is withdrawn or told another.
fn tells_otherwise(plan: &Plan, place: Place, than: &ReleaseKey) -> bool {
    plan.steps.iter().any(|step| match step {
        Step::Withdraw { place: it } => *it == place,
        Step::Assign { place: it, release, .. } => *it == place && release != than,
        Step::Forget { .. } | Step::Restart { .. } => false,
    })
}

/// Of a first deployment that failed: nothing is left to serve with.
fn taken_down(rollout: Option<&Rollout>, plan: &Plan) -> bool {
    let reverting =
        rollout.is_none_or(|rollout| rollout.phase == RolloutPhase::Reverting && rollout.from.is_none());
    reverting || plan.in_force == Some(InForce::Nothing)
}

fn enough_others(
    fleet: &AppFleet,
    before: &Draft<'_>,
    place: Place,
    stepped: &dyn Fn(&Place) -> bool,
) -> bool {
    let missing = usize::try_from(before.may_be_missing()).unwrap_or(usize::MAX);
    let needed = usize::from(before.replicas_on(place.node)).saturating_sub(missing);
    let others = fleet.assigned.keys().filter(|other| other.node == place.node && **other != place);
    others.filter(|other| !stepped(other) && before.standing(**other).is_ready()).count() >= needed
}

/// `taken`: places that were ready when we took them of late, and are not ready since. A named restart, a scale-down and what is taken
/// down for good are somebody's wish.
pub(super) fn beyond(fleet: &AppFleet, plan: &Plan, now: Time, taken: &BTreeMap<Place, u64>) -> Option<Law> {
    let before = Draft::new(fleet, now);
    let after = plan.rollouts.last().or(fleet.rollout.as_ref());
    if fleet.spec.is_none()
        || fleet.in_force.is_none()
        || taken_down(after.filter(|it| !it.phase.is_over()), plan) && fleet.rollout.is_some()
    {
        return None;
    }
    let mut takes = false;
    let mut missing = 0;
    let failed = |node: &NodeId| after.is_some_and(|it| it.progress.failed.contains_key(node));
    for host in before.hosts().iter().filter(|host| !host.is(Liveness::Lost) && !failed(&host.id)) {
        let (mut ready, mut ours, mut ready_before) = (0, 0, 0);
        for number in 1..=before.highest_on(host.id) {
            let Ok(slot) = Slot::new(number.into()) else { continue };
            let place = host.place(slot);
            let step =
                plan.steps.iter().find(|step| step.place() == place && !matches!(step, Step::Forget { .. }));
            let is_ready = before.standing(place).is_ready();
            let named = fleet.restarts.iter().any(|wish| wish.named() == Some(place));
            ready_before += u64::from(is_ready);
            // Whoever named a replica accepted that it is away.
            ready += u64::from(is_ready && (step.is_none() || named));
            let wanted = number <= before.replicas_on(host.id);
            ours += u64::from(wanted && !named && (is_ready && step.is_some() || taken.contains_key(&place)));
        }
        let short = |ready: u64| u64::from(before.replicas_on(host.id)).saturating_sub(ready);
        takes |= short(ready) > short(ready_before);
        missing += short(ready).min(ours);
    }
    (takes && missing > before.may_be_missing()).then_some(BEYOND)
}

/// A new batch is drawn when all that was told is stable, and holds no more nodes than it may.
fn batches(fleet: &AppFleet, before: &Draft<'_>, plan: &Plan, rollout: Option<&Rollout>) -> Option<Law> {
    let rollout = rollout.filter(|it| it.phase.moves())?;
    let batch = rollout.progress.batch.as_ref()?;
    let earlier = fleet.rollout.as_ref().filter(|it| it.id == rollout.id);
    let last = earlier.and_then(|it| it.progress.batch.as_ref());
    if last.map(|it| it.number) == Some(batch.number) {
        return (last.map(|it| &it.nodes) != Some(&batch.nodes)).then_some(BATCHES);
    }
    let deploy = &fleet.spec.as_ref()?.deploy;
    let fresh = fleet.proven.contains(&rollout.release) || before.in_force.is_none();
    // One of which nothing is left to be seen is drawn anew.
    let gone = last.is_some_and(|last| {
        last.canary
            && !last.nodes.iter().filter_map(|id| before.host(*id)).any(|host| {
                let moved = before.slots_of(host, &rollout.release).all_told();
                moved && !host.is(Liveness::Lost) && !rollout.progress.failed.contains_key(&host.id)
            })
    });
    let canary = deploy.canary.filter(|_| (batch.number == 1 || gone) && !fresh);
    if canary.is_some() != batch.canary {
        return Some(CANARY);
    }
    let all = u64::try_from(before.hosts().len()).unwrap_or(u64::MAX);
    let size = canary.map_or(deploy.batch, |it| it.nodes).of(all).max(1);
    let groups: BTreeSet<_> =
        batch.nodes.iter().filter_map(|id| before.host(*id)).map(|host| before.group_of(host)).collect();
    if batch.nodes.len() as u64 > size || groups.len() > 1 {
        return Some(BATCHES);
    }
    // One that is told to run its pre-commands anew begins anew.
    let begins = |step: &Step| matches!(step, Step::Assign { pre_commands_run: Some(_), .. });
    let told_otherwise = |place: Place| {
        let begins_anew = plan.steps.iter().any(|step| step.place() == place && begins(step));
        begins_anew && batch.nodes.contains(&place.node) || tells_otherwise(plan, place, &rollout.release)
    };
    let unstable = |place: &Place| {
        let seen = before.host(place.node).is_some_and(|host| !host.is(Liveness::Lost));
        seen && !told_otherwise(*place)
            && !rollout.progress.failed.contains_key(&place.node)
            && !before.is_stable(*place)
    };
    if earlier.is_some() && before.bearers(&rollout.release).iter().any(|it| unstable(&it.place)) {
        return Some(BATCHES);
    }
    let lost = before.hosts().iter().filter(|host| {
        let slots = before.slots_of(**host, &rollout.release);
        let failed = rollout.progress.failed.contains_key(&host.id);
        let stable = slots.wanted().all(|view| view.standing == Standing::Stable);
        host.is(Liveness::Lost) && slots.has_begun() && !(slots.has_moved() && stable) && !failed
    });
    let allowed = usize::try_from(deploy.tolerate_failed_nodes).unwrap_or(usize::MAX).saturating_add(1);
    if lost.count() > allowed {
        return Some(LOST_ALL);
    }
    let last = last.filter(|last| last.canary && !gone)?;
    let promoted = rollout.progress.promoted.as_ref().is_some_and(|it| it.batch == last.number);
    let soaked = deploy.canary.is_none_or(|canary| {
        let since = last.stable_since.filter(|since| *since <= before.now);
        canary.promote == Promote::Auto
            && (canary.soak.0 == 0 || since.is_some_and(|since| since.plus(canary.soak.0) <= before.now))
    });
    (!promoted && !soaked).then_some(CANARY)
}

/// Laws of what a slot is given.
fn given(
    fleet: &AppFleet,
    plan: &Plan,
    before: &Draft<'_>,
    rollout: Option<&Rollout>,
    step: &Step,
) -> Option<Law> {
    let Step::Assign { place, release, pre_commands_run, .. } = step else { return None };
    let in_force = match &plan.in_force {
        Some(InForce::Release(release)) => Some(release),
        Some(InForce::Nothing) => None,
        None => fleet.in_force.as_ref(),
    };
    let Some(rollout) = rollout.filter(|rollout| rollout.phase != RolloutPhase::Reverting) else {
        return (in_force != Some(release)).then_some(TWO_RELEASES);
    };
    if rollout.release != *release {
        return (in_force != Some(release)).then_some(TWO_RELEASES);
    }
    if rollout.phase == RolloutPhase::Watching {
        return None;
    }
    let passed = matches!(rollout.pre_commands, PreCommandsState::NotNeeded | PreCommandsState::Passed);
    if !passed && pre_commands_run.is_none() {
        return Some(PRE_COMMANDS_FIRST);
    }
    let own = rollout.pre_commands == PreCommandsState::EveryReplica;
    if let Some(run) = pre_commands_run.as_ref().filter(|_| !own)
        && let Some(law) = run_again(fleet, before, rollout, run)
    {
        return Some(law);
    }
    let told_before = before.release_at(*place) == Some(release);
    if rollout.progress.paused.is_some() && !told_before {
        return Some(PAUSED);
    }
    if in_force.is_some() && !told_before {
        let new_node = fleet.assigned.keys().all(|other| other.node != place.node);
        if new_node {
            return Some(TWO_RELEASES);
        }
        let led =
            matches!(&rollout.pre_commands, PreCommandsState::RunBy { place: leader, .. } if leader == place);
        if led {
            return None;
        }
        let batch = rollout.progress.batch.as_ref();
        let in_batch = |node: &NodeId| batch.is_some_and(|batch| batch.nodes.contains(node));
        let on_trial = before.bearers(release).into_iter().map(|it| it.place).any(|other| {
            let seen = before.host(other.node).is_some_and(|host| !host.is(Liveness::Lost));
            let withdrawn = plan.steps.contains(&Step::Withdraw { place: other });
            let beside = in_batch(&other.node) && other.node != place.node;
            let failed = rollout.progress.failed.contains_key(&other.node);
            seen && !withdrawn && !beside && !failed && !before.is_stable(other)
        });
        if on_trial || !in_batch(&place.node) {
            return Some(BATCHES);
        }
    }
    None
}

fn run_again(fleet: &AppFleet, before: &Draft<'_>, rollout: &Rollout, run: &str) -> Option<Law> {
    let earlier = fleet.rollout.as_ref().filter(|earlier| earlier.id == rollout.id)?;
    let PreCommandsState::RunBy { place, run_id } = &earlier.pre_commands else { return None };
    let finished = fleet
        .observed
        .get(place)
        .and_then(|seen| seen.pre_commands.as_ref())
        .is_some_and(|report| report.run_id == *run_id && report.outcome != PreCommandsOutcome::Running);
    let lost = before.host(place.node).is_none_or(|host| host.is(Liveness::Lost));
    let withdrawn = before.release_at(*place) != Some(&rollout.release);
    (run != run_id && (finished || !(lost || withdrawn))).then_some(PRE_COMMANDS_ONCE)
}

fn silent(fleet: &AppFleet, before: &Draft<'_>, plan: &Plan) -> Option<Law> {
    if !plan.steps.is_empty() || !plan.rollouts.is_empty() || !plan.waiting.is_empty() {
        return None;
    }
    let unsettled = fleet.assigned.iter().any(|(place, assigned)| match &assigned.release {
        None => fleet.nodes.contains_key(&place.node),
        Some(_) => {
            let drains = fleet.nodes.get(&place.node).is_some_and(|it| it.service == Service::Draining);
            let host = before.host(place.node).is_some();
            drains || (host && before.standing(*place) != Standing::Stable)
        }
    });
    (fleet.rollout.is_some() || unsettled).then_some(SAYS_WHY)
}

/// Storing a plan and planning again gives nothing, and still says why.
pub(super) fn leaves_something(again: &Plan) -> Option<Law> {
    (!again.is_empty()).then_some(ONCE)
}

/// All that was wished has come to an end; `lost`: nodes that stay away.
pub(super) fn unfinished(fleet: &AppFleet, plan: &Plan, now: Time) -> bool {
    let draft = Draft::new(fleet, now);
    let hosts = draft.hosts().to_vec();
    let some_up = hosts.iter().any(|host| host.is(Liveness::Up));
    // Where there is nothing to run it on, a rollout waits; a revert ends all the same.
    let may_wait = |rollout: &Rollout| !some_up && rollout.phase != RolloutPhase::Reverting;
    if fleet.rollout.as_ref().is_some_and(|rollout| !may_wait(rollout)) || !plan.is_empty() {
        return true;
    }
    let Some(target) = fleet.in_force.as_ref().filter(|_| fleet.spec.is_some()) else {
        return fleet
            .assigned
            .keys()
            .any(|place| draft.host(place.node).is_some_and(|host| host.is(Liveness::Up)));
    };
    let off = hosts.iter().filter(|host| host.is(Liveness::Up)).any(|host| {
        let slots = draft.slots_of(*host, target);
        slots.wanted().any(|view| !view.on_target)
            || slots
                .slots
                .iter()
                .any(|view| view.slot.number() > slots.replicas && view.standing != Standing::Vacant)
    });
    let drains = |id: &NodeId| {
        fleet.nodes.get(id).is_some_and(|it| it.service == Service::Draining && it.liveness == Liveness::Up)
    };
    let off = off || !draft.placement.held.is_empty() || fleet.assigned.keys().any(|it| drains(&it.node));
    // What flaps may hold up the rest for as long as it flaps.
    let flaps = behaviour(target) != Behaviour::Good;
    let wish_open = fleet.wanted.as_ref().is_some_and(|wish| {
        let held =
            plan.waiting.iter().any(|it| matches!(it, Waiting::Ghosted { .. } | Waiting::TakenBack { .. }));
        wish.release != *target && !held
    });
    let restarts = fleet.rollout.is_none() && !fleet.restarts.is_empty();
    ((off || restarts) && !flaps) || (wish_open && some_up)
}
