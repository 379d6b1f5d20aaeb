//! The agent is a hidden node beside the replicas: each says which Erlang node it is and since when the agent is connected to it,
//! whatever its language, whoever named it, and whoever has died in between.

use proto::replicas::{ErlangNode, Replica};
use proto::timestamp::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use xtask::fixtures::Sample;

/// Where a release names its node itself, that counts.
const OWN_NAME: &str =
    "env: [{ key: RELEASE_DISTRIBUTION, value: name }, { key: RELEASE_NODE, value: shop@127.0.0.1 }]";

fn application(sample: Sample, more: &str) -> String {
    format!(
        "  - name: {}\n    language: {}\n    replicas: 1\n    replica_ports: [{{ key: PORT, base: {} }}]\n    \
         deploy_schedule_interval_ms: 200\n    {more}\n    deploy: {{ stable_after_ms: 500, drain_ms: 0 }}\n",
        sample.name(),
        sample.language(),
        ports::free(2)
    )
}

fn node(slots: &[Replica]) -> Option<&ErlangNode> {
    slots.first()?.erlang.as_ref()
}

/// The node's name, and since when it is connected.
async fn connected(control_plane: &ControlPlane, app: &str, after: Timestamp) -> (String, Timestamp) {
    let found = control_plane
        .application_when("a connection to the node", app, |it| {
            let since = node(&it.slots).and_then(|it| it.connected_since);
            since.is_some_and(|it| it > after)
        })
        .await;
    let ErlangNode { name, connected_since, kind, because } = node(&found.slots).unwrap().clone();
    assert_eq!((kind, because), (None, None), "it is connected");
    (name, connected_since.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_three_languages_are_nodes_to_which_the_agent_is_connected_again_after_each_death() {
    let bucket = Bucket::new();
    let mut applications = String::new();
    for sample in Sample::ALL {
        bucket.publish(sample, "0.1.0").await;
        applications.push_str(&application(sample, if sample == Sample::Elixir { OWN_NAME } else { "" }));
    }
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let mut agent = Agent::join(&control_plane, "only").await;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let short = host.split('.').next().unwrap();
    let mut since = Vec::new();
    for sample in Sample::ALL {
        let (name, at) = connected(&control_plane, sample.name(), Timestamp(0)).await;
        let expected = match sample {
            Sample::Elixir => "shop@127.0.0.1".to_owned(),
            _ => format!("{}-1@{short}", sample.name()),
        };
        assert_eq!(name, expected);
        since.push((sample, at));
    }

    // Of an agent that is away nobody knows how it stands; the next one connects to what runs on.
    agent.kill();
    agent.resume();
    for (sample, at) in &mut since {
        *at = connected(&control_plane, sample.name(), *at).await.1;
    }

    let (sample, at) = since[1];
    let before = control_plane.application(sample.name()).unwrap();
    let pid = before.slots[0].pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap())).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let (_, again) = connected(&control_plane, sample.name(), at).await;
    assert!(again > at);
    for (other, at) in since.iter().filter(|(it, _)| *it != sample) {
        let same = connected(&control_plane, other.name(), Timestamp(0)).await.1;
        assert_eq!(same, *at, "{other} is connected as before");
    }
}
