//! Hot upgrades of real releases: what runs changes while it serves, or stays what it was.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

mod again;
mod back;
mod configuration;
mod laid;
mod libraries;
mod refusals;
mod replica;
mod tidy;

use std::net::SocketAddr;

use node_agent::dist::term::Term;
use node_agent::hot::{self, Status};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use xtask::fixtures::Sample;

use self::replica::{Replica, assert_same, get, is_linked, tree};
use super::world::value;

/// Asks for the next number again and again; all of them.
async fn ask_for_numbers(address: SocketAddr, until: CancellationToken) -> Vec<u64> {
    let mut numbers = Vec::new();
    while !until.is_cancelled() {
        let body = get(address, "/count").await.unwrap_or_else(|error| panic!("a request failed: {error}"));
        numbers.push(body.trim().parse().unwrap());
    }
    numbers
}

async fn upgrades_under_load(sample: Sample) {
    let mut replica = Replica::start(sample, "1.1.0").await;
    let pid = replica.vm.id();
    let done = CancellationToken::new();
    let tasks = TaskTracker::new();
    let load = [(); 2].map(|()| tasks.spawn(ask_for_numbers(replica.address, done.clone())));
    let connection = replica.connect().await;
    for (from, to) in [("1.1.0", "1.2.0"), ("1.2.0", "1.3.0")] {
        replica.bring(to).await;
        let incoming = tree(&replica.incoming(""));
        let site = replica.site(from, to);
        replica.install(&connection, &site).await.unwrap();
        replica.serves(to).await;
        let standing = hot::standing(&connection, &site).await.unwrap();
        assert_eq!(standing.permanent.as_deref(), Some(from), "a crash starts what ran before");
        assert_eq!((standing.current.as_str(), standing.to), (to, Some(Status::Current)));
        hot::permanent(&connection, &site).await.unwrap();
        let standing = hot::standing(&connection, &site).await.unwrap();
        assert_eq!((standing.permanent.as_deref(), standing.to), (Some(to), Some(Status::Permanent)));
        assert_eq!(hot::pending(&site.root).unwrap().map(|it| it.to), Some(to.to_owned()));
        hot::settle(&site).await.unwrap();
        assert_eq!(hot::pending(&site.root).unwrap(), None);
        assert_same(&incoming, &tree(&replica.incoming("")));
        let module = if sample == Sample::Erlang { "erlang_demo_page" } else { "Elixir.ElixirDemo.Page" };
        let code = format!("lib/{sample}-{to}/ebin/{module}.beam");
        assert!(is_linked(&replica.root(&code), &replica.incoming(&code)), "{code} is not shared");
    }
    done.cancel();
    let mut all = Vec::new();
    for asker in load {
        let numbers = asker.await.unwrap();
        assert!(numbers.is_sorted() && numbers.len() > 100, "{} requests", numbers.len());
        all.extend(numbers);
    }
    all.sort_unstable();
    let expected: Vec<u64> = (1..=all.len() as u64).collect();
    assert!(all == expected, "a number was lost or given twice");
    assert_eq!(replica.vm.id(), pid);
    assert!(!replica.vm.has_ended());
    drop(connection);

    replica.start_again();
    replica.serves("1.3.0").await;
    let port = replica.get("/status").await.unwrap();
    assert!(port.contains(&format!("port={}", replica.address.port())), "{port}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elixir_is_upgraded_twice_under_load_without_a_failed_request() {
    upgrades_under_load(Sample::Elixir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erlang_is_upgraded_twice_under_load_without_a_failed_request() {
    upgrades_under_load(Sample::Erlang).await;
}

#[tokio::test]
async fn elixirs_protocols_are_those_of_the_new_release() {
    let replica = Replica::start(Sample::Elixir, "1.1.0").await;
    let connection = replica.connect().await;
    // One that is loaded, and another one of the same name in the new release.
    let compile = "[One, Two] = [begin
            Texts = [\"-module('Elixir.Drawn').\", \"-export([by/0]).\", \"by() -> \" ++ By ++ \".\"],
            Forms = [begin {ok, T, _} = erl_scan:string(S), {ok, F} = erl_parse:parse_form(T), F end || S <- Texts],
            {ok, _, Beam} = compile:forms(Forms), Beam end || By <- [\"one\", \"two\"]],
        {module, _} = code:load_binary('Elixir.Drawn', \"one\", One), Two.";
    let Term::Binary(beam) = value(&connection, compile).await else { panic!("no module") };
    replica.bring("1.2.0").await;
    std::fs::write(replica.incoming("releases/1.2.0/consolidated/Elixir.Drawn.beam"), beam).unwrap();
    replica.install(&connection, &replica.site("1.1.0", "1.2.0")).await.unwrap();
    assert_eq!(value(&connection, "'Elixir.Drawn':by().").await, Term::atom("two"));
    let paths =
        value(&connection, "[It || It <- code:get_path(), filename:basename(It) =:= \"consolidated\"].")
            .await;
    let paths: Vec<_> = paths.as_list().unwrap().iter().map(|it| it.as_text().unwrap()).collect();
    assert_eq!(paths.len(), 1);
    assert!(paths[0].ends_with("releases/1.2.0/consolidated"), "{paths:?}");
}
