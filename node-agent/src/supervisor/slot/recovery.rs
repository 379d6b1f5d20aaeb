//! Taking a slot up: what its ledger says and what its lock shows become the state to go on from.
//!
//! Where the ledger's memory of the machine is lost, the lock still says what runs, and the mark in `current` of which
//! release that is: a swap takes the lock, so what runs was started from what lies there. Nothing healthy is restarted for it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;

use proto::ids::ReleaseKey;
use proto::pb;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::super::acts;
use super::super::assigned::{self, Assigned};
use super::super::hindrance::Hindrance;
use super::super::ledger::{Ledger, LedgerError, Runtime};
use super::super::notes;
use super::super::process::FindError;
use super::settle::Book;
use super::{SlotOrder, SlotTask};
use crate::clock;
use crate::replica::recover::{Boot, Found};
use crate::replica::{Event, PreCommandFailure, PreCommandsRun, Replica, Stage, Ticket};

/// A slot that cannot be taken up is looked at again after this, doubling …
const LOOK_AGAIN_MIN: u64 = 1_000;
/// … to this.
const LOOK_AGAIN_MAX: u64 = 60_000;

/// What a slot's ledger remembers.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Memory {
    assignment: Option<pb::Assignment>,
    runtime: Option<Runtime>,
    /// What could not be read and was set aside, in words.
    lost: Vec<String>,
}

impl Memory {
    /// An error: a file can be neither read nor set aside.
    pub(in crate::supervisor) fn load(ledger: &Ledger) -> Result<Self, LedgerError> {
        let mut lost = Vec::new();
        let assignment = or_lost(ledger.assignment(), &mut lost)?;
        let runtime = or_lost(ledger.runtime(), &mut lost)?;
        // Only that it can be read: it is read again by whoever needs it.
        or_lost(ledger.deployed(), &mut lost)?;
        Ok(Self { assignment, runtime, lost })
    }

    /// What the slot is to run is known and nothing was lost.
    pub(in crate::supervisor) fn is_whole(&self) -> bool {
        self.assignment.is_some() && self.lost.is_empty()
    }
}

fn or_lost<T>(
    read: Result<Option<T>, LedgerError>,
    lost: &mut Vec<String>,
) -> Result<Option<T>, LedgerError> {
    match read {
        Err(fault) if fault.was_set_aside() => {
            lost.push(acts::chain(&fault));
            Ok(None)
        }
        other => other,
    }
}

impl SlotTask {
    /// Until it is known what the slot holds; before that nothing may be decided about it. False: the agent stops.
    pub(super) async fn take_up(
        &mut self,
        mut memory: Result<Memory, LedgerError>,
        orders: &mut mpsc::Receiver<SlotOrder>,
    ) -> bool {
        let mut pause = LOOK_AGAIN_MIN;
        loop {
            let fault = match memory {
                Ok(memory) => match self.recover(memory).await {
                    Ok(()) => return true,
                    Err(fault) => acts::chain(&fault),
                },
                Err(fault) => acts::chain(&fault),
            };
            self.leave_alone(fault);
            tokio::select! {
                // An order that was stored may be what heals it.
                biased;
                () = self.shared.cancel.cancelled() => return false,
                order = orders.recv() => match order {
                    Some(SlotOrder::Refused(fault)) => self.refused = Some(fault),
                    // What cannot be told to be the one that was meant, is not ended.
                    Some(SlotOrder::Assigned(_) | SlotOrder::Condemned { .. }) => {}
                    None => return false,
                },
                () = sleep(std::time::Duration::from_millis(pause)) => {}
            }
            pause = pause.saturating_mul(2).min(LOOK_AGAIN_MAX);
            memory = Memory::load(&self.shared.paths.ledger(&self.id));
        }
    }

    fn leave_alone(&mut self, fault: String) {
        self.shared.traffic.unknown(&self.id, &fault);
        let fault =
            format!("it is not known what runs here, and it is left alone: {fault}; it is tried again");
        if self.lost.as_ref() != Some(&fault) {
            error!(fault, "this slot cannot be taken up");
            self.lost = Some(fault);
        }
        self.shared.report_fault(&self.id, pb::SlotState::Failed, self.faults());
    }

