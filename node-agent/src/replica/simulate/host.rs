//! What the host makes of an action: slow, lossy, full, and with processes that end as they like.

use super::*;

impl World {
    pub(super) fn carry_out(&mut self, action: Action) -> Checked {
        let agent = self.agent;
        self.note(|| format!("  → {action:?}"));
        match action {
            Action::Prepare { ticket, release } => {
                self.preparing = Some(ticket);
                self.new = None;
                self.soon(Due::Prepared { agent, ticket, release });
            }
            Action::RunPreCommand { ticket, release, index } => {
                let run_id = match &self.replica.stage {
                    Stage::PreCommand { run, .. } | Stage::EndingPreCommand { run, .. } => run.run_id.clone(),
                    other => panic!("a pre-command was asked for in {other:?}"),
                };
                self.soon(Due::PreKeeperStarts { agent, ticket, release, run_id, index });
            }
            Action::KillPreCommand { ticket } => {
                self.pre_killed = self.pre_killed.max(ticket);
                if self.pre_alive == Some(ticket) {
                    self.soon(Due::PreCommandEnds { ticket, passed: false });
                }
            }
            Action::Swap { ticket, release } => {
                self.folders_rest("a swap")?;
                self.soon(Due::Swapped { agent, ticket, release });
            }
            Action::Clear { ticket } => {
                self.folders_rest("a removal")?;
                self.preparing = None;
                self.soon(Due::Cleared { agent, ticket });
            }
            Action::Upgrade { ticket, step, from, to } => {
                self.step_is_due(ticket, step, &from, &to)?;
                let process = self.alive.as_ref().map(|it| it.ticket);
                self.soon(Due::Upgraded { agent, ticket, process, step, to });
            }
            Action::UndoUpgrade { ticket } => self.soon(Due::Undone { agent, ticket }),
            Action::Launch { ticket, release } => {
                if self.alive.as_ref().is_some_and(|it| it.known) {
                    return violated(
                        Invariant::NothingIsStartedBesideARunningProcess,
                        format!("{ticket:?} beside {:?}", self.alive),
                    );
                }
                self.slowed_down()?;
                self.soon(Due::KeeperStarts { agent, ticket, release });
            }
            Action::Withdraw { ticket } => {
                let patience = self.now.plus(WITHDRAW_MAX);
                self.drained = Some(self.drained.map_or(patience, |it| it.min(patience)));
                // An NGINX that cannot be reloaded.
                if !self.fault(6) {
                    self.soon(Due::Withdrawn { agent, ticket });
                }
            }
            Action::Stop { ticket, grace } => {
                self.stopped_drained(ticket, grace)?;
                self.told_to_stop(ticket, grace)?;
                let heard = !self.fault(4);
                if let Some(alive) = self.alive.clone().filter(|it| heard && it.ticket == ticket) {
                    let within = grace.max(1);
                    let millis = self.roll(within);
                    let cause = if self.roll(2) == 0 { ExitCause::Code(0) } else { ExitCause::Signal(9) };
                    self.after(millis, Due::ProcessEnds { pid: alive.pid, cause });
                }
            }
            Action::Note(_) => {}
        }
        Ok(())
    }

