//! Agents and keepers that come and go: no process is lost, started twice or cut off from its logs.

use std::path::Path;
use std::time::Duration;

use node_agent::supervisor::process::{Found, LaunchError};
use proto::state::ExitCause;

use super::world::{KEEPER, World, eventually, eventually_is, kill, lives, numbered, soon};

#[tokio::test]
async fn a_slot_that_never_had_anything_holds_nothing() {
    let world = World::new();
    assert!(matches!(world.find().await, Ok(Found::Nothing)));
    world.slot.create().unwrap();
    assert!(matches!(world.find().await, Ok(Found::Nothing)));
    assert_eq!(std::fs::read_dir(world.slot.path()).unwrap().count(), 0, "looking leaves nothing");
}

#[tokio::test]
async fn the_next_agent_finds_the_process_and_how_it_ended() {
    let world = World::new();
    let first = world.launch(&world.sh(7, "exec sleep 1000")).await;
    let first = first.unwrap();
    let process = *first.process();
    drop(first);
    let mut found = world.find_running().await;
    assert_eq!(*found.process(), process);
    kill(process.pid);
    assert_eq!(soon("end", found.ended()).await.cause, ExitCause::Signal(9));
    eventually_is(None, || world.keeper_pid()).await;
    match world.find().await.unwrap() {
        Found::Ended(ended) => assert_eq!((ended.process, ended.cause), (process, ExitCause::Signal(9))),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_exit_that_no_agent_saw_is_found() {
    let world = World::new();
    drop(world.launch(&world.sh(7, "sleep 0.1; exit 4")).await.unwrap());
    eventually_is(None, || world.keeper_pid()).await;
    match world.find().await.unwrap() {
        Found::Ended(ended) => assert_eq!((ended.process.ticket, ended.cause), (7, ExitCause::Code(4))),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_keeper_that_was_killed_is_replaced_and_the_process_notices_nothing() {
    let world = World::new();
    let script = "i=0; while [ $i -lt 1000 ]; do echo $i; i=$((i+1)); sleep 0.001; done; exit 3";
    let mut keeper = world.launch(&world.sh(1, script)).await.unwrap();
    let pid = keeper.process().pid;
    let killer = async {
        for _ in 0..5 {
            let keeper = world.kept_by().await;
            kill(keeper);
            eventually("another keeper", || world.keeper_pid().filter(|it| *it != keeper)).await;
        }
        assert!(lives(pid));
    };
    let (ended, ()) = tokio::join!(soon("end", keeper.ended()), killer);
    assert_eq!(ended.cause, ExitCause::Unknown, "nobody tells a keeper about a process it did not launch");
    assert!(world.stdout() == numbered("", 1000));
}

#[tokio::test]
async fn an_agent_gives_a_process_without_a_keeper_another_one() {
    let world = World::new();
    let first =
        world.launch(&world.sh(1, "(sleep 1000 & echo $! >child); echo $$; exec sleep 1000")).await.unwrap();
    let process = *first.process();
    let child: u32 = eventually("a child", || {
        std::fs::read_to_string(world.path("child")).ok()?.strip_suffix('\n')?.parse().ok()
    })
    .await;
    kill(world.kept_by().await);
    drop(first);
    let mut found = world.find_running().await;
    assert_eq!(*found.process(), process);
    found.stop(Duration::from_secs(1000));
    assert_eq!(soon("end", found.ended()).await.cause, ExitCause::Unknown);
    eventually_is(None, || world.keeper_pid()).await;
    assert!(!lives(child), "also what the process left behind is ended");
}

#[tokio::test]
async fn keeper_and_process_killed_at_once_leave_their_last_words_and_an_unknown_end() {
    for order in [[0, 1], [1, 0]] {
        let world = World::new();
        let script =
            "i=0; while [ $i -lt 500 ]; do echo $i; i=$((i+1)); done; touch printed; exec sleep 1000";
        let mut first = world.launch(&world.sh(1, script)).await.unwrap();
        let keeper = world.kept_by().await;
        super::world::signal(keeper, rustix::process::Signal::STOP);
        eventually("all printed", || world.path("printed").exists().then_some(())).await;
        let pids = [keeper, first.process().pid];
        for it in order {
            kill(pids[it]);
        }
        let ended = soon("end", first.ended()).await;
        assert_eq!(ended.cause, ExitCause::Unknown);
        assert!(world.stdout() == numbered("", 500), "{}", world.stdout());
        match world.find().await.unwrap() {
            Found::Ended(found) => assert_eq!(found, ended),
            other => panic!("{other:?}"),
        }
        let mut next = world.launch(&world.sh(2, "exit 0")).await.unwrap();
        assert_eq!(soon("end", next.ended()).await.cause, ExitCause::Code(0));
    }
}

#[tokio::test]
async fn a_process_whose_record_was_lost_is_found_by_its_lock() {
    let world = World::new();
    let first = world.launch(&world.sh(1, "exec sleep 1000")).await.unwrap();
    let pid = first.process().pid;
    kill(world.kept_by().await);
    drop(first);
    std::fs::remove_file(world.slot.path().join("process")).unwrap();
    let mut found = world.find_running().await;
    assert_eq!((found.process().pid, found.process().ticket), (pid, 0));
    found.kill();
    assert_eq!(soon("end", found.ended()).await.cause, ExitCause::Unknown);
}

#[tokio::test]
async fn a_death_for_want_of_memory_is_not_laid_to_a_later_end() {
    for (deaths, cause) in [(1, ExitCause::Unknown), (2, ExitCause::OutOfMemory(1 << 20))] {
        let world = World::new();
        let first = world.launch(&world.sh(1, "exec sleep 1000")).await.unwrap();
        kill(world.kept_by().await);
        drop(first);
        // A group as the kernel lays it out, in which somebody was killed long before.
        let group = world.path("group");
        let count = |deaths: u32| {
            std::fs::write(group.join("memory.events"), format!("oom {deaths}\noom_kill {deaths}\n"))
                .unwrap();
        };
        std::fs::create_dir(&group).unwrap();
        std::fs::write(group.join("memory.max"), "1048576\n").unwrap();
        count(1);
        let record = world.slot.path().join("process");
        let told = std::fs::read_to_string(&record).unwrap();
        std::fs::write(&record, told.replace("\nend\n", &format!("\ncgroup {}\nend\n", group.display())))
            .unwrap();
        let mut found = world.find_running().await;
        count(deaths);
        kill(found.process().pid);
        assert_eq!(soon("end", found.ended()).await.cause, cause);
        eventually_is(None, || world.keeper_pid()).await;
    }
}

#[tokio::test]
async fn a_launch_whose_keeper_is_killed_anywhere_gives_one_process_or_none() {
    for delay_us in (0..6_000).step_by(150) {
        let world = World::new();
        world.slot.create().unwrap();
        let spec = world.sh(1, "exec sleep 1000");
        let killer = async {
            tokio::task::spawn_blocking({
                let slot = world.slot.path().to_owned();
                move || {
                    std::thread::sleep(Duration::from_micros(delay_us));
                    for pid in super::world::processes() {
                        let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
                        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
                        if exe.is_ok_and(|it| it == Path::new(KEEPER)) && cwd.is_ok_and(|it| it == slot) {
                            kill(pid);
                        }
                    }
                }
            })
            .await
            .unwrap();
        };
        let (launched, ()) = tokio::join!(soon("launch", world.launch(&spec)), killer);
        let running = world.find().await.unwrap();
        match (launched, running) {
            (Ok(mut keeper), Found::Running(found)) => {
                assert_eq!(keeper.process(), found.process());
                keeper.kill();
                soon("end", keeper.ended()).await;
            }
            // Killed itself, on its way to becoming the program.
            (Ok(mut keeper), Found::Ended(_)) => drop(soon("end", keeper.ended()).await),
            (Err(LaunchError::Lost), Found::Nothing | Found::Ended(_)) => {}
            (launched, running) => panic!("after {delay_us} us: {launched:?}, {running:?}"),
        }
        let mut next = world.launch(&world.sh(2, "exit 0")).await.unwrap();
        soon("end", next.ended()).await;
    }
}
