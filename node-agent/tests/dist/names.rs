//! What a node knows of us: a hidden node, one at a time, under one name for good.

use node_agent::dist::connection::Settings;
use node_agent::dist::dial::{DialError, dial};
use node_agent::dist::handshake::HandshakeError;
use node_agent::dist::term::{Atom, Term};

use super::world::{PATIENCE, US, World, eventually, us};

#[tokio::test]
async fn we_are_hidden() {
    let world = World::new().await;
    let connection = world.connect().await;
    let us = Term::List(vec![Term::Atom(Atom::of(US))]);
    let nodes = async |kind| connection.call("erlang", "nodes", vec![kind], PATIENCE).await;
    assert_eq!(connection.call("erlang", "nodes", Vec::new(), PATIENCE).await, Ok(Term::default()));
    assert_eq!(nodes(Term::atom("visible")).await, Ok(Term::default()));
    assert_eq!(nodes(Term::atom("hidden")).await, Ok(us));
}

#[tokio::test]
async fn a_second_of_our_name_is_told_so_and_the_first_lives_on() {
    let world = World::new().await;
    let first = world.connect().await;
    for _ in 0..3 {
        let second = dial(&world.node(), &us(US), PATIENCE).await.map(|_| ());
        let Err(DialError::Handshake(HandshakeError::NameTaken(name))) = second else { panic!("{second:?}") };
        assert_eq!(name, Atom::of(US));
        assert!(first.call("erlang", "node", Vec::new(), PATIENCE).await.is_ok());
    }
    // Two of different names are no trouble.
    let other = world.connect_as("other@127.0.0.1", Settings::default()).await;
    assert!(other.call("erlang", "node", Vec::new(), PATIENCE).await.is_ok());
}

#[tokio::test]
async fn coming_back_fifty_times_leaves_one_name_behind() {
    let world = World::new().await;
    let count = async || {
        let connection = world.connect().await;
        let asked = vec![Term::atom("atom_count")];
        connection.call("erlang", "system_info", asked, PATIENCE).await.unwrap().as_u64().unwrap()
    };
    world.connect_booted().await;
    count().await;
    let before = count().await;
    let mut after = before;
    for _ in 0..50 {
        after = count().await;
    }
    assert!(after - before < 10, "{before} atoms became {after}");
    // And nobody is left behind there.
    let watcher = world.connect_as("watcher@127.0.0.1", Settings::default()).await;
    eventually("our end", async || {
        let hidden = watcher.call("erlang", "nodes", vec![Term::atom("hidden")], PATIENCE).await.unwrap();
        (hidden == Term::List(vec![Term::atom("watcher@127.0.0.1")])).then_some(())
    })
    .await;
}
