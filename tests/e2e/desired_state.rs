//! The configuration as desired state, with a real agent and a real release: applied while everything runs, each class when it is
//! promised to count, watched in its file, kept in versions, and not undone by a restart.

use std::path::PathBuf;
use std::time::Duration;

use proto::apps::Application;
use proto::configuration::{Applied, Configuration, FileState, Plan, VersionSummary};
use proto::events::Event;
use rustix::process::{Pid, Signal, kill_process};
use tests::ports;
use tests::programs::{Agent, ControlPlane, Said, Setup};
use tests::release::Bucket;
use tests::wait::{Seen, within};
use xtask::fixtures::Sample;

const APP: &str = "elixir_demo";
const OTHER: &str = "gleam_demo";

const WRONG_USE: i32 = 2;
const FAILED: i32 = 1;

/// Far above the interval at which the file is looked at.
const SEEN_WITHIN: Duration = Duration::from_mins(1);

fn application(port: u16, replicas: u16, grace: u32, env: &str) -> String {
    format!(
        "  - name: {APP}\n    language: elixir\n    replicas: {replicas}\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    \
         deploy_schedule_interval_ms: 200\n    env: [{env}]\n    \
         deploy: {{ strategy: start_first, stable_after_ms: 1000, stop_grace_ms: {grace}, drain_ms: 0 }}\n"
    )
}

fn other(port: u16) -> String {
    format!(
        "  - name: {OTHER}\n    language: gleam\n    replicas: 1\n    replica_ports: [{{ key: PORT, base: {port} }}]\n    \
         deploy_schedule_interval_ms: 200\n    deploy: {{ strategy: stop_first, stable_after_ms: 500, drain_ms: 0 }}\n"
    )
}

