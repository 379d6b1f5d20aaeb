//! Back to an earlier version while it runs.

use xtask::fixtures::Sample;

use super::replica::{Replica, assert_same, tree};
use node_agent::hot::{self, Status};

async fn after_a_hot_upgrade(sample: Sample) {
    let mut replica = Replica::start(sample, "1.1.0").await;
    let pid = replica.vm.id();
    let connection = replica.connect().await;
    let mut number = 0;
    for (from, to) in [("1.1.0", "1.2.0"), ("1.2.0", "1.1.0"), ("1.1.0", "1.2.0")] {
        replica.upgrade(&connection, from, to).await;
        number += 1;
        assert_eq!(replica.count().await, number);
    }
    // One that is given up leaves what lay there from before.
    replica.bring("1.1.0").await;
    let (site, before) = (replica.site("1.2.0", "1.1.0"), tree(&replica.root("")));
    assert_eq!(hot::standing(&connection, &site).await.unwrap().to, Some(Status::Old));
    for _ in 0..2 {
        replica.prepare(&connection, &site).await.unwrap();
        hot::undo(Some(&connection), &site.root).await.unwrap();
        assert_same(&before, &tree(&replica.root("")));
        // It is known as before; as one that ran it could do no more.
        assert_eq!(hot::standing(&connection, &site).await.unwrap().to, Some(Status::Unpacked));
    }
    replica.upgrade(&connection, "1.2.0", "1.1.0").await;
    assert_eq!((replica.count().await, replica.vm.id()), (number + 1, pid));
    let status = replica.get("/status").await.unwrap();
    assert!(status.contains(&format!("port={}", replica.address.port())), "{status}");
    drop(connection);
    replica.start_again();
    replica.serves("1.1.0").await;
}

async fn after_a_full_deployment(sample: Sample) {
    let mut replica = Replica::start(sample, "1.2.0").await;
    let connection = replica.connect().await;
    assert_eq!(replica.count().await, 1);
    replica.bring("1.1.0").await;
    let (site, before) = (replica.site("1.2.0", "1.1.0"), tree(&replica.root("")));
    replica.prepare(&connection, &site).await.unwrap();
    hot::undo(Some(&connection), &site.root).await.unwrap();
    assert_same(&before, &tree(&replica.root("")));
    replica.upgrade(&connection, "1.2.0", "1.1.0").await;
    assert_eq!(replica.count().await, 2);
    drop(connection);
    replica.start_again();
    replica.serves("1.1.0").await;
}

#[tokio::test]
async fn elixir_goes_back_after_a_hot_upgrade() {
    after_a_hot_upgrade(Sample::Elixir).await;
}

#[tokio::test]
async fn erlang_goes_back_after_a_hot_upgrade() {
    after_a_hot_upgrade(Sample::Erlang).await;
}

#[tokio::test]
async fn elixir_goes_back_after_a_full_deployment() {
    after_a_full_deployment(Sample::Elixir).await;
}

#[tokio::test]
async fn erlang_goes_back_after_a_full_deployment() {
    after_a_full_deployment(Sample::Erlang).await;
}
