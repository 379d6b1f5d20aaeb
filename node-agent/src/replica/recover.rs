//! What a new agent makes of what its predecessor wrote and of the process it finds: pure, like all of the machine.
//!
//! The ledger says what was last decided, the slot's lock says what is there. Where they disagree the lock is the truth. What
//! had been asked for without an answer is asked for again under the same ticket, which all such actions bear: a keeper that a
//! dead agent had just started and the one that is started now have one ticket, and only one of them gets to use it.

use proto::ids::ReleaseKey;
use proto::state::ExitCause;

use super::advance::{STOP_MARGIN, WITHDRAW_MAX};
use super::fault::{Fault, planted};
use super::{Action, Current, Health, PreCommandFailure, PreCommandsRun, Process, Replica, Stage, Ticket};
use crate::clock::Time;

/// What the slot's lock, its keeper and its exit record say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// A process lives, started with that ticket.
    Running {
        ticket: Ticket,
        pid: u32,
    },
    /// The last one has ended.
    Ended {
        ticket: Ticket,
        cause: ExitCause,
    },
}

/// In which boot of the host the ledger was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    Present,
    /// The host has restarted since: times and tickets mean nothing, and no more lies in `current` than what is known to
    /// have outlived it.
    Earlier {
        whole: Option<ReleaseKey>,
    },
}

impl Replica {
    /// The state to go on from and what is to be asked for once more, to be followed by [`Event::Tick`](super::Event::Tick).
    #[must_use]
    pub fn recover(&self, found: Found, pre_command: Found, boot: Boot, now: Time) -> (Self, Vec<Action>) {
        let mut next = self.clone();
        let mut again = Vec::new();
        next.begin_alone(boot != Boot::Present, now);
        if planted(Fault::ForgetCounts) {
            next.crash_restarts = 0;
        }
        let found = if planted(Fault::IgnoreWhatRuns) { Found::Nothing } else { found };
        for seen in [found, pre_command] {
            if let Found::Running { ticket, .. } | Found::Ended { ticket, .. } = seen {
                next.next_ticket = next.next_ticket.max(ticket.0 + 1);
            }
        }
        match boot {
            Boot::Present => {
                next.recover_stage(pre_command, &mut again);
                next.recover_process(found, now, &mut again);
                next.recover_upgrade(&mut again);
            }
            Boot::Earlier { whole } => {
                next.forget_stage();
                next.forget_process();
                next.leave_upgrades_behind(now, &mut again);
                match found {
                    // Of this boot, from an agent that could not write its ledger.
                    Found::Running { ticket, pid } => next.hold(ticket, pid, now),
                    // What is wanted is staged again.
                    Found::Nothing | Found::Ended { .. } => next.forget_current_unless(whole.as_ref()),
                }
            }
        }
        (next, again)
    }

    /// Where nothing is remembered: what the mark in `current` says. Whatever runs was started from there.
    #[must_use]
    pub fn of_folders(current: Option<ReleaseKey>, occupied: bool) -> Self {
        let current = current.map(|release| Current { release, since: Ticket(0) });
        Self { current, occupied, ..Self::default() }
    }

    fn recover_stage(&mut self, found: Found, again: &mut Vec<Action>) {
        let known = |ticket: Ticket| matches!(found, Found::Running { ticket: it, .. } | Found::Ended { ticket: it, .. } if it == ticket);
        match self.stage.clone() {
            Stage::Fetching { ticket, release, .. } => again.push(Action::Prepare { ticket, release }),
            // The slot's task waits for its end, or hands it in.
            Stage::PreCommand { ticket, .. } | Stage::EndingPreCommand { ticket, .. } if known(ticket) => {
                if matches!(self.stage, Stage::EndingPreCommand { .. }) {
                    again.push(Action::KillPreCommand { ticket });
                }
            }
            Stage::PreCommand { ticket, release, index, .. } => {
                again.push(Action::RunPreCommand { ticket, release, index });
            }
            Stage::EndingPreCommand { release, run, because, .. } => {
                self.fail_pre_commands(release, run.run_id, because);
            }
            Stage::None
            | Stage::Retrying { .. }
            | Stage::NextPreCommand { .. }
            | Stage::Staged { .. }
            | Stage::Failed { .. } => {}
        }
    }

