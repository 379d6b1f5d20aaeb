//! The task of one slot: it feeds the machine, writes the ledger, and carries out what the machine asks for.
//!
//! It decides nothing. The order of the loop is the law: store, then act. What takes time runs in tasks of its own and comes
//! back as an answer; the task waits for nothing but the ledger.

mod counted;
mod health;
mod limits;
mod meshed;
pub(super) mod node;
mod recovery;
mod settle;
mod traffic;
mod turns;
mod vitals;
mod watched;

use std::sync::Arc;

use proto::ids::ReleaseKey;
use proto::pb;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, warn};

use super::acts::{self, SlotContext};
use super::assigned::{self, Assigned};
use super::ledger::{LedgerError, Remains};
use super::notes::event;

use self::health::{Failed, Watches};
pub(super) use self::recovery::Memory;
use self::settle::Book;
pub(super) use self::watched::RememberedLevels;
use super::process::{self, Ended, Keeper};
use super::{Shared, SlotId};
use crate::beam::thresholds::Watched;
use crate::clock::{self, Time};
use crate::link::Standing;
use crate::replica::recover::Found;
use crate::replica::report::{FailedCheck, Surroundings};
use crate::replica::{Action, Condemned, Event, Launch, Note, Process, Replica, Restart, Ticket};

/// Answers of one slot under way: each action gives one, and a list of probes one per change.
const ANSWERS: usize = 64;
/// An order is small and is taken at once.
pub(super) const ORDERS: usize = 16;

/// What the supervisor says to a slot. An assignment was stored before.
#[derive(Debug)]
pub(super) enum SlotOrder {
    Assigned(Box<pb::Assignment>),
    /// One could not be taken or stored: why.
    Refused(String),
    /// That process, if it still runs, is to be ended and started anew.
    Condemned {
        pid: u32,
        condemned: Condemned,
        /// Whether it is.
        taken: oneshot::Sender<bool>,
    },
}

/// What comes back from an action.
#[derive(Debug)]
pub(super) enum Answer {
    Event(Event),
    /// With the hold on the process, where there is one.
    Launched {
        ticket: Ticket,
        result: Launch,
        keeper: Option<Box<Keeper>>,
        ended: Option<Ended>,
    },
    /// The folders could not be touched because a process lives.
    Held {
        event: Event,
        keeper: Box<Keeper>,
    },
    Probed {
        ticket: Ticket,
        passed: bool,
    },
    Checked {
        ticket: Ticket,
        check: Box<FailedCheck>,
    },
    /// A process is bounded; what of it does not hold: its limits, and that it ends by itself alone.
    Confined {
        ticket: Ticket,
        faults: [Option<String>; 2],
    },
    /// Who else has one of the process's ports, in words; `None`: nobody any more.
    PortHeld {
        ticket: Ticket,
        held: Option<String>,
    },
    Remains(Remains),
    Fetched {
        ticket: Ticket,
        bytes: u64,
    },
}

pub(super) struct SlotTask {
    id: SlotId,
    shared: Arc<Shared>,
    context: Arc<SlotContext>,
    replica: Replica,
    book: Book,
    assigned: Assigned,
    /// The settings with which the process was launched that runs; what is assigned since counts from the next deployment.
    launched_with: Option<pb::Application>,
    keeper: Option<Keeper>,
    answers: mpsc::Sender<Answer>,
    /// Cancels what brings a release into `new`.
    preparing: CancellationToken,
    watches: Watches,
    failed_check: Option<Failed>,
    node: Option<node::NodeWatch>,
    /// What of its virtual machine is watched for its limit.
    watched: watch::Sender<Watched>,
    /// To which of its siblings it is kept connected.
    cluster: watch::Sender<pb::Cluster>,
    /// Which of its events are counted.
    telemetry: watch::Sender<Vec<String>>,
    killing: CancellationToken,
    /// Who has one of the ports of what runs here, or ran here last.
    port_held: Option<String>,
    remains: Remains,
    /// When the slot was last reported.
    told_at: Time,
    fetched_bytes: u64,
    /// What of the ledger could not be read. Until the control plane has said once more what is wanted.
    lost: Option<String>,
    /// Why the newest assignment is not in force.
    refused: Option<String>,
    /// Which limits of what runs do not hold, and that it has no scope of its own.
    unconfined: [Option<String>; 2],
    /// The memory of them was lost.
    unsure_of_pre_commands: bool,
    sending: traffic::Sending,
    standing: watch::Receiver<Standing>,
}

