//! An assignment that the agent cannot take is no secret of its log.

use proto::pb;

use super::world::{APP, World, eventually};

#[tokio::test]
async fn a_refused_assignment_is_told_and_what_ran_goes_on() {
    let world = World::new();
    let mut agent = world.agent().await;
    agent.assign(world.assignment(1, "0.1.0")).await;
    let before = agent.runs("0.1.0").await;

    let mut unknown = world.assignment(2, "0.2.0");
    unknown.applications[0].language = 9;
    agent.assign(unknown).await;
    let refused = agent.reports("the fault", |it| !it.fault.is_empty()).await;
    assert!(refused.fault.contains("names a language that this agent does not know"), "{}", refused.fault);
    assert_eq!((refused.pid, refused.generation), (before.pid, 1));
    assert_eq!(agent.generation(), 1);
    let told = std::iter::from_fn(|| agent.events.try_recv().ok()).find(|it| it.kind == "assignment_failed");
    let told = told.unwrap();
    assert_eq!((told.app.as_str(), told.slot), (APP, 1));
    assert!(told.text.contains("it was refused"), "{}", told.text);

    agent.assign(world.assignment(3, "0.2.0")).await;
    let after = agent.runs("0.2.0").await;
    assert_eq!(after.fault, "");
    agent.end().await;
}

#[tokio::test]
async fn a_second_agent_on_one_folder_refuses_and_says_who_is_there() {
    let world = World::new();
    let agent = world.agent().await;
    let refused = world.refused_agent().await;
    let who = format!("another agent (pid {}) works on {}", std::process::id(), world.path("var").display());
    assert!(refused.contains(&who), "{refused}");
    agent.end().await;
    world.agent().await.end().await;
}

#[tokio::test]
async fn a_slot_that_is_new_shows_why_it_is_not_there() {
    let world = World::new();
    let agent = world.agent().await;
    let mut relative = world.assignment(1, "0.1.0");
    relative.applications[0].env_file = "env".to_owned();
    agent.assign(relative).await;
    let refused = agent.reports("the fault", |it| !it.fault.is_empty()).await;
    assert!(refused.fault.contains("is not an absolute path"), "{}", refused.fault);
    assert_eq!(refused.state(), pb::SlotState::Preparing);
    agent.assign(world.assignment(2, "0.1.0")).await;
    agent.runs("0.1.0").await;
    agent.end().await;
}

#[tokio::test]
async fn what_is_held_runs_on_as_it_was_told_and_is_withdrawn_when_it_is_no_longer_named() {
    let world = World::new();
    let agent = world.agent().await;
    agent.assign(world.assignment(1, "0.1.0")).await;
    let before = agent.runs("0.1.0").await;
    let held = pb::Assignment { generation: 2, held: vec![APP.to_owned()], ..Default::default() };
    agent.assign(held.clone()).await;
    eventually("the assignment is stored", || (agent.generation() == 2).then_some(())).await;
    agent.end().await;

    let agent = world.agent().await;
    agent.assign(pb::Assignment { generation: 3, ..held }).await;
    eventually("the next is stored", || (agent.generation() == 3).then_some(())).await;
    let after = agent.runs("0.1.0").await;
    assert_eq!((after.pid, after.generation), (before.pid, 1));
    assert!(world.current("").exists());

    agent.assign(pb::Assignment { generation: 4, ..Default::default() }).await;
    agent.reports("an empty slot", |it| it.state() == pb::SlotState::Empty).await;
    assert_eq!(world.living(), 0);
    agent.end().await;
}
