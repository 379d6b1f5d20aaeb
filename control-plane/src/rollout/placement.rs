//! How many slots each node is to hold. Pure: of nodes, what they hold and which of it is ready.
//!
//! With `replicas` that is the same number everywhere. A spread is dealt out evenly, and so that as little as possible moves:
//! what was decided is kept with the application, grows at once, and shrinks only as successors elsewhere become ready.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use proto::ids::{NodeId, Slot};
use proto::state::{Liveness, Service};
use sha2::{Digest as _, Sha256};

use super::fault::planted;
use super::place::Standing;
use crate::fleet::{AppFleet, Node};

/// What is decided of where replicas run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Placement {
    /// By node; a node that is to hold none is not there.
    pub(super) counts: BTreeMap<NodeId, u16>,
    /// Nodes that hold more than their share until successors elsewhere are ready.
    pub(super) held: Vec<NodeId>,
}

/// How many slots a node held when that was decided last; else the highest that is told to run something.
fn held(fleet: &AppFleet, node: NodeId, most: u16) -> u16 {
    fleet.placed.get(&node).map_or_else(|| holds(fleet, node, most), |count| most.min(*count))
}

/// The highest slot of a node that is told to run something, up to `most`.
fn holds(fleet: &AppFleet, node: NodeId, most: u16) -> u16 {
    let told = fleet.assigned.range(first(node)..).take_while(|(place, _)| place.node == node);
    let numbers = told.filter(|(_, it)| it.release.is_some()).map(|(place, _)| place.slot.number());
    numbers.filter(|number| *number <= most).max().unwrap_or(0)
}

fn first(node: NodeId) -> crate::fleet::Place {
    crate::fleet::Place { node, slot: Slot::MIN }
}

/// The same number of replicas on every node that may be given some.
pub(super) fn everywhere(fleet: &AppFleet, replicas: u16) -> Placement {
    let on = |id: NodeId, node: &Node| match node.service {
        Service::Open => replicas,
        // It is given none more.
        Service::Cordoned if planted!(FillCordoned) => replicas,
        Service::Cordoned => held(fleet, id, replicas),
        Service::Draining => 0,
    };
    let eligible = fleet.nodes.iter().filter(|(_, node)| node.eligible);
    let counts = eligible.map(|(id, node)| (*id, on(*id, node))).filter(|(_, count)| *count > 0).collect();
    Placement { counts, held: Vec::new() }
}

/// `total` replicas over all nodes that may be given some. `may_be_missing`: of all of them. `going`: slots that are on their
/// way out. `standing`: of a slot.
pub(super) fn spread(
    fleet: &AppFleet,
    total: u16,
    may_be_missing: u64,
    going: usize,
    standing: impl Fn(NodeId, u16) -> Standing,
) -> Placement {
    let holds = |id: &NodeId| held(fleet, *id, Slot::MAX - 1);
    let mut nodes: Vec<(&NodeId, &Node)> =
        fleet.nodes.iter().filter(|(id, node)| node.eligible || holds(id) > 0).collect();
    nodes.sort_by_key(|(_, node)| &node.name);
    let usable = |node: &Node| node.liveness != Liveness::Lost && !node.is_to_be_emptied();
    let shares: Vec<Share> = nodes
        .iter()
        .filter(|(_, node)| usable(node))
        .map(|(id, node)| {
            let holds = holds(id);
            let most = if node.service == Service::Cordoned { holds } else { Slot::MAX - 1 };
            Share { node: **id, holds, most, gets: 0, rank: rank(fleet, node) }
        })
        .collect();
    let dealt: BTreeMap<NodeId, u16> = deal(shares, total).into_iter().map(|it| (it.node, it.gets)).collect();
    let short = dealt.values().map(|gets| usize::from(*gets)).sum::<usize>() < usize::from(total);

    let mut counts = BTreeMap::new();
    let mut over = Vec::new();
    let mut ready = 0;
    for (id, node) in &nodes {
        let now = holds(id);
        let lost = node.liveness == Liveness::Lost;
        // A lost node cannot be told; what it holds is looked at again when it returns.
        let share = if lost { now } else { dealt.get(*id).copied().unwrap_or(0) };
        if !lost {
            // A spare that stands where a slot is to be is one from now on.
            ready += (1..=now.max(share)).filter(|slot| standing(**id, *slot).is_ready()).count();
        }
        counts.insert(**id, now.max(share));
        if now > share {
            over.push((**id, share));
        }
    }
    let missing = usize::try_from(may_be_missing).unwrap_or(usize::MAX);
    let mut dispensable = if short {
        // Nobody else can take them all over: a drain goes on all the same, as slowly as one of `replicas` does.
        missing.max(1).saturating_sub(going)
    } else {
        ready.saturating_sub(usize::from(total).saturating_sub(missing))
    };
    let mut held = Vec::new();
    for (id, share) in over.into_iter().rev() {
        let mut count = counts.get(&id).copied().unwrap_or(share);
        while count > share {
            match standing(id, count) {
                Standing::Vacant | Standing::Unready => {}
                _ if planted!(MoveWithoutSuccessor) => {}
                // What becomes of it is not known yet; or it serves, and is needed.
                Standing::Told | Standing::Ready | Standing::Stable
                    if dispensable == 0 || standing(id, count) == Standing::Told =>
                {
                    held.push(id);
                    break;
                }
                Standing::Told | Standing::Ready | Standing::Stable => dispensable -= 1,
            }
            count -= 1;
        }
        counts.insert(id, count);
    }
    counts.retain(|_, count| *count > 0);
    Placement { counts, held }
}

