//! A process that has ended and what it left behind are two things.

use std::fs;

use proto::pb;

use super::world::{APP, World, eventually, kill};

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

#[tokio::test]
async fn what_a_slot_ran_before_stays_on_the_host_for_the_way_back() {
    let world = World::new();
    let agent = world.agent().await;
    let [first, second, third] = ["0.1.0", "0.2.0", "0.3.0"].map(|version| world.assignment(1, version));
    let at =
        |generation: u64, assignment: &pb::Assignment| pb::Assignment { generation, ..assignment.clone() };
    for (generation, assignment, version) in
        [(1, &first, "0.1.0"), (2, &second, "0.2.0"), (3, &third, "0.3.0")]
    {
        agent.assign(at(generation, assignment)).await;
        agent.runs(version).await;
    }
    // Another application's turn, say: what nobody needs is removed now.
    agent.assign(at(4, &third)).await;
    eventually("the first is removed", || (world.releases() == 2).then_some(())).await;
    world.empty_bucket();
    agent.assign(at(5, &second)).await;
    agent.runs("0.2.0").await;
    agent.end().await;
}

#[tokio::test]
async fn the_last_words_of_a_crash_are_told_by_the_next_agent_too() {
    let world = World::new();
    let agent = world.agent().await;
    agent.assign(world.assignment(1, "0.1.0")).await;
    let before = agent.runs("0.1.0").await;
    let work = world.path("var/service").join(APP).join("1/work");
    fs::write(work.join("erl_crash.dump"), "=erl_crash_dump:0.5\ntoday\nSlogan: no memory\n").unwrap();
    kill(before.pid);
    let says = |it: &pb::SlotReport| it.last_exit.as_ref().is_some_and(|exit| exit.slogan == "no memory");
    let crashed = agent.reports("the slogan", says).await;
    agent.end().await;

    let agent = world.agent().await;
    let after = agent.runs("0.1.0").await;
    assert!(says(&after) && after.crash_restarts == 1, "{after:?}");
    assert_eq!(after.last_exit.unwrap().crash_dump, crashed.last_exit.unwrap().crash_dump);
    agent.end().await;
}
