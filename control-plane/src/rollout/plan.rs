//! `plan`: one fleet, one moment, one plan.

use proto::state::RolloutPhase;

use super::draft::Draft;
use super::gate::Failure;
use super::lifecycle::Heeded;
use super::place::Pace;
use super::{Plan, PreCommandsState, Rollout, Waiting};
use crate::clock::Time;
use crate::fleet::AppFleet;

/// More turns than a plan can take: from one rollout through its end into the next one.
const TURNS: usize = 8;

/// Decides what is to happen to an application now, and what it waits for otherwise.
///
/// The same fleet and time give the same plan. Once a plan is stored, planning again gives an empty one until something
/// is reported, wished, changed, or `wake_at` has come.
pub fn plan(fleet: &AppFleet, now: Time) -> Plan {
    let mut draft = Draft::new(fleet, now);
    // Whatever were decided, no node would hear of it: a trial would run out and a good release be ghosted.
    if let Some(because) = fleet.untold.clone() {
        draft.wait(Waiting::Untold { because });
        return draft.finish();
    }
    for _ in 0..TURNS {
        if !draft.turn() {
            break;
        }
        // What was waited for before the turn is not what is waited for after it.
        draft.plan.waiting.clear();
        draft.plan.wake_at = None;
    }
    draft.end_named();
    draft.keep_placement();
    draft.finish()
}

impl Draft<'_> {
    /// True where the rollout began, turned or ended, so that there is more to decide.
    fn turn(&mut self) -> bool {
        self.tidy();
        self.restart_named();
        let Some(rollout) = self.rollout.take() else {
            self.moves(None);
            if self.begin() {
                return true;
            }
            let in_force = self.in_force.clone().filter(|_| self.fleet.spec.is_some());
            self.restart_rolling(in_force.as_ref());
            self.settle(in_force.as_ref(), Pace::CatchUp);
            return false;
        };
        let rollout = match self.heed_the_wish(rollout) {
            Heeded::Same(mut rollout) => {
                if self.watch_predecessor(&mut rollout) {
                    self.rollout = Some(rollout);
                    return true;
                }
                rollout
            }
            Heeded::Turned(rollout) => {
                self.rollout = Some(rollout);
                return true;
            }
            Heeded::Over => return true,
        };
        self.moves(Some(&rollout));
        let turned = match rollout.phase {
            RolloutPhase::Pending | RolloutPhase::Running => self.move_on(rollout),
            RolloutPhase::Watching => self.keep_watch(rollout),
            RolloutPhase::Reverting => self.go_back(rollout),
            RolloutPhase::Done | RolloutPhase::Reverted | RolloutPhase::Superseded | RolloutPhase::Failed => {
                // Over already; it is not loaded as the one under way.
                true
            }
        };
        turned || self.count_predecessor()
    }

    fn move_on(&mut self, mut rollout: Rollout) -> bool {
        let before = (rollout.pre_commands.clone(), rollout.soaks());
        let failed_before = rollout.progress.failed.len();
        self.hear_of_upgrades(&mut rollout);
        let mut failure = self.failure_that_counts(&mut rollout);
        let stable = failure.is_none() && self.roll(&mut rollout);
        if failure.is_none() && (rollout.pre_commands.clone(), rollout.soaks()) != before {
            // Whose run counts has changed, and with it what a failed run means; or crashes count from now on.
            failure = self.failure_that_counts(&mut rollout);
        }
        // A leader that is done may stand on a node that drains.
        let done = matches!(before.0, PreCommandsState::RunBy { .. }) && rollout.pre_commands != before.0;
        let failed = rollout.progress.failed.len() != failed_before;
        if failure.is_none() {
            self.tell_what_came_in_full(&rollout);
        }
        let turned = stable || failure.is_some() || done || failed;
        if let Some(failure) = failure {
            self.fail(&mut rollout, failure);
        } else if stable {
            self.watch(&mut rollout);
        }
        self.rollout = Some(rollout);
        turned
    }

    /// The first failure that calls for going back; those that are tolerated are written down.
    fn failure_that_counts(&mut self, rollout: &mut Rollout) -> Option<Failure> {
        loop {
            let failure = self.failure(rollout);
            let failure = failure.or_else(|| if rollout.soaks() { self.crash_loop(rollout) } else { None });
            let failure = failure.or_else(|| self.failed_wherever_seen(rollout))?;
            if !self.tolerates(rollout, &failure) {
                return Some(failure);
            }
            self.tolerate(rollout, failure);
        }
    }

    fn keep_watch(&mut self, mut rollout: Rollout) -> bool {
        let failure = loop {
            match self.crash_loop(&mut rollout) {
                Some(failure) if self.tolerates(&rollout, &failure) => self.tolerate(&mut rollout, failure),
                failure => break failure,
            }
        };
        if let Some(failure) = failure {
            self.fail(&mut rollout, failure);
            self.rollout = Some(rollout);
            return true;
        }
        // Slots that are told from now on are told in it, also where the clock was put back.
        rollout.phase_since = rollout.phase_since.min(self.now);
        let left_ms = self.count_watch(&mut rollout.progress.watched);
        if left_ms == 0 {
            self.outlived(rollout);
            return true;
        }
        let version = rollout.release.version.to_string();
        let release = rollout.release.clone();
        self.name_failed(&rollout);
        self.rollout = Some(rollout);
        self.wait(Waiting::Watch { version, left_ms });
        self.restart_rolling(Some(&release));
        self.settle(Some(&release), Pace::CatchUp);
        false
    }

    fn go_back(&mut self, mut rollout: Rollout) -> bool {
        let from = rollout.from.clone();
        let settled = self.settle(from.as_ref(), Pace::Settle);
        let end = self.revert_end(&mut rollout);
        if settled {
            self.reverted(rollout, None);
            return true;
        }
        if self.now >= end {
            let left = self.plan.waiting.first().map(ToString::to_string);
            self.reverted(rollout, left);
            return true;
        }
        self.wake_at(end);
        self.rollout = Some(rollout);
        false
    }
}

#[cfg(test)]
mod tests {
    use proto::state::Strategy;

    use super::*;
    use crate::rollout::fixture::{fleet, store, wish};

    #[test]
    fn while_nodes_cannot_be_told_nothing_is_decided_and_no_time_runs_out() {
        let mut fleet = fleet(Strategy::StopFirst, 1, 1);
        fleet.wanted = Some(wish(1, 0));
        let begun = plan(&fleet, Time(0));
        assert!(!begun.steps.is_empty());
        store(&mut fleet, &begun, &mut std::collections::BTreeMap::new(), Time(0));

        fleet.untold = Some("its variable A cannot be had".to_owned());
        let held = plan(&fleet, Time(86_400_000));
        assert!(held.is_empty());
        assert_eq!(
            held.waiting.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "its variable A cannot be had; until it can, what runs stays as it is and nothing new is deployed"
            ]
        );
    }
}
