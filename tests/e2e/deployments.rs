//! One application on one host, from an empty bucket on: first deployment, second version, a version that crashes.

use std::process::Command;

use proto::apps::Application;
use proto::archive::hostile::Builder;
use proto::events::Event;
use proto::state::ExitCause;
use tests::database::Engine;
use tests::http::{get, serves_version};
use tests::programs::{Agent, ControlPlane, Setup};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use tests::{on_both_engines, ports};
use xtask::fixtures::Sample;

const APP: &str = "elixir_demo";

/// Two replicas, and one port more for the slot that a rollout borrows.
fn two_replicas(port: u16) -> String {
    format!(
        "  - name: {APP}\n    language: elixir\n    replicas: 2\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    \
         deploy_rollback_timeout_ms: 20000\n    deploy_schedule_interval_ms: 200\n    \
         deploy: {{ strategy: start_first, stable_after_ms: 1000, stop_grace_ms: 5000 }}\n"
    )
}

async fn start(bucket: &Bucket, port: u16, engine: Engine) -> ControlPlane {
    ControlPlane::start_with(bucket, &two_replicas(port), Setup { engine, ..Setup::default() }).await
}

on_both_engines!(
    a_release_in_the_bucket_becomes_running_replicas_and_the_next_one_replaces_them,
    a_version_that_crashes_is_ghosted_while_the_old_one_serves,
);

async fn a_release_in_the_bucket_becomes_running_replicas_and_the_next_one_replaces_them(engine: Engine) {
    let bucket = Bucket::new();
    let port = ports::free(3);
    bucket.publish(Sample::Elixir, "0.1.0").await;
    let control_plane = start(&bucket, port, engine).await;
    let _agent = Agent::join(&control_plane, "first").await;

    let application = control_plane.settles_on(APP, "0.1.0").await;
    assert_eq!(application.summary.replicas_wanted, 2);
    for slot in 0..2 {
        serves_version(port + slot, "0.1.0").await;
    }

    bucket.publish(Sample::Elixir, "0.2.0").await;
    control_plane.settles_on(APP, "0.2.0").await;
    for slot in 0..2 {
        serves_version(port + slot, "0.2.0").await;
    }
    control_plane.application_when("the borrowed slot given back", APP, |it| it.slots.len() == 2).await;
}

