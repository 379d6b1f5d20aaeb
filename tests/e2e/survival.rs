//! What is killed comes back, and takes nothing else with it: the agent, the control plane, a replica.

use std::collections::BTreeMap;

use proto::apps::Application;
use proto::state::{ExitCause, SlotState};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tests::database::Engine;
use tests::http::serves_version;
use tests::programs::{Agent, ControlPlane, Setup};
use tests::release::Bucket;
use tests::replicas::{Lookout, OnHost, recorded};
use tests::wait::{equals, eventually};
use tests::{on_both_engines, ports};
use xtask::fixtures::Sample;

const APP: &str = "erlang_demo";

struct Running {
    control_plane: ControlPlane,
    agent: Agent,
    port: u16,
    // Last, because what runs reads it.
    bucket: Bucket,
}

/// Two replicas of the Erlang sample, at rest.
async fn two_replicas(engine: Engine) -> (Running, Application) {
    two_replicas_with(engine, "").await
}

/// With more lines of their configuration.
async fn two_replicas_with(engine: Engine, settings: &str) -> (Running, Application) {
    let bucket = Bucket::new();
    let port = ports::free(3);
    bucket.publish(Sample::Erlang, "0.1.0").await;
    let applications = format!(
        "  - name: {APP}\n    language: erlang\n    replicas: 2\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 200\n    \
         deploy: {{ stable_after_ms: 1000, stop_grace_ms: 5000 }}\n{settings}"
    );
    let setup = Setup { engine, ..Setup::default() };
    let control_plane = ControlPlane::start_with(&bucket, &applications, setup).await;
    let agent = Agent::join(&control_plane, "first").await;
    let application = control_plane.settles_on(APP, "0.1.0").await;
    (Running { control_plane, agent, port, bucket }, application)
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

/// Nomad #5593, #5848, #17424.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stands_still_is_unready_and_can_be_restarted() {
    let (running, before) = two_replicas(Engine::Sqlite).await;
    let first = pids(&before)[&1];
    kill_process(pid(first), Signal::STOP).unwrap();
    // The kernel goes on taking connections for it.
    let is =
        |state, of: u32| move |it: &Application| it.slots[0].state == state && it.slots[0].pid == Some(of);
    let still = running
        .control_plane
        .application_when("one that stands still", APP, is(SlotState::Unready, first))
        .await;
    assert_eq!(still.slots[1].state, SlotState::Stable);
    kill_process(pid(first), Signal::CONT).unwrap();
    let after = running.control_plane.application_when("it goes on", APP, is(SlotState::Stable, first)).await;
    assert_eq!((after.slots[0].crash_restarts, after.slots[0].forced_restarts), (0, 0));

    kill_process(pid(first), Signal::STOP).unwrap();
    let words = ["restart", APP, "--node", "first", "--slot", "1", "--wait"];
    let said = running.control_plane.command_line().run(&words);
    assert_eq!(said.status, 0, "{said:?}");
    let after = running.control_plane.settles_on(APP, "0.1.0").await;
    assert_ne!(pids(&after)[&1], first);
    assert_eq!((after.slots[0].crash_restarts, after.slots[0].forced_restarts), (0, 1));
    assert!(after.slots[0].last_exit.as_ref().is_some_and(|exit| exit.asked_for));
}

/// What a failed hot upgrade does to a node: everything in it ends and begins anew, and the operating system sees nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_begins_anew_inside_its_process_is_neither_doubled_nor_counted() {
    let notes = tempfile::tempdir().unwrap();
    std::fs::set_permissions(notes.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let record = notes.path().join("starts");
    let env = format!(
        "    env:\n      - {{ key: SAMPLE_BEHAVIOUR, value: record }}\n      \
         - {{ key: SAMPLE_RECORD, value: {} }}\n",
        record.display()
    );
    let (running, before) = two_replicas_with(Engine::Sqlite, &env).await;
    let lookout = Lookout::over(running.agent.folder());
    let first = pids(&before)[&1];
    begin_anew(&running.agent, first);
    let starts = || recorded(&record).into_iter().filter(|it| it.pid == first).count();
    eventually("a second start in the same process", || async { equals(starts(), &2) }).await;
    serves_version(running.port, "0.1.0").await;
    // Whether its check failed meanwhile is a matter of moments; if it did, it has to be ready for as long as after any start.
    let after = running
        .control_plane
        .application_when("both at rest", APP, |it| {
            it.slots.iter().all(|slot| slot.state == SlotState::Stable) && it.slots.len() == 2
        })
        .await;
    assert_eq!(pids(&after), pids(&before));
    assert!(after.slots.iter().all(|it| (it.crash_restarts, it.forced_restarts) == (0, 0)), "{after:#?}");
    assert_eq!(lookout.seen(), None);
    let found = OnHost::of(running.agent.folder(), running.agent.pid());
    assert!(found.holds_one_each([(APP, 1), (APP, 2)]), "{found:#?}");
}

/// As a node of its cluster would.
fn begin_anew(agent: &Agent, pid: u32) {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let variable = |name: &str| {
        let found = environment.split('\0').find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("{name} is not set")).to_owned()
    };
    let words = format!(
        "[_, Host] = string:split(atom_to_list(node()), \"@\"),
         ok = rpc:call(list_to_atom(\"{}@\" ++ Host), init, restart, []),
         halt(0).",
        variable("RELEASE_NODE")
    );
    let mut erl = std::process::Command::new("erl");
    erl.args(["-noshell", "-hidden", "-sname", &format!("asks-{pid}")]);
    erl.args(["-setcookie", &variable("RELEASE_COOKIE"), "-eval", &words]);
    erl.env("ERL_EPMD_PORT", agent.epmd_port().to_string());
    let said = erl.output().expect("this test needs Erlang: apt-get install erlang-base");
    assert!(said.status.success(), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_hangs_at_start_is_shown_so_and_given_up_while_the_old_one_serves() {
    let settings = "    deploy_rollback_timeout_ms: 10000\n    \
                    env: [{ key: SAMPLE_AFTER_MS, value: \"3600000\" }]\n";
    let (running, _) = two_replicas_with(Engine::Sqlite, settings).await;
    running.bucket.publish(Sample::Erlang, "0.2.1-slow").await;
    running
        .control_plane
        .application_when("a start that hangs, in words", APP, |it| {
            let starts = it.slots.iter().any(|slot| slot.state == SlotState::Starting);
            let waiting = it.current_rollout.as_ref().map(|it| it.summary.waiting.join("; "));
            starts && waiting.is_some_and(|words| words.contains("is starting"))
        })
        .await;
    let after = running.control_plane.application_when("a ghost", APP, |it| !it.ghosts.is_empty()).await;
    assert!(after.ghosts[0].reason.contains("was not stable within 10 s"), "{:?}", after.ghosts);
    let after = running.control_plane.settles_on(APP, "0.1.0").await;
    assert!(after.slots.iter().all(|it| it.crash_restarts == 0), "{after:#?}");
    for slot in 0..2 {
        serves_version(running.port + slot, "0.1.0").await;
    }
}
