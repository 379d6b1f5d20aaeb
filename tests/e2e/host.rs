//! A host that runs out of memory: the limits of a changed `deployex.yaml` reach its agent, which restarts one replica, says
//! so, and leaves the others alone; console, command line and Prometheus show how the host is.

use std::time::Duration;

use fantoccini::Locator;
use proto::events::Event;
use proto::nodes::Node;
use proto::state::HostLevel;
use tests::browser::{ADMIN, Browser};
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, within};
use xtask::fixtures::Sample;

const ELIXIR: &str = "elixir_demo";
const GLEAM: &str = "gleam_demo";
const PATIENCE: Duration = Duration::from_mins(3);

fn applications(port: u16) -> String {
    let app = |name: &str, language: &str, base: u16| {
        format!(
            "  - name: {name}\n    language: {language}\n    replicas: 1\n    \
             replica_ports: [{{ key: PORT, base: {base} }}]\n    deploy_schedule_interval_ms: 200\n    \
             deploy: {{ strategy: stop_first, stable_after_ms: 1000, stop_grace_ms: 5000 }}\n"
        )
    };
    format!("{}{}", app(ELIXIR, "elixir", port), app(GLEAM, "gleam", port + 2))
}

struct Fleet {
    control_plane: ControlPlane,
    _agent: Agent,
}

impl Fleet {
    fn node(&self) -> Node {
        self.control_plane.ask(&["node", "show", "web-1"]).unwrap()
    }

    /// Forced restarts and process of an application's only replica.
    fn replica(&self, app: &str) -> (u32, Option<u32>) {
        let slots = self.node().slots;
        let slot = slots.iter().find(|it| it.application.as_str() == app).unwrap();
        (slot.forced_restarts, slot.pid)
    }

    async fn node_when(&self, what: &str, is_so: impl Fn(&Node) -> bool) -> Node {
        within(PATIENCE, what, || async {
            let node = self.node();
            if is_so(&node) { Seen::Done(node) } else { Seen::NotYet(format!("{node:#?}")) }
        })
        .await
    }

    fn exceeded(&self) -> Vec<Event> {
        let events: Vec<Event> = self.control_plane.ask(&["event", "list"]).unwrap();
        events.into_iter().filter(|it| it.kind == "watchdog_threshold_exceeded").collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_without_memory_restarts_one_replica_and_shows_how_it_is() {
    let bucket = Bucket::new();
    let port = ports::free(4);
    bucket.publish(Sample::Elixir, "0.1.0").await;
    bucket.publish(Sample::Gleam, "0.1.0").await;
    let control_plane = ControlPlane::start(&bucket, &applications(port)).await;
    let agent = Agent::join(&control_plane, "web-1").await;
    for app in [ELIXIR, GLEAM] {
        control_plane.settles_on(app, "0.1.0").await;
    }
    let mut fleet = Fleet { control_plane, _agent: agent };
    let watched = |node: &Node| node.limits.iter().map(|it| it.kind.clone()).collect::<Vec<_>>();
    fleet
        .node_when("the disk, which is watched where nobody speaks of it", |it| watched(it) == ["disk"])
        .await;
    let before = [fleet.replica(ELIXIR), fleet.replica(GLEAM)];

    // Whatever uses one percent of this machine's memory.
    let limits =
        "monitoring:\n  - { type: memory, warning_threshold_percent: 1, restart_threshold_percent: 1 }\n";
    fleet.control_plane.kill();
    fleet.control_plane.configure(&bucket, &format!("{}{limits}", applications(port)));
    fleet.control_plane.resume().await;
    let waits = |node: &Node| {
        let memory = node.limits.iter().find(|it| it.kind == "memory");
        memory.is_some_and(|it| it.sentence.as_ref().is_some_and(|it| it.contains("the next restart")))
    };
    let node = fleet.node_when("a restart, and the pause behind it", waits).await;
    assert_eq!(node.summary.warnings[0].level, HostLevel::Exceeded);
    let restarted = |app: &'static str| {
        move |node: &Node| {
            node.slots
                .iter()
                .any(|it| it.application.as_str() == app && it.forced_restarts == 1 && it.pid.is_some())
        }
    };
    let [event] = fleet.exceeded().try_into().unwrap();
    let (victim, other) = match event.application.as_ref().unwrap().as_str() {
        ELIXIR => ((ELIXIR, before[0]), (GLEAM, before[1])),
        _ => ((GLEAM, before[1]), (ELIXIR, before[0])),
    };
    fleet.node_when("the replica that was restarted", restarted(victim.0)).await;
    assert_ne!(fleet.replica(victim.0).1, victim.1.1);
    assert_eq!(fleet.replica(other.0), other.1, "the other one is left alone");
    assert_eq!((&event.data["type"], &event.data["action"]), (&"memory".into(), &"restart".into()));
    assert!(event.text.contains("is the largest replica"), "{}", event.text);

    is_shown(&fleet).await;
    // All the while the memory was above its limit.
    assert_eq!(fleet.exceeded().len(), 1);
    assert_eq!((fleet.replica(victim.0).0, fleet.replica(other.0)), (1, other.1));
}

/// In the console, on the command line and for Prometheus.
async fn is_shown(fleet: &Fleet) {
    let browser = Browser::open().await;
    browser.client.goto(&fleet.control_plane.url("/nodes/web-1")).await.unwrap();
    browser.sign_in(ADMIN).await;
    let several = "a chart with several samples";
    within(PATIENCE, several, || async {
        let path = browser.client.find(Locator::Css("[data-chart=CPU] path.series")).await;
        let drawn = match path {
            Ok(path) => path.attr("d").await.unwrap().unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        if drawn.matches('L').count() >= 2 { Seen::Done(()) } else { Seen::NotYet(drawn) }
    })
    .await;
    for selector in
        ["[data-chart=Memory] line.limit", "[data-banner=limit]", "[data-chart=Network] path.series"]
    {
        browser
            .client
            .find(Locator::Css(selector))
            .await
            .unwrap_or_else(|error| panic!("{selector}: {error}"));
    }
    let errors = browser.console_errors().await;
    browser.close().await;
    assert_eq!(errors, Vec::<String>::new());

    let said = fleet.control_plane.command_line().run(&["node", "show", "web-1"]);
    for word in ["exceeded", "each core", "pressure", "network", "RESTARTS AT"] {
        assert!(said.out.contains(word), "{word}: {}", said.out);
    }
    let metrics = tests::http::get(&fleet.control_plane.url("/metrics")).await.unwrap();
    assert!(metrics.contains("deployex_node_memory_available_bytes{node=\"web-1\"}"), "{metrics}");
}
