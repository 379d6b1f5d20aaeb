//! Replicas whose virtual machines pass a limit of `monitoring`: they are warned of, and started anew one after the other, once
//! within the cooldown, and never as crashes. Neither the death of the agent nor a change of the limits starts anything.

use std::fs;
use std::process::Command;

use proto::apps::Application;
use proto::events::Event;
use proto::replicas::Replica;
use proto::state::{HostLevel, VmFigure};
use tests::database::Engine;
use tests::on_both_engines;
use tests::ports;
use tests::programs::{Agent, ControlPlane, Setup};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

const APP: &str = "erlang_demo";
const COOKIE: &str = "thresholds-of-the-tests";
/// As few as a VM can have.
const PROCESSES: u32 = 1_024;
/// In percent of those: a replica at rest has some sixty processes.
const WARNING: u32 = 20;
const RESTART: u32 = 40;

fn application(port: u16, cooldown_ms: u64) -> String {
    format!(
        "  - name: {APP}\n    language: erlang\n    replicas: 2\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    \
         env: [{{ key: ERL_FLAGS, value: \"+P {PROCESSES}\" }}, {{ key: RELEASE_COOKIE, value: {COOKIE} }}]\n    \
         deploy_rollback_timeout_ms: 60000\n    deploy_schedule_interval_ms: 200\n    \
         deploy: {{ strategy: stop_first, stable_after_ms: 1000, watch_ms: 1000, drain_ms: 0 }}\n    \
         monitoring:\n      - {{ type: process, warning_threshold_percent: {WARNING}, \
         restart_threshold_percent: {RESTART}, cooldown_ms: {cooldown_ms} }}\n"
    )
}

struct Fleet {
    control_plane: ControlPlane,
    agent: Agent,
    bucket: Bucket,
    port: u16,
}

impl Fleet {
    async fn at_rest(engine: Engine) -> Self {
        let (bucket, port) = (Bucket::new(), ports::free(3));
        bucket.publish(Sample::Erlang, "0.1.0").await;
        let setup = Setup { engine, ..Setup::default() };
        let control_plane = ControlPlane::start_with(&bucket, &application(port, 3_600_000), setup).await;
        let agent = Agent::join(&control_plane, "web-1").await;
        control_plane.settles_on(APP, "0.1.0").await;
        Self { control_plane, agent, bucket, port }
    }

