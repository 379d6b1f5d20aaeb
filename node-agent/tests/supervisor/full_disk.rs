//! A disk that is full to the last byte: what runs goes on, nothing new is begun, the reason is said, and it ends when there
//! is room again.

use std::fs;

use proto::pb;

use super::world::{APP, World, eventually, kill, lives};

const NO_ROOM: &str = "No space left on device";

#[tokio::test]
async fn as_root_an_assignment_that_cannot_be_stored_is_said_so_and_taken_when_there_is_room() {
    let world = World::on_a_small_disk();
    let mut agent = world.agent().await;
    agent.assign(world.assignment(1, "0.1.0")).await;
    let before = agent.runs("0.1.0").await;

    world.disk().fill();
    agent.assign(world.assignment(2, "0.2.0")).await;
    let full = agent.reports("the fault", |it| it.fault.contains(NO_ROOM)).await;
    assert!(full.fault.contains("cannot be stored and is tried again"), "{}", full.fault);
    assert_eq!((full.pid, full.state()), (before.pid, pb::SlotState::Stable));
    assert_eq!(agent.generation(), 1, "what is not on the disk is not acknowledged");
    let told =
        std::iter::from_fn(|| agent.events.try_recv().ok()).filter(|it| it.kind == "assignment_failed");
    assert_eq!(told.map(|it| (it.app, it.slot)).collect::<Vec<_>>(), [(APP.to_owned(), 1)]);

    world.disk().make_room();
    let after = agent.runs("0.2.0").await;
    assert_eq!(after.fault, "");
    assert_eq!(agent.generation(), 2);
    agent.end().await;
}

#[tokio::test]
async fn nothing_is_stopped_before_the_ledger_holds_that_it_is_to_stop() {
    let world = World::new();
    let agent = world.agent().await;
    agent.assign(world.assignment(1, "0.1.0")).await;
    let before = agent.runs("0.1.0").await;

    // What is wanted can be stored, and what is decided of it cannot: a folder lies in the file's place.
    let runtime = world.ledger("runtime");
    fs::remove_file(&runtime).unwrap();
    fs::create_dir(&runtime).unwrap();
    let mut restart = world.assignment(2, "0.1.0");
    restart.slots[0].restart_id = "one".to_owned();
    agent.assign(restart).await;
    let stuck = agent.reports("the fault", |it| it.fault.contains("the ledger cannot be written")).await;
    assert!(stuck.fault.contains("nothing new is begun"), "{}", stuck.fault);
    assert!(lives(before.pid), "it runs on");
    assert_eq!(world.starts().len(), 1);

    fs::remove_dir(&runtime).unwrap();
    let after = agent.reports("the restart", |it| it.forced_restarts == 1 && it.pid != 0).await;
    assert_ne!(after.pid, before.pid);
    assert_eq!((after.crash_restarts, after.fault.as_str()), (0, ""));
    eventually("the second start", || (world.starts().len() == 2).then_some(())).await;
    agent.end().await;
}

#[tokio::test]
async fn as_root_a_crashed_replica_is_started_again_without_a_ledger_and_never_twice() {
    let world = World::on_a_small_disk();
    let agent = world.agent().await;
    agent.assign(world.assignment(1, "0.1.0")).await;
    let before = agent.runs("0.1.0").await;

    world.disk().fill();
    kill(before.pid);
    let again = agent
        .reports("the restart", |it| it.pid != 0 && it.pid != before.pid && it.fault.contains(NO_ROOM))
        .await;
    assert_eq!(again.crash_restarts, 1);
    eventually("the second start", || (world.starts().len() == 2).then_some(())).await;

    agent.end().await;
    // The next agents read a ledger that knows nothing of it.
    let mut next = world.agent().await;
    for _ in 0..3 {
        let taken_up = next.reports("the process taken up", |it| it.pid == again.pid).await;
        assert!(taken_up.fault.contains(NO_ROOM), "{}", taken_up.fault);
        next.end().await;
        next = world.agent().await;
    }
    assert_eq!(world.starts().len(), 2, "{:?}", world.starts());
    assert_eq!(world.living(), 1);

    world.disk().make_room();
    let healed = next.reports("a ledger that is written", |it| it.pid != 0 && it.fault.is_empty()).await;
    assert_eq!((healed.pid, healed.crash_restarts), (again.pid, 1), "also the crash was counted");
    next.end().await;
    let next = world.agent().await;
    let after = next.runs("0.1.0").await;
    assert_eq!((after.pid, after.crash_restarts), (again.pid, 1));
    next.end().await;
}
