//! The limits of what runs: set as they are assigned, also while it runs, and said where they do not hold.

use super::super::{assigned, process};
use super::{Answer, SlotTask};
use crate::cgroup::Limits;
use crate::cgroup::home::unlimited;
use crate::replica::Ticket;

impl SlotTask {
    pub(super) fn limits(&self) -> Limits {
        assigned::limits(self.assigned.application().as_ref())
    }

    /// Makes the limits of what runs those that are assigned. On a thread of its own: where less memory is asked for than is
    /// used, the kernel takes its time.
    pub(super) fn confine(&mut self) {
        let Some(process) = self.keeper.as_ref().map(|it| *it.process()) else { return };
        let (limits, dir) = (self.limits(), self.context.dir.clone());
        let (shared, answers) = (self.shared.clone(), self.answers.clone());
        self.shared.tracker.spawn(async move {
            let look = move || {
                let group = process::cgroup_of(&dir, &process);
                if let Some(group) = group.as_ref().filter(|it| it.limits() != limits)
                    && let Err(unset) = group.limit(&limits)
                {
                    tracing::warn!(group = %group.path().display(), unset, "limits cannot be set");
                }
                let unlimited = unlimited(group.as_ref(), &limits, shared.keepers().why_not().as_deref());
                [unlimited, shared.keepers().unscoped(process.pid)]
            };
            if let Ok(faults) = tokio::task::spawn_blocking(look).await {
                let _ = answers.send(Answer::Confined { ticket: Ticket(process.ticket), faults }).await;
            }
        });
    }

    pub(super) fn confined(&mut self, ticket: Ticket, faults: [Option<String>; 2]) {
        let is_of_this = self.keeper.as_ref().is_some_and(|it| it.process().ticket == ticket.0);
        if is_of_this && self.unconfined != faults {
            self.unconfined = faults;
            self.publish();
        }
    }
}
