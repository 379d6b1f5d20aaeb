//! What is killed comes back, and takes nothing else with it: the agent, the control plane, a replica.

use std::collections::BTreeMap;

use proto::apps::Application;
use proto::state::{ExitCause, SlotState};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tests::database::Engine;
use tests::http::serves_version;
use tests::programs::{Agent, ControlPlane, Setup};
use tests::release::Bucket;
use tests::{on_both_engines, ports};
use xtask::fixtures::Sample;

const APP: &str = "erlang_demo";

struct Running {
    control_plane: ControlPlane,
    agent: Agent,
    port: u16,
    // Last, because what runs reads it.
    _bucket: Bucket,
}

/// Two replicas of the Erlang sample, at rest.
async fn two_replicas(engine: Engine) -> (Running, Application) {
    let bucket = Bucket::new();
    let port = ports::free(3);
    bucket.publish(Sample::Erlang, "0.1.0").await;
    let applications = format!(
        "  - name: {APP}\n    language: erlang\n    replicas: 2\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 200\n    \
         deploy: {{ stable_after_ms: 1000, stop_grace_ms: 5000 }}\n"
    );
    let setup = Setup { engine, ..Setup::default() };
    let control_plane = ControlPlane::start_with(&bucket, &applications, setup).await;
    let agent = Agent::join(&control_plane, "first").await;
    let application = control_plane.settles_on(APP, "0.1.0").await;
    (Running { control_plane, agent, port, _bucket: bucket }, application)
}

/// The OS process of each slot.
fn pids(application: &Application) -> BTreeMap<u16, u32> {
    application.slots.iter().filter_map(|it| Some((it.slot.number(), it.pid?))).collect()
}

fn pid(number: u32) -> Pid {
    i32::try_from(number).ok().and_then(Pid::from_raw).expect("a pid")
}

fn reported_again(application: &Application, before: &Application) -> bool {
    let newest = |it: &Application| it.slots.iter().filter_map(|slot| slot.reported_at).min();
    newest(application) > newest(before) && application.slots.iter().all(|it| it.state == SlotState::Stable)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_takes_no_replica_with_it_and_the_next_one_takes_them_over() {
    let (mut running, before) = two_replicas(Engine::Sqlite).await;
    for _ in 0..3 {
        running.agent.kill();
        for (slot, number) in pids(&before) {
            test_kill_process(pid(number)).expect("the replica lives on");
            serves_version(running.port + slot - 1, "0.1.0").await;
        }
        running.agent.resume();
        let after = running
            .control_plane
            .application_when("the replicas taken over", APP, |it| reported_again(it, &before))
            .await;
        assert_eq!(pids(&after), pids(&before));
        assert!(after.slots.iter().all(|it| it.crash_restarts == 0), "{after:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_ends_however_is_started_again_and_counted() {
    let (running, mut before) = two_replicas(Engine::Sqlite).await;
    // SIGTERM from somebody else ends a BEAM with status 0: that is no reason to leave it down.
    for (crashes, signal) in [(1, Signal::KILL), (2, Signal::TERM)] {
        let first = pids(&before)[&1];
        kill_process(pid(first), signal).expect("the replica is there");
        let after = running
            .control_plane
            .application_when("the replica started again", APP, |it| {
                it.slots.iter().any(|slot| {
                    slot.slot.number() == 1
                        && slot.crash_restarts == crashes
                        && slot.state == SlotState::Stable
                        && slot.pid.is_some_and(|it| it != first)
                })
            })
            .await;
        assert_eq!(pids(&after)[&2], pids(&before)[&2], "the other replica was left alone");
        serves_version(running.port, "0.1.0").await;
        before = after;
    }
}

on_both_engines!(a_control_plane_that_is_killed_takes_nothing_with_it);

async fn a_control_plane_that_is_killed_takes_nothing_with_it(engine: Engine) {
    let (mut running, before) = two_replicas(engine).await;
    running.control_plane.kill();
    let first = pids(&before)[&1];
    kill_process(pid(first), Signal::KILL).expect("the replica is there");
    // Nobody is there to say so: the agent starts it again by itself.
    serves_version(running.port + 1, "0.1.0").await;
    serves_version(running.port, "0.1.0").await;
    running.control_plane.resume().await;
    let after = running
        .control_plane
        .application_when("the agent back", APP, |it| {
            it.slots.len() == 2 && it.slots.iter().all(|slot| slot.state == SlotState::Stable)
        })
        .await;
    assert_eq!(pids(&after)[&2], pids(&before)[&2]);
    assert_eq!(after.slots[0].crash_restarts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_crashes_says_why_and_its_dump_is_kept() {
    let (running, before) = two_replicas(Engine::Sqlite).await;
    // Told so, an Erlang VM writes its dump and ends with status 1.
    kill_process(pid(before.slots[0].pid.unwrap()), Signal::USR1).unwrap();
    let after = running
        .control_plane
        .application_when("the slogan of its dump", APP, |it| {
            let exit = it.slots[0].last_exit.as_ref();
            it.slots[0].state == SlotState::Stable && exit.is_some_and(|exit| exit.slogan.is_some())
        })
        .await;
    let exit = after.slots[0].last_exit.clone().unwrap();
    assert_eq!((exit.cause, exit.asked_for), (ExitCause::Code(1), false));
    assert_eq!(exit.slogan.unwrap(), "Received SIGUSR1");
    let dump = std::path::PathBuf::from(exit.crash_dump.unwrap());
    assert!(
        dump.starts_with(
            running.agent.var_path().join("service").join(APP).join("1").join("work/crash-dumps")
        )
    );
    assert!(std::fs::read_to_string(dump).unwrap().starts_with("=erl_crash_dump:"));
}
