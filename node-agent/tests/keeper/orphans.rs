//! What a program that a keeper took over leaves behind, where no control group tells of it: nobody of it outlives the slot's
//! keepers, and nobody else is touched. Those that tell the least are daemons: in a session of their own, without the slot's
//! lock, and deaf to the end of their input, as port programs of a BEAM may be.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

use std::fs;
use std::time::Duration;

use node_agent::supervisor::process::{Found, Keeper};
use proto::state::ExitCause;
use rustix::process::Signal;

use super::world::{World, eventually, eventually_is, kill, lives, signal, soon};

const LONG: Duration = Duration::from_secs(1_000);

/// Says who it is.
const DAEMON: &str = "setsid sh -c 'echo $$ >far; exec sleep 1000' 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-";
const SILENT: &str = "</dev/null >/dev/null 2>&1";

/// Ended with the test, however that ends.
struct Daemon(u32);

impl Daemon {
    async fn of(world: &World) -> Self {
        let path = world.path("far");
        let pid = || fs::read_to_string(&path).ok()?.strip_suffix('\n')?.parse().ok();
        Self(eventually("the daemon", pid).await)
    }

    fn lives(&self) -> bool {
        lives(self.0)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        kill(self.0);
    }
}

/// What the script starts once there is a file `go`, which is after another keeper has taken it over.
async fn taken_over(world: &World, script: &str) -> Keeper {
    let script = format!("while [ ! -e go ]; do sleep 0.01; done; {script}");
    let first = world.launch(&world.sh(1, &script)).await.unwrap();
    kill(world.kept_by().await);
    drop(first);
    let found = world.find_running().await;
    fs::write(world.path("go"), "").unwrap();
    found
}

async fn ends_whole(world: &World, mut keeper: Keeper, daemon: &Daemon) {
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Unknown);
    eventually_is(None, || world.keeper_pid()).await;
    assert!(!daemon.lives(), "the keeper went after the last of them");
}

#[tokio::test]
async fn a_daemon_that_was_started_after_the_take_over_ends_when_its_program_is_stopped() {
    let world = World::new();
    let keeper = taken_over(&world, &format!("{DAEMON} {SILENT} & exec sleep 1000")).await;
    let daemon = Daemon::of(&world).await;
    keeper.stop(LONG);
    ends_whole(&world, keeper, &daemon).await;
}

#[tokio::test]
async fn a_daemon_that_was_started_after_the_take_over_ends_when_its_program_crashes() {
    let world = World::new();
    let keeper = taken_over(&world, &format!("{DAEMON} {SILENT} & exec sleep 1000")).await;
    let daemon = Daemon::of(&world).await;
    // The keeper has seen it, once it holds it.
    let kept_by = world.kept_by().await;
    let held = format!("Pid:\t{}", daemon.0);
    eventually("a keeper that knows of the daemon", || {
        let held_by = fs::read_dir(format!("/proc/{kept_by}/fdinfo")).ok()?.flatten();
        held_by.map(|it| fs::read_to_string(it.path()).unwrap_or_default()).find(|it| it.contains(&held))
    })
    .await;
    kill(keeper.process().pid);
    ends_whole(&world, keeper, &daemon).await;
}

#[tokio::test]
async fn a_daemon_that_nobody_has_seen_start_is_told_by_where_it_prints() {
    let world = World::new();
    let keeper = taken_over(&world, &format!("{DAEMON} >/dev/null & exec sleep 1000")).await;
    let daemon = Daemon::of(&world).await;
    kill(keeper.process().pid);
    ends_whole(&world, keeper, &daemon).await;
}

#[tokio::test]
async fn a_daemon_whose_keeper_and_program_were_killed_at_once_ends() {
    let world = World::new();
    let first = world.launch(&world.sh(1, &format!("{DAEMON} >/dev/null & exec sleep 1000"))).await.unwrap();
    let daemon = Daemon::of(&world).await;
    let kept_by = world.kept_by().await;
    signal(kept_by, Signal::STOP);
    kill(first.process().pid);
    kill(kept_by);
    ends_whole(&world, first, &daemon).await;
}

#[tokio::test]
async fn a_daemon_whose_keeper_was_killed_over_ending_it_ends() {
    let world = World::new();
    // Deaf, so that its keeper is at it for two seconds.
    let script = format!(
        "trap '' TERM; {} >/dev/null & while [ ! -s far ]; do sleep 0.01; done; exit 3",
        DAEMON.replace("exec sleep", "trap '' TERM; exec sleep")
    );
    let mut first = world.launch(&world.sh(1, &script)).await.unwrap();
    let daemon = Daemon::of(&world).await;
    let kept_by = world.kept_by().await;
    let ended = soon("end", first.ended()).await;
    kill(kept_by);
    drop(first);
    eventually_is(false, || lives(kept_by)).await;
    match world.find().await.unwrap() {
        Found::Ended(found) => assert_eq!((found, found.cause), (ended, ExitCause::Code(3))),
        other => panic!("{other:?}"),
    }
    eventually_is(None, || world.keeper_pid()).await;
    assert!(!daemon.lives());
}
