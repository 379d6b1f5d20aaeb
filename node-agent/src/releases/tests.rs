//! The store on a real file system: what it makes, what it refuses, and what is left after a failure or a crash.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use proto::archive::hostile::{self, Builder};
use proto::ids::{AppName, Digest, ReleaseKey};
use proto::state::Language;
use sha2::Digest as _;

use super::*;

/// Serves one tarball, and can be told to fail.
struct Bucket {
    tarball: Vec<u8>,
    /// Breaks the stream after so many bytes of it, once each.
    breaks: Mutex<Vec<usize>>,
    offsets: Mutex<Vec<u64>>,
    opened: AtomicUsize,
}

impl Bucket {
    fn new(tarball: Vec<u8>) -> Self {
        Self { tarball, breaks: Mutex::default(), offsets: Mutex::default(), opened: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl Fetch for Bucket {
    async fn open(&self, _: &AppName, _: &ReleaseKey, offset: u64) -> Result<Chunks, FetchError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.offsets.lock().unwrap().push(offset);
        let rest = &self.tarball[usize::try_from(offset).unwrap().min(self.tarball.len())..];
        let cut = self.breaks.lock().unwrap().pop();
        let mut chunks: Vec<_> = rest[..cut.unwrap_or(rest.len())]
            .chunks(300)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        if cut.is_some() {
            chunks.push(Err(FetchError::Interrupted("cut".into())));
        }
        Ok(stream::iter(chunks).boxed())
    }
}

struct Host {
    root: tempfile::TempDir,
    store: Store,
}

impl Host {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path().join("var/agent/releases")).await.unwrap();
        Self { root, store }
    }

    fn slot(&self, number: u16) -> SlotFolder {
        SlotFolder::at(self.root.path().join(format!("var/service/demo/{number}")), "this boot".to_owned())
    }

    fn app_folder(&self) -> PathBuf {
        self.root.path().join("var/agent/releases/demo")
    }

    fn master(&self, tarball: &[u8]) -> PathBuf {
        self.app_folder().join(digest(tarball).to_string()).join("files")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.app_folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn digest(bytes: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(bytes).into())
}

fn wanted(tarball: &[u8]) -> Wanted {
    Wanted {
        app: "demo".parse().unwrap(),
        language: Language::Elixir,
        key: ReleaseKey { version: "0.1.0".parse().unwrap(), sha256: digest(tarball) },
        size: tarball.len() as u64,
    }
}

/// Every path below with its kind, size and content's digest.
fn picture(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                folders.push(path.clone());
            }
            let content =
                if meta.is_file() { digest(&fs::read(&path).unwrap()).short() } else { String::new() };
            lines.push(format!("{} {:?} {content}", path.display(), meta.file_type()));
        }
    }
    lines.sort();
    lines
}

#[tokio::test]
async fn a_release_is_fetched_once_and_laid_into_every_slot() {
    let host = Host::new().await;
    let bucket = Bucket::new(Builder::elixir().symlink("lib/demo", "demo-0.1.0").gzip());
    let wanted = wanted(&bucket.tarball);
    let seen = AtomicUsize::new(0);
    let ensure = || {
        host.store.ensure(&wanted, &bucket, |bytes| seen.store(bytes.try_into().unwrap(), Ordering::Relaxed))
    };
    let (one, two) = tokio::join!(ensure(), ensure());
    let unpacked = one.unwrap();
    two.unwrap();
    assert_eq!(bucket.opened.load(Ordering::Relaxed), 1);
    assert_eq!(seen.load(Ordering::Relaxed), bucket.tarball.len());
    assert_eq!(host.names(), [wanted.key.sha256.to_string()], "no tarball, no leftovers");

    for number in [1, 2] {
        let slot = host.slot(number);
        host.store.stage(&unpacked, &slot, None).await.unwrap();
        let new = slot.incoming();
        assert_eq!(fs::read(new.join("bin/demo")).unwrap(), b"#!/bin/sh\nexec sleep 60\n");
        assert_eq!(fs::read_link(new.join("lib/demo")).unwrap(), Path::new("demo-0.1.0"));
        let mode = |path: &str| fs::metadata(new.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("bin/demo"), 0o755);
        assert_eq!(mode("releases/COOKIE"), 0o600);
        assert_eq!(mode("erts-13.1.5/bin/beam.smp"), 0o555);
        assert_eq!(mode("lib/demo-0.1.0/ebin/demo.beam"), 0o444);
        assert_eq!(mode(""), 0o750);
        let releases = fs::read_to_string(new.join("releases/RELEASES")).unwrap();
        assert!(releases.starts_with("[{release,\"demo\",\"0.1.0\",\"13.1.5\",\n [{kernel,"), "{releases}");
        assert_eq!(slot.release_in(&new).await.unwrap().as_ref(), Some(unpacked.key()));
        assert_eq!(fs::read_dir(slot.path()).unwrap().count(), 1, "nothing beside new");
    }
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let master = host.master(&bucket.tarball);
    for (path, shared) in
        [("erts-13.1.5/bin/beam.smp", true), ("lib/demo-0.1.0/ebin/demo.beam", true), ("bin/demo", false)]
    {
        let inodes = BTreeSet::from([
            inode(master.join(path)),
            inode(host.slot(1).incoming().join(path)),
            inode(host.slot(2).incoming().join(path)),
        ]);
        assert_eq!(inodes.len(), if shared { 1 } else { 3 }, "{path}");
    }
}

