//! Faults of the host, with real programs: what runs goes on, console and command line say by name what is wrong and what to
//! do, and when the cause goes the host is as before.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use proto::apps::Application;
use proto::events::Event;
use proto::nodes::Node;
use proto::state::SlotState;
use proto::timestamp::Timestamp;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tests::browser::{ADMIN, Browser};
use tests::http::serves_version;
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::{self, Bucket};
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

const APP: &str = "erlang_demo";
const NODE: &str = "web-1";
const HOUR: i64 = 3_600_000;
/// `nobody` nearly everywhere; any will do.
const USER: u32 = 65_534;

fn applications(port: u16) -> String {
    format!(
        "  - name: {APP}\n    language: erlang\n    replicas: 1\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 200\n    \
         deploy: {{ strategy: stop_first, stable_after_ms: 500, stop_grace_ms: 5000, watch_ms: 100 }}\n"
    )
}

struct Host {
    control_plane: ControlPlane,
    agent: Agent,
    bucket: Bucket,
    port: u16,
}

fn pid(number: u32) -> Pid {
    i32::try_from(number).ok().and_then(Pid::from_raw).unwrap()
}

impl Host {
    fn agent_pid(&self) -> Pid {
        pid(self.agent.pid().unwrap())
    }

    fn replica(&self) -> u32 {
        self.control_plane.application(APP).unwrap().slots[0].pid.unwrap()
    }

    fn kill_replica(&self) {
        kill_process(pid(self.replica()), Signal::KILL).unwrap();
    }

