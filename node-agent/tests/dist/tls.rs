//! The same over TLS: with certificates of both sides, and who is not let in or not trusted.

#![allow(clippy::expect_used, reason = "all of it is test code")]

use node_agent::dist::connection::{CallError, Lost, Settings};
use node_agent::dist::dial::{DialError, Node};
use node_agent::dist::handshake::HandshakeError;
use node_agent::dist::term::{Atom, Term};
use rustix::process::Signal;
use rustls::{CertificateError, Error};

use super::certificates::Authority;
use super::world::{PATIENCE, US, World, connect, refused, soon};

const BOTH: [&str; 2] = ["['tlsv1.2']", "['tlsv1.3']"];

async fn world(authority: &Authority, host: &str, versions: &str) -> (World, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("there is room");
    let arguments = authority.arguments(folder.path(), host, versions);
    (World::with(&arguments.each_ref().map(String::as_str)).await, folder)
}

#[tokio::test]
async fn a_node_that_speaks_tls_is_asked_as_any_other() {
    let authority = Authority::new();
    for versions in BOTH {
        let (world, _folder) = world(&authority, "127.0.0.1", versions).await;
        let node = Node { tls: Some(authority.client(&authority)), ..world.node() };
        let connection = connect(&node, US, Settings::default()).await;
        let hidden = connection.call("erlang", "nodes", vec![Term::atom("hidden")], PATIENCE).await;
        assert_eq!(hidden, Ok(Term::List(vec![Term::Atom(Atom::of(US))])));
        let copied = vec![Term::from("12345678"), Term::Integer(1 << 20)];
        let large = connection.call("binary", "copy", copied, PATIENCE).await;
        assert_eq!(large, Ok(Term::Binary(b"12345678".repeat(1 << 20).into())));
        let forever = vec![Term::atom("infinity")];
        let waiting = connection.call("timer", "sleep", forever, PATIENCE * 2);
        let killed = async {
            assert!(connection.call("erlang", "node", Vec::new(), PATIENCE).await.is_ok());
            world.vm.signal(Signal::KILL);
        };
        let (told, ()) = soon("the end", async { tokio::join!(biased; waiting, killed) }).await;
        assert_eq!(told, Err(CallError::Lost(Lost::ClosedByPeer)));
    }
}

#[tokio::test]
async fn a_wrong_cookie_over_tls_is_told_as_such() {
    let authority = Authority::new();
    for versions in BOTH {
        let (world, _folder) = world(&authority, "127.0.0.1", versions).await;
        let tls = Some(authority.client(&authority));
        let error = refused(&Node { tls, cookie: "wrong".into(), ..world.node() }).await;
        assert!(matches!(error, DialError::Handshake(HandshakeError::CookieRefused)), "{error:?}");
    }
}

fn why(error: &DialError) -> Option<&Error> {
    match error {
        DialError::Tls(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

#[tokio::test]
async fn a_node_whose_certificate_is_for_another_host_is_not_trusted() {
    let authority = Authority::new();
    let (world, _folder) = world(&authority, "127.0.0.2", BOTH[1]).await;
    let error = refused(&Node { tls: Some(authority.client(&authority)), ..world.node() }).await;
    let Some(Error::InvalidCertificate(why)) = why(&error) else { panic!("{error:?}") };
    assert!(matches!(why, CertificateError::NotValidForNameContext { .. }), "{why:?}");
}

#[tokio::test]
async fn a_certificate_that_nodes_share_is_trusted_whatever_it_is_for_and_no_other_authority_s_is() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for versions in BOTH {
        let (world, _folder) = world(&ours, "deployex", versions).await;
        let node =
            |authority: &Authority| Node { tls: Some(authority.client_for_any_host()), ..world.node() };
        let error = refused(&node(&theirs)).await;
        assert!(matches!(why(&error), Some(Error::InvalidCertificate(_))), "{error:?}");
        let connection = connect(&node(&ours), US, Settings::default()).await;
        assert!(connection.call("erlang", "node", Vec::new(), PATIENCE).await.is_ok());
    }
}

#[tokio::test]
async fn a_node_of_another_authority_is_not_trusted() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (world, _folder) = world(&theirs, "127.0.0.1", BOTH[0]).await;
    let error = refused(&Node { tls: Some(ours.client(&theirs)), ..world.node() }).await;
    assert!(matches!(why(&error), Some(Error::InvalidCertificate(_))), "{error:?}");
}

#[tokio::test]
async fn a_node_that_does_not_trust_our_certificate_is_told_as_such() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for versions in BOTH {
        let (world, _folder) = world(&theirs, "127.0.0.1", versions).await;
        let error = refused(&Node { tls: Some(theirs.client(&ours)), ..world.node() }).await;
        assert!(matches!(error, DialError::Tls(_)), "{error:?}");
    }
}

#[tokio::test]
async fn one_of_two_that_speaks_tls_alone_is_told_as_such() {
    let authority = Authority::new();
    let plain = World::new().await;
    let error = refused(&Node { tls: Some(authority.client(&authority)), ..plain.node() }).await;
    assert!(matches!(error, DialError::Tls(_)), "{error:?}");
    let (world, _folder) = world(&authority, "127.0.0.1", BOTH[1]).await;
    // It says so in a language that is none of ours, and closes.
    let error = refused(&world.node()).await;
    assert!(
        matches!(error, DialError::Handshake(HandshakeError::Malformed(_) | HandshakeError::Closed(_))),
        "{error:?}"
    );
}
