//! What earlier upgrades left goes, and nothing that is used.

use node_agent::hot;
use xtask::fixtures::Sample;

use super::replica::Replica;
use crate::dist::world::value;

async fn older_releases_leave(sample: Sample) {
    let mut replica = Replica::start(sample, "1.1.0").await;
    let connection = replica.connect().await;
    replica.upgrade(&connection, "1.1.0", "1.2.0").await;
    assert_eq!(hot::tidy(&connection, &replica.site("1.1.0", "1.2.0")).await.unwrap(), Vec::<String>::new());
    replica.upgrade(&connection, "1.2.0", "1.3.0").await;
    let site = replica.site("1.2.0", "1.3.0");
    let libraries = || std::fs::read_dir(replica.root("lib")).unwrap().count();
    let before = libraries();
    // What the upgrades did not change runs from the first library.
    assert_eq!(hot::tidy(&connection, &site).await.unwrap(), ["1.1.0"]);
    assert_eq!(hot::tidy(&connection, &site).await.unwrap(), Vec::<String>::new());
    let left: Vec<_> = std::fs::read_dir(replica.root("releases/1.1.0")).unwrap().flatten().collect();
    assert!(left.len() == 1 && left[0].file_name().to_string_lossy().ends_with(".rel"), "{left:?}");
    let known =
        value(&connection, "lists:sort([Vsn || {_, Vsn, _, _} <- release_handler:which_releases()]).").await;
    assert_eq!(known.to_string(), "[\"1.2.0\",\"1.3.0\"]");
    assert_eq!(libraries(), before);
    drop(connection);
    replica.start_again();
    replica.serves("1.3.0").await;

    let connection = replica.connect().await;
    let ebin = replica.root(&format!("lib/{sample}-1.1.0/ebin"));
    value(&connection, &format!("true = code:add_pathz(\"{}\").", ebin.display())).await;
    assert_eq!(hot::tidy(&connection, &site).await.unwrap(), Vec::<String>::new());
    assert!(ebin.exists());
    value(&connection, &format!("true = code:del_path(\"{}\").", ebin.display())).await;
    assert_eq!(hot::tidy(&connection, &site).await.unwrap(), ["1.1.0"]);
    assert_eq!(std::fs::read_dir(replica.root("lib")).unwrap().count(), before - 1);
    for (path, is_there) in [("1.1.0", false), ("1.2.0", true), ("1.3.0", true)] {
        assert_eq!(replica.root(&format!("lib/{sample}-{path}")).exists(), is_there, "{path}");
        assert_eq!(replica.root(&format!("releases/{path}")).exists(), is_there, "{path}");
    }
    // The way back is still there.
    replica.upgrade(&connection, "1.3.0", "1.2.0").await;
}

#[tokio::test]
async fn older_releases_of_elixir_leave() {
    older_releases_leave(Sample::Elixir).await;
}

#[tokio::test]
async fn older_releases_of_erlang_leave() {
    older_releases_leave(Sample::Erlang).await;
}