    async fn faulty(&self, words: &str) -> Application {
        let is_said = |it: &Application| {
            it.slots.iter().any(|slot| slot.fault.as_ref().is_some_and(|fault| fault.contains(words)))
        };
        let found = self.control_plane.application_when(words, APP, is_said).await;
        // As people read it, on one screen for the application and on one for the node.
        for command in [["app", "show", APP], ["node", "show", NODE]] {
            let said = self.control_plane.command_line().run(&command);
            let text = said.out.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(words), "{command:?}: {said:?}");
        }
        found
    }

    async fn crashed(&self, times: u32) -> Application {
        let is_so = |it: &Application| {
            it.slots.first().is_some_and(|slot| {
                slot.crash_restarts == times && slot.state == SlotState::Stable && slot.fault.is_none()
            })
        };
        self.control_plane.application_when("the replica started again", APP, is_so).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_host_is_said_by_name_and_ends_with_its_cause() {
    let (bucket, port) = (Bucket::new(), ports::free(2));
    bucket.publish(Sample::Erlang, "0.1.0").await;
    let stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let control_plane = ControlPlane::start(&bucket, &applications(port)).await;
    let mut agent = Agent::enrolled(&control_plane, control_plane.agents_address(), NODE, &[]).await;
    let clock = agent.folder().join("clock");
    agent.set_environment(&[("DEPLOYEX_CLOCK_AHEAD", &clock.display().to_string())]);
    agent.resume();
    let host = Host { control_plane, agent, bucket, port };

    a_stranger_has_the_port(&host, stranger).await;
    let (status, said) = host.agent.run_beside();
    let who = format!("another agent (pid {}) works on", host.agent_pid().as_raw_nonzero());
    assert!(!status.success() && said.contains(&who), "{status}: {said}");
    let crashes = the_clock_is_set(&host, &clock).await;
    no_file_descriptor_is_left(&host, crashes).await;
    a_release_is_for_another_machine(&host).await;
}

async fn a_stranger_has_the_port(host: &Host, stranger: TcpListener) {
    let words =
        format!("port {} is held by {} (pid {})", host.port, command_of_this_test(), std::process::id());
    let held = host.faulty(&words).await;
    for path in [format!("/applications/{APP}"), format!("/nodes/{NODE}")] {
        let browser = Browser::open().await;
        browser.client.goto(&host.control_plane.url(&path)).await.unwrap();
        browser.sign_in(ADMIN).await;
        // There it begins a sentence.
        browser.reads(words.trim_start_matches("port ")).await;
        browser.close().await;
    }
    assert_eq!(held.summary.replicas_ready, 0, "the stranger answers its check: {held:#?}");
    eventually("the event", || async {
        let events: Vec<Event> = host.control_plane.ask(&["event", "list"]).unwrap();
        match events.iter().any(|it| it.kind == "port_failed" && it.text.contains(&words)) {
            true => Seen::Done(()),
            false => Seen::NotYet(format!("{events:#?}")),
        }
    })
    .await;
    drop(stranger);
    let free = host.control_plane.settles_on(APP, "0.1.0").await;
    assert_eq!(free.slots[0].fault, None);
    serves_version(host.port, "0.1.0").await;
}

fn command_of_this_test() -> String {
    fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned()
}

/// Forward and back by hours; returns how often the replica has crashed by then.
async fn the_clock_is_set(host: &Host, clock: &Path) -> u32 {
    let mut crashes = host.control_plane.application(APP).unwrap().slots[0].crash_restarts;
    let before = host.replica();
    for ahead in [HOUR, -2 * HOUR] {
        fs::write(clock, ahead.to_string()).unwrap();
        eventually("the clock that was set", || async {
            let node: Node = host.control_plane.ask(&["node", "show", NODE]).unwrap();
            let off = node.clock_ahead_ms.map(|it| (it - ahead).abs());
            if off.is_some_and(|it| it < 60_000) {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{node:#?}"))
            }
        })
        .await;
        let said = host.control_plane.command_line().run(&["node", "show", NODE]).out;
        assert!(said.contains("ours: set one of them right"), "{said}");
        if crashes == 0 {
            assert_eq!(host.replica(), before, "nothing was started anew for it");
        }
        // A VM that is told so writes its dump: whose it is is known whatever the clock shows.
        kill_process(pid(host.replica()), Signal::USR1).unwrap();
        crashes += 1;
        let after = host.crashed(crashes).await;
        let after = match after.slots[0].last_exit.clone().unwrap() {
            exit if exit.slogan.is_some() => exit,
            _ => {
                let slogan = |it: &Application| {
                    it.slots[0].last_exit.as_ref().is_some_and(|exit| exit.slogan.is_some())
                };
                let told = host.control_plane.application_when("its slogan", APP, slogan).await;
                told.slots[0].last_exit.clone().unwrap()
            }
        };
        assert_eq!(after.slogan.as_deref(), Some("Received SIGUSR1"));
        // Dated by the control plane's clock.
        let events: Vec<Event> = host.control_plane.ask(&["event", "list"]).unwrap();
        let crash = events.iter().find(|it| it.kind == "crash_restart").unwrap();
        assert!(is_recent(crash.at), "{crash:?}");
    }
    fs::remove_file(clock).unwrap();
    crashes
}

fn is_recent(at: Timestamp) -> bool {
    #[expect(clippy::disallowed_methods, reason = "the very clock is what this test is about")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u128::from(at.0).abs_diff(now.as_millis()) < 10 * 60_000
}

async fn no_file_descriptor_is_left(host: &Host, crashes: u32) {
    let agent = host.agent_pid();
    // As many as every process has from its beginning: what is open stays so, and nothing is opened.
    let lowered = Rlimit { current: Some(3), maximum: getrlimit(Resource::Nofile).maximum };
    let before = prlimit(Some(agent), Resource::Nofile, lowered).unwrap();
    host.kill_replica();
    host.faulty("raise LimitNOFILE of its unit").await;
    prlimit(Some(agent), Resource::Nofile, before).unwrap();
    host.crashed(crashes + 1).await;
    serves_version(host.port, "0.1.0").await;
}

async fn a_release_is_for_another_machine(host: &Host) {
    let before = host.replica();
    host.bucket.put_tarball(APP, "0.2.0", &for_another_machine("0.2.0").await);
    host.bucket.write_current(APP, r#"{"version": "0.2.0", "hash": "ci"}"#);
    let ghosted =
        host.control_plane.application_when("the release ghosted", APP, |it| !it.ghosts.is_empty()).await;
    let reason = &ghosted.ghosts[0].reason;
    assert!(reason.contains("release 0.2.0 is built for s390x, this host is "), "{reason}");
    let after = host.control_plane.settles_on(APP, "0.1.0").await;
    assert_eq!(after.slots[0].pid, Some(before), "nothing was stopped for it");
}

/// The sample with the head of another machine's emulator.
async fn for_another_machine(version: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let tarball = release::tarball(Sample::Erlang, version).await;
    let unpacked = Command::new("tar").arg("-xzf").arg(&tarball.path).arg("-C").arg(folder.path()).status();
    assert!(unpacked.unwrap().success());
    let folders = fs::read_dir(folder.path()).unwrap().flatten();
    let erts = folders.map(|it| it.path()).find(|it| it.to_string_lossy().contains("/erts-")).unwrap();
    let emulator = erts.join("bin/beam.smp");
    let mut bytes = fs::read(&emulator).unwrap();
    // Its order of bytes, and its number.
    bytes[5] = 2;
    bytes[18..20].copy_from_slice(&[0, 0x16]);
    fs::remove_file(&emulator).unwrap();
    fs::write(&emulator, bytes).unwrap();
    let repacked =
        Command::new("tar").args(["-czf", "-", "-C"]).arg(folder.path()).arg(".").output().unwrap();
    assert!(repacked.status.success(), "{}", String::from_utf8_lossy(&repacked.stderr));
    repacked.stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_root_an_agent_that_may_start_no_process_says_so_and_starts_what_ended_when_it_may() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test limits an agent of another user: run it as root"
    );
    let (bucket, port) = (Bucket::new(), ports::free(2));
    bucket.publish(Sample::Erlang, "0.1.0").await;
    let control_plane = ControlPlane::start(&bucket, &applications(port)).await;
    let mut agent = Agent::enrolled(&control_plane, control_plane.agents_address(), NODE, &[]).await;
    agent.give_to(USER);
    agent.resume();
    let host = Host { control_plane, agent, bucket, port };
    host.control_plane.settles_on(APP, "0.1.0").await;

    let before = getrlimit(Resource::Nproc).current.map_or("unlimited".to_owned(), |it| it.to_string());
    limit_processes(&host, "0");
    // Its successor is started by a keeper that was there already, the one after that cannot.
    host.kill_replica();
    host.crashed(1).await;
    host.kill_replica();
    let down = host.faulty("no more processes may be started, raise TasksMax").await;
    assert_eq!(down.slots[0].pid, None);

    limit_processes(&host, &before);
    host.crashed(2).await;
    serves_version(host.port, "0.1.0").await;
}

/// Of the agent's user, as who may do so without any right over others.
fn limit_processes(host: &Host, soft: &str) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &host.agent.pid().unwrap().to_string(), &format!("--nproc={soft}:")]);
    let output = command.uid(USER).gid(USER).output().expect("prlimit is part of util-linux");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
