//! What was decided and not yet begun, because the slot's ledger does not hold the decision: what may begin without it, and
//! what of the ledger must outlive a power cut. Pure, so that the simulation keeps the same rules as the slot's task.

use super::fault::{Fault, planted};
use super::{Action, Replica, Stage, Ticket};
use crate::clock::Time;

/// At most one thing about the process and one each about what is staged: a later decision takes the place of an earlier one.
#[derive(Debug, Default)]
pub struct Held {
    actions: Vec<Action>,
    /// A process that was told to stop, and until when it has time for that.
    stopping: Option<(Ticket, Time)>,
}

impl Held {
    pub fn add(&mut self, actions: impl IntoIterator<Item = Action>, now: Time) {
        for action in actions {
            if self.is_hasty(&action, now) {
                continue;
            }
            self.actions.retain(|earlier| !replaces(&action, earlier));
            self.actions.push(action);
        }
    }

    /// The machine counts the grace from its decision. A stop that was held gives it from when it begins, and is not
    /// overtaken by the kill that would follow it; that one is decided again soon.
    fn is_hasty(&self, action: &Action, now: Time) -> bool {
        let Action::Stop { ticket, grace: 0 } = action else { return false };
        let told = |it: &Action| matches!(it, Action::Stop { ticket: same, grace: 1.. } if same == ticket);
        let has_time = self.stopping.is_some_and(|(same, until)| same == *ticket && now < until);
        (has_time || self.actions.iter().any(told)) && !planted(Fault::KillWhatWasNotTold)
    }

    /// A start is among it.
    #[cfg(test)]
    pub(super) fn waits_to_launch(&self) -> bool {
        self.actions.iter().any(|it| matches!(it, Action::Launch { .. }))
    }

    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// All of it: the ledger holds it.
    pub fn take(&mut self, now: Time) -> Vec<Action> {
        let all = std::mem::take(&mut self.actions);
        for action in &all {
            if let Action::Stop { ticket, grace: grace @ 1.. } = action {
                self.stopping = Some((*ticket, now.plus(*grace)));
            }
        }
        all
    }

    /// What is begun although the ledger could not be written: what is only said, the end of a pre-command that runs, and
    /// the start of what the ledger, which says `written`, knows to lie in the slot.
    pub fn take_free(&mut self, written: &Replica, decided: &Replica) -> Vec<Action> {
        let knows = written.current.is_some() && written.current == decided.current;
        let relaunch =
            (knows || planted(Fault::StartWhatIsNotWritten)) && !planted(Fault::StartNothingUnwritten);
        let waits = self.actions.iter().any(|it| matches!(it, Action::RunPreCommand { .. }));
        let (free, held) = std::mem::take(&mut self.actions).into_iter().partition(|action| match action {
            Action::Note(_) => true,
            Action::KillPreCommand { .. } => !waits,
            Action::Launch { .. } => relaunch,
            Action::RunPreCommand { .. } => planted(Fault::RunPreCommandsUnwritten),
            Action::Swap { .. } => planted(Fault::SwapUnwritten),
            Action::Stop { .. } => planted(Fault::StopUnwritten),
            Action::Prepare { .. }
            | Action::Withdraw { .. }
            | Action::Clear { .. }
            | Action::Upgrade { .. }
            | Action::UndoUpgrade { .. } => false,
        });
        self.actions = held;
        free
    }
}

/// Whether a ledger that says `written` must say `decided` even after a power cut: a later one would not be mended by looking
/// at the slot. A pre-command that was begun is not begun again.
pub fn must_last(written: &Replica, decided: &Replica) -> bool {
    let runs = |it: &Replica| matches!(it.stage, Stage::PreCommand { .. });
    let begins = runs(decided) && written.stage != decided.stage && !planted(Fault::BeginPreCommandsInMemory);
    // Who was stable once does not go back, and who went back does not go on, whatever becomes of the host.
    let judged = decided.trial.as_ref().is_some_and(|it| !it.counts()) && written.trial != decided.trial;
    let upgraded = written.upgraded != decided.upgraded;
    written.current != decided.current
        || written.pre_commands != decided.pre_commands
        || begins
        || judged
        || upgraded
}

