//! Asking whether the process of a slot is ready, for as long as there is one.

use tokio::sync::mpsc;

use super::super::assigned;
use super::super::probe::{Check, probe};
use super::{Answer, SlotTask};
use crate::replica::{Health, Process};

impl SlotTask {
    /// A process that runs is asked whether it is ready; one that does not is not.
    pub(super) fn watch_health(&mut self) {
        let running = match self.replica.process {
            Process::Up { ticket, .. } => Some(ticket),
            _ => None,
        };
        if running == self.probing.as_ref().map(|(ticket, _)| *ticket) {
            return;
        }
        if let Some((_, cancel)) = self.probing.take() {
            cancel.cancel();
        }
        let Some(ticket) = running else {
            self.launched_with = None;
            self.unlimited = None;
            return;
        };
        self.confine();
        self.launched_with = self.shared.paths.ledger(&self.id).deployed().unwrap_or_default();
        self.publish();
        let cancel = self.shared.cancel.child_token();
        let settings = self.launched_with.clone().or_else(|| self.assigned.application());
        let check = assigned::check(settings.as_ref(), self.id.slot.number());
        // What was ready stays so until a check fails: only a change is news, and the first answer is compared with this.
        if check == Check::Process
            && matches!(self.replica.process, Process::Up { health: Health::Ready { .. }, .. })
        {
            self.probing = Some((ticket, cancel));
            return;
        }
        let (sender, mut passed) = mpsc::channel(4);
        let answers = self.answers.clone();
        self.shared.tracker.spawn(probe(check, sender, cancel.clone()));
        self.shared.tracker.spawn(async move {
            while let Some(passed) = passed.recv().await {
                if answers.send(Answer::Probed { ticket, passed }).await.is_err() {
                    return;
                }
            }
        });
        self.probing = Some((ticket, cancel));
    }
}
