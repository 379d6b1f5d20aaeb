//! A process that has ended and what it left behind are two things.

use super::world::World;

#[tokio::test]
async fn a_stop_is_no_crash_where_the_process_leaves_somebody_behind() {
    let world = World::new();
    let mut agent = world.agent().await;
    agent.assign(world.assignment(1, "0.1.0-lingers")).await;
    agent.runs("0.1.0-lingers").await;
    agent.assign(world.assignment(2, "0.2.0")).await;
    let after = agent.runs("0.2.0").await;
    let told: Vec<_> = std::iter::from_fn(|| agent.events.try_recv().ok()).map(|it| it.kind).collect();
    assert_eq!(after.crash_restarts, 0, "{told:?}");
    assert!(after.last_exit.is_some_and(|it| it.asked_for));
    assert!(!told.iter().any(|it| it == "crash_restart"), "{told:?}");
    assert_eq!(world.starts().len(), 2);
    agent.end().await;
}
