//! The agents: their listener, who is connected, what they last said, and how to tell them something.
//!
//! ```text
//!   listener ──TLS──▶ gate ──▶ service ──▶ session (one per agent) ──▶ board   (what was said)
//!   (who is it)    (may it?)  (six calls)       ▲                  └──▶ notices (what is to be remembered)
//!                                               └── roster: wake, cut, orders
//! ```
//!
//! Decides nothing about applications: assignments come from an [`AssignmentSource`], certificates' standing and join tokens
//! from a [`Registry`], both asked whenever they matter.

mod board;
mod counted;
mod gate;
mod history;
pub mod lease;
mod listener;
pub mod pki;
mod reached;
mod read;
pub mod registry;
mod roots;
mod roster;
mod service;
mod session;
mod streams;
mod tls;
mod told;
mod vm_history;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::agent::MAX_MESSAGE;
use proto::ids::{AppName, NodeId, ReleaseKey};
use proto::metrics::{HostPoint, VmPoint};
use proto::pb;
use proto::pb::agent_server::AgentServer;
use proto::pb::control_message::Kind as Order;
use proto::state::Liveness;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use self::board::Board;
pub use self::board::{HostReport, ReplicaLoad, Turned};
pub use self::counted::Counted;
use self::gate::Gate;
use self::listener::Listener;
use self::pki::{Authority, PkiError};
#[cfg(any(test, all(feature = "simulation", debug_assertions)))]
pub(crate) use self::read::read_report;
use self::registry::{AssignmentSource, PeerAuthorities, Registry, ReleaseRelay};
pub use self::roots::{ApplicationRoots, RootsError, authority};
use self::roster::Roster;
use self::service::Calls;
use self::streams::Streams;
pub use self::streams::{AgentStream, OpenStreamError, StreamEnded};
use self::tls::{ShownCertificate, TlsError, server_config};
pub use self::vm_history::VmPast;
use crate::clock::{Clock, Time};
use crate::fleet::{Observed, Place};

/// A node's certificate lives this long; the agent renews it at two thirds.
pub const CERTIFICATE_LIFE: Duration = Duration::from_hours(30 * 24);

/// A session looks this often for an assignment that nobody told it of.
pub const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// The server's own certificate. A new one is made at every start, and while it runs long before the old one ends.
const SERVER_CERTIFICATE_LIFE: Duration = Duration::from_hours(30 * 24);
const SERVER_CERTIFICATE_EXCHANGE: Duration = Duration::from_hours(10 * 24);

/// Often enough that a lost node is noticed within five seconds.
const LIVENESS_LOOK: Duration = Duration::from_millis(250);

/// How long sessions may take to say goodbye when the control plane stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Connections whose handshake is done and that gRPC has not taken yet.
const READY_CONNECTIONS: usize = 64;

/// Calls of one agent at once: its session, or its streams and downloads.
const CALLS_PER_CONNECTION: u32 = 64;

/// Bytes on their way in one call that nobody has read yet. Small: with five thousand agents it adds up.
const WINDOW: u32 = 256 << 10;

/// What is to be remembered or told to people; not state.
#[derive(Clone, Debug)]
pub enum Notice {
    Connected { node: NodeId, agent_version: String },
    Turned(Turned),
    Event(Told),
}

/// An event that an agent told.
#[derive(Clone, Debug)]
pub struct Told {
    pub node: NodeId,
    pub event: pb::AgentEvent,
    /// When it happened, by our wall clock.
    pub at: Time,
    /// What its session acknowledges; to be raised to the event's sequence once it is recorded.
    pub recorded: Arc<AtomicU64>,
}

/// How the agents' side is to behave.
pub struct Settings {
    pub authority: Authority,
    /// Host names and addresses that agents may dial; those of this machine's loopback are added.
    pub names: Vec<String>,
    pub host: pb::HostSettings,
    /// [`CERTIFICATE_LIFE`], save in tests.
    pub certificate_life: Duration,
    /// [`LOOK_AGAIN`], save in tests.
    pub look_again: Duration,
}

