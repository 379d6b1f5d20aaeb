//! A host with its agent: what the slot's task does with what the machine decides, without its patience. Each action is begun
//! once the ledger says what was decided; the agent may die before, between and after both.

use std::collections::{BTreeMap, BTreeSet};

use node_agent::clock::Time;
use node_agent::replica::report::Surroundings;
use node_agent::replica::{
    Action, Assignment, Blocked, Event, Launch, Note, Policy, PreCommandFailure, PrepareFailure, Stage,
    Ticket, decide,
};
use proto::ids::{NodeId, ReleaseKey};
use proto::state::ExitCause;

use crate::laws::{self, Checked, broken};
use crate::network::{Due, Snapshot};
use crate::releases::{Behaviour, behaviour};
use crate::seen::Deed;
use crate::slot::{Process, Slot};
use crate::world::World;

pub(crate) const STABLE_AFTER: u64 = 3_000;
pub(crate) const POLICY: Policy = Policy {
    stable_after: STABLE_AFTER,
    stop_grace: 1_000,
    backoff_min: 1_000,
    backoff_max: 10_000,
    reset_after: 20_000,
    pre_command_timeout: 20_000,
    drain: 0,
};

pub(crate) struct Host {
    pub(crate) id: NodeId,
    /// The number of the agent that runs.
    pub(crate) agent: Option<u32>,
    pub(crate) agents: u32,
    pub(crate) boot: u32,
    pub(crate) session: Option<u32>,
    pub(crate) sessions: u32,
    /// Nobody is reached before.
    pub(crate) cut_off_until: u64,
    pub(crate) cut_at: u64,
    /// Good releases with an even number never become ready on it.
    pub(crate) poor: bool,
    /// Reports of one session come in order.
    pub(crate) last_arrives: u64,
    /// Of the last assignment that was stored.
    pub(crate) generation: u64,
    pub(crate) slots: BTreeMap<u16, Slot>,
    /// Releases that lie unpacked on the host.
    pub(crate) unpacked: BTreeSet<ReleaseKey>,
}

impl Host {
    pub(crate) fn new(id: NodeId) -> Self {
        Self {
            id,
            agent: Some(1),
            agents: 1,
            boot: 1,
            session: None,
            sessions: 0,
            cut_off_until: 0,
            cut_at: 0,
            poor: false,
            last_arrives: 0,
            generation: 0,
            slots: BTreeMap::new(),
            unpacked: BTreeSet::new(),
        }
    }
}

impl World {
    pub(crate) fn slot(&mut self, host: usize, slot: u16) -> &mut Slot {
        self.hosts[host].slots.entry(slot).or_default()
    }

    /// Where that agent still runs.
    pub(crate) fn feed_of(&mut self, host: usize, agent: u32, slot: u16, event: Event) -> Checked {
        if self.hosts[host].agent == Some(agent) { self.feed(host, slot, event) } else { Ok(()) }
    }

    /// To whatever agent runs.
    pub(crate) fn feed(&mut self, host: usize, slot: u16, event: Event) -> Checked {
        if self.hosts[host].agent.is_none() {
            return Ok(());
        }
        self.note(|_| format!("host {host} slot {slot}: {event:?}"));
        let now = Time(self.now);
        let it = self.slot(host, slot);
        let (next, actions) = decide(&it.replica, event, now);
        it.replica = next;
        self.settle(host, slot, actions)
    }

    fn settle(&mut self, host: usize, slot: u16, actions: Vec<Action>) -> Checked {
        if self.dies_here(host, slot) {
            return self.agent_dies(host);
        }
        let boot = self.hosts[host].boot;
        self.slot(host, slot).write(boot);
        for action in actions {
            if self.dies_here(host, slot) {
                return self.agent_dies(host);
            }
            self.note(|_| format!("host {host} slot {slot}:   {action:?}"));
            self.act(host, slot, action)?;
        }
        self.report(host, slot);
        self.says_what_runs(host, slot)
    }

    /// Rather in the middle of an upgrade than elsewhere.
    fn dies_here(&mut self, host: usize, slot: u16) -> bool {
        let upgrades = self.slot(host, slot).replica.upgrade.is_some();
        self.hostile && self.dice.one_in(if upgrades { 150 } else { 400 })
    }

