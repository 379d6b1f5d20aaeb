//! The agent around the machine: what it is told, what it stores before it acts, and how another begins after it.

use super::*;

impl World {
    /// It is stored first, and refused where that cannot be; the control plane says it again.
    pub(super) fn told(&mut self, assignment: Assignment) -> Checked {
        if self.ledger.disk_is_full && self.roll(2) == 0 {
            self.after(3_000, Due::Answer { agent: self.agent, event: Event::Assigned(assignment) });
            return Ok(());
        }
        if self.stored.as_ref().is_none_or(|it| it.generation < assignment.generation) {
            self.stored = Some(assignment.clone());
        }
        self.feed(Event::Assigned(assignment))
    }

    /// What the agent was at when it died is done or not; it is not done later. Keepers that it had started live on.
    pub(super) fn cut_off(&mut self) -> Checked {
        for (at, due) in std::mem::take(&mut self.due) {
            match due {
                Due::Swapped { ticket, release, .. } if self.roll(2) == 0 => {
                    drop(self.swap(ticket, &release)?);
                }
                Due::Cleared { ticket, .. } if self.roll(2) == 0 => drop(self.clear(ticket)),
                Due::Upgraded { process, step, to, .. } if self.roll(2) == 0 => {
                    drop(self.upgrade(process, step, &to));
                }
                Due::Undone { .. } if self.roll(2) == 0 => drop(self.undo_upgrade()),
                // Whoever has not begun by then sees that nobody asks for it any more, and goes.
                Due::KeeperStarts { agent, ticket, release } if self.roll(2) == 0 => {
                    self.keeper_starts(agent, ticket, &release)?;
                }
                Due::PreKeeperStarts { agent, ticket, release, run_id, index }
                    if self.pre_alive.is_none() && self.roll(2) == 0 =>
                {
                    self.pre_keeper_starts(agent, ticket, &release, run_id, index)?;
                }
                Due::Swapped { .. }
                | Due::Cleared { .. }
                | Due::Upgraded { .. }
                | Due::Undone { .. }
                | Due::Prepared { .. }
                | Due::KeeperStarts { .. }
                | Due::PreKeeperStarts { .. } => {}
                _ => drop(self.due.insert(at, due)),
            }
        }
        Ok(())
    }

    pub(super) fn feed(&mut self, event: Event) -> Checked {
        self.note(|| format!("{event:?}"));
        let before = self.replica.clone();
        if let (
            Event::Condemned { ticket: condemned, .. },
            Process::Up { ticket, .. } | Process::Draining { ticket, .. },
        ) = (&event, &before.process)
            && condemned == ticket
        {
            self.condemned.insert(*ticket);
        }
        let (next, actions) = decide(&before, event, self.now);
        // The ledger: from here on it is what a new agent would find.
        self.replica = next;
        // What an upgrade has spoiled is to end like all that is condemned.
        if let Some((ticket, Condemned { charge: Charge::HalfUpgraded, .. })) = &self.replica.condemned {
            self.condemned.insert(*ticket);
        }
        self.serves();
        self.check(&before)?;
        self.goes_back_rightly(&before)?;
        self.passed_in_place(&before);
        for action in &actions {
            match action {
                Action::Swap { release, .. } => self.pre_commands_passed(release)?,
                Action::Stop { ticket, grace } => self.stopped_with_cause(*ticket, *grace)?,
                Action::Upgrade { step, to, .. } => self.step_is_wanted(*step, to)?,
                _ => {}
            }
        }
        self.ledger.hold(actions, self.now);
        self.settle()
    }

    /// As the slot's task does it: store, then act. The agent may die anywhere.
    pub(super) fn settle(&mut self) -> Checked {
        if self.dies_here() {
            return self.restart_agent();
        }
        let stored = self.ledger.store(&self.replica, self.boot, self.now);
        if let Some(Trial { rollout, verdict: Verdict::Stable }) = &self.ledger.written.trial {
            self.was_stable.insert(rollout.clone());
        }
        if self.dies_here() {
            return self.restart_agent();
        }
        for action in self.ledger.begun(stored, &self.replica, self.now) {
            self.carry_out(action)?;
            if self.dies_here() {
                return self.restart_agent();
            }
        }
        if self.ledger.keeps_down(&self.replica) {
            return violated(Invariant::ACrashIsAnsweredWithoutALedger, format!("{:?}", self.replica));
        }
        Ok(())
    }

    /// Who is up again after it was to stop is sent requests again.
    pub(super) fn serves(&mut self) {
        match self.replica.process {
            Process::Up { ticket, health, .. } => {
                self.drained = None;
                self.served = (health != Health::Starting).then_some(ticket);
            }
            Process::Draining { ticket, .. } => {
                self.served = Some(ticket);
                // Patience counts from the decision, also where a full disk keeps anybody from being told.
                let patience = self.now.plus(WITHDRAW_MAX);
                self.drained.get_or_insert(patience);
            }
            _ => {}
        }
    }

