//! What agents find that they did not leave so: keepers that say nothing, numbers that belong to others by now, stale sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of it is test code")]

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use node_agent::supervisor::process::Found;
use proto::state::ExitCause;
use rustix::process::Signal;

use super::older::{record_1, start_ticks};
use super::world::{World, eventually, eventually_is, kill, lives, signal, soon};

#[tokio::test]
async fn a_keeper_that_does_not_answer_is_woken_and_its_exit_is_told() {
    let world = World::new();
    let mut keeper = world.launch(&world.sh(1, "exec sleep 1000")).await.unwrap();
    signal(world.kept_by().await, Signal::STOP);
    kill(keeper.process().pid);
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Signal(9), "nothing of it is lost");
}

#[tokio::test]
async fn a_stop_reaches_a_process_whose_keeper_was_stopped() {
    let world = World::new();
    let mut keeper = world.launch(&world.sh(1, "exec sleep 1000")).await.unwrap();
    signal(world.kept_by().await, Signal::STOP);
    keeper.stop(Duration::from_secs(1_000));
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Signal(15));
}

#[tokio::test]
async fn an_agent_that_comes_wakes_the_keeper_that_was_stopped() {
    let world = World::new();
    let first = world.launch(&world.sh(1, "exec sleep 1000")).await.unwrap();
    let process = *first.process();
    drop(first);
    signal(world.kept_by().await, Signal::STOP);
    let mut found = soon("the process", world.find_running()).await;
    assert_eq!(*found.process(), process);
    found.kill();
    assert_eq!(soon("end", found.ended()).await.cause, ExitCause::Signal(9));
}

#[tokio::test]
async fn a_keeper_that_stands_still_while_nothing_is_wanted_of_it_is_woken_too() {
    let world = World::new();
    // Several times what a pipe holds.
    let script =
        "while [ ! -e go ]; do sleep 0.01; done; head -c 4000000 /dev/zero; echo done >over; exec sleep 1000";
    let mut keeper = world.launch(&world.sh(1, script)).await.unwrap();
    let kept_by = world.kept_by().await;
    signal(kept_by, Signal::STOP);
    fs::write(world.path("go"), "").unwrap();
    // It is asked how it is every half minute.
    let waits = tokio::time::timeout(Duration::from_secs(100), async {
        while !world.path("over").exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    tokio::select! {
        ended = keeper.ended() => panic!("{ended:?}"),
        over = waits => over.expect("its output flows again"),
    }
    assert_eq!(world.keeper_pid(), Some(kept_by), "the same goes on");
    keeper.kill();
    let ended = soon("end", keeper.ended()).await;
    assert_eq!((ended.cause, ended.dropped), (ExitCause::Signal(9), 0));
    assert_eq!(fs::metadata(world.path("log/stdout.log")).unwrap().len(), 4_000_000);
}

#[tokio::test]
async fn a_process_that_has_the_number_of_one_that_ended_is_left_alone() {
    let world = World::new();
    world.slot.create().unwrap();
    fs::create_dir(world.path("log")).unwrap();
    // A stranger, in a group and session of its own, with the number that the record names and another start.
    let mut stranger = Command::new("setsid").args(["sleep", "1000"]).spawn().unwrap();
    let pid = stranger.id();
    eventually("its own program", || {
        fs::read_to_string(format!("/proc/{pid}/comm")).ok().filter(|it| it == "sleep\n")
    })
    .await;
    let record = record_1(&world, pid).replace(&format!("start {}", start_ticks(pid)), "start 5");
    fs::write(world.slot.path().join("process"), record).unwrap();
    match world.find().await.unwrap() {
        Found::Ended(ended) => assert_eq!((ended.process.pid, ended.cause), (pid, ExitCause::Unknown)),
        other => panic!("{other:?}"),
    }
    eventually_is(None, || world.keeper_pid()).await;
    let mut next = world.launch(&world.sh(8, "exit 0")).await.unwrap();
    soon("end", next.ended()).await;
    assert!(lives(pid), "nobody who was not ours was told anything");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn what_lies_where_a_dead_keeper_had_its_socket_is_no_hindrance() {
    for stale in ["a socket that nobody listens on", "a file"] {
        let world = World::new();
        world.slot.create().unwrap();
        let path = world.slot.path().join("keeper.sock");
        match stale {
            "a file" => fs::write(&path, "").unwrap(),
            _ => drop(UnixListener::bind(&path).unwrap()),
        }
        assert!(Path::new(&path).exists());
        assert!(matches!(world.find().await, Ok(Found::Nothing)), "{stale}");
        let mut keeper = world.launch(&world.sh(1, "exec sleep 1000")).await.unwrap();
        let found = world.find_running().await;
        assert_eq!(found.process(), keeper.process());
        keeper.kill();
        soon("end", keeper.ended()).await;
    }
}