fn replaces(new: &Action, earlier: &Action) -> bool {
    let about_the_process = |it: &Action| {
        matches!(
            it,
            Action::Swap { .. }
                | Action::Launch { .. }
                | Action::Withdraw { .. }
                | Action::Stop { .. }
                | Action::Clear { .. }
                | Action::Upgrade { .. }
                | Action::UndoUpgrade { .. }
        )
    };
    match new {
        Action::Note(_) | Action::RunPreCommand { .. } => false,
        Action::Prepare { .. } => matches!(earlier, Action::Prepare { .. }),
        Action::KillPreCommand { .. } => matches!(earlier, Action::KillPreCommand { .. }),
        new => about_the_process(new) && about_the_process(earlier),
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::{Digest, ReleaseKey};

    use super::*;
    use crate::replica::{Current, Note, Trial, Verdict};

    const NOW: Time = Time(1_000);

    fn release() -> ReleaseKey {
        ReleaseKey { version: "1.0".parse().unwrap(), sha256: Digest([1; 32]) }
    }

    fn stop(ticket: u64, grace: u64) -> Action {
        Action::Stop { ticket: Ticket(ticket), grace }
    }

    fn launch(ticket: u64) -> Action {
        Action::Launch { ticket: Ticket(ticket), release: release() }
    }

    fn holds(since: u64) -> Replica {
        let current = Some(Current { release: release(), since: Ticket(since) });
        Replica { current, ..Replica::default() }
    }

    #[test]
    fn a_later_decision_about_the_process_takes_the_place_of_the_earlier() {
        let mut held = Held::default();
        held.add([stop(1, 5), stop(1, 5)], NOW);
        held.add([launch(2)], NOW);
        assert_eq!(held.take(NOW), [launch(2)]);
        assert!(held.is_empty());
    }

    #[test]
    fn what_was_judged_of_a_release_outlives_a_power_cut_and_that_its_time_runs_need_not() {
        let judged = |verdict| {
            let trial = Some(Trial { rollout: "r".to_owned(), verdict });
            Replica { trial, ..holds(1) }
        };
        let counting = |spent| judged(Verdict::Counting { spent, counted_to: NOW });
        assert!(!must_last(&counting(0), &counting(5)));
        for verdict in [Verdict::Stable, Verdict::FellBack { because: "it hangs".to_owned() }] {
            assert!(must_last(&counting(5), &judged(verdict.clone())));
            assert!(!must_last(&judged(verdict.clone()), &judged(verdict)));
        }
    }

    #[test]
    fn only_what_needs_no_ledger_is_begun_without_one() {
        let mut held = Held::default();
        held.add([Action::Note(Note::Stopped), stop(1, 5)], NOW);
        assert_eq!(held.take_free(&holds(1), &holds(1)), [Action::Note(Note::Stopped)]);
        assert_eq!(held.take_free(&holds(1), &holds(1)), []);
        held.add([launch(2)], NOW);
        assert_eq!(held.take_free(&Replica::default(), &holds(1)), []);
        assert_eq!(held.take_free(&holds(1), &holds(1)), [launch(2)]);
    }

    #[test]
    fn a_pre_command_that_waits_is_not_ended_before_it_began() {
        let run = Action::RunPreCommand { ticket: Ticket(1), release: release(), index: 0 };
        let kill = Action::KillPreCommand { ticket: Ticket(1) };
        let mut held = Held::default();
        held.add([run.clone(), kill.clone()], NOW);
        assert_eq!(held.take_free(&holds(1), &holds(1)), []);
        assert_eq!(held.take(NOW), [run, kill]);
    }

    #[test]
    fn a_stop_that_had_to_wait_gives_its_grace_from_when_it_begins() {
        let mut held = Held::default();
        held.add([stop(1, 5_000)], NOW);
        // The machine's patience is over before the ledger could be written.
        held.add([stop(1, 0)], NOW.plus(10_000));
        assert_eq!(held.take(NOW.plus(11_000)), [stop(1, 5_000)]);
        held.add([stop(1, 0)], NOW.plus(15_000));
        assert!(held.is_empty());
        held.add([stop(1, 0)], NOW.plus(16_000));
        assert_eq!(held.take(NOW.plus(16_000)), [stop(1, 0)]);
        held.add([stop(2, 0)], NOW.plus(16_001));
        assert_eq!(held.take(NOW.plus(16_001)), [stop(2, 0)]);
    }
}
