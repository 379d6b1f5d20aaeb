//! Laws of where replicas are: nodes that drain or are cordoned, and spreads.

use control_plane::fleet::Place;
use control_plane::rollout::Step;
use proto::ids::NodeId;
use proto::state::{Liveness, Service, SlotState};

use super::{Checked, DRAINS, KEPT_AWAY, Made, SUCCESSORS, allowed_down, broken, is_ready};
use crate::control_plane::place;

impl Made<'_> {
    /// A slot may be given something where it is.
    pub(super) fn may_place(&self, place: Place) -> Checked {
        let Some(node) = self.fleet.nodes.get(&place.node) else { return Ok(()) };
        let told =
            self.fleet.assigned.iter().filter(|(it, told)| it.node == place.node && told.release.is_some());
        let highest = told.map(|(it, _)| it.slot.number()).max().unwrap_or(0);
        let placed = self.fleet.placed.get(&place.node).copied().unwrap_or(0);
        let spec = self.fleet.spec.as_ref();
        let has_spare = spec.is_some_and(|it| it.deploy.strategy == proto::state::Strategy::StartFirst);
        let most = match node.service {
            Service::Open => return Ok(()),
            Service::Cordoned if has_spare => highest.max(placed).max(self.count(place.node) + 1),
            Service::Cordoned => highest.max(placed),
            Service::Draining => 0,
        };
        if place.slot.number() > most {
            return broken(KEPT_AWAY, format!("{place} on {} that is {}", node.name, node.service));
        }
        Ok(())
    }

    pub(super) fn places(&self) -> Checked {
        if self.takes_all_down() {
            return Ok(());
        }
        match self.fleet.spec.as_ref().and_then(|spec| spec.spread) {
            Some(total) => self.leaves_to_successors(total.get()),
            None => self.drains(),
        }
    }

    /// On its way out: what this plan withdraws, and what was withdrawn and is not gone.
    fn drains(&self) -> Checked {
        let Self { fleet, plan, .. } = self;
        let drains = |place: &Place| {
            let node = fleet.nodes.get(&place.node);
            node.is_some_and(|it| it.service == Service::Draining && it.liveness == Liveness::Up)
        };
        let withdrawn =
            plan.steps.iter().filter(|step| matches!(step, Step::Withdraw { .. })).map(Step::place);
        let taken = withdrawn.filter(|place| drains(place) && is_ready(fleet, *place)).count();
        let going = fleet.assigned.iter().filter(|(place, it)| {
            let empty = fleet.observed.get(place).is_some_and(|it| it.state == SlotState::Empty);
            let gone = plan.steps.contains(&Step::Forget { place: **place });
            it.release.is_none() && drains(place) && !empty && !gone
        });
        let (going, allowed) = (going.count(), allowed_down(fleet, &self.counts).max(1));
        if taken > 0 && (taken + going) as u64 > allowed {
            return broken(DRAINS, format!("{taken} beside {going} of {allowed}"));
        }
        Ok(())
    }

    /// Of a spread: what serves leaves its node once enough is ready where all of it is to be.
    fn leaves_to_successors(&self, total: u16) -> Checked {
        let Self { fleet, plan, .. } = self;
        let Some(placed) = plan.placed.as_ref() else { return Ok(()) };
        let alive =
            |id: &NodeId| fleet.nodes.get(id).is_some_and(|it| it.eligible && it.liveness != Liveness::Lost);
        let leaves = fleet.placed.iter().find(|(id, count)| {
            let less = placed.get(id).copied().unwrap_or(0) < **count;
            less && alive(id) && is_ready(fleet, place(**id, **count))
        });
        let slots = placed
            .iter()
            .filter(|(id, _)| alive(id))
            .flat_map(|(id, count)| (1..=*count).map(|slot| place(*id, slot)));
        let ready = slots.filter(|it| is_ready(fleet, *it)).count() as u64;
        // Else nobody can take them all over.
        let has_room = fleet.nodes.iter().any(|(id, node)| alive(id) && node.service == Service::Open);
        let missing = fleet.spec.as_ref().map_or(0, |it| it.deploy.max_unavailable.of(total.into()));
        if let (Some(leaves), true) = (leaves, has_room && ready < u64::from(total).saturating_sub(missing)) {
            return broken(SUCCESSORS, format!("{leaves:?} with {ready} of {total} ready elsewhere"));
        }
        Ok(())
    }
}