    /// Of what runs still. Its step is asked for once more; of another process nothing is left to upgrade.
    fn recover_upgrade(&self, again: &mut Vec<Action>) {
        if let (Some(upgrade), Process::Up { ticket, .. }) = (&self.upgrade, &self.process)
            && upgrade.process == *ticket
        {
            self.ask(again);
        }
    }

    /// The host has restarted: what was staged is staged again, save that pre-commands that were begun are not begun again.
    fn forget_stage(&mut self) {
        match std::mem::take(&mut self.stage) {
            Stage::PreCommand { release, run, index, .. }
            | Stage::EndingPreCommand { release, run, index, .. } => {
                let error = format!(
                    "pre-command {} of {} was cut off by a restart of the host",
                    index + 1,
                    run.count
                );
                self.fail_pre_commands(release, run.run_id, error);
            }
            Stage::NextPreCommand { release, run, index } if index > 0 => {
                let error = format!("the host restarted after pre-command {index} of {}", run.count);
                self.fail_pre_commands(release, run.run_id, error);
            }
            Stage::Failed { release, error } => self.stage = Stage::Failed { release, error },
            Stage::None
            | Stage::Fetching { .. }
            | Stage::Retrying { .. }
            | Stage::NextPreCommand { .. }
            | Stage::Staged { .. } => {}
        }
    }

    fn fail_pre_commands(&mut self, release: ReleaseKey, run_id: String, error: String) {
        let failure = PreCommandFailure { error: error.clone(), output: String::new() };
        let printed = std::mem::take(&mut self.printed);
        self.pre_commands = Some(PreCommandsRun { printed, ..PreCommandsRun::failed(run_id, failure) });
        self.stage = Stage::Failed { release, error };
    }

    fn recover_process(&mut self, found: Found, now: Time, again: &mut Vec<Action>) {
        let asked = match self.process {
            Process::Launching { ticket }
            | Process::Up { ticket, .. }
            | Process::Draining { ticket, .. }
            | Process::Stopping { ticket, .. } => Some(ticket),
            _ => None,
        };
        match (found, self.process.clone()) {
            (Found::Running { ticket, pid }, was) if Some(ticket) == asked => {
                self.process = match was {
                    Process::Up { since, health, .. } => Process::Up { ticket, pid, since, health },
                    // Asked anew, also where it was withdrawn: an agent that could not write that down may have had it sent
                    // requests again since.
                    Process::Draining { since, health, asked, .. } => {
                        again.push(Action::Withdraw { ticket: asked });
                        let until = now.plus(WITHDRAW_MAX);
                        Process::Draining { ticket, pid, since, health, asked, withdrawn: false, until }
                    }
                    // Told to stop once more, because the first word may not have been heard. A keeper that has heard it goes on
                    // counting from then.
                    Process::Stopping { .. } => {
                        let policy = self.policy().filter(|_| !planted(Fault::KillAtOnceAfterwards));
                        let grace = policy.map_or(0, |it| it.stop_grace);
                        again.push(Action::Stop { ticket, grace });
                        Process::Stopping { ticket, pid, deadline: now.plus(grace).plus(STOP_MARGIN) }
                    }
                    _ => Process::Up { ticket, pid, since: now, health: Health::Starting },
                };
            }
            // A crash that an agent answered without being able to write it down; nothing else is begun without a ledger.
            (Found::Running { ticket, pid }, Process::Up { ticket: earlier, .. }) if ticket > earlier => {
                self.exited(earlier, ExitCause::Unknown, now, again);
                self.hold(ticket, pid, now);
            }
            (Found::Running { ticket, pid }, _) => self.hold(ticket, pid, now),
            // Its exit is handed in as an event, which wants the process that it is about.
            (Found::Ended { ticket, .. }, Process::Launching { .. }) if Some(ticket) == asked => {
                self.process = Process::Up { ticket, pid: 0, since: now, health: Health::Starting };
            }
            (Found::Ended { ticket, .. }, _) if Some(ticket) == asked => {}
            (_, Process::Launching { ticket }) => match &self.current {
                Some(current) => again.push(Action::Launch { ticket, release: current.release.clone() }),
                None => self.process = Process::Down,
            },
            // Its end left no trace.
            (_, Process::Up { .. } | Process::Draining { .. } | Process::Stopping { .. }) => {
                self.exited(asked.unwrap_or_default(), ExitCause::Unknown, now, again);
            }
            (_, Process::Swapping { ticket, release }) => again.push(Action::Swap { ticket, release }),
            (_, Process::Clearing { ticket }) => again.push(Action::Clear { ticket }),
            (_, Process::Down | Process::BackingOff { .. } | Process::Stuck { .. }) => {}
        }
    }

