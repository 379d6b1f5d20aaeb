//! What a host lacks: a folder that can be written, file descriptors, a port of its own, Erlang. What runs goes on, the reason
//! and what to do are said, and when it is there again so is the replica, by itself.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use proto::pb;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::world::{World, eventually, kill};

#[tokio::test]
async fn as_root_a_folder_that_is_read_only_stops_nothing_and_is_used_when_it_is_not() {
    let world = World::new();
    let agent = world.agent().await;
    agent.assign(world.assignment(1, "0.1.0")).await;
    let before = agent.runs("0.1.0").await;

    let read_only = world.read_only();
    let said = |it: &pb::SlotReport| it.fault.contains("Read-only file system");
    agent.assign(world.assignment(2, "0.2.0")).await;
    let refused = agent.reports("the fault", said).await;
    assert!(refused.fault.contains("mount it for writing again"), "{}", refused.fault);
    assert_eq!((refused.pid, refused.state(), agent.generation()), (before.pid, pb::SlotState::Stable, 1));
    agent.end().await;

    let agent = world.agent().await;
    let taken_up = agent.reports("what runs taken up", |it| it.pid == before.pid && said(it)).await;
    assert_eq!(taken_up.crash_restarts, 0);
    kill(before.pid);
    let down = agent.reports("that it cannot start", |it| it.pid == 0 && said(it)).await;
    assert!(down.next_start_in_ms > 0, "{down:#?}");

    drop(read_only);
    let after = agent.reports("the restart", |it| it.pid != 0 && it.fault.is_empty()).await;
    assert_eq!(after.crash_restarts, 1);
    agent.assign(world.assignment(2, "0.2.0")).await;
    agent.runs("0.2.0").await;
    assert_eq!(world.living(), 1);
    agent.end().await;
}

/// No file is opened in this process for as long as it lives; those that are open stay so.
struct NoFiles(Rlimit);

impl NoFiles {
    fn from_now_on() -> Self {
        let before = getrlimit(Resource::Nofile);
        // As many as every process has from its beginning.
        setrlimit(Resource::Nofile, Rlimit { current: Some(3), maximum: before.maximum }).unwrap();
        Self(before)
    }
}

impl Drop for NoFiles {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).unwrap();
    }
}

#[tokio::test]
async fn an_agent_without_file_descriptors_says_so_and_goes_on_when_it_has_some() {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let world = World::new();
    let agent = world.agent().await;
    agent.assign(world.listening(1, "0.1.0", port)).await;
    let before = agent.runs("0.1.0-listens").await;

    let no_files = NoFiles::from_now_on();
    agent.assign(world.listening(2, "0.2.0", port)).await;
    let refused = agent.reports("the fault", |it| it.fault.contains("Too many open files")).await;
    assert!(refused.fault.contains("no file descriptor left of 3, raise LimitNOFILE"), "{}", refused.fault);
    assert_eq!((refused.pid, refused.state()), (before.pid, pb::SlotState::Stable));
    kill(before.pid);
    let waits = |it: &pb::SlotReport| it.state() == pb::SlotState::BackingOff && it.next_start_in_ms > 0;
    let down =
        agent.reports("that it cannot start", |it| waits(it) && it.fault.contains("cannot open")).await;
    assert_eq!((down.crash_restarts, down.pid), (1, 0));

    drop(no_files);
    let after = agent.runs("0.2.0-listens").await;
    assert_eq!((after.crash_restarts, after.fault.as_str()), (1, ""));
    assert_eq!(agent.generation(), 2);
    agent.end().await;
}

/// A program that listens, without ever taking a connection, until its input ends.
fn stranger() -> (Child, u16) {
    let listening = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listening.local_addr().unwrap().port();
    let mut cat = Command::new("cat");
    cat.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(OwnedFd::from(listening));
    (cat.spawn().unwrap(), port)
}

#[tokio::test]
async fn a_port_that_a_stranger_holds_is_named_and_is_not_taken_for_the_replicas() {
    let (mut stranger, port) = stranger();
    let world = World::new();
    let mut agent = world.agent().await;
    agent.assign(world.listening(1, "0.1.0", port)).await;
    let held = agent.reports("who holds the port", |it| it.fault.contains("is held by")).await;
    let who = format!("port {port} is held by cat (pid {}), which is not this replica", stranger.id());
    assert!(held.fault.contains(&who), "{}", held.fault);
    let again = agent.reports("that it ended for that", |it| it.crash_restarts > 1).await;
    assert!(again.fault.contains(&who), "{}", again.fault);
    let told: Vec<_> = std::iter::from_fn(|| agent.events.try_recv().ok()).map(|it| it.kind).collect();
    assert_eq!(told.iter().filter(|kind| *kind == "port_failed").count(), 1, "{told:?}");
    assert!(!told.contains(&"application_ready".to_owned()), "the stranger answered its check: {told:?}");

    drop(stranger.stdin.take());
    stranger.wait().unwrap();
    let after = agent.runs("0.1.0-listens").await;
    assert_eq!(after.fault, "");
    agent.end().await;
}

#[tokio::test]
async fn a_shipment_waits_for_erlang_and_starts_when_it_was_installed() {
    let world = World::new();
    let bin = world.path("bin");
    fs::create_dir(&bin).unwrap();
    let agent = world.agent().await;
    agent.assign(world.shipment(1, "0.1.0", &bin)).await;
    let waits = agent.reports("what is missing", |it| it.fault.contains("no `erl` in")).await;
    assert!(waits.fault.contains(&bin.display().to_string()), "{}", waits.fault);
    assert!(waits.fault.contains("apt-get install erlang-base"), "{}", waits.fault);

    let erl = bin.join("erl");
    fs::write(bin.join("new"), "#!/bin/sh\necho 0.1.0 $$ >> \"$STARTS\"\nexec /bin/sleep 1000\n").unwrap();
    fs::set_permissions(bin.join("new"), Permissions::from_mode(0o755)).unwrap();
    fs::rename(bin.join("new"), &erl).unwrap();
    let after = agent.runs("0.1.0").await;
    assert_eq!((after.fault.as_str(), after.crash_restarts), ("", 0));
    eventually("one start", || (world.starts().len() == 1).then_some(())).await;
    agent.end().await;
}
