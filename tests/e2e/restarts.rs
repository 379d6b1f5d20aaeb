//! Restarts on request, with real replicas: rolling, of one, of all on a host; nothing else is touched.

use std::collections::BTreeMap;
use std::fs;

use proto::apps::Application;
use proto::ids::Slot;
use proto::restarts::Restart;
use proto::state::SlotState;
use rustix::process::{Pid, Signal, kill_process};
use tests::database::Engine;
use tests::programs::{Agent, ControlPlane, Setup};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use tests::{on_both_engines, ports};
use xtask::fixtures::Sample;

const APP: &str = "erlang_demo";
const OTHER: &str = "gleam_demo";

fn applications(strategy: &str, port: u16) -> String {
    let app = |name: &str, language: &str, base: u16| {
        format!(
            "  - name: {name}\n    language: {language}\n    replicas: 2\n    \
             replica_ports: [{{ key: PORT, base: {base} }}]\n    \
             deploy_rollback_timeout_ms: 20000\n    deploy_schedule_interval_ms: 200\n    \
             deploy: {{ strategy: {strategy}, stable_after_ms: 1000, stop_grace_ms: 5000 }}\n"
        )
    };
    format!("{}{}", app(APP, "erlang", port), app(OTHER, "gleam", port + 3))
}

struct Fleet {
    control_plane: ControlPlane,
    agent: Agent,
    _bucket: Bucket,
}

impl Fleet {
    async fn at_rest(strategy: &str, engine: Engine) -> Self {
        let bucket = Bucket::new();
        let port = ports::free(6);
        bucket.publish(Sample::Erlang, "0.1.0").await;
        bucket.publish(Sample::Gleam, "0.1.0").await;
        let setup = Setup { engine, ..Setup::default() };
        let control_plane = ControlPlane::start_with(&bucket, &applications(strategy, port), setup).await;
        let agent = Agent::join(&control_plane, "web-1").await;
        for app in [APP, OTHER] {
            control_plane.settles_on(app, "0.1.0").await;
        }
        Self { control_plane, agent, _bucket: bucket }
    }

    /// The processes of an application's slots.
    fn pids(&self, app: &str) -> BTreeMap<Slot, u32> {
        let slots = self.control_plane.application(app).unwrap().slots;
        slots.into_iter().map(|it| (it.slot, it.pid.unwrap())).collect()
    }

    /// Runs it to its end, and returns the fewest replicas of the application that were ready meanwhile.
    fn restart(&self, words: &[&str]) -> u32 {
        let output = self.control_plane.folder().join("restart");
        let words = [&["restart"], words, &["--wait"]].concat();
        let mut running = self.control_plane.command_line().start(&words, &output);
        let mut fewest = u32::MAX;
        let ended = loop {
            let ready = |it: &Application| it.summary.replicas_ready;
            fewest = fewest.min(self.control_plane.application(APP).as_ref().map(ready).unwrap());
            if let Some(status) = running.ended() {
                break status;
            }
        };
        assert!(ended.success(), "{words:?}: {}", running.output());
        fewest
    }

    async fn given_back(&self) -> Application {
        self.control_plane
            .application_when("the borrowed slot given back", APP, |it| it.slots.len() == 2)
            .await
    }
}

on_both_engines!(a_rolling_restart_with_a_borrowed_slot_never_has_fewer_ready);

