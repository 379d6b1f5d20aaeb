//! The link to the control plane: this host's identity, the session that is always held or sought, and a second connection
//! for what is large.
//!
//! ```text
//!   supervisor ──observed, events──▶ session ──gRPC──▶ control plane
//!              ◀──────orders──────            ◀──────
//!   releases   ◀──────Fetch──────── bulk (second connection; streams and certificates of Erlang nodes too)
//! ```
//! It decides nothing about replicas, and nothing stops because the link is down.

mod backlog;
mod backoff;
mod bulk;
mod certify;
mod dial;
mod enrol;
mod hello;
mod identity;
mod renew;
mod session;
mod streams;
mod telemetry_backlog;
mod unrecorded;
mod vm_backlog;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::ids::{AppName, Slot};
use proto::pb;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::bulk::Bulk;
pub use self::certify::Certify;
pub use self::dial::{Address, BadAddress, LinkError};
pub(crate) use self::enrol::request;
pub use self::enrol::{EnrolError, Enrolment, enrol};
pub(crate) use self::identity::Validity;
pub use self::identity::{HostPaths, Identity, IdentityError};
use self::session::Session;
pub use self::streams::Evaluate;
pub use self::telemetry_backlog::TelemetryBacklog;
use self::unrecorded::Unrecorded;
pub use self::vm_backlog::VmBacklog;
use crate::logs::LogFolder;
use crate::releases::Fetch;
use crate::releases::logo::Logos;
use crate::{clock, host};

/// A session that held this long counts as a success: the next failure is the first again.
const SETTLED: Duration = Duration::from_secs(10);

/// What is true on this host, as the supervisor says it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Of the last assignment that was stored.
    pub generation: u64,
    /// Every slot that is held, wanted or not.
    pub slots: BTreeMap<(AppName, Slot), pb::SlotReport>,
}

/// The supervisor's ends, and what else the link needs to know of this host.
pub struct Edges {
    /// All that this host is to run, whenever it changes. Bounded, because what waits here is out of date.
    pub orders: mpsc::Sender<pb::Assignment>,
    pub observed: watch::Receiver<Observed>,
    pub events: mpsc::Receiver<pb::AgentEvent>,
    pub logs: LogFolder,
    /// Who has expressions evaluated.
    pub evaluate: Arc<dyn Evaluate>,
    /// Whose file system's room is reported.
    pub var_path: PathBuf,
    /// What this host is.
    pub inventory: pb::Inventory,
    /// Where each look at the host goes, also for the supervisor.
    pub sampled: watch::Sender<Option<host::Sample>>,
    /// What was sampled of the replicas' VMs.
    pub vm_samples: Arc<VmBacklog>,
    /// What the replicas have counted of their events.
    pub telemetry: Arc<TelemetryBacklog>,
    /// Where goes what is said of the replicas' siblings on other hosts.
    pub siblings: watch::Sender<pb::Siblings>,
    /// How the host stands to its limits.
    pub limits: watch::Receiver<Vec<pb::HostLimit>>,
    /// Told when the control plane asks that the agent's program begin anew.
    pub begin_anew: Arc<Notify>,
}

/// Whether the control plane is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Dialling,
    Connected,
    /// Why not, and it goes on trying.
    Down(String),
}

struct Wiring {
    orders: mpsc::Sender<pb::Assignment>,
    observed: watch::Receiver<Observed>,
    events: mpsc::Receiver<pb::AgentEvent>,
    unrecorded: Unrecorded,
    samples: watch::Receiver<Option<host::Sample>>,
    vm_samples: Arc<VmBacklog>,
    telemetry: Arc<TelemetryBacklog>,
    siblings: watch::Sender<pb::Siblings>,
    limits: watch::Receiver<Vec<pb::HostLimit>>,
    logs: LogFolder,
    logos: Logos,
    evaluate: Arc<dyn Evaluate>,
    begin_anew: Arc<Notify>,
    inventory: pb::Inventory,
    boot_id: String,
    started_unix_ms: u64,
    /// Logs that are being read, and what is being answered. They end with the session that they were asked over, or on their own.
    streams: TaskTracker,
    /// They end with the agent too.
    ending: CancellationToken,
}

