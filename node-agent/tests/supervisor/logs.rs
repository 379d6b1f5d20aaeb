//! What replicas printed stays on their host, whatever becomes of them, and is read as ever.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use node_agent::logs::{Follow, LogFolder};
use proto::pb;
use tokio::sync::mpsc;

use super::world::{APP, World};

/// As `deployex logs` asks an agent for it.
async fn read(world: &World, slot: u32) -> String {
    let wish = pb::FollowLog {
        app: APP.to_owned(),
        slot,
        stream: pb::LogStream::Stdout.into(),
        last_lines: 1_000,
        follow: false,
    };
    let follow = Follow::new(&LogFolder(world.path("var/log")), &wish).unwrap();
    let (chunks, mut read) = mpsc::channel(64);
    follow.run(chunks).await;
    let mut text = Vec::new();
    while let Some(chunk) = read.recv().await {
        text.extend(chunk.data);
    }
    String::from_utf8(text).unwrap()
}

/// Nomad #18034.
#[tokio::test]
async fn logs_of_a_replaced_replica_stay_readable() {
    let world = World::new();
    let agent = world.agent().await;
    let versions = ["0.1.0-talks", "0.2.0-talks", "0.3.0-talks"];
    for (generation, version) in (1..).zip(versions) {
        agent.assign(world.assignment(generation, version)).await;
        agent.runs(version).await;
    }
    assert_eq!(read(&world, 1).await, "0.1.0-talks talks\n0.2.0-talks talks\n0.3.0-talks talks\n");

    // Rolled back.
    agent.assign(world.assignment(4, versions[1])).await;
    agent.runs(versions[1]).await;
    // Withdrawn, as where its replica moved to another host, or where it is no longer configured.
    agent.assign(pb::Assignment { generation: 5, ..pb::Assignment::default() }).await;
    agent.reports("an empty slot", |it| it.state() == pb::SlotState::Empty).await;
    let said = "0.1.0-talks talks\n0.2.0-talks talks\n0.3.0-talks talks\n0.2.0-talks talks\n";
    assert_eq!(read(&world, 1).await, said);
    agent.end().await;

    // Nor does the next agent take it for refuse, and what comes again goes on in the same file.
    let agent = world.agent().await;
    agent.assign(pb::Assignment { generation: 5, ..pb::Assignment::default() }).await;
    agent.reports("what is not there", |it| it.running.is_none()).await;
    assert_eq!(read(&world, 1).await, said);
    agent.assign(world.assignment(6, versions[0])).await;
    agent.runs(versions[0]).await;
    assert_eq!(read(&world, 1).await, format!("{said}0.1.0-talks talks\n"));
    agent.end().await;
}
