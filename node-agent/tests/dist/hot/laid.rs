//! What is laid, where nothing runs: whom it belongs to, and a disk without room for it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use node_agent::hot::{self, Site};
use node_agent::releases::{Owner, SlotFolder, Store};
use tempfile::TempDir;
use xtask::disk::SmallDisk;
use xtask::fixtures::Sample;

use super::replica::{assert_same, language, stage, tree};

#[tokio::test]
async fn as_root_a_full_disk_is_said_and_what_was_laid_can_be_taken_back() {
    let home = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&home.path().join("disk"), 120).unwrap();
    let site = laid_out(&home, &home.path().join("disk/1"), None).await;
    let before = tree(&site.root);
    for (but, is_begun) in [(0, false), (96 << 10, true)] {
        disk.fill(but).unwrap();
        let fault = hot::lay(&site).await.unwrap_err();
        assert!(fault.to_string().contains("no room left on the disk") && !fault.is_of_package(), "{fault}");
        assert_eq!(hot::pending(&site.root).unwrap().is_some(), is_begun);
        hot::undo(None, &site.root).await.unwrap();
        assert_same(&before, &tree(&site.root));
    }
    disk.clear().unwrap();
    hot::lay(&site).await.unwrap();
    assert!(site.root.join("releases/1.2.0/start.boot").exists());
}

#[tokio::test]
async fn as_root_what_is_laid_belongs_to_the_replicas_user() {
    assert!(rustix::process::geteuid().is_root(), "to give files away needs root: sudo cargo xtask test");
    let home = tempfile::tempdir().unwrap();
    let nobody = Owner { uid: 65_534, gid: 65_534 };
    let site = laid_out(&home, &home.path().join("1"), Some(nobody)).await;
    let before = tree(&site.root);
    hot::lay(&site).await.unwrap();
    let all = tree(&site.root);
    let laid = all.keys().filter(|it| !before.contains_key(*it));
    let (mut linked, mut owned) = (0, 0);
    for path in laid.filter(|it| !it.ends_with(".deployex-upgrade")) {
        let metadata = fs::symlink_metadata(site.root.join(path)).unwrap();
        match metadata.uid() {
            65_534 => owned += 1,
            // The host's copy.
            _ => {
                assert!(metadata.nlink() > 2 && metadata.mode() & 0o222 == 0, "{}", path.display());
                linked += 1;
            }
        }
    }
    assert!(owned > 10 && linked > 3, "{owned} given away, {linked} shared");
    hot::undo(None, &site.root).await.unwrap();
    assert_same(&before, &tree(&site.root));
}

/// 1.1.0 as what runs, which it does not, and 1.2.0 beside it.
async fn laid_out(home: &TempDir, at: &Path, owner: Option<Owner>) -> Site {
    let folder = SlotFolder::at(at.to_owned(), "boot".to_owned());
    let store = Store::open(home.path().join("store")).await.unwrap();
    stage(&store, &folder, Sample::Elixir, "1.1.0").await;
    folder.swap().await.unwrap();
    stage(&store, &folder, Sample::Elixir, "1.2.0").await;
    Site {
        root: folder.current(),
        incoming: folder.incoming(),
        app: Sample::Elixir.name().to_owned(),
        language: language(Sample::Elixir),
        from: "1.1.0".to_owned(),
        to: "1.2.0".to_owned(),
        owner,
    }
}
