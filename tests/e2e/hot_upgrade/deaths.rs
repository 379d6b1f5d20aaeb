//! SIGKILL of the agent and of the virtual machine at each step of a hot upgrade.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use proto::apps::Application;
use proto::state::SlotState;
use rustix::process::{Pid, Signal, kill_process};
use tests::http::serves_version;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

use super::{World, pids};

const STEPS: [&str; 8] = ["lay", "unpack", "relup", "check", "configure", "install", "prove", "permanent"];

/// The agent is begun anew with this place to die at.
pub(super) fn dies_at(world: &mut World, file: &Path, place: &str) {
    fs::write(file, place).unwrap();
    world.agent.set_environment(&[("DEPLOYEX_CRASH_AT", file.to_str().unwrap())]);
    world.agent.kill();
    world.agent.resume();
}

pub(super) async fn died(world: &mut World, place: &str) {
    eventually(place, || {
        let ended = world.agent.ended();
        async move {
            match ended {
                Some(status) => {
                    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
                    Seen::Done(())
                }
                None => Seen::NotYet("it lives".to_owned()),
            }
        }
    })
    .await;
}

pub(super) fn place(sample: Sample, version: &str, step: &str, when: &str) -> String {
    format!("{}/1 {version} {step} step: {when}", sample.name())
}

async fn at_each_step(sample: Sample) {
    let mut world = World::new(sample, 1, "strategy: stop_first").await;
    let (before, counted) = (pids(&world.connected().await), world.count(1).await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("place");
    let places: Vec<String> = STEPS
        .into_iter()
        .flat_map(|step| ["to be done", "done"].map(|when| place(sample, "1.2.0", step, when)))
        .collect();
    for (at, place) in places.iter().enumerate() {
        dies_at(&mut world, &file, place);
        if at == 0 {
            world.publish("1.2.0").await;
        }
        died(&mut world, place).await;
        assert_eq!(world.count(1).await, counted + 1 + u64::try_from(at).unwrap(), "{place}");
    }
    world.agent.set_environment(&[]);
    world.agent.kill();
    world.agent.resume();
    let after = world.settles_on("1.2.0").await;
    assert_eq!(pids(&after), before, "{:#?}", world.events());
    assert_eq!(world.count(1).await, counted + 1 + u64::try_from(places.len()).unwrap());
    serves_version(world.port, "1.2.0").await;
    world.lies_still(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_at_each_step_finishes_what_it_began_with_elixir() {
    at_each_step(Sample::Elixir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_at_each_step_finishes_what_it_began_with_erlang() {
    at_each_step(Sample::Erlang).await;
}

fn kill_machine(application: &Application) {
    let pid = application.slots[0].pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap())).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

/// The agent dies at the step, the virtual machine dies while nobody looks, and the next agent finds both.
async fn machine_at_each_step(sample: Sample) {
    let mut world = World::new(sample, 1, "strategy: stop_first").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("place");
    for version in ["1.2.0", "1.3.0"] {
        world.bucket.publish(sample, version).await;
        world.settles_on(version).await;
    }
    // Up and down, always to the next one.
    let mut versions = ["1.2.0", "1.1.0", "1.2.0", "1.3.0"].into_iter().cycle();
    let mut crashes = 0;
    let whens = STEPS
        .into_iter()
        .map(|step| (step, "to be done"))
        .chain([("install", "done"), ("permanent", "done")]);
    for (step, when) in whens {
        let version = versions.next().unwrap();
        let running = world.connected().await;
        let place = place(sample, version, step, when);
        dies_at(&mut world, &file, &place);
        world.connected().await;
        world.deploy(version);
        died(&mut world, &place).await;
        kill_machine(&running);
        world.agent.set_environment(&[]);
        world.agent.resume();
        let after = world.settles_on(version).await;
        crashes += 1;
        assert_ne!(pids(&after), pids(&running), "{place}");
        assert_eq!(after.slots[0].crash_restarts, crashes, "{place}: {:#?}", world.events());
        serves_version(world.port, version).await;
        assert!(world.count(1).await == 1 || after.slots[0].state == SlotState::Stable, "{place}");
        world.lies_still(1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_dies_at_each_step_comes_back_as_what_was_wanted_with_elixir() {
    machine_at_each_step(Sample::Elixir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_dies_at_each_step_comes_back_as_what_was_wanted_with_erlang() {
    machine_at_each_step(Sample::Erlang).await;
}

/// Of what lies in the slot.
fn names(world: &World) -> [Vec<std::ffi::OsString>; 4] {
    ["", "lib", "releases", "bin"].map(|path| {
        let entries = fs::read_dir(world.current(1, path)).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|it| it.file_name()).collect();
        names.sort();
        names
    })
}

/// One that cannot be upgraded to is taken back, by whichever agent comes to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_while_it_takes_an_upgrade_back_is_followed_by_one_that_does() {
    for sample in [Sample::Elixir, Sample::Erlang] {
        let mut world = World::new(sample, 1, "strategy: stop_first, hot_upgrade: require").await;
        let (before, counted) = (pids(&world.connected().await), world.count(1).await);
        let lay = names(&world);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("place");
        let places = ["to be undone", "undone"].map(|it| format!("{sample}/1 upgrade: {it}"));
        for (at, place) in places.iter().enumerate() {
            dies_at(&mut world, &file, place);
            if at == 0 {
                world.publish("1.2.0-missing").await;
            }
            died(&mut world, place).await;
        }
        world.agent.set_environment(&[]);
        world.agent.resume();
        let after = world.when("the end of it", |it| it.ghosts.len() == 1).await;
        assert_eq!((pids(&after), world.count(1).await), (before, counted + 1), "{:#?}", world.events());
        assert_eq!(names(&world), lay);
        // And what is good is taken.
        world.publish("1.2.0").await;
        assert_eq!(pids(&world.settles_on("1.2.0").await), pids(&after), "{:#?}", world.events());
    }
}