    /// So many more processes in that slot's VM, for as long as it lives.
    async fn grow(&self, slot: u16, processes: u32) {
        let words = format!(
            "[_, Host] = string:split(atom_to_list(node()), \"@\"),
             Node = list_to_atom(\"{APP}-{slot}@\" ++ Host),
             pong = net_adm:ping(Node),
             [spawn(Node, timer, sleep, [infinity]) || _ <- lists:seq(1, {processes})],
             true = rpc:call(Node, erlang, system_info, [process_count]) > {processes},
             halt(0)."
        );
        eventually("more processes", || async {
            let mut erl = Command::new("erl");
            erl.args(["-noshell", "-hidden", "-sname", &format!("grows-{slot}"), "-setcookie", COOKIE]);
            erl.args(["-eval", &words]).env("ERL_EPMD_PORT", self.agent.epmd_port().to_string());
            let said = erl.output().expect("this test needs Erlang: apt-get install erlang-base");
            if said.status.success() { Seen::Done(()) } else { Seen::NotYet(format!("{said:?}")) }
        })
        .await;
    }

    async fn when(&self, what: &str, is_so: impl Fn(&Application) -> bool) -> Application {
        self.control_plane.application_when(what, APP, is_so).await
    }

    /// Of these kinds, the oldest first.
    fn events(&self, kinds: &[&str]) -> Vec<Event> {
        let mut events: Vec<Event> = self.control_plane.ask(&["event", "list", "--app", APP]).unwrap();
        events.retain(|it| kinds.contains(&it.kind.as_str()));
        events
    }

    fn apply(&self, cooldown_ms: u64) {
        let file = self.control_plane.configuration_file();
        let yaml = self.control_plane.configuration(&self.bucket, &application(self.port, cooldown_ms));
        fs::write(&file, yaml).unwrap();
        let said = self.control_plane.command_line().run(&["apply", "--yes", "-f", file.to_str().unwrap()]);
        assert_eq!(said.status, 0, "{said:?}");
    }
}

fn level(replica: &Replica) -> Option<HostLevel> {
    let levels = replica.vm.as_ref().map(|it| it.levels.as_slice()).unwrap_or_default();
    levels.iter().find(|it| it.figure == VmFigure::Process).map(|it| it.level)
}

fn all(is_so: impl Fn(&Replica) -> bool) -> impl Fn(&Application) -> bool {
    move |application| {
        let at_rest = application.summary.replicas_ready == 2;
        at_rest && application.slots.len() == 2 && application.slots.iter().all(&is_so)
    }
}

fn pids(application: &Application) -> Vec<Option<u32>> {
    application.slots.iter().map(|it| it.pid).collect()
}

on_both_engines!(replicas_above_a_limit_are_started_anew_one_after_the_other_and_rest_for_the_cooldown);

async fn replicas_above_a_limit_are_started_anew_one_after_the_other_and_rest_for_the_cooldown(
    engine: Engine,
) {
    let mut fleet = Fleet::at_rest(engine).await;
    fleet
        .when("the agent to see both VMs", all(|it| it.vm.as_ref().is_some_and(|it| it.otp.is_some())))
        .await;
    let restarts = ["restart_requested", "restart_complete"];
    assert_eq!(fleet.events(&restarts).len(), 0);

    // Warned of, and nothing else.
    fleet.grow(1, PROCESSES / 4).await;
    fleet.when("a warning", |it| it.slots.iter().any(|it| level(it) == Some(HostLevel::Warning))).await;
    let said = fleet.control_plane.command_line().run(&["app", "show", APP]);
    assert!(said.out.contains(&format!("% of {PROCESSES}: that is warned of")), "{}", said.out);

    // Both at once, and each for itself.
    fleet.grow(1, PROCESSES / 4).await;
    fleet.grow(2, PROCESSES / 2).await;
    let after =
        fleet.when("both started anew", all(|it| it.forced_restarts == 1 && level(it).is_none())).await;
    assert!(
        after.slots.iter().all(|it| it.crash_restarts == 0 && it.crashes_since_deploy == 0),
        "{after:#?}"
    );
    assert!(after.ghosts.is_empty() && after.summary.in_force.is_some(), "{after:#?}");
    let after = eventually("both restarts to be over", || async {
        let events = fleet.events(&restarts);
        if events.len() == 4 { Seen::Done(events) } else { Seen::NotYet(format!("{events:#?}")) }
    })
    .await;
    let kinds: Vec<(&str, Option<u16>)> =
        after.iter().map(|it| (it.kind.as_str(), it.slot.map(proto::ids::Slot::number))).collect();
    let (first, last) = (kinds[0].1, kinds[2].1);
    assert_ne!(first, last);
    // The second was asked for when the first was stable again.
    assert_eq!(kinds, [(restarts[0], first), (restarts[1], first), (restarts[0], last), (restarts[1], last)]);
    assert!(after[0].text.contains("threshold: processes "), "{}", after[0].text);
    let begun = fleet.events(&["forced_restart"]);
    assert!(begun.len() == 2 && begun[0].text.contains("starts again: threshold: processes "), "{begun:#?}");
    let levels = ["watchdog_threshold_warning", "watchdog_threshold_exceeded"];
    let told = fleet.events(&levels);
    let exceeded: Vec<&Event> = told.iter().filter(|it| it.kind == levels[1]).collect();
    assert_eq!((told[0].kind.as_str(), exceeded.len()), (levels[0], 2), "{told:#?}");
    assert_eq!(
        (&exceeded[0].data["type"], &exceeded[0].data["action"]),
        (&"process".into(), &"restart".into())
    );

    cooldown_holds(&mut fleet).await;
}

/// Above their limits once more, through the death of the agent and of the control plane, until the cooldown is another one.
async fn cooldown_holds(fleet: &mut Fleet) {
    fleet.grow(1, PROCESSES / 2).await;
    fleet.grow(2, PROCESSES / 2).await;
    let rests = |it: &Application| it.summary.sentence.contains("once more in ");
    let exceeded = all(|it| level(it) == Some(HostLevel::Exceeded) && it.forced_restarts == 1);
    let before = fleet.when("both above their limits, and left alone", |it| exceeded(it) && rests(it)).await;
    let told = fleet.events(&["watchdog_threshold_exceeded"]).len();
    assert_eq!(told, 4);

    fleet.agent.kill();
    fleet.when("its node to be lost", |it| it.summary.replicas_ready == 0).await;
    fleet.control_plane.kill();
    fleet.control_plane.resume().await;
    fleet.agent.resume();
    let since = fleet.when("both to be seen again", |it| exceeded(it) && rests(it)).await;
    // Nor is it told once more, by whoever looks after them now.
    fleet.when("what their VMs say", all(|it| it.vm.as_ref().is_some_and(|it| it.otp.is_some()))).await;
    assert_eq!(pids(&since), pids(&before));
    assert_eq!(fleet.events(&["watchdog_threshold_exceeded"]).len(), told);

    fleet.apply(0);
    let after = fleet.when("both started anew once more", all(|it| it.forced_restarts == 2)).await;
    assert!(after.slots.iter().all(|it| it.crash_restarts == 0), "{after:#?}");
    assert!(after.ghosts.is_empty() && after.summary.in_force.is_some(), "{after:#?}");
}