    fn forget_current_unless(&mut self, whole: Option<&ReleaseKey>) {
        if !planted(Fault::TrustAnyFolder) {
            self.current.take_if(|current| whole != Some(&current.release));
        }
    }

    fn forget_process(&mut self) {
        self.process = Process::Down;
        self.failures = 0;
        self.last_exit = None;
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::Digest;

    use super::super::{At, Note, Step, Upgrade, UpgradeFailure, Upgraded};
    use super::*;

    fn release(version: &str) -> ReleaseKey {
        ReleaseKey { version: version.parse().unwrap(), sha256: Digest([1; 32]) }
    }

    /// 1.0.0 runs, and is being upgraded to 2.0.0.
    fn upgrading(step: Step) -> Replica {
        let upgrade = Upgrade {
            attempt: "a".to_owned(),
            from: release("1.0.0"),
            to: release("2.0.0"),
            process: Ticket(1),
            at: At::Step { ticket: Ticket(2), step, since: Time(5) },
            done: Vec::new(),
            began: Time(5),
        };
        Replica {
            current: Some(Current { release: release("1.0.0"), since: Ticket(0) }),
            process: Process::Up { ticket: Ticket(1), pid: 7, since: Time(1), health: Health::Starting },
            stage: Stage::Staged { release: release("2.0.0") },
            upgrade: Some(upgrade),
            next_ticket: 3,
            ..Replica::default()
        }
    }

    fn after_an_outage(replica: &Replica) -> (Replica, Vec<Action>) {
        let boot = Boot::Earlier { whole: Some(release("1.0.0")) };
        replica.recover(Found::Nothing, Found::Nothing, boot, Time(9))
    }

    #[test]
    fn an_upgrade_in_whose_middle_the_host_restarted_is_over_and_not_its_packages_fault() {
        for step in [Step::Relup, Step::Install, Step::Prove] {
            let (next, told) = after_an_outage(&upgrading(step));
            assert_eq!((next.upgrade, next.process), (None, Process::Down));
            let failure = next.upgraded.unwrap().outcome.unwrap_err();
            assert_eq!((failure.step, failure.of_package, failure.spoiled), (step, false, false));
            assert!(failure.because.contains("host restarted"), "{failure:?}");
            assert!(matches!(&told[..], [Action::Note(Note::UpgradeFailed { .. })]), "{told:?}");
            assert_eq!(next.current.map(|it| it.release), Some(release("1.0.0")));
        }
        // It may have become permanent.
        assert_eq!(after_an_outage(&upgrading(Step::Permanent)).0.current, None);
    }

    #[test]
    fn what_an_upgrade_had_spoiled_before_the_host_restarted_is_spoiled_no_more() {
        let failure =
            UpgradeFailure { step: Step::Install, because: String::new(), of_package: true, spoiled: true };
        let (from, to) = (release("1.0.0"), release("2.0.0"));
        let (attempt, at, done) = ("a".to_owned(), Time(6), Vec::new());
        let upgraded = Upgraded { attempt, from, to, done, at, outcome: Err(failure) };
        let replica = Replica { upgrade: None, upgraded: Some(upgraded), ..upgrading(Step::Install) };
        let spoiled = |it: &Replica| it.upgraded.clone().unwrap().outcome.unwrap_err().spoiled;
        assert!(!spoiled(&after_an_outage(&replica).0));
        // What came of it since is no business of the outage.
        let later = Current { release: release("3.0.0"), since: Ticket(2) };
        assert!(spoiled(&after_an_outage(&Replica { current: Some(later), ..replica }).0));
    }
}
