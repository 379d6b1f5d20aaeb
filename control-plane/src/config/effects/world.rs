//! A control plane without its sockets: a configuration in a database, the planner over three hosts, and agents that do as they
//! are told and nothing else.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proto::ids::{AppName, NodeId, ReleaseKey};
use proto::pb;
use proto::state::{Liveness, RolloutPhase, SlotState};

use crate::assign::{self, Assignments, Unopened};
use crate::clock::Time;
use crate::config::apply::{self, Source, Wish};
use crate::config::changes::Change;
use crate::config::{Config, Flags};
use crate::db::tests::fixture::TestDb;
use crate::db::{Enrolment, NewCertificate, NewJoinToken, Release};
use crate::fleet::{AppFleet, Observed, ObservedPreCommands, Place, PreCommandsOutcome};
use crate::rollout::fixture::{self, above_its_limit, node_id, release, seen};
use crate::rollout::{Plan, Step, plan};
use crate::spec::AppSpec;

pub(super) fn config(yaml: &str) -> Config {
    let file = Some((Path::new("deployex.yaml"), yaml.as_bytes()));
    Config::read(file, &Flags::default(), &BTreeMap::new())
        .unwrap_or_else(|faults| panic!("{faults}\n{yaml}"))
}

/// How far the rollout of release 2 is when the configuration changes. Before it release 1 outlived its watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// It is wished, and nothing was decided.
    Wished,
    /// Its first slot has been trying for half of its time …
    Trying,
    /// … and its time is over.
    Failing,
    /// The canary is stable, and has soaked for a second …
    Soaking,
    /// … and for long enough.
    Soaked,
    /// The first slot behind it is stable: the spare of the second host.
    Moving,
    /// The batch behind it is over, for a second.
    Between,
    /// It has been everywhere for ten seconds.
    Watched,
    /// One slot runs its pre-commands: of release 3, which has some.
    PreCommands,
    /// Nothing is rolled out, and the first replica is above a limit for which it was started anew 100 seconds ago.
    OverItsLimit,
}

/// Secrets that are their own names.
struct Known;

impl assign::Secrets for Known {
    fn cookie(&self, app: &AppName, _: &[u8]) -> Result<String, Unopened> {
        Ok(app.to_string())
    }

    fn value(&self, name: &str) -> Result<String, Unopened> {
        Ok(name.to_owned())
    }
}

impl apply::Secrets for Known {
    fn new_cookie(&self, app: &AppName) -> Result<Vec<u8>, Source> {
        Ok(app.as_str().as_bytes().to_vec())
    }

    fn fingerprint(&self, _: &AppSpec, _: &[u8]) -> Result<String, String> {
        Ok("same".to_owned())
    }
}

/// What agents are told: of the application field by field, and of each slot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) fields: BTreeMap<&'static str, String>,
    pub(super) slots: BTreeMap<String, pb::SlotAssignment>,
    /// Of each host.
    pub(super) generations: Vec<u64>,
}

pub(super) struct World {
    pub(super) it: TestDb,
    nodes: Vec<NodeId>,
    observed: BTreeMap<Place, Observed>,
    /// The first replica is above a limit, however often it is started anew.
    over_its_limit: bool,
    pub(super) now: Time,
}

impl World {
    /// Release 1 is in force on all hosts and has outlived its watch.
    pub(super) async fn running(yaml: &str) -> Self {
        let it = Box::pin(TestDb::sqlite()).await;
        let (nodes, observed) = (Vec::new(), BTreeMap::new());
        let mut world = Self { it, nodes, observed, over_its_limit: false, now: Time(1_000_000) };
        world.apply(yaml).await;
        for number in 1..=4 {
            let commands = if number >= 3 { vec!["eval Shop.migrate()".to_owned()] } else { Vec::new() };
            world.record(release(number), commands).await;
        }
        for (number, labels) in [(1, "role=web rack=3"), (2, "role=web rack=2"), (3, "rack=1")] {
            world.enrol(number, labels).await;
        }
        world.wish(1).await;
        world.until_over().await;
        world
    }

    async fn record(&self, key: ReleaseKey, pre_commands: Vec<String>) {
        let (app, recorded_at) = ("shop".parse().unwrap(), Time(1));
        let release = Release {
            app,
            key,
            size: 1,
            declared_hash: None,
            pre_commands,
            etag: None,
            recorded_at,
            package: None,
        };
        self.it.db.record_release(&release, &[]).await.unwrap();
    }

    async fn enrol(&mut self, number: u8, labels: &str) {
        let labels = labels.split(' ').filter_map(|it| it.split_once('='));
        let mut labels: BTreeMap<_, _> =
            labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        labels.insert("zone".to_owned(), "a".to_owned());
        let (hash, created_at, expires_at) = ([number; 32], Time(1), Time(100));
        let created_by = "ann".to_owned();
        let token =
            NewJoinToken { hash, uses: 1, labels: BTreeMap::new(), created_by, created_at, expires_at };
        self.it.db.add_join_token(&token, &[], None).await.unwrap();
        let enrolment = Enrolment {
            id: node_id(number),
            name: format!("web-{number}").parse().unwrap(),
            labels,
            agent_version: "1.0".to_owned(),
            token_hash: hash,
            certificate: NewCertificate { serial: number.to_string(), not_after: Time(1_000) },
        };
        let enrolled = Box::pin(self.it.db.enrol(&enrolment, Time(2), &[])).await.unwrap();
        self.nodes.push(enrolled.id);
    }

