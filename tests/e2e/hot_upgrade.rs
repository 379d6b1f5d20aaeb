//! Releases that take the place of others while these run: state, process and listener kept, every request answered; and what
//! follows where that cannot be, from the package to the middle of the install.

use std::path::PathBuf;

use proto::apps::{Application, DeploymentKind, HistoryEntry, ReplicaHistoryEntry};
use proto::events::Event;
use proto::releases::ReleaseCheck;
use proto::replicas::Replica;
use proto::state::{SlotState, UpgradeState};
use rustix::process::{Pid, Signal, kill_process};
use tests::http::get;
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

mod console;
mod deaths;
mod disk;
mod failures;
mod full;
mod link;
mod node;
mod outages;
mod pre_commands;
mod umbrella;

struct World {
    sample: Sample,
    bucket: Bucket,
    control_plane: ControlPlane,
    agent: Agent,
    port: u16,
}

impl World {
    /// With 1.1.0 in force. `deploy`: more of that section.
    async fn new(sample: Sample, replicas: u16, deploy: &str) -> Self {
        Self::with(sample, replicas, deploy, "").await
    }

    /// `more`: of the application's settings, lines of their own.
    async fn with(sample: Sample, replicas: u16, deploy: &str, more: &str) -> Self {
        let (bucket, port) = (Bucket::new(), ports::free(replicas + 1));
        bucket.publish(sample, "1.1.0").await;
        let applications = Self::applications(sample, (port, replicas), deploy, more);
        let control_plane = ControlPlane::start(&bucket, &applications).await;
        let agent = Agent::join(&control_plane, "only").await;
        Self { sample, bucket, control_plane, agent, port }.begun().await
    }

    async fn begun(self) -> Self {
        self.settles_on("1.1.0").await;
        self.connected().await;
        self
    }

    fn applications(sample: Sample, (port, replicas): (u16, u16), deploy: &str, more: &str) -> String {
        let (name, language) = (sample.name(), sample.language());
        format!(
            "  - name: {name}\n    language: {language}\n    replicas: {replicas}\n    \
             replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 200\n    \
             restart: {{ backoff_min_ms: 100, backoff_max_ms: 200 }}\n    \
             deploy: {{ stable_after_ms: 500, drain_ms: 0, {deploy} }}\n{more}"
        )
    }

    /// From now on it is deployed like this.
    async fn configure(&mut self, replicas: u16, deploy: &str) {
        self.configure_with(replicas, deploy, "").await;
    }

    async fn configure_with(&mut self, replicas: u16, deploy: &str, more: &str) {
        self.control_plane.kill();
        let applications = Self::applications(self.sample, (self.port, replicas), deploy, more);
        self.control_plane.configure(&self.bucket, &applications);
        self.control_plane.resume().await;
    }

    /// Its agent talks to every node.
    async fn connected(&self) -> Application {
        let is = |it: &Replica| it.erlang.as_ref().is_some_and(|it| it.connected_since.is_some());
        self.when("a connection to every node", |it| !it.slots.is_empty() && it.slots.iter().all(is)).await
    }

    async fn when(&self, what: &str, is_so: impl Fn(&Application) -> bool) -> Application {
        self.control_plane.application_when(what, self.sample.name(), is_so).await
    }

    async fn publish(&self, version: &str) {
        self.bucket.publish(self.sample, version).await;
    }

    /// What a person asks for, of what was published before.
    fn deploy(&self, version: &str) {
        let said = self.control_plane.command_line().run(&["deploy", self.sample.name(), version]);
        assert_eq!(said.status, 0, "{}{}", said.out, said.err);
    }

    /// What `release check` says, once the release is recorded.
    async fn check(&self, version: &str) -> ReleaseCheck {
        eventually("what a deployment would be", || async {
            match self.control_plane.ask(&["release", "check", self.sample.name(), version]) {
                Ok(check) => Seen::Done(check),
                Err(error) => Seen::NotYet(error),
            }
        })
        .await
    }

    /// A folder or file of what runs in the slot.
    fn current(&self, slot: u16, path: &str) -> PathBuf {
        self.slot(slot).join("current").join(path)
    }

    fn slot(&self, slot: u16) -> PathBuf {
        self.agent.var_path().join("service").join(self.sample.name()).join(slot.to_string())
    }

    /// Of one kind.
    fn told(&self, kind: &str) -> Vec<String> {
        self.events().into_iter().filter(|(it, _)| it == kind).map(|(_, text)| text).collect()
    }

    /// Nothing of an upgrade is left in the slot, and no release waits in it.
    async fn lies_still(&self, slot: u16) {
        let folder = self.slot(slot);
        eventually("a slot at rest", || {
            let left: Vec<_> = [folder.join("new"), folder.join("current/releases/.deployex-upgrade")]
                .into_iter()
                .filter(|it| it.exists())
                .collect();
            async move { if left.is_empty() { Seen::Done(()) } else { Seen::NotYet(format!("{left:?}")) } }
        })
        .await;
    }

    async fn settles_on(&self, version: &str) -> Application {
        self.control_plane.settles_on(self.sample.name(), version).await
    }

    /// One more is counted in that slot.
    async fn count(&self, slot: u16) -> u64 {
        self.get(slot, "/count").await.trim().parse().expect("a number")
    }

    async fn get(&self, slot: u16, path: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", self.port + slot - 1);
        eventually(path, || {
            let url = &url;
            async move {
                match get(url).await {
                    Ok(text) => Seen::Done(text),
                    Err(error) => Seen::NotYet(error),
                }
            }
        })
        .await
    }

