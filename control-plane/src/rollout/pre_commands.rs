//! Pre-commands: one slot of the fleet runs them before anything is moved, the others wait.
//!
//! A run that was never reported finished is begun anew elsewhere only when its node is lost; where the first run did
//! finish unseen, they have then run twice, which no record on this side could tell.

use std::sync::Arc;

use proto::state::Liveness;

use super::draft::{Draft, Host};
use super::fault::planted;
use super::place::{Next, Pace};
use super::{HappeningKind, PreCommandsState, Rollout, Waiting};
use crate::fleet::{Place, PreCommandsOutcome};

impl<'a> Draft<'a> {
    /// True once they have passed, or there are none.
    pub(super) fn pre_commands_passed(&mut self, rollout: &mut Rollout) -> bool {
        if let PreCommandsState::RunBy { place, run_id } = &rollout.pre_commands
            && let Some(printed) = self.run_passed(*place, run_id)
        {
            let place = *place;
            rollout.pre_commands = PreCommandsState::Passed;
            self.record_run(rollout, place, printed);
            // Its time to become stable begins now.
            rollout.progress.trials.remove(&place);
            let text =
                format!("the pre-commands of {} passed on {}", rollout.release.version, self.named(place));
            self.happened(HappeningKind::PreCommandsPassed, rollout, Some(place), text);
        }
        match rollout.pre_commands.clone() {
            PreCommandsState::NotNeeded | PreCommandsState::EveryReplica | PreCommandsState::Passed => true,
            PreCommandsState::Failed { .. } => false,
            PreCommandsState::Waiting => {
                match self.leader(rollout) {
                    Some((host, place)) => self.lead(rollout, host, place),
                    None if self.has_all_moved(rollout) => {
                        // They ran in the rollout that brought the release there.
                        rollout.pre_commands = PreCommandsState::NotNeeded;
                        return true;
                    }
                    None => self.wait_for_leader(rollout),
                }
                planted!(DoNotWaitForPreCommands)
            }
            PreCommandsState::RunBy { place, .. } => {
                if self.follow(rollout, place) {
                    return true;
                }
                planted!(DoNotWaitForPreCommands)
            }
        }
    }

    /// What they printed.
    pub(super) fn run_passed(&self, place: Place, run_id: &str) -> Option<&'a Arc<str>> {
        let report = self.fleet.observed.get(&place)?.pre_commands.as_ref()?;
        let passed = report.run_id == *run_id && report.outcome == PreCommandsOutcome::Passed;
        passed.then_some(&report.printed)
    }

    /// While a slot runs them: another leads when it is gone for good. True where none needs to.
    fn follow(&mut self, rollout: &mut Rollout, place: Place) -> bool {
        // One on a node that drains is left to finish.
        let host = self.host_to_empty(place.node);
        let still_told = self.release_at(place) == Some(&rollout.release);
        let gone = !still_told
            || host.is_none_or(|host| {
                host.is(Liveness::Lost) || (planted!(ReplaceSuspectLeader) && host.is(Liveness::Suspect))
            });
        let Some(host) = host.filter(|_| !gone) else {
            match (self.leader(rollout), host) {
                (Some((host, place)), _) => self.lead(rollout, host, place),
                (None, _) if self.has_all_moved(rollout) => {
                    rollout.pre_commands = PreCommandsState::NotNeeded;
                    return true;
                }
                (None, Some(host)) if still_told => {
                    self.wait(Waiting::PreCommandsLeader { node: host.node.name.clone() });
                }
                (None, _) => {
                    rollout.pre_commands = PreCommandsState::Waiting;
                    self.wait_for_leader(rollout);
                }
            }
            return false;
        };
        match self.report(place) {
            Some(seen) if seen.pre_commands.is_some() => {
                self.wait(Waiting::PreCommands { node: host.node.name.clone(), slot: place.slot });
            }
            _ => self.wait_for(host, place, Some(rollout)),
        }
        false
    }

    /// The slot that would be told first.
    fn leader(&self, rollout: &Rollout) -> Option<(Host<'a>, Place)> {
        self.hosts().iter().filter(|host| host.is(Liveness::Up)).find_map(|host| {
            match self.next(*host, &rollout.release, Pace::OneByOne) {
                Next::Assign(slots) => slots.first().map(|slot| (*host, host.place(*slot))),
                Next::Settled | Next::Withdraw(_) | Next::TakingUp(_) | Next::Wait { .. } => None,
            }
        })
    }

    /// Every slot that can be told anything was told the release.
    fn has_all_moved(&self, rollout: &Rollout) -> bool {
        let mut up = self.hosts().iter().filter(|host| host.is(Liveness::Up)).peekable();
        up.peek().is_some()
            && up.all(|host| {
                let next = self.next(*host, &rollout.release, Pace::OneByOne);
                matches!(next, Next::Settled | Next::Withdraw(_))
            })
    }

    fn wait_for_leader(&mut self, rollout: &Rollout) {
        let mut up = false;
        for host in self.hosts().to_vec().into_iter().filter(|host| host.is(Liveness::Up)) {
            up = true;
            let node = host.node.name.clone();
            match self.next(host, &rollout.release, Pace::OneByOne) {
                Next::TakingUp(slot) => self.wait(Waiting::ToBeTakenUp { node, slot }),
                Next::Wait { slot, others } => self.wait_for_others(host, slot, others),
                Next::Settled | Next::Assign(_) | Next::Withdraw(_) => {}
            }
        }
        if !up {
            self.wait_for_nodes();
        }
    }

    fn lead(&mut self, rollout: &mut Rollout, host: Host<'_>, place: Place) {
        if let Some(paused) = rollout.progress.paused.as_ref().filter(|_| !planted!(IgnorePause)) {
            self.wait(Waiting::Paused { app: self.fleet.app.clone(), by: paused.by.clone() });
            return;
        }
        rollout.progress.pre_commands_runs += 1;
        let run_id = format!("{}-{}", rollout.id, rollout.progress.pre_commands_runs);
        self.assign(place, &rollout.release, Some(run_id.clone()));
        let again = match &rollout.pre_commands {
            PreCommandsState::RunBy { place: lost, .. } => {
                format!(", because {} is lost and never reported them finished", self.named(*lost))
            }
            _ => String::new(),
        };
        rollout.pre_commands = PreCommandsState::RunBy { place, run_id };
        let text =
            format!("{} runs the pre-commands of {}{again}", self.named(place), rollout.release.version);
        self.happened(HappeningKind::PreCommandsStarted, rollout, Some(place), text);
        self.wait(Waiting::PreCommands { node: host.node.name.clone(), slot: place.slot });
    }
}