    pub(super) fn happen(&mut self, due: Due) -> Checked {
        match due {
            Due::Answer { event: Event::Assigned(assignment), .. } => return self.told(assignment),
            Due::Answer { agent, event } if agent == self.agent => {
                if let Event::Launched { result: Launch::Held { by, .. }, .. }
                | Event::Swapped { result: Err(Blocked::Held { by, .. }), .. }
                | Event::Cleared { result: Err(Blocked::Held { by, .. }), .. } = event
                {
                    self.attach(by);
                }
                return self.feed(event);
            }
            Due::Answer { .. } => {}
            Due::KeeperStarts { agent, ticket, release } => self.keeper_starts(agent, ticket, &release)?,
            Due::ProcessEnds { pid, cause } => {
                if let Some(gone) = self.alive.take_if(|it| it.pid == pid) {
                    self.crashes += u32::from(gone.spared_until.is_none());
                    self.note(|| format!("  process {pid} ends: {cause}"));
                    self.ended = Some((gone.ticket, cause));
                    let event = Event::Exited { ticket: gone.ticket, cause };
                    // The keeper says so at once; an agent that was just told of the process hears it after that.
                    self.after(0, Due::Answer { agent: self.agent, event });
                }
            }
            Due::Withdrawn { agent, ticket } => {
                let current = matches!(self.replica.process, Process::Draining { asked, withdrawn: false, .. } if asked == ticket);
                if agent == self.agent && current {
                    let drained = self.now.plus(POLICY.drain);
                    self.drained = Some(self.drained.map_or(drained, |it| it.min(drained)));
                    self.after(0, Due::Answer { agent, event: Event::Withdrawn { ticket } });
                }
            }
            Due::PreKeeperStarts { agent, ticket, release, run_id, index } => {
                self.pre_keeper_starts(agent, ticket, &release, run_id, index)?;
            }
            Due::PreCommandEnds { ticket, passed } => {
                if self.pre_alive == Some(ticket) {
                    self.pre_alive = None;
                    let passed = passed && self.pre_killed != ticket;
                    self.pre_ended = Some((ticket, passed));
                    let event = pre_command_ended(ticket, passed);
                    self.after(0, Due::Answer { agent: self.agent, event });
                }
            }
            Due::Prepared { agent, ticket, release } => {
                let result = if is_hostile(&release) {
                    Err(PrepareFailure { error: "climbs out".to_owned(), permanent: true })
                } else if self.fault(4) {
                    Err(PrepareFailure { error: "no room".to_owned(), permanent: false })
                } else {
                    Ok(())
                };
                // Work that a newer asking has replaced leaves nothing.
                if self.preparing == Some(ticket) && result.is_ok() {
                    self.new = Some(release);
                }
                let result = if self.fault(30) {
                    Err(PrepareFailure { error: "cannot be looked at".to_owned(), permanent: false })
                } else {
                    result
                };
                self.answer(agent, Event::Prepared { ticket, result });
            }
            Due::Swapped { agent, ticket, release } => {
                let done = self.swap(ticket, &release)?;
                let result = self.unless_lost(done);
                self.answer(agent, Event::Swapped { ticket, result });
            }
            Due::Cleared { agent, ticket } => {
                let done = self.clear(ticket);
                let result = self.unless_lost(done);
                self.answer(agent, Event::Cleared { ticket, result });
            }
            Due::Upgraded { agent, ticket, process, step, to } => {
                let result = self.upgrade(process, step, &to);
                if step == Step::Permanent && result.is_ok() {
                    self.went_over(&to)?;
                }
                self.answer(agent, Event::Upgraded { ticket, result });
            }
            Due::Undone { agent, ticket } => {
                let result = self.undo_upgrade();
                self.answer(agent, Event::Upgraded { ticket, result });
            }
            Due::AgentDies => return self.restart_agent(),
            Due::Wish => self.random_wish(),
            Due::DiskFills => self.ledger.disk_is_full = true,
            Due::DiskHasRoom => self.ledger.disk_is_full = false,
            Due::LinkFails => return self.link(false),
            Due::LinkHolds => return self.link(true),
        }
        Ok(())
    }

    /// What was done is said to have failed where nobody could see that it was.
    pub(super) fn unless_lost(&mut self, done: Result<(), Blocked>) -> Result<(), Blocked> {
        if done.is_ok() && self.fault(30) {
            return Err(Blocked::Failed { error: "cannot be looked at".to_owned() });
        }
        done
    }

    /// The shell looks for the process that holds the slot: it is told of its end, also of one that is past.
    pub(super) fn attach(&mut self, ticket: Ticket) {
        match &mut self.alive {
            Some(alive) if alive.ticket == ticket => alive.known = true,
            _ => {
                let cause = self.ended.map_or(ExitCause::Unknown, |(_, cause)| cause);
                self.after(0, Due::Answer { agent: self.agent, event: Event::Exited { ticket, cause } });
            }
        }
    }

    /// Takes the slot's lock for work on its folders.
    pub(super) fn locked(&mut self, ticket: Ticket) -> Result<(), Blocked> {
        if let Some(alive) = &self.alive {
            return Err(Blocked::Held { by: alive.ticket, pid: alive.pid });
        }
        self.fence = self.fence.max(ticket);
        if self.fault(6) {
            return Err(Blocked::Failed { error: "read-only".to_owned() });
        }
        Ok(())
    }

    pub(super) fn swap(&mut self, ticket: Ticket, release: &ReleaseKey) -> Checked<Result<(), Blocked>> {
        if let Err(blocked) = self.locked(ticket) {
            return Ok(Err(blocked));
        }
        self.laid = None;
        if let Some(new) = self.new.take() {
            self.current = Some(new);
            self.torn = false;
        }
        self.went_over(release)?;
        if self.current.as_ref() != Some(release) || self.torn || is_hostile(release) {
            return violated(
                Invariant::OnlyWhatWasStagedRuns,
                format!("{release} was to take over, {:?} lies there, torn: {}", self.current, self.torn),
            );
        }
        Ok(Ok(()))
    }

