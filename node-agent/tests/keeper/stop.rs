//! Stopping, and what a program leaves behind.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::time::Duration;

use proto::state::ExitCause;
use rustix::process::Signal;

use super::world::{World, eventually, eventually_is, lives, signal, soon};

const LONG: Duration = Duration::from_secs(1_000);

async fn pid_in(world: &World, name: &str) -> u32 {
    let path = world.path(name);
    eventually(name, || std::fs::read_to_string(&path).ok()?.strip_suffix('\n')?.parse().ok()).await
}

#[tokio::test]
async fn a_program_that_listens_ends_in_its_own_way() {
    let world = World::new();
    let script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done";
    let mut keeper = world.launch(&world.sh(1, script)).await.unwrap();
    eventually("up", || (world.stdout() == "up\n").then_some(())).await;
    keeper.stop(LONG);
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Code(5));
    assert_eq!(world.stdout(), "up\nbye\n");
}

#[tokio::test]
async fn a_host_that_goes_down_asks_program_and_keeper_at_once_and_the_end_is_still_told() {
    let world = World::new();
    let script = "trap 'echo bye; exit 4' TERM; grep ^SigBlk /proc/self/status; echo up; \
                  while :; do sleep 0.01; done";
    let mut keeper = world.launch(&world.sh(1, script)).await.unwrap();
    eventually("up", || world.stdout().ends_with("up\n").then_some(())).await;
    let kept_by = world.kept_by().await;
    for held_back in [Signal::HUP, Signal::INT, Signal::TERM] {
        signal(kept_by, held_back);
    }
    signal(keeper.process().pid, Signal::TERM);
    let ended = soon("end", keeper.ended()).await;
    assert_eq!(ended.cause, ExitCause::Code(4));
    let stdout = world.stdout();
    let (mask, words) = stdout.split_once('\n').unwrap();
    assert_eq!(words, "up\nbye\n");
    // What the keeper does not hear its program does.
    assert_eq!(mask, "SigBlk:\t0000000000000000");
}

#[tokio::test]
async fn a_deaf_program_is_killed_when_the_grace_is_over_and_a_second_stop_shortens_it() {
    let world = World::new();
    let script = "trap '' TERM; (trap '' TERM; echo $PPID >deaf; exec sleep 1000) & echo up; while :; do sleep 1; done";
    let mut keeper = world.launch(&world.sh(1, script)).await.unwrap();
    eventually("up", || (world.stdout() == "up\n").then_some(())).await;
    keeper.stop(LONG);
    keeper.stop(LONG);
    assert!(lives(keeper.process().pid));
    keeper.stop(Duration::from_millis(50));
    keeper.stop(LONG);
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Signal(9));
    eventually_is(None, || world.keeper_pid()).await;
}

#[tokio::test]
async fn a_stop_survives_the_keeper_it_was_told_to() {
    let world = World::new();
    let mut keeper =
        world.launch(&world.sh(1, "trap '' TERM; echo up; while :; do sleep 1; done")).await.unwrap();
    eventually("up", || (world.stdout() == "up\n").then_some(())).await;
    keeper.stop(Duration::from_millis(300));
    super::world::kill(world.kept_by().await);
    let ended = soon("end", keeper.ended()).await;
    assert_eq!(ended.cause, ExitCause::Unknown);
    assert!(!lives(ended.process.pid));
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_ended_before_the_slot_is_free() {
    let world = World::new();
    // One that left group and session and lost its parents, one that is deaf to SIGTERM.
    let script = "setsid sh -c 'sh -c \"echo \\$\\$ >far; exec sleep 1000\" & exit' &
        (trap '' TERM; sh -c 'echo $PPID >deaf'; while :; do sleep 1; done) &
        while [ ! -s far -o ! -s deaf ]; do sleep 0.01; done; exit 3";
    let mut keeper = world.launch(&world.sh(1, script)).await.unwrap();
    let (far, deaf) = (pid_in(&world, "far").await, pid_in(&world, "deaf").await);
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Code(3));
    let mut next = world.launch(&world.sh(2, "exec sleep 1000")).await.unwrap();
    assert!(!lives(far) && !lives(deaf), "the successor came after the last of them");
    next.kill();
    soon("end", next.ended()).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_told_once_that_it_is_to_end() {
    let world = World::new();
    // Each is heard of at once, for what they print wakes the keeper: one in the program's group, one that has left it.
    let leftover = |name: &str| {
        format!("trap 'echo {name} is told' TERM; echo >{name}; while :; do echo line; sleep 0.01; done")
    };
    let (near, far) = (leftover("near"), leftover("far"));
    let script = format!(
        "({near}) & setsid sh -c \"{far}\" & while [ ! -e near -o ! -e far ]; do sleep 0.01; done; exit 3"
    );
    let mut keeper = world.launch(&world.sh(1, &script)).await.unwrap();
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Code(3));
    // Both are deaf to it, so that the keeper kills them when their time is over.
    eventually_is(None, || world.keeper_pid()).await;
    let times = |name: &str| world.stdout().lines().filter(|it| *it == format!("{name} is told")).count();
    let (near, far) = (times("near"), times("far"));
    // On a busy host one of them may not have come to say so in its two seconds.
    assert!(near <= 1 && far <= 1 && near + far > 0, "{near} and {far} times");
}

#[tokio::test]
async fn a_keeper_is_not_woken_as_fast_as_its_program_forks() {
    let world = World::new();
    let script = "while [ ! -e go ]; do sleep 0.01; done; i=0;
        while [ $i -lt 1000 ]; do sh -c 'true &'; i=$((i+1)); done; echo >over; exec sleep 1000";
    let mut keeper = world.launch(&world.sh(1, script)).await.unwrap();
    let kept_by = world.kept_by().await;
    let before = (tokio::time::Instant::now(), times_woken(kept_by));
    std::fs::write(world.path("go"), "").unwrap();
    eventually("a thousand orphans", || world.path("over").exists().then_some(())).await;
    let (took, woken) = (before.0.elapsed(), times_woken(kept_by) - before.1);
    // Every twentieth millisecond, and then perhaps once more to see that there was nothing.
    assert!(u128::from(woken) <= took.as_millis() / 10 + 50, "woken {woken} times in {took:?}");
    keeper.kill();
    soon("end", keeper.ended()).await;
}

fn times_woken(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn orphans_of_a_program_that_runs_on_are_taken_up() {
    let world = World::new();
    // It is silent, and nothing else of it wakes the keeper.
    let script = "sh -c 'true & echo $! >orphan'; exec sleep 1000";
    let mut keeper = world.launch(&world.sh(1, script)).await.unwrap();
    let orphan = pid_in(&world, "orphan").await;
    eventually("the orphan taken up", || {
        (!std::path::Path::new(&format!("/proc/{orphan}")).exists()).then_some(())
    })
    .await;
    keeper.kill();
    soon("end", keeper.ended()).await;
}
