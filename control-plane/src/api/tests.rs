//! The real router over a database of its own, with a backend that says what a test wants.

mod access;
mod check;
mod configuration;
mod fleet;
mod history;
mod live;
mod logo;
mod nodes;
mod own_keys;
mod requests;
mod rollouts;
mod rpc;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::Response;
use proto::ids::{AppName, Digest, NodeId, ReleaseKey, Version};
use proto::metrics::{HostPoint, VmPoint};
use proto::nodes::HostLimit;
use proto::pb;
use proto::problem::Problem;
use proto::state::{Language, Liveness, Role};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::{Api, Live, Parts, Settings, router};
use crate::agents::{Counted, VmPast};
use crate::auth::client::Peer;
use crate::auth::password::Passwords;
use crate::auth::principal::LocalAdmins;
use crate::auth::secret::{Secret, TOKEN_PREFIX};
use crate::auth::throttle::Throttle;
use crate::clock::{Clock, Time};
use crate::config::{AgentsAddress, Config, Flags, PublicAddress, Reading, Text, apply};
use crate::configuration::{Began, Configuration, NewConfiguration, Told};
use crate::db::tests::fixture::TestDb;
use crate::db::{Db, DbError, EventFilter, NewApiToken, PageRequest, User};
use crate::fleet::{AppFleet, Place};
use crate::next_start::NextStart;
use crate::picture::{Backend, LogChunks, NodeSight, StreamError, UnderWay};
use crate::releases::{FolderSource, SeekError, record_unnamed};
use crate::spec::AppSpec;
use crate::telemetry::Metrics;
use crate::vault::Vault;

#[derive(Default)]
pub(super) struct FakeBackend {
    pub(super) fleets: Mutex<Vec<AppFleet>>,
    pub(super) up: Mutex<Vec<NodeId>>,
    pub(super) cut: Mutex<Vec<NodeId>>,
    pub(super) told_anew: Mutex<Vec<NodeId>>,
    /// Where versions are looked for that are not recorded.
    pub(super) bucket: Mutex<Option<(Db, FolderSource)>>,
    /// What is kept of hosts, oldest first.
    pub(super) history: Mutex<Vec<(NodeId, Time, HostPoint)>>,
    /// What is kept of VMs.
    pub(super) vms: Mutex<Vec<(AppName, Place, Time, VmPoint)>>,
    /// What replicas have counted.
    pub(super) counted: Mutex<Vec<(AppName, Place, Counted)>>,
    /// Of every host.
    pub(super) limits: Mutex<Vec<HostLimit>>,
    /// What was asked to be evaluated.
    pub(super) evaluated: Mutex<Vec<pb::Evaluate>>,
    /// What becomes of the next evaluation.
    pub(super) evaluation: Mutex<Option<Result<UnderWay, StreamError>>>,
    /// What becomes of the next question for a logo, where it is not one that names its place.
    pub(super) logo: Mutex<Option<Result<pb::Logo, StreamError>>>,
    changes: watch::Sender<u64>,
}

#[async_trait]
impl Backend for FakeBackend {
    async fn fleets(&self) -> Result<Vec<AppFleet>, DbError> {
        Ok(self.fleets.lock().unwrap().clone())
    }

    fn waiting(&self, _: &AppName) -> Vec<String> {
        Vec::new()
    }

    fn sight(&self, node: NodeId) -> NodeSight {
        let is_up = self.up.lock().unwrap().contains(&node);
        let liveness = if is_up { Liveness::Up } else { Liveness::Lost };
        let limits = self.limits.lock().unwrap().clone();
        NodeSight { liveness, limits, vm_samples_dropped: 7, ..NodeSight::default() }
    }

    fn host_history(&self, node: NodeId, since: Option<Time>) -> Vec<(Time, HostPoint)> {
        let points = self.history.lock().unwrap();
        let of_node =
            points.iter().filter(|(of, at, _)| *of == node && since.is_none_or(|since| *at > since));
        of_node.map(|(_, at, point)| (*at, point.clone())).collect()
    }

    fn vm_history(&self, app: &AppName, place: Place, since: Option<Time>) -> VmPast {
        let points = self.vms.lock().unwrap();
        let is_asked = |it: &&(AppName, Place, Time, VmPoint)| {
            it.0 == *app && it.1 == place && since.is_none_or(|since| it.2 > since)
        };
        let points = points.iter().filter(is_asked).map(|(.., at, point)| (*at, *point)).collect();
        VmPast { every_ms: 2_000, points }
    }

