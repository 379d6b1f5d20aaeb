//! Steps that are repeated, broken off or taken back, and an install that fails half way.

use std::fs;
use std::time::Duration;

use node_agent::hot::{self, Status};
use tokio::time::timeout;
use xtask::fixtures::Sample;

use super::replica::{Replica, assert_same, tree};
use crate::dist::world::value;

async fn each_step_twice(sample: Sample) {
    let replica = Replica::start(sample, "1.1.0").await;
    assert_eq!(replica.count().await, 1);
    replica.bring("1.2.0").await;
    let site = replica.site("1.1.0", "1.2.0");
    // Each time as another agent.
    for _ in 0..2 {
        hot::lay(&site).await.unwrap();
    }
    for _ in 0..2 {
        hot::unpack(&replica.connect().await, &site).await.unwrap();
    }
    for _ in 0..2 {
        hot::relup(&replica.connect().await, &site).await.unwrap();
    }
    for _ in 0..2 {
        hot::check(&replica.connect().await, &site).await.unwrap();
    }
    for _ in 0..2 {
        hot::configure(&replica.connect().await, &site).await.unwrap();
    }
    // Broken off at whatever point it was.
    for patience in [0, 1, 3, 9] {
        let connection = replica.connect().await;
        let _ = timeout(Duration::from_millis(patience), hot::install(&connection, &site)).await;
    }
    for _ in 0..2 {
        hot::install(&replica.connect().await, &site).await.unwrap();
    }
    let connection = replica.connect().await;
    // What comes before has nothing to do any more.
    hot::unpack(&connection, &site).await.unwrap();
    hot::relup(&connection, &site).await.unwrap();
    hot::check(&connection, &site).await.unwrap();
    hot::configure(&connection, &site).await.unwrap();
    assert_eq!(replica.count().await, 2);
    for _ in 0..2 {
        hot::permanent(&connection, &site).await.unwrap();
    }
    let fault = hot::undo(Some(&connection), &site.root).await.unwrap_err();
    assert!(fault.to_string().contains("installed"), "{fault}");
    for _ in 0..2 {
        hot::settle(&site).await.unwrap();
    }
    assert_eq!(hot::standing(&connection, &site).await.unwrap().to, Some(Status::Permanent));
    assert_eq!(replica.get("/version").await.unwrap().trim(), "1.2.0");
}

#[tokio::test]
async fn each_step_of_elixirs_may_be_repeated() {
    each_step_twice(Sample::Elixir).await;
}

#[tokio::test]
async fn each_step_of_erlangs_may_be_repeated() {
    each_step_twice(Sample::Erlang).await;
}

async fn taken_back(sample: Sample) {
    let mut replica = Replica::start(sample, "1.1.0").await;
    let connection = replica.connect().await;
    let terms = "length([It || {{deployex_hot_upgrade, _}, _} = It <- persistent_term:get()]).";
    replica.bring("1.2.0").await;
    // Files beside its code.
    fs::write(replica.root("VERSION"), "1.1.0").unwrap();
    fs::write(replica.incoming("VERSION"), "1.2.0").unwrap();
    fs::create_dir(replica.incoming("etc")).unwrap();
    fs::write(replica.incoming("etc/new"), "").unwrap();
    let (site, before) = (replica.site("1.1.0", "1.2.0"), tree(&replica.root("")));
    replica.prepare(&connection, &site).await.unwrap();
    assert_eq!(fs::read_to_string(replica.root("VERSION")).unwrap(), "1.2.0");
    assert!(replica.root("etc/new").exists());
    assert_eq!(value(&connection, terms).await.as_u64(), Some(u64::from(sample == Sample::Elixir)));
    for _ in 0..2 {
        hot::undo(Some(&connection), &site.root).await.unwrap();
    }
    assert_same(&before, &tree(&replica.root("")));
    assert_eq!(value(&connection, terms).await.as_u64(), Some(0));
    assert_eq!(hot::standing(&connection, &site).await.unwrap().to, None);

    // With nobody there to ask.
    replica.prepare(&connection, &site).await.unwrap();
    drop(connection);
    replica.vm.kill();
    hot::undo(None, &site.root).await.unwrap();
    assert_same(&before, &tree(&replica.root("")));
    replica.start_again();
    replica.serves("1.1.0").await;

    // A node that lost what was resolved resolves it again.
    let connection = replica.connect().await;
    replica.prepare(&connection, &site).await.unwrap();
    drop(connection);
    replica.start_again();
    replica.serves("1.1.0").await;
    let connection = replica.connect().await;
    hot::install(&connection, &site).await.unwrap();
    replica.serves("1.2.0").await;
    let status = replica.get("/status").await.unwrap();
    assert!(status.contains(&format!("port={}", replica.address.port())), "{status}");
}

#[tokio::test]
async fn an_upgrade_of_elixir_that_is_undone_leaves_nothing_and_can_begin_again() {
    taken_back(Sample::Elixir).await;
}

#[tokio::test]
async fn an_upgrade_of_erlang_that_is_undone_leaves_nothing_and_can_begin_again() {
    taken_back(Sample::Erlang).await;
}

async fn a_crash_in_code_change(sample: Sample) {
    let replica = Replica::start(sample, "1.1.0").await;
    let pid = replica.vm.id();
    let connection = replica.connect().await;
    replica.bring("1.2.0-unchangeable").await;
    let (site, before) = (replica.site("1.1.0", "1.2.0-unchangeable"), tree(&replica.root("")));
    assert_eq!(replica.count().await, 1);
    let fault = replica.install(&connection, &site).await.unwrap_err();
    let module = if sample == Sample::Erlang { "erlang_demo_counter" } else { "Elixir.ElixirDemo.Counter" };
    assert!(fault.is_of_package(), "{fault}");
    for word in ["code_change", module, "reboots itself in the same OS process", "1.1.0"] {
        assert!(fault.to_string().contains(word), "{fault}");
    }
    assert!(hot::pending(&site.root).unwrap().unwrap().installing);
    connection.lost().await;
    replica.serves("1.1.0").await;
    assert_eq!((replica.vm.id(), replica.count().await), (pid, 1), "in the same process, without its state");

    let connection = replica.connect().await;
    let standing = hot::standing(&connection, &site).await.unwrap();
    assert!(standing.runs("1.1.0") && standing.up_ms < 60_000, "{standing:?}");
    assert!(hot::lay(&site).await.is_err(), "it is to be undone first");
    hot::undo(Some(&connection), &site.root).await.unwrap();
    assert_same(&before, &tree(&replica.root("")));
    replica.upgrade(&connection, "1.1.0", "1.2.0").await;
    assert_eq!(replica.count().await, 2);
}

#[tokio::test]
async fn a_crash_in_elixirs_code_change_is_named_and_undone() {
    a_crash_in_code_change(Sample::Elixir).await;
}

#[tokio::test]
async fn a_crash_in_erlangs_code_change_is_named_and_undone() {
    a_crash_in_code_change(Sample::Erlang).await;
}
