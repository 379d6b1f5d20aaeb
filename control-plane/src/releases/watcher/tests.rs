//! A real folder, a real database, and the look repeated by hand: no time passes.

use std::fs;
use std::path::PathBuf;

use futures_util::TryStreamExt;
use proto::archive::hostile::{self, Builder};
use proto::ids::Digest;
use proto::state::{FaultKind, Language};
use sha2::Digest as _;

use super::*;
use crate::clock::Time;
use crate::db::{ApplicationsDiff, EventFilter, ManualWish, NewApplication, PageRequest, Source as Owner};
use crate::releases::verdict::UPLOAD_GRACE;
use crate::releases::{FolderSource, Relay, RelayError, SeekError, UnavailableSource, record_unnamed};

struct Place {
    folder: tempfile::TempDir,
    db: Db,
    bucket: Bucket,
    _database: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", database.path().join("deployex.db").display());
        let db = Db::open(&url).await.unwrap();
        let spec = AppSpec::new("demo".parse().unwrap(), Language::Elixir);
        let put = vec![NewApplication { spec, source: Owner::Yaml, cookie: vec![1] }];
        let diff = ApplicationsDiff { put, ..ApplicationsDiff::default() };
        db.put_applications(diff, Time(1)).await.unwrap();
        let source = FolderSource::new(folder.path().to_owned(), "prod".to_owned());
        let bucket = Bucket {
            source: Arc::new(source),
            db: db.clone(),
            clock: Clock::start(),
            wake: Arc::new(Notify::new()),
        };
        Self { folder, db, bucket, _database: database }
    }

    fn watch(&self) -> Watch {
        Watch::new(self.bucket.clone(), &AppSpec::new("demo".parse().unwrap(), Language::Elixir))
    }

    fn relay(&self) -> Relay {
        Relay::new(self.db.clone(), self.bucket.source.clone())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // As an uploader should: a new file in the place of the old one.
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, bytes).unwrap();
        fs::rename(&temporary, &path).unwrap();
        path
    }

    fn name(&self, json: &str) {
        self.put("versions/demo/prod/current.json", json.as_bytes());
    }

    fn publish(&self, version: &str, tarball: &[u8]) -> ReleaseKey {
        self.put(&format!("dist/demo/demo-{version}.tar.gz"), tarball);
        let sha256 = Digest(sha2::Sha256::digest(tarball).into());
        ReleaseKey { version: version.parse().unwrap(), sha256 }
    }

    async fn state(&self) -> (Option<ReleaseKey>, String) {
        let state = self.db.bucket(&"demo".parse().unwrap()).await.unwrap().unwrap();
        (state.wish, state.fault.map(|fault| fault.text).unwrap_or_default())
    }

    /// The kinds of all events, the oldest first.
    async fn events(&self) -> Vec<String> {
        let page = self.db.events(&EventFilter::default(), PageRequest::newest(500)).await.unwrap();
        page.items.into_iter().rev().map(|event| event.event.kind).collect()
    }
}

async fn relayed(relay: &Relay, key: &ReleaseKey, offset: u64) -> Result<Vec<u8>, RelayError> {
    let chunks = relay.open(&"demo".parse().unwrap(), key, offset).await?;
    let chunks: Vec<_> = chunks.try_collect().await.map_err(RelayError::Source)?;
    Ok(chunks.concat())
}

