//! A control plane with a real database in a folder of its own, and agents without a supervisor.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use control_plane::agents::pki::Authority;
use control_plane::agents::registry::{AssignmentSource, RelayError, ReleaseBytes, ReleaseRelay, Source};
use control_plane::agents::{Agents, ApplicationRoots, Edges, Notice, Settings, Told, authority};
use control_plane::clock::{Clock, Time};
use control_plane::db::{Db, NewJoinToken};
use control_plane::vault::Vault;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use node_agent::link::{
    self, Address, Certify, EnrolError, Enrolment, Evaluate, Identity, Link, Observed, Standing,
};
use node_agent::logs::LogFolder;
use proto::ids::{AppName, Digest, NodeId, ReleaseKey};
use proto::join_token::JoinToken;
use proto::pb;
use proto::state::Liveness;
use sha2::Digest as _;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than agents are silent.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// Waits for a state, never for a while; says what it waited for.
pub(crate) async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !reached() {
        assert!(tokio::time::Instant::now() < deadline, "in {PATIENCE:?} it did not happen that {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn release() -> ReleaseKey {
    ReleaseKey { version: "1.0.0".parse().unwrap(), sha256: Digest([7; 32]) }
}

pub(crate) fn app() -> AppName {
    "shop".parse().unwrap()
}

/// What every node is to run, and a tarball.
#[derive(Default)]
pub(crate) struct Wishes {
    pub(crate) assignment: Mutex<pb::Assignment>,
    pub(crate) tarball: Mutex<Bytes>,
    /// No assignment can be made.
    pub(crate) failing: AtomicBool,
    /// How often one was asked for.
    pub(crate) asked: AtomicUsize,
}

impl Wishes {
    pub(crate) fn assign(&self, generation: u64) {
        self.assign_release(generation, &release());
    }

    pub(crate) fn assign_release(&self, generation: u64, key: &ReleaseKey) {
        let key = pb::ReleaseKey::from(key);
        let release = pb::Release { key: Some(key), ..Default::default() };
        let slot = pb::SlotAssignment {
            app: app().to_string(),
            slot: 1,
            release: Some(release),
            ..Default::default()
        };
        *self.assignment.lock().unwrap() =
            pb::Assignment { generation, slots: vec![slot], ..Default::default() };
    }
}

#[async_trait]
impl AssignmentSource for Wishes {
    async fn assignment(&self, _node: NodeId) -> Result<pb::Assignment, Source> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.failing.load(Ordering::Relaxed) {
            true => Err("there is no assignment to be had".into()),
            false => Ok(self.assignment.lock().unwrap().clone()),
        }
    }

    async fn is_to_run(&self, _node: NodeId, app: &AppName, key: &ReleaseKey) -> Result<bool, Source> {
        let key = Some(pb::ReleaseKey::from(key));
        let listed = |slot: &pb::SlotAssignment| {
            slot.app == app.as_str() && slot.release.as_ref().is_some_and(|it| it.key == key)
        };
        Ok(self.assignment.lock().unwrap().slots.iter().any(listed))
    }

    async fn peer_hosts(&self, _node: NodeId, app: &AppName) -> Result<Option<Vec<String>>, Source> {
        let listed = self.assignment.lock().unwrap().slots.iter().any(|slot| slot.app == app.as_str());
        Ok(listed.then(|| vec!["web-1".to_owned()]))
    }
}

#[async_trait]
impl ReleaseRelay for Wishes {
    async fn open(&self, _app: &AppName, _key: &ReleaseKey, offset: u64) -> Result<ReleaseBytes, RelayError> {
        let tarball = self.tarball.lock().unwrap().clone();
        if tarball.is_empty() {
            return Err(RelayError::Gone);
        }
        let rest = tarball.slice(usize::try_from(offset).unwrap().min(tarball.len())..);
        Ok(stream::iter([Ok(rest)]).boxed())
    }
}

/// A control plane that can be stopped and started again on the same database and port.
pub(crate) struct ControlPlane {
    _folder: tempfile::TempDir,
    pub(crate) db: Db,
    pub(crate) wishes: Arc<Wishes>,
    pub(crate) agents: Agents,
    pub(crate) address: SocketAddr,
    pub(crate) notices: mpsc::Receiver<Notice>,
    life: Duration,
    cancel: CancellationToken,
    task: JoinSet<()>,
}

fn vault() -> Vault {
    Vault::new(&"wire".repeat(20).into()).unwrap()
}

async fn root(db: &Db) -> Authority {
    authority(db, &vault(), Clock::start().now()).await.unwrap()
}

