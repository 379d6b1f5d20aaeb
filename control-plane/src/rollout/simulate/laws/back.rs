//! What must hold of going back, of ghosts, and of what is in force.

use super::*;
use crate::rollout::Ghost;

pub(super) fn given_up(fleet: &AppFleet, plan: &Plan) -> Option<Law> {
    let back = |tried: &&Rollout| matches!(tried.phase, RolloutPhase::Reverted | RolloutPhase::Failed);
    let over = fleet.tried.as_ref().filter(|tried| tried.progress.aborted.is_some()).filter(back)?;
    let known = [&fleet.rollout, &fleet.predecessor];
    let again = plan.rollouts.iter().find(|it| known.into_iter().flatten().all(|known| known.id != it.id))?;
    (again.release == over.release && again.wished_at == over.wished_at).then_some(GIVEN_UP)
}

pub(super) fn brought_back(fleet: &AppFleet, before: &Draft<'_>, plan: &Plan, now: Time) -> Option<Law> {
    let reverting = fleet.rollout.as_ref().filter(|it| it.phase == RolloutPhase::Reverting)?;
    let (from, spec) = (reverting.from.as_ref()?, fleet.spec.as_ref()?);
    let ended = plan.rollouts.iter().find(|it| it.id == reverting.id && it.phase.is_over())?;
    let in_time = || {
        before.bearers(from).into_iter().any(|it| {
            let told = it.assigned.map_or(Time(0), |assigned| assigned.since);
            let young = told <= now && now.since(told) < spec.rollback_timeout.0;
            // A spread may have lost its wish for it: withdrawn, or taken for a spare.
            let above = it.place.slot.number() > before.replicas_on(it.place.node);
            let withdrawn = plan.steps.contains(&Step::Withdraw { place: it.place });
            let goes = withdrawn || above && tells_otherwise(plan, it.place, from);
            young && !goes && !it.is_stable() && !it.host.is(Liveness::Lost)
        })
    };
    let cut_short = ended.progress.left.is_some() && in_time();
    (ended.phase == RolloutPhase::Superseded || cut_short).then_some(BROUGHT_BACK)
}

/// Of nodes that come to what is in force late: what is moved in its turn, or goes back, has laws of its own.
pub(super) fn still_serves(
    fleet: &AppFleet,
    before: &Draft<'_>,
    plan: &Plan,
    rollout: Option<&Rollout>,
) -> Option<Law> {
    if plan.in_force.is_some()
        || rollout.is_some_and(|it| !it.phase.is_over() && it.phase != RolloutPhase::Watching)
    {
        return None;
    }
    let in_force = fleet.in_force.as_ref()?;
    let gives_up = |step: &&Step| {
        let Step::Assign { place, release, .. } = step else { return false };
        let not_stable = |slot: u16| {
            let Ok(slot) = Slot::new(slot.into()) else { return false };
            let other = Place { node: place.node, slot };
            before.release_at(other) == Some(in_force) && before.standing(other) != Standing::Stable
        };
        // Whoever named the replica accepted that it is away.
        let named = fleet.restarts.iter().any(|wish| wish.named() == Some(*place));
        release == in_force
            && !named
            && before.release_at(*place) != Some(in_force)
            && before.standing(*place).is_ready()
            && (1..=before.highest_on(place.node)).any(not_stable)
    };
    plan.steps.iter().find(gives_up).map(|_| STILL_SERVES)
}

pub(super) fn ghosts(fleet: &AppFleet, before: &Draft<'_>, plan: &Plan) -> Option<Law> {
    plan.ghosts.iter().find_map(|ghost| justly(ghost, fleet, before))
}

fn justly(ghost: &Ghost, fleet: &AppFleet, before: &Draft<'_>) -> Option<Law> {
    if fleet.proven.contains(&ghost.release) {
        return Some(JUST_GHOSTS);
    }
    let place = ghost.evidence.place?;
    let crashes = fleet.observed.get(&place).map_or(0, |seen| seen.crashes_since_deploy);
    let too_few = |watched_from: &BTreeMap<Place, u32>| {
        let base = watched_from.get(&place).copied().unwrap_or(0);
        (crashes.saturating_sub(base) < 3).then_some(JUST_GHOSTS)
    };
    if let Some(before) = fleet.predecessor.as_ref().filter(|before| before.release == ghost.release) {
        return too_few(&before.progress.watched_from);
    }
    let watched = fleet
        .rollout
        .as_ref()
        .filter(|rollout| rollout.phase == RolloutPhase::Watching && rollout.release == ghost.release);
    if let Some(rollout) = watched {
        let stays = |other: &Place| {
            other.slot.number() <= before.replicas_on(other.node) && before.host(other.node).is_some()
        };
        let runs_elsewhere = before
            .bearers(&ghost.release)
            .into_iter()
            .map(|it| it.place)
            .any(|other| other != place && stays(&other) && before.is_stable(other));
        if rollout.from.is_none() && runs_elsewhere {
            return Some(ALL_THERE_IS);
        }
        return too_few(&rollout.progress.watched_from);
    }
    None
}

