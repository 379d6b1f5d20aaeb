//! What every place was told, what was heard of it since, and how it stands to that, as the fleet was loaded: found out once.
//!
//! The planner asks for it many times over for each of what may be fifty thousand places. One walk through what is assigned
//! and what was reported, both in the order of places, spares it as many searches.

use std::collections::HashMap;
use std::ops::Range;

use proto::ids::NodeId;
use proto::state::SlotState;

use super::fault::planted;
use super::place::Standing;
use crate::fleet::{AppFleet, Assigned, Observed, Place};

/// Of one place that was told something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight<'a> {
    pub(super) place: Place,
    pub(super) assigned: &'a Assigned,
    /// Of what it was told last, not of anything before.
    pub(super) report: Option<&'a Observed>,
    pub(super) standing: Standing,
}

pub(super) struct Sights<'a> {
    /// In the order of places.
    all: Vec<Sight<'a>>,
    /// Where those of a node are in it.
    nodes: HashMap<NodeId, Range<usize>>,
}

impl<'a> Sights<'a> {
    pub(super) fn of(fleet: &'a AppFleet) -> Self {
        let mut all: Vec<Sight<'a>> = Vec::with_capacity(fleet.assigned.len());
        let mut nodes: HashMap<NodeId, Range<usize>> = HashMap::new();
        let mut reports = fleet.observed.iter().peekable();
        let mut begin = 0;
        for (place, assigned) in &fleet.assigned {
            while reports.next_if(|(it, _)| *it < place).is_some() {}
            let seen = reports.next_if(|(it, _)| *it == place).map(|(_, seen)| seen);
            let counts =
                |seen: &&Observed| seen.generation >= assigned.generation || planted!(BelieveOldReports);
            let report = seen.filter(counts);
            if all.last().is_some_and(|last| last.place.node != place.node) {
                begin = all.len();
            }
            all.push(Sight { place: *place, assigned, report, standing: standing(assigned, report) });
            nodes.insert(place.node, begin..all.len());
        }
        Self { all, nodes }
    }

    /// Of each place that was told something, in order.
    pub(super) fn all(&self) -> &[Sight<'a>] {
        &self.all
    }

    /// `None`: it was never told anything.
    pub(super) fn at(&self, place: Place) -> Option<&Sight<'a>> {
        let of_node = self.all.get(self.nodes.get(&place.node)?.clone())?;
        // Slots are mostly numbered without a gap.
        let guess = usize::from(place.slot.number()) - 1;
        match of_node.get(guess) {
            Some(sight) if sight.place == place => Some(sight),
            _ => of_node
                .binary_search_by_key(&place.slot, |it| it.place.slot)
                .ok()
                .and_then(|at| of_node.get(at)),
        }
    }
}

fn standing(assigned: &Assigned, report: Option<&Observed>) -> Standing {
    let Some(release) = &assigned.release else { return Standing::Vacant };
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
