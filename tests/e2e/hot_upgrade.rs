//! Releases that take the place of others while these run: state, process and listener kept, every request answered; and what
//! follows where that cannot be, from the package to the middle of the install.

use proto::apps::Application;
use proto::events::Event;

use proto::replicas::Replica;
use proto::state::{SlotState, UpgradeState};
use rustix::process::{Pid, Signal, kill_process};
use tests::http::get;
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

struct World {
    sample: Sample,
    bucket: Bucket,
    control_plane: ControlPlane,
    _agent: Agent,
    port: u16,
}

impl World {
    /// With 1.1.0 in force. `deploy`: more of that section.
    async fn new(sample: Sample, replicas: u16, deploy: &str) -> Self {
        let (bucket, port) = (Bucket::new(), ports::free(replicas + 1));
        bucket.publish(sample, "1.1.0").await;
        let (name, language) = (sample.name(), sample.language());
        let applications = format!(
            "  - name: {name}\n    language: {language}\n    replicas: {replicas}\n    \
             replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 200\n    \
             restart: {{ backoff_min_ms: 100, backoff_max_ms: 200 }}\n    \
             deploy: {{ stable_after_ms: 500, drain_ms: 0, {deploy} }}\n"
        );
        let control_plane = ControlPlane::start(&bucket, &applications).await;
        let agent = Agent::join(&control_plane, "only").await;
        control_plane.settles_on(name, "1.1.0").await;
        let world = Self { sample, bucket, control_plane, _agent: agent, port };
        world.connected().await;
        world
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

    async fn settles_on(&self, version: &str) -> Application {
        self.control_plane.settles_on(self.sample.name(), version).await
    }

    /// One more is counted in that slot.
    async fn count(&self, slot: u16) -> u64 {
        let url = format!("http://127.0.0.1:{}/count", self.port + slot - 1);
        let said = eventually("the count", || {
            let url = &url;
            async move {
                match get(url).await {
                    Ok(text) => Seen::Done(text),
                    Err(error) => Seen::NotYet(error),
                }
            }
        })
        .await;
        said.trim().parse().expect("a number")
    }

    fn events(&self) -> Vec<(String, String)> {
        let words = ["event", "list", "--app", self.sample.name(), "--limit", "200"];
        let events: Vec<Event> = self.control_plane.ask(&words).expect("events");
        events.into_iter().map(|it| (it.kind, it.text)).collect()
    }
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
    let complete = world.events().into_iter().filter(|(kind, _)| kind == "hot_upgrade_complete").count();
    assert_eq!(complete, 4, "{:?}", world.events());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elixir_goes_from_one_release_to_the_next_and_keeps_what_it_counts() {
    keeps_what_it_counts(Sample::Elixir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erlang_goes_from_one_release_to_the_next_and_keeps_what_it_counts() {
    keeps_what_it_counts(Sample::Erlang).await;
}
