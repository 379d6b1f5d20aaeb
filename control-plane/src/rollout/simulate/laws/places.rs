//! What must hold of where replicas run: nodes that are emptied or kept free, and spreads.

use super::*;

/// On its way out: what this plan withdraws, and what was withdrawn and is not gone.
pub(super) fn drains(fleet: &AppFleet, before: &Draft<'_>, plan: &Plan) -> Option<Law> {
    let spec = fleet.spec.as_ref().filter(|spec| spec.spread.is_none())?;
    let drains = |place: &Place| {
        let node = fleet.nodes.get(&place.node);
        node.is_some_and(|it| it.is_to_be_emptied() && it.liveness == Liveness::Up)
    };
    let taken = plan.steps.iter().filter(|step| matches!(step, Step::Withdraw { .. })).map(Step::place);
    let taken = taken.filter(|place| drains(place) && before.standing(*place).is_ready()).count();
    let empty = |place: &Place| fleet.observed.get(place).is_some_and(|it| it.state == SlotState::Empty);
    let going = fleet.assigned.iter().filter(|(place, it)| {
        let gone = plan.steps.contains(&Step::Forget { place: **place });
        it.release.is_none() && drains(place) && !empty(place) && !gone
    });
    let all: u64 = before.placement.counts.values().map(|count| u64::from(*count)).sum();
    let allowed = usize::try_from(spec.deploy.may_be_missing(all).max(1)).unwrap_or(usize::MAX);
    (taken > 0 && taken + going.count() > allowed).then_some(DRAINS)
}

/// Cordoned nodes hold no more than they held, and a spread leaves none before its successors are ready.
pub(super) fn placed(fleet: &AppFleet, before: &Draft<'_>, plan: &Plan) -> Option<Law> {
    let highest = |node: NodeId| {
        let told = fleet.assigned.iter().filter(|(place, it)| place.node == node && it.release.is_some());
        told.map(|(place, _)| place.slot.number()).max().unwrap_or(0)
    };
    for step in &plan.steps {
        let Step::Assign { place, .. } = step else { continue };
        let node = fleet.nodes.get(&place.node)?;
        let spare = before.spare_on(place.node) == Some(place.slot);
        let held = highest(place.node).max(fleet.placed.get(&place.node).copied().unwrap_or(0));
        if node.service != Service::Open && place.slot.number() > held && !spare {
            return Some(KEPT_AWAY);
        }
    }
    let (spec, placed) = (fleet.spec.as_ref()?, plan.placed.as_ref()?);
    let total = spec.spread?.get();
    let shrinks = fleet.placed.iter().any(|(id, count)| {
        let less = placed.get(id).copied().unwrap_or(0) < *count;
        let top = Slot::new((*count).into()).ok().map(|slot| Place { node: *id, slot });
        let alive = fleet.nodes.get(id).is_some_and(|node| node.liveness != Liveness::Lost);
        less && alive && top.is_some_and(|top| before.standing(top).is_ready())
    });
    let ready = placed.iter().flat_map(|(id, count)| {
        let alive = fleet.nodes.get(id).is_some_and(|node| node.liveness != Liveness::Lost);
        let slots = (1..=*count).filter_map(|number| Slot::new(number.into()).ok());
        slots.filter(move |_| alive).map(|slot| Place { node: *id, slot })
    });
    let ready = u64::try_from(ready.filter(|place| before.standing(*place).is_ready()).count()).unwrap_or(0);
    // Else nobody can take them all over.
    let room = fleet
        .nodes
        .values()
        .any(|node| node.eligible && node.service == Service::Open && node.liveness != Liveness::Lost);
    let missing = spec.deploy.max_unavailable.of(total.into());
    (shrinks && room && ready < u64::from(total).saturating_sub(missing)).then_some(SUCCESSORS)
}
