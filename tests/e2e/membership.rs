//! Who belongs to the fleet: a host joins with a token that is good, once; one that was removed is out and cannot return.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::nodes::{JoinToken, NodeSummary};
use proto::users::CreatedToken;
use rustix::process::{Pid, test_kill_process};
use tests::http::serves_version;
use tests::ports;
use tests::programs::{Agent, ControlPlane, Joining};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

const APP: &str = "gleam_demo";

fn nodes(control_plane: &ControlPlane) -> Vec<String> {
    let nodes: Vec<NodeSummary> = control_plane.ask(&["node", "list"]).unwrap();
    nodes.into_iter().map(|node| node.name.to_string()).collect()
}

/// A new host's try, and what it was told.
async fn refused(address: SocketAddr, token: &str, name: &str) -> String {
    let mut agent = Agent::new();
    let error = agent.enrol(Joining { address, token, name, labels: &[] }).await.expect_err("it is refused");
    assert_eq!(error.status.code(), Some(1), "{}", error.said);
    let kept = agent.var_path().join("agent/identity");
    assert!(fs::read_dir(&kept).map_or(0, Iterator::count) == 0, "{} holds something", kept.display());
    // And it cannot run as anybody: that is said, and ends it.
    agent.resume();
    let status = eventually("the end of an agent that is nobody", || {
        let ended = agent.ended();
        std::future::ready(ended.map_or_else(|| Seen::NotYet("it runs".into()), Seen::Done))
    })
    .await;
    assert_eq!(status.code(), Some(1));
    assert!(agent.output().contains("run `deployex-agent enrol`"), "{}", agent.output());
    error.said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_cannot_keep_an_identity_spends_no_token_on_one() {
    let bucket = Bucket::new();
    let control_plane = ControlPlane::start(&bucket, "  []\n").await;
    let address = control_plane.agents_address();
    let token: JoinToken = control_plane.ask(&["node", "token"]).unwrap();
    let joining = Joining { address, token: &token.token, name: "web-1", labels: &[] };
    let mut agent = Agent::new();
    // For root nothing is forbidden: what is in the way of the folder is a file.
    fs::create_dir_all(agent.var_path()).unwrap();
    fs::write(agent.var_path().join("agent"), "").unwrap();
    let error = agent.enrol(joining).await.expect_err("it cannot be kept");
    assert!(error.said.contains("agent/identity"), "{}", error.said);
    fs::remove_file(agent.var_path().join("agent")).unwrap();
    let joining = Joining { address, token: &token.token, name: "web-1", labels: &[] };
    agent.enrol(joining).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_used_expired_or_somebody_elses_lets_nobody_in_and_says_where_to_get_another() {
    let bucket = Bucket::new();
    let control_plane = ControlPlane::start(&bucket, "  []\n").await;
    let address = control_plane.agents_address();

    let used: JoinToken = control_plane.ask(&["node", "token"]).unwrap();
    let joining = Joining { address, token: &used.token, name: "web-1", labels: &[] };
    Agent::new().enrol(joining).await.unwrap_or_else(|error| panic!("{}", error.said));
    let expired = expired(&control_plane).await;
    for token in [&used.token, &expired.token] {
        let said = refused(address, token, "web-2").await;
        assert!(said.contains("used up or expired") && said.contains("deployex node token"), "{said}");
    }
    // One that another fleet made is not even shown to this control plane.
    let other = ControlPlane::start(&bucket, "  []\n").await;
    let theirs: JoinToken = other.ask(&["node", "token"]).unwrap();
    let said = refused(address, &theirs.token, "web-2").await;
    assert!(said.contains("is not the control plane that made this token"), "{said}");
    assert_eq!(nodes(&control_plane), ["web-1"]);
    assert_eq!(nodes(&other), [""; 0]);
}

/// One that was good for a millisecond: shorter than the command line makes them.
async fn expired(control_plane: &ControlPlane) -> JoinToken {
    let admin: CreatedToken = control_plane.ask(&["token", "create", "test", "--role", "admin"]).unwrap();
    let request = tests::http::client().post(control_plane.url("/api/v1/join-tokens"));
    let request = request.bearer_auth(&admin.secret).json(&serde_json::json!({ "lifetime_ms": 1 }));
    request.send().await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_removed_is_out_within_five_seconds_keeps_its_replicas_and_cannot_return() {
    let bucket = Bucket::new();
    let port = ports::free(2);
    bucket.publish(Sample::Gleam, "0.1.0").await;
    let applications = format!(
        "  - name: {APP}\n    language: gleam\n    replicas: 1\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy: {{ stable_after_ms: 500 }}\n"
    );
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let mut agent = Agent::join(&control_plane, "web-1").await;
    let before = control_plane.settles_on(APP, "0.1.0").await;
    let pid = before.slots[0].pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).unwrap();

    let removed = now();
    let said = control_plane.command_line().run(&["node", "remove", "web-1"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.contains("web-1 is removed") && said.out.contains("1 of its replicas"), "{}", said.out);
    is_told(&agent, "removed from the fleet").await;
    assert!(removed.elapsed() < Duration::from_secs(5), "it took {:?}", removed.elapsed());
    assert_eq!(nodes(&control_plane), [""; 0]);
    assert_eq!(control_plane.command_line().run(&["node", "show", "web-1"]).status, 1);

    // It is left alone with what it runs, and comes back neither by itself nor started anew.
    agent.kill();
    agent.resume();
    is_told(&agent, "enrol the host anew").await;
    assert!(agent.output().contains("trying again will not help"), "{}", agent.output());
    assert_eq!(nodes(&control_plane), [""; 0]);
    test_kill_process(pid).expect("the replica goes on");
    serves_version(port, "0.1.0").await;
    assert_eq!(agent.ended(), None, "the agent goes on supervising what it has");

    // The name is free again for a host that is let in.
    let _again = Agent::join(&control_plane, "web-1").await;
    assert_eq!(nodes(&control_plane), ["web-1"]);
}

async fn is_told(agent: &Agent, words: &str) {
    eventually(&format!("{words:?} in the agent's log"), || async {
        let output = agent.output();
        if output.contains(words) { Seen::Done(()) } else { Seen::NotYet(output) }
    })
    .await;
}

#[expect(clippy::disallowed_methods, reason = "how long it took is what is promised")]
fn now() -> Instant {
    Instant::now()
}
