//! The second connection: releases and streams.

use bytes::Bytes;
use control_plane::agents::OpenStreamError;
use futures_util::TryStreamExt as _;
use node_agent::releases::{FetchError, StageError, Store, Wanted};
use proto::archive::hostile::samples;
use proto::ids::{Digest, ReleaseKey};
use proto::pb;
use proto::pb::open_stream::Kind;
use proto::state::Language;
use sha2::{Digest as _, Sha256};

use crate::fleet::{Agent, ControlPlane, PATIENCE, app, release, until};

fn tarball() -> Bytes {
    (0..3_000_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

async fn fetch(agent: &Agent, offset: u64) -> Result<Vec<u8>, FetchError> {
    let chunks = agent.fetch.open(&app(), &release(), offset).await?;
    chunks
        .try_fold(Vec::new(), |mut all, chunk| async move {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
}

#[tokio::test]
async fn a_release_is_fetched_whole_and_from_where_it_was_cut() {
    let plane = ControlPlane::start().await;
    plane.wishes.assign(1);
    let agent = plane.agent("web-1").await;
    assert!(matches!(fetch(&agent, 0).await, Err(FetchError::Gone)));
    *plane.wishes.tarball.lock().unwrap() = tarball();
    assert!(fetch(&agent, 0).await.unwrap() == tarball());
    assert!(fetch(&agent, 1_234_567).await.unwrap() == tarball()[1_234_567..]);
    assert!(fetch(&agent, 3_000_000).await.unwrap().is_empty());
}

/// The agent's second connection went with the control plane before, which nobody noticed.
#[tokio::test]
async fn a_release_is_fetched_at_once_after_a_restart_of_the_control_plane() {
    let mut plane = ControlPlane::start().await;
    plane.wishes.assign(1);
    *plane.wishes.tarball.lock().unwrap() = tarball();
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    for _ in 0..2 {
        assert!(fetch(&agent, 0).await.unwrap() == tarball());
        plane.kill().await;
        plane.start_again().await;
        plane.up(agent.node).await;
    }
}

#[tokio::test]
async fn a_node_may_fetch_only_what_it_is_to_run() {
    let plane = ControlPlane::start().await;
    *plane.wishes.tarball.lock().unwrap() = tarball();
    let agent = plane.agent("web-1").await;
    let error = fetch(&agent, 0).await.unwrap_err();
    assert!(matches!(error, FetchError::Interrupted(_)), "{error:?}");
}

#[tokio::test]
async fn a_hostile_release_that_the_control_plane_let_through_is_refused_by_the_host() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    let store = Store::open(agent.folder.path().join("releases")).await.unwrap();
    for (nth, sample) in (1..).zip(samples()) {
        let sha256 = Digest(Sha256::digest(&sample.archive).into());
        let key = ReleaseKey { version: "1.0.0".parse().unwrap(), sha256 };
        plane.wishes.assign_release(nth, &key);
        let size = sample.archive.len() as u64;
        *plane.wishes.tarball.lock().unwrap() = sample.archive.into();
        let wanted = Wanted { app: app(), language: Language::Elixir, key, size };
        let error = store.ensure(&wanted, agent.fetch.as_ref(), |_| {}).await.expect_err(sample.name);
        // The relay has no tarball without a byte; the host knows it as well.
        let is_named = matches!(&error, StageError::Archive(_)) || size == 0;
        assert!(is_named, "{}: {error:?}", sample.name);
    }
    let kept: Vec<_> = std::fs::read_dir(agent.folder.path().join("releases").join(app().as_str()))
        .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect())
        .unwrap_or_default();
    assert!(kept.is_empty(), "something of them was kept: {kept:?}");
}

#[tokio::test]
async fn a_fetch_outlives_a_control_plane_that_was_killed_before() {
    let mut plane = ControlPlane::start().await;
    plane.wishes.assign(1);
    *plane.wishes.tarball.lock().unwrap() = tarball();
    let agent = plane.agent("web-1").await;
    fetch(&agent, 0).await.unwrap();
    plane.kill().await;
    plane.start_again().await;
    plane.up(agent.node).await;
    // The first call may find the old connection dead; the next dials.
    let mut fetched = fetch(&agent, 0).await;
    if fetched.is_err() {
        fetched = fetch(&agent, 0).await;
    }
    assert!(fetched.unwrap() == tarball());
}

fn wish(follow: bool) -> Kind {
    let stream = pb::LogStream::Stdout.into();
    Kind::FollowLog(pb::FollowLog { app: app().to_string(), slot: 1, stream, last_lines: 10, follow })
}

fn write_log(agent: &Agent, text: &str) {
    use std::io::Write as _;
    let folder = agent.folder.path().join("log/shop");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("shop-1-stdout.log");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[tokio::test]
async fn a_log_is_read_to_its_end() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    let line = "a line of a log that is longer than one chunk when it is repeated\n";
    write_log(&agent, &line.repeat(8));
    let mut stream = plane.agents.open_stream(agent.node, wish(false)).await.unwrap();
    let mut read = Vec::new();
    while let Some(chunk) = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap() {
        read.extend_from_slice(&chunk.unwrap().data);
    }
    assert_eq!(String::from_utf8(read).unwrap(), line.repeat(8));
}

#[tokio::test]
async fn a_followed_log_flows_until_the_reader_goes_and_then_the_agent_stops_reading() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    write_log(&agent, "one\n");
    let mut stream = plane.agents.open_stream(agent.node, wish(true)).await.unwrap();
    let next = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(next.data, "one\n");
    write_log(&agent, "two\n");
    let next = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(next.data, "two\n");
    let log = agent.folder.path().join("log/shop/shop-1-stdout.log").canonicalize().unwrap();
    assert!(is_open(&log));
    drop(stream);
    until("the agent closes the file", || !is_open(&log)).await;
}

fn is_open(path: &std::path::Path) -> bool {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|target| target == path))
}

#[tokio::test]
async fn when_the_agent_goes_its_readers_are_told() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    write_log(&agent, "one\n");
    let mut stream = plane.agents.open_stream(agent.node, wish(true)).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    plane.agents.cut(agent.node);
    let end = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap();
    assert!(end.is_none_or(|end| end.is_err()));
}

#[tokio::test]
async fn what_an_agent_cannot_stream_is_refused_with_a_reason() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    let bad = Kind::FollowLog(pb::FollowLog { app: "../etc".to_owned(), slot: 1, ..Default::default() });
    let error = plane.agents.open_stream(agent.node, bad).await.err().unwrap();
    assert!(
        matches!(&error, OpenStreamError::Refused(why) if why.contains("application's name")),
        "{error:?}"
    );
    let nobody = proto::ids::NodeId(uuid::Uuid::now_v7());
    let error = plane.agents.open_stream(nobody, wish(true)).await.err().unwrap();
    assert!(matches!(error, OpenStreamError::NotConnected));
}
