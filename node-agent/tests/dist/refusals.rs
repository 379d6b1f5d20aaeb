//! Why there is no connection: each reason is told apart.

use std::time::Duration;

use node_agent::dist::connection::Settings;
use node_agent::dist::dial::{DialError, Node, dial};
use node_agent::dist::epmd::{EpmdError, port_of};
use node_agent::dist::handshake::HandshakeError;
use node_agent::dist::term::{Atom, Term};
use rustix::process::Signal;

use super::world::{PATIENCE, US, World, all_knowing, free, refused, us};

#[tokio::test]
async fn a_wrong_cookie_is_told_as_such() {
    let world = World::new().await;
    let error = refused(&Node { cookie: "wrong".into(), ..world.node() }).await;
    assert!(matches!(error, DialError::Handshake(HandshakeError::CookieRefused)), "{error:?}");
    assert_eq!(error.to_string(), "the node does not accept the cookie");
    world.connect().await;
}

#[tokio::test]
async fn a_node_that_its_name_server_does_not_know_is_told_as_such() {
    let world = World::new().await;
    for name in ["other@127.0.0.1", "other"] {
        let error = refused(&Node { name: Atom::of(name), ..world.node() }).await;
        assert!(matches!(error, DialError::Epmd(EpmdError::Unknown { .. })), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn a_name_server_that_is_gone_is_told_as_such_and_who_is_connected_stays_so() {
    let mut world = World::new().await;
    let connection = world.connect().await;
    world.epmd.program.kill();
    let error = refused(&world.node()).await;
    assert!(matches!(error, DialError::Epmd(EpmdError::Unreachable { .. })), "{error:?}");
    assert!(connection.call("erlang", "node", Vec::new(), PATIENCE).await.is_ok());
}

#[tokio::test]
async fn a_node_that_listens_no_more_refuses() {
    let epmd = all_knowing(free().port()).await;
    let node = Node { name: Atom::of("shop@127.0.0.1"), epmd, cookie: "any".into(), tls: None };
    let error = refused(&node).await;
    assert!(matches!(error, DialError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_node_that_took_the_port_of_another_is_not_taken_for_it() {
    let world = World::new().await;
    let port = port_of(world.epmd.address, "shop").await.unwrap();
    let epmd = all_knowing(port).await;
    let error = refused(&Node { name: Atom::of("till@127.0.0.1"), epmd, ..world.node() }).await;
    let DialError::Handshake(HandshakeError::OtherNode { wanted, found }) = error else {
        panic!("{error:?}")
    };
    assert_eq!((wanted.as_str(), found.as_str()), ("till@127.0.0.1", "shop@127.0.0.1"));
}

#[tokio::test]
async fn a_node_that_is_frozen_is_given_up_in_time() {
    let world = World::new().await;
    world.vm.signal(Signal::STOP);
    let patience = Duration::from_secs(1);
    let dialled = dial(&world.node(), &us(US), patience).await.map(|_| ());
    assert!(matches!(dialled, Err(DialError::TimedOut(it)) if it == patience), "{dialled:?}");
    // What it makes of us once it is thawed is for it to say; we come in then.
    world.vm.signal(Signal::CONT);
    world.connect().await;
}

#[tokio::test]
async fn a_node_that_lets_in_none_but_its_own_is_told_as_such() {
    let world = World::new().await;
    let connection = world.connect_as("friend@127.0.0.1", Settings::default()).await;
    let friends = Term::List(vec![Term::atom("friend@127.0.0.1")]);
    assert_eq!(connection.call("net_kernel", "allow", vec![friends], PATIENCE).await, Ok(Term::atom("ok")));
    let error = refused(&world.node()).await;
    assert!(matches!(error, DialError::Handshake(HandshakeError::NotAllowed(..))), "{error:?}");
}
