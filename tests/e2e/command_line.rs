//! `deployex …` as people and scripts use it, on the control plane's host and from elsewhere: what it prints, as JSON and for
//! people, what it does, and what it exits with.

use std::path::Path;

use proto::apps::{Application, ApplicationSummary};
use proto::events::Event;
use proto::nodes::{Node, NodeSummary};
use proto::overview::Fleet;
use proto::releases::Ghost;
use proto::replicas::LogLine;
use proto::rollouts::RolloutSummary;
use proto::users::{CreatedToken, Token};
use rustix::process::{Pid, Signal, kill_process};
use tests::ports;
use tests::programs::{Agent, CommandLine, ControlPlane, Said};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

const APP: &str = "gleam_demo";

/// The last that a replica says when it has started.
const HELLO: &str = "listens on";

const FAILED: i32 = 1;
const WRONG_USE: i32 = 2;
const NOT_REACHABLE: i32 = 3;
const NOT_ALLOWED: i32 = 4;
const TIMED_OUT: i32 = 5;

struct Running {
    control_plane: ControlPlane,
    bucket: Bucket,
    _agent: Agent,
}

/// One replica, at rest on the second of two versions that the bucket named.
async fn one_replica() -> Running {
    let bucket = Bucket::new();
    let port = ports::free(2);
    let applications = format!(
        "  - name: {APP}\n    language: gleam\n    replicas: 1\n    deploy_rollback_timeout_ms: 10000\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 100\n    \
         deploy: {{ strategy: stop_first, stable_after_ms: 500, stop_grace_ms: 5000, drain_ms: 0 }}\n"
    );
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let agent = Agent::join(&control_plane, "web-1").await;
    for version in ["0.1.0", "0.2.0"] {
        bucket.publish(Sample::Gleam, version).await;
        control_plane.settles_on(APP, version).await;
    }
    Running { control_plane, bucket, _agent: agent }
}

impl Running {
    fn token(&self, name: &str, role: &str) -> String {
        let created: CreatedToken =
            self.control_plane.ask(&["token", "create", name, "--role", role]).unwrap();
        created.secret
    }

    fn elsewhere(&self, token: Option<&str>) -> CommandLine {
        CommandLine::over_network(&self.control_plane.url(""), token)
    }
}

/// What a person reads: these words, nothing of JSON, and no line that a terminal would break.
#[track_caller]
fn reads(said: &Said, words: &[&str]) {
    assert_eq!(said.status, 0, "{said:?}");
    for word in words {
        assert!(said.out.contains(word), "no {word:?} in:\n{}", said.out);
    }
    assert!(!said.out.starts_with(['{', '[']), "{}", said.out);
    for line in said.out.lines() {
        assert!(line.chars().count() <= 100, "too wide: {line}");
    }
}

#[track_caller]
fn fails(said: &Said, status: i32, words: &[&str]) {
    assert_eq!(said.status, status, "{said:?}");
    assert!(said.err.contains("deployex: ") || status == WRONG_USE, "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "no {word:?} in:\n{}", said.err);
    }
}