    pub(super) fn clear(&mut self, ticket: Ticket) -> Result<(), Blocked> {
        self.locked(ticket)?;
        self.new = None;
        self.current = None;
        self.torn = false;
        self.laid = None;
        Ok(())
    }

    pub(super) fn keeper_starts(&mut self, agent: u32, ticket: Ticket, release: &ReleaseKey) -> Checked {
        let result = if let Some(alive) = &self.alive {
            Launch::Held { by: alive.ticket, pid: alive.pid }
        } else if ticket <= self.newest || ticket < self.fence {
            Launch::Failed { error: "a newer start or swap was here".to_owned() }
        } else if self.fault(8) {
            Launch::Failed { error: "no such file".to_owned() }
        } else {
            if self.current.as_ref() != Some(release) || self.torn || is_hostile(release) {
                return violated(
                    Invariant::OnlyWhatWasStagedRuns,
                    format!("{release} was started, {:?} lies there, torn: {}", self.current, self.torn),
                );
            }
            self.sequence += 1;
            let pid = u32::try_from(self.sequence).unwrap();
            self.newest = ticket;
            let runs = release.clone();
            // What an upgrade has left is taken away before.
            self.laid = None;
            self.alive = Some(Running {
                ticket,
                pid,
                release: runs,
                known: false,
                denied: false,
                spoiled: false,
                spared_until: None,
            });
            if (self.hostile && is_crashing(release)) || self.fault(5) {
                let within = if is_crashing(release) { 1_000 } else { 25_000 };
                let millis = 100 + self.roll(within);
                let cause = if self.roll(3) == 0 { ExitCause::Code(0) } else { ExitCause::Signal(11) };
                self.after(millis, Due::ProcessEnds { pid, cause });
            }
            Launch::Started { pid }
        };
        if matches!(result, Launch::Started { .. }) && self.fault(30) {
            // It runs, and its keeper was lost on its way to say so.
            self.alive.iter_mut().for_each(|it| it.denied = true);
            let result = Launch::Failed { error: "nobody answered".to_owned() };
            self.after(0, Due::Answer { agent, event: Event::Launched { ticket, result } });
            return Ok(());
        }
        // The keeper's word comes before any later word about its process.
        if let Some(alive) = self.alive.as_mut().filter(|it| it.ticket == ticket && agent == self.agent) {
            alive.known = true;
        }
        self.after(0, Due::Answer { agent, event: Event::Launched { ticket, result } });
        if let Some(alive) = self.alive.clone() {
            self.probe(alive.ticket);
        }
        Ok(())
    }

    pub(super) fn probe(&mut self, ticket: Ticket) {
        for _ in 0..3 {
            let millis = 1 + self.roll(3_000);
            let passed = !self.fault(3);
            self.after(millis, Due::Answer { agent: self.agent, event: Event::Probed { ticket, passed } });
        }
        self.after(3_500, Due::Answer { agent: self.agent, event: Event::Probed { ticket, passed: true } });
    }

    pub(super) fn pre_keeper_starts(
        &mut self,
        agent: u32,
        ticket: Ticket,
        release: &ReleaseKey,
        run_id: String,
        index: u32,
    ) -> Checked {
        if self.pre_alive.is_some() {
            // Of the same ticket: the shell waits for it. Of another: it is told to go away first.
            if self.pre_alive != Some(ticket) {
                // It looks again now and then, not at every step.
                let release = release.clone();
                self.after(1_000, Due::PreKeeperStarts { agent, ticket, release, run_id, index });
            }
            return Ok(());
        }
        if ticket <= self.pre_newest {
            let passed = self.pre_ended == Some((ticket, true));
            self.answer(agent, pre_command_ended(ticket, passed));
            return Ok(());
        }
        if ticket <= self.pre_killed || self.new.as_ref() != Some(release) {
            self.answer(agent, pre_command_ended(ticket, false));
            return Ok(());
        }
        let done = self.pre_log.entry(run_id.clone()).or_default();
        if *done != index {
            return violated(
                Invariant::PreCommandsRunOnceAndInOrder,
                format!("command {index} of {run_id} after {done} of it"),
            );
        }
        *done += 1;
        self.pre_newest = ticket;
        self.pre_alive = Some(ticket);
        let passed = !self.fault(5);
        if !passed {
            // So that what passed is what the log counts.
            self.pre_log.insert(run_id, u32::MAX);
        }
        let millis = if self.fault(6) { 60_000 } else { self.roll(2_000) };
        self.after(millis, Due::PreCommandEnds { ticket, passed });
        Ok(())
    }
}
