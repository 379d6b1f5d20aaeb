//! The agent and the control plane make room for other versions of themselves: no replica is touched, and none is unreachable.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::apps::Application;
use proto::events::Event;
use proto::nodes::Node;
use proto::state::{Liveness, SlotState};
use tests::http::{get, serves_version};
use tests::ports;
use tests::programs::{Agent, ControlPlane, LATER, THIS, later};
use tests::release::Bucket;
use tests::replicas::{Lookout, OnHost};
use tests::wait::{Seen, eventually};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use xtask::fixtures::Sample;

const APP: &str = "erlang_demo";
const NODE: &str = "first";

struct Fleet {
    control_plane: ControlPlane,
    agent: Agent,
    port: u16,
    before: Application,
    programs: tempfile::TempDir,
    _bucket: Bucket,
}

impl Fleet {
    /// Two replicas at rest, under an agent that has its programs to itself.
    async fn at_rest() -> Self {
        let bucket = Bucket::new();
        let port = ports::free(3);
        bucket.publish(Sample::Erlang, "0.1.0").await;
        let applications = format!(
            "  - name: {APP}\n    language: erlang\n    replicas: 2\n    \
             replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy: {{ stable_after_ms: 1000 }}\n"
        );
        let control_plane = ControlPlane::start(&bucket, &applications).await;
        let mut agent = Agent::enrolled(&control_plane, control_plane.agents_address(), NODE, &[]).await;
        agent.have_own_programs();
        agent.resume();
        let before = control_plane.settles_on(APP, "0.1.0").await;
        Self { control_plane, agent, port, before, programs: tempfile::tempdir().unwrap(), _bucket: bucket }
    }

    fn later(&self, name: &str) -> PathBuf {
        later(name, self.programs.path())
    }

    /// A session is held by an agent of this version, and the replicas are what they were.
    async fn is_back(&self, version: &str) {
        eventually("a session of that version", || async {
            let node: Result<Node, _> = self.control_plane.ask(&["node", "show", NODE]);
            match node {
                Ok(node)
                    if node.summary.agent_version == version && node.summary.liveness == Liveness::Up =>
                {
                    Seen::Done(())
                }
                other => Seen::NotYet(format!("{other:?}\n{}", self.agent.output())),
            }
        })
        .await;
        let after = self
            .control_plane
            .application_when("both at rest", APP, |it| {
                it.slots.len() == 2 && it.slots.iter().all(|slot| slot.state == SlotState::Stable)
            })
            .await;
        assert_eq!(pids(&after), pids(&self.before));
        assert!(after.slots.iter().all(|it| (it.crash_restarts, it.forced_restarts) == (0, 0)), "{after:#?}");
    }

    async fn event(&self, kind: &str, of: impl Fn(&Event) -> bool) -> Event {
        eventually("the event", || async {
            let events: Vec<Event> = self.control_plane.ask(&["event", "list"]).unwrap();
            match events.iter().find(|it| it.kind == kind && of(it)) {
                Some(event) => Seen::Done(event.clone()),
                None => Seen::NotYet(format!("{events:#?}\n{}", self.agent.output())),
            }
        })
        .await
    }

    /// Which file the process runs.
    fn runs(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/exe", self.agent.pid().unwrap())).unwrap()
    }
}

fn pids(application: &Application) -> BTreeMap<u16, u32> {
    application.slots.iter().filter_map(|it| Some((it.slot.number(), it.pid?))).collect()
}

