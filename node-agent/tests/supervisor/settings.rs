//! With which settings a replica is started: those of its deployment, or where somebody asked for the start, those that are wanted
//! now.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of it is test code")]

use std::fs;

use proto::pb;

use super::world::{Agent, World, kill};

fn coloured(world: &World, generation: u64, colour: &str, restart: &str) -> pb::Assignment {
    let mut assignment = world.assignment(generation, "1.0.0");
    assignment.applications[0].env.push(pb::EnvEntry { key: "COLOUR".to_owned(), value: colour.to_owned() });
    restart.clone_into(&mut assignment.slots[0].restart_id);
    assignment
}

fn colour(pid: u32) -> String {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8_lossy(&environment).into_owned();
    text.split('\0').find_map(|it| it.strip_prefix("COLOUR=")).unwrap_or("none").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_is_asked_for_is_with_what_is_wanted_now_and_a_crash_is_not() {
    let world = World::new();
    let agent = world.agent().await;
    agent.assign(coloured(&world, 1, "red", "")).await;
    let first = agent.runs("1.0.0").await;
    assert_eq!(colour(first.pid), "red");

    let successor = async |agent: &Agent, before: u32| {
        let is_up =
            |it: &pb::SlotReport| it.pid != before && it.pid != 0 && it.state() == pb::SlotState::Stable;
        agent.reports("a successor", is_up).await
    };
    agent.assign(coloured(&world, 2, "blue", "")).await;
    agent.reports("the assignment", |it| it.generation == 2).await;
    kill(first.pid);
    let crashed = successor(&agent, first.pid).await;
    assert_eq!(colour(crashed.pid), "red", "it belongs to the next deployment");

    agent.assign(coloured(&world, 3, "blue", "one")).await;
    let restarted = successor(&agent, crashed.pid).await;
    assert_eq!(colour(restarted.pid), "blue");

    // Once: what is assigned after it waits for the next one, also with another agent.
    agent.assign(coloured(&world, 4, "green", "one")).await;
    agent.reports("the assignment", |it| it.generation == 4).await;
    agent.end().await;
    let next = world.agent().await;
    kill(restarted.pid);
    let crashed = successor(&next, restarted.pid).await;
    assert_eq!(colour(crashed.pid), "blue");
    next.end().await;

    // An agent before this one did not remember which restart was the last: what it did, is done.
    fs::remove_file(world.ledger("deployed-for")).unwrap();
    let next = world.agent().await;
    kill(crashed.pid);
    let again = successor(&next, crashed.pid).await;
    assert_eq!(colour(again.pid), "blue");
    next.assign(coloured(&world, 5, "green", "two")).await;
    let restarted = successor(&next, again.pid).await;
    assert_eq!(colour(restarted.pid), "green");
    next.end().await;
}