    fn vm(&self, app: &AppName, place: Place) -> Option<VmPoint> {
        let points = self.vms.lock().unwrap();
        points.iter().rfind(|it| it.0 == *app && it.1 == place).map(|(.., point)| *point)
    }

    fn counted(&self, app: &AppName, place: Place) -> Option<Counted> {
        let counted = self.counted.lock().unwrap();
        counted.iter().find(|it| it.0 == *app && it.1 == place).map(|it| it.2.clone())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn plan_now(&self) {}

    fn cut(&self, node: NodeId) {
        self.cut.lock().unwrap().push(node);
    }

    fn restart_agent(&self, node: NodeId) -> bool {
        self.told_anew.lock().unwrap().push(node);
        true
    }

    fn ca_fingerprint(&self) -> Digest {
        Digest([0xca; 32])
    }

    async fn seek(
        &self,
        app: &AppName,
        language: Language,
        version: &Version,
        now: Time,
    ) -> Result<ReleaseKey, SeekError> {
        let bucket = self.bucket.lock().unwrap().clone();
        let Some((db, source)) = bucket else { return Err(SeekError::Missing { name: version.to_string() }) };
        record_unnamed((&db, &source), app, language, version, now).await
    }

    async fn follow_log(&self, _: NodeId, _: pb::FollowLog) -> Result<LogChunks, StreamError> {
        Err(StreamError::NotConnected)
    }

    async fn read_logo(&self, _: NodeId, what: pb::ReadLogo) -> Result<pb::Logo, StreamError> {
        let logo = pb::Logo {
            media_type: "image/svg+xml".to_owned(),
            data: format!("<svg id=\"{}/{}\"/>", what.app, what.slot).into(),
        };
        self.logo.lock().unwrap().take().unwrap_or(Ok(logo))
    }

    async fn evaluate(&self, _: NodeId, what: pb::Evaluate) -> Result<UnderWay, StreamError> {
        self.evaluated.lock().unwrap().push(what);
        self.evaluation.lock().unwrap().take().unwrap_or(Err(StreamError::NotConnected))
    }
}

/// Whom the configurations that were applied concerned, one entry each.
#[derive(Default)]
pub(super) struct Concerned(pub(super) Mutex<Vec<BTreeSet<NodeId>>>);

impl Told for Concerned {
    fn told(&self, nodes: &BTreeSet<NodeId>) {
        self.0.lock().unwrap().push(nodes.clone());
    }
}

/// Secrets that never change.
struct Unchanging;

impl apply::Secrets for Unchanging {
    fn new_cookie(&self, app: &AppName) -> Result<Vec<u8>, apply::Source> {
        Ok(app.as_str().as_bytes().to_vec())
    }