#[tokio::test]
async fn what_a_replica_writes_stays_its_own_and_shared_code_cannot_be_written() {
    let host = Host::new().await;
    let bucket = Bucket::new(Builder::elixir().gzip());
    let unpacked = host.store.ensure(&wanted(&bucket.tarball), &bucket, |_| {}).await.unwrap();
    // As root the slots are given to somebody else, as in production; otherwise all is one user's.
    let is_root = rustix::process::geteuid().is_root();
    let owner = is_root.then_some(Owner { uid: 65_534, gid: 65_534 });
    for number in [1, 2] {
        host.store.stage(&unpacked, &host.slot(number), owner).await.unwrap();
        host.slot(number).swap().await.unwrap();
    }
    let others = || (picture(&host.slot(2).current()), picture(&host.master(&bucket.tarball)));
    let before = others();
    let script = "set -e; echo changed > lib/demo-0.1.0/priv/static/app.js; echo new > lib/demo-0.1.0/priv/upload;
        echo x >> releases/0.1.0/demo.rel; echo y > lib/demo-0.1.0/ebin/demo.appup; rm bin/demo; echo other > bin/demo;
        for shared in erts-13.1.5/bin/beam.smp lib/demo-0.1.0/ebin/demo.beam; do
            [ \"$(id -u)\" != 0 ] || continue
            if (echo hacked > $shared) 2>/dev/null; then echo \"wrote $shared\" >&2; exit 7; fi
            if [ \"$(id -u)\" = 65534 ] && chmod u+w $shared 2>/dev/null; then echo \"may write $shared\" >&2; exit 8; fi
        done";
    let mut replica = std::process::Command::new("sh");
    replica.args(["-ec", script]).current_dir(host.slot(1).current());
    if is_root {
        // The folders above belong to root in a test's temporary place; a replica passes through them by their x bits.
        for above in [host.root.path().to_owned(), host.root.path().join("var")] {
            fs::set_permissions(above, fs::Permissions::from_mode(0o711)).unwrap();
        }
        std::os::unix::process::CommandExt::uid(&mut replica, 65_534);
        std::os::unix::process::CommandExt::gid(&mut replica, 65_534);
    }
    let output = replica.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(host.slot(1).current().join("bin/demo")).unwrap(), b"other\n");
    assert_eq!(others(), before);
    // And the next slot gets the release as it was packed.
    host.store.stage(&unpacked, &host.slot(3), owner).await.unwrap();
    assert_eq!(fs::read(host.slot(3).incoming().join("lib/demo-0.1.0/priv/static/app.js")).unwrap(), b"1;\n");
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_ended() {
    let host = Host::new().await;
    let bucket = Bucket::new(Builder::elixir().gzip());
    let wanted = wanted(&bucket.tarball);
    *bucket.breaks.lock().unwrap() = vec![50, 400];
    for _ in 0..2 {
        let error = host.store.ensure(&wanted, &bucket, |_| {}).await.unwrap_err();
        assert!(matches!(error, StageError::Fetch(FetchError::Interrupted(_))), "{error:?}");
        assert!(!error.is_permanent());
    }
    host.store.ensure(&wanted, &bucket, |_| {}).await.unwrap();
    assert_eq!(*bucket.offsets.lock().unwrap(), [0, 400, 450]);
}

#[tokio::test]
async fn damage_to_a_partial_download_is_found_and_heals() {
    let host = Host::new().await;
    let bucket = Bucket::new(Builder::elixir().gzip());
    let wanted = wanted(&bucket.tarball);
    fs::create_dir_all(host.app_folder()).unwrap();
    let partial = host.app_folder().join(format!("{}.partial", wanted.key.sha256));
    for damaged in [vec![0; 100], vec![0; bucket.tarball.len()]] {
        fs::write(&partial, damaged).unwrap();
        let error = host.store.ensure(&wanted, &bucket, |_| {}).await.unwrap_err();
        assert!(matches!(error, StageError::WrongDigest { .. }) && !error.is_permanent(), "{error:?}");
        assert!(host.names().is_empty(), "{:?}", host.names());
    }
    fs::write(&partial, vec![0; bucket.tarball.len() + 1]).unwrap();
    host.store.ensure(&wanted, &bucket, |_| {}).await.unwrap();
}

#[tokio::test]
async fn a_tarball_of_another_size_or_digest_is_never_unpacked() {
    let host = Host::new().await;
    let good = Builder::elixir().gzip();
    let longer = Bucket::new([&*good, b"x"].concat());
    let error = host.store.ensure(&wanted(&good), &longer, |_| {}).await.unwrap_err();
    assert!(matches!(error, StageError::Long { .. }), "{error:?}");
    let shorter = Bucket::new(good[..good.len() - 1].to_vec());
    let error = host.store.ensure(&wanted(&good), &shorter, |_| {}).await.unwrap_err();
    assert!(matches!(error, StageError::Short { .. }), "{error:?}");
    let other = Builder::elixir().file("lib/other", 0o644, b"").gzip();
    let mut recorded = wanted(&good);
    recorded.size = other.len() as u64;
    recorded.key.sha256 = Digest([7; 32]);
    let error = host.store.ensure(&recorded, &Bucket::new(other), |_| {}).await.unwrap_err();
    assert!(matches!(error, StageError::WrongDigest { .. }), "{error:?}");
}

#[tokio::test]
async fn no_hostile_archive_leaves_a_trace() {
    let host = Host::new().await;
    fs::create_dir_all(host.app_folder()).unwrap();
    let before = picture(host.root.path());
    for sample in hostile::samples() {
        let bucket = Bucket::new(sample.archive);
        let error =
            host.store.ensure(&wanted(&bucket.tarball), &bucket, |_| {}).await.expect_err(sample.name);
        match &error {
            StageError::Archive(fault) => assert_eq!(fault.code(), sample.code, "{}", sample.name),
            other => panic!("{}: {other:?}", sample.name),
        }
        assert!(error.is_permanent());
        assert_eq!(picture(host.root.path()), before, "{}", sample.name);
        assert!(!Path::new("/tmp/dx-escape").exists() && !Path::new("/tmp/dx-escape.d").exists());
    }
}

#[tokio::test]
async fn hidden_damage_is_noticed_before_linking_and_heals() {
    let host = Host::new().await;
    let bucket = Bucket::new(Builder::elixir().symlink("lib/s", "demo-0.1.0").gzip());
    let wanted = wanted(&bucket.tarball);
    let master = host.master(&bucket.tarball);
    let change = |path: &str| {
        let path = master.join(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    let manifest = master.parent().unwrap().join("manifest");
    let damages: [&dyn Fn(); 6] = [
        &|| change("lib/demo-0.1.0/ebin/demo.beam"),
        &|| change("bin/demo"),
        &|| fs::remove_file(master.join("bin/demo")).unwrap(),
        &|| fs::remove_dir_all(master.join("lib")).unwrap(),
        &|| fs::remove_dir_all(&master).unwrap(),
        &|| fs::write(&manifest, b"deployex release 1\nd\tlib\n").unwrap(),
    ];
    for (nth, damage) in damages.iter().enumerate() {
        let unpacked = host.store.ensure(&wanted, &bucket, |_| {}).await.unwrap();
        assert_eq!(bucket.opened.load(Ordering::Relaxed), nth + 1);
        damage();
        let error = host.store.stage(&unpacked, &host.slot(1), None).await.unwrap_err();
        assert!(matches!(error, StageError::Damaged { .. }) && !error.is_permanent(), "{nth}: {error:?}");
        assert!(!host.slot(1).incoming().exists() && !host.slot(1).staging().exists());
    }
    let unpacked = host.store.ensure(&wanted, &bucket, |_| {}).await.unwrap();
    // A link is made as it was packed, whatever it became.
    fs::remove_file(master.join("lib/s")).unwrap();
    std::os::unix::fs::symlink("/etc", master.join("lib/s")).unwrap();
    host.store.stage(&unpacked, &host.slot(1), None).await.unwrap();
    assert_eq!(fs::read_link(host.slot(1).incoming().join("lib/s")).unwrap(), Path::new("demo-0.1.0"));
    // A removal that was cut off begins with the manifest.
    fs::remove_file(&manifest).unwrap();
    host.store.ensure(&wanted, &bucket, |_| {}).await.unwrap();
    assert_eq!(bucket.opened.load(Ordering::Relaxed), damages.len() + 2);
}

#[tokio::test]
async fn what_a_crash_left_is_cleaned_and_a_download_kept() {
    let host = Host::new().await;
    let sha = digest(b"x");
    for name in ["unpacking/files/lib", "unpacking/files/bin"] {
        fs::create_dir_all(host.app_folder().join(format!("{sha}.{name}"))).unwrap();
    }
    fs::write(host.app_folder().join(format!("{sha}.partial")), b"half").unwrap();
    let root = host.app_folder().parent().unwrap().to_owned();
    let store = Store::open(root).await.unwrap();
    assert_eq!(host.names(), [format!("{sha}.partial")]);
    store.collect(&BTreeSet::new()).await.unwrap();
    assert!(host.names().is_empty());
}

#[tokio::test]
async fn releases_that_nobody_wants_any_more_are_collected() {
    let host = Host::new().await;
    let mut keys = Vec::new();
    for n in 0..3 {
        let bucket = Bucket::new(Builder::elixir().file(format!("lib/{n}"), 0o644, b"").gzip());
        host.store.ensure(&wanted(&bucket.tarball), &bucket, |_| {}).await.unwrap();
        keys.push(digest(&bucket.tarball));
    }
    let keep = BTreeSet::from([("demo".parse().unwrap(), keys[1])]);
    host.store.collect(&keep).await.unwrap();
    assert_eq!(host.names(), [keys[1].to_string()]);
}

#[tokio::test]
async fn a_swap_can_be_repeated_after_a_crash_at_any_of_its_steps() {
    let host = Host::new().await;
    let names = ["new", "current", "previous"];
    let releases = |slot: &SlotFolder| {
        names.map(|name| fs::read_to_string(slot.path().join(name).join("release")).unwrap_or_default())
    };
    let make = |number, there: &[(&str, &str)]| {
        let slot = host.slot(number);
        for (name, release) in there {
            fs::create_dir_all(slot.path().join(name)).unwrap();
            fs::write(slot.path().join(name).join("release"), release).unwrap();
        }
        slot
    };
    let after_every_step: [&[(&str, &str)]; 4] = [
        &[("new", "c"), ("current", "b"), ("previous", "a")],
        &[("new", "c"), ("current", "b"), (".discarded", "a")],
        &[("new", "c"), ("previous", "b"), (".discarded", "a")],
        &[("current", "c"), ("previous", "b"), (".discarded", "a")],
    ];
    for (number, there) in (1..).zip(after_every_step) {
        let slot = make(number, there);
        slot.swap().await.unwrap();
        assert_eq!(releases(&slot), ["", "c", "b"], "{there:?}");
        slot.swap().await.unwrap();
        assert_eq!(releases(&slot), ["", "c", "b"], "again: {there:?}");
        slot.sweep().await.unwrap();
        assert!(!slot.path().join(".discarded").exists());
    }
    let first = make(9, &[("new", "a")]);
    first.swap().await.unwrap();
    assert_eq!(releases(&first), ["", "a", ""]);
    let cleared = make(10, &[("new", "b"), ("current", "a"), (".staging", "x"), (".discarded", "x")]);
    cleared.clear_new().await.unwrap();
    assert_eq!(releases(&cleared), ["", "a", ""]);
    assert_eq!(fs::read_dir(cleared.path()).unwrap().count(), 1);
    cleared.remove_all().await.unwrap();
    cleared.remove_all().await.unwrap();
    assert!(!cleared.path().exists());
}

#[tokio::test]
async fn staging_takes_the_place_of_what_was_staged_before() {
    let host = Host::new().await;
    let slot = host.slot(1);
    for text in ["one", "two"] {
        let bucket = Bucket::new(Builder::elixir().file("lib/text", 0o644, text.as_bytes()).gzip());
        let unpacked = host.store.ensure(&wanted(&bucket.tarball), &bucket, |_| {}).await.unwrap();
        host.store.stage(&unpacked, &slot, None).await.unwrap();
        assert_eq!(fs::read_to_string(slot.incoming().join("lib/text")).unwrap(), text);
    }
}

#[tokio::test]
async fn what_was_laid_is_not_flushed_before_it_is_asked_for_and_counts_for_nothing_after_a_restart_till_then()
 {
    let host = Host::new().await;
    let bucket = Bucket::new(Builder::elixir().gzip());
    let unpacked = host.store.ensure(&wanted(&bucket.tarball), &bucket, |_| {}).await.unwrap();
    let slot = host.slot(1);
    let restarted = SlotFolder::at(slot.path().to_owned(), "the next boot".to_owned());
    host.store.stage(&unpacked, &slot, None).await.unwrap();
    assert_eq!(restarted.release_in(&slot.incoming()).await.unwrap(), None);
    slot.swap().await.unwrap();
    assert_eq!(slot.release_in(&slot.current()).await.unwrap().as_ref(), Some(unpacked.key()));
    restarted.flush().await.unwrap();
    assert_eq!(restarted.release_in(&slot.current()).await.unwrap(), None, "it cannot know");
    slot.flush().await.unwrap();
    assert_eq!(restarted.release_in(&slot.current()).await.unwrap().as_ref(), Some(unpacked.key()));
}

#[tokio::test]
async fn an_archive_cannot_choose_what_our_own_files_overwrite() {
    let host = Host::new().await;
    let beam = "lib/demo-0.1.0/ebin/demo.beam";
    let archive =
        Builder::elixir().symlink(".deployex-release", beam).symlink("releases/RELEASES", "../bin/demo");
    let bucket = Bucket::new(archive.gzip());
    let unpacked = host.store.ensure(&wanted(&bucket.tarball), &bucket, |_| {}).await.unwrap();
    host.store.stage(&unpacked, &host.slot(1), None).await.unwrap();
    assert_eq!(fs::read(host.slot(1).incoming().join(beam)).unwrap(), b"FOR1 a module");
    assert_eq!(fs::read(host.slot(1).incoming().join("bin/demo")).unwrap(), b"#!/bin/sh\nexec sleep 60\n");
    let key = host.slot(1).release_in(&host.slot(1).incoming()).await.unwrap();
    assert_eq!(key.as_ref(), Some(unpacked.key()));
}

/// The largest file that this process may write stands for a full disk: the same error comes at the same place. The limit
/// holds for a whole process, so the work is done by this test program again, under a shell that sets it.
#[test]
fn a_full_disk_is_told_and_what_was_written_is_freed() {
    let inner = std::env::current_exe().unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" --ignored --exact releases::tests::under_a_limit --nocapture"])
        .arg(inner)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
#[ignore = "run by the test above, under a limit"]
async fn under_a_limit() {
    let host = Host::new().await;
    // Random bytes, which do not pack: the download itself does not fit.
    let mut noise = vec![0; 200 << 10];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    let large = Bucket::new(Builder::elixir().file("lib/noise", 0o644, &noise).gzip());
    // Zeros, which pack: unpacking does not fit.
    let zeros = Bucket::new(Builder::elixir().file("lib/zeros", 0o644, &vec![0; 200 << 10]).gzip());
    for bucket in [large, zeros] {
        let error = host.store.ensure(&wanted(&bucket.tarball), &bucket, |_| {}).await.unwrap_err();
        assert!(matches!(error, StageError::DiskFull { .. }) && !error.is_permanent(), "{error:?}");
        assert!(error.to_string().contains("no room left"));
        assert!(host.names().is_empty(), "{:?}", host.names());
    }
    let mut out = std::io::stdout().lock();
    out.flush().unwrap();
}

#[tokio::test]
async fn a_release_for_another_machine_is_refused_for_good_and_nothing_of_it_is_laid() {
    let host = Host::new().await;
    // The head of an emulator for s390x, which nobody emulates here.
    let mut emulator = b"\x7fELF\x02\x02\x01".to_vec();
    emulator.resize(18, 0);
    emulator.extend([0, 0x16, 0, 0]);
    let release = Builder::new()
        .folder("bin/")
        .file("bin/demo", 0o755, b"#!/bin/sh\n")
        .folder("erts-1/")
        .folder("erts-1/bin/")
        .file("erts-1/bin/beam.smp", 0o755, &emulator)
        .folder("lib/")
        .folder("releases/");
    let bucket = Bucket::new(release.gzip());
    let unpacked = host.store.ensure(&wanted(&bucket.tarball), &bucket, |_| {}).await.unwrap();
    let error = host.store.stage(&unpacked, &host.slot(1), None).await.unwrap_err();
    assert!(error.is_permanent());
    let said = error.to_string();
    assert!(said.starts_with("release ") && said.contains(" is built for s390x, this host is "), "{said}");
    assert!(!host.slot(1).incoming().exists());
}
