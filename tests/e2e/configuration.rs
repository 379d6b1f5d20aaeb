//! A changed `deployex.yaml` and a restart of the control plane: agents are told at once, and nothing that runs is restarted.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::apps::Application;
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
async fn a_changed_configuration_reaches_agents_at_once_and_restarts_nothing() {
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

    // Another replica is started beside those that run.
    control_plane.kill();
    control_plane.configure(&bucket, &application(port, 2, 4000, "{ key: COLOUR, value: red }"));
    control_plane.resume().await;
    let two = control_plane
        .application_when("two replicas", APP, |it| it.summary.replicas_ready == 2 && it.slots.len() == 2)
        .await;
    assert_eq!(pids(&two)[&1], before[&1]);

    // The variable is there with the next deployment.
    bucket.publish(Sample::Elixir, "0.2.0").await;
    let next = control_plane.settles_on(APP, "0.2.0").await;
    for slot in next.slots.iter().filter(|slot| slot.slot.number() <= 2) {
        assert_eq!(variable(slot.pid, "COLOUR").as_deref(), Some("red"), "slot {}", slot.slot);
    }
}