    fn fingerprint(&self, _: &AppSpec, _: &[u8]) -> Result<String, String> {
        Ok("same".to_owned())
    }
}

/// One control plane for one test.
pub(super) struct Bench {
    pub(super) api: Api,
    pub(super) concerned: Arc<Concerned>,
    pub(super) backend: Arc<FakeBackend>,
    router: Router,
    /// What the next start would read.
    pub(super) config: tempfile::NamedTempFile,
    /// What a restart would begin.
    pub(super) program: tempfile::TempPath,
    _db: TestDb,
}

pub(super) const PASSWORD: &str = "correct horse battery";

/// A program that answers everything so.
pub(super) fn says(program: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(program, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

impl Bench {
    pub(super) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::on(TestDb::sqlite().await, Flags::default(), change).await
    }

    pub(super) async fn on(test_db: TestDb, flags: Flags, change: impl FnOnce(&mut Settings)) -> Self {
        let (db, clock) = (test_db.db.clone(), Clock::start());
        let hash = bcrypt::hash(PASSWORD, 4).unwrap();
        let admin = User {
            name: "admin".to_owned(),
            role: Role::Admin,
            password_hash: hash,
            created_at: clock.now(),
        };
        db.add_user(&admin).await.unwrap();
        let mut settings = Settings {
            environment: "test".to_owned(),
            demo: false,
            console_served: true,
            admin_password_from: None,
            trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
            agents_address: AgentsAddress {
                address: PublicAddress { host: "deployex.example.com".to_owned(), port: 5002 },
                is_guess: false,
            },
        };
        change(&mut settings);
        let backend = Arc::new(FakeBackend::default());
        let config = tempfile::NamedTempFile::new().unwrap();
        let flags = Flags { config: Some(config.path().to_owned()), ..flags };
        let reading = Reading::new(flags, BTreeMap::new());
        let program = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        says(&program, "deployex 0.1.0");
        let next_start = NextStart::new(program.to_path_buf(), reading.clone());
        let began = Config::load(reading.flags(), reading.variables()).unwrap();
        let concerned = Arc::new(Concerned::default());
        let configuration = Configuration::new(NewConfiguration {
            db: db.clone(),
            clock,
            vault: Arc::new(Vault::new(&"key".repeat(30).into()).unwrap()),
            secrets: Arc::new(Unchanging),
            told: concerned.clone(),
            reading,
            file: Some(config.path().to_owned()),
            text: Some(Text::default()),
            began: Began::with(&began),
        });
        let api = Api::new(Parts {
            db,
            backend: backend.clone(),
            settings,
            configuration,
            local: LocalAdmins::of_this_process(),
            clock,
            metrics: Metrics::default(),
            passwords: Passwords::default(),
            throttle: Mutex::new(Throttle::default()),
            live: Live::default(),
            started_at: clock.wall(),
            begin_anew: CancellationToken::new(),
            next_start,
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        Self { router: router(&api), api, concerned, backend, config, program, _db: test_db }
    }

    /// A token of this role.
    pub(super) async fn newest_event(&self) -> String {
        let newest = self.api.db.events(&EventFilter::default(), PageRequest::newest(1)).await.unwrap();
        newest.items[0].event.text.clone()
    }

    pub(super) async fn token(&self, role: Role) -> String {
        let secret = Secret::random(TOKEN_PREFIX).unwrap();
        let new = NewApiToken {
            name: format!("{role}-{}", &secret.expose()[4..12]),
            hash: secret.digest(),
            role,
            created_at: self.api.clock.now(),
            expires_at: None,
        };
        self.api.db.add_api_token(&new, &[], None).await.unwrap();
        secret.expose().to_owned()
    }

    /// The answer, its body not read yet.
    pub(super) async fn respond(&self, call: Call) -> Response {
        let Call { method, path, headers, body, peer } = call;
        let mut request = Request::builder().method(method).uri(path).body(body).unwrap();
        *request.headers_mut() = headers;
        request.extensions_mut().insert(peer);
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(super) async fn send(&self, call: Call) -> Answer {
        let (parts, body) = self.respond(call).await.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body: body.to_vec() }
    }

    /// Signs admin in; cookie and CSRF token.
    pub(super) async fn sign_in(&self) -> (String, String) {
        let answer = self.send(sign_in("admin", PASSWORD)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let cookie = answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let me: proto::users::Me = answer.json();
        (cookie, me.csrf_token.unwrap())
    }
}

/// A request to be sent.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Body,
    peer: Peer,
}

impl Call {
    pub(super) fn new(method: Method, path: &str) -> Self {
        let stranger: IpAddr = "203.0.113.7".parse().unwrap();
        let call = Self {
            method,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Body::empty(),
            peer: Peer::Tcp { address: stranger, tls: false },
        };
        call.header("host", "deployex.example.com")
    }

    pub(super) fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn post(path: &str, body: &Value) -> Self {
        let mut call = Self::new(Method::POST, path).header("content-type", "application/json");
        call.body = Body::from(body.to_string());
        call
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    pub(super) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(super) fn from(mut self, address: &str) -> Self {
        self.peer = Peer::Tcp { address: address.parse().unwrap(), tls: false };
        self
    }

    pub(super) fn through_socket(mut self, uid: u32) -> Self {
        self.peer = Peer::Socket { uid };
        self
    }
}

pub(super) fn sign_in(username: &str, password: &str) -> Call {
    Call::post("/api/v1/session", &serde_json::json!({ "username": username, "password": password }))
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    pub(super) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of a refusal, which must look as every refusal does.
    pub(super) fn code(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem: Problem = self.json();
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(problem.instance, self.headers["x-request-id"].to_str().unwrap());
        assert!(!problem.detail.is_empty() && !problem.title.is_empty());
        problem.code.to_string()
    }
}

/// An application with nothing known of it.
pub(super) fn empty_fleet(app: &str) -> AppFleet {
    AppFleet {
        app: app.parse().unwrap(),
        generation: 0,
        spec: None,
        untold: None,
        wanted: None,
        in_force: None,
        ghosted: BTreeSet::new(),
        proven: BTreeSet::new(),
        rollout: None,
        last: None,
        tried: None,
        brought: None,
        predecessor: None,
        restarts: Vec::new(),
        given_up: None,
        nodes: BTreeMap::new(),
        placed: BTreeMap::new(),
        assigned: BTreeMap::new(),
        packages: BTreeMap::new(),
        observed: BTreeMap::new(),
    }
}
