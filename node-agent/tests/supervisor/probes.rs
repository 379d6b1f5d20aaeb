//! Whether a replica is ready, and still answers, is what its probes say.

use std::fs;

use proto::pb;
use proto::pb::probe::Kind;

use super::health::Server;
use super::world::{Agent, World, eventually};

const OFTEN_MS: u64 = 50;

fn http(path: &str, after: u32) -> pb::Probe {
    let http = pb::HttpProbe { path: path.to_owned(), expect: 200, ..Default::default() };
    pb::Probe { kind: Some(Kind::Http(http)), interval_ms: OFTEN_MS, timeout_ms: 60_000, after }
}

fn with(mut assignment: pb::Assignment, ready: &[pb::Probe], live: &[pb::Probe]) -> pb::Assignment {
    assignment.applications[0].ready_probes = ready.to_vec();
    assignment.applications[0].live_probes = live.to_vec();
    assignment
}

fn told(agent: &mut Agent, kind: &str) -> Vec<String> {
    let all = std::iter::from_fn(|| agent.events.try_recv().ok());
    all.filter(|it| it.kind == kind).map(|it| it.text).collect()
}

async fn asked_more(server: &Server, path: &str, times: u64) {
    let before = server.asked(path);
    eventually("further questions", || (server.asked(path) >= before + times).then_some(())).await;
}

#[tokio::test]
async fn a_replica_is_ready_once_its_health_says_so_and_until_then_it_is_told_why_not() {
    let (world, server) = (World::new(), Server::new());
    server.answer("/health", 503, "database down");
    let agent = world.agent().await;
    agent.assign(with(server.serves(world.assignment(1, "0.1.0-talks")), &[http("/health", 2)], &[])).await;
    let report = agent.reports("a failed check", |it| it.failed_check.is_some()).await;
    let check = report.failed_check.clone().unwrap();
    assert_eq!(report.state(), pb::SlotState::Starting);
    assert_eq!(check.asked, format!("GET /health on port {}", server.port));
    assert_eq!((check.outcome.as_str(), check.body.as_str()), ("answered 503", "database down"));
    assert!(check.in_a_row > 0 && !check.liveness && check.at_unix_ms > 0, "{check:?}");
    assert!(check.log_tail.contains("0.1.0-talks talks"), "{check:?}");
    server.answer("/health", 200, "ok");
    agent.runs("0.1.0-talks").await;
    agent.reports("a start that took its time", |it| it.failed_check.is_none()).await;
    server.answer("/health", 500, "");
    agent.reports("another failure", |it| it.failed_check.as_ref().is_some_and(|it| it.in_a_row > 1)).await;
    server.answer("/health", 200, "");
    agent.reports("that it passes", |it| it.failed_check.as_ref().is_some_and(|it| it.in_a_row == 0)).await;
    // Of another release nothing has failed.
    agent.assign(with(server.serves(world.assignment(2, "0.2.0")), &[http("/health", 2)], &[])).await;
    assert_eq!(agent.runs("0.2.0").await.failed_check, None);
    agent.end().await;
}

#[tokio::test]
async fn all_probes_of_a_list_must_pass() {
    let (world, server) = (World::new(), Server::new());
    server.answer("/second", 500, "");
    let agent = world.agent().await;
    let both = [http("/first", 1), http("/second", 1)];
    agent.assign(with(server.serves(world.assignment(1, "0.1.0")), &both, &[])).await;
    agent.reports("a failed check", |it| it.failed_check.is_some()).await;
    asked_more(&server, "/first", 5).await;
    assert_eq!(agent.report().state(), pb::SlotState::Starting);
    server.answer("/second", 200, "");
    agent.runs("0.1.0").await;
    server.answer("/first", 500, "");
    agent.reports("unready", |it| it.state() == pb::SlotState::Unready).await;
    agent.end().await;
}

#[tokio::test]
async fn one_failure_alone_takes_nobody_out_of_traffic_and_two_in_a_row_do() {
    let (world, server) = (World::new(), Server::new());
    let mut agent = world.agent().await;
    agent.assign(with(server.serves(world.assignment(1, "0.1.0")), &[http("/health", 2)], &[])).await;
    agent.runs("0.1.0").await;
    for _ in 0..3 {
        server.slip_once();
        asked_more(&server, "/health", 3).await;
    }
    assert_eq!(told(&mut agent, "application_ready").len(), 1, "it was ready all the time");
    server.answer("/health", 500, "");
    agent.reports("unready", |it| it.state() == pb::SlotState::Unready).await;
    server.answer("/health", 200, "");
    agent.runs("0.1.0").await;
    assert_eq!(agent.report().crash_restarts + agent.report().forced_restarts, 0);
    agent.end().await;
}

#[tokio::test]
async fn a_replica_that_stops_answering_is_started_anew_and_its_event_says_why() {
    let (world, server) = (World::new(), Server::new());
    let mut agent = world.agent().await;
    agent.assign(with(server.serves(world.assignment(1, "0.1.0")), &[], &[http("/live", 3)])).await;
    let before = agent.runs("0.1.0").await;
    asked_more(&server, "/live", 5).await;
    assert_eq!(agent.report().pid, before.pid);
    server.answer("/live", 500, "stuck");
    let after = agent.reports("a restart", |it| it.forced_restarts == 1).await;
    server.answer("/live", 200, "");
    let because = format!(
        "its live check failed 3 times in a row: GET /live on port {} answered 500: \"stuck\"",
        server.port
    );
    assert_eq!(after.last_exit.unwrap().because, because);
    let again = agent.runs("0.1.0").await;
    assert_ne!(again.pid, before.pid);
    assert_eq!(again.failed_check.unwrap().in_a_row, 0, "it passes now");
    assert_eq!((again.crash_restarts, again.crashes_since_deploy), (0, 1));
    assert_eq!(told(&mut agent, "forced_restart"), [format!("slot 1 starts again: {because}")]);
    agent.end().await;
}