    fn act(&mut self, host: usize, slot: u16, action: Action) -> Checked {
        let agent = self.hosts[host].agent.unwrap_or_default();
        match action {
            Action::Prepare { ticket, release } => {
                let it = self.slot(host, slot);
                (it.preparing, it.new) = (Some(ticket), None);
                self.later(50, 1_200, Due::Prepared { host, agent, slot, ticket, release });
            }
            Action::RunPreCommand { ticket, release, index } => {
                let run = match &self.slot(host, slot).replica.stage {
                    Stage::PreCommand { run, .. } | Stage::EndingPreCommand { run, .. } => run.run_id.clone(),
                    other => panic!("a pre-command was asked for in {other:?}"),
                };
                let begun = self.pre_commands.entry(run.clone()).or_default();
                if *begun != index {
                    let detail = format!("command {index} of {run} after {begun} of it");
                    return broken(laws::PRE_COMMANDS_ONCE, detail);
                }
                *begun += 1;
                self.seen.saw(Deed::PreCommandRun);
                let it = self.slot(host, slot);
                it.pre_alive = Some(ticket);
                let passed = behaviour(&release) != Behaviour::PreCommandsFail;
                self.later(1, 3_000, Due::PreCommandEnds { host, slot, ticket, passed });
            }
            Action::KillPreCommand { ticket } => {
                self.later(1, 200, Due::PreCommandEnds { host, slot, ticket, passed: false });
            }
            Action::Swap { ticket, release } => {
                self.rests(host, slot, "a swap")?;
                self.later(5, 100, Due::Swapped { host, agent, slot, ticket, release });
            }
            Action::Clear { ticket } => {
                self.rests(host, slot, "a removal")?;
                self.later(5, 100, Due::Cleared { host, agent, slot, ticket });
            }
            Action::Launch { ticket, release } => {
                self.rests(host, slot, "a start")?;
                let result = if self.hostile && self.dice.one_in(40) {
                    Launch::Failed { error: "no room".to_owned() }
                } else {
                    Launch::Started { pid: self.start(host, slot, ticket, release)? }
                };
                self.later(
                    1,
                    50,
                    Due::Answer { host, agent, slot, event: Event::Launched { ticket, result } },
                );
            }
            Action::Stop { ticket, grace } => {
                self.may_stop(host, slot, ticket)?;
                if let Some(alive) = self.slot(host, slot).alive.as_mut().filter(|it| it.ticket == ticket) {
                    let told = std::mem::replace(&mut alive.told, true);
                    let pid = alive.pid;
                    if !told || grace == 0 {
                        self.later(1, 500, Due::ProcessEnds { host, slot, pid, cause: ExitCause::Code(0) });
                    }
                }
            }
            Action::Upgrade { ticket, step, from, to } => {
                let result = self.upgrade(host, slot, step, (&from, &to));
                let event = Event::Upgraded { ticket, result };
                self.later(5, 400, Due::Answer { host, agent, slot, event });
            }
            Action::UndoUpgrade { ticket } => {
                let event = Event::Upgraded { ticket, result: Ok(()) };
                self.later(5, 400, Due::Answer { host, agent, slot, event });
            }
            Action::Note(Note::Upgraded { .. }) => {
                self.seen.saw(Deed::Upgraded);
                if self.slot(host, slot).inherited_upgrade {
                    self.seen.saw(Deed::UpgradedAfterDeath);
                }
            }
            Action::Note(Note::UpgradeFailed { step, .. }) if step.changes_what_runs() => {
                self.seen.saw(Deed::HalfUpgraded);
            }
            Action::Note(Note::UpgradeFailed { .. }) => self.seen.saw(Deed::LeftAsItWas),
            Action::Note(Note::FellBack { .. }) => self.seen.saw(Deed::FellBack),
            Action::Withdraw { .. } | Action::Note(_) => {}
        }
        Ok(())
    }

    /// Nothing runs in the slot.
    fn rests(&mut self, host: usize, slot: u16, what: &str) -> Checked {
        match self.slot(host, slot).alive.clone() {
            Some(alive) => broken(laws::ONE_PROCESS, format!("{what} beside {alive:?} on host {host}")),
            None => Ok(()),
        }
    }

    fn start(&mut self, host: usize, slot: u16, ticket: Ticket, release: ReleaseKey) -> Checked<u32> {
        self.pids += 1;
        let pid = self.pids;
        let ready_at = self.now + 200 + self.dice.below(1_500);
        let poor = self.hosts[host].poor && release.sha256.0[0].is_multiple_of(2);
        let it = self.slot(host, slot);
        if ticket <= it.newest {
            return broken(laws::NO_DOUBLE_START, format!("{ticket:?} after {:?}", it.newest));
        }
        if it.current.as_ref() != Some(&release) {
            return broken(laws::WHAT_LIES_THERE, format!("{release} beside {:?}", it.current));
        }
        it.newest = ticket;
        let ready_at = match behaviour(&release) {
            Behaviour::NeverReady | Behaviour::CrashesAtStart => None,
            _ if poor => None,
            _ => Some(ready_at),
        };
        it.alive = Some(Process { ticket, pid, release: release.clone(), ready_at, told: false });
        if let Some(at) = ready_at {
            self.at(at, Due::ProcessReady { host, slot, pid });
        }
        let cause = ExitCause::Code(1);
        match behaviour(&release) {
            Behaviour::CrashesAtStart => self.later(200, 600, Due::ProcessEnds { host, slot, pid, cause }),
            Behaviour::CrashesLate => self.later(7_000, 3_000, Due::ProcessEnds { host, slot, pid, cause }),
            _ => {}
        }
        Ok(pid)
    }