async fn a_rolling_restart_with_a_borrowed_slot_never_has_fewer_ready(engine: Engine) {
    let fleet = Fleet::at_rest("start_first", engine).await;
    let (before, others) = (fleet.pids(APP), fleet.pids(OTHER));

    let fewest = fleet.restart(&[APP]);
    assert!(fewest >= 2, "{fewest} were ready at worst");
    let after = fleet.given_back().await;
    for slot in &after.slots {
        assert_ne!(slot.pid, Some(before[&slot.slot]), "{slot:?}");
        assert_eq!((slot.forced_restarts, slot.crash_restarts), (1, 0), "{slot:?}");
    }
    assert_eq!(fleet.pids(OTHER), others);
    assert!(after.summary.in_force.is_some() && after.ghosts.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_and_the_control_plane_begin_anew_and_touch_no_replica() {
    let mut fleet = Fleet::at_rest("stop_first", Engine::Sqlite).await;
    let (before, others, agent) = (fleet.pids(APP), fleet.pids(OTHER), fleet.agent.pid().unwrap());
    for words in [&["--node", "web-1", "--agent"][..], &["--self"]] {
        for _ in 0..2 {
            let words = [&["restart"], words, &["--wait"]].concat();
            let said = fleet.control_plane.command_line().run(&words);
            assert!(said.status == 0 && said.out.ends_with("is back.\n"), "{said:?}");
        }
    }
    // One that could not read its configuration would not come back.
    let file = fleet.control_plane.folder().join("deployex.yaml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{good}release_buckets: /nowhere\n")).unwrap();
    let said = fleet.control_plane.command_line().run(&["restart", "--self", "--wait"]);
    assert!(said.status == 1 && said.err.contains("release_buckets"), "{said:?}");
    fs::write(&file, good).unwrap();
    for app in [APP, OTHER] {
        fleet.control_plane.settles_on(app, "0.1.0").await;
    }
    assert_eq!((fleet.pids(APP), fleet.pids(OTHER)), (before.clone(), others));
    // To whoever looks after them they never ended.
    assert!(fleet.agent.ended().is_none() && !fleet.control_plane.has_ended());

    // Who took over starts what ends, and leaves no child of the one before unburied.
    for pid in before.values() {
        kill_process(Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    }
    fleet
        .control_plane
        .application_when("both started again", APP, |it| {
            it.slots.iter().all(|slot| slot.crash_restarts == 1 && slot.state == SlotState::Stable)
        })
        .await;
    eventually("no dead child of the agent", || async {
        let dead = dead_children(agent);
        if dead.is_empty() { Seen::Done(()) } else { Seen::NotYet(dead.join("\n")) }
    })
    .await;
}

/// `/proc/{pid}/stat` of those that have ended and that nobody has waited for.
fn dead_children(parent: u32) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|it| fs::read_to_string(it.path().join("stat")).ok());
    let is_one =
        |stat: &String| stat.rsplit_once(") ").is_some_and(|it| it.1.starts_with(&format!("Z {parent} ")));
    stats.filter(is_one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_all_of_a_host_and_what_cannot_be_restarted() {
    let mut fleet = Fleet::at_rest("stop_first", Engine::Sqlite).await;
    let (before, others) = (fleet.pids(APP), fleet.pids(OTHER));

    fleet.restart(&[APP, "--node", "web-1", "--slot", "2"]);
    let one = fleet.pids(APP);
    let changed: Vec<u16> =
        one.iter().filter(|(slot, pid)| before[slot] != **pid).map(|(slot, _)| slot.number()).collect();
    assert_eq!((changed, fleet.pids(OTHER)), (vec![2], others.clone()));

    // Without its strategy's spare one at a time is away, and no more.
    let fewest = fleet.restart(&["--node", "web-1"]);
    assert!(fewest >= 1, "{fewest} were ready at worst");
    for (app, before) in [(APP, one), (OTHER, others)] {
        assert!(fleet.pids(app).iter().all(|(slot, pid)| before[slot] != *pid), "{app}");
    }

    let refused = |words: &[&str], word: &str| {
        let said = fleet.control_plane.command_line().run(&[&["restart"], words].concat());
        assert!(said.status == 1 && said.err.contains(word), "{said:?}");
    };
    refused(&["nobody"], "nobody");
    refused(&[APP, "--slot", "9"], "nothing to start anew");
    refused(&["--node", "elsewhere"], "elsewhere");

    fleet.agent.kill();
    fleet.control_plane.application_when("its node is lost", APP, |it| it.summary.replicas_ready == 0).await;
    let said = fleet.control_plane.ask::<Vec<Restart>>(&["restart", APP]);
    assert!(said.unwrap_err().contains("no node of it is connected"));
}
