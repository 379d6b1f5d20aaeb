//! What a replica's state calls for: the only part of the machine that asks for actions. It never sees the event that led
//! here, so that an event that was lost costs time and not truth.

use proto::ids::ReleaseKey;

use super::fault::{Fault, planted};
use super::{
    Action, Assignment, Charge, Health, Note, Policy, PreCommandFailure, PreCommands, PreCommandsRun,
    Process, Replica, Restart, Stage, Ticket, Wanted,
};
use crate::clock::Time;

/// The keeper kills by itself after the grace; this much later it is told once more, in case it was not there to hear.
pub(super) const STOP_MARGIN: u64 = 5_000;
/// Whoever sends requests (an NGINX that cannot be reloaded) holds up no stop for longer than this.
pub(crate) const WITHDRAW_MAX: u64 = 30_000;

impl Replica {
    /// Takes the next steps. Looks only at the state, never at what just happened, so a lost event costs time, not truth.
    pub(super) fn advance(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.keep_trial(now, actions);
        let Some(mut assignment) = self.assignment.clone() else { return };
        assignment.wanted = self.target();
        self.keep_upgrade(assignment.wanted.as_ref(), now, actions);
        // What is staged is what is being brought in.
        if self.upgrade.is_none() {
            match &assignment.wanted {
                Some(wanted) => self.advance_stage(wanted, &assignment.policy, now, actions),
                None => self.abandon_stage(actions),
            }
        }
        self.advance_process(&assignment, now, actions);
        if self.upgrade.is_none() {
            self.begin_upgrade(assignment.wanted.as_ref(), now, actions);
        }
        // One that was about to end, is no longer to, and had been ready for long.
        if self.see_stable(now) {
            self.advance(now, actions);
        }
    }

    fn advance_stage(&mut self, wanted: &Wanted, policy: &Policy, now: Time, actions: &mut Vec<Action>) {
        let in_place = self.current.as_ref().is_some_and(|it| it.release == wanted.release);
        if in_place || self.staged_release().is_some_and(|it| *it != wanted.release) {
            self.abandon_stage(actions);
        }
        // Here it runs already: its pre-commands had passed before it took its place.
        if let (true, Some(run)) = (in_place, &wanted.pre_commands)
            && self.pre_commands.as_ref().is_none_or(|it| it.run_id != run.run_id)
        {
            self.pre_commands = Some(PreCommandsRun::passed(run.run_id.clone()));
        }
        if in_place || matches!(self.process, Process::Swapping { .. } | Process::Clearing { .. }) {
            return;
        }
        match self.stage.clone() {
            Stage::None => {
                actions.push(Action::Note(Note::DeploymentStarted { release: wanted.release.clone() }));
                self.fetch(wanted.release.clone(), 0, actions);
            }
            Stage::Retrying { release, until, attempt, .. } if now >= until => {
                self.fetch(release, attempt, actions);
            }
            Stage::Staged { release } => {
                if let Some(run) = &wanted.pre_commands
                    && self.begin_pre_commands(release, run)
                {
                    self.advance_stage(wanted, policy, now, actions);
                }
            }
            Stage::NextPreCommand { release, run, index } => {
                let ticket = self.ticket();
                let deadline = now.plus(policy.pre_command_timeout);
                actions.push(Action::RunPreCommand { ticket, release: release.clone(), index });
                self.stage = Stage::PreCommand { ticket, release, run, index, deadline };
            }
            Stage::PreCommand { ticket, release, run, index, deadline } if now >= deadline => {
                let because = format!("took longer than {} ms", policy.pre_command_timeout);
                actions.push(Action::KillPreCommand { ticket });
                self.stage = Stage::EndingPreCommand { ticket, release, run, index, because };
            }
            // A failure stands for the wish that led to it; a new run, or none at all, is a new wish.
            Stage::Failed { release, error } => {
                let of_it = |failure: &PreCommandFailure| failure.error == error;
                let failed = self.pre_commands.as_ref().filter(|it| it.outcome.as_ref().is_err_and(of_it));
                let wished_run = wanted.pre_commands.as_ref().map(|it| &it.run_id);
                if failed.is_some_and(|it| Some(&it.run_id) != wished_run) {
                    self.fetch(release, 0, actions);
                }
            }
            Stage::Fetching { .. }
            | Stage::Retrying { .. }
            | Stage::PreCommand { .. }
            | Stage::EndingPreCommand { .. } => {}
        }
    }

