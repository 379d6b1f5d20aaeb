//! Limits of replicas: in force at once, and said where they are not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of it is test code")]

use std::fs;

use node_agent::cgroup::home::{Hierarchy, Home};
use node_agent::cgroup::{Cgroup, Limits};
use proto::pb;

use super::world::{World, eventually};

fn limited(world: &World, generation: u64, memory_max_bytes: u64) -> pb::Assignment {
    let mut assignment = world.assignment(generation, "1.0.0");
    let limits = pb::Limits { memory_max_bytes, ..Default::default() };
    assignment.applications[0].limits = (memory_max_bytes != 0).then_some(limits);
    assignment
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_limit_says_so_and_the_replica_runs() {
    let world = World::new();
    let agent = world.agent().await;
    agent.assign(limited(&world, 1, 1 << 30)).await;
    let fault = "not limited as asked for (memory): this test has none";
    let before =
        agent.reports("the fault", |it| it.state() == pb::SlotState::Stable && it.fault == fault).await;
    // Lifted, it is no fault any more, and nothing was started anew for it.
    agent.assign(limited(&world, 2, 0)).await;
    let after = agent.reports("no fault", |it| it.generation == 2 && it.fault.is_empty()).await;
    assert_eq!(after.pid, before.pid);
    // The next agent says it too, of what it finds running.
    agent.assign(limited(&world, 3, 2 << 30)).await;
    agent.reports("the fault again", |it| it.generation == 3 && it.fault == fault).await;
    agent.end().await;
    let next = world.agent().await;
    let found = next.reports("the fault", |it| it.fault == fault).await;
    assert_eq!(found.pid, before.pid);
    next.end().await;
}

/// The group of the process, as the kernel names it.
fn group_of(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

fn at_the_root(name: &str) -> (Hierarchy, Home) {
    let hierarchy = Hierarchy::of_this_process().expect("cgroup v2");
    let at_root = Hierarchy { own: hierarchy.mount.clone(), ..hierarchy };
    let home = Home::settle(Some(&at_root), name);
    (at_root, home)
}

#[tokio::test(flavor = "multi_thread")]
async fn as_root_each_launch_has_a_group_which_the_next_agent_finds_and_none_is_left() {
    let name = format!("deployex-test-agent-{}", std::process::id());
    let (hierarchy, home) = at_the_root(&name);
    let base = hierarchy.mount.join(&name);
    let mut world = World::new();
    world.home = home;
    let agent = world.agent().await;
    agent.assign(world.assignment(1, "1.0.0")).await;
    let first = agent.runs("1.0.0").await;
    let group = group_of(first.pid);
    assert!(group.starts_with(&format!("/{name}/demo-1-")), "{group}");
    agent.end().await;
    // Left by an agent that died between making it and starting somebody in it.
    fs::create_dir(base.join("demo-1-999")).unwrap();
    let next = world.agent().await;
    next.runs("1.0.0").await;
    assert!(!base.join("demo-1-999").exists());
    let mut restart = world.assignment(2, "1.0.0");
    restart.slots[0].restart_id = "again".to_owned();
    next.assign(restart).await;
    let second =
        next.reports("the successor", |it| it.pid != first.pid && it.state() == pb::SlotState::Stable).await;
    assert_ne!(group_of(second.pid), group);
    eventually("the end of the first group", || (!hierarchy.mount.join(&group[1..]).exists()).then_some(()))
        .await;
    let mut withdrawn = world.assignment(3, "1.0.0");
    withdrawn.slots.clear();
    next.assign(withdrawn).await;
    next.reports("nothing", |it| it.state() == pb::SlotState::Empty).await;
    let groups =
        || fs::read_dir(&base).into_iter().flatten().flatten().filter(|it| it.path().is_dir()).count();
    eventually("the end of the second", || (groups() == 0).then_some(())).await;
    next.end().await;
    assert!(!base.exists(), "and ours goes with the last of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_root_with_controllers_a_changed_limit_is_set_for_what_runs() {
    let name = format!("deployex-test-limits-{}", std::process::id());
    let (hierarchy, home) = at_the_root(&name);
    assert_eq!(home.why_not(), None);
    let mut world = World::new();
    world.home = home;
    let agent = world.agent().await;
    agent.assign(limited(&world, 1, 1 << 30)).await;
    let first = agent.runs("1.0.0").await;
    let group = Cgroup::at(hierarchy.mount.join(&group_of(first.pid)[1..]));
    assert_eq!(group.limits().memory_max, Some(1 << 30));
    for (generation, bytes) in [(2, 2 << 30), (3, 0)] {
        agent.assign(limited(&world, generation, bytes)).await;
        let wanted = Limits { memory_max: Some(bytes).filter(|it| *it != 0), ..Limits::default() };
        eventually("the new limit", || (group.limits() == wanted).then_some(())).await;
    }
    assert_eq!(agent.report().pid, first.pid);
    let mut withdrawn = limited(&world, 4, 0);
    withdrawn.slots.clear();
    agent.assign(withdrawn).await;
    agent.reports("nothing", |it| it.state() == pb::SlotState::Empty).await;
    agent.end().await;
}
