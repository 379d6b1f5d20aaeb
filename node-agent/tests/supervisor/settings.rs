//! With which settings a replica is started: those of its deployment, or where somebody asked for the start, those that are wanted
//! now.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of it is test code")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use proto::agent::WITH_A_DEPLOYMENT;
use proto::pb;
use proto::pb::probe::Kind;

use super::world::{Agent, World, eventually, kill};

fn coloured(world: &World, generation: u64, colour: &str, restart: &str) -> pb::Assignment {
    let mut assignment = world.assignment(generation, "1.0.0");
    assignment.applications[0].env.push(pb::EnvEntry { key: "COLOUR".to_owned(), value: colour.to_owned() });
    restart.clone_into(&mut assignment.slots[0].restart_id);
    assignment
}

fn environment(pid: u32) -> BTreeMap<String, String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8_lossy(&environment).into_owned();
    text.split('\0')
        .filter_map(|it| it.split_once('='))
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

fn colour(pid: u32) -> String {
    environment(pid).remove("COLOUR").unwrap_or_else(|| "none".to_owned())
}

/// The same release with every field changed that belongs to a deployment.
fn all_else(world: &World, mut assignment: pb::Assignment) -> pb::Assignment {
    let probe = |kind| vec![pb::Probe { kind: Some(kind), interval_ms: 100, timeout_ms: 2_000, after: 1 }];
    let app = &mut assignment.applications[0];
    for field in WITH_A_DEPLOYMENT {
        match field {
            "language" => app.language = pb::Language::Erlang.into(),
            "env" => app.env.push(pb::EnvEntry { key: "COLOUR".to_owned(), value: "blue".to_owned() }),
            "ports" => app.ports = vec![pb::PortBase { key: "PORT".to_owned(), base: 1 }],
            "env_file" => app.env_file = world.path("env").display().to_string(),
            "run_as_user" => "nobody".clone_into(&mut app.run_as_user),
            "run_as_group" => "daemon".clone_into(&mut app.run_as_group),
            "cookie" => "another".clone_into(&mut app.cookie),
            "distribution" => {
                let off = pb::DistributionMode::Off.into();
                let host = "host.example".to_owned();
                let tls = pb::DistributionTls::Off.into();
                app.distribution =
                    Some(pb::Distribution { mode: off, host, port_first: 9_100, port_last: 9_200, tls });
            }
            "ready" => app.ready = pb::ReadyWhen::Default.into(),
            // Nobody listens there, so that it is never ready; and if it were, it would be ended at once.
            "ready_probes" => app.ready_probes = probe(Kind::Tcp(pb::TcpProbe::default())),
            "live_probes" => {
                app.live_probes = probe(Kind::Exec(pb::ExecProbe { command: "false".to_owned() }));
            }
            other => panic!("{other} is not changed here"),
        }
    }
    assignment
}

#[tokio::test(flavor = "multi_thread")]
async fn as_root_all_that_belongs_to_a_deployment_outlives_a_crash_and_comes_with_the_next_one() {
    let world = World::new();
    // Whoever runs it writes there.
    for name in ["starts", "starts.pre"] {
        fs::write(world.path(name), "").unwrap();
        fs::set_permissions(world.path(name), Permissions::from_mode(0o666)).unwrap();
    }
    fs::write(world.path("env"), "EXTRA=1\n").unwrap();
    let agent = world.agent().await;
    let mut first = world.assignment(1, "1.0.0");
    first.applications[0].ready = pb::ReadyWhen::Process.into();
    agent.assign(first).await;
    let before = agent.runs("1.0.0").await;
    let deployed = environment(before.pid);

    agent.assign(all_else(&world, world.assignment(2, "1.0.0"))).await;
    let told = agent.reports("it is told", |it| it.generation == 2).await;
    assert_eq!((told.state(), told.pid), (pb::SlotState::Stable, before.pid), "what runs is left alone");
    assert!(told.ports.is_empty(), "{told:?}");
    kill(before.pid);
    let is_up = |it: &pb::SlotReport| it.pid != before.pid && it.state() == pb::SlotState::Stable;
    let crashed = agent.reports("a successor", is_up).await;
    assert_eq!((environment(crashed.pid), crashed.crash_restarts), (deployed.clone(), 1));
    assert!(crashed.ports.is_empty(), "{crashed:?}");

    agent.assign(all_else(&world, world.assignment(3, "2.0.0"))).await;
    // Erlang's releases are started by another word, which this one takes for a pre-command.
    eventually("a start in another language", || {
        fs::read_to_string(world.path("starts.pre")).unwrap().starts_with("foreground").then_some(())
    })
    .await;
    let unready = agent.reports("a failed check", |it| it.failed_check.is_some()).await;
    let deployed_next = environment(unready.pid);
    let expected = [
        ("COLOUR", "blue"),
        ("ERL_AFLAGS", "-kernel inet_dist_listen_min 9100 inet_dist_listen_max 9200"),
        ("EXTRA", "1"),
        ("PORT", "1"),
        ("RELEASE_COOKIE", "another"),
        ("RELEASE_NODE", "demo-1@host.example"),
        ("USER", "nobody"),
    ];
    for (key, value) in expected {
        assert_eq!(deployed_next.get(key).map(String::as_str), Some(value), "{key}");
        assert_ne!(deployed.get(key).map(String::as_str), Some(value), "{key}");
    }
    let process = fs::metadata(format!("/proc/{}", unready.pid)).unwrap();
    assert_ne!((process.uid(), process.gid()), (0, 0));
    let check = unready.failed_check.unwrap();
    assert_eq!(check.asked, "TCP on port 1");
    assert_eq!(unready.ports.iter().map(|it| it.port).collect::<Vec<_>>(), [1]);
    agent.end().await;
    world.let_pre_commands_go();
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
