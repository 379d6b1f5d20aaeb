//! What was decided and not yet begun, because the slot's ledger does not hold the decision. Pure.

use crate::replica::Action;

/// At most one thing about the process and one each about what is staged: a later decision takes the place of an earlier one.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<Action>);

impl Held {
    pub(super) fn add(&mut self, actions: impl IntoIterator<Item = Action>) {
        for action in actions {
            self.0.retain(|earlier| !replaces(&action, earlier));
            self.0.push(action);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it: the ledger holds it.
    pub(super) fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.0)
    }

    /// What is begun although the ledger could not be written: what is only said, the end of a pre-command that runs, and,
    /// where `relaunch`, the start of what the ledger knows to lie in the slot.
    pub(super) fn take_free(&mut self, relaunch: bool) -> Vec<Action> {
        let waits = self.0.iter().any(|it| matches!(it, Action::RunPreCommand { .. }));
        let (free, held) = self.take().into_iter().partition(|action| match action {
            Action::Note(_) => true,
            Action::KillPreCommand { .. } => !waits,
            Action::Launch { .. } => relaunch,
            Action::Prepare { .. }
            | Action::RunPreCommand { .. }
            | Action::Swap { .. }
            | Action::Withdraw { .. }
            | Action::Stop { .. }
            | Action::Clear { .. } => false,
        });
        self.0 = held;
        free
    }
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
    use super::*;
    use crate::replica::{Note, Ticket};

    fn stop(ticket: u64) -> Action {
        Action::Stop { ticket: Ticket(ticket), grace: 1 }
    }

    fn launch(ticket: u64) -> Action {
        let release =
            proto::ids::ReleaseKey { version: "1.0".parse().unwrap(), sha256: proto::ids::Digest([1; 32]) };
        Action::Launch { ticket: Ticket(ticket), release }
    }

    #[test]
    fn a_later_decision_about_the_process_takes_the_place_of_the_earlier() {
        let mut held = Held::default();
        held.add([stop(1), stop(1)]);
        held.add([launch(2)]);
        assert_eq!(held.take(), [launch(2)]);
        assert!(held.is_empty());
    }

    #[test]
    fn only_what_needs_no_ledger_is_begun_without_one() {
        let mut held = Held::default();
        held.add([Action::Note(Note::Stopped), stop(1)]);
        assert_eq!(held.take_free(true), [Action::Note(Note::Stopped)]);
        assert_eq!(held.take_free(true), []);
        held.add([launch(2)]);
        assert_eq!(held.take_free(false), []);
        assert_eq!(held.take_free(true), [launch(2)]);
    }

    #[test]
    fn a_pre_command_that_waits_is_not_ended_before_it_began() {
        let release =
            proto::ids::ReleaseKey { version: "1.0".parse().unwrap(), sha256: proto::ids::Digest([1; 32]) };
        let run = Action::RunPreCommand { ticket: Ticket(1), release, index: 0 };
        let kill = Action::KillPreCommand { ticket: Ticket(1) };
        let mut held = Held::default();
        held.add([run.clone(), kill.clone()]);
        assert_eq!(held.take_free(true), []);
        assert_eq!(held.take(), [run, kill]);
    }
}