impl SlotTask {
    /// Takes the slot up from what its ledger says and its lock shows, and runs it until the agent stops.
    pub(super) async fn run(
        id: SlotId,
        shared: Arc<Shared>,
        memory: Result<Memory, LedgerError>,
        mut orders: mpsc::Receiver<SlotOrder>,
    ) {
        let span = tracing::info_span!("slot", app = %id.app, slot = %id.slot);
        let work = async {
            let (answers, mut answered) = mpsc::channel(ANSWERS);
            let mut task = Self::new(id, shared, answers);
            if task.take_up(memory, &mut orders).await {
                task.supervise(&mut orders, &mut answered).await;
            }
        };
        work.instrument(span).await;
    }

    fn new(id: SlotId, shared: Arc<Shared>, answers: mpsc::Sender<Answer>) -> Self {
        let context = Arc::new(SlotContext {
            id: id.clone(),
            folder: shared.release_folder(&id),
            dir: shared.paths.slot_dir(&id),
            folders: Mutex::new(()),
            upgrading: Mutex::new(()),
            upgrades: watch::channel(0).0,
        });
        let sending = traffic::Sending::new(&shared);
        let mut standing = shared.standing.clone();
        // How it stands now is news to this slot.
        standing.mark_changed();
        Self {
            id,
            shared,
            context,
            replica: Replica::default(),
            book: Book::default(),
            assigned: Assigned::default(),
            launched_with: None,
            keeper: None,
            answers,
            preparing: CancellationToken::new(),
            watches: Watches::default(),
            failed_check: None,
            node: None,
            watched: watch::Sender::default(),
            cluster: watch::Sender::default(),
            telemetry: watch::Sender::default(),
            killing: CancellationToken::new(),
            port_held: None,
            remains: Remains::default(),
            told_at: Time::default(),
            fetched_bytes: 0,
            lost: None,
            refused: None,
            unconfined: [None, None],
            unsure_of_pre_commands: false,
            sending,
            standing,
        }
    }

    async fn supervise(
        &mut self,
        orders: &mut mpsc::Receiver<SlotOrder>,
        answered: &mut mpsc::Receiver<Answer>,
    ) {
        let cancel = self.shared.cancel.clone();
        loop {
            let now = clock::now();
            let deadline = self.replica.deadline(self.told_at).into_iter().chain(self.book.deadline()).min();
            tokio::select! {
                // Exits before orders, orders before time: a crash is answered at once.
                biased;
                () = cancel.cancelled() => return,
                ended = ended(&mut self.keeper) => {
                    self.keeper = None;
                    self.exited(ended);
                }
                Some(answer) = answered.recv() => self.answered(answer),
                order = orders.recv() => match order {
                    Some(order) => self.ordered(order),
                    // The supervisor is gone, and with it the agent.
                    None => return,
                },
                () = self.sending.fault_changed(&self.id.app) => self.publish(),
                // What time alone has changed by now is told and stored with it.
                () = node::changed(&mut self.node) => self.happen(Event::Tick),
                Ok(()) = self.standing.changed() => {
                    let held = *self.standing.borrow_and_update() == Standing::Connected;
                    self.happen(Event::Linked { held });
                }
                () = sleep(deadline.map_or_else(Default::default, |at| at.wait_from(now))), if deadline.is_some() => {
                    self.happen(Event::Tick);
                }
            }
        }
    }