    fn fetch(&mut self, release: ReleaseKey, attempt: u32, actions: &mut Vec<Action>) {
        let ticket = self.ticket();
        self.occupied = true;
        self.stage = Stage::Fetching { ticket, release: release.clone(), attempt };
        actions.push(Action::Prepare { ticket, release });
    }

    /// Whether there is something to run: each run is run once, whatever its outcome.
    fn begin_pre_commands(&mut self, release: ReleaseKey, run: &PreCommands) -> bool {
        let known = self
            .pre_commands
            .as_ref()
            .filter(|it| it.run_id == run.run_id && !planted(Fault::ForgetPreCommands));
        match known.map(|it| &it.outcome) {
            Some(Ok(())) => false,
            Some(Err(_)) if planted(Fault::IgnorePreCommands) => false,
            Some(Err(failure)) => {
                self.stage = Stage::Failed { release, error: failure.error.clone() };
                false
            }
            None if run.count == 0 => {
                self.pre_commands = Some(PreCommandsRun::passed(run.run_id.clone()));
                false
            }
            None => {
                self.printed.clear();
                self.stage = Stage::NextPreCommand { release, run: run.clone(), index: 0 };
                true
            }
        }
    }

    /// Forgets what was being staged. A pre-command that runs is ended first: its end is awaited like any other.
    fn abandon_stage(&mut self, actions: &mut Vec<Action>) {
        match self.stage.clone() {
            Stage::PreCommand { ticket, release, run, index, .. } => {
                actions.push(Action::KillPreCommand { ticket });
                let because = "stopped, because the release is no longer wanted here".to_owned();
                self.stage = Stage::EndingPreCommand { ticket, release, run, index, because };
            }
            Stage::EndingPreCommand { .. } => {}
            _ => self.stage = Stage::None,
        }
    }

    /// The release that the stage is about.
    pub fn staged_release(&self) -> Option<&ReleaseKey> {
        match &self.stage {
            Stage::None => None,
            Stage::Fetching { release, .. }
            | Stage::Retrying { release, .. }
            | Stage::NextPreCommand { release, .. }
            | Stage::PreCommand { release, .. }
            | Stage::EndingPreCommand { release, .. }
            | Stage::Staged { release }
            | Stage::Failed { release, .. } => Some(release),
        }
    }

    /// The staged release may take over now: it is the wanted one, and its pre-commands, if this slot runs them, have passed.
    pub(super) fn may_take_over(&self, wanted: &Wanted) -> bool {
        let passed = wanted.pre_commands.as_ref().is_none_or(|wished| {
            self.pre_commands.as_ref().is_some_and(|run| {
                run.run_id == wished.run_id && (run.outcome.is_ok() || planted(Fault::IgnorePreCommands))
            })
        });
        self.stage == (Stage::Staged { release: wanted.release.clone() }) && passed
    }

