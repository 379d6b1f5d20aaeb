//! What goes wrong, and what people want meanwhile.

use std::num::NonZeroU16;

use control_plane::clock::Time;
use control_plane::fleet::{RestartWish, Wish, WishedBy};
use control_plane::rollout::Said;
use node_agent::replica::Process;
use proto::ids::RestartId;
use proto::state::{ExitCause, RolloutPhase, Strategy};

use crate::laws::Checked;
use crate::network::Due;
use crate::releases::{RELEASES, has_pre_commands, is_good, release};
use crate::world::World;

impl World {
    pub(crate) fn mischief(&mut self) -> Checked {
        if !self.hostile {
            return Ok(());
        }
        self.later(200, 4_000, Due::Mischief);
        let host = usize::try_from(self.dice.below(self.hosts.len() as u64)).unwrap();
        match self.dice.below(40) {
            0..=2 => {
                let number = 1 + u8::try_from(self.dice.below(u64::from(RELEASES))).unwrap();
                self.wish_for(number);
            }
            3..=6 => return self.part(host),
            7..=9 => return self.agent_dies_now(host),
            10..=13 => return self.crash(host),
            14..=15 => return self.control_plane_goes(),
            16 => self.scale(),
            17 => {
                self.note(|_| "ghosts are cleared".to_owned());
                self.fleet.ghosted.clear();
                self.fleet.generation += 1;
            }
            18..=19 => self.pause_or_resume(),
            20 => self.ask_for_a_restart(),
            _ => return Ok(()),
        }
        self.plans_within(200);
        Ok(())
    }

    pub(crate) fn wish_for(&mut self, number: u8) {
        self.wishes += 1;
        let release = release(number);
        let pre_commands = has_pre_commands(&release);
        self.note(|_| format!("{} is wished", release.version));
        self.fleet.wanted = Some(Wish { release, pre_commands, by: WishedBy::Bucket, at: Time(self.wishes) });
        self.fleet.generation += 1;
        self.plans_within(200);
    }

    /// A host is cut off: for a moment, or for longer than a release has to become stable.
    fn part(&mut self, host: usize) -> Checked {
        if self.hosts[host].cut_off_until > self.now {
            return Ok(());
        }
        self.seen.cuts += 1;
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

    /// It forgets what it saw, its clock may be set meanwhile, and agents come back to it one by one.
    fn control_plane_goes(&mut self) -> Checked {
        if !self.is_up {
            return Ok(());
        }
        self.note(|_| "the control plane goes".to_owned());
        self.seen.outages += 1;
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

    fn scale(&mut self) {
        let replicas = NonZeroU16::new(1 + u16::try_from(self.dice.below(4)).unwrap());
        let strategy = if self.dice.one_in(2) { Strategy::StartFirst } else { Strategy::StopFirst };
        if let (Some(spec), Some(replicas)) = (&mut self.fleet.spec, replicas) {
            spec.replicas = replicas;
            spec.deploy.strategy = strategy;
        }
        self.fleet.generation += 1;
        self.note(|_| format!("{replicas:?} replicas, {strategy:?}"));
    }

    fn pause_or_resume(&mut self) {
        let at = self.clock();
        let Some(rollout) = &mut self.fleet.rollout else { return };
        if !matches!(rollout.phase, RolloutPhase::Pending | RolloutPhase::Running) {
            return;
        }
        rollout.progress.paused = match rollout.progress.paused {
            Some(_) => None,
            None => Some(Said { by: "somebody".to_owned(), at }),
        };
        self.fleet.generation += 1;
    }

    /// Of everything.
    fn ask_for_a_restart(&mut self) {
        self.wishes += 1;
        self.seen.restarts += 1;
        self.fleet.generation += 1;
        let id = RestartId(uuid::Uuid::from_u128(u128::from(self.wishes)));
        let (generation, at) = (self.fleet.generation, self.clock());
        self.note(|_| format!("restart {id} is asked for"));
        let by = "somebody".to_owned();
        self.fleet.restarts.push(RestartWish { id, generation, node: None, slot: None, by, at });
    }

    /// Everybody comes back, and nothing more is wanted.
    pub(crate) fn calm(&mut self) {
        self.note(|_| "all is quiet".to_owned());
        self.hostile = false;
        if let Some(rollout) = &mut self.fleet.rollout {
            rollout.progress.paused = None;
        }
        self.control_plane_begins();
        for host in 0..self.hosts.len() {
            self.hosts[host].cut_off_until = 0;
            self.later(1, 1_000, Due::AgentBegins { host });
            self.later(2_000, 1_000, Due::Connects { host });
        }
        self.plans_within(300);
    }
}
