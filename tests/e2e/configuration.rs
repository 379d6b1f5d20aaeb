//! A changed `deployex.yaml` and a restart of the control plane: agents are told at once, and nothing that runs is restarted that
//! need not be.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::apps::Application;
use proto::nodes::Node;
use rustix::process::{Pid, Signal, kill_process};
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, within};
use xtask::fixtures::Sample;

const APP: &str = "elixir_demo";

/// Of an agent that is connected: far below the minute after which it would ask by itself.
const AT_ONCE: Duration = Duration::from_secs(20);

fn application(port: u16, replicas: u16, grace: u32, env: &str) -> String {
    format!(
        "  - name: {APP}\n    language: elixir\n    replicas: {replicas}\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    \
         deploy_schedule_interval_ms: 200\n    env: [{env}]\n    \
         deploy: {{ strategy: start_first, stable_after_ms: 1000, stop_grace_ms: {grace} }}\n"
    )
}

/// The process in each slot.
fn pids(application: &Application) -> BTreeMap<u16, Option<u32>> {
    application.slots.iter().map(|it| (it.slot.number(), it.pid)).collect()
}

/// How often the agent stored an assignment.
fn told(agent: &Agent) -> usize {
    agent.output().lines().filter(|line| line.contains("assigned") && line.contains("generation")).count()
}

async fn is_told_again(agent: &Agent, before: usize) {
    within(AT_ONCE, "another assignment", || async {
        match told(agent) {
            count if count > before => Seen::Done(()),
            _ => Seen::NotYet(agent.output()),
        }
    })
    .await;
}

fn variable(pid: Option<u32>, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{}/environ", pid?)).ok()?;
    let text = String::from_utf8_lossy(&environment).into_owned();
    text.split('\0').find_map(|entry| Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_configuration_reaches_agents_at_once_and_replaces_only_what_has_to_be() {
    let bucket = Bucket::new();
    let port = ports::free(4);
    bucket.publish(Sample::Elixir, "0.1.0").await;
    let mut control_plane = ControlPlane::start(&bucket, &application(port, 1, 5000, "")).await;
    let agent = Agent::join(&control_plane, "first").await;
    let before = pids(&control_plane.settles_on(APP, "0.1.0").await);

    // Neither a grace nor a variable is a reason to touch what runs.
    for changed in [application(port, 1, 4000, ""), application(port, 1, 4000, "{ key: COLOUR, value: red }")]
    {
        let so_far = told(&agent);
        control_plane.kill();
        control_plane.configure(&bucket, &changed);
        control_plane.resume().await;
        is_told_again(&agent, so_far).await;
        let now = control_plane.settles_on(APP, "0.1.0").await;
        assert_eq!(pids(&now), before);
        assert!(now.slots.iter().all(|slot| slot.crash_restarts == 0));
    }
    assert_eq!(variable(before[&1], "COLOUR"), None);

    // A variable is for the next deployment: a crash does not bring it.
    let pid = before[&1].and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap())).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let again = control_plane
        .application_when("a successor that is ready", APP, |it| {
            it.summary.replicas_ready == 1 && it.slots.iter().all(|slot| slot.crash_restarts == 1)
        })
        .await;
    let slot = &again.slots[0];
    assert_eq!(slot.ports.iter().map(|it| it.port).collect::<Vec<_>>(), [port]);
    assert_eq!(variable(slot.pid, "COLOUR"), None);

    // Another port replaces what runs, with all that is wanted now.
    let elsewhere = ports::free(4);
    control_plane.kill();
    control_plane.configure(&bucket, &application(elsewhere, 1, 4000, "{ key: COLOUR, value: red }"));
    control_plane.resume().await;
    let moved = control_plane
        .application_when("a replica on the other port, and none beside it", APP, |it| {
            it.summary.replicas_ready == 1
                && it.slots.len() == 1
                && it.slots[0].ports.first().is_some_and(|it| it.port == elsewhere)
        })
        .await;
    assert_eq!(variable(moved.slots[0].pid, "COLOUR").as_deref(), Some("red"));
    let before = pids(&moved);

    // Another replica is started beside those that run.
    control_plane.kill();
    control_plane.configure(&bucket, &application(elsewhere, 2, 4000, "{ key: COLOUR, value: red }"));
    control_plane.resume().await;
    let two = control_plane
        .application_when("two replicas", APP, |it| it.summary.replicas_ready == 2 && it.slots.len() == 2)
        .await;
    assert_eq!(pids(&two)[&1], before[&1]);

    // So with the next deployment.
    bucket.publish(Sample::Elixir, "0.2.0").await;
    let next = control_plane.settles_on(APP, "0.2.0").await;
    for slot in next.slots.iter().filter(|slot| slot.slot.number() <= 2) {
        assert_eq!(variable(slot.pid, "COLOUR").as_deref(), Some("red"), "slot {}", slot.slot);
        assert_eq!(slot.ports[0].port, elsewhere + slot.slot.number() - 1);
    }
}

/// When the node was last heard, as people are told.
fn heard(control_plane: &ControlPlane) -> Option<u64> {
    let node: Result<Node, String> = control_plane.ask(&["node", "show", "first"]);
    node.unwrap_or_else(|error| panic!("{error}")).summary.heard_at.map(|at| at.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_node_was_last_heard_outlives_the_control_plane() {
    let bucket = Bucket::new();
    let mut control_plane = ControlPlane::start(&bucket, "  []\n").await;
    let mut agent = Agent::join(&control_plane, "first").await;
    let joined = within(AT_ONCE, "the node", || async {
        heard(&control_plane).map_or_else(|| Seen::NotYet("it was never heard".to_owned()), Seen::Done)
    })
    .await;
    // So long that it was written down at least once since the session began.
    within(AT_ONCE, "some heartbeats", || async {
        match heard(&control_plane) {
            Some(at) if at >= joined + 8_000 => Seen::Done(()),
            other => Seen::NotYet(format!("{other:?}, joined {joined}")),
        }
    })
    .await;
    agent.kill();
    control_plane.kill();
    control_plane.resume().await;
    let remembered = heard(&control_plane).expect("it is remembered");
    assert!(remembered >= joined + 1_000, "{remembered} is when it joined, {joined}");
}