/// A file beside the one that is watched.
fn written(control_plane: &ControlPlane, name: &str, text: &str) -> PathBuf {
    let path = control_plane.folder().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn run(control_plane: &ControlPlane, words: &[&str]) -> Said {
    control_plane.command_line().run(words)
}

/// Applies a text, over the command line.
fn apply(control_plane: &ControlPlane, text: &str) -> Applied {
    let path = written(control_plane, "wanted.yaml", text);
    let applied = control_plane.ask(&["apply", "--yes", "-f", path.to_str().unwrap()]);
    applied.unwrap_or_else(|error| panic!("{error}"))
}

fn configuration(control_plane: &ControlPlane) -> Configuration {
    control_plane.ask(&["config", "show"]).unwrap_or_else(|error| panic!("{error}"))
}

fn pids(application: &Application) -> Vec<Option<u32>> {
    application.slots.iter().map(|it| it.pid).collect()
}

fn variable(pid: Option<u32>, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{}/environ", pid?)).ok()?;
    let text = String::from_utf8_lossy(&environment).into_owned();
    text.split('\0').find_map(|entry| Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_each_class_takes_effect_when_it_is_promised_to() {
    let bucket = Bucket::new();
    let (port, elsewhere, third) = (ports::free(4), ports::free(5), ports::free(2));
    bucket.publish(Sample::Elixir, "0.1.0").await;
    bucket.publish(Sample::Gleam, "0.1.0").await;
    let control_plane = ControlPlane::start(&bucket, &application(port, 1, 5000, "")).await;
    let _agent = Agent::join(&control_plane, "first").await;
    let before = pids(&control_plane.settles_on(APP, "0.1.0").await);
    let yaml = |applications: &str| control_plane.configuration(&bucket, applications);

    // immediate: another replica beside those that run, and a time-out; nothing is restarted.
    let applied = apply(&control_plane, &yaml(&application(port, 2, 4000, "")));
    assert_eq!((applied.number, applied.difference.count()), (2, 2));
    let two = control_plane
        .application_when("two replicas", APP, |it| it.summary.replicas_ready == 2 && it.slots.len() == 2)
        .await;
    assert_eq!(pids(&two)[0], before[0]);

    // next_deploy: a variable, which what runs does not have.
    let red = "{ key: COLOUR, value: red }";
    apply(&control_plane, &yaml(&application(port, 2, 4000, red)));
    let now = control_plane.application(APP).unwrap();
    assert_eq!(pids(&now), pids(&two));
    // A crash does not bring it either: it belongs to the next deployment.
    let pid = pids(&now)[0].and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap())).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let again = control_plane
        .application_when("a successor", APP, |it| {
            it.summary.replicas_ready == 2 && it.slots[0].crash_restarts == 1
        })
        .await;
    assert_eq!(variable(pids(&again)[0], "COLOUR"), None);

    // An application is added, and its bucket is watched, without a restart.
    let both = format!("{}{}", application(port, 2, 4000, red), other(third));
    let applied = apply(&control_plane, &yaml(&both));
    assert!(applied.sentence.ends_with("is in force: 1 change."), "{}", applied.sentence);
    control_plane.settles_on(OTHER, "0.1.0").await;

    // full_deploy: other ports. Every replica is replaced, one by one, with what is wanted now; it serves all the while.
    let moved = format!("{}{}", application(elsewhere, 2, 4000, red), other(third));
    let applied = apply(&control_plane, &yaml(&moved));
    assert!(
        applied.sentence.contains(&format!("Every replica of {APP} is replaced")),
        "{}",
        applied.sentence
    );
    let replaced = control_plane
        .application_when("replicas on other ports", APP, |it| {
            let at = |slot: usize, port: u16| it.slots[slot].ports.first().is_some_and(|it| it.port == port);
            it.slots.len() == 2 && it.summary.replicas_ready == 2 && at(0, elsewhere) && at(1, elsewhere + 1)
        })
        .await;
    assert!(replaced.slots.iter().all(|it| variable(it.pid, "COLOUR").as_deref() == Some("red")));
    assert_eq!(replaced.summary.in_force, again.summary.in_force, "it is the same release");

    // What is removed is withdrawn.
    apply(&control_plane, &yaml(&application(elsewhere, 2, 4000, red)));
    within(SEEN_WITHIN, "the other one gone", || async {
        match control_plane.application(OTHER) {
            Err(error) if error.contains("there is no application") => Seen::Done(()),
            other => Seen::NotYet(format!("{other:?}")),
        }
    })
    .await;

    // And the next deployment is as ever.
    bucket.publish(Sample::Elixir, "0.2.0").await;
    let next = control_plane.settles_on(APP, "0.2.0").await;
    assert!(next.slots.iter().all(|it| variable(it.pid, "COLOUR").as_deref() == Some("red")));
}

fn scaled(replicas: u16) -> String {
    format!("  - name: shop\n    replicas: {replicas}\n    env: [{{ key: TOKEN, value: s3cret }}]\n")
}

fn replicas(control_plane: &ControlPlane) -> u16 {
    let shop = control_plane.application("shop").unwrap_or_else(|error| panic!("{error}"));
    shop.settings.replicas_per_node
}

/// Events that speak of the file or of the configuration, newest first.
fn events(control_plane: &ControlPlane, kind: &str) -> Vec<Event> {
    let all: Vec<Event> = control_plane.ask(&["event", "list"]).unwrap_or_else(|error| panic!("{error}"));
    all.into_iter().filter(|it| it.kind == kind).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_waits_and_is_applied_by_a_person() {
    let bucket = Bucket::new();
    let control_plane = ControlPlane::start(&bucket, &scaled(1)).await;
    let shown = configuration(&control_plane);
    assert_eq!(shown.in_force.as_ref().map(|it| (it.number, it.by.as_str())), Some((1, "start")));
    assert_eq!(shown.file.unwrap().state, FileState::InForce);
    let nothing = run(&control_plane, &["apply", "--yes"]);
    assert_eq!((nothing.status, nothing.err.contains("has not changed")), (FAILED, true), "{nothing:?}");

    // It is noticed by itself, once.
    control_plane.configure(&bucket, &scaled(2));
    within(SEEN_WITHIN, "the changed file", || async {
        match events(&control_plane, "config_changed").as_slice() {
            [event] => {
                assert!(event.text.contains("has changed: 1 change"), "{event:?}");
                Seen::Done(())
            }
            other => Seen::NotYet(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(replicas(&control_plane), 1);
    let status = run(&control_plane, &["status"]);
    assert!(status.out.contains("has changed and is not applied: 1 change"), "{}", status.out);
    let plan = run(&control_plane, &["plan"]);
    assert!(plan.out.contains("At once (immediate)\n  shop: replicas 1 → 2\n"), "{}", plan.out);

    let asked = run(&control_plane, &["apply"]);
    assert_eq!((asked.status, asked.err.contains("--yes")), (WRONG_USE, true), "{asked:?}");
    let applied = run(&control_plane, &["apply", "--yes"]);
    assert_eq!(
        (applied.status, applied.out.as_str()),
        (0, "Version 2 is in force: 1 change.\n"),
        "{applied:?}"
    );
    assert_eq!(replicas(&control_plane), 2);

    // Faults are shown with their place, and disturb nothing.
    control_plane.configure(&bucket, "  - name: shop\n    replicas: many\n");
    let faulty = run(&control_plane, &["config", "show"]);
    assert!(faulty.out.contains("applications[shop].replicas: line "), "{}", faulty.out);
    let file = control_plane.configuration_file();
    let planned = run(&control_plane, &["plan", "-f", file.to_str().unwrap()]);
    assert_eq!(planned.status, WRONG_USE);
    assert!(planned.err.contains("deployex.yaml:"), "{}", planned.err);
    assert_eq!(replicas(&control_plane), 2);
    assert_eq!(events(&control_plane, "config_changed").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_what_was_applied_until_the_file_changes() {
    let bucket = Bucket::new();
    let mut control_plane = ControlPlane::start(&bucket, &scaled(1)).await;
    let wanted = control_plane.configuration(&bucket, &scaled(3));
    let path = written(&control_plane, "wanted.yaml", &wanted);
    let path = path.to_str().unwrap();
    let plan: Plan = control_plane.ask(&["plan", "-f", path]).unwrap();
    assert_eq!(plan.base, 1);
    apply(&control_plane, &wanted);

    // Who planned against version 1 is told who was first.
    let body = serde_json::json!({ "yaml": wanted.replace("replicas: 3", "replicas: 4"), "base": 1 });
    let late = late(&control_plane, &body).await;
    assert!(late.contains("since version 1, local:root applied version 2"), "{late}");

    control_plane.kill();
    control_plane.resume().await;
    assert_eq!(replicas(&control_plane), 3, "a restart undoes nothing");
    let shown = configuration(&control_plane);
    assert!(matches!(shown.file.as_ref().unwrap().state, FileState::Overridden { .. }), "{shown:?}");
    assert!(control_plane.output().contains("stays in force"), "{}", control_plane.output());

    // A file that changed since counts, also where it changed while nobody looked.
    control_plane.kill();
    control_plane.configure(&bucket, &scaled(5));
    control_plane.resume().await;
    assert_eq!(replicas(&control_plane), 5);
    let versions: Vec<VersionSummary> = control_plane.ask(&["config", "list"]).unwrap();
    let said: Vec<String> =
        versions.iter().map(|it| format!("{} {} {}", it.number, it.by, it.origin)).collect();
    assert_eq!(said, ["3 start file", "2 local:root cli", "1 start file"]);

    // A setting of the control plane itself waits for the restart that brings it.
    let text = control_plane.configuration(&bucket, &scaled(5));
    let moved = format!("trusted_proxies: [10.0.0.0/8]\n{text}");
    let applied = apply(&control_plane, &moved);
    assert_eq!(applied.awaits_restart.len(), 1, "{applied:?}");
    assert!(run(&control_plane, &["status"]).out.contains("trusted_proxies waits for a restart"));
    control_plane.kill();
    control_plane.resume().await;
    assert_eq!(configuration(&control_plane).awaits_restart, []);
    assert_eq!(configuration(&control_plane).in_force.unwrap().number, 4);

    // Back to an earlier one.
    let restored = run(&control_plane, &["config", "restore", "2", "--yes"]);
    assert_eq!(restored.status, 0, "{restored:?}");
    assert_eq!(replicas(&control_plane), 3);
    let shown = run(&control_plane, &["config", "show", "2"]);
    assert_eq!(shown.out, wanted);
    let list = run(&control_plane, &["config", "list"]);
    assert!(list.out.contains("restore 2"), "{}", list.out);
}

/// The words with which an apply is refused.
async fn late(control_plane: &ControlPlane, body: &serde_json::Value) -> String {
    let token: proto::users::CreatedToken =
        control_plane.ask(&["token", "create", "late", "--role", "admin"]).unwrap();
    let asked = tests::http::client()
        .post(control_plane.url("/api/v1/configuration/apply"))
        .bearer_auth(token.secret)
        .json(body)
        .send()
        .await
        .unwrap();
    assert_eq!(asked.status().as_u16(), 409);
    asked.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_applied_by_itself_where_that_was_asked_for() {
    let bucket = Bucket::new();
    let setup = Setup { auto_apply: true, ..Setup::default() };
    let control_plane = ControlPlane::start_with(&bucket, &scaled(1), setup).await;
    control_plane.configure(&bucket, &scaled(2));
    // Nobody asks for it in between: it is seen within its interval.
    within(SEEN_WITHIN, "the changed file in force", || async {
        match replicas(&control_plane) {
            2 => Seen::Done(()),
            other => Seen::NotYet(format!("{other} replicas")),
        }
    })
    .await;
    let versions: Vec<VersionSummary> = control_plane.ask(&["config", "list"]).unwrap();
    assert_eq!((versions[0].by.as_str(), versions[0].number), ("auto-apply", 2));
}