    fn ordered(&mut self, order: SlotOrder) {
        match order {
            SlotOrder::Assigned(assignment) => {
                let limits = self.limits();
                self.assigned = Assigned::from(*assignment);
                if self.limits() != limits {
                    self.confine();
                }
                let told_of = self.lost.take().is_some() | self.refused.take().is_some();
                self.told();
                if told_of {
                    self.publish();
                }
            }
            SlotOrder::Refused(fault) => {
                self.refused = Some(fault);
                self.publish();
            }
            SlotOrder::Condemned { pid, condemned, taken } => match self.replica.process {
                Process::Up { ticket, pid: running, .. } if running == pid => {
                    let _ = taken.send(true);
                    self.happen(Event::Condemned { ticket, condemned });
                }
                // It has ended meanwhile, or is about to.
                _ => drop(taken.send(false)),
            },
        }
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Event(event) => self.happen(event),
            Answer::Launched { ticket, result, keeper, ended } => {
                self.keeper = keeper.map(|it| *it).or(self.keeper.take());
                self.happen(Event::Launched { ticket, result });
                if let Some(ended) = ended {
                    self.exited(ended);
                }
            }
            Answer::Held { event, keeper } => {
                self.keeper = Some(*keeper);
                self.happen(event);
            }
            Answer::Probed { ticket, passed } => {
                if passed {
                    self.passes_again(ticket);
                }
                self.happen(Event::Probed { ticket, passed });
            }
            Answer::Checked { ticket, check } => self.checked(ticket, *check),
            Answer::Confined { ticket, faults } => self.confined(ticket, faults),
            Answer::PortHeld { ticket, held } => self.port_is_held(ticket, held),
            Answer::Remains(remains) => {
                if let Err(fault) = self.shared.paths.ledger(&self.id).store_remains(&remains) {
                    warn!(fault = %acts::chain(&fault), "why the last process ended will not outlive this agent");
                }
                self.remains = remains;
                self.publish();
            }
            Answer::Fetched { ticket, bytes } => {
                if matches!(self.replica.stage, crate::replica::Stage::Fetching { ticket: it, .. } if it == ticket)
                {
                    self.fetched_bytes = bytes;
                    self.publish();
                }
            }
        }
    }

    fn exited(&mut self, ended: Ended) {
        debug!(?ended, "the process has ended");
        self.happen(Event::Exited { ticket: Ticket(ended.process.ticket), cause: ended.cause });
        // Read after the machine has answered, so that a restart does not wait for it.
        let exit_at = self.replica.last_exit.as_ref().map(|exit| exit.at);
        let began = clock::unix_ms_of_ticks(ended.process.start_ticks);
        acts::read_remains(&self.shared, &self.context, exit_at, began, ended.unix_ms, self.answers.clone());
    }

    fn publish(&mut self) {
        self.told_at = clock::now();
        let settings = self.launched_with.clone().or_else(|| self.assigned.application());
        let ports = assigned::ports(settings.as_ref(), self.id.slot.number());
        // Words of an earlier end are not those of the last one.
        let exit_at = self.replica.last_exit.as_ref().map(|exit| exit.at);
        let silent = Remains::default();
        let remains = if self.remains.exit_at == exit_at { &self.remains } else { &silent };
        let mut report = self.replica.report(Surroundings {
            app: self.id.app.as_str(),
            slot: u32::from(self.id.slot.number()),
            unix_ms: clock::unix_ms(),
            now: self.told_at,
            ports: &ports,
            log_tail: &remains.log_tail,
            slogan: &remains.slogan,
            crash_dump: &remains.crash_dump,
            failed_check: self.failed_check(),
            fetched_bytes: self.fetched_bytes,
            fault: &self.faults(),
        });
        let node::Said { node, vm, mesh, certificate: _ } = self.said_of_node();
        report.waiting_settings = self.waiting_settings();
        (report.erlang, report.vm) = (node.map(|it| pb::ErlangNode { mesh, ..it }), vm);
        self.shared.report(&self.id, report);
        self.tell_traffic();
    }

    /// Of what runs: what only its next start would take up.
    fn waiting_settings(&self) -> Vec<String> {
        match (&self.launched_with, self.assigned.application()) {
            (Some(launched), Some(wanted)) => super::waiting::waiting(launched, &wanted),
            _ => Vec::new(),
        }
    }

    /// What is wrong around the machine.
    fn faults(&self) -> String {
        let [unlimited, unscoped] = self.unconfined.clone();
        let faults = [
            self.book.fault(),
            self.lost.clone(),
            self.refused.clone(),
            unlimited,
            unscoped,
            self.sending.fault(),
            self.port_held.clone(),
            self.said_of_node().certificate,
        ];
        faults.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    /// The last restart that was asked for and done; empty: none was.
    pub(super) fn restart_done(&self) -> String {
        match &self.replica.restart {
            Restart::Done { request } => request.clone(),
            Restart::Never | Restart::Due { .. } => String::new(),
        }
    }

    /// What the machine does because it was asked to may have been asked for a reason.
    fn with_its_reason(&self, note: Note) -> Note {
        match note {
            Note::Restarting { restarts, because: None } => {
                Note::Restarting { restarts, because: self.assigned.restart_because() }
            }
            other => other,
        }
    }

    fn carry_out(&mut self, action: Action) {
        let (shared, context, answers) = (self.shared.clone(), self.context.clone(), self.answers.clone());
        match action {
            Action::Prepare { ticket, release } => {
                self.preparing.cancel();
                self.preparing = self.shared.cancel.child_token();
                self.fetched_bytes = 0;
                let wanted = self.assigned.release(&release);
                acts::prepare(&shared, context, ticket, wanted, self.preparing.clone(), answers);
            }
            Action::RunPreCommand { ticket, release, index } => {
                self.killing = self.shared.cancel.child_token();
                let command = self.assigned.pre_command(&release, index);
                acts::run_pre_command(&shared, context, ticket, command, self.killing.clone(), answers);
            }
            Action::KillPreCommand { .. } => self.killing.cancel(),
            Action::Swap { ticket, release } => {
                let settings = (self.assigned.application(), self.restart_done());
                acts::swap(&shared, context, ticket, release, settings, answers);
            }
            Action::Clear { ticket } => {
                self.preparing.cancel();
                acts::clear(&shared, context, ticket, answers);
            }
            Action::Launch { ticket, release } => {
                let assigned = self.assigned.release(&release).map(|(_, app)| app);
                let settings = (assigned, self.restart_done());
                acts::launch(&shared, context, ticket, release, self.limits(), settings, answers);
            }
            Action::Upgrade { ticket, step, from, to } => {
                // A new agent asks for it before it has looked for the node.
                self.watch_health();
                let app = self.launched_with.clone().or_else(|| self.assigned.application());
                let (app, node) = (app.unwrap_or_default(), self.node_end());
                let checks = super::probe::ready(Some(&app), self.id.slot.number());
                let asker = self.asker(app.clone());
                let waiting = if self.assigned.is_to_be_hot() { Vec::new() } else { self.waiting_settings() };
                let subject = acts::Subject { from, to, app, node, waiting };
                acts::upgrade(&shared, context, (ticket, step), subject, (checks, asker), answers);
            }
            Action::UndoUpgrade { ticket } => {
                self.watch_health();
                acts::undo_upgrade(&shared, context, ticket, self.node_end(), answers);
            }
            Action::Withdraw { ticket } => self.withdraw(ticket),
            Action::Stop { ticket, grace } => match &self.keeper {
                Some(keeper) if keeper.process().ticket == ticket.0 => {
                    keeper.stop(std::time::Duration::from_millis(grace));
                }
                _ => warn!(?ticket, "there is no hold on the process that is to stop"),
            },
            Action::Note(note) => {
                let note = self.with_its_reason(note);
                let is_bad = note.is_bad();
                let event = event(&self.id, note, clock::unix_ms());
                match is_bad {
                    true => warn!("{}", event.text),
                    false => info!("{}", event.text),
                }
                self.shared.note(event);
            }
        }
    }
}

/// Waits for the end of what is held; for ever where nothing is.
async fn ended(keeper: &mut Option<Keeper>) -> Ended {
    match keeper {
        Some(keeper) => keeper.ended().await,
        None => std::future::pending().await,
    }
}

/// What a release is called in a message.
pub(super) fn name(release: &ReleaseKey) -> String {
    release.version.to_string()
}

/// For the machine: what a hold on a process says.
pub(super) fn found(found: &process::Found) -> Found {
    match found {
        process::Found::Nothing => Found::Nothing,
        process::Found::Running(keeper) => {
            let process = keeper.process();
            Found::Running { ticket: Ticket(process.ticket), pid: process.pid }
        }
        process::Found::Ended(ended) => {
            Found::Ended { ticket: Ticket(ended.process.ticket), cause: ended.cause }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeper_and_machine_mean_the_same_by_a_ticket_that_was_lost() {
        assert_eq!(Ticket(process::Process::TICKET_LOST), Ticket::LOST);
    }
}
