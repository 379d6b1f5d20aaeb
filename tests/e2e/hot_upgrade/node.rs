//! What a node does by itself in the middle of its hot upgrade: it dies before the eyes of its agent, or takes its time.

use std::fs;
use std::time::SystemTime;

use proto::apps::Application;
use proto::replicas::Replica;
use proto::state::{RolloutPhase, SlotState, UpgradeState};
use tests::http::serves_version;
use xtask::fixtures::Sample;

use super::{World, pids};

/// Has a process of slot 1 wait for a state of its node, and then do something.
pub(super) fn once(world: &World, state: &str, does: &str) {
    let look = format!(
        "spawn(fun Look() -> case catch ({state}) of true -> {does}; _ -> timer:sleep(1), Look() end end), ok."
    );
    let words = ["rpc", world.sample.name(), &look, "--slot", "1", "--erlang"];
    let said = world.control_plane.command_line().run(&words);
    assert_eq!(said.status, 0, "{said:?}");
}

/// How far a node is on its way to a version, by what it knows itself.
pub(super) fn states(sample: Sample, version: &str) -> [(&'static str, String); 5] {
    let is = |status: &str| {
        format!(
            "lists:any(fun(It) -> element(2, It) =:= \"{version}\" andalso element(4, It) =:= {status} end,
                release_handler:which_releases())"
        )
    };
    let relup = format!("filelib:is_regular(code:root_dir() ++ \"/releases/{version}/relup\")");
    [
        ("unpacked", is("unpacked")),
        ("with a relup", format!("{} andalso {relup}", is("unpacked"))),
        ("installing", installing(sample, version)),
        ("installed", is("current")),
        ("permanent", is("permanent")),
    ]
}

/// The first that an install changes.
fn installing(sample: Sample, version: &str) -> String {
    format!("application:get_key({sample}, vsn) =:= {{ok, \"{version}\"}}")
}

/// The agent lives on, and sees it.
async fn dies_on_its_way(sample: Sample) {
    let world = World::new(sample, 1, "strategy: stop_first").await;
    world.publish("1.2.0").await;
    let mut running = pids(&world.settles_on("1.2.0").await);
    for at in 0..5 {
        let version = if at % 2 == 0 { "1.1.0" } else { "1.2.0" };
        let (state, is_so) = &states(sample, version)[at];
        world.connected().await;
        once(&world, is_so, "os:cmd(\"kill -9 \" ++ os:getpid())");
        world.deploy(version);
        let is_back = |slot: &Replica| {
            slot.state == SlotState::Stable
                && slot.running.as_ref().is_some_and(|it| it.version.as_str() == version)
        };
        let what = format!("{version} up again after its node died {state}");
        let is_over = |it: &Application| {
            it.slots.len() == 1
                && it.slots.iter().all(is_back)
                && pids(it) != running
                && it.summary.in_force.as_ref().is_some_and(|it| it.version.as_str() == version)
        };
        let after = world.when(&what, is_over).await;
        assert_eq!(after.slots[0].crash_restarts as usize, at + 1, "{state}: {:#?}", world.events());
        assert!(after.ghosts.is_empty(), "{state}: {:#?}", after.ghosts);
        serves_version(world.port, version).await;
        assert_eq!(world.count(1).await, 1, "{state}");
        world.lies_still(1).await;
        running = pids(&after);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_dies_before_its_agents_eyes_comes_back_as_what_was_wanted_with_elixir() {
    dies_on_its_way(Sample::Elixir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_dies_before_its_agents_eyes_comes_back_as_what_was_wanted_with_erlang() {
    dies_on_its_way(Sample::Erlang).await;
}

#[expect(clippy::disallowed_methods, reason = "it is measured against the clock of the programs")]
fn unix_ms() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()
}

/// 0.9.x reported success before it ran. The release handler is held in its install here, for as long as a file is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_says_that_an_upgrade_is_done_while_its_install_takes_its_time() {
    let world = World::new(Sample::Erlang, 1, "strategy: stop_first").await;
    let (before, counted) = (pids(&world.connected().await), world.count(1).await);
    let folder = tempfile::tempdir().unwrap();
    let go_on = folder.path().join("go-on");
    let hold = format!(
        "erlang:suspend_process(whereis(release_handler)),
         Wait = fun Wait() -> filelib:is_regular(\"{}\") orelse (timer:sleep(20) =:= ok andalso Wait()) end,
         Wait()",
        go_on.display()
    );
    once(&world, &installing(world.sample, "1.2.0"), &hold);
    world.publish("1.2.0").await;
    let is_held = |it: &Application| {
        it.slots[0].upgrade.as_ref().is_some_and(|upgrade| {
            let is_held = upgrade.step_since.is_some_and(|it| unix_ms() > u128::from(it.0) + 3_000);
            upgrade.step.as_deref() == Some("install") && is_held
        })
    };
    let held = world.when("an install that takes its time", is_held).await;
    assert_eq!(held.slots[0].upgrade.as_ref().unwrap().state, UpgradeState::Running);
    assert_eq!(held.summary.in_force.unwrap().version.as_str(), "1.1.0");
    assert_eq!(held.current_rollout.unwrap().summary.phase, RolloutPhase::Running);
    assert_eq!(held.slots[0].running.as_ref().unwrap().version.as_str(), "1.1.0");
    assert_eq!(world.told("hot_upgrade_complete"), Vec::<String>::new());
    let told = world.told_to(1);
    assert!(told[0].finished_at.is_none() && told[0].release.version.as_str() == "1.2.0", "{told:#?}");
    let cli = world.control_plane.command_line();
    let shown = cli.run(&["app", "show", world.sample.name()]).out;
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains("hot upgrade from 1.1.0 to 1.2.0, at the step install"), "{shown}");
    fs::write(&go_on, "").unwrap();
    let after = world.settles_on("1.2.0").await;
    assert_eq!((pids(&after), world.count(1).await), (before, counted + 1), "{:#?}", world.events());
    assert_eq!(world.told("hot_upgrade_complete").len(), 1);
    let install = after.slots[0].upgrade.as_ref().unwrap().done.iter().find(|it| it.step == "install");
    assert!(install.unwrap().took_ms > 3_000, "{install:?}");
}