/// Of applications.
pub(crate) fn roots(db: &Db) -> ApplicationRoots {
    ApplicationRoots::new(db.clone(), Arc::new(vault()))
}

impl ControlPlane {
    pub(crate) async fn start() -> Self {
        Self::with_certificates_for(Duration::from_hours(24)).await
    }

    pub(crate) async fn with_certificates_for(life: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&format!("sqlite://{}/db.sqlite", folder.path().display())).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (wishes, cancel) = (Arc::new(Wishes::default()), CancellationToken::new());
        let (agents, notices) = agents(&db, &wishes, life).await;
        let mut this = Self {
            _folder: folder,
            db,
            wishes,
            agents,
            address,
            notices,
            life,
            cancel,
            task: JoinSet::new(),
        };
        this.serve(listener);
        this
    }

    fn serve(&mut self, listener: TcpListener) {
        let (agents, cancel) = (self.agents.clone(), self.cancel.clone());
        self.task.spawn(async move { agents.serve(listener, cancel).await.unwrap() });
    }

    /// As by SIGKILL: nobody is told anything.
    pub(crate) async fn kill(&mut self) {
        self.task.shutdown().await;
        // What its tasks still hold ends with it: connections are cut as the kernel would.
        for node in self.db.nodes().await.unwrap() {
            self.agents.cut(node.id);
        }
        self.cancel.cancel();
    }

    pub(crate) async fn stop(&mut self) {
        self.cancel.cancel();
        while self.task.join_next().await.is_some() {}
    }

    pub(crate) async fn start_again(&mut self) {
        self.cancel = CancellationToken::new();
        (self.agents, self.notices) = agents(&self.db, &self.wishes, self.life).await;
        let mut listener = TcpListener::bind(self.address).await;
        while listener.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            listener = TcpListener::bind(self.address).await;
        }
        self.serve(listener.unwrap());
    }

    pub(crate) async fn token(&self, uses: u16, expires_at: Time) -> JoinToken {
        let secret = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let new = NewJoinToken {
            hash: sha2::Sha256::digest(secret.as_bytes()).into(),
            uses,
            labels: BTreeMap::new(),
            created_by: "test".to_owned(),
            created_at: Clock::start().now(),
            expires_at,
        };
        self.db.add_join_token(&new, &[], None).await.unwrap();
        JoinToken::new(secret, self.agents.fingerprint()).unwrap()
    }

    pub(crate) async fn good_token(&self) -> JoinToken {
        self.token(1, Clock::start().now().plus(60_000)).await
    }

    /// Enrols and connects one agent.
    pub(crate) async fn agent(&self, name: &str) -> Agent {
        let folder = tempfile::tempdir().unwrap();
        let identity = enrol(folder.path(), self.address, self.good_token().await, name).await.unwrap();
        Agent::run(folder, identity)
    }

    pub(crate) async fn remove(&self, node: NodeId) {
        self.db.remove_node(node, Clock::start().now(), &[], None).await.unwrap();
        self.agents.cut(node);
    }

    /// What an agent tells next.
    pub(crate) async fn next_event(&mut self) -> Told {
        let told = async {
            loop {
                if let Notice::Event(told) = self.notices.recv().await.unwrap() {
                    return told;
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.unwrap()
    }

    pub(crate) async fn up(&self, node: NodeId) {
        until("the node is up", || self.agents.liveness(node) == Liveness::Up).await;
    }
}

async fn agents(db: &Db, wishes: &Arc<Wishes>, life: Duration) -> (Agents, mpsc::Receiver<Notice>) {
    let (sender, notices) = mpsc::channel(1024);
    let settings = Settings {
        authority: root(db).await,
        names: vec!["deployex.example.com".to_owned()],
        host: pb::HostSettings { log_path: "/var/log/deployex".to_owned(), ..Default::default() },
        certificate_life: life,
        look_again: LOOK_AGAIN,
    };
    let edges = Edges {
        registry: Arc::new(db.clone()),
        assignments: Arc::clone(wishes) as Arc<dyn AssignmentSource>,
        releases: Arc::clone(wishes) as Arc<dyn ReleaseRelay>,
        peers: Arc::new(roots(db)),
        notices: sender,
    };
    (Agents::new(settings, edges, Clock::start()), notices)
}

pub(crate) async fn enrol(
    folder: &Path,
    at: SocketAddr,
    token: JoinToken,
    name: &str,
) -> Result<Identity, EnrolError> {
    let wish = Enrolment {
        control_plane: at.to_string().parse::<Address>().unwrap(),
        token,
        name: name.parse().unwrap(),
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        folder: folder.join("identity"),
        force: false,
    };
    link::enrol(wish).await
}

/// What is evaluated, and what comes of it: an expression that is a number has a value of that many bytes, `forever` has none,
/// any other is refused.
#[derive(Default)]
pub(crate) struct Evaluated {
    pub(crate) begun: AtomicUsize,
    /// Given up by whoever waited, or told.
    pub(crate) over: Arc<AtomicUsize>,
}

impl Evaluate for Evaluated {
    fn evaluate(&self, wish: pb::Evaluate) -> Result<BoxFuture<'static, pb::Evaluated>, String> {
        let bytes = match wish.expression.as_str() {
            "forever" => None,
            other => Some(other.parse::<usize>().map_err(|_| format!("{other} cannot be evaluated"))?),
        };
        self.begun.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(&self.over));
        let evaluation = async move {
            let _counted = counted;
            let Some(bytes) = bytes else { return std::future::pending().await };
            let value = pb::EvaluatedValue { text: "x".repeat(bytes), cut: false };
            let outcome = Some(pb::evaluated::Outcome::Value(value));
            pb::Evaluated { outcome, ..Default::default() }
        };
        Ok(evaluation.boxed())
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An agent's link with the supervisor's ends in the test's hands.
pub(crate) struct Agent {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) node: NodeId,
    pub(crate) orders: mpsc::Receiver<pb::Assignment>,
    pub(crate) observed: watch::Sender<Observed>,
    pub(crate) events: mpsc::Sender<pb::AgentEvent>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) fetch: Arc<dyn node_agent::releases::Fetch>,
    pub(crate) certify: Arc<dyn Certify>,
    pub(crate) siblings: watch::Receiver<pb::Siblings>,
    pub(crate) begin_anew: Arc<Notify>,
    pub(crate) evaluated: Arc<Evaluated>,
    cancel: CancellationToken,
    task: JoinSet<()>,
}

