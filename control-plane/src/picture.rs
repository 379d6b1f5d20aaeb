//! All that views are made of, as of one moment: what the database says, completed with what agents report.
//!
//! Loaded for a request, and once for all live connections. Views are pure functions of it, so that the overview, a page
//! and the command line never disagree about the same thing.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use proto::ids::{AppName, Digest, NodeId, NodeName, ReleaseKey, Slot, Version};
use proto::metrics::{HostPoint, VmPoint};
use proto::nodes::{HostDetail, HostLimit, HostUsage};
use proto::pb;
use proto::replicas::Usage;
use proto::state::{Language, Liveness};
use tokio::sync::watch;

use crate::agents::{Counted, VmPast};
use crate::clock::Time;
use crate::db::{Application, BucketState, Db, DbError, EnrolledNode};
use crate::fleet::{AppFleet, Place};
use crate::releases::SeekError;

/// What stands behind the API beside the database: the agents' sessions and the planner.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Every application with all that is wanted, assigned and seen of it.
    async fn fleets(&self) -> Result<Vec<AppFleet>, DbError>;

    /// What the planner waits for, a sentence each.
    fn waiting(&self, app: &AppName) -> Vec<String>;

    /// What is known of a node beyond the database.
    fn sight(&self, node: NodeId) -> NodeSight;

    /// Its host's last hour, oldest first, each point with when it was heard by our own clock; only what was heard after `since`.
    fn host_history(&self, node: NodeId, since: Option<Time>) -> Vec<(Time, HostPoint)>;

    /// The last hour of a replica's VM, in the same way.
    fn vm_history(&self, app: &AppName, place: Place, since: Option<Time>) -> VmPast;

    /// What was sampled last of a replica's VM, where that is not long ago.
    fn vm(&self, app: &AppName, place: Place) -> Option<VmPoint>;

    /// What a replica has counted of its application's events, where that was read lately.
    fn counted(&self, app: &AppName, place: Place) -> Option<Counted>;

    /// Rises whenever something may look different.
    fn changes(&self) -> watch::Receiver<u64>;

    /// A wish has changed: plan now.
    fn plan_now(&self);

    /// A node was removed: end its session.
    fn cut(&self, node: NodeId);

    /// Its agent's program is to begin anew. `false`: it is not connected.
    fn restart_agent(&self, node: NodeId) -> bool;

    /// Of the certificate that agents trust.
    fn ca_fingerprint(&self) -> Digest;

    /// A version that was not recorded yet, as it lies in the bucket.
    async fn seek(
        &self,
        app: &AppName,
        language: Language,
        version: &Version,
        now: Time,
    ) -> Result<ReleaseKey, SeekError>;

    async fn follow_log(&self, node: NodeId, what: pb::FollowLog) -> Result<LogChunks, StreamError>;

    /// Has an expression evaluated on a node: begun once this returns, given up where what it returns is dropped.
    async fn evaluate(&self, node: NodeId, what: pb::Evaluate) -> Result<UnderWay, StreamError>;

    /// The picture in the release of a slot.
    async fn read_logo(&self, node: NodeId, what: pb::ReadLogo) -> Result<pb::Logo, StreamError>;
}

/// An evaluation on its way; why its answer does not come, as a sentence.
pub type UnderWay = BoxFuture<'static, Result<pb::Evaluated, String>>;

/// Chunks of a log, as the agent sends them.
pub type LogChunks = BoxStream<'static, Result<pb::StreamChunk, StreamError>>;

/// Why a node opens no stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("the node is not connected")]
    NotConnected,
    #[error("{0}")]
    Refused(String),
    #[error("too many streams are open: close one first")]
    TooMany,
    #[error("the node did not answer in time")]
    TimedOut,
}

