//! Nodes and rollouts as people steer and watch them by command line, over several hosts.

use std::fs;
use std::path::Path;

use proto::apps::{Application, Deployment, HistoryEntry, ReplicaHistoryEntry};
use proto::archive::hostile::Builder;
use proto::events::Event;
use proto::nodes::{JoinToken, Node};
use proto::rollouts::RolloutSummary;
use proto::state::RolloutPhase;
use tests::process::Running;
use tests::programs::{Agent, ControlPlane, Joining};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};

/// A script in the form of a release: it needs no port, so that several hosts of this one machine can run it.
const APP: &str = "demo";

/// `watch`: after stability, in milliseconds.
fn applications(watch: u32) -> String {
    format!(
        "  - name: {APP}\n    language: elixir\n    replicas: 1\n    nodes: {{ role: web }}\n    \
         deploy_schedule_interval_ms: 100\n    deploy: {{ stable_after_ms: 500, watch_ms: {watch} }}\n"
    )
}

fn publish(bucket: &Bucket, version: &str) {
    bucket.put_tarball(APP, version, &Builder::elixir().gzip());
    bucket.write_current(APP, &format!(r#"{{"version": "{version}", "hash": "local"}}"#));
}

/// Runs a command that does what it is asked for, and returns what it says.
#[track_caller]
fn done(control_plane: &ControlPlane, words: &[&str]) -> String {
    let said = control_plane.command_line().run(words);
    assert_eq!(said.status, 0, "{said:?}");
    said.out
}

async fn has_replicas(control_plane: &ControlPlane, count: usize) {
    let is_so =
        |it: &Application| it.slots.len() == count && usize::try_from(it.summary.replicas_ready) == Ok(count);
    control_plane.application_when(&format!("{count} replicas, all ready"), APP, is_so).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_runs_what_its_labels_call_for_whenever_they_are_given_to_it() {
    let bucket = Bucket::new();
    publish(&bucket, "0.1.0");
    let control_plane = ControlPlane::start(&bucket, &applications(1_000)).await;
    let token: JoinToken = control_plane.ask(&["node", "token", "--label", "role=web"]).unwrap();
    let mut first = Agent::new();
    let address = control_plane.agents_address();
    first.enrol(Joining { address, token: &token.token, name: "web-1", labels: &["zone=a"] }).await.unwrap();
    first.resume();
    has_replicas(&control_plane, 1).await;
    let node: Node = control_plane.ask(&["node", "show", "web-1"]).unwrap();
    assert_eq!(node.summary.labels.len(), 2, "its own and the token's: {:?}", node.summary.labels);

    let _second = Agent::join(&control_plane, "web-2").await;
    let said = done(&control_plane, &["node", "label", "web-2", "role=web", "zone=b"]);
    assert!(said.contains("web-2 has the labels role=web zone=b."), "{said}");
    has_replicas(&control_plane, 2).await;
    let listed = done(&control_plane, &["node", "list"]);
    assert!(listed.contains("LABELS") && listed.contains("role=web zone=b"), "{listed}");

    let said = done(&control_plane, &["node", "label", "web-2", "role-"]);
    assert!(said.contains("web-2 has the labels zone=b."), "{said}");
    has_replicas(&control_plane, 1).await;
    let wrong = control_plane.command_line().run(&["node", "label", "web-2", "role=two words"]);
    assert!(wrong.status == 2 && wrong.err.contains("1 to 63"), "{wrong:?}");
    let unknown = control_plane.command_line().run(&["node", "label", "web-2", "rack-"]);
    assert!(unknown.status == 1 && unknown.err.contains("no label rack"), "{unknown:?}");
    let events: Vec<Event> = control_plane.ask(&["event", "list", "--node", "web-2"]).unwrap();
    assert!(events.iter().any(|it| it.kind == "node_labelled"), "{events:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_is_watched_to_its_end_and_is_in_the_history_of_all_that_it_touched() {
    let bucket = Bucket::new();
    publish(&bucket, "0.1.0");
    let control_plane = ControlPlane::start(&bucket, &applications(5_000)).await;
    let _first = Agent::join_labelled(&control_plane, "web-1", &["role=web"]).await;
    let _second = Agent::join_labelled(&control_plane, "web-2", &["role=web"]).await;
    control_plane.settles_on(APP, "0.1.0").await;

    bucket.put_tarball(APP, "0.2.0", &Builder::elixir().gzip());
    let said = control_plane.command_line().run(&["deploy", APP, "0.2.0", "--wait"]);
    assert_eq!(said.status, 0, "{said:?}");
    // Not on a terminal: a line for each change, beside the answer.
    for line in ["web-1 is moved", "web-2 is moved"] {
        assert_eq!(said.err.lines().filter(|it| *it == line).count(), 1, "{line:?} once: {said:?}");
    }
    assert!(!said.err.contains('\x1b'), "{said:?}");

    let is_over = |it: &Application| it.current_rollout.is_none();
    control_plane.application_when("the end of its watch", APP, is_over).await;

    // One that is followed until it is over, as the answer.
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("watched");
    let deployment: Deployment = control_plane.ask(&["deploy", APP, "0.1.0"]).unwrap();
    let id = deployment.rollout.expect("it has begun").to_string();
    let mut watching = control_plane.command_line().start(&["rollout", "show", APP, "-w"], &output);
    let said = ended(&mut watching, &output).await;
    assert!(said.contains("web-2 is moved") && said.contains("demo 0.1.0 is done"), "{said}");
    let shown = done(&control_plane, &["rollout", "show", &id]);
    assert!(shown.contains("done") && shown.contains("took"), "{shown}");

    let history: Vec<HistoryEntry> = control_plane.ask(&["app", "history", APP]).unwrap();
    let versions: Vec<&str> = history.iter().map(|it| it.release.version.as_str()).collect();
    assert_eq!(versions, ["0.1.0", "0.2.0", "0.1.0"]);
    assert_eq!(history[0].outcome, RolloutPhase::Done);
    let read = done(&control_plane, &["app", "history", APP]);
    assert!(read.contains("OUTCOME") && read.contains("full") && read.contains("● done"), "{read}");
    let replica = ["app", "history", APP, "--node", "web-2", "--slot", "1"];
    let told: Vec<ReplicaHistoryEntry> = control_plane.ask(&replica).unwrap();
    let of_it = told.first().expect("it was told something");
    assert!(of_it.finished_at.is_none() && of_it.release.version.as_str() == "0.1.0", "{told:#?}");
    assert!(told.iter().any(|it| it.finished_at.is_some() && it.outcome.is_some()), "{told:#?}");
    let rollouts: Vec<RolloutSummary> = control_plane.ask(&["rollout", "list", "--app", APP]).unwrap();
    assert_eq!(rollouts.len(), 3);
}

/// What a program printed once it has ended well.
async fn ended(program: &mut Running, output: &Path) -> String {
    let status = eventually("the end of what is watched", || {
        let seen = match program.ended() {
            Some(status) => Seen::Done(status),
            None => Seen::NotYet(fs::read_to_string(output).unwrap_or_default()),
        };
        std::future::ready(seen)
    })
    .await;
    let said = fs::read_to_string(output).unwrap_or_default();
    assert!(status.success(), "{status}: {said}");
    said
}

/// One replica of it on each of so many hosts, `web-1` and on.
async fn hosts(control_plane: &ControlPlane, count: u32) -> Vec<Agent> {
    let mut agents = Vec::new();
    for number in 1..=count {
        agents.push(Agent::join_labelled(control_plane, &format!("web-{number}"), &["role=web"]).await);
    }
    agents
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_while_one_waits_and_gets_its_replica_back() {
    let bucket = Bucket::new();
    publish(&bucket, "0.1.0");
    let control_plane = ControlPlane::start(&bucket, &applications(1_000)).await;
    let _agents = hosts(&control_plane, 2).await;
    has_replicas(&control_plane, 2).await;
    let said = done(&control_plane, &["node", "drain", "web-2", "--wait"]);
    assert_eq!(said, "web-2 holds nothing.\n");
    has_replicas(&control_plane, 1).await;
    let listed = done(&control_plane, &["node", "list"]);
    assert!(listed.contains("up, draining"), "{listed}");
    let again = control_plane.command_line().run(&["node", "drain", "web-2"]);
    assert!(again.status == 1 && again.err.contains("is being drained already"), "{again:?}");
    done(&control_plane, &["node", "uncordon", "web-2"]);
    has_replicas(&control_plane, 2).await;

    // What a cordoned node has stays, and a host that comes in its place is not its successor.
    done(&control_plane, &["node", "cordon", "web-2"]);
    has_replicas(&control_plane, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_waits_for_a_person_who_promotes_it_and_the_next_one_is_aborted() {
    let bucket = Bucket::new();
    publish(&bucket, "0.1.0");
    let by_hand = "watch_ms: 1000, canary: { nodes: 1, promote: manual }";
    let applications = applications(1_000).replace("watch_ms: 1000", by_hand);
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let _agents = hosts(&control_plane, 3).await;
    control_plane.settles_on(APP, "0.1.0").await;
    has_replicas(&control_plane, 3).await;
    let waits = |it: &Application| {
        let batch = it.current_rollout.as_ref().and_then(|it| it.batch.as_ref());
        batch.is_some_and(|batch| batch.canary && batch.may_be_promoted)
    };

    publish(&bucket, "0.2.0");
    control_plane.application_when("a canary that waits", APP, waits).await;
    let shown = done(&control_plane, &["rollout", "show", APP]);
    for words in ["Canary", "To come", "canary of 1 node promoted by hand"] {
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }
    // Of another batch than the one that was looked at nobody said anything.
    let other = control_plane.command_line().run(&["rollout", "promote", APP, "--batch", "7"]);
    assert!(other.status != 0 && other.err.contains("moves batch 1 by now"), "{other:?}");
    done(&control_plane, &["rollout", "promote", APP, "--batch", "1"]);
    control_plane.settles_on(APP, "0.2.0").await;

    let is_over = |it: &Application| it.current_rollout.is_none();
    control_plane.application_when("the end of its watch", APP, is_over).await;
    publish(&bucket, "0.4.0");
    control_plane.application_when("a canary that waits", APP, waits).await;
    done(&control_plane, &["rollout", "abort", APP]);
    let back = control_plane.settles_on(APP, "0.2.0").await;
    assert!(back.ghosts.is_empty(), "{:?}", back.ghosts);
    let history: Vec<HistoryEntry> = control_plane.ask(&["app", "history", APP]).unwrap();
    assert_eq!((history[0].outcome, history[0].release.version.as_str()), (RolloutPhase::Reverted, "0.4.0"));
}