/// What is in force, and has not outlived its watch, is watched: beneath the rollout that comes from it, or by itself again.
pub(super) fn watched_on(fleet: &AppFleet, plan: &Plan) -> Option<Law> {
    let under_way = fleet.rollout.as_ref()?;
    let gives_way =
        plan.rollouts.iter().any(|it| it.id == under_way.id && it.phase == RolloutPhase::Superseded);
    let watched = (gives_way && under_way.phase == RolloutPhase::Watching).then_some(under_way);
    let before = watched.or(fleet.predecessor.as_ref())?;
    let from = fleet.predecessor.as_ref().and_then(|it| it.from.as_ref()).or(before.from.as_ref());
    let in_force = match &plan.in_force {
        Some(InForce::Release(release)) => Some(release),
        Some(InForce::Nothing) => None,
        None => fleet.in_force.as_ref(),
    };
    // Of a first deployment that crashes there is no other way than to leave it.
    if in_force != Some(&before.release) || from.is_none() || fleet.spec.is_none() {
        return None;
    }
    let known = plan.rollouts.iter().rev().find(|it| it.finished_at.is_none()).or_else(|| {
        let over = plan.rollouts.iter().any(|it| it.id == under_way.id && it.phase.is_over());
        (!over).then_some(under_way)
    });
    // Judged now, or watched by itself again.
    let mut rows = plan.rollouts.iter().chain(&plan.predecessors);
    let judged = rows.any(|it| it.id == before.id && it.phase != RolloutPhase::Superseded);
    let goes_on = known.is_some_and(|it| {
        it.progress.predecessor == Some(before.id)
            || it.id == before.id
            // What it comes from is rolled out anew.
            || from == Some(&it.release)
    });
    (!goes_on && !judged).then_some(WATCHED_ON)
}

/// A clock that is put forward, and an outage, use up a tenth of a watch at most.
pub(super) fn watched_whole(fleet: &AppFleet, plan: &Plan, now: Time) -> Option<Law> {
    let watch = fleet.spec.as_ref()?.deploy.watch.0;
    let rows = plan.rollouts.iter().chain(&plan.predecessors);
    let mut good = rows.filter(|it| it.phase == RolloutPhase::Done);
    let before = good.find_map(|it| {
        let known = fleet.rollout.iter().chain(&fleet.predecessor);
        known.into_iter().find(|known| known.id == it.id)
    })?;
    let beneath = plan.predecessors.iter().any(|it| it.id == before.id && it.phase == RolloutPhase::Done);
    let draft = Draft::new(fleet, now);
    if beneath && !draft.bearers(&before.release).iter().any(crate::rollout::told::Bearer::is_stable) {
        return Some(WATCHED_WHOLE);
    }
    let watched = before.progress.watched;
    let stretch = watched.counting_since.map_or(0, |since| now.since(since)).min((watch / 10).max(2_000));
    (watched.spent_ms.saturating_add(stretch) < watch).then_some(WATCHED_WHOLE)
}

pub(super) fn in_force(
    fleet: &AppFleet,
    before: &Draft<'_>,
    plan: &Plan,
    rollout: Option<&Rollout>,
) -> Option<Law> {
    let in_force = match &plan.in_force {
        Some(InForce::Release(release)) => Some(release),
        Some(InForce::Nothing) => None,
        None => fleet.in_force.as_ref(),
    };
    let ghosted_now = |release: &ReleaseKey| plan.ghosts.iter().any(|ghost| ghost.release == *release);
    if in_force.is_some_and(|release| fleet.ghosted.contains(release) || ghosted_now(release)) {
        return Some(NO_GHOST);
    }
    let Some(InForce::Release(release)) = &plan.in_force else { return None };
    if rollout.is_some_and(|rollout| rollout.phase == RolloutPhase::Reverting) || !plan.ghosts.is_empty() {
        return None;
    }
    let failed = |host: &&Host<'_>| {
        let failed = fleet.rollout.as_ref().is_some_and(|it| it.progress.failed.contains_key(&host.id));
        failed || plan.rollouts.iter().any(|it| it.progress.failed.contains_key(&host.id))
    };
    let hosts = before.hosts().iter().filter(|host| !host.is(Liveness::Lost) && !failed(host));
    let stable = hosts.flat_map(|host| {
        let slots = before.slots_of(*host, release);
        slots.wanted().map(|view| view.on_target && view.standing == Standing::Stable).collect::<Vec<_>>()
    });
    let all: Vec<bool> = stable.collect();
    (all.is_empty() || all.contains(&false)).then_some(STABLE_IN_FORCE)
}
