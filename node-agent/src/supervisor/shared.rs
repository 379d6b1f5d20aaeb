//! What the slots' tasks and the supervisor share: places, the store of releases, and the ways to the control plane.

use std::path::PathBuf;
use std::sync::Arc;

use proto::pb;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::accounts::Accounts;
use super::epmd::Epmd;
use super::evaluate::Nodes;
use super::process::{Keepers, Standby};
use super::traffic::Traffic;
use super::{Paths, SlotId};
use crate::link::{Certify, Observed, Standing, TelemetryBacklog, VmBacklog};
use crate::releases::{Fetch, SlotFolder, Store};

pub(super) struct Shared {
    pub(super) paths: Paths,
    pub(super) standby: Standby,
    pub(super) epmd: Epmd,
    pub(super) accounts: Accounts,
    pub(super) traffic: Traffic,
    pub(super) timezone: Option<String>,
    pub(super) otp_tls: Option<PathBuf>,
    pub(super) boot_id: String,
    pub(super) standing: watch::Receiver<Standing>,
    pub(super) store: Store,
    /// Held while the disk is flushed: what one flushes the next need not.
    pub(super) flushing: Mutex<()>,
    pub(super) fetch: Arc<dyn Fetch>,
    pub(super) certify: Arc<dyn Certify>,
    pub(super) observed: watch::Sender<Observed>,
    /// The replicas' siblings on other hosts, as the control plane said last.
    pub(super) siblings: watch::Sender<pb::Siblings>,
    /// What was sampled of the replicas' VMs, for the link.
    pub(super) vm_samples: Arc<VmBacklog>,
    /// What they have counted of their events, likewise.
    pub(super) telemetry: Arc<TelemetryBacklog>,
    /// The Erlang nodes of what runs, for who asks them something.
    pub(super) nodes: Nodes,
    pub(super) notes: mpsc::Sender<pb::AgentEvent>,
    pub(super) tracker: TaskTracker,
    pub(super) cancel: CancellationToken,
}

impl Shared {
    pub(super) fn release_folder(&self, id: &SlotId) -> SlotFolder {
        SlotFolder::at(self.paths.slot_folder(id), self.boot_id.clone())
    }

    /// Where keepers come from, for who looks and launches nothing.
    pub(super) fn keepers(&self) -> &Keepers {
        self.standby.keepers()
    }

    /// What is true of a slot from now on.
    pub(super) fn report(&self, id: &SlotId, report: pb::SlotReport) {
        self.observed.send_modify(|observed| {
            observed.slots.insert((id.app.clone(), id.slot), report);
        });
    }

    /// The same for a slot of which nothing but a fault can be said.
    pub(super) fn report_fault(&self, id: &SlotId, state: pb::SlotState, fault: String) {
        let report = pb::SlotReport {
            app: id.app.to_string(),
            slot: u32::from(id.slot.number()),
            state: state.into(),
            fault,
            ..Default::default()
        };
        self.report(id, report);
    }

    /// For the fleet's list of events.
    pub(super) fn note(&self, event: pb::AgentEvent) {
        if self.notes.try_send(event).is_err() {
            warn!("too many events wait for the control plane; this one is in the log alone");
        }
    }
}