impl Agent {
    pub(crate) fn run(folder: tempfile::TempDir, identity: Identity) -> Self {
        let node = identity.node;
        let (order, orders) = mpsc::channel(8);
        let (observed, observing) = watch::channel(Observed::default());
        let (events, event) = mpsc::channel(8);
        let begin_anew = Arc::new(Notify::new());
        let evaluated = Arc::new(Evaluated::default());
        let siblings = watch::Sender::default();
        let link = Link::new(identity);
        let (standing, fetch, certify) = (link.standing(), link.fetch(), link.certify());
        let edges = link::Edges {
            orders: order,
            observed: observing,
            events: event,
            logs: LogFolder(folder.path().join("log")),
            evaluate: evaluated.clone(),
            var_path: folder.path().to_owned(),
            inventory: node_agent::host::inventory(None),
            sampled: watch::Sender::new(None),
            vm_samples: Arc::default(),
            telemetry: Arc::default(),
            siblings: siblings.clone(),
            limits: watch::Sender::new(Vec::new()).subscribe(),
            begin_anew: begin_anew.clone(),
        };
        let (cancel, mut task) = (CancellationToken::new(), JoinSet::new());
        task.spawn(link.run(edges, cancel.clone()));
        let siblings = siblings.subscribe();
        Self {
            folder,
            node,
            orders,
            observed,
            events,
            standing,
            fetch,
            certify,
            siblings,
            begin_anew,
            evaluated,
            cancel,
            task,
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::load(&self.identity_folder()).unwrap()
    }

    pub(crate) fn identity_folder(&self) -> PathBuf {
        self.folder.path().join("identity")
    }

    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        self.cancel.cancel();
        while self.task.join_next().await.is_some() {}
        self.folder
    }

    pub(crate) async fn next_assignment(&mut self) -> pb::Assignment {
        let assignment = tokio::time::timeout(PATIENCE, self.orders.recv()).await;
        assignment.expect("an assignment in time").expect("an assignment")
    }

    pub(crate) fn report(&self, generation: u64, state: pb::SlotState) {
        let slot = proto::ids::Slot::new(1).unwrap();
        let report = pb::SlotReport {
            app: app().to_string(),
            slot: 1,
            generation,
            state: state.into(),
            running: Some((&release()).into()),
            ..Default::default()
        };
        self.observed.send_replace(Observed { generation, slots: BTreeMap::from([((app(), slot), report)]) });
    }

    /// Waits for a reason why it is not connected that holds `words`.
    pub(crate) async fn down_because(&self, words: &str) {
        let what = format!("the agent is down because of {words:?}");
        until(&what, || matches!(&*self.standing.borrow(), Standing::Down(why) if why.contains(words))).await;
    }
}