    /// Puts it in force as `deployex apply` does; what of the application was changed by that.
    pub(super) async fn apply(&mut self, yaml: &str) -> Vec<Change> {
        let config = config(yaml);
        let (difference, entangled) = Box::pin(apply::difference(&config, &self.it.db)).await.unwrap();
        assert!(entangled.is_empty());
        let by = "ann".to_owned();
        let wish =
            Wish { by, at_start: false, audit: None, headline: None, now: self.now, planned_at: self.now };
        Box::pin(apply::apply(&config, &self.it.db, &Known, None, wish)).await.unwrap();
        difference.applications.into_iter().flat_map(|it| it.changes).collect()
    }

    pub(super) async fn wish(&self, number: u8) {
        let app = "shop".parse().unwrap();
        self.it.db.set_bucket_wish(&app, None, &release(number), self.now, &[]).await.unwrap();
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.now = self.now.plus(millis);
    }

    /// As `reconcile` loads it.
    pub(super) async fn fleet(&self) -> AppFleet {
        let mut fleet = Box::pin(self.it.db.load_app_fleets()).await.unwrap().remove(0);
        for node in fleet.nodes.values_mut() {
            (node.liveness, node.stored) = (Liveness::Up, u64::MAX);
        }
        AppFleet { observed: self.observed.clone(), ..fleet }
    }

    /// What is planned, which is stored.
    pub(super) async fn plan(&mut self) -> (AppFleet, Plan) {
        let fleet = self.fleet().await;
        let planned = plan(&fleet, self.now);
        if !planned.is_empty() {
            let stored = self.it.db.store_plan(&fleet.app, fleet.generation, &planned, self.now);
            Box::pin(stored).await.unwrap();
        }
        (fleet, planned)
    }

    /// Every slot has done what it was told.
    async fn all_do_as_told(&mut self) {
        for (place, assigned) in self.fleet().await.assigned {
            let state = if assigned.release.is_some() { SlotState::Stable } else { SlotState::Empty };
            let mut observed = seen(state, assigned.release, assigned.generation);
            let (outcome, printed) = (PreCommandsOutcome::Passed, "".into());
            let ran =
                assigned.pre_commands_run.map(|run_id| ObservedPreCommands { run_id, outcome, printed });
            observed.pre_commands = ran;
            if self.over_its_limit && place == fixture::place(1, 1) {
                observed.vm = Some(above_its_limit(self.now));
            }
            self.observed.insert(place, observed);
        }
    }

    /// Plans on while all do as they are told: what was said by each plan that told anything.
    pub(super) async fn until_calm(&mut self) -> Vec<String> {
        let mut plans = Vec::new();
        self.all_do_as_told().await;
        loop {
            let (fleet, planned) = self.plan().await;
            if planned.is_empty() {
                return plans;
            }
            plans.extend((!planned.steps.is_empty()).then(|| said(&fleet, &planned)));
            self.all_do_as_told().await;
        }
    }

    /// The same until nothing is under way, however long it takes.
    pub(super) async fn until_over(&mut self) -> Vec<String> {
        let mut plans = Vec::new();
        for _ in 0..100 {
            plans.extend(self.until_calm().await);
            let fleet = self.fleet().await;
            if fleet.rollout.is_none() && fleet.restarts.is_empty() {
                return plans;
            }
            self.pass(5_000);
        }
        panic!("it does not end: {:?}", self.fleet().await.rollout);
    }

    pub(super) async fn come_to(&mut self, moment: Moment) {
        match moment {
            Moment::OverItsLimit => {}
            Moment::PreCommands => self.wish(3).await,
            _ => self.wish(2).await,
        }
        match moment {
            Moment::Wished => {}
            Moment::OverItsLimit => {
                self.over_its_limit = true;
                self.until_over().await;
                self.pass(100_000);
            }
            Moment::PreCommands => drop(self.plan().await),
            Moment::Trying => self.try_for(5).await,
            Moment::Failing => self.try_for(10).await,
            Moment::Soaking => {
                self.canary(1_000).await;
                self.plan().await;
            }
            Moment::Soaked => self.canary(10_000).await,
            Moment::Moving => {
                self.canary(10_000).await;
                self.plan().await;
                self.all_do_as_told().await;
            }
            Moment::Between => {
                self.canary(10_000).await;
                self.until_calm().await;
                self.pass(1_000);
            }
            Moment::Watched => {
                while self.fleet().await.rollout.is_none_or(|it| it.phase != RolloutPhase::Watching) {
                    self.pass(1_000);
                    self.until_calm().await;
                }
                self.look_on(10_000).await;
            }
        }
    }