#[tokio::test]
async fn how_long_a_start_may_take_is_no_question_of_liveness() {
    let (world, server) = (World::new(), Server::new());
    server.answer("/ready", 503, "");
    server.answer("/live", 500, "");
    let agent = world.agent().await;
    let assignment = server.serves(world.assignment(1, "0.1.0"));
    agent.assign(with(assignment, &[http("/ready", 1)], &[http("/live", 1_000)])).await;
    asked_more(&server, "/ready", 20).await;
    assert_eq!(server.asked("/live"), 0);
    server.answer("/ready", 200, "");
    asked_more(&server, "/live", 2).await;
    agent.end().await;
}

#[tokio::test]
async fn a_command_decides_by_its_exit_status() {
    let world = World::new();
    let agent = world.agent().await;
    let well = world.path("is well");
    let command = format!("cat '{}'", well.display());
    let exec = pb::Probe {
        kind: Some(Kind::Exec(pb::ExecProbe { command: command.clone() })),
        interval_ms: OFTEN_MS,
        timeout_ms: 60_000,
        after: 1,
    };
    agent.assign(with(world.assignment(1, "0.1.0"), &[exec], &[])).await;
    let report = agent.reports("a failed check", |it| it.failed_check.is_some()).await;
    let check = report.failed_check.unwrap();
    assert_eq!((check.asked, check.outcome), (format!("`{command}`"), "ended with exit status 1".to_owned()));
    assert!(check.body.contains("No such file"), "{}", check.body);
    fs::write(&well, "").unwrap();
    agent.runs("0.1.0").await;
    fs::remove_file(&well).unwrap();
    agent.reports("unready", |it| it.state() == pb::SlotState::Unready).await;
    agent.end().await;
}

#[tokio::test]
async fn probes_that_change_count_from_the_next_deployment() {
    let (world, server) = (World::new(), Server::new());
    server.answer("/health", 503, "");
    let agent = world.agent().await;
    agent.assign(world.assignment(1, "0.1.0")).await;
    let before = agent.runs("0.1.0").await;
    let stricter = |generation, version| {
        with(server.serves(world.assignment(generation, version)), &[http("/health", 1)], &[])
    };
    agent.assign(stricter(2, "0.1.0")).await;
    let after = agent.reports("it is told", |it| it.generation == 2).await;
    assert_eq!((after.state(), after.pid), (pb::SlotState::Stable, before.pid));
    assert_eq!(server.asked("/health"), 0);
    agent.assign(stricter(3, "0.2.0")).await;
    agent.reports("a failed check", |it| it.failed_check.is_some()).await;
    server.answer("/health", 200, "");
    agent.runs("0.2.0").await;
    agent.end().await;
}

#[tokio::test]
async fn liveness_ends_as_soon_as_nobody_asks_for_it() {
    let (world, server) = (World::new(), Server::new());
    let agent = world.agent().await;
    let assignment = |generation, live: &[pb::Probe]| {
        with(server.serves(world.assignment(generation, "0.1.0")), &[http("/ready", 1)], live)
    };
    agent.assign(assignment(1, &[http("/live", 1_000)])).await;
    agent.runs("0.1.0").await;
    asked_more(&server, "/live", 3).await;
    agent.assign(assignment(2, &[])).await;
    agent.reports("it is told", |it| it.generation == 2).await;
    let before = server.asked("/live");
    asked_more(&server, "/ready", 20).await;
    assert!(server.asked("/live") <= before + 1, "one may have been on its way");
    agent.end().await;
}

#[tokio::test]
async fn an_agent_that_begins_anew_finds_ready_what_was_and_tells_nobody_twice() {
    let (world, server) = (World::new(), Server::new());
    let agent = world.agent().await;
    agent.assign(with(server.serves(world.assignment(1, "0.1.0")), &[http("/health", 2)], &[])).await;
    let before = agent.runs("0.1.0").await;
    agent.end().await;
    let mut agent = world.agent().await;
    asked_more(&server, "/health", 5).await;
    let after = agent.report();
    assert_eq!((after.state(), after.pid), (pb::SlotState::Stable, before.pid));
    assert_eq!(told(&mut agent, "application_ready"), Vec::<String>::new());
    agent.end().await;
}

#[tokio::test]
async fn what_fails_while_no_agent_looks_is_seen_by_the_next_one() {
    let (world, server) = (World::new(), Server::new());
    let agent = world.agent().await;
    // By the default: that its first port takes connections.
    agent.assign(server.serves(world.assignment(1, "0.1.0"))).await;
    agent.runs("0.1.0").await;
    agent.end().await;
    let port = server.port;
    server.leave().await;
    let agent = world.agent().await;
    let report = agent.reports("unready", |it| it.state() == pb::SlotState::Unready).await;
    let check = report.failed_check.unwrap();
    assert_eq!(
        (check.asked, check.outcome),
        (format!("TCP on port {port}"), "found nobody listening".to_owned())
    );
    agent.end().await;
}