fn tarball(text: &str) -> Vec<u8> {
    Builder::elixir().file("lib/text", 0o644, text.as_bytes()).gzip()
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_told_from_one_that_is_empty() {
    let place = Place::new().await;
    place.watch().look().await.unwrap();
    assert!(place.state().await.1.contains("current.json"), "{:?}", place.state().await);
    fs::remove_dir_all(place.folder.path()).unwrap();
    place.watch().look().await.unwrap();
    let (_, fault) = place.state().await;
    assert!(fault.contains("release_bucket") && fault.contains("No such file"), "{fault}");
}

#[tokio::test]
async fn a_release_is_recorded_and_wished_for_once() {
    let place = Place::new().await;
    let key = place.publish("1.0.0", &tarball("a"));
    place.name(r#"{"version":"1.0.0","hash":"local","pre_commands":["eval A.b()"]}"#);
    let mut watch = place.watch();
    for _ in 0..3 {
        assert!(!watch.look().await.unwrap());
    }
    assert_eq!(place.state().await, (Some(key.clone()), String::new()));
    let app = "demo".parse().unwrap();
    let release = place.db.release(&app, &key).await.unwrap().unwrap();
    assert_eq!(release.size, tarball("a").len() as u64);
    assert_eq!(release.pre_commands, ["eval A.b()"]);
    assert_eq!(release.declared_hash.as_deref(), Some("local"));
    assert_eq!(place.events().await, ["release_recorded", "release_named"]);
    // The reconciler was woken: the permit is there.
    place.bucket.wake.notified().await;
    // A second run of the program reads nothing again and tells nothing again.
    let mut again = place.watch();
    again.look().await.unwrap();
    assert!(again.read.is_none());
    assert_eq!(place.events().await.len(), 2);
}

#[tokio::test]
async fn pre_commands_that_are_added_to_a_recorded_version_count_and_are_told_once() {
    let place = Place::new().await;
    let (key, app) = (place.publish("1.0.0", &tarball("a")), "demo".parse().unwrap());
    let mut watch = place.watch();
    for commands in ["[]", r#"["eval A.b()"]"#] {
        place.name(&format!(r#"{{"version":"1.0.0","pre_commands":{commands}}}"#));
        watch.look().await.unwrap();
    }
    place.watch().look().await.unwrap();
    assert_eq!(place.db.release(&app, &key).await.unwrap().unwrap().pre_commands, ["eval A.b()"]);
    assert_eq!(place.events().await, ["release_recorded", "release_named", "pre_commands_changed"]);
}

#[tokio::test]
async fn a_tarball_that_is_late_is_waited_for_more_and_more_rarely() {
    let place = Place::new().await;
    let mut watch = place.watch();
    assert!(watch.look().await.unwrap());
    assert_eq!(place.state().await.1, "waiting for versions/demo/prod/current.json");
    place.name(r#"{"version":"1.0.0"}"#);
    for _ in 0..5 {
        assert!(watch.look().await.unwrap());
    }
    assert_eq!(place.state().await, (None, "waiting for dist/demo/demo-1.0.0.tar.gz".to_owned()));
    assert_eq!(place.events().await, ["release_awaited", "release_awaited"]);
    let key = place.publish("1.0.0", &tarball("a"));
    assert!(!watch.look().await.unwrap());
    assert_eq!(place.state().await, (Some(key), String::new()));
    let (short, long) = (Duration::from_secs(5), Duration::from_mins(2));
    let pauses: Vec<_> = (0..8).map(|waits| pause(short, waits).as_secs()).collect();
    assert_eq!(pauses, [5, 5, 10, 20, 30, 30, 30, 30]);
    assert_eq!(pause(long, 9), long);
    assert_eq!(pause(Duration::MAX, u32::MAX), Duration::MAX);
}

#[tokio::test]
async fn a_tarball_that_nobody_uploads_is_missing_after_a_while_also_across_a_restart() {
    let mut place = Place::new().await;
    place.name(r#"{"version":"1.0.0"}"#);
    let (mut watch, app) = (place.watch(), "demo".parse().unwrap());
    watch.look().await.unwrap();
    let fault = async || place.db.bucket(&app).await.unwrap().unwrap().fault.unwrap();
    assert_eq!(fault().await.kind, FaultKind::Waiting);
    let grace = u64::try_from(UPLOAD_GRACE.as_millis()).unwrap();
    let later = place.bucket.clock.ahead(grace);
    watch.bucket.clock = later;
    assert!(watch.look().await.unwrap(), "it is looked for all the same");
    let missing = fault().await;
    let said = "dist/demo/demo-1.0.0.tar.gz is missing, although versions/demo/prod/current.json names 1.0.0: upload it";
    assert_eq!((missing.kind, missing.text.as_str()), (FaultKind::Broken, said));
    place.bucket.clock = later.ahead(1);
    place.watch().look().await.unwrap();
    assert_eq!(place.state().await.1, said);
    assert_eq!(place.events().await, ["release_awaited", "release_refused"]);
    let key = place.publish("1.0.0", &tarball("a"));
    watch.look().await.unwrap();
    assert_eq!(place.state().await, (Some(key), String::new()));
}

#[tokio::test]
async fn a_bucket_of_a_kind_that_cannot_be_read_is_named_once_and_looked_at_rarely() {
    let mut place = Place::new().await;
    place.bucket.source = Arc::new(UnavailableSource::new("s3", "prod".to_owned()));
    let mut watch = place.watch();
    for _ in 0..3 {
        assert!(watch.look().await.unwrap());
    }
    let (wish, fault) = place.state().await;
    assert_eq!(wish, None);
    assert!(fault.starts_with("releases cannot be fetched from s3"), "{fault}");
    assert_eq!(place.events().await, ["release_refused"]);
}

#[tokio::test]
async fn a_malformed_file_keeps_the_last_good_version_in_force() {
    let place = Place::new().await;
    let key = place.publish("1.0.0", &tarball("a"));
    place.name(r#"{"version":"1.0.0"}"#);
    let mut watch = place.watch();
    watch.look().await.unwrap();
    for bad in ["", "{", "[]", r#"{"version":1}"#] {
        place.name(bad);
        for _ in 0..3 {
            watch.look().await.unwrap();
        }
        let (wish, fault) = place.state().await;
        assert_eq!(wish.as_ref(), Some(&key));
        assert!(fault.starts_with("versions/demo/prod/current.json "), "{fault}");
    }
    place.name(r#"{"version":"1.0.0"}"#);
    watch.look().await.unwrap();
    assert_eq!(place.state().await, (Some(key), String::new()));
    let refused = place.events().await.into_iter().filter(|kind| kind == "release_refused").count();
    assert_eq!(refused, 4, "one event each, never one per look");
}

#[tokio::test]
async fn what_is_no_plain_file_is_told_and_never_waited_for() {
    let place = Place::new().await;
    let path = place.put("versions/demo/prod/current.json", b"");
    let mut watch = place.watch();
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    watch.look().await.unwrap();
    assert!(place.state().await.1.contains("is not a file"), "{:?}", place.state().await);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    watch.look().await.unwrap();
    assert!(place.state().await.1.contains("is not a file"), "{:?}", place.state().await);
    fs::remove_dir(&path).unwrap();
    fs::write(&path, vec![b' '; 300 << 10]).unwrap();
    watch.look().await.unwrap();
    assert!(place.state().await.1.contains("307200 bytes"), "{:?}", place.state().await);
}

#[tokio::test]
async fn no_hostile_tarball_changes_the_wish() {
    let place = Place::new().await;
    let key = place.publish("1.0.0", &tarball("a"));
    place.name(r#"{"version":"1.0.0"}"#);
    let mut watch = place.watch();
    watch.look().await.unwrap();
    let samples = hostile::samples();
    for (nth, sample) in samples.iter().enumerate() {
        let version = format!("2.{nth}");
        place.publish(&version, &sample.archive);
        place.name(&format!("{{\"version\":\"{version}\"}}"));
        watch.look().await.unwrap();
        let (wish, fault) = place.state().await;
        assert_eq!(wish.as_ref(), Some(&key), "{}", sample.name);
        assert!(fault.starts_with(&format!("dist/demo/demo-{version}.tar.gz was refused: ")), "{fault}");
    }
    let releases = place.db.releases(&"demo".parse().unwrap()).await.unwrap();
    assert_eq!(releases.len(), 1, "nothing hostile is recorded");
    let refused = place.events().await.into_iter().filter(|kind| kind == "release_refused").count();
    assert_eq!(refused, samples.len());
}

#[tokio::test]
async fn a_wrong_hash_is_refused_until_either_side_is_mended() {
    let place = Place::new().await;
    let key = place.publish("1.0.0", &tarball("a"));
    place.name(&format!("{{\"version\":\"1.0.0\",\"hash\":\"{}\"}}", "0".repeat(64)));
    let mut watch = place.watch();
    for _ in 0..2 {
        watch.look().await.unwrap();
    }
    let (wish, fault) = place.state().await;
    assert_eq!(wish, None);
    assert!(fault.contains(&key.sha256.to_string()) && fault.contains(&"0".repeat(64)), "{fault}");
    assert_eq!(place.events().await, ["release_refused"]);
    place.name(&format!("{{\"version\":\"1.0.0\",\"hash\":\"sha256:{}\"}}", key.sha256));
    watch.look().await.unwrap();
    assert_eq!(place.state().await, (Some(key), String::new()));
}

#[tokio::test]
async fn a_republished_tarball_is_shown_and_deployed_only_on_request() {
    let place = Place::new().await;
    let app: AppName = "demo".parse().unwrap();
    let old = place.publish("1.0.0", &tarball("a"));
    place.name(r#"{"version":"1.0.0"}"#);
    let mut watch = place.watch();
    watch.look().await.unwrap();
    let new = place.publish("1.0.0", &tarball("b"));
    for _ in 0..2 {
        watch.look().await.unwrap();
    }
    let (wish, fault) = place.state().await;
    assert_eq!(wish.as_ref(), Some(&old));
    assert!(fault.contains("republished") && fault.contains(&new.sha256.short()), "{fault}");
    let relay = place.relay();
    let read = async |key: &ReleaseKey, offset: u64| relayed(&relay, key, offset).await;
    assert!(matches!(read(&old, 0).await, Err(RelayError::Changed { .. })));
    assert_eq!(read(&new, 0).await.unwrap(), tarball("b"));
    assert_eq!(read(&new, 10).await.unwrap(), tarball("b")[10..]);
    let wish = ManualWish { release: new.clone(), by: "admin".to_owned(), pinned: false, at: Time(2) };
    place.db.set_manual_wish(&app, Some(&wish), &[], None).await.unwrap();
    watch.look().await.unwrap();
    assert_eq!(place.state().await, (Some(new.clone()), String::new()));
    // Written again as it was: another object, the same release.
    place.publish("1.0.0", &tarball("b"));
    watch.look().await.unwrap();
    assert_eq!(place.state().await, (Some(new.clone()), String::new()));
    assert_eq!(read(&new, 0).await.unwrap(), tarball("b"));
    fs::remove_file(place.folder.path().join("dist/demo/demo-1.0.0.tar.gz")).unwrap();
    assert!(matches!(read(&new, 0).await, Err(RelayError::Gone { .. })));
    watch.look().await.unwrap();
    assert_eq!(place.state().await.0, Some(new));
    let unknown = ReleaseKey { version: "9".parse().unwrap(), sha256: Digest([9; 32]) };
    assert!(matches!(read(&unknown, 0).await, Err(RelayError::Unknown { .. })));
}

#[tokio::test]
async fn a_recorded_tarball_is_relayed_from_a_bucket_that_was_copied() {
    let place = Place::new().await;
    let (app, bytes) = ("demo".parse().unwrap(), tarball("a"));
    let key = place.publish("1.0.0", &bytes);
    place.name(r#"{"version":"1.0.0"}"#);
    place.watch().look().await.unwrap();
    // The bucket names another one by now: nobody looks at the old one but who still runs it.
    place.publish("2.0.0", &tarball("b"));
    place.name(r#"{"version":"2.0.0"}"#);
    place.watch().look().await.unwrap();
    let etag = async || place.db.release(&app, &key).await.unwrap().unwrap().etag;
    let recorded = etag().await;
    place.publish("1.0.0", &bytes);
    let relay = place.relay();
    let (first, second) = tokio::join!(relayed(&relay, &key, 0), relayed(&relay, &key, 10));
    assert_eq!((first.unwrap(), second.unwrap()), (bytes.clone(), bytes[10..].to_vec()));
    let found = etag().await;
    assert_ne!(found, recorded);
    place.publish("1.0.0", &tarball("other"));
    for _ in 0..2 {
        assert!(matches!(relayed(&relay, &key, 0).await, Err(RelayError::Changed { .. })));
    }
    assert_eq!(etag().await, found);
    place.publish("1.0.0", &bytes);
    assert_eq!(relayed(&relay, &key, 0).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_bucket_that_cannot_be_read_heals_by_itself() {
    let place = Place::new().await;
    let key = place.publish("1.0.0", &tarball("a"));
    place.name(r#"{"version":"1.0.0"}"#);
    let path = place.folder.path().join("dist/demo/demo-1.0.0.tar.gz");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let mut watch = place.watch();
    assert!(watch.look().await.unwrap());
    assert!(place.state().await.1.starts_with("the bucket cannot be read: "), "{:?}", place.state().await);
    fs::remove_dir(&path).unwrap();
    place.publish("1.0.0", &tarball("a"));
    assert!(!watch.look().await.unwrap());
    assert_eq!(place.state().await, (Some(key), String::new()));
}

#[tokio::test]
async fn a_watch_ends_when_it_is_cancelled() {
    let place = Place::new().await;
    let key = place.publish("1.0.0", &tarball("a"));
    place.name(r#"{"version":"1.0.0"}"#);
    let cancel = CancellationToken::new();
    let (bucket, wake) = (place.bucket.clone(), Arc::clone(&place.bucket.wake));
    let (_changes, changed) = watch::channel(0);
    let ended = watch(bucket, changed, cancel.clone());
    tokio::join!(ended, async {
        wake.notified().await;
        cancel.cancel();
    });
    assert_eq!(place.state().await.0, Some(key));
}

#[tokio::test]
async fn the_watches_are_of_those_that_are_configured_and_go_by_what_is_configured() {
    let place = Place::new().await;
    let mut watches = Watches::default();
    let named = |watches: &Watches| watches.running.keys().map(ToString::to_string).collect::<Vec<_>>();
    let spec = |name: &str| AppSpec::new(name.parse().unwrap(), Language::Elixir);
    watches.follow(&place.bucket, vec![spec("one"), spec("two")]);
    assert_eq!(named(&watches), ["one", "two"]);
    let tokens = |watches: &Watches| watches.running.len();
    // What goes ends; what stays is not begun anew.
    let mut slower = spec("two");
    slower.schedule_interval.0 += 1;
    let before = watches.tasks.len();
    watches.follow(&place.bucket, vec![spec("two"), spec("three")]);
    assert_eq!((named(&watches), tokens(&watches)), (vec!["three".to_owned(), "two".to_owned()], 2));
    assert!(watches.tasks.len() <= before + 1, "one was begun");
    // Another interval is followed at once.
    watches.follow(&place.bucket, vec![slower.clone(), spec("three")]);
    assert_eq!(watches.running[&slower.name].0.interval, slower.schedule_interval.0);
    watches.end().await;
}

#[tokio::test]
async fn an_application_that_comes_later_is_watched_and_one_that_goes_is_not() {
    let place = Place::new().await;
    let key = place.publish("1.0.0", &tarball("a"));
    let (cancel, wake) = (CancellationToken::new(), Arc::clone(&place.bucket.wake));
    let demo: AppName = "demo".parse().unwrap();
    let drop_it = ApplicationsDiff { dropped: vec![demo.clone()], ..ApplicationsDiff::default() };
    place.db.put_applications(drop_it, Time(2)).await.unwrap();
    place.name(r#"{"version":"1.0.0"}"#);
    let (changes, changed) = watch::channel(0);
    let watching = watch(place.bucket.clone(), changed, cancel.clone());
    tokio::join!(watching, async {
        assert_eq!(place.db.bucket(&demo).await.unwrap(), None, "nobody looks for it");
        let spec = AppSpec::new(demo.clone(), Language::Elixir);
        let put = vec![NewApplication { spec, source: Owner::Yaml, cookie: vec![1] }];
        let diff = ApplicationsDiff { put, ..ApplicationsDiff::default() };
        place.db.put_applications(diff, Time(3)).await.unwrap();
        changes.send_modify(|it| *it += 1);
        wake.notified().await;
        cancel.cancel();
    });
    assert_eq!(place.state().await.0, Some(key));
}

#[tokio::test]
async fn a_version_that_nothing_named_is_recorded_on_request_with_what_current_json_says_of_it() {
    let place = Place::new().await;
    let app: AppName = "demo".parse().unwrap();
    let from = (&place.db, place.bucket.source.as_ref());
    let seek = async |version: &str| {
        record_unnamed(from, &app, Language::Elixir, &version.parse().unwrap(), Time(3)).await
    };
    let old = place.publish("1.0.0", &tarball("a"));
    assert_eq!(seek("1.0.0").await.unwrap(), old);
    assert_eq!(seek("1.0.0").await.unwrap(), old, "a second time changes nothing");
    assert_eq!(place.events().await, ["release_recorded"]);
    let new = place.publish("2.0.0", &tarball("b"));
    place.name(r#"{"version":"2.0.0","hash":"local","pre_commands":["eval A.b()"]}"#);
    assert_eq!(seek("2.0.0").await.unwrap(), new);
    let recorded = async |key| place.db.release(&app, key).await.unwrap().unwrap();
    assert_eq!(recorded(&old).await.pre_commands, [""; 0]);
    assert_eq!(recorded(&new).await.pre_commands, ["eval A.b()"]);
    assert!(matches!(seek("3.0.0").await, Err(SeekError::Missing { .. })));
    place.publish("3.0.0", &hostile::samples()[0].archive);
    assert!(matches!(seek("3.0.0").await, Err(SeekError::Refused { .. })));
    place.publish("4.0.0", &tarball("d"));
    place.name(&format!("{{\"version\":\"4.0.0\",\"hash\":\"{}\"}}", "0".repeat(64)));
    assert!(matches!(seek("4.0.0").await, Err(SeekError::WrongHash { .. })));
    let unavailable = UnavailableSource::new("s3", "prod".to_owned());
    let version = "1.0.0".parse().unwrap();
    let asked = record_unnamed((&place.db, &unavailable), &app, Language::Elixir, &version, Time(3)).await;
    assert!(matches!(asked, Err(SeekError::Source(SourceError::NotInBuild { adapter: "s3" }))));
}