    /// It is stable for so long.
    async fn canary(&mut self, millis: u64) {
        self.until_calm().await;
        self.look_on(millis).await;
    }

    /// Plans every second, save at the end: what is decided then is the test's to see.
    async fn look_on(&mut self, millis: u64) {
        for _ in 1..millis / 1_000 {
            self.pass(1_000);
            self.plan().await;
        }
        self.pass(1_000);
    }

    /// So many times four seconds, without any success.
    async fn try_for(&mut self, times: u64) {
        for _ in 0..times {
            self.plan().await;
            self.pass(4_000);
        }
    }

    pub(super) async fn told(&self) -> Told {
        let assignments = Assignments::new(self.it.db.clone(), Arc::new(Known));
        let (mut fields, mut slots, mut generations) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for (node, number) in self.nodes.iter().zip(1..) {
            let assignment = assignments.of(*node).await.unwrap();
            for application in assignment.applications {
                fields = told_fields(application);
            }
            slots.extend(assignment.slots.into_iter().map(|it| (format!("web-{number}/{}", it.slot), it)));
            generations.push(assignment.generation);
        }
        Told { fields, slots, generations }
    }
}

/// Taken apart to the last field, so that a new one cannot be forgotten.
fn told_fields(application: pb::Application) -> BTreeMap<&'static str, String> {
    let pb::Application {
        name,
        language,
        env,
        ports,
        env_file,
        run_as_user,
        run_as_group,
        cookie,
        distribution,
        stable_after_ms,
        stop_grace_ms,
        backoff_min_ms,
        backoff_max_ms,
        backoff_reset_after_ms,
        ready,
        pre_commands_timeout_ms,
        ready_probes,
        live_probes,
        nginx,
        drain_ms,
        limits,
        monitoring,
        cluster,
        telemetry_events,
    } = application;
    let env: Vec<_> = env.into_iter().map(|it| (it.key, it.value)).collect();
    BTreeMap::from([
        ("name", name),
        ("language", language.to_string()),
        ("env", format!("{env:?}")),
        ("ports", format!("{ports:?}")),
        ("env_file", env_file),
        ("run_as_user", run_as_user),
        ("run_as_group", run_as_group),
        ("cookie", cookie),
        ("distribution", format!("{distribution:?}")),
        ("stable_after_ms", stable_after_ms.to_string()),
        ("stop_grace_ms", stop_grace_ms.to_string()),
        ("backoff_min_ms", backoff_min_ms.to_string()),
        ("backoff_max_ms", backoff_max_ms.to_string()),
        ("backoff_reset_after_ms", backoff_reset_after_ms.to_string()),
        ("ready", ready.to_string()),
        ("pre_commands_timeout_ms", pre_commands_timeout_ms.to_string()),
        ("ready_probes", format!("{ready_probes:?}")),
        ("live_probes", format!("{live_probes:?}")),
        ("nginx", format!("{nginx:?}")),
        ("drain_ms", drain_ms.to_string()),
        ("limits", format!("{limits:?}")),
        ("monitoring", format!("{monitoring:?}")),
        ("cluster", cluster.to_string()),
        ("telemetry_events", telemetry_events.join(" ")),
    ])
}

/// What a plan tells, or where it tells nothing, what it waits for.
pub(super) fn said(fleet: &AppFleet, planned: &Plan) -> String {
    let node = |id: &NodeId| fleet.nodes[id].name.to_string();
    let name = |place: &Place| format!("{}/{}", node(&place.node), place.slot);
    let mut lines = Vec::new();
    let before = fleet.rollout.as_ref();
    for rollout in &planned.rollouts {
        let same = before.filter(|it| it.id == rollout.id);
        if same.map(|it| it.phase) != Some(rollout.phase) {
            lines.push(rollout.phase.to_string());
        }
        lines.extend(rollout.progress.failed.keys().map(|id| format!("failed on {}", node(id))));
        let number = same.and_then(|it| it.progress.batch.as_ref()).map(|it| it.number);
        if let Some(batch) = rollout.progress.batch.as_ref().filter(|it| Some(it.number) != number) {
            let nodes: Vec<String> = batch.nodes.iter().map(node).collect();
            lines.push(format!("{} {}", if batch.canary { "canary" } else { "batch" }, nodes.join(" ")));
        }
    }
    for step in &planned.steps {
        lines.push(match step {
            Step::Assign { place, release, pre_commands_run, .. } => {
                let own = pre_commands_run.as_ref().map_or("", |_| " and runs its pre-commands");
                format!("{} gets {}{own}", name(place), release.version)
            }
            Step::Withdraw { place } => format!("{} goes", name(place)),
            Step::Forget { place } => format!("{} is gone", name(place)),
            Step::Restart { place, .. } => format!("{} begins anew", name(place)),
        });
    }
    if lines.is_empty() {
        lines.extend(planned.waiting.iter().map(|it| format!("waits: {it}")));
    }
    lines.join("; ")
}