    async fn recover(&mut self, memory: Memory) -> Result<(), FindError> {
        let Memory { assignment, runtime, lost } = memory;
        let (found, keeper, ended) = acts::look(self.shared.keepers(), &self.context.dir).await?;
        let (pre_found, _, pre_ended) =
            acts::look(self.shared.keepers(), &self.shared.paths.pre_dir(&self.id)).await?;
        self.keeper = keeper.map(|it| *it);
        if let (true, Found::Running { ticket, .. }) = (runtime.is_none(), found) {
            self.sending.unsure_of = Some(ticket);
        }
        let same_boot = runtime.as_ref().is_none_or(|it| it.boot_id == self.shared.boot_id);
        self.unsure_of_pre_commands =
            runtime.is_none() && self.shared.paths.pre_dir(&self.id).path().is_dir();
        let is_known = runtime.is_some();
        let replica = match runtime {
            Some(Runtime { replica, .. }) => replica,
            None => Replica::of_folders(self.lies_in_current().await?, self.context.folder.path().exists()),
        };
        let boot = match same_boot {
            true => Boot::Present,
            false => Boot::Earlier { whole: self.lies_in_current().await? },
        };
        self.tell_lost(lost);
        self.book = Book::of(replica.clone());
        let (replica, again) = replica.recover(found, pre_found, boot, clock::now());
        self.replica = replica;
        if is_known {
            self.count_restart_of_an_older_agent();
        }
        self.replica.spread = self.spread();
        self.assigned = assignment.map(Assigned::from).unwrap_or_default();
        // What cannot be read of it was set aside, and was for people alone.
        self.remains = self.shared.paths.ledger(&self.id).remains().ok().flatten().unwrap_or_default();
        self.book.asked_again(again);
        self.settle("taken up");
        if let (true, Some(ended)) = (same_boot, ended) {
            self.exited(ended);
        }
        if let (true, Some(ended)) = (same_boot, pre_ended) {
            let result = acts::pre_command_result(&self.context, &self.shared, ended, &self.pre_command());
            self.happen(Event::PreCommandEnded { ticket: Ticket(ended.process.ticket), result });
        } else if let Found::Running { ticket, .. } = pre_found {
            acts::await_pre_command(
                &self.shared,
                &self.context,
                (ticket, self.pre_command()),
                self.killing.clone(),
                self.answers.clone(),
            );
        }
        self.told();
        self.happen(Event::Tick);
        self.sending.known = true;
        self.tell_traffic();
        // The agent before may have died with it still to do.
        acts::flush(&self.shared, &self.context);
        info!(process = ?self.replica.process, "taken up");
        Ok(())
    }

    /// The line of the one that is being run.
    fn pre_command(&self) -> String {
        let line = match &self.replica.stage {
            Stage::PreCommand { release, index, .. } | Stage::EndingPreCommand { release, index, .. } => {
                self.assigned.pre_command(release, *index)
            }
            _ => None,
        };
        line.map_or_else(|| "a pre-command".to_owned(), |(line, _)| line)
    }

    /// An agent before this one did not write which restart the settings of the deployment take into account: what it did is
    /// done, and only the next one is with what is wanted then.
    fn count_restart_of_an_older_agent(&self) {
        let ledger = self.shared.paths.ledger(&self.id);
        let counted = match ledger.deployed_for() {
            Ok(None) => ledger.store_deployed_for(&self.restart_done()),
            other => other.map(drop),
        };
        if let Err(fault) = counted {
            warn!(fault = %acts::chain(&fault), "it is not known for which start the settings of the deployment were taken");
        }
    }

    /// Of this slot of this host, for as long as it is up.
    fn spread(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.shared.boot_id, self.id.app.as_str(), self.id.slot.number()).hash(&mut hasher);
        hasher.finish()
    }

    /// What the slot's folders alone say. What cannot be read only because the host lacks something lies there all the same.
    async fn lies_in_current(&self) -> Result<Option<ReleaseKey>, FindError> {
        let folder = &self.context.folder;
        match folder.release_in(&folder.current()).await {
            Err(error) if Hindrance::behind(&error).is_some() => {
                Err(FindError::Folder { slot: folder.path().to_owned(), source: io::Error::other(error) })
            }
            lies => Ok(lies.ok().flatten()),
        }
    }

    fn tell_lost(&mut self, lost: Vec<String>) {
        self.lost = (!lost.is_empty()).then(|| lost.join("; "));
        if let Some(fault) = &self.lost {
            warn!(fault, "the slot's ledger could not be read");
            self.shared.note(notes::ledger_failed(&self.id, fault, clock::unix_ms()));
        }
    }

    /// What is wanted, as it was stored, is handed to the machine.
    pub(super) fn told(&mut self) {
        let application = self.assigned.application();
        self.watched.send_replace(assigned::watched(application.as_ref()));
        let cluster = assigned::cluster(application.as_ref());
        self.cluster.send_replace(cluster);
        self.telemetry.send_if_modified(|events| {
            let told = assigned::telemetry(application.as_ref());
            let is_new = *events != told;
            *events = told;
            is_new
        });
        self.shared.epmd.opens_for(&self.id, self.assigned.is_wanted() && cluster == pb::Cluster::Fleet);
        let Some(assignment) = self.assigned.assignment() else { return };
        if let (true, Some(wanted)) = (std::mem::take(&mut self.unsure_of_pre_commands), &assignment.wanted)
            && let Some(run) = &wanted.pre_commands
            && self.replica.current.as_ref().is_none_or(|it| it.release != wanted.release)
        {
            // They may have run. Not running them shows, and can be mended by deploying again; running them twice cannot.
            let error = "the slot's ledger was lost, so it is not known whether the pre-commands ran; deploy again to run them"
                .to_owned();
            let failure = PreCommandFailure { error, output: String::new() };
            self.replica.pre_commands = Some(PreCommandsRun::failed(run.run_id.clone(), failure));
        }
        self.happen(Event::Assigned(assignment));
    }
}