    /// What is true of a slot, if that is news, goes to the control plane: late, in order, and now and then twice.
    fn report(&mut self, host: usize, slot: u16) {
        let now = Time(self.now);
        let it = self.slot(host, slot);
        it.told_at = now;
        it.wake = it.replica.deadline(now).map(|at| at.0);
        let Some(session) = self.hosts[host].session else { return };
        let report = self.said(host, slot);
        let it = self.slot(host, slot);
        if it.reported.as_ref() == Some(&report) {
            return;
        }
        it.reported = Some(report.clone());
        let again = self.dice.one_in(12);
        let arrives = self.hosts[host].last_arrives.max(self.now + 1 + self.dice.below(400));
        self.hosts[host].last_arrives = arrives;
        for _ in 0..=u8::from(again) {
            self.at(arrives, Due::Report { host, session, slot, report: Box::new(report.clone()) });
        }
    }

    pub(crate) fn said(&mut self, host: usize, slot: u16) -> proto::pb::SlotReport {
        let now = Time(self.now);
        self.slot(host, slot).replica.report(Surroundings {
            app: "shop",
            slot: u32::from(slot),
            unix_ms: now.0,
            now,
            ports: &[],
            log_tail: "",
            slogan: "",
            crash_dump: "",
            failed_check: None,
            fetched_bytes: 0,
            fault: "",
        })
    }

    pub(crate) fn prepared(
        &mut self,
        host: usize,
        slot: u16,
        ticket: Ticket,
        release: ReleaseKey,
    ) -> Checked {
        if self.slot(host, slot).preparing != Some(ticket) {
            return Ok(());
        }
        let failed = |error: &str, permanent| Err(PrepareFailure { error: error.to_owned(), permanent });
        let lies = self.hosts[host].unpacked.contains(&release);
        let result = if behaviour(&release) == Behaviour::CannotBeStaged {
            failed("its archive climbs out of its folder", true)
        } else if !lies && self.hosts[host].session.is_none() {
            failed("nobody can be asked for it", false)
        } else if self.hostile && self.dice.one_in(30) {
            failed("no room", false)
        } else {
            self.hosts[host].unpacked.insert(release.clone());
            self.slot(host, slot).new = Some(release);
            Ok(())
        };
        self.feed(host, slot, Event::Prepared { ticket, result })
    }

    pub(crate) fn swapped(
        &mut self,
        host: usize,
        slot: u16,
        ticket: Ticket,
        release: &ReleaseKey,
    ) -> Checked {
        let it = self.slot(host, slot);
        if let Some(new) = it.new.take() {
            it.current = Some(new);
        }
        let lies = it.current.as_ref() == Some(release);
        let result =
            if lies { Ok(()) } else { Err(Blocked::Failed { error: "it was not staged whole".to_owned() }) };
        self.feed(host, slot, Event::Swapped { ticket, result })
    }

    pub(crate) fn cleared(&mut self, host: usize, slot: u16, ticket: Ticket) -> Checked {
        let it = self.slot(host, slot);
        (it.new, it.current, it.taken_down) = (None, None, false);
        self.feed(host, slot, Event::Cleared { ticket, result: Ok(()) })
    }

    pub(crate) fn process_ends(&mut self, host: usize, slot: u16, pid: u32, cause: ExitCause) -> Checked {
        let it = self.slot(host, slot);
        // What would have crashed was exchanged for what does not.
        let crashes = |it: &Process| {
            matches!(behaviour(&it.release), Behaviour::CrashesLate | Behaviour::CrashesAtStart)
        };
        if cause == ExitCause::Code(1) && !it.alive.as_ref().is_some_and(crashes) {
            return Ok(());
        }
        let Some(gone) = it.alive.take_if(|it| it.pid == pid) else { return Ok(()) };
        let cut_off = it.replica.upgrade.is_some();
        it.ended = Some((gone.ticket, cause));
        if cut_off {
            self.seen.saw(Deed::UpgradeCutOff);
        }
        self.feed(host, slot, Event::Exited { ticket: gone.ticket, cause })
    }

    pub(crate) fn process_ready(&mut self, host: usize, slot: u16, pid: u32) -> Checked {
        let it = self.slot(host, slot);
        let Some(alive) = it.alive.as_ref().filter(|it| it.pid == pid && !it.told) else { return Ok(()) };
        let ticket = alive.ticket;
        it.taken_down = false;
        self.feed(host, slot, Event::Probed { ticket, passed: true })
    }