    pub(super) fn dies_here(&mut self) -> bool {
        self.places += u64::from(self.hostile);
        match self.dies_at {
            Some(place) => self.hostile && self.places == place,
            None => self.fault(150),
        }
    }

    /// What lay here already when pre-commands were wished for it needs none, also where it is staged again after a power cut.
    pub(super) fn passed_in_place(&mut self, before: &Replica) {
        let Some(Wanted { release, pre_commands: Some(run), .. }) = self.replica.wanted() else { return };
        let is_new = before.pre_commands.as_ref().is_none_or(|it| it.run_id != run.run_id);
        let passed = self
            .replica
            .pre_commands
            .as_ref()
            .is_some_and(|it| it.run_id == run.run_id && it.outcome.is_ok());
        if is_new && passed && self.replica.current.as_ref().is_some_and(|it| it.release == *release) {
            self.pre_spared.insert(run.run_id.clone());
        }
    }

    pub(super) fn restart_agent(&mut self) -> Checked {
        let reboot = self.fault(4);
        self.note(|| format!("the agent dies{}", if reboot { " with its host" } else { "" }));
        self.cut_off()?;
        self.agent += 1;
        self.preparing = None;
        self.starts.clear();
        if reboot {
            self.alive = None;
            self.attempts.clear();
            self.ended = None;
            self.pre_alive = None;
            self.pre_ended = None;
            (self.served, self.drained) = (None, None);
            self.boot += 1;
            (self.newest, self.fence) = (Ticket(0), Ticket(0));
            (self.pre_newest, self.pre_killed) = (Ticket(0), Ticket(0));
            self.torn |= self.current.is_some() && self.fault(2);
            self.due.retain(|_, due| {
                matches!(
                    due,
                    Due::AgentDies
                        | Due::Wish
                        | Due::LinkFails
                        | Due::LinkHolds
                        | Due::DiskFills
                        | Due::DiskHasRoom
                        | Due::Answer { event: Event::Assigned(_), .. }
                )
            });
        }
        if let Some(alive) = &mut self.alive {
            alive.known = true;
        }
        let found = match (&self.alive, self.ended) {
            (Some(alive), _) => Found::Running { ticket: alive.ticket, pid: alive.pid },
            (None, Some((ticket, cause))) => Found::Ended { ticket, cause },
            (None, None) => Found::Nothing,
        };
        let pre_found = match (self.pre_alive, self.pre_ended) {
            (Some(ticket), _) => Found::Running { ticket, pid: 1 },
            (None, Some((ticket, passed))) => {
                Found::Ended { ticket, cause: ExitCause::Code(i32::from(!passed)) }
            }
            (None, None) => Found::Nothing,
        };
        let power_cut = reboot && self.roll(2) == 0;
        let before = self.ledger.outlives(power_cut);
        self.condemned.retain(|it| before.condemned.as_ref().is_some_and(|(known, _)| known == it));
        let boot = match self.ledger.boot != self.boot {
            true => Boot::Earlier { whole: self.current.clone().filter(|_| !self.torn) },
            false => Boot::Present,
        };
        // A ledger that could not be written knows of less of its time.
        let forgets = before.trial != self.replica.trial;
        let (next, again) = before.recover(found, pre_found, boot.clone(), self.now);
        self.replica = next;
        let is_alone = self.alone_since.is_some();
        self.alone_since = Some(self.now);
        if let (Some((_, _, certain)), true) = (&mut self.in_place, boot != Boot::Present || forgets) {
            *certain = self.now;
        }
        // Whom the new agent does not know to be ready it has taken out of traffic before it does anything else.
        self.serves();
        if before.crash_restarts > self.replica.crash_restarts {
            return violated(Invariant::CountsOnlyGrow, format!("{before:?} → {:?}", self.replica));
        }
        let mut events = Vec::new();
        let same_boot = boot == Boot::Present;
        if let (true, Found::Ended { ticket, cause }) = (same_boot, found) {
            events.push(Event::Exited { ticket, cause });
        }
        if let (true, Found::Ended { ticket, cause }) = (same_boot, pre_found) {
            events.push(pre_command_ended(ticket, cause == ExitCause::Code(0)));
        }
        events.extend(self.stored.clone().map(Event::Assigned));
        events.push(Event::Tick);
        if !is_alone {
            self.soon(Due::LinkHolds);
        }
        if let Some(alive) = self.alive.clone() {
            self.probe(alive.ticket);
        }
        let agent = self.agent;
        self.ledger.hold(again, self.now);
        self.settle()?;
        for event in events {
            // This one may be dead by now.
            if self.agent == agent {
                self.feed(event)?;
            }
        }
        Ok(())
    }
}
