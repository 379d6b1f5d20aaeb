//! Laws of what an agent ends: for a reason, once what follows it is there, and no more at a time than may be down.

use std::collections::BTreeMap;

use node_agent::replica::{Restart, Stage, Ticket};
use proto::ids::NodeId;
use proto::state::{Liveness, Strategy};

use super::{Checked, ONE_DOWN, RESTARTS_ONCE, SERVES_ON, UNASKED, allowed_down, broken, counts};
use crate::agent::STABLE_AFTER;
use crate::control_plane::place;
use crate::seen::Deed;
use crate::world::World;

impl World {
    /// The agent is about to end what runs.
    pub(crate) fn may_stop(&mut self, host: usize, slot: u16, ticket: Ticket) -> Checked {
        let now = self.now;
        let it = self.slot(host, slot);
        let Some(alive) = it.alive.clone().filter(|it| it.ticket == ticket) else { return Ok(()) };
        let wanted = it.replica.wanted().map(|it| it.release.clone());
        // Nobody knows what it is.
        let half_upgraded = it.replica.condemned.as_ref().is_some_and(|(of, _)| *of == ticket);
        let asked = wanted.as_ref() != Some(&alive.release) || it.replica.restart_is_due() || half_upgraded;
        // A machine that was just begun has not heard of it for as long.
        let stable = alive.ready_at.is_some_and(|ready| now >= ready + STABLE_AFTER + 1_000);
        if stable && !asked && !alive.told {
            return broken(UNASKED, format!("{alive:?} on host {host}: {:?}", it.replica));
        }
        let target = it.replica.target().map(|it| it.release);
        let staged = target.clone().is_some_and(|release| it.replica.stage == Stage::Staged { release });
        let stale = it.replica.current.as_ref().is_some_and(|it| ticket < it.since);
        let restarts = it.replica.restart_is_due();
        if !alive.told && target.is_some() && !staged && !stale && !restarts && !half_upgraded {
            return broken(SERVES_ON, format!("{alive:?} on host {host}: {:?}", it.replica));
        }
        let by_itself = it.replica.fell_back().is_some();
        if let (Restart::Due { request }, false) = (&it.replica.restart, alive.told) {
            let once = (host, slot, request.clone());
            if !self.restarted.insert(once) {
                return broken(RESTARTS_ONCE, format!("{alive:?} on host {host}"));
            }
        }
        if wanted.is_none() {
            self.slot(host, slot).taken_down = false;
            return Ok(());
        }
        let believed = self.believed_ready.remove(&place(self.hosts[host].id, slot));
        if !believed || by_itself || half_upgraded || !alive.is_ready(now) {
            return Ok(());
        }
        self.takes_down(host, slot)
    }

    /// What serves is about to be replaced, on the planner's word, which knew that it serves.
    fn takes_down(&mut self, host: usize, slot: u16) -> Checked {
        let counts = counts(&self.fleet, &self.fleet.placed);
        let id = self.hosts[host].id;
        if counts.get(&id).is_none_or(|count| slot > *count) {
            return Ok(());
        }
        self.slot(host, slot).taken_down = true;
        let down = self.down(&counts);
        let (all, allowed) = (down.values().sum::<u64>(), allowed_down(&self.fleet, &counts));
        // A configuration that has changed since allowed it.
        let allowed = allowed.max(u64::from(!self.has_spares()));
        if all > allowed {
            let detail = format!("slot {slot} on host {host}: {down:?} are down, {allowed} may be");
            return broken(ONE_DOWN, detail);
        }
        if all > 1 {
            self.seen.saw(Deed::SeveralDown);
        }
        Ok(())
    }

    /// By node: how many are down by our own doing, less the one that a spare covers for. What is lost, or has failed, is not
    /// waited for.
    fn down(&self, counts: &BTreeMap<NodeId, u16>) -> BTreeMap<NodeId, u64> {
        let failed =
            |id: &NodeId| self.fleet.rollout.as_ref().is_some_and(|it| it.progress.failed.contains_key(id));
        let waited_for = self.hosts.iter().filter(|host| {
            let node = self.fleet.nodes.get(&host.id);
            node.is_some_and(|it| it.liveness != Liveness::Lost) && !failed(&host.id)
        });
        let covered = u64::from(self.has_spares());
        let down = waited_for.map(|host| {
            let count = counts.get(&host.id).copied().unwrap_or(0);
            let down = host.slots.iter().filter(|(slot, it)| **slot <= count && it.taken_down).count() as u64;
            (host.id, down.saturating_sub(covered))
        });
        down.filter(|(_, down)| *down > 0).collect()
    }

    fn has_spares(&self) -> bool {
        self.fleet.spec.as_ref().is_some_and(|spec| spec.deploy.strategy == Strategy::StartFirst)
    }

    /// What was told before was told under other rules.
    pub(crate) fn measure_anew(&mut self) {
        self.believed_ready.clear();
        for host in 0..self.hosts.len() {
            self.forgive(host);
        }
    }

    /// What is down on a host is nobody's doing any more.
    pub(crate) fn forgive(&mut self, host: usize) {
        for slot in self.hosts[host].slots.values_mut() {
            slot.taken_down = false;
        }
    }
}
