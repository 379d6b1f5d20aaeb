//! Hot upgrades in the simulation: what the node makes of a step, and the rules that hold for them.

use super::*;

impl World {
    /// What the node and its folder are after a step. Of a process that has ended nothing is done any more: the next one waits
    /// for it.
    pub(super) fn upgrade(
        &mut self,
        process: Option<Ticket>,
        step: Step,
        to: &ReleaseKey,
    ) -> Result<(), UpgradeFailure> {
        let failed = |because: &str, spoiled| {
            let because = because.to_owned();
            Err(UpgradeFailure { step, because, of_package: false, spoiled })
        };
        let (fails, midway) = (self.fault(8), self.roll(2) == 0);
        let Some(alive) = self.alive.as_mut().filter(|it| Some(it.ticket) == process) else {
            return failed("nobody answers", step.changes_what_runs());
        };
        let ticket = alive.ticket;
        // It was done before, by an agent that could not say so.
        let is_new = self.laid.is_none() && self.current.as_ref() == Some(to);
        match step {
            _ if is_new => return Ok(()),
            _ if fails && step < Step::Install => {
                // Some of it may have been done.
                if step == Step::Lay && midway {
                    self.laid = Some((to.clone(), step));
                }
                return failed("no room", false);
            }
            Step::Install if fails && midway => return failed("it is not to be installed", false),
            Step::Install | Step::Prove if fails => {
                alive.spoiled = true;
                return failed("it began itself anew", true);
            }
            // A machine that began itself anew for an agent that could not say so is installed into once more, or proved once more.
            Step::Install => (alive.release, alive.spoiled) = (to.clone(), false),
            Step::Prove => alive.spoiled = false,
            Step::Permanent => {
                self.current = Some(to.clone());
                // It has to be brought to the disk anew.
                self.torn = false;
                self.new = None;
                self.laid = None;
                return Ok(());
            }
            _ => {}
        }
        if self.laid.as_ref().is_none_or(|(_, reached)| *reached < step) {
            self.laid = Some((to.clone(), step));
        }
        self.note(|| format!("  {ticket:?} has reached {step:?}"));
        Ok(())
    }

    pub(super) fn undo_upgrade(&mut self) -> Result<(), UpgradeFailure> {
        if self.fault(20) {
            let because = "nobody answers".to_owned();
            return Err(UpgradeFailure { step: Step::Lay, because, of_package: false, spoiled: true });
        }
        self.laid = None;
        Ok(())
    }

    /// Of what is wanted, when it is decided.
    pub(super) fn step_is_wanted(&self, step: Step, to: &ReleaseKey) -> Checked {
        let wanted = self.replica.target().map(|it| it.release);
        match wanted.as_ref() == Some(to) || step.changes_what_runs() {
            true => Ok(()),
            false => {
                violated(Invariant::UpgradesGoStepByStep, format!("{step:?} to {to}, wanted is {wanted:?}"))
            }
        }
    }

    /// Each step after the one before it, and of an attempt that was not made before.
    pub(super) fn step_is_due(
        &mut self,
        ticket: Ticket,
        step: Step,
        from: &ReleaseKey,
        to: &ReleaseKey,
    ) -> Checked {
        let reached = self.laid.as_ref().filter(|(of, _)| of == to).map(|(_, step)| *step);
        let before = Step::ALL.into_iter().rfind(|it| *it < step);
        let is_there = self.laid.is_none() && self.current.as_ref() == Some(to);
        if self.alive.is_some() && reached < before && !is_there {
            return violated(Invariant::UpgradesGoStepByStep, format!("{step:?} after {reached:?}"));
        }
        if step < Step::Permanent && self.current.as_ref() != Some(from) && !self.torn && !is_there {
            let detail = format!("from {from}, and {:?} lies there", self.current);
            return violated(Invariant::UpgradesGoStepByStep, detail);
        }
        let attempt = self.replica.upgrade.as_ref().map(|it| it.attempt.clone()).unwrap_or_default();
        if step == Step::Lay {
            match self.attempts.insert(attempt.clone(), ticket) {
                Some(earlier) if earlier != ticket => {
                    return violated(Invariant::AnAttemptIsMadeOnce, format!("{attempt} anew as {ticket:?}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The process is to be left alone for this wish.
    pub(super) fn is_to_be_upgraded(&self, wanted: &Wanted) -> bool {
        let Some(hot) = &wanted.hot else { return false };
        let lies = self.replica.current.as_ref().is_some_and(|it| it.release == hot.from);
        let spoiled = self.alive.as_ref().is_some_and(|it| it.spoiled);
        lies && !spoiled
    }

    /// Once an upgrade is over, a process that goes on is what is said of it, and nothing lies about.
    pub(super) fn says_what_runs(&self) -> Checked {
        let (Some(alive), Process::Up { ticket, .. }) = (&self.alive, &self.replica.process) else {
            return Ok(());
        };
        if alive.ticket != *ticket || self.replica.upgrade.is_some() || self.condemned.contains(ticket) {
            return Ok(());
        }
        let said = self.replica.current.as_ref().map(|it| &it.release);
        if alive.spoiled || said.is_some_and(|it| *it != alive.release) {
            return violated(Invariant::WhatRunsIsWhatIsSaid, format!("{alive:?} is said to be {said:?}"));
        }
        match &self.laid {
            Some(laid) => violated(Invariant::NothingOfAFailedUpgradeIsLeft, format!("{laid:?}")),
            None => Ok(()),
        }
    }
}
