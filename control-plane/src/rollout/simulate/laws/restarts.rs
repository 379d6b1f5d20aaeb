//! What must hold of restarts that were asked for.

use super::*;

/// Whether a restart is of more than one replica that a person named.
pub(super) fn rolls(fleet: &AppFleet, restart: RestartId) -> bool {
    fleet.restarts.iter().any(|wish| wish.id == restart && wish.named().is_none())
}

pub(super) fn restarts(
    fleet: &AppFleet,
    before: &Draft<'_>,
    place: Place,
    restart: RestartId,
    stepped: &dyn Fn(&Place) -> bool,
) -> Option<Law> {
    let of_it = |other: &Place| {
        let told = fleet.assigned.get(other).and_then(|it| it.restart);
        told.is_some_and(|it| it.id == restart)
    };
    if of_it(&place) || fleet.restarts.iter().all(|wish| wish.id != restart || !wish.covers(place)) {
        return Some(RESTARTS_ONCE);
    }
    if !rolls(fleet, restart) {
        return None;
    }
    // Those before the newest were stable once.
    let told = |other: &Place| fleet.assigned.get(other).map(|it| it.begun_at);
    let newest =
        fleet.assigned.keys().filter(|other| of_it(other)).max_by_key(|other| (told(other), **other));
    let seen = |other: &Place| before.host(other.node).is_some_and(|host| !host.is(Liveness::Lost));
    let counts = |other: &&Place| seen(other) && other.slot.number() <= before.replicas_on(other.node);
    if newest.filter(counts).is_some_and(|newest| !before.is_stable(*newest)) {
        return Some(RESTARTS_ROLL);
    }
    let ready = before.standing(place).is_ready();
    (ready && !enough_others(fleet, before, place, stepped)).then_some(ENOUGH_READY)
}

/// A replica that passed a limit rests after each start, by whatever figure its application's `monitoring` lets it.
pub(super) fn cooldowns(fleet: &AppFleet, plan: &Plan, now: Time) -> Option<Law> {
    let place = plan.asked.as_ref().and_then(RestartWish::place)?;
    let told = fleet.assigned.get(&place).and_then(|it| it.restart).filter(|it| it.at <= now)?;
    let atoms = fleet.spec.as_ref().and_then(|spec| spec.monitoring.atom);
    atoms.is_none_or(|it| now.since(told.at) < it.cooldown.0).then_some(COOLDOWNS)
}

/// One that is said to be complete left nothing out.
pub(super) fn restarts_over(fleet: &AppFleet, plan: &Plan, now: Time) -> Option<Law> {
    let complete =
        |wish: &&RestartWish| plan.restarts.iter().any(|over| over.id == wish.id && over.failure.is_none());
    let left_out = |wish: &RestartWish| {
        let told_before = |place: &Place| fleet.assigned[place].begun_at < wish.generation;
        restarted_by(fleet, plan, wish, now).iter().any(told_before)
    };
    fleet.restarts.iter().filter(complete).any(left_out).then_some(RESTARTS_ALL)
}

/// Where a restart that is complete has started something anew: whoever runs another release than the one in force is not
/// restarted but replaced.
pub(in crate::rollout::simulate) fn restarted_by(
    fleet: &AppFleet,
    plan: &Plan,
    wish: &RestartWish,
    now: Time,
) -> Vec<Place> {
    let before = Draft::new(fleet, now);
    let in_force = match &plan.in_force {
        Some(InForce::Release(release)) => Some(release),
        Some(InForce::Nothing) => None,
        None => fleet.in_force.as_ref(),
    };
    let about = |place: &Place| {
        let counts =
            before.host(place.node).is_some() && place.slot.number() <= before.replicas_on(place.node);
        wish.covers(*place) && (counts || wish.named().is_some())
    };
    let runs = fleet.assigned.iter().filter(|(_, told)| told.release.is_some());
    let runs = runs.filter(|(_, told)| told.release.as_ref() == in_force).map(|(place, _)| *place);
    runs.filter(about).collect()
}
