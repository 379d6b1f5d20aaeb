//! Agent and control plane lose each other in the middle of a rollout: replicas stay up, both meet again, and no step of the
//! rollout is done twice.

use proto::apps::Application;
use proto::nodes::NodeSummary;
use proto::state::{Liveness, SlotState};
use tests::http::{get, serves_version};
use tests::link::Link;
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

const APP: &str = "gleam_demo";

type Part = fn(&Link);

/// Where in a rollout of two replicas with one more slot the link fails.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The extra slot is being filled.
    Begins,
    /// The extra slot serves, so slots 1 and 2 are replaced.
    InTheMiddle,
    /// The last of the slots is replaced.
    AtTheEnd,
}

impl Moment {
    fn has_come(self, application: &Application, version: &str) -> bool {
        let on_it = |slot: u16, state: fn(SlotState) -> bool| {
            let runs = |it: &proto::ids::ReleaseKey| it.version.to_string() == version;
            application.slots.iter().any(|it| {
                it.slot.number() == slot && it.running.as_ref().is_some_and(runs) && state(it.state)
            })
        };
        match self {
            Self::Begins => application.slots.iter().any(|it| it.slot.number() == 3),
            Self::InTheMiddle => on_it(3, |state| state == SlotState::Stable),
            Self::AtTheEnd => on_it(2, |state| state != SlotState::Stable),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_at_any_moment_of_a_rollout_stops_nothing_and_repeats_nothing() {
    let bucket = Bucket::new();
    let port = ports::free(3);
    let applications = format!(
        "  - name: {APP}\n    language: gleam\n    replicas: 2\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 100\n    \
         env: [{{ key: SAMPLE_BEHAVIOUR, value: priv }}]\n    \
         deploy: {{ strategy: start_first, stable_after_ms: 500, stop_grace_ms: 5000, drain_ms: 0 }}\n"
    );
    bucket.publish(Sample::Gleam, "0.1.0").await;
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let link = Link::to(control_plane.agents_address()).await;
    let agent = Agent::join_through(&control_plane, link.address(), "first").await;
    control_plane.settles_on(APP, "0.1.0").await;

    // Closed connections are noticed at once, silent ones only by their silence.
    let partitions: [(&str, Moment, Part); 3] = [
        ("0.2.0", Moment::Begins, Link::cut),
        ("0.1.0", Moment::InTheMiddle, Link::silence),
        ("0.2.0", Moment::AtTheEnd, Link::cut),
    ];
    for (version, moment, part) in partitions {
        bucket.publish(Sample::Gleam, version).await;
        control_plane
            .application_when(&format!("{moment:?} of the rollout to {version}"), APP, |it| {
                moment.has_come(it, version)
            })
            .await;
        part(&link);
        lost(&control_plane).await;
        let alone = control_plane.application(APP).unwrap();
        let waiting = alone.current_rollout.iter().flat_map(|it| &it.summary.waiting);
        assert!(
            alone.current_rollout.is_none() || waiting.clone().any(|it| it.contains("first")),
            "the rollout waits and does not say for whom: {alone:#?}"
        );
        // Nobody tells the agent anything, and what it has serves.
        let serving = [port, port + 1, port + 2].map(|port| async move { version_on(port).await.is_ok() });
        let serving = futures_util::future::join_all(serving).await;
        assert!(serving.iter().filter(|it| **it).count() >= 2, "{moment:?}: {serving:?}");

        link.mend();
        let after = control_plane.settles_on(APP, version).await;
        assert!(after.slots.iter().all(|it| it.crash_restarts == 0), "{after:#?}\n{}", agent.output());
        for slot in 0..2 {
            serves_version(port + slot, version).await;
            // Each start of this release in this slot has left a line.
            let starts = get(&format!("http://127.0.0.1:{}/priv", port + slot)).await.unwrap();
            assert_eq!(starts.split_whitespace().count(), 1, "{moment:?}: slot {}: {starts}", slot + 1);
        }
        control_plane.application_when("the borrowed slot given back", APP, |it| it.slots.len() == 2).await;
    }
    // Each version was rolled out as often as it was asked for.
    let rollouts: Vec<serde_json::Value> = control_plane.ask(&["rollout", "list", "--app", APP]).unwrap();
    assert_eq!(rollouts.len(), 1 + partitions.len(), "{rollouts:#?}");
}

async fn version_on(port: u16) -> Result<String, String> {
    get(&format!("http://127.0.0.1:{port}/version")).await
}

/// Waits until the control plane has noticed.
async fn lost(control_plane: &ControlPlane) {
    eventually("the node lost", || async {
        let nodes: Vec<NodeSummary> = control_plane.ask(&["node", "list"]).unwrap_or_default();
        match nodes.as_slice() {
            [node] if node.liveness == Liveness::Lost => Seen::Done(()),
            other => Seen::NotYet(format!("{other:?}")),
        }
    })
    .await;
}
