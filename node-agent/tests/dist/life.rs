//! How a connection is kept up, and how its end is noticed.

use std::time::Duration;

use futures_util::future::join_all;
use node_agent::dist::connection::{CallError, Connection, Lost, Settings};
use node_agent::dist::dial::dial;
use node_agent::dist::term::{Atom, Term};
use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;

use super::world::{PATIENCE, US, World, soon, us, value};

/// Ask, and get no answer.
async fn assert_all_told(connection: &Connection, end: impl FnOnce(), why: Lost) {
    let waiting = join_all((0..10).map(|_| {
        let forever = vec![Term::atom("infinity")];
        connection.call("timer", "sleep", forever, PATIENCE * 2)
    }));
    let ended = async {
        // They are under way before this is, and it is answered after them.
        value(connection, "ok.").await;
        end();
        connection.lost().await
    };
    let (told, lost) = soon("the end", async { tokio::join!(biased; waiting, ended) }).await;
    assert_eq!(lost, why);
    assert_eq!(told, vec![Err(CallError::Lost(why.clone())); 10]);
    let later = connection.call("erlang", "node", Vec::new(), PATIENCE).await;
    assert_eq!(later, Err(CallError::Lost(why)));
}

#[tokio::test]
async fn the_death_of_a_node_is_told_to_all_who_wait() {
    let world = World::new().await;
    let connection = world.connect().await;
    assert_all_told(&connection, || world.vm.signal(Signal::KILL), Lost::ClosedByPeer).await;
}

#[tokio::test]
async fn a_node_that_is_frozen_is_gone_after_the_silence_that_is_allowed() {
    let world = World::with(&["-kernel", "net_ticktime", "4"]).await;
    let silence = Duration::from_secs(5);
    let connection = world.connect_as(US, Settings { silence, ..Settings::default() }).await;
    assert_all_told(&connection, || world.vm.signal(Signal::STOP), Lost::Silent(silence)).await;
}

/// It shows its life every fifteen seconds by itself, which is what we allow in others.
#[tokio::test]
async fn a_node_that_shows_its_life_more_rarely_than_we_allow_is_asked_and_kept() {
    let world = World::new().await;
    let silence = Duration::from_secs(1);
    let settings = Settings { silence, ..Settings::default() };
    let connection = world.connect_as("impatient@127.0.0.1", settings).await;
    let atoms = async || {
        let asked = vec![Term::atom("atom_count")];
        connection.call("erlang", "system_info", asked, PATIENCE).await.unwrap()
    };
    drop(world.connect_booted().await);
    let sleep = async |millis| {
        let slept = connection.call("timer", "sleep", vec![Term::Integer(millis)], PATIENCE).await;
        assert_eq!(slept, Ok(Term::atom("ok")));
    };
    // What the node loads for it has names of its own.
    sleep(1).await;
    let before = atoms().await;
    sleep(4_000).await;
    // It was asked some four times, of a name that it has.
    assert_eq!(atoms().await, before);
}

/// A connection that shows no life is what tells how much time has passed for the node.
#[tokio::test]
async fn an_idle_connection_stays_up_where_the_node_closes_one_that_shows_no_life() {
    let world = World::with(&["-kernel", "net_ticktime", "4"]).await;
    let idle = world.connect().await;
    for name in ["mute@127.0.0.1", "mum@127.0.0.1"] {
        let (mut mute, _) = dial(&world.node(), &us(name), PATIENCE).await.unwrap();
        let mut ticks = [0; 64];
        soon("the end of the one that shows no life", async {
            while mute.read(&mut ticks).await.is_ok_and(|it| it > 0) {}
        })
        .await;
    }
    let hidden = idle.call("erlang", "nodes", vec![Term::atom("hidden")], PATIENCE).await;
    assert_eq!(hidden, Ok(Term::List(vec![Term::Atom(Atom::of(US))])));
}
