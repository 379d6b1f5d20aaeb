//! What goes wrong, and when people want something meanwhile.

use node_agent::replica::Process;
use proto::state::{ExitCause, Service};

use control_plane::rollout::Steering;

use crate::laws::Checked;
use crate::network::Due;
use crate::releases::is_good;
use crate::seen::Deed;
use crate::world::World;

impl World {
    pub(crate) fn mischief(&mut self) -> Checked {
        if !self.hostile {
            return Ok(());
        }
        self.later(200, 3_400, Due::Mischief);
        let host = usize::try_from(self.dice.below(self.hosts.len() as u64)).unwrap();
        match self.dice.below(52) {
            0..=3 => self.wish_for_any(),
            4..=7 => return self.part(host),
            8..=10 => return self.agent_dies_now(host),
            11..=14 => return self.crash(host),
            15..=16 => return self.control_plane_goes(),
            17 => self.change_settings(),
            18 => self.clear_ghosts(),
            19..=20 => self.pause_or_resume(),
            21 => self.ask_for_a_restart(),
            22..=24 => {
                self.steer(Steering::Promote { batch: None });
            }
            25 => {
                self.steer(Steering::Abort);
            }
            26..=28 => self.change_service(host),
            29 if self.dice.one_in(2) => return self.remove(host),
            29 => self.join(),
            30 => self.changes_its_mind(host),
            _ => return Ok(()),
        }
        self.plans_within(200);
        Ok(())
    }

    /// A host is cut off: for a moment, or for longer than a release has to become stable.
    fn part(&mut self, host: usize) -> Checked {
        if self.hosts[host].cut_off_until > self.now {
            return Ok(());
        }
        self.seen.saw(Deed::CutOff);
        let lasts = if self.dice.one_in(2) { 3_000 } else { 45_000 };
        let until = self.now + 200 + self.dice.below(lasts);
        self.hosts[host].cut_off_until = until;
        self.cut(host)?;
        self.at(until, Due::Connects { host });
        Ok(())
    }

    fn agent_dies_now(&mut self, host: usize) -> Checked {
        if self.hosts[host].agent.is_none() {
            return Ok(());
        }
        self.agent_dies(host)
    }

    fn crash(&mut self, host: usize) -> Checked {
        let slots: Vec<u16> = self.hosts[host].slots.keys().copied().collect();
        let Some(slot) = self.dice.pick(&slots).copied() else { return Ok(()) };
        let gentle = self.gentle;
        let it = self.slot(host, slot);
        // The keeper's word that a process runs comes before any other of it.
        let known = !matches!(it.replica.process, Process::Launching { .. });
        let alive = it.alive.as_ref().filter(|_| known);
        let Some(pid) = alive.filter(|it| !gentle || !is_good(&it.release)).map(|it| it.pid) else {
            return Ok(());
        };
        self.note(|_| format!("process {pid} on host {host} is killed"));
        self.process_ends(host, slot, pid, ExitCause::Signal(9))
    }

    /// Releases with an even number never become ready on it, or do again: something else than a release may be to blame.
    fn changes_its_mind(&mut self, host: usize) {
        if self.gentle {
            return;
        }
        if self.hosts[host].poor {
            self.recovers(host);
        } else {
            self.hosts[host].poor = true;
        }
        self.note(|world| format!("host {host} is poor: {}", world.hosts[host].poor));
    }

    /// It forgets what it saw, its clock may be set meanwhile, and agents come back to it one by one.
    fn control_plane_goes(&mut self) -> Checked {
        if !self.is_up {
            return Ok(());
        }
        self.note(|_| "the control plane goes".to_owned());
        self.seen.saw(Deed::Outage);
        self.is_up = false;
        for host in 0..self.hosts.len() {
            self.cut(host)?;
        }
        let lasts = if self.dice.one_in(2) { 2_000 } else { 45_000 };
        self.later(100, lasts, Due::ControlPlaneBegins);
        Ok(())
    }

    pub(crate) fn control_plane_begins(&mut self) {
        if std::mem::replace(&mut self.is_up, true) {
            return;
        }
        self.ahead = match self.dice.below(4) {
            0 => self.ahead + 3_600_000,
            1 => self.ahead.saturating_sub(600_000),
            _ => self.ahead,
        };
        self.note(|world| format!("the control plane is back, its clock at {}", world.clock().0));
        self.fleet.observed.clear();
        self.stored.clear();
        for host in 0..self.hosts.len() {
            self.later(50, 2_000, Due::Connects { host });
        }
        self.plans_within(300);
    }

    /// Everybody comes back, and nothing more is wanted. Who cares for the fleet opens a host where none is, lets a rollout go on
    /// that is paused, and promotes what waits for it, now and later; in some fleets nobody does.
    pub(crate) fn calm(&mut self) -> Checked {
        self.note(|_| "all is quiet".to_owned());
        self.hostile = false;
        if !self.is_left_alone {
            self.steer(Steering::Resume);
            let open = self.fleet.nodes.values().any(|node| node.service == Service::Open);
            if let (false, Some(id)) = (open, self.fleet.nodes.keys().next().copied()) {
                let host = self.hosts.iter().position(|host| host.id == id).unwrap();
                self.set_service(host, Service::Open);
            }
        }
        self.control_plane_begins();
        for host in 0..self.hosts.len() {
            self.recovers(host);
            if self.is_removed(host) {
                continue;
            }
            self.hosts[host].cut_off_until = 0;
            // An agent that holds nothing says which assignment it has stored with its heartbeats, of which there are none here,
            // and when it connects.
            if self.hosts[host].slots.is_empty() {
                self.cut(host)?;
            }
            self.later(1, 1_000, Due::AgentBegins { host });
            self.later(2_000, 1_000, Due::Connects { host });
        }
        self.plans_within(300);
        Ok(())
    }

    /// What could not become ready because of its host now does.
    fn recovers(&mut self, host: usize) {
        if !std::mem::take(&mut self.hosts[host].poor) {
            return;
        }
        let at = self.now + 500;
        for slot in self.hosts[host].slots.keys().copied().collect::<Vec<_>>() {
            let alive = self.slot(host, slot).alive.as_mut();
            let Some(alive) = alive.filter(|it| it.ready_at.is_none() && is_good(&it.release)) else {
                continue;
            };
            alive.ready_at = Some(at);
            let pid = alive.pid;
            self.at(at, Due::ProcessReady { host, slot, pid });
        }
    }
}