/// Asks both replicas without a pause until it is told to end: how often they answered. Each request has to be answered.
fn keep_asking(port: u16) -> (CancellationToken, JoinHandle<u32>) {
    let end = CancellationToken::new();
    let told = end.clone();
    let asking = async move {
        let mut answered = 0;
        while !told.is_cancelled() {
            for port in [port, port + 1] {
                get(&format!("http://127.0.0.1:{port}/version")).await.expect("each request is answered");
                answered += 1;
            }
        }
        answered
    };
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    let task = tokio::spawn(asking);
    (end, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_upgraded_and_downgraded_in_its_process_and_touches_no_replica() {
    let mut fleet = Fleet::at_rest().await;
    let (pid, lookout) = (fleet.agent.pid().unwrap(), Lookout::over(fleet.agent.folder()));
    let (end, asking) = keep_asking(fleet.port);
    let said = fleet.agent.upgrade().await;
    assert!(said.status == 0 && said.out.contains("is what lies at"), "{said:?}");

    let old = fleet.programs.path().join("old");
    fs::copy(fleet.agent.own_program(), &old).unwrap();
    for (program, from, to) in [(fleet.later("deployex-agent"), THIS, LATER), (old, LATER, THIS)] {
        fleet.agent.put_program(&program);
        let said = fleet.agent.upgrade().await;
        let told = format!("the agent was upgraded from {from} to {to}; no replica was touched");
        assert!(said.status == 0 && said.out.trim() == told, "{said:?}\n{}", fleet.agent.output());
        assert_eq!(fleet.runs(), fleet.agent.own_program());
        fleet.is_back(to).await;
        fleet.event("agent_upgraded", |it| it.text == told).await;
    }
    // To whoever looks after it it never ended.
    assert!(fleet.agent.ended().is_none() && fleet.agent.pid() == Some(pid));
    end.cancel();
    assert!(asking.await.unwrap() > 0);
    assert_eq!(lookout.seen(), None);
    let found = OnHost::of(fleet.agent.folder(), fleet.agent.pid());
    assert!(found.holds_one_each([(APP, 1), (APP, 2)]), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_would_not_begin_is_refused_and_the_old_one_goes_on() {
    let mut fleet = Fleet::at_rest().await;
    let broken = |name: &str, text: &[u8]| {
        let path = fleet.programs.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let whole = fs::read(fleet.agent.own_program()).unwrap();
    let state = "#!/bin/sh\necho deployex-agent 0.0.1\necho reads state 0\n";
    for (program, why) in [
        // Enough of it to be one, and not enough to run.
        (broken("truncated", &whole[..whole.len() / 3]), "--version ended with"),
        (broken("fails", b"#!/bin/sh\nexit 1\n"), "--version ended with exit status: 1"),
        (broken("hangs", b"#!/bin/sh\nsleep 3600\n"), "--version does not end"),
        (broken("another", b"#!/bin/sh\necho another 1.0\n"), "does not say that it is deployex-agent"),
        (broken("older", state.as_bytes()), "0.0.1, which reads state up to form 0"),
    ] {
        fleet.agent.put_program(&program);
        let said = fleet.agent.upgrade().await;
        assert!(said.status == 1 && said.err.contains(why), "{said:?}");
        fleet.event("agent_upgrade_refused", |it| it.text.contains(why)).await;
        assert!(fleet.agent.ended().is_none());
        assert!(fleet.runs().ends_with("deployex-agent (deleted)"), "{:?}", fleet.runs());
    }
    fleet.is_back(THIS).await;
    // The control plane is refused like that, too.
    let asked = fleet.control_plane.command_line().run(&["restart", "--node", NODE, "--agent"]);
    assert_eq!(asked.status, 0, "{asked:?}");
    fleet.event("agent_restart_refused", |_| true).await;
    fleet.is_back(THIS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_while_it_makes_room_is_followed_by_the_next() {
    let mut fleet = Fleet::at_rest().await;
    let lookout = Lookout::over(fleet.agent.folder());
    let old = fleet.programs.path().join("old");
    fs::copy(fleet.agent.own_program(), &old).unwrap();
    let programs = [(fleet.later("deployex-agent"), LATER), (old, THIS)];
    let mut turns = programs.iter().cycle();
    for after in [0, 20, 60, 120, 250, 500, 1_000, 2_000] {
        let (program, version) = turns.next().unwrap();
        fleet.agent.put_program(program);
        fleet.agent.hang_up();
        // Wherever that is: asking the other one, ending, beginning.
        tokio::time::sleep(Duration::from_millis(after)).await;
        fleet.agent.kill();
        fleet.agent.resume();
        fleet.is_back(version).await;
        for slot in 0..2 {
            serves_version(fleet.port + slot, "0.1.0").await;
        }
    }
    assert_eq!(lookout.seen(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_too_old_for_what_was_written_does_not_begin() {
    let mut fleet = Fleet::at_rest().await;
    let path = fleet.agent.var_path().join("agent/slots").join(APP).join("1/runtime");
    fleet.agent.kill();
    let written = fs::read(&path).unwrap();
    let newer = [b"deployex-ledger 2 0 9.9.9\n", &written[..]].concat();
    fs::write(&path, &newer).unwrap();
    let (status, said) = fleet.agent.run_beside();
    assert!(!status.success(), "{said}");
    assert!(said.contains("deployex-agent 9.9.9 in form 2") && said.contains(THIS), "{said}");
    assert_eq!(fs::read(&path).unwrap(), newer);
    for slot in 0..2 {
        serves_version(fleet.port + slot, "0.1.0").await;
    }
    // The right one finds all as it was.
    fs::write(&path, written).unwrap();
    fleet.agent.resume();
    fleet.is_back(THIS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_is_upgraded_and_downgraded_and_nothing_is_started_anew() {
    let mut fleet = Fleet::at_rest().await;
    let (end, asking) = keep_asking(fleet.port);
    let later: &Path = &fleet.later("deployex");
    for (program, version) in [(Some(later.to_owned()), LATER), (None, THIS)] {
        fleet.control_plane.terminate();
        eventually("its end", || {
            let ended = fleet.control_plane.has_ended();
            async move { if ended { Seen::Done(()) } else { Seen::NotYet("it runs".to_owned()) } }
        })
        .await;
        fleet.control_plane.set_program(program);
        fleet.control_plane.resume().await;
        let health = get(&fleet.control_plane.url("/health")).await.unwrap();
        assert!(health.contains(version), "{health}");
        fleet.is_back(THIS).await;
    }
    end.cancel();
    assert!(asking.await.unwrap() > 0);
}