async fn a_version_that_crashes_is_ghosted_while_the_old_one_serves(engine: Engine) {
    let bucket = Bucket::new();
    let port = ports::free(3);
    bucket.publish(Sample::Elixir, "0.1.0").await;
    let control_plane = start(&bucket, port, engine).await;
    let _agent = Agent::join(&control_plane, "first").await;
    control_plane.settles_on(APP, "0.1.0").await;

    bucket.publish(Sample::Elixir, "0.3.0-crash").await;
    let application =
        control_plane.application_when("a ghost", APP, |application| !application.ghosts.is_empty()).await;
    let [ghost] = application.ghosts.as_slice() else { panic!("{:#?}", application.ghosts) };
    let exit = ghost.last_exit.as_ref().unwrap();
    assert!(!exit.asked_for && exit.cause != ExitCause::Unknown, "{exit:?}");
    control_plane.settles_on(APP, "0.1.0").await;
    for slot in 0..2 {
        serves_version(port + slot, "0.1.0").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_goes_back_without_naming_a_version_and_holds_one_whatever_the_bucket_names() {
    let bucket = Bucket::new();
    let port = ports::free(3);
    bucket.publish(Sample::Elixir, "0.1.0").await;
    let control_plane = start(&bucket, port, Engine::Sqlite).await;
    let _agent = Agent::join(&control_plane, "first").await;
    control_plane.settles_on(APP, "0.1.0").await;
    bucket.publish(Sample::Elixir, "0.2.0").await;
    control_plane.settles_on(APP, "0.2.0").await;

    let command_line = control_plane.command_line();
    let back = command_line.run(&["rollback", APP, "--wait"]);
    assert_eq!(back.status, 0, "{back:?}");
    assert!(back.out.contains("is back: the rollout of 0.2.0 was taken back"), "{back:?}");
    control_plane.settles_on(APP, "0.1.0").await;
    for slot in 0..2 {
        serves_version(port + slot, "0.1.0").await;
    }

    let pinned = command_line.run(&["pin", APP, "0.2.0", "--wait"]);
    assert_eq!(pinned.status, 0, "{pinned:?}");
    bucket.publish(Sample::Elixir, "0.4.0").await;
    eventually("the release that the bucket names", || async {
        let events: Vec<Event> = control_plane.ask(&["event", "list"]).unwrap();
        match events.iter().any(|it| it.text.contains("0.4.0")) {
            true => Seen::Done(()),
            false => Seen::NotYet(format!("{events:#?}")),
        }
    })
    .await;
    let held = control_plane.settles_on(APP, "0.2.0").await;
    assert_eq!(held.pinned.unwrap().release.version.as_str(), "0.2.0");
    let shown = command_line.run(&["app", "show", APP]).out;
    assert!(shown.contains("Pinned to 0.2.0"), "{shown}");

    let unpinned = command_line.run(&["unpin", APP]);
    assert!(unpinned.out.contains("it names 0.4.0"), "{unpinned:?}");
    control_plane.settles_on(APP, "0.4.0").await;
    let again = command_line.run(&["unpin", APP]);
    assert_ne!(again.status, 0, "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_that_is_paused_rests_between_two_slots_and_goes_on_when_it_is_resumed() {
    let bucket = Bucket::new();
    let port = ports::free(3);
    bucket.publish(Sample::Elixir, "0.1.0").await;
    let control_plane = start(&bucket, port, Engine::Sqlite).await;
    let _agent = Agent::join(&control_plane, "first").await;
    control_plane.settles_on(APP, "0.1.0").await;
    bucket.publish(Sample::Elixir, "0.2.0").await;
    let moves = |it: &Application| {
        it.current_rollout.as_ref().is_some_and(|it| it.summary.release.version.as_str() == "0.2.0")
    };
    control_plane.application_when("its rollout", APP, moves).await;
    let command_line = control_plane.command_line();
    let paused = command_line.run(&["rollout", "pause", APP]);
    assert_eq!(paused.status, 0, "{paused:?}");
    let rests = |it: &Application| {
        let waiting = it.current_rollout.iter().flat_map(|it| &it.summary.waiting);
        waiting.into_iter().any(|it| it.contains("paused it: no further slot is told"))
    };
    let rests = control_plane.application_when("that it rests", APP, rests).await;
    let versions: Vec<String> =
        rests.slots.iter().filter_map(|it| Some(it.running.as_ref()?.version.to_string())).collect();
    assert!(versions.iter().any(|it| it == "0.1.0"), "{versions:?}");
    assert!(rests.current_rollout.unwrap().summary.paused_by.is_some());
    assert_ne!(command_line.run(&["rollout", "pause", APP]).status, 0, "it is paused");

    let resumed = command_line.run(&["rollout", "resume", APP]);
    assert_eq!(resumed.status, 0, "{resumed:?}");
    control_plane.settles_on(APP, "0.2.0").await;
    assert_ne!(command_line.run(&["rollout", "resume", APP]).status, 0, "it does not move");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_of_erlang_or_gleam_that_crashes_is_ghosted_while_the_old_one_serves() {
    for (sample, language) in [(Sample::Erlang, "erlang"), (Sample::Gleam, "gleam")] {
        let (bucket, port, app) = (Bucket::new(), ports::free(2), sample.name());
        bucket.publish(sample, "0.1.0").await;
        let applications = format!(
            "  - name: {app}\n    language: {language}\n    replicas: 1\n    \
             replica_ports: [{{ key: PORT, base: {port} }}]\n    \
             deploy_rollback_timeout_ms: 10000\n    deploy_schedule_interval_ms: 200\n    \
             deploy: {{ strategy: start_first, stable_after_ms: 500, stop_grace_ms: 5000 }}\n"
        );
        let control_plane = ControlPlane::start(&bucket, &applications).await;
        let _agent = Agent::join(&control_plane, "first").await;
        let before = control_plane.settles_on(app, "0.1.0").await.slots[0].pid;

        bucket.publish(sample, "0.3.0-crash").await;
        let ghosted = control_plane.application_when("a ghost", app, |it| !it.ghosts.is_empty()).await;
        assert_eq!(ghosted.ghosts[0].key.version.as_str(), "0.3.0-crash");
        let after = control_plane.settles_on(app, "0.1.0").await.slots[0].pid;
        serves_version(port, "0.1.0").await;
        assert_eq!(before, after, "the one that serves was not touched");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_writes_into_its_priv_no_other_replica_of_the_host_sees() {
    let bucket = Bucket::new();
    let samples = Sample::ALL.map(|sample| (sample, ports::free(2)));
    let application = |(sample, port): (Sample, u16)| {
        let language = sample.language();
        format!(
            "  - name: {sample}\n    language: {language}\n    replicas: 2\n    \
             replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 200\n    \
             env: [{{ key: SAMPLE_BEHAVIOUR, value: priv }}]\n    \
             deploy: {{ stable_after_ms: 300, stop_grace_ms: 5000 }}\n"
        )
    };
    for (sample, _) in samples {
        bucket.publish(sample, "0.1.0").await;
    }
    let applications: String = samples.map(application).concat();
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let agent = Agent::join(&control_plane, "first").await;
    for (sample, port) in samples {
        control_plane.settles_on(sample.name(), "0.1.0").await;
        for slot in 1..=2 {
            let written = get(&format!("http://127.0.0.1:{}/priv", port + slot - 1)).await.unwrap();
            assert!(written.starts_with(&format!("{sample}-{slot}@")), "{written}");
            assert_eq!(written.split_whitespace().count(), 1, "{written}");
        }
    }
    // What the next slot is made of is as it was packed.
    let found = |below: &str, name: &str| {
        let output = Command::new("find").arg(agent.var_path().join(below)).args(["-name", name]).output();
        String::from_utf8(output.unwrap().stdout).unwrap().lines().count()
    };
    assert_eq!((found("agent/releases", "written"), found("service", "written")), (0, 6));
    assert_eq!(found("agent/releases", "erlang_demo.app"), 1);
}

/// A release that is a script, whose child hears no SIGTERM and outlives it.
fn leaving_a_child_behind(version: &str) -> Vec<u8> {
    let script = format!("#!/bin/sh\n# {version}\n(trap '' TERM; sleep 600; sleep 600) &\nexec sleep 600\n");
    let release = Builder::new().folder("bin/").file("bin/demo", 0o755, script.as_bytes());
    release.folder("lib/").folder("releases/").gzip()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_leaves_behind_is_ended_before_its_successor_starts_and_counts_as_no_crash() {
    let bucket = Bucket::new();
    let applications = "  - name: demo\n    language: elixir\n    replicas: 1\n    \
         deploy_schedule_interval_ms: 100\n    \
         deploy: { strategy: stop_first, stable_after_ms: 500, stop_grace_ms: 5000 }\n";
    let put = |version: &str| {
        bucket.put_tarball("demo", version, &leaving_a_child_behind(version));
        bucket.write_current("demo", &format!(r#"{{"version": "{version}", "hash": "ci"}}"#));
    };
    put("0.1.0");
    let control_plane = ControlPlane::start(&bucket, applications).await;
    let _agent = Agent::join(&control_plane, "first").await;
    control_plane.settles_on("demo", "0.1.0").await;
    put("0.2.0");
    let after = control_plane.settles_on("demo", "0.2.0").await;
    assert_eq!(after.slots[0].crash_restarts, 0, "{after:#?}");
    assert!(after.slots[0].last_exit.as_ref().is_some_and(|it| it.asked_for), "{after:#?}");
}