    pub(crate) fn pre_command_ends(
        &mut self,
        host: usize,
        slot: u16,
        ticket: Ticket,
        passed: bool,
    ) -> Checked {
        let it = self.slot(host, slot);
        if it.pre_alive != Some(ticket) {
            return Ok(());
        }
        it.pre_alive = None;
        it.pre_ended = Some((ticket, passed));
        self.feed(host, slot, pre_command_ended(ticket, passed))
    }

    /// Whatever it was at is not done; what runs goes on, save where its host has lost its power.
    pub(crate) fn agent_dies(&mut self, host: usize) -> Checked {
        let reboot = self.dice.one_in(6);
        self.note(|_| format!("the agent of host {host} dies{}", if reboot { " with its host" } else { "" }));
        self.hosts[host].agent = None;
        self.seen.saw(Deed::AgentDied);
        if reboot {
            let forgets = self.dice.one_in(2);
            self.hosts[host].boot += 1;
            // What was not made to last is done once more: everything begins anew by then all the same.
            self.restarted.retain(|(of, ..)| *of != host || !forgets);
            let upgrades = |it: &Slot| it.alive.is_some() && it.replica.upgrade.is_some();
            for _ in 0..self.hosts[host].slots.values().filter(|it| upgrades(it)).count() {
                self.seen.saw(Deed::UpgradeCutOff);
            }
            for slot in self.hosts[host].slots.values_mut() {
                slot.lose_power(forgets);
            }
        }
        self.cut(host)?;
        self.later(100, 3_000, Due::AgentBegins { host });
        Ok(())
    }

    pub(crate) fn agent_begins(&mut self, host: usize) -> Checked {
        if self.hosts[host].agent.is_some() {
            return Ok(());
        }
        self.hosts[host].agents += 1;
        let agent = self.hosts[host].agents;
        self.hosts[host].agent = Some(agent);
        let (now, boot) = (Time(self.now), self.hosts[host].boot);
        for slot in self.hosts[host].slots.keys().copied().collect::<Vec<_>>() {
            if self.hosts[host].agent != Some(agent) {
                return Ok(());
            }
            let it = self.slot(host, slot);
            let same = it.is_of(boot);
            let again = it.recover(boot, now);
            let mut events = Vec::new();
            if let (true, None, Some((ticket, cause))) = (same, &it.alive, it.ended) {
                events.push(Event::Exited { ticket, cause });
            }
            if let (true, None, Some((ticket, passed))) = (same, it.pre_alive, it.pre_ended) {
                events.push(pre_command_ended(ticket, passed));
            }
            events.extend(it.assignment.clone().map(Event::Assigned));
            events.push(Event::Tick);
            let ready = it.alive.as_ref().filter(|it| it.ready_at.is_some_and(|at| at <= now.0));
            events.extend(ready.map(|it| Event::Probed { ticket: it.ticket, passed: true }));
            self.settle(host, slot, again)?;
            for event in events {
                self.feed_of(host, agent, slot, event)?;
            }
        }
        self.later(100, 1_500, Due::Connects { host });
        Ok(())
    }

    /// An assignment is stored whole, and then each slot is told its part.
    pub(crate) fn told(&mut self, host: usize, snapshot: &Snapshot) -> Checked {
        let Some(agent) = self.hosts[host].agent else { return Ok(()) };
        if snapshot.generation <= self.hosts[host].generation {
            return Ok(());
        }
        self.hosts[host].generation = snapshot.generation;
        let now = Time(self.now);
        let mut parts = Vec::new();
        let known = self.hosts[host].slots.keys().chain(snapshot.slots.keys()).copied();
        for slot in known.collect::<BTreeSet<_>>() {
            let generation = snapshot.generation;
            let withdrawn = Assignment { generation, wanted: None, policy: POLICY, restart: None };
            let part = snapshot.slots.get(&slot).cloned().unwrap_or(withdrawn);
            let is_new = !self.hosts[host].slots.contains_key(&slot);
            let boot = self.hosts[host].boot;
            let it = self.slot(host, slot);
            it.assignment = Some(part.clone());
            if is_new {
                it.recover(boot, now);
            }
            parts.push((slot, is_new, part));
        }
        for (slot, is_new, part) in parts {
            if is_new {
                let held = self.hosts[host].session.is_some();
                self.feed_of(host, agent, slot, Event::Linked { held })?;
            }
            self.feed_of(host, agent, slot, Event::Assigned(part))?;
        }
        Ok(())
    }
}

fn pre_command_ended(ticket: Ticket, passed: bool) -> Event {
    let failure = || PreCommandFailure { error: "exit status 1".to_owned(), output: String::new() };
    Event::PreCommandEnded { ticket, result: if passed { Ok(String::new()) } else { Err(failure()) } }
}
