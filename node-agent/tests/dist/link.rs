//! A link is there again whenever it can be, and says why not where it cannot.

#![allow(clippy::expect_used, clippy::panic, reason = "all of it is test code")]

use std::time::Duration;

use node_agent::dist::connection::{Connection, Settings};
use node_agent::dist::dial::Node;
use node_agent::dist::link::{Kind, Link, Standing};
use node_agent::dist::term::{Atom, Term};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::world::{PATIENCE, US, World, eventually, soon, us};

struct Linked {
    standing: watch::Receiver<Standing>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

fn link(node: Node, settings: Settings) -> Linked {
    let (said, standing) = watch::channel(Standing::default());
    let cancel = CancellationToken::new();
    let task = TaskTracker::new()
        .spawn(Link { node, local: us(US), settings, credentials: None }.run(said, cancel.clone()));
    Linked { standing, cancel, task }
}

impl Linked {
    async fn connected(&mut self) -> Connection {
        let connected = self.standing.wait_for(|it| matches!(it, Standing::Connected { .. }));
        match &*soon("a connection", connected).await.expect("it runs") {
            Standing::Connected { connection, .. } => connection.for_another(),
            other => panic!("{other:?}"),
        }
    }

    async fn without(&mut self, kind: Kind) {
        let without = |it: &Standing| matches!(it, Standing::Without(reason) if reason.kind() == kind);
        soon(&format!("{kind:?}"), self.standing.wait_for(without)).await.expect("it runs");
    }
}

async fn assert_answers(connection: &Connection) {
    let node = connection.call("erlang", "node", Vec::new(), PATIENCE).await;
    assert_eq!(node, Ok(Term::atom("shop@127.0.0.1")));
}

#[tokio::test]
async fn a_node_that_comes_back_is_connected_again() {
    let mut world = World::new().await;
    let mut link = link(world.node(), Settings::default());
    for _ in 0..3 {
        assert_answers(&link.connected().await).await;
        world.vm.kill();
        // Its name server forgets it as it dies.
        link.without(Kind::Epmd).await;
        world.boot_again().await;
    }
    assert_answers(&link.connected().await).await;
}

#[tokio::test]
async fn a_node_that_is_frozen_is_connected_again_once_it_is_thawed() {
    let world = World::with(&["-kernel", "net_ticktime", "4"]).await;
    let mut link = link(world.node(), Settings { silence: Duration::from_secs(5), ..Settings::default() });
    link.connected().await;
    world.vm.signal(Signal::STOP);
    link.without(Kind::Silent).await;
    world.vm.signal(Signal::CONT);
    assert_answers(&link.connected().await).await;
}

#[tokio::test]
async fn whoever_holds_our_name_is_waited_for() {
    let world = World::new().await;
    let other = world.connect().await;
    let mut link = link(world.node(), Settings::default());
    link.without(Kind::NameClash).await;
    assert_answers(&other).await;
    drop(other);
    assert_answers(&link.connected().await).await;
}

#[tokio::test]
async fn a_cookie_that_is_wrong_is_said_as_long_as_it_is() {
    let world = World::new().await;
    let mut link = link(Node { cookie: "wrong".into(), ..world.node() }, Settings::default());
    link.without(Kind::Cookie).await;
    let right = world.connect_as("friend@127.0.0.1", Settings::default()).await;
    let cookie = vec![Term::Atom(Atom::of(US)), Term::atom("wrong")];
    assert_eq!(right.call("erlang", "set_cookie", cookie, PATIENCE).await, Ok(Term::atom("true")));
    assert_answers(&link.connected().await).await;
}

#[tokio::test]
async fn a_link_that_is_cancelled_leaves_the_node() {
    let world = World::new().await;
    let mut link = link(world.node(), Settings::default());
    let connection = link.connected().await;
    link.cancel.cancel();
    soon("the end of its task", link.task).await.expect("it does not panic");
    assert!(connection.call("erlang", "node", Vec::new(), PATIENCE).await.is_err());
    let watcher = world.connect_as("watcher@127.0.0.1", Settings::default()).await;
    eventually("our end", async || {
        let hidden = watcher.call("erlang", "nodes", vec![Term::atom("hidden")], PATIENCE).await;
        (hidden == Ok(Term::List(vec![Term::atom("watcher@127.0.0.1")]))).then_some(())
    })
    .await;
}
