//! A host that restarts: what was on the disk is started from there, what may have lost files is staged again.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::fs;

use super::world::{World, eventually, kill, lives};

const ANOTHER_BOOT: &str = "another boot";

/// A replica of 0.1.0, whose host then goes down. Something was added to its folder.
async fn went_down() -> World {
    let world = World::new();
    let agent = world.agent().await;
    agent.assign(world.assignment(1, "0.1.0")).await;
    let before = agent.runs("0.1.0").await;
    fs::write(world.current("kept"), "").unwrap();
    agent.end().await;
    kill(before.pid);
    eventually("its end", || (!lives(before.pid)).then_some(())).await;
    world
}

#[tokio::test]
async fn what_was_not_on_the_disk_yet_is_staged_again_from_the_hosts_copy_and_started() {
    let world = went_down().await;
    // However long the agent took: as it was just after the launch, and as a power cut leaves a file.
    let mark = world.current(".deployex-release");
    let text = fs::read_to_string(&mark).unwrap();
    let boot = node_agent::host::boot_id();
    fs::write(&mark, format!("{}\nboot {boot}\n", text.lines().next().unwrap())).unwrap();
    fs::write(world.current("bin/demo"), "").unwrap();
    world.empty_bucket();

    let agent = world.agent_in_boot(ANOTHER_BOOT).await;
    let after = agent.runs("0.1.0").await;
    assert_eq!((world.starts().len(), world.living(), after.fault.as_str()), (2, 1, ""));
    assert!(!world.current("kept").exists(), "it was laid anew");
    agent.end().await;
}

#[tokio::test]
async fn what_is_on_the_disk_is_started_from_there_as_it_lies() {
    let world = went_down().await;
    // The next agent of the same boot does what was left to do.
    let agent = world.agent().await;
    let mark = world.current(".deployex-release");
    eventually("the flush", || (fs::read_to_string(&mark).unwrap().lines().count() == 1).then_some(())).await;
    let before = agent.runs("0.1.0").await;
    agent.end().await;
    kill(before.pid);
    eventually("its end", || (!lives(before.pid)).then_some(())).await;
    world.empty_bucket();

    let agent = world.agent_in_boot(ANOTHER_BOOT).await;
    agent.runs("0.1.0").await;
    assert_eq!((world.starts().len(), world.living()), (3, 1));
    assert!(world.current("kept").exists(), "nothing was laid anew");
    agent.end().await;
}
