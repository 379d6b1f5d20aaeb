//! What one plan tells slots, over what they were told before; and the slots that were told one release, by either.

use std::collections::BTreeMap;

use proto::ids::{NodeId, ReleaseKey, Slot};
use proto::state::Liveness;
use rustc_hash::FxHashMap;

use super::draft::{Draft, Host};
use super::place::Standing;
use super::sight::Sight;
use crate::fleet::{Assigned, Observed, Place};

/// By node, because whoever asks for one slot of a node asks for the others too. A node has a few slots: each of its lists is
/// walked through.
#[derive(Default)]
pub(super) struct Told {
    nodes: FxHashMap<NodeId, Vec<(Slot, Option<ReleaseKey>)>>,
}

impl Told {
    /// `None`: this plan tells it nothing; `Some(None)`: nothing is to run there.
    pub(super) fn at(&self, place: Place) -> Option<&Option<ReleaseKey>> {
        find(self.on(place.node), place.slot)
    }

    /// In the order in which they were told first.
    pub(super) fn on(&self, node: NodeId) -> &[(Slot, Option<ReleaseKey>)] {
        if self.nodes.is_empty() {
            return &[];
        }
        self.nodes.get(&node).map_or(&[], Vec::as_slice)
    }

    /// The last word on a place is the only one. True where there was one before.
    pub(super) fn tell(&mut self, place: Place, release: Option<ReleaseKey>) -> bool {
        let on_node = self.nodes.entry(place.node).or_default();
        match on_node.iter_mut().find(|(slot, _)| *slot == place.slot) {
            Some((_, told)) => {
                *told = release;
                true
            }
            None => {
                on_node.push((place.slot, release));
                false
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = (Place, Option<&ReleaseKey>)> {
        self.nodes.iter().flat_map(|(node, slots)| {
            slots.iter().map(|(slot, told)| (Place { node: *node, slot: *slot }, told.as_ref()))
        })
    }
}

pub(super) fn find(told: &[(Slot, Option<ReleaseKey>)], slot: Slot) -> Option<&Option<ReleaseKey>> {
    told.iter().find(|(it, _)| *it == slot).map(|(_, release)| release)
}

/// A slot that was told a release, on a node that may run it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bearer<'a> {
    pub(super) place: Place,
    pub(super) host: Host<'a>,
    pub(super) standing: Standing,
    /// What it was told before this plan.
    pub(super) assigned: Option<&'a Assigned>,
    /// Of what it was told last, not of anything before.
    pub(super) report: Option<&'a Observed>,
}

impl Bearer<'_> {
    /// As far as is known: a suspect node's slots are what they were.
    pub(super) fn is_stable(&self) -> bool {
        self.standing == Standing::Stable && !self.host.is(Liveness::Lost)
    }
}

impl<'a> Draft<'a> {
    /// Slots that were told `release`, on nodes that may run it, in the order of places.
    pub(super) fn bearers(&self, release: &ReleaseKey) -> Vec<Bearer<'a>> {
        let mut bearers = Vec::new();
        let mut asked: Option<(NodeId, Option<Host<'a>>)> = None;
        let mut host = |node: NodeId| match asked {
            Some((last, answer)) if last == node => answer,
            _ => asked.insert((node, self.host(node))).1,
        };
        for sight in self.sights.all() {
            if sight.release == Some(release)
                && let Some(host) = host(sight.place.node)
                && self.told.at(sight.place).is_none()
            {
                let Sight { place, assigned, report, standing, .. } = *sight;
                bearers.push(Bearer { place, host, standing, assigned: Some(assigned), report });
            }
        }
        // In order: a place is told once.
        let now: BTreeMap<Place, Host<'a>> = self
            .told
            .all()
            .filter(|(_, told)| *told == Some(release))
            .filter_map(|(place, _)| Some((place, self.host(place.node)?)))
            .collect();
        if !now.is_empty() {
            bearers.extend(now.into_iter().map(|(place, host)| Bearer {
                place,
                host,
                standing: Standing::Told,
                assigned: self.assigned(place),
                report: None,
            }));
            bearers.sort_by_key(|bearer| bearer.place);
        }
        bearers
    }
}

#[cfg(test)]
mod tests {
    use proto::state::{SlotState, Strategy};

    use super::super::fixture::{fleet, place, release, seen};
    use super::*;
    use crate::clock::Time;

    #[test]
    fn the_last_word_on_a_slot_is_the_only_one() {
        let mut told = Told::default();
        assert!(!told.tell(place(1, 2), Some(release(1))));
        assert!(!told.tell(place(1, 1), None));
        assert!(told.tell(place(1, 2), Some(release(2))));
        assert_eq!(told.at(place(1, 2)), Some(&Some(release(2))));
        assert_eq!(told.at(place(1, 1)), Some(&None));
        assert_eq!((told.at(place(2, 2)), told.on(place(1, 1).node).len()), (None, 2));
    }

    #[test]
    fn who_bears_a_release_is_in_the_order_of_places_whoever_told_it() {
        let mut fleet = fleet(Strategy::StopFirst, 3, 3);
        for (node, slot, number) in [(1, 1, 1), (1, 2, 2), (2, 1, 2), (2, 2, 2), (3, 1, 2)] {
            let assigned = Assigned {
                release: Some(release(number)),
                pre_commands_run: None,
                generation: 1,
                since: Time(1),
                begun_at: 1,
                restart: None,
                hot: None,
            };
            fleet.assigned.insert(place(node, slot), assigned);
            fleet.observed.insert(place(node, slot), seen(SlotState::Stable, Some(release(number)), 1));
        }
        // A node that may run nothing of it bears nothing.
        fleet.nodes.values_mut().last().unwrap().eligible = false;
        let mut draft = Draft::new(&fleet, Time(2));
        draft.assign(place(2, 3), &release(2), None);
        draft.assign(place(1, 1), &release(2), None);
        draft.withdraw(place(2, 1));
        let bearers = draft.bearers(&release(2));
        let seen: Vec<_> = bearers.iter().map(|it| (it.place, it.standing, it.report.is_some())).collect();
        let (told, stable) = (Standing::Told, Standing::Stable);
        assert_eq!(
            seen,
            [
                (place(1, 1), told, false),
                (place(1, 2), stable, true),
                (place(2, 2), stable, true),
                (place(2, 3), told, false)
            ]
        );
        // What it was told before is known all the same.
        let before: Vec<_> = bearers.iter().map(|it| it.assigned.is_some()).collect();
        assert_eq!(before, [true, true, true, false]);
        assert_eq!(draft.bearers(&release(1)).len(), 0);
    }
}