/// Made from an identity, then run for the agent's life.
pub struct Link {
    identity: watch::Sender<Arc<Identity>>,
    bulk: Arc<Bulk>,
    standing: watch::Sender<Standing>,
}

impl Link {
    pub fn new(identity: Identity) -> Self {
        let identity = watch::Sender::new(Arc::new(identity));
        let bulk = Arc::new(Bulk::new(identity.subscribe()));
        Self { identity, bulk, standing: watch::Sender::new(Standing::Dialling) }
    }

    /// Releases by way of the control plane.
    pub fn fetch(&self) -> Arc<dyn Fetch> {
        Arc::clone(&self.bulk) as Arc<dyn Fetch>
    }

    /// Certificates for TLS between Erlang nodes.
    pub fn certify(&self) -> Arc<dyn Certify> {
        Arc::clone(&self.bulk) as Arc<dyn Certify>
    }

    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Until cancelled.
    pub async fn run(self, edges: Edges, cancel: CancellationToken) {
        let Edges {
            orders,
            observed,
            events,
            logs,
            evaluate,
            var_path,
            inventory,
            sampled,
            vm_samples,
            telemetry,
            siblings,
            limits,
            begin_anew,
        } = edges;
        let tasks = TaskTracker::new();
        let samples = sampled.subscribe();
        let looking_at = observed.clone();
        let (told, waiting) = mpsc::channel(1);
        tasks.spawn(backlog::relay(events, told, cancel.clone()));
        let logos = Logos::new(var_path.join("service"));
        tasks.spawn(host::sample(var_path, looking_at, sampled, cancel.clone()));
        tasks.spawn(renew::keep(self.identity.clone(), cancel.clone()));
        let mut wiring = Wiring {
            orders,
            observed,
            events: waiting,
            unrecorded: Unrecorded::default(),
            samples,
            vm_samples,
            telemetry,
            siblings,
            limits,
            logs,
            logos,
            evaluate,
            begin_anew,
            inventory,
            boot_id: host::boot_id(),
            started_unix_ms: clock::unix_ms(),
            streams: TaskTracker::new(),
            ending: cancel.clone(),
        };
        let streams = wiring.streams.clone();
        let mut identity = self.identity.subscribe();
        let mut failures = 0;
        loop {
            let current = Arc::clone(&identity.borrow_and_update());
            let began = Instant::now();
            let error = tokio::select! {
                biased; // stopping comes before all
                () = cancel.cancelled() => break,
                error = self.hold(&current, &mut wiring) => error,
            };
            failures = if began.elapsed() > SETTLED { 0 } else { failures + 1 };
            self.say_why(&error);
            tokio::select! {
                biased; // stopping comes before all
                () = cancel.cancelled() => break,
                // A renewed certificate may be what was missing.
                Ok(()) = identity.changed() => {}
                () = sleep(backoff::wait(failures - u32::from(failures > 0), rand::random())) => {}
            }
        }
        tasks.close();
        tasks.wait().await;
        streams.close();
        drop(tokio::time::timeout(Duration::from_secs(1), streams.wait()).await);
    }

    async fn hold(&self, identity: &Identity, wiring: &mut Wiring) -> LinkError {
        match Session::open(identity, wiring, &self.bulk).await {
            Ok(session) => {
                tracing::info!(control_plane = %identity.control_plane, "connected");
                self.standing.send_replace(Standing::Connected);
                session.run().await
            }
            Err(error) => error,
        }
    }

    /// Once for each reason: a control plane that is down for an hour fills no log.
    fn say_why(&self, error: &LinkError) {
        let standing = Standing::Down(error.to_string());
        let news = self.standing.send_replace(standing.clone()) != standing;
        let (hopeless, error) = (error.needs_a_person(), error as &dyn std::error::Error);
        if !news {
            tracing::debug!(error, "not connected");
        } else if hopeless {
            tracing::error!(error, "not connected, and trying again will not help");
        } else {
            tracing::warn!(error, "not connected, trying again");
        }
    }
}
