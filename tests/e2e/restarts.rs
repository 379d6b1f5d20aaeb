//! Restarts on request, with real replicas: rolling, of one, of all on a host; nothing else is touched.

use std::collections::BTreeMap;

use proto::apps::Application;
use proto::ids::Slot;
use proto::restarts::Restart;
use tests::database::Engine;
use tests::programs::{Agent, ControlPlane, Setup};
use tests::release::Bucket;
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