    /// Version and kind of what was deployed, the newest first.
    fn history(&self) -> Vec<(String, String)> {
        let entries: Vec<HistoryEntry> =
            self.control_plane.ask(&["app", "history", self.sample.name()]).expect("a history");
        let kind = |it: &HistoryEntry| it.kind.map_or("", DeploymentKind::word).to_owned();
        entries.iter().map(|it| (it.release.version.to_string(), kind(it))).collect()
    }

    /// Of one slot, the newest first.
    fn told_to(&self, slot: u16) -> Vec<ReplicaHistoryEntry> {
        let slot = slot.to_string();
        let words = ["app", "history", self.sample.name(), "--node", "only", "--slot", &slot];
        self.control_plane.ask(&words).expect("a history")
    }

    fn events(&self) -> Vec<(String, String)> {
        let words = ["event", "list", "--app", self.sample.name(), "--limit", "200"];
        let events: Vec<Event> = self.control_plane.ask(&words).expect("events");
        events.into_iter().map(|it| (it.kind, it.text)).collect()
    }
}

fn words((version, kind): (&str, &str)) -> (String, String) {
    (version.to_owned(), kind.to_owned())
}

fn pids(application: &Application) -> Vec<u32> {
    application.slots.iter().filter_map(|it| it.pid).collect()
}

async fn keeps_what_it_counts(sample: Sample) {
    let world = World::new(sample, 2, "strategy: start_first").await;
    let before = pids(&world.when("both", |it| pids(it).len() == 2).await);
    let mut counted = [world.count(1).await, world.count(2).await];
    for version in ["1.2.0", "1.3.0"] {
        world.publish(version).await;
        let after = world.settles_on(version).await;
        assert_eq!(pids(&after), before, "the same processes run {version}: {:#?}", world.events());
        for slot in &after.slots {
            let upgrade = slot.upgrade.as_ref().expect("an upgrade");
            assert_eq!((upgrade.state, upgrade.to.as_str()), (UpgradeState::Done, version), "{upgrade:?}");
            assert_eq!(upgrade.done.len(), 8, "{upgrade:?}");
            assert_eq!((slot.crash_restarts, slot.forced_restarts), (0, 0));
        }
        let says = |it: &Replica| it.vm.as_ref().and_then(|it| it.application.as_deref()) == Some(version);
        world.when("what the VMs say of themselves", |it| it.slots.iter().all(says)).await;
        for slot in [1, 2] {
            let count = world.count(slot).await;
            assert_eq!(
                count,
                counted[usize::from(slot) - 1] + 1,
                "slot {slot} goes on counting in {version}"
            );
            counted[usize::from(slot) - 1] = count;
            tests::http::serves_version(world.port + slot - 1, version).await;
        }
    }
    assert_eq!(world.history(), [("1.3.0", "hot"), ("1.2.0", "hot"), ("1.1.0", "full")].map(words));
    let told = world.told_to(1);
    let hot = |it: &ReplicaHistoryEntry| (it.kind, it.from.as_ref().map(|it| it.version.to_string()));
    let from = |version: &str| (DeploymentKind::Hot, Some(version.to_owned()));
    let expected = [from("1.2.0"), from("1.1.0"), (DeploymentKind::Full, None)];
    assert_eq!(told.iter().map(hot).collect::<Vec<_>>(), expected, "{told:#?}");
    // A crash starts what it was upgraded to.
    kill_process(Pid::from_raw(i32::try_from(before[0]).unwrap()).unwrap(), Signal::KILL).unwrap();
    world
        .when("slot 1 up again", |it| {
            let first = it.slots.first();
            first.is_some_and(|it| it.crash_restarts == 1 && it.state == SlotState::Stable)
        })
        .await;
    tests::http::serves_version(world.port, "1.3.0").await;
    assert_eq!(world.count(1).await, 1);
    assert_eq!(world.told("hot_upgrade_complete").len(), 4, "{:?}", world.events());
    for slot in [1, 2] {
        world.lies_still(slot).await;
    }
    // A restart that somebody asks for starts it too.
    let said = world.control_plane.command_line().run(&["restart", sample.name(), "--wait"]);
    assert_eq!(said.status, 0, "{}{}", said.out, said.err);
    for slot in [1, 2] {
        tests::http::serves_version(world.port + slot - 1, "1.3.0").await;
    }
    // And back, where the package knows the way.
    let counted = [world.count(1).await, world.count(2).await];
    world.when("the borrowed slot given back", |it| it.slots.len() == 2).await;
    let before = pids(&world.connected().await);
    world.deploy("1.2.0");
    let back = world.settles_on("1.2.0").await;
    assert_eq!(pids(&back), before, "{:#?}", world.events());
    assert_eq!([world.count(1).await, world.count(2).await], counted.map(|it| it + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elixir_goes_from_one_release_to_the_next_and_keeps_what_it_counts() {
    keeps_what_it_counts(Sample::Elixir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erlang_goes_from_one_release_to_the_next_and_keeps_what_it_counts() {
    keeps_what_it_counts(Sample::Erlang).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_talk_tls_are_upgraded_like_others() {
    for sample in [Sample::Elixir, Sample::Erlang] {
        let world =
            World::with(sample, 1, "strategy: stop_first", "    distribution: { tls: managed }\n").await;
        let (before, counted) = (pids(&world.connected().await), world.count(1).await);
        for (nth, version) in ["1.2.0", "1.3.0"].into_iter().enumerate() {
            world.publish(version).await;
            let after = world.settles_on(version).await;
            assert_eq!(pids(&after), before, "{sample}: {:#?}", world.events());
            assert_eq!(world.count(1).await, counted + 1 + nth as u64);
        }
    }
}
