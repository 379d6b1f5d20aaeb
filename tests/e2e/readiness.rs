//! What a release answers decides whether it stays: a health check that fails takes it back and says why, one that a replica
//! no longer passes starts that one anew, and a command decides like an answer does.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use proto::apps::Application;
use proto::events::Event;
use proto::releases::Ghost;
use proto::state::SlotState;
use tests::http::serves_version;
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use xtask::fixtures::Sample;

const APP: &str = "erlang_demo";

struct Running {
    control_plane: ControlPlane,
    bucket: Bucket,
    port: u16,
    _agent: Agent,
}

/// The Erlang sample, at rest with 0.1.0. `more`: further keys of the application.
async fn at_rest(replicas: u16, more: &str) -> Running {
    let bucket = Bucket::new();
    let port = ports::free(replicas + 1);
    bucket.publish(Sample::Erlang, "0.1.0").await;
    let applications = format!(
        "  - name: {APP}\n    language: erlang\n    replicas: {replicas}\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    \
         deploy_rollback_timeout_ms: 20000\n    deploy_schedule_interval_ms: 200\n    \
         deploy: {{ strategy: start_first, stable_after_ms: 1000, stop_grace_ms: 5000 }}\n{more}"
    );
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let agent = Agent::join(&control_plane, "web-1").await;
    control_plane.settles_on(APP, "0.1.0").await;
    Running { control_plane, bucket, port, _agent: agent }
}

fn pids(application: &Application) -> BTreeMap<u16, Option<u32>> {
    application.slots.iter().map(|it| (it.slot.number(), it.pid)).collect()
}

fn ghosts(control_plane: &ControlPlane) -> Vec<Ghost> {
    control_plane.ask(&["ghosted", "list", APP]).unwrap()
}

/// Kamal #1041.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_whose_health_is_bad_is_taken_back_and_its_last_answer_is_the_reason() {
    let ready = "    ready: [{ http: { port: PORT, path: /health }, interval_ms: 200 }]\n";
    let running = at_rest(1, ready).await;
    let control_plane = &running.control_plane;
    let before = control_plane.application(APP).unwrap();

    running.bucket.publish(Sample::Erlang, "0.3.0-sick").await;
    let asked = format!("GET /health on port {}", running.port + 1);
    let trying = control_plane
        .application_when("the failed check of the slot on trial", APP, |it| {
            // While its VM starts nobody is there to answer.
            let checks = it.slots.iter().filter_map(|slot| slot.failed_check.as_ref());
            checks.map(|check| check.outcome.as_str()).any(|outcome| outcome == "answered 503")
        })
        .await;
    let checks: Vec<_> = trying.slots.into_iter().filter_map(|slot| slot.failed_check).collect();
    assert!(matches!(&checks[..], [check] if check.asked == asked), "{checks:#?}");

    control_plane.application_when("a ghost", APP, |it| !it.ghosts.is_empty()).await;
    let after = control_plane.settles_on(APP, "0.1.0").await;
    assert_eq!(pids(&after)[&1], pids(&before)[&1], "what served was not touched");
    serves_version(running.port, "0.1.0").await;

    let [ghost] = &ghosts(control_plane)[..] else { panic!("one ghost") };
    let why = format!("{asked} answered 503: \"database down\"");
    assert!(ghost.reason.contains("was not stable within 20 s"), "{}", ghost.reason);
    assert!(ghost.reason.contains(&why), "{}", ghost.reason);
    assert!(ghost.log_tail.as_ref().unwrap().contains("there is no database"), "{ghost:?}");
    // The evidence is there for programs too, and outlives the slot that gave it.
    let check = ghost.failed_check.as_ref().unwrap();
    assert_eq!((check.asked.as_str(), check.outcome.as_str()), (asked.as_str(), "answered 503"), "{check:?}");
    assert!(check.body.contains("database down"), "{check:?}");
    assert!(ghost.node.is_some() && ghost.slot.is_some(), "{ghost:?}");
    for words in [["ghosted", "list", APP], ["app", "show", APP]] {
        let said = control_plane.command_line().run(&words).out;
        // Its lines may break anywhere between words.
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(&why) && said.contains("| there is no database"), "{words:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_no_longer_passes_its_live_check_is_started_anew_and_no_other() {
    let sick = tempfile::tempdir().unwrap();
    fs::set_permissions(sick.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let more = format!(
        "    env: [{{ key: SAMPLE_SICK, value: {} }}]\n    \
         live: [{{ http: {{ path: /health }}, interval_ms: 200, after: 3 }}]\n",
        sick.path().display()
    );
    let running = at_rest(2, &more).await;
    let control_plane = &running.control_plane;
    let before =
        control_plane.application_when("the borrowed slot given back", APP, |it| it.slots.len() == 2).await;

    fs::write(sick.path().join(format!("{APP}-1")), "").unwrap();
    control_plane.application_when("a restart", APP, |it| it.slots[0].forced_restarts > 0).await;
    fs::remove_file(sick.path().join(format!("{APP}-1"))).unwrap();
    let after = control_plane
        .application_when("both replicas stable", APP, |it| {
            it.slots.iter().all(|slot| slot.state == SlotState::Stable)
        })
        .await;
    let (before, pids) = (pids(&before), pids(&after));
    assert!(before[&1] != pids[&1] && before[&2] == pids[&2], "{before:?} {pids:?}");
    let [first, second] = &after.slots[..] else { panic!("two slots") };
    assert_eq!((first.crash_restarts, second.forced_restarts), (0, 0));
    let because = format!(
        "its live check failed 3 times in a row: GET /health on port {} answered 503: \"database down\"",
        running.port
    );
    assert_eq!(first.last_exit.as_ref().unwrap().because.as_ref(), Some(&because));
    let events: Vec<Event> = control_plane.ask(&["event", "list"]).unwrap();
    let restarts: Vec<&Event> = events.iter().filter(|it| it.kind == "forced_restart").collect();
    assert!(restarts.iter().all(|it| it.text == format!("slot 1 starts again: {because}")), "{restarts:?}");
    assert!(!restarts.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_decides_as_the_applications_user() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let bad = folder.path().join("bad");
    let script = format!("id -un; echo slot $RELEASE_NODE on $PORT; ! test -e {}", bad.display());
    let more = format!("    ready: [{{ exec: {{ command: \"sh -c '{script}'\" }}, interval_ms: 200 }}]\n");
    let running = at_rest(1, &more).await;
    fs::write(&bad, "").unwrap();
    let unready = running
        .control_plane
        .application_when("an unready replica", APP, |it| it.slots[0].state == SlotState::Unready)
        .await;
    let check = unready.slots[0].failed_check.clone().unwrap();
    assert_eq!(check.outcome, "ended with exit status 1");
    let user = unready.settings.run_as;
    assert_eq!(check.body, format!("{user}\nslot {APP}-1 on {}\n", running.port));
    fs::remove_file(&bad).unwrap();
    let again = running.control_plane.settles_on(APP, "0.1.0").await;
    assert_eq!((again.slots[0].crash_restarts, again.slots[0].forced_restarts), (0, 0));
}