/// What the agents' side knows of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSight {
    pub liveness: Liveness,
    pub heard_at: Option<Time>,
    pub usage: Option<HostUsage>,
    pub host: Option<HostDetail>,
    /// Those that the node's agent watches.
    pub limits: Vec<HostLimit>,
    pub loads: BTreeMap<(AppName, Slot), Usage>,
    pub clock_ahead_ms: Option<i64>,
    /// When its agent's program began.
    pub agent_started: Option<Time>,
    /// By that program.
    pub vm_samples_dropped: u64,
}

impl Default for NodeSight {
    fn default() -> Self {
        Self {
            liveness: Liveness::Lost,
            heard_at: None,
            usage: None,
            host: None,
            limits: Vec::new(),
            loads: BTreeMap::new(),
            clock_ahead_ms: None,
            agent_started: None,
            vm_samples_dropped: 0,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Picture {
    pub at: Time,
    /// `{env}` of the bucket's paths.
    pub environment: String,
    pub apps: BTreeMap<AppName, AppPicture>,
    pub nodes: BTreeMap<NodeId, NodePicture>,
}

#[derive(Clone, Debug)]
pub struct AppPicture {
    pub application: Application,
    pub fleet: AppFleet,
    pub bucket: Option<BucketState>,
    pub waiting: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct NodePicture {
    pub node: EnrolledNode,
    /// Of its newest certificate.
    pub certificate_ends: Option<Time>,
    pub sight: NodeSight,
}

impl Picture {
    pub async fn load(db: &Db, backend: &dyn Backend, environment: &str, at: Time) -> Result<Self, DbError> {
        let mut buckets = db.buckets().await?;
        let mut fleets: BTreeMap<AppName, AppFleet> =
            backend.fleets().await?.into_iter().map(|fleet| (fleet.app.clone(), fleet)).collect();
        let mut apps = BTreeMap::new();
        for application in db.applications().await? {
            let name = application.spec.name.clone();
            // One that came between the two reads is in the next picture; one that went and left nothing is in none.
            let Some(fleet) = fleets.remove(&name).filter(is_shown) else { continue };
            let (bucket, waiting) = (buckets.remove(&name), backend.waiting(&name));
            apps.insert(name, AppPicture { application, fleet, bucket, waiting });
        }
        let ends = db.certificates_end().await?;
        let seen = |node: EnrolledNode| {
            let certificate_ends = ends.get(&node.id).copied();
            (node.id, NodePicture { certificate_ends, sight: backend.sight(node.id), node })
        };
        let nodes = db.nodes().await?.into_iter().map(seen).collect();
        Ok(Self { at, environment: environment.to_owned(), apps, nodes })
    }

    pub fn node_by_name(&self, name: &NodeName) -> Option<&NodePicture> {
        self.nodes.values().find(|node| node.node.name == *name)
    }

    /// A node's name; one that was removed a moment ago has its id for a name.
    pub fn name_of(&self, node: NodeId, fleet: &AppFleet) -> Option<NodeName> {
        let known = self.nodes.get(&node).map(|it| &it.node.name);
        known.or_else(|| fleet.nodes.get(&node).map(|it| &it.name)).cloned()
    }

    /// Of one application, by node name and slot: what is assigned, and what is still there.
    pub fn places(&self, fleet: &AppFleet) -> Vec<(NodeName, Place)> {
        let assigned = fleet.assigned.iter().filter(|(_, it)| it.release.is_some()).map(|(place, _)| *place);
        let there = fleet.observed.iter().filter(|(_, it)| it.pid.is_some() || it.running.is_some());
        let mut places: Vec<(NodeName, Place)> = assigned
            .chain(there.map(|(place, _)| *place))
            .filter_map(|place| Some((self.name_of(place.node, fleet)?, place)))
            .collect();
        places.sort();
        places.dedup();
        places
    }
}

/// It is configured, or something of it is still there.
fn is_shown(fleet: &AppFleet) -> bool {
    fleet.spec.is_some() || !fleet.assigned.is_empty() || fleet.observed.values().any(|it| it.pid.is_some())
}