/// What the agents' side asks of others.
pub struct Edges {
    pub registry: Arc<dyn Registry>,
    pub assignments: Arc<dyn AssignmentSource>,
    pub releases: Arc<dyn ReleaseRelay>,
    pub peers: Arc<dyn PeerAuthorities>,
    /// Bounded: when it is full a notice is dropped and said in the log, because a slow database must not make nodes look lost.
    pub notices: mpsc::Sender<Notice>,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentsError {
    #[error("cannot make the certificate that agents are shown")]
    Pki(#[from] PkiError),
    #[error("cannot set up the agents' listener")]
    Tls(#[from] TlsError),
    #[error("the agents' listener has failed")]
    Serve(#[from] tonic::transport::Error),
}

/// A handle to everything about agents.
#[derive(Clone)]
pub struct Agents {
    hub: Arc<Hub>,
}

struct Hub {
    authority: Authority,
    names: Vec<String>,
    host_settings: pb::HostSettings,
    certificate_life: Duration,
    look_again: Duration,
    registry: Arc<dyn Registry>,
    assignments: Arc<dyn AssignmentSource>,
    releases: Arc<dyn ReleaseRelay>,
    peers: Arc<dyn PeerAuthorities>,
    notices: mpsc::Sender<Notice>,
    clock: Clock,
    board: Mutex<Board>,
    roster: Arc<Roster>,
    streams: Streams,
    changes: watch::Sender<u64>,
    tasks: TaskTracker,
}

impl Agents {
    pub fn new(settings: Settings, edges: Edges, clock: Clock) -> Self {
        let Settings { authority, mut names, host, certificate_life, look_again } = settings;
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        names.sort();
        names.dedup();
        let Edges { registry, assignments, releases, peers, notices } = edges;
        let hub = Hub {
            authority,
            names,
            host_settings: host,
            certificate_life,
            look_again,
            registry,
            assignments,
            releases,
            peers,
            notices,
            clock,
            board: Mutex::new(Board::new(clock.now())),
            roster: Arc::new(Roster::default()),
            streams: Streams::default(),
            changes: watch::Sender::new(0),
            tasks: TaskTracker::new(),
        };
        Self { hub: Arc::new(hub) }
    }

    /// Serves agents until cancelled, then tells them so and waits until their sessions have ended.
    pub async fn serve(&self, listener: TcpListener, cancel: CancellationToken) -> Result<(), AgentsError> {
        let hub = &self.hub;
        let shown = Arc::new(ShownCertificate::new(hub.server_certificate()?));
        let config = server_config(hub.authority.roots()?, Arc::clone(&shown))?;
        let (ready, connections) = mpsc::channel(READY_CONNECTIONS);
        let accept = CancellationToken::new();
        // Also where this future is dropped: the port must not stay taken.
        let _accept_ends = accept.clone().drop_guard();
        let listening = Listener::new(config, Arc::clone(&hub.roster));
        hub.tasks.spawn(listening.run(listener, ready, accept.clone()));
        hub.tasks.spawn(Arc::clone(hub).keep_time(shown, accept.clone()));

        let calls = AgentServer::new(Calls { hub: Arc::clone(hub) })
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let stopped = CancellationToken::new();
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .max_concurrent_streams(CALLS_PER_CONNECTION)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .http2_max_header_list_size(16 << 10)
            .layer(Gate { registry: Arc::clone(&hub.registry), clock: hub.clock })
            .add_service(calls)
            .serve_with_incoming_shutdown(
                ReceiverStream::new(connections),
                stopped.clone().cancelled_owned(),
            );
        let goodbye = async {
            cancel.cancelled().await;
            accept.cancel();
            hub.roster.stop();
            hub.tasks.close();
            // What does not end by itself (a download, a log that is followed) ends with its connection.
            drop(tokio::time::timeout(STOP_GRACE, hub.tasks.wait()).await);
            stopped.cancel();
            tokio::time::sleep(STOP_GRACE).await;
        };
        let served = tokio::select! {
            biased; // the server's own end says more than the time that it took
            served = serving => served,
            () = goodbye => Ok(()),
        };
        accept.cancel();
        hub.roster.stop();
        Ok(served?)
    }

    /// What a join token has to carry.
    pub fn fingerprint(&self) -> proto::ids::Digest {
        self.hub.authority.fingerprint()
    }

    pub fn liveness(&self, node: NodeId) -> Liveness {
        self.hub.board().liveness(node, self.hub.clock.now())
    }

    /// What was last reported of an application, wherever it runs.
    pub fn observed(&self, app: &AppName) -> BTreeMap<Place, Observed> {
        self.hub.board().observed(app)
    }

    /// Rises with everything that is newly observed. What, is to be asked.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.hub.changes.subscribe()
    }

    pub fn host_sample(&self, node: NodeId) -> Option<HostReport> {
        self.hub.board().host(node)
    }

    /// The node's last hour, oldest first: each point with when it was heard by our own clock, and dated for people. Only what
    /// was heard after `since`.
    pub fn host_history(&self, node: NodeId, since: Option<Time>) -> Vec<(Time, HostPoint)> {
        let mut points = self.hub.board().history(node, since, self.hub.clock.now());
        for (heard, point) in &mut points {
            point.at = self.shown(*heard).into();
        }
        points
    }

    /// The last hour of a replica's VM, as [`Self::host_history`].
    pub fn vm_history(&self, app: &AppName, place: Place, since: Option<Time>) -> VmPast {
        let mut past = self.hub.board().vm_history((app, place), since, self.hub.clock.now());
        for (heard, point) in &mut past.points {
            point.at = self.shown(*heard).into();
        }
        past
    }

    /// What was sampled last of a replica's VM, where that is not long ago.
    pub fn vm(&self, app: &AppName, place: Place) -> Option<VmPoint> {
        let (at, point) = self.hub.board().vm((app, place), self.hub.clock.now())?;
        Some(VmPoint { at: self.shown(at).into(), ..point })
    }

    /// What a replica has counted of its application's events, where that was read lately.
    pub fn counted(&self, app: &AppName, place: Place) -> Option<Counted> {
        let (read, sample) = self.hub.board().counted((app, place), self.hub.clock.now())?;
        let read_at = self.shown(read);
        Some(Counted { read_at, since: Time(read_at.0.saturating_sub(sample.counted_for_ms)), sample })
    }

    /// The generation of the last assignment that the node said, in its present session, to have stored; 0: not yet heard.
    pub fn stored(&self, node: NodeId) -> u64 {
        self.hub.board().stored(node)
    }

    /// When anything was last heard from the node, for people.
    pub fn heard_at(&self, node: NodeId) -> Option<Time> {
        self.hub.board().heard_at(node).map(|at| self.shown(at))
    }

    /// For people, a moment that something here was heard, or is to happen.
    pub fn shown(&self, at: Time) -> Time {
        self.hub.clock.shown(at)
    }

    /// Every node that was heard after `since`, and when.
    pub fn heard_after(&self, since: Time) -> Vec<(NodeId, Time)> {
        self.hub.board().heard_after(since)
    }

    /// Samples of VMs that the node's agent threw away, since its program began: they waited too long to be told.
    pub fn vm_samples_dropped(&self, node: NodeId) -> u64 {
        self.hub.board().vm_samples_dropped(node)
    }

    /// By how much the node's wall clock was ahead of ours when it was heard last.
    pub fn clock_ahead_ms(&self, node: NodeId) -> Option<i64> {
        self.hub.board().clock_ahead_ms(node)
    }

    /// When the program of the node's agent began, by our wall clock.
    pub fn agent_started(&self, node: NodeId) -> Option<Time> {
        self.hub.board().agent_started(node)
    }

    /// Asks the node's agent to begin its program anew. `false`: it is not connected, or takes no orders.
    pub fn restart_agent(&self, node: NodeId) -> bool {
        let order = Order::RestartAgent(pb::RestartAgent {});
        self.hub.roster.session(node).is_some_and(|session| session.orders.try_send(order).is_ok())
    }

    /// The node's assignment may have risen: its session asks and sends it.
    pub fn wake(&self, node: NodeId) {
        self.hub.wake(node);
    }

    /// Ends all connections of a node whose certificates were revoked, and forgets what it said.
    pub fn cut(&self, node: NodeId) {
        self.hub.roster.cut(node);
        self.hub.board().forget(node);
        self.hub.changed();
    }

    /// Asks a node for a stream and waits until it has opened it.
    pub async fn open_stream(
        &self,
        node: NodeId,
        kind: pb::open_stream::Kind,
    ) -> Result<AgentStream, OpenStreamError> {
        let session = self.hub.roster.session(node).ok_or(OpenStreamError::NotConnected)?;
        let asked = self.hub.streams.ask(node)?;
        let order = pb::OpenStream { stream_id: asked.id.clone(), kind: Some(kind) };
        session.orders.try_send(Order::OpenStream(order)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => OpenStreamError::TooMany,
            mpsc::error::TrySendError::Closed(_) => OpenStreamError::NotConnected,
        })?;
        asked.opened().await
    }
}

impl Hub {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// `false`: it was dropped.
    fn notify(&self, notice: Notice) -> bool {
        let taken = self.notices.try_send(notice).is_ok();
        if !taken {
            tracing::warn!("an agent's event was dropped: they come faster than they can be recorded");
        }
        taken
    }

    fn wake(&self, node: NodeId) {
        if let Some(session) = self.roster.session(node) {
            session.wake.notify_one();
        }
    }

    fn server_certificate(&self) -> Result<rustls::sign::CertifiedKey, PkiError> {
        self.authority.server(&self.names, self.clock.wall(), SERVER_CERTIFICATE_LIFE)
    }

    /// A node may fetch what it is to run, and no other application's code.
    async fn must_run(&self, node: NodeId, app: &AppName, key: &ReleaseKey) -> Result<(), Status> {
        let listed = self.assignments.is_to_run(node, app, key).await.map_err(|error| {
            tracing::error!(%node, error = &*error, "cannot look up what a node is to run");
            Status::unavailable("the control plane cannot read its database")
        })?;
        listed.then_some(()).ok_or_else(|| Status::permission_denied("this node is not to run that release"))
    }

    /// A node may have certificates for the Erlang nodes of what it is to run, and for its own host alone.
    async fn must_be_host(&self, node: NodeId, app: &AppName, host: &str) -> Result<(), Status> {
        let hosts = self.assignments.peer_hosts(node, app).await.map_err(|error| {
            tracing::error!(%node, error = &*error, "cannot look up what a node is to run");
            Status::unavailable("the control plane cannot read its database")
        })?;
        let Some(hosts) = hosts else {
            return Err(Status::permission_denied("this node is not to run that application"));
        };
        if hosts.iter().any(|it| it.eq_ignore_ascii_case(host)) {
            return Ok(());
        }
        // It may be of any length.
        let shown: String = host.chars().take(64).collect();
        Err(Status::permission_denied(format!(
            "no certificate for the host {shown:?}: Erlang nodes of {app} on this node are of {}; another is set by \
             distribution.host",
            if hosts.is_empty() { "no host that is known".to_owned() } else { hosts.join(" or ") }
        )))
    }

    /// Tells who fell silent or came back, and exchanges the server's certificate long before it ends.
    async fn keep_time(self: Arc<Self>, shown: Arc<ShownCertificate>, cancel: CancellationToken) {
        let mut look = tokio::time::interval(LIVENESS_LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut exchange = tokio::time::interval(SERVER_CERTIFICATE_EXCHANGE);
        exchange.reset();
        loop {
            tokio::select! {
                biased; // stopping comes before new work
                () = cancel.cancelled() => return,
                _ = look.tick() => {
                    let turned = self.board().turned(self.clock.now());
                    if !turned.is_empty() {
                        self.changed();
                    }
                    for turned in turned {
                        self.notify(Notice::Turned(turned));
                    }
                }
                _ = exchange.tick() => match self.server_certificate() {
                    Ok(certificate) => shown.exchange(certificate),
                    Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "keeping the certificate"),
                },
            }
        }
    }
}
