//! An agent that lost its control plane goes back by itself from a release that is never ready.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::net::TcpListener;

use node_agent::link::Standing;
use proto::pb;

use super::world::{Agent, World, lives};

/// Where version 1 listens and version 2 does not, and so is never ready.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn good(world: &World, generation: u64, port: u16) -> pb::Assignment {
    world.listening(generation, "1.0", port)
}

/// The second version, with a way back to what this assignment names.
fn moving(world: &World, generation: u64, port: u16, rollout: &str, back: &pb::Assignment) -> pb::Assignment {
    let mut assignment = world.assignment(generation, "2.0");
    assignment.applications[0].ports = vec![pb::PortBase { key: "PORT".to_owned(), base: u32::from(port) }];
    assignment.slots[0].fallback = Some(pb::Fallback {
        release: back.slots[0].release.clone(),
        within_ms: 1_000,
        rollout_id: rollout.to_owned(),
    });
    assignment
}

fn runs(report: &pb::SlotReport, version: &str) -> bool {
    report.pid != 0 && report.running.as_ref().is_some_and(|it| it.version == version)
}

fn cut_off(agent: &Agent) {
    agent.standing.send_replace(Standing::Down("the control plane fell silent".to_owned()));
}

#[tokio::test]
async fn a_slot_that_nobody_can_help_goes_back_and_stays_with_that_until_another_wish_arrives() {
    let (world, port) = (World::new(), free_port());
    let agent = world.agent().await;
    let before = good(&world, 1, port);
    agent.assign(before.clone()).await;
    agent.runs("1.0-listens").await;

    agent.assign(moving(&world, 2, port, "first", &before)).await;
    agent.reports("the new release", |it| runs(it, "2.0")).await;
    world.empty_bucket();
    cut_off(&agent);
    let after = agent.runs("1.0-listens").await;
    let fell_back = after.fell_back.clone().unwrap();
    assert_eq!(fell_back.rollout_id, "first");
    assert_eq!(fell_back.from.as_ref().unwrap().version, "2.0");
    assert_eq!(fell_back.to, after.running);
    assert!(fell_back.because.contains("2.0 was not stable within 1 s"), "{}", fell_back.because);
    assert!(after.fault.contains(&fell_back.because), "{}", after.fault);
    let versions = || world.starts().into_iter().map(|(version, _)| version).collect::<Vec<_>>();
    assert_eq!(versions(), ["1.0-listens", "2.0", "1.0-listens"]);

    // The control plane is back, and says what it had said, beside something new of another slot.
    agent.standing.send_replace(Standing::Connected);
    agent.assign(moving(&world, 3, port, "first", &before)).await;
    let told = agent.reports("the assignment taken up", |it| it.generation == 3).await;
    assert_eq!((told.pid, &told.fell_back), (after.pid, &after.fell_back));
    agent.end().await;

    let agent = world.agent().await;
    let taken_up = agent.runs("1.0-listens").await;
    assert_eq!((taken_up.pid, &taken_up.fell_back), (after.pid, &after.fell_back));
    // What it went back from lies on this host still.
    agent.assign(moving(&world, 4, port, "second", &before)).await;
    let again = agent.reports("the release tried again", |it| runs(it, "2.0")).await;
    assert_eq!((again.fell_back, again.fault.as_str()), (None, ""));
    assert_eq!(versions(), ["1.0-listens", "2.0", "1.0-listens", "2.0"]);
    agent.end().await;
}

#[tokio::test]
async fn what_cannot_be_brought_without_a_control_plane_is_said_and_the_new_release_goes_on() {
    let (world, port) = (World::new(), free_port());
    let agent = world.agent().await;
    // It never lay on this host.
    let elsewhere = good(&world, 1, port);
    agent.assign(moving(&world, 2, port, "first", &elsewhere)).await;
    let running = agent.reports("the new release", |it| runs(it, "2.0")).await;
    world.empty_bucket();
    cut_off(&agent);
    let stuck = agent
        .reports("why it cannot go back", |it| it.staging.as_ref().is_some_and(|it| !it.error.is_empty()))
        .await;
    assert_eq!(stuck.staging.as_ref().unwrap().release, elsewhere.slots[0].release.as_ref().unwrap().key);
    assert!(stuck.fell_back.is_some() && runs(&stuck, "2.0") && lives(running.pid), "{stuck:#?}");

    assert_eq!(world.starts().len(), 1);
    agent.end().await;
}