fn version(application: &Application) -> String {
    application.summary.in_force.as_ref().map(|it| it.version.to_string()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_is_answered_here_and_from_elsewhere_for_people_and_for_programs() {
    let running = one_replica().await;
    let admin = running.token("from elsewhere", "admin");
    for cli in [running.control_plane.command_line(), running.elsewhere(Some(&admin))] {
        let fleet: Fleet = cli.ask(&["status"]).unwrap();
        assert_eq!((fleet.applications.len(), fleet.nodes.len()), (1, 1));
        reads(&cli.run(&["status"]), &[APP, "web-1", "0.2.0"]);

        let applications: Vec<ApplicationSummary> = cli.ask(&["app", "list"]).unwrap();
        assert_eq!(applications[0].name.as_str(), APP);
        reads(&cli.run(&["app", "list"]), &["APPLICATION", APP, "gleam", "0.2.0", "1/1"]);
        let application: Application = cli.ask(&["app", "show", APP]).unwrap();
        assert_eq!(version(&application), "0.2.0");
        reads(&cli.run(&["app", "show", APP]), &[APP, "web-1/1", "stop_first", "PORT="]);

        let nodes: Vec<NodeSummary> = cli.ask(&["node", "list"]).unwrap();
        assert_eq!((nodes[0].name.as_str(), nodes[0].replicas_ready), ("web-1", 1));
        reads(&cli.run(&["node", "list"]), &["NODE", "web-1", "1/1"]);
        let node: Node = cli.ask(&["node", "show", "web-1"]).unwrap();
        assert_eq!(node.slots.len(), 1);
        reads(&cli.run(&["node", "show", "web-1"]), &["web-1", "processors", "STATE"]);

        let rollouts: Vec<RolloutSummary> = cli.ask(&["rollout", "list"]).unwrap();
        assert_eq!(rollouts.len(), 2);
        reads(&cli.run(&["rollout", "list"]), &["ROLLOUT", APP, "0.2.0", "1/1"]);
        let id = rollouts[0].id.to_string();
        reads(&cli.run(&["rollout", "show", &id]), &[&id, "bucket", "web-1/1"]);

        reads(&cli.run(&["rollout", "show", APP]), &[&id, "one node at a time", "Batch 1"]);
        reads(&cli.run(&["app", "history", APP]), &["VERSION", "0.2.0", "full", "bucket"]);
        let replica = ["app", "history", APP, "--node", "web-1", "--slot", "1"];
        reads(&cli.run(&replica), &["VERSION", "0.2.0", "goes on"]);

        let events: Vec<Event> = cli.ask(&["event", "list", "--app", APP]).unwrap();
        assert!(events.iter().any(|it| it.kind == "release_recorded"), "{events:#?}");
        let said = cli.run(&["event", "list", "--app", APP, "--limit", "500"]);
        assert_eq!(said.out.lines().count(), events.len(), "one line for each event:\n{}", said.out);

        let tokens: Vec<Token> = cli.ask(&["token", "list"]).unwrap();
        assert_eq!(tokens.len(), 1);
        reads(&cli.run(&["token", "list"]), &["NAME", "from elsewhere", "admin"]);
        assert_eq!(cli.ask::<Vec<Ghost>>(&["ghosted", "list", APP]).unwrap(), []);
        reads(&cli.run(&["ghosted", "list", APP]), &["No release of gleam_demo is ghosted."]);
        reads(&cli.run(&["version"]), &["deployex 0."]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_asked_for_waited_for_ghosted_and_cleared() {
    let running = one_replica().await;
    let (control_plane, bucket) = (&running.control_plane, &running.bucket);
    let operator = running.token("ci", "operator");
    let (here, ci) = (control_plane.command_line(), running.elsewhere(Some(&operator)));

    let said = ci.run(&["deploy", APP, "0.1.0", "--wait"]);
    // 0.2.0 is watched, and came from it.
    reads(&said, &["gleam_demo 0.1.0", "is back: the rollout of 0.2.0 was taken back."]);
    assert_eq!(version(&control_plane.application(APP).unwrap()), "0.1.0");
    let events: Vec<Event> = here.ask(&["event", "list", "--app", APP]).unwrap();
    assert!(events.iter().any(|it| it.by.as_deref() == Some("token:ci")), "{events:#?}");
    // Not waited for, it is followed by the rollout that the answer names.
    let deployment: proto::apps::Deployment = ci.ask(&["deploy", APP, "0.2.0"]).unwrap();
    let id = deployment.rollout.expect("it has begun").to_string();
    control_plane.settles_on(APP, "0.2.0").await;
    let rollout: proto::rollouts::Rollout = ci.ask(&["rollout", "show", &id]).unwrap();
    assert_eq!(rollout.summary.release, deployment.release);
    // What runs already is no reason to fail.
    assert_eq!(ci.run(&["deploy", APP, "0.2.0", "--wait"]).status, 0);

    let patience = ["deploy", APP, "0.1.0", "--wait", "--timeout", "0"];
    fails(&ci.run(&patience), TIMED_OUT, &["goes on", "deployex rollout show"]);
    control_plane.settles_on(APP, "0.1.0").await;

    // A version that crashes: the one who waits is told why, and it is not deployed again until somebody clears it.
    bucket.publish(Sample::Gleam, "0.3.0-crash").await;
    control_plane
        .application_when("the new version seen", APP, |it| {
            it.summary.wanted.as_ref().is_some_and(|key| key.version.as_str() == "0.3.0-crash")
        })
        .await;
    let said = ci.run(&["deploy", APP, "0.3.0-crash", "--wait"]);
    fails(&said, FAILED, &["0.3.0-crash", "is reverted"]);
    assert!(said.out.is_empty(), "{said:?}");
    control_plane.settles_on(APP, "0.1.0").await;
    reads(&ci.run(&["ghosted", "list", APP]), &["VERSION", "0.3.0-crash"]);
    fails(&ci.run(&["deploy", APP, "0.3.0-crash"]), FAILED, &["is ghosted", "deployex ghosted clear"]);
    reads(&ci.run(&["ghosted", "clear", APP, "0.3.0-crash"]), &["May be deployed again: 0.3.0-crash"]);
    let cleared: proto::releases::GhostsCleared = ci.ask(&["ghosted", "clear", APP]).unwrap();
    assert_eq!(cleared.cleared, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_read_and_followed_here_and_from_elsewhere() {
    let running = one_replica().await;
    let viewer = running.token("viewer", "viewer");
    let folder = tempfile::tempdir().unwrap();
    let here = running.control_plane.command_line();
    let elsewhere = running.elsewhere(Some(&viewer));

    let said = here.run(&["logs", APP, "--slot", "1"]);
    assert!(said.status == 0 && said.out.contains(HELLO), "{said:?}");
    let said = elsewhere.run(&["logs", APP, "--slot", "1", "-n", "1000", "--json"]);
    let lines: Vec<LogLine> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|it| matches!(it, LogLine::Line { text, .. } if text.contains(HELLO))));
    fails(&here.run(&["logs", APP, "--slot", "9"]), FAILED, &["no node has slot 9"]);

    let follow = ["logs", APP, "--slot", "1", "-f", "-n", "1"];
    let outputs = [folder.path().join("here"), folder.path().join("elsewhere")];
    let _following = [here.start(&follow, &outputs[0]), elsewhere.start(&follow, &outputs[1])];
    for output in &outputs {
        shows(output, 1).await;
    }
    // What the replica says once it was started again comes by itself, to both.
    let before = running.control_plane.application(APP).unwrap();
    let pid = before.slots[0].pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    for output in &outputs {
        shows(output, 2).await;
    }
}

/// Waits until the replica has said hello so often in what is followed.
async fn shows(output: &Path, times: usize) {
    eventually(&format!("{HELLO:?} {times} times in what is followed"), || async {
        let said = std::fs::read_to_string(output).unwrap_or_default();
        if said.matches(HELLO).count() == times { Seen::Done(()) } else { Seen::NotYet(said) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_made_shown_once_and_revoked_and_every_exit_status_says_what_happened() {
    let bucket = Bucket::new();
    let control_plane = ControlPlane::start(&bucket, "  []\n").await;
    let here = control_plane.command_line();
    let elsewhere = |token: Option<&str>| CommandLine::over_network(&control_plane.url(""), token);

    let made = here.run(&["token", "create", "ci", "--role", "viewer", "--lifetime-days", "1"]);
    assert!(made.status == 0 && made.out.starts_with("dpx_") && made.out.lines().count() == 1, "{made:?}");
    assert!(made.err.contains("not shown again"), "{made:?}");
    let secret = made.out.trim();
    let listed = here.run(&["token", "list"]);
    assert!(listed.out.contains("ci") && !listed.out.contains(secret), "{listed:?}");
    assert_eq!(elsewhere(Some(secret)).run(&["status"]).status, 0);
    fails(&here.run(&["token", "create", "ci"]), FAILED, &["there is a token ci already"]);

    // Not allowed: the role is too low, there is no token, the token is no longer one.
    fails(&elsewhere(Some(secret)).run(&["token", "list"]), NOT_ALLOWED, &["admin"]);
    fails(&elsewhere(Some(secret)).run(&["node", "token"]), NOT_ALLOWED, &["admin"]);
    fails(&elsewhere(None).run(&["status"]), NOT_ALLOWED, &["DEPLOYEX_TOKEN", "deployex token create"]);
    reads(&here.run(&["token", "revoke", "ci"]), &["ci is revoked."]);
    fails(&elsewhere(Some(secret)).run(&["status"]), NOT_ALLOWED, &["revoked"]);
    fails(&here.run(&["token", "revoke", "ci"]), FAILED, &["there is no token ci"]);

    // Failed: what was asked for does not exist.
    fails(&here.run(&["app", "show", "nobody"]), FAILED, &["nobody"]);
    fails(&here.run(&["node", "show", "nobody"]), FAILED, &["nobody"]);
    fails(&here.run(&["node", "remove", "nobody"]), FAILED, &["nobody"]);
    fails(&here.run(&["deploy", "nobody", "1.0.0"]), FAILED, &["nobody"]);
    // Wrong use: said before anybody is asked, with what is right.
    fails(&here.run(&["deploy", APP]), WRONG_USE, &["<VERSION>"]);
    fails(&here.run(&["app", "show", "../etc"]), WRONG_USE, &["../etc"]);
    fails(&here.run(&["frobnicate"]), WRONG_USE, &["frobnicate"]);
    fails(&here.run(&["logs", APP, "--slot", "0"]), WRONG_USE, &["--slot"]);
    fails(&CommandLine::over_network("nowhere", None).run(&["status"]), WRONG_USE, &["--url"]);
    // Not reachable: nobody listens there.
    let nobody = format!("http://127.0.0.1:{}", ports::free(1));
    fails(&CommandLine::over_network(&nobody, None).run(&["status"]), NOT_REACHABLE, &[&nobody]);
    let mut control_plane = control_plane;
    control_plane.kill();
    fails(&here.run(&["status"]), NOT_REACHABLE, &["deployex serve"]);
}
