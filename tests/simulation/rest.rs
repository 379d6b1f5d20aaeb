//! How a fleet is once all is quiet: what is in force runs in every slot and nowhere else, what drains is empty, a spread is
//! even and in full. A rollout is over, unless it waits for somebody who does not come, and says so.

use std::collections::BTreeMap;

use control_plane::rollout::Waiting;
use control_plane::spec::{AppSpec, HotUpgradePolicy};
use proto::ids::{NodeId, ReleaseKey};
use proto::state::Service;

use crate::control_plane::place;
use crate::laws;
use crate::releases::{is_good, leads};
use crate::world::World;

impl World {
    pub(crate) fn is_removed(&self, host: usize) -> bool {
        !self.fleet.nodes.contains_key(&self.hosts[host].id)
    }

    /// What is not yet as it should be.
    pub(crate) fn unfinished(&self) -> Option<String> {
        let fleet = &self.fleet;
        if (0..self.hosts.len()).any(|host| !self.is_removed(host) && self.hosts[host].session.is_none()) {
            return Some("a host is away".to_owned());
        }
        if let Some(rollout) = &fleet.rollout {
            let is = || format!("a rollout of {} is {}", rollout.release.version, rollout.phase);
            return if self.is_left_waiting() { self.untrue() } else { Some(is()) };
        }
        let in_force = fleet.in_force.as_ref();
        // The first that ran anywhere, with nothing to go back to, may crash for ever.
        if !fleet.restarts.is_empty() && in_force.is_none_or(is_good) {
            return Some("a restart is not over".to_owned());
        }
        let wish = fleet.wanted.as_ref().map(|it| &it.release);
        let wish = wish.filter(|it| !fleet.ghosted.contains(it) && Some(*it) != in_force);
        let over = [&fleet.last, &fleet.tried];
        // Nothing but an upgrade is allowed, and there is none to it.
        let required = |it: &AppSpec| it.deploy.hot_upgrade == HotUpgradePolicy::Require;
        let requires = fleet.spec.as_ref().is_some_and(required);
        let wish = wish.filter(|it| !requires || in_force.is_none_or(|from| leads(from, it)));
        let tried = |it: &&ReleaseKey| over.into_iter().flatten().any(|over| over.release == **it);
        if let Some(open) = wish.filter(|it| !tried(it)) {
            return Some(format!("{} is wished and not in force", open.version));
        }
        let counts = laws::counts(fleet, &fleet.placed);
        self.uneven(&counts).or_else(|| {
            self.other_than(|node, slot| {
                let wanted = counts.get(&node).is_some_and(|count| slot <= *count);
                in_force.filter(|_| wanted)
            })
        })
    }

    /// A rollout that may wait for ever: nobody lets it go on, or there is no host for it.
    pub(crate) fn is_left_waiting(&self) -> bool {
        let moves = self.fleet.rollout.as_ref().is_some_and(|it| it.phase.moves());
        let kept_away = self.fleet.nodes.values().all(|node| node.service != Service::Open);
        let for_somebody = |it: &Waiting| match it {
            Waiting::Promotion { .. } | Waiting::Paused { .. } => true,
            Waiting::NoNode { .. } => kept_away,
            _ => false,
        };
        self.is_left_alone && moves && self.waiting.iter().any(for_somebody)
    }

    /// Each slot runs what it was told, save where the release failed, which is tolerated. Where nothing is in force there is
    /// nothing to go back to from a release that gave way, nor to give to those that take over from a node that drains.
    fn untrue(&self) -> Option<String> {
        self.fleet.in_force.as_ref()?;
        let empties = self.fleet.assigned.iter().find(|(_, it)| it.release.is_none());
        let drains =
            |node: &NodeId| self.fleet.nodes.get(node).is_some_and(|it| it.service == Service::Draining);
        let held = self.fleet.assigned.keys().find(|place| drains(&place.node));
        if let Some(place) = empties.map(|(place, _)| place).or(held) {
            return Some(format!("{place} is not empty"));
        }
        self.other_than(|node, slot| self.fleet.assigned.get(&place(node, slot))?.release.as_ref())
    }

    /// The first slot in which something else runs, or what runs is not ready. What is bad may be down, and never ready.
    fn other_than<'a>(&'a self, wanted: impl Fn(NodeId, u16) -> Option<&'a ReleaseKey>) -> Option<String> {
        let failed =
            |id: &NodeId| self.fleet.rollout.as_ref().is_some_and(|it| it.progress.failed.contains_key(id));
        for (number, host) in self.hosts.iter().enumerate() {
            if self.is_removed(number) || failed(&host.id) {
                continue;
            }
            let told = self.fleet.assigned.keys().filter(|it| it.node == host.id);
            let told = told.map(|it| it.slot.number()).max().unwrap_or(0);
            let count = self.fleet.spec.as_ref().map_or(0, |spec| spec.replicas.get());
            let placed = self.fleet.placed.get(&host.id).copied().unwrap_or(0);
            let known = host.slots.keys().copied().max().unwrap_or(0);
            for slot in 1..=told.max(known).max(count).max(placed) {
                let alive = host.slots.get(&slot).and_then(|it| it.alive.as_ref());
                let wanted = wanted(host.id, slot);
                let may_fail =
                    wanted.is_some_and(|it| !is_good(it) && Some(it) == self.fleet.in_force.as_ref());
                if may_fail && alive.is_none_or(|it| self.serves_on(host.id, slot, &it.release)) {
                    continue;
                }
                if alive.map(|it| &it.release) != wanted || alive.is_some_and(|it| !it.is_ready(self.now)) {
                    return Some(format!("slot {slot} on host {number}: {alive:?}, wanted {wanted:?}"));
                }
            }
        }
        None
    }

    /// Where what is in force fails, what served before is left alone.
    fn serves_on(&self, node: NodeId, slot: u16, release: &ReleaseKey) -> bool {
        self.fleet.assigned.get(&place(node, slot)).is_some_and(|it| it.release.as_ref() == Some(release))
    }

    /// Of a spread: no node holds two more than one that is open, one that drains holds none, and all of them together hold what
    /// there is to be, where there is a node to be given it.
    fn uneven(&self, counts: &BTreeMap<NodeId, u16>) -> Option<String> {
        let total = self.fleet.spec.as_ref()?.spread?.get();
        let of = |service: Service| {
            let nodes = self.fleet.nodes.iter().filter(move |(_, node)| node.service == service);
            nodes.map(|(id, _)| counts.get(id).copied().unwrap_or(0)).collect::<Vec<u16>>()
        };
        let (open, cordoned, draining) = (of(Service::Open), of(Service::Cordoned), of(Service::Draining));
        let all: u16 = open.iter().chain(&cordoned).sum();
        let Some(least) = open.iter().min() else {
            return (all > total).then(|| format!("{all} of {total}"));
        };
        let even = open.iter().chain(&cordoned).all(|count| *count <= least + 1);
        let right = even && all == total && draining.iter().all(|count| *count == 0);
        (!right).then(|| format!("{open:?}, {cordoned:?} and {draining:?} of {total}"))
    }
}
