//! Asking whether the process of a slot is ready, for as long as there is one.

use tokio::sync::mpsc;
use tracing::warn;

use super::super::assigned;
use super::super::listeners::{Ports, vouch};
use super::super::notes;
use super::super::probe::{Check, probe};
use super::SlotTask;
use crate::clock;
use crate::replica::{Health, Process, Ticket};

impl SlotTask {
    /// A process that runs is asked whether it is ready; one that does not is not.
    pub(super) fn watch_health(&mut self) {
        let (running, pid) = match self.replica.process {
            Process::Up { ticket, pid, .. } => (Some(ticket), pid),
            _ => (None, 0),
        };
        if running == self.probing.as_ref().map(|(ticket, _)| *ticket) {
            return;
        }
        if let Some((_, cancel)) = self.probing.take() {
            cancel.cancel();
        }
        let Some(ticket) = running else {
            self.launched_with = None;
            // Who held its port may be why it ended: that is said until it runs again, or is not to.
            if !matches!(self.replica.process, Process::BackingOff { .. } | Process::Launching { .. }) {
                self.port_held = None;
            }
            return;
        };
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
        let (sender, checks) = mpsc::channel(4);
        self.shared.tracker.spawn(probe(check, sender, cancel.clone()));
        let ports = assigned::ports(settings.as_ref(), self.id.slot.number());
        let ports = Ports {
            id: self.id.clone(),
            pid,
            numbers: ports.into_iter().map(|(_, port)| port).collect(),
            checked: match check {
                Check::Tcp { port } => Some(port),
                Check::Process => None,
            },
            slots: self.shared.paths.slots(),
        };
        self.shared.tracker.spawn(vouch(ports, ticket, checks, self.answers.clone(), cancel.clone()));
        self.probing = Some((ticket, cancel));
    }

    /// Told once for each stranger; the report says it for as long as it is so.
    pub(super) fn port_is_held(&mut self, ticket: Ticket, held: Option<String>) {
        if self.probing.as_ref().map(|(ticket, _)| *ticket) != Some(ticket) || self.port_held == held {
            return;
        }
        if let Some(fault) = &held {
            warn!(fault, "a port of this slot is another's");
            self.shared.note(notes::port_held(&self.id, fault, clock::unix_ms()));
        }
        self.port_held = held;
        self.publish();
    }
}
