//! Programs that stand still, that nobody reads, that close what they print to: each runs on and ends as if nothing were.

use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use proto::state::ExitCause;
use rustix::fs::OFlags;
use rustix::io::ioctl_fionread;
use rustix::process::Signal;

use super::world::{World, eventually, lives, signal, soon};

const LONG: Duration = Duration::from_secs(1_000);

fn stands_still(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

async fn stop_still(pid: u32) {
    signal(pid, Signal::STOP);
    eventually("a process that stands still", || stands_still(pid).then_some(())).await;
}

#[tokio::test]
async fn a_program_that_stands_still_hears_that_it_is_to_stop() {
    let world = World::new();
    let script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done";
    let mut keeper = world.launch(&world.sh(1, script)).await.unwrap();
    eventually("up", || (world.stdout() == "up\n").then_some(())).await;
    stop_still(keeper.process().pid).await;
    keeper.stop(LONG);
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Code(5));
    assert_eq!(world.stdout(), "up\nbye\n");
}

#[tokio::test]
async fn one_that_stands_still_and_is_deaf_is_killed_like_any_other() {
    let world = World::new();
    let mut keeper = world.launch(&world.sh(1, "trap '' TERM; kill -STOP $$; sleep 1000")).await.unwrap();
    let pid = keeper.process().pid;
    eventually("a process that stands still", || stands_still(pid).then_some(())).await;
    keeper.stop(Duration::from_millis(50));
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Signal(9));
}

#[tokio::test]
async fn a_program_whose_keeper_stands_still_waits_and_loses_nothing() {
    let world = World::new();
    // Several times what a pipe holds.
    let script = "i=0; while [ $i -lt 50000 ]; do echo $i; i=$((i+1)); done; echo done >over; sleep 1000";
    let mut keeper = world
        .launch(&world.sh(1, &format!("while [ ! -e go ]; do sleep 0.01; done; {script}")))
        .await
        .unwrap();
    let (pid, kept_by) = (keeper.process().pid, world.kept_by().await);
    stop_still(kept_by).await;
    std::fs::write(world.path("go"), "").unwrap();
    let pipe = std::fs::File::options()
        .read(true)
        .custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap())
        .open(world.slot.path().join("stdout.fifo"))
        .unwrap();
    eventually("a full pipe", || ioctl_fionread(&pipe).is_ok_and(|held| held > 60_000).then_some(())).await;
    assert!(lives(pid) && !world.path("over").exists());
    signal(kept_by, Signal::CONT);
    eventually("all of it printed", || world.path("over").exists().then_some(())).await;
    eventually("all of it kept", || world.stdout().ends_with("\n49999\n").then_some(())).await;
    assert!(world.stdout() == super::world::numbered("", 50_000));
    keeper.kill();
    let ended = soon("end", keeper.ended()).await;
    assert_eq!((ended.cause, ended.dropped), (ExitCause::Signal(9), 0));
}

#[tokio::test]
async fn a_program_that_closes_what_it_prints_to_runs_on_and_its_end_is_told() {
    let world = World::new();
    let script =
        "echo up; exec >&- 2>&-; echo closed >closed; while [ ! -e go ]; do sleep 0.01; done; exit 7";
    let mut keeper = world.launch(&world.sh(1, script)).await.unwrap();
    eventually("what it printed to closed", || world.path("closed").exists().then_some(())).await;
    assert!(lives(keeper.process().pid));
    std::fs::write(world.path("go"), "").unwrap();
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Code(7));
    assert_eq!(world.stdout(), "up\n");
}
