//! How many replicas may be missing because of what we do, and how many are.
//!
//! Of what crashes by itself nothing is said here: it holds nobody up, and is replaced at any time.

use std::collections::BTreeMap;

use proto::ids::NodeId;
use proto::state::Liveness;

use super::draft::{Draft, Host, look};
use super::fault::planted;
use super::hot::standing_as_it_was;
use crate::fleet::Place;

/// Replicas that are missing because of what we do.
pub(super) struct Missing {
    /// By host, those without any left out.
    on: BTreeMap<NodeId, u64>,
    /// Their sum: a look at thousands of hosts asks for it for each of them.
    all: u64,
    /// On their way out, on nodes that are emptied.
    going: u64,
}

impl Draft<'_> {
    /// How many replicas of a node may be missing because of what we do, as things stand elsewhere.
    pub(super) fn room_on(&self, node: NodeId) -> u64 {
        let beside = if planted!(ForgetTheOthers) { 0 } else { self.missing_beside(node) };
        let going = self.missing.borrow().as_ref().map_or(0, |missing| missing.going);
        self.may_be_missing().saturating_sub(beside).saturating_sub(going)
    }

    /// Replicas of all other nodes that are missing because of what we do.
    pub(super) fn missing_beside(&self, node: NodeId) -> u64 {
        // Where nothing is in force, nothing serves that could be missed.
        if self.in_force.is_none() {
            return 0;
        }
        let mut counted = self.missing.borrow_mut();
        let missing = counted.get_or_insert_with(|| {
            let seen = self.hosts().iter().filter(|host| !host.is(Liveness::Lost));
            let on = seen.map(|host| (host.id, self.missing_on(*host))).filter(|(_, missing)| *missing > 0);
            let on: BTreeMap<NodeId, u64> = on.collect();
            Missing { all: on.values().sum(), on, going: self.going() }
        });
        missing.all - missing.on.get(&node).copied().unwrap_or(0)
    }

    /// Replicas of the application that may be missing at a time because of what we do.
    pub(super) fn may_be_missing(&self) -> u64 {
        self.fleet.spec.as_ref().map_or(0, |spec| spec.deploy.may_be_missing(self.replicas_in_all))
    }

    /// A place of this node was told something.
    pub(super) fn count_node_anew(&mut self, node: NodeId) {
        if self.missing.get_mut().is_none() {
            return;
        }
        // It is one that is being emptied.
        let Some(host) = self.host(node) else { return self.count_anew() };
        let now = self.missing_on(host);
        if let Some(missing) = self.missing.get_mut() {
            let before = if now == 0 { missing.on.remove(&node) } else { missing.on.insert(node, now) };
            missing.all = missing.all - before.unwrap_or(0) + now;
        }
    }

    pub(super) fn count_anew(&mut self) {
        *self.missing.get_mut() = None;
    }

    /// Of one host: those that are not ready since we told them something.
    pub(super) fn missing_on(&self, host: Host<'_>) -> u64 {
        if self.failed.contains(&host.id) {
            return 0;
        }
        let replicas = self.replicas_on(host.id);
        let (mut ready, mut ours) = (0, 0);
        for (slot, told, sight) in self.looks(host.id, self.highest_on(host.id)) {
            let as_it_was = standing_as_it_was(told, sight);
            if as_it_was.unwrap_or(look(told, sight).1).is_ready() {
                ready += 1;
            } else if slot.number() <= replicas && self.is_our_doing(host, host.place(slot)) {
                ours += 1;
            }
        }
        u64::from(replicas).saturating_sub(ready).min(ours)
    }

    /// A slot that is not ready: whether it was told something of late, or anything but what is in force.
    fn is_our_doing(&self, host: Host<'_>, place: Place) -> bool {
        let Some(release) = self.release_at(place) else {
            // It was given up elsewhere for this one, which is told as soon as its node is no longer suspect, or taken over when
            // that is lost. A vacant slot of a node that is up waits for its turn, and that must not wait for it.
            return planted!(MissTheVacant) || host.is(Liveness::Suspect);
        };
        if self.report(place).is_none() || self.was_restarted_of_late(place) {
            return true;
        }
        let patience = self.fleet.spec.as_ref().map_or(0, |spec| spec.rollback_timeout.0);
        let told = self.assigned(place);
        self.in_force.as_ref() != Some(release) || told.is_some_and(|it| self.now.since(it.since) < patience)
    }
}
