//! What a slot tells of itself to whoever sends requests, and the wait until nobody is sent to it.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::ids::AppName;
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::traffic::Standing;
use super::super::{Shared, assigned};
use super::{Answer, SlotTask};
use crate::replica::{Event, Health, Process, Replica, Ticket, WITHDRAW_MAX};

/// The slot's side of it.
pub(super) struct Sending {
    faults: watch::Receiver<BTreeMap<AppName, String>>,
    /// As it was reported last.
    fault: Option<String>,
    /// It is known what runs here: before that nothing is told.
    pub(super) known: bool,
    /// A process that was found, whose health nobody remembers: it may be one that requests are sent to, until it was asked.
    pub(super) unsure_of: Option<Ticket>,
}

impl Sending {
    pub(super) fn new(shared: &Shared) -> Self {
        Self { faults: shared.traffic.faults(), fault: None, known: false, unsure_of: None }
    }

    /// For the slot's report.
    pub(super) fn fault(&self) -> Option<String> {
        self.fault.clone()
    }

    /// Until something else is wrong with the application's file, or nothing any more.
    pub(super) async fn fault_changed(&mut self, app: &AppName) {
        loop {
            if self.faults.changed().await.is_err() {
                return std::future::pending().await;
            }
            let fault = self.faults.borrow_and_update().get(app).cloned();
            if fault != self.fault {
                self.fault = fault;
                return;
            }
        }
    }
}

impl SlotTask {
    /// Returns the revision in which it was told.
    pub(super) fn tell_traffic(&mut self) -> u64 {
        if let Some(ticket) = self.sending.unsure_of
            && !is_starting(&self.replica, ticket)
        {
            self.sending.unsure_of = None;
        }
        if !self.sending.known {
            return 0;
        }
        if self.sending.unsure_of.is_some() {
            let why = "its ledger was lost, and what runs there has not passed its checks since";
            self.shared.traffic.unknown(&self.id, why);
            return 0;
        }
        let settings = self.launched_with.clone().or_else(|| self.assigned.application());
        let standing = Standing {
            generation: self.assigned.generation(),
            is_wanted: self.assigned.is_wanted(),
            nginx: self.assigned.application().and_then(|it| it.nginx),
            ports: assigned::ports(settings.as_ref(), self.id.slot.number()),
            is_ready: self.book.serves(&self.replica),
        };
        self.shared.traffic.tell(&self.id, standing)
    }

    /// Answers once nobody is sent to the slot; the machine waits no longer than this does.
    pub(super) fn withdraw(&mut self, ticket: Ticket) {
        let revision = self.tell_traffic();
        let (shared, app, answers) = (self.shared.clone(), self.id.app.clone(), self.answers.clone());
        self.shared.tracker.spawn(async move {
            let withdrawn = tokio::select! {
                biased;
                () = shared.cancel.cancelled() => return,
                withdrawn = timeout(
                    Duration::from_millis(WITHDRAW_MAX),
                    shared.traffic.is_in_force(&app, revision),
                ) => withdrawn,
            };
            if withdrawn.is_ok() {
                let _ = answers.send(Answer::Event(Event::Withdrawn { ticket })).await;
            }
        });
    }
}

fn is_starting(replica: &Replica, of: Ticket) -> bool {
    matches!(replica.process, Process::Up { ticket, health: Health::Starting, .. } if ticket == of)
}