    fn advance_process(&mut self, assignment: &Assignment, now: Time, actions: &mut Vec<Action>) {
        let takes_over = |it: &Wanted| self.may_take_over(it) && !self.spares_what_runs(it);
        let take_over = assignment.wanted.as_ref().is_some_and(takes_over);
        let early = planted(Fault::StopBeforeStaged) && self.stage != Stage::None;
        // A hot upgrade is over soon, one way or the other.
        let upgrades = self.upgrade.is_some();
        let unwanted = (assignment.wanted.is_none() || take_over || early) && !upgrades;
        let restart = matches!(self.restart, Restart::Due { .. }) && !upgrades;
        match self.process {
            // Taken back before it was told to stop.
            Process::Draining { ticket, pid, since, health, .. }
                if !unwanted && !restart && !self.is_condemned(ticket) =>
            {
                self.process = Process::Up { ticket, pid, since, health };
            }
            Process::BackingOff { until } if now >= until || unwanted || restart => {
                self.process = Process::Down;
            }
            Process::Stuck { until } if now >= until => self.process = Process::Down,
            _ => {}
        }
        match self.process {
            Process::Up { .. } if take_over && planted(Fault::SwapUnderARunningProcess) => {
                self.start(assignment.wanted.as_ref(), take_over, actions);
            }
            Process::Up { .. } if unwanted && !take_over && planted(Fault::ClearUnderARunningProcess) => {
                self.start(None, false, actions);
            }
            Process::Stopping { deadline, .. } if now >= deadline && planted(Fault::ForgetWhoIsStopping) => {
                self.process = Process::Down;
                self.start(assignment.wanted.as_ref(), take_over, actions);
            }
            Process::Stopping { .. } if planted(Fault::StopOnlyOnce) => {}
            Process::Up { ticket, pid, since, health }
                if (unwanted || restart || self.is_condemned(ticket))
                    && self.drains(ticket, health, &assignment.policy) =>
            {
                let asked = self.ticket();
                let until = now.plus(WITHDRAW_MAX);
                self.process =
                    Process::Draining { ticket, pid, since, health, asked, withdrawn: false, until };
                actions.push(Action::Withdraw { ticket: asked });
            }
            Process::Draining { .. } if planted(Fault::DrainForEver) => {}
            Process::Up { ticket, pid, health, .. } if unwanted || restart || self.is_condemned(ticket) => {
                self.stop(ticket, pid, health, assignment.policy.stop_grace, now, actions);
            }
            Process::Draining { ticket, pid, health, until, .. } if now >= until || self.hangs(ticket) => {
                self.stop(ticket, pid, health, assignment.policy.stop_grace, now, actions);
            }
            Process::Stopping { ticket, pid, deadline } if now >= deadline => {
                self.process = Process::Stopping { ticket, pid, deadline: now.plus(STOP_MARGIN) };
                actions.push(Action::Stop { ticket, grace: 0 });
            }
            Process::Down => self.start(assignment.wanted.as_ref(), take_over, actions),
            Process::Up { .. }
            | Process::Draining { .. }
            | Process::Stopping { .. }
            | Process::BackingOff { .. }
            | Process::Stuck { .. }
            | Process::Swapping { .. }
            | Process::Launching { .. }
            | Process::Clearing { .. } => {}
        }
    }

    fn is_condemned(&self, process: Ticket) -> bool {
        self.condemned.as_ref().is_some_and(|(it, _)| *it == process) && !planted(Fault::SpareTheCondemned)
    }

    /// It answers nobody: nothing that it was sent is finished by waiting.
    fn hangs(&self, process: Ticket) -> bool {
        let charge = self.condemned.as_ref().filter(|(it, _)| *it == process).map(|(_, why)| why.charge);
        charge == Some(Charge::Unresponsive)
    }

    /// Whoever was never ready was sent nothing that it could finish.
    fn drains(&self, process: Ticket, health: Health, policy: &Policy) -> bool {
        policy.drain > 0
            && health != Health::Starting
            && !self.hangs(process)
            && !planted(Fault::StopUndrained)
    }

    fn stop(
        &mut self,
        ticket: Ticket,
        pid: u32,
        health: Health,
        grace: u64,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        self.forgive(health, now);
        self.process = Process::Stopping { ticket, pid, deadline: now.plus(grace).plus(STOP_MARGIN) };
        actions.push(Action::Stop { ticket, grace });
    }

    /// Nothing runs: what is next?
    fn start(&mut self, wanted: Option<&Wanted>, take_over: bool, actions: &mut Vec<Action>) {
        match (wanted, self.current.clone()) {
            (Some(wanted), _) if take_over => {
                let ticket = self.ticket();
                let release = wanted.release.clone();
                self.process = Process::Swapping { ticket, release: release.clone() };
                // Until the answer is there nobody knows what lies in which folder, also if this agent dies. Where it is not
                // a good one, the release is staged anew.
                self.current = None;
                self.stage = Stage::None;
                actions.push(Action::Swap { ticket, release });
            }
            // Also while another release is on its way: what lies here serves until that one is ready.
            (Some(_), Some(current)) => {
                if let Restart::Due { request } = &self.restart {
                    self.restart = Restart::Done { request: request.clone() };
                    // A pause after a crash was cut short. What had not yet run here was not restarted.
                    if self.last_exit.is_some() {
                        self.restarting(None, actions);
                    }
                }
                let ticket = self.ticket();
                self.process = Process::Launching { ticket };
                actions.push(Action::Launch { ticket, release: current.release });
            }
            // A pre-command that still runs holds the folders.
            (None, _) if self.occupied && self.stage == Stage::None => {
                let ticket = self.ticket();
                self.process = Process::Clearing { ticket };
                self.current = None;
                actions.push(Action::Clear { ticket });
            }
            (Some(_) | None, _) => {}
        }
    }
}
