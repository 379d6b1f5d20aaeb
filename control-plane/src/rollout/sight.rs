//! What every place was told, what was heard of it since, and how it stands to that, as the fleet was loaded: found out once.
//!
//! The planner asks for it many times over for each of what may be fifty thousand places. One walk through what is assigned
//! and what was reported, both in the order of places, spares it as many searches.

use std::ops::Range;

use proto::ids::{NodeId, ReleaseKey, Slot};
use proto::state::SlotState;
use rustc_hash::FxHashMap;

use super::fault::planted;
use super::place::Standing;
use crate::fleet::{AppFleet, Assigned, Observed, Place};

/// Of one place that was told something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight<'a> {
    pub(super) place: Place,
    pub(super) assigned: &'a Assigned,
    /// What it was told. The same release is the same reference everywhere, so that comparing it reads no memory far away.
    pub(super) release: Option<&'a ReleaseKey>,
    /// Of what it was told last, not of anything before.
    pub(super) report: Option<&'a Observed>,
    pub(super) standing: Standing,
}

pub(super) struct Sights<'a> {
    /// In the order of places.
    all: Vec<Sight<'a>>,
    /// Where those of a node are in it.
    nodes: FxHashMap<NodeId, Range<usize>>,
}

impl<'a> Sights<'a> {
    pub(super) fn of(fleet: &'a AppFleet) -> Self {
        let mut all: Vec<Sight<'a>> = Vec::with_capacity(fleet.assigned.len());
        let mut nodes: FxHashMap<NodeId, Range<usize>> = FxHashMap::default();
        let mut reports = fleet.observed.iter().peekable();
        let mut begin = 0;
        let mut known: Vec<&'a ReleaseKey> = Vec::new();
        for (place, assigned) in &fleet.assigned {
            while reports.next_if(|(it, _)| *it < place).is_some() {}
            let seen = reports.next_if(|(it, _)| *it == place).map(|(_, seen)| seen);
            let counts =
                |seen: &&Observed| seen.generation >= assigned.generation || planted!(BelieveOldReports);
            let report = seen.filter(counts);
            if let Some(last) = all.last().filter(|last| last.place.node != place.node) {
                nodes.insert(last.place.node, begin..all.len());
                begin = all.len();
            }
            let release = assigned.release.as_ref().map(|it| one_of(&mut known, it));
            all.push(Sight { place: *place, assigned, release, report, standing: standing(release, report) });
        }
        if let Some(last) = all.last() {
            nodes.insert(last.place.node, begin..all.len());
        }
        Self { all, nodes }
    }

    /// Of each place that was told something, in order.
    pub(super) fn all(&self) -> &[Sight<'a>] {
        &self.all
    }

    /// `None`: it was never told anything.
    pub(super) fn at(&self, place: Place) -> Option<&Sight<'a>> {
        of_slot(self.on(place.node), place.slot)
    }

    /// Of the slots of one node, in order.
    pub(super) fn on(&self, node: NodeId) -> &[Sight<'a>] {
        let range = self.nodes.get(&node).cloned();
        range.and_then(|range| self.all.get(range)).unwrap_or_default()
    }
}

/// Of one slot among those of its node.
pub(super) fn of_slot<'s, 'a>(of_node: &'s [Sight<'a>], slot: Slot) -> Option<&'s Sight<'a>> {
    // Slots are mostly numbered without a gap.
    match of_node.get(usize::from(slot.number()) - 1) {
        Some(sight) if sight.place.slot == slot => Some(sight),
        _ => of_node.binary_search_by_key(&slot, |it| it.place.slot).ok().and_then(|at| of_node.get(at)),
    }
}

/// There are a handful of releases at most.
fn one_of<'a>(known: &mut Vec<&'a ReleaseKey>, release: &'a ReleaseKey) -> &'a ReleaseKey {
    match known.iter().find(|it| **it == release) {
        Some(same) => same,
        None => {
            known.push(release);
            release
        }
    }
}

fn standing(release: Option<&ReleaseKey>, report: Option<&Observed>) -> Standing {
    let Some(release) = release else { return Standing::Vacant };
    match report {
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
    }
}

#[cfg(test)]
mod tests {
    use proto::state::Strategy;

    use super::super::fixture::{fleet, place, release, seen};
    use super::*;
    use crate::clock::Time;

    #[test]
    fn each_place_is_seen_with_the_report_that_speaks_of_what_it_was_told() {
        let mut fleet = fleet(Strategy::StartFirst, 2, 3);
        let mut told = |node, slot, generation| {
            let assigned = Assigned {
                release: Some(release(1)),
                pre_commands_run: None,
                generation,
                since: Time(1),
                begun_at: 1,
                restart: None,
                hot: None,
            };
            fleet.assigned.insert(place(node, slot), assigned);
        };
        // With a gap, and a node between of which nothing is known.
        told(1, 1, 1);
        told(1, 3, 5);
        told(3, 2, 1);
        for (node, slot) in [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (3, 2), (3, 3)] {
            fleet.observed.insert(place(node, slot), seen(SlotState::Stable, Some(release(1)), 3));
        }
        let sights = Sights::of(&fleet);
        let standing = |node, slot| sights.at(place(node, slot)).map(|it| it.standing);
        assert_eq!(standing(1, 1), Some(Standing::Stable));
        assert_eq!(standing(1, 3), Some(Standing::Told), "what it says, it says of something else");
        assert_eq!(standing(3, 2), Some(Standing::Stable));
        for (node, slot) in [(1, 2), (1, 4), (2, 1), (3, 1), (3, 3)] {
            assert_eq!(standing(node, slot), None, "{node}/{slot}");
        }
        assert_eq!(
            sights.all().iter().map(|it| it.place).collect::<Vec<_>>(),
            [place(1, 1), place(1, 3), place(3, 2)]
        );
    }
}
