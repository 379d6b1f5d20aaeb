//! The probe `otp`: a replica is ready once its Erlang node answers and its OTP application is started, and is started anew
//! once that is no longer so.

use std::fs;
use std::process::{Command, Stdio};

use proto::replicas::Replica;
use proto::state::SlotState;
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use xtask::fixtures::Sample;

const APP: &str = "erlang_demo";

fn application(port: u16, ready: &str) -> String {
    format!(
        "  - name: {APP}\n    language: erlang\n    replicas: 1\n    replica_ports: [{{ key: PORT, base: {port} }}]\n    \
         deploy_schedule_interval_ms: 200\n    ready: [{{ otp: {ready}, interval_ms: 200 }}]\n    \
         live: [{{ otp: , interval_ms: 200 }}]\n    \
         deploy: {{ strategy: stop_first, stable_after_ms: 500, drain_ms: 0 }}\n"
    )
}

fn first(slots: &[Replica]) -> &Replica {
    slots.first().expect("it has a slot")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_ready_while_its_otp_application_is_started_and_is_started_anew_where_it_is_not() {
    let bucket = Bucket::new();
    bucket.publish(Sample::Erlang, "0.1.0").await;
    let port = ports::free(2);
    let mut control_plane = ControlPlane::start(&bucket, &application(port, "")).await;
    let agent = Agent::join(&control_plane, "web-1").await;
    let before = control_plane.settles_on(APP, "0.1.0").await;
    let before = first(&before.slots);
    assert_eq!((before.state, before.crash_restarts), (SlotState::Stable, 0));

    // The node lives on without it. By the release's own script, with the environment of what runs.
    let environment = fs::read_to_string(format!("/proc/{}/environ", before.pid.unwrap())).unwrap();
    let script = agent.var_path().join("service").join(APP).join("1/current/bin").join(APP);
    let stopped = Command::new(script)
        .env_clear()
        .envs(environment.split('\0').filter_map(|it| it.split_once('=')))
        .args(["eval", &format!("application:stop({APP}).")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(stopped.status.success(), "{stopped:?}");
    let again = control_plane
        .application_when("its successor", APP, |it| {
            let slot = first(&it.slots);
            slot.forced_restarts == 1 && slot.state == SlotState::Stable
        })
        .await;
    let again = first(&again.slots);
    assert_ne!(again.pid, before.pid);
    let because = again.last_exit.as_ref().unwrap().because.clone().unwrap();
    let said = format!("its live check failed 3 times in a row: OTP application {APP} is not started");
    assert_eq!(because, said);

    // One that nobody starts is waited for, and that is said.
    control_plane.kill();
    control_plane.configure(&bucket, &application(port, "{ application: nobody }"));
    control_plane.resume().await;
    bucket.publish(Sample::Erlang, "0.2.0").await;
    control_plane
        .application_when("what is waited for", APP, |it| {
            // Before that its node is not there yet, or it is what ran before that is told of.
            let check = first(&it.slots).failed_check.as_ref();
            check.is_some_and(|it| it.sentence() == "OTP application nobody is not started")
        })
        .await;
}