struct Share {
    node: NodeId,
    holds: u16,
    most: u16,
    gets: u16,
    rank: u64,
}

/// Which node is the first of those that have equally many: another one for each application, or the first by name would hold
/// the only replica of every one.
fn rank(fleet: &AppFleet, node: &Node) -> u64 {
    let hash = Sha256::digest(format!("{} {}", fleet.app, node.name));
    hash.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Evenly: a replica more always goes to one of those that have fewest, among them first to one that holds it already.
fn deal(mut shares: Vec<Share>, total: u16) -> Vec<Share> {
    let gets = |share: &Share| if planted!(DealUnevenly) { 0 } else { share.gets };
    let key =
        |index: usize, share: &Share| Reverse((gets(share), share.holds <= share.gets, share.rank, index));
    let mut heap: BinaryHeap<_> = shares
        .iter()
        .enumerate()
        .filter(|(_, share)| share.most > 0)
        .map(|(index, share)| key(index, share))
        .collect();
    for _ in 0..total {
        let Some(Reverse((.., index))) = heap.pop() else { break };
        let Some(share) = shares.get_mut(index) else { break };
        share.gets += 1;
        if share.gets < share.most {
            heap.push(key(index, share));
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use proto::state::Strategy;

    use super::super::fixture::{fleet, node_id};
    use super::*;

    fn counts(placement: &Placement) -> Vec<(u128, u16)> {
        placement.counts.iter().map(|(id, count)| (id.0.as_u128(), *count)).collect()
    }

    fn spread_over(fleet: &AppFleet, total: u16, unready: &[(u8, u16)]) -> Placement {
        spread(fleet, total, 0, 0, |node, slot| {
            let ready = unready.iter().all(|(number, it)| (node_id(*number), *it) != (node, slot));
            if ready { Standing::Stable } else { Standing::Unready }
        })
    }

    #[test]
    fn a_spread_is_even_and_each_application_has_another_first_node() {
        let mut fleet = fleet(Strategy::StartFirst, 1, 3);
        let mut five: Vec<u16> = spread_over(&fleet, 5, &[]).counts.into_values().collect();
        five.sort_unstable();
        assert_eq!(five, [1, 2, 2]);
        assert_eq!(spread_over(&fleet, 2, &[]).counts.len(), 2);
        // One replica of each of thirty applications is on all of the nodes, and where it is does not change.
        let mut holds = BTreeMap::new();
        for number in 0..30 {
            fleet.app = format!("shop-{number}").parse().unwrap();
            let placed = spread_over(&fleet, 1, &[]).counts;
            assert_eq!(placed, spread_over(&fleet, 1, &[]).counts);
            *holds.entry(*placed.keys().next().unwrap()).or_insert(0) += 1;
        }
        assert!(holds.len() == 3 && holds.values().all(|it| *it >= 4), "{holds:?}");
    }

    #[test]
    fn a_new_node_gets_its_share_and_nothing_else_moves_and_not_before_it_is_ready() {
        let mut fleet = fleet(Strategy::StartFirst, 1, 3);
        fleet.placed = [(node_id(1), 3), (node_id(2), 3)].into();
        let first = spread_over(&fleet, 6, &[(3, 1), (3, 2)]);
        assert_eq!(counts(&first), [(1, 3), (2, 3), (3, 2)]);
        assert_eq!(first.held, [node_id(2), node_id(1)]);
        fleet.placed = first.counts;
        let second = spread_over(&fleet, 6, &[(3, 2)]);
        assert_eq!(counts(&second), [(1, 3), (2, 2), (3, 2)]);
        fleet.placed = second.counts;
        assert_eq!(counts(&spread_over(&fleet, 6, &[])), [(1, 2), (2, 2), (3, 2)]);
    }

    #[test]
    fn what_a_lost_node_held_is_taken_over_and_given_back_when_it_returns() {
        let mut fleet = fleet(Strategy::StartFirst, 1, 2);
        fleet.placed = [(node_id(1), 2), (node_id(2), 2)].into();
        fleet.nodes.get_mut(&node_id(2)).unwrap().liveness = Liveness::Lost;
        let without = spread_over(&fleet, 4, &[]);
        assert_eq!(counts(&without), [(1, 4), (2, 2)]);
        fleet.placed = without.counts;
        fleet.nodes.get_mut(&node_id(2)).unwrap().liveness = Liveness::Up;
        assert_eq!(counts(&spread_over(&fleet, 4, &[])), [(1, 2), (2, 2)]);
        // Nothing of it is ready: the others go on.
        assert_eq!(counts(&spread_over(&fleet, 4, &[(2, 1), (2, 2)])), [(1, 4), (2, 2)]);
    }

    #[test]
    fn a_node_that_drains_is_emptied_as_others_take_over_and_a_cordoned_one_is_given_none() {
        let mut fleet = fleet(Strategy::StartFirst, 1, 3);
        fleet.placed = [(node_id(1), 2), (node_id(2), 2)].into();
        fleet.nodes.get_mut(&node_id(1)).unwrap().service = Service::Draining;
        fleet.nodes.get_mut(&node_id(2)).unwrap().service = Service::Cordoned;
        let first = spread_over(&fleet, 4, &[(3, 1), (3, 2)]);
        assert_eq!(counts(&first), [(1, 2), (2, 2), (3, 2)]);
        fleet.placed = first.counts;
        assert_eq!(counts(&spread_over(&fleet, 4, &[])), [(2, 2), (3, 2)]);
    }

    #[test]
    fn fewer_replicas_are_fewer_at_once_and_without_any_node_all_stays() {
        let mut fleet = fleet(Strategy::StartFirst, 1, 2);
        fleet.placed = [(node_id(1), 3), (node_id(2), 3)].into();
        assert_eq!(counts(&spread_over(&fleet, 2, &[])), [(1, 1), (2, 1)]);
        for node in fleet.nodes.values_mut() {
            node.liveness = Liveness::Lost;
        }
        assert_eq!(counts(&spread_over(&fleet, 6, &[])), [(1, 3), (2, 3)]);
    }

    #[test]
    fn for_every_number_of_nodes_and_replicas_a_spread_is_even_and_moves_no_more_than_it_must() {
        for nodes in 1..=6_u8 {
            for total in 1..=12_u16 {
                let before = spread_over(&fleet(Strategy::StartFirst, 1, nodes), total, &[]).counts;
                let mut more = fleet(Strategy::StartFirst, 1, nodes + 1);
                more.placed.clone_from(&before);
                // What is new becomes ready before anything old goes.
                more.placed = spread_over(&more, total, &[]).counts;
                let after = spread_over(&more, total, &[]).counts;
                let all: Vec<u16> = more.nodes.keys().map(|id| after.get(id).copied().unwrap_or(0)).collect();
                assert_eq!(all.iter().sum::<u16>(), total);
                let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
                assert!(most - least <= 1, "{all:?}");
                let newcomer = after.get(&node_id(nodes + 1)).copied().unwrap_or(0);
                let gone: u16 = before.iter().map(|(id, it)| it - it.min(after.get(id).unwrap_or(&0))).sum();
                assert_eq!(gone, newcomer, "only what the new node gets leaves another");
            }
        }
    }
}
