//! Emptying a node: what it holds is withdrawn, no more at a time than may be missing.
//!
//! Of a spread this is `placement`'s to decide: there others take over first.

use proto::ids::Slot;
use proto::state::{Liveness, SlotState};

use super::Waiting;
use super::draft::{Draft, Host};
use super::fault::planted;
use crate::fleet::{Node, Place};

impl Draft<'_> {
    pub(super) fn is_spread(&self) -> bool {
        self.fleet.spec.as_ref().is_some_and(|spec| spec.spread.is_some())
    }

    /// Withdraws the next slots of nodes that drain, the highest first.
    pub(super) fn drain(&mut self) {
        let fleet = self.fleet;
        let draining = Node::is_to_be_emptied;
        // What is no longer configured is withdrawn wherever it is.
        if fleet.spec.is_none() || self.is_spread() || !fleet.nodes.values().any(draining) {
            return;
        }
        let mut hosts: Vec<Host<'_>> = fleet
            .nodes
            .iter()
            .filter(|(_, node)| draining(node))
            .map(|(id, node)| Host { id: *id, node })
            .collect();
        hosts.sort_by_key(|host| &host.node.name);
        let mut room = self.room_on_nodes_that_drain(&hosts);
        for host in hosts {
            let held = fleet.assigned.range(host.place(Slot::MIN)..).take_while(|(it, _)| it.node == host.id);
            let mut left: Vec<Place> =
                held.map(|(place, _)| *place).filter(|place| self.release_at(*place).is_some()).collect();
            left.reverse();
            match host.node.liveness {
                Liveness::Up => {}
                _ if left.is_empty() => continue,
                Liveness::Suspect => {
                    self.wait(Waiting::NodeSuspect { node: host.node.name.clone() });
                    continue;
                }
                Liveness::Lost => {
                    self.wait(Waiting::NodeLost { node: host.node.name.clone() });
                    continue;
                }
            }
            let leader = self.leading();
            for place in left {
                let ready = self.standing(place).is_ready();
                if Some(place) == leader || (ready && room == 0 && !planted!(DrainAtOnce)) {
                    self.wait(Waiting::ToDrain { node: host.node.name.clone(), slot: place.slot });
                    break;
                }
                room -= u64::from(ready && room > 0);
                self.withdraw(place);
            }
        }
    }

    /// Replicas on their way out, on nodes that are emptied: each is missing by our doing until it is gone, and nobody's
    /// afterwards. A spread leaves a node only once others have taken over.
    pub(super) fn going(&self) -> u64 {
        let fleet = self.fleet;
        let emptied = |node: &Node| node.is_to_be_emptied() && node.liveness == Liveness::Up;
        if fleet.spec.is_none() || self.is_spread() || !fleet.nodes.values().any(emptied) {
            return 0;
        }
        let goes = |place: &&Place| {
            fleet.nodes.get(&place.node).is_some_and(emptied)
                && self.release_at(**place).is_none()
                && !self.forgets(**place)
                && fleet.observed.get(place).is_none_or(|it| it.state != SlotState::Empty)
        };
        u64::try_from(fleet.assigned.keys().filter(goes).count()).unwrap_or(u64::MAX)
    }

    /// Replicas that may be taken away now.
    fn room_on_nodes_that_drain(&self, hosts: &[Host<'_>]) -> u64 {
        // None of these nodes is among those that count as hosts.
        let elsewhere = hosts.first().map_or(0, |host| self.missing_beside(host.id));
        self.may_be_missing().max(1).saturating_sub(elsewhere).saturating_sub(self.going())
    }
}
