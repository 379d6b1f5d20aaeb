//! What is laid, where nothing runs: whom it belongs to, and a disk without room for it.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use node_agent::hot::{self, Site};
use node_agent::releases::{Owner, SlotFolder, Store};
use tempfile::TempDir;
use xtask::fixtures::Sample;

use super::replica::{assert_same, language, stage, tree};

struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "to mount a small disk needs root: sudo cargo xtask test"
        );
        fs::create_dir(at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=120m", "tmpfs"]).arg(at).status();
        assert!(mounted.unwrap().success(), "a tmpfs cannot be mounted here");
        Self(at.to_owned())
    }

    /// But for so many bytes.
    fn fill(&self, but: u64) {
        let path = self.0.join("ballast");
        let mut ballast = File::options().create(true).append(true).open(path).unwrap();
        for size in [1 << 20, 4_096, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
        ballast.set_len(ballast.metadata().unwrap().len() - but).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn as_root_a_full_disk_is_said_and_what_was_laid_can_be_taken_back() {
    let home = tempfile::tempdir().unwrap();
    let disk = Disk::mount(&home.path().join("disk"));
    let site = laid_out(&home, &disk.0.join("1"), None).await;
    let before = tree(&site.root);
    for (but, is_begun) in [(0, false), (96 << 10, true)] {
        disk.fill(but);
        let fault = hot::lay(&site).await.unwrap_err();
        assert!(fault.to_string().contains("no room left on the disk") && !fault.is_of_package(), "{fault}");
        assert_eq!(hot::pending(&site.root).unwrap().is_some(), is_begun);
        hot::undo(None, &site.root).await.unwrap();
        assert_same(&before, &tree(&site.root));
    }
    fs::remove_file(disk.0.join("ballast")).unwrap();
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
