//! Looks at the bucket for every application that is configured, and stores what changed.
//!
//! One task per application, so that a large tarball of one keeps nobody else waiting for its `current.json`. The database
//! is asked and told only when a look differs from the last one; it is the one that remembers across restarts.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use proto::ids::{AppName, ReleaseKey};
use proto::state::{Language, Severity};
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::current::Current;
use super::source::{Etag, Looked, ReadFault, Source, SourceError, Tarball};
use super::trouble::Trouble;
use super::verdict::{Document, Look, Outcome, Read, Record, Stand, Verdict, judge};
use crate::clock::Clock;
use crate::db::{BucketFault, Db, DbError, NewEvent, Release};
use crate::spec::AppSpec;

/// While something is waited for, the looks grow rarer up to this, or to the application's own interval if that is longer.
const RAREST: Duration = Duration::from_secs(30);
/// An interval of nothing would be a busy loop.
const SHORTEST: Duration = Duration::from_millis(100);

/// Everything that a watch works with.
#[derive(Clone, Debug)]
pub struct Bucket {
    pub source: Arc<dyn Source>,
    pub db: Db,
    pub clock: Clock,
    /// Woken when a wish changed.
    pub wake: Arc<Notify>,
}

/// Where the applications could not be loaded.
const RETRY: Duration = Duration::from_secs(1);

/// Watches until it is cancelled; looks which applications there are whenever `changes` does.
pub async fn watch(bucket: Bucket, mut changes: watch::Receiver<u64>, cancel: CancellationToken) {
    let mut watches = Watches::default();
    loop {
        let again = match bucket.db.applications().await {
            Ok(all) => {
                let specs = all.into_iter().filter(|it| it.configured).map(|it| it.spec);
                watches.follow(&bucket, specs.collect());
                None
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "whose releases are to be watched cannot be loaded; trying again");
                Some(RETRY)
            }
        };
        let retry = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased; // stopping comes before new work
            () = cancel.cancelled() => break,
            changed = changes.changed() => if changed.is_err() {
                // Nobody is left who could change anything.
                cancel.cancelled().await;
                break;
            },
            () = retry => {}
        }
    }
    watches.end().await;
}

/// The watches that run.
#[derive(Default)]
struct Watches {
    running: BTreeMap<AppName, (Watched, DropGuard)>,
    tasks: JoinSet<()>,
}

/// What a watch goes by: another one takes its place where this changes.
#[derive(PartialEq, Eq)]
struct Watched {
    language: Language,
    interval: u64,
}

impl Watches {
    /// A look that is broken off is looked again by who comes after: nothing it did is half done.
    fn follow(&mut self, bucket: &Bucket, specs: Vec<AppSpec>) {
        let mut before = std::mem::take(&mut self.running);
        for spec in specs {
            let wanted = Watched { language: spec.language, interval: spec.schedule_interval.0 };
            let runs = before.remove(&spec.name).filter(|(watched, _)| *watched == wanted);
            let entry = runs.unwrap_or_else(|| {
                let (watch, cancel) = (Watch::new(bucket.clone(), &spec), CancellationToken::new());
                let guard = cancel.clone().drop_guard();
                self.tasks.spawn(async move {
                    let _ = Box::pin(cancel.run_until_cancelled(watch.run())).await;
                });
                (wanted, guard)
            });
            self.running.insert(spec.name, entry);
        }
        // Those that are not wanted any more end here, with their guards.
        drop(before);
        while self.tasks.try_join_next().is_some() {}
    }

    async fn end(mut self) {
        self.running.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

struct Watch {
    bucket: Bucket,
    app: AppName,
    language: Language,
    interval: Duration,
    /// How often in a row something was waited for.
    waits: u32,
    document: Option<Document>,
    tarball: Option<Tarball>,
    read: Option<Read>,
    /// Something was seen that has not been stored yet.
    is_news: bool,
    /// What the database was last told.
    told: Option<(Option<Etag>, Stand)>,
}

impl Watch {
    fn new(bucket: Bucket, spec: &AppSpec) -> Self {
        Self {
            bucket,
            app: spec.name.clone(),
            language: spec.language,
            interval: Duration::from_millis(spec.schedule_interval.0).max(SHORTEST),
            waits: 0,
            document: None,
            tarball: None,
            read: None,
            is_news: false,
            told: None,
        }
    }

    async fn run(mut self) {
        loop {
            let is_waiting = match self.look().await {
                Ok(is_waiting) => is_waiting,
                Err(error) => {
                    tracing::warn!(app = %self.app, error = %chain(&error), "what the bucket holds cannot be stored");
                    true
                }
            };
            self.waits = if is_waiting { self.waits.saturating_add(1) } else { 0 };
            tokio::time::sleep(pause(self.interval, self.waits)).await;
        }
    }

    /// Looks once and stores what changed. Says whether something is waited for.
    async fn look(&mut self) -> Result<bool, DbError> {
        if let Err(trouble) = self.observe().await {
            return self.tell(Stand { records: Vec::new(), outcome: Outcome::Trouble(trouble) }).await;
        }
        match &self.told {
            Some((_, stand)) if !self.is_news && stand.is_settled() => Ok(stand.is_wait()),
            _ => self.settle().await,
        }
    }

    async fn observe(&mut self) -> Result<(), Trouble> {
        let seen = self.document.as_ref().and_then(Document::etag);
        let document = match self.bucket.source.document(&self.app, seen).await.map_err(unreadable)? {
            Looked::Same => None,
            Looked::Absent => Some(Document::Absent),
            Looked::Found { etag, bytes } => Some(match Current::parse(&bytes) {
                Ok(current) => Document::Good { etag, current },
                Err(bad) => Document::Bad { etag, why: bad.to_string() },
            }),
        };
        if document.is_some() && document != self.document {
            self.document = document;
            self.is_news = true;
        }
        let tarball = match &self.document {
            Some(Document::Good { current, .. }) => {
                self.bucket.source.tarball(&self.app, &current.version).await.map_err(unreadable)?
            }
            _ => None,
        };
        if tarball != self.tarball {
            self.tarball = tarball;
            self.is_news = true;
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<bool, DbError> {
        let Some(document) = self.document.clone() else { return Ok(true) };
        let bucket = self.bucket.db.bucket(&self.app).await?;
        let application = self.bucket.db.application(&self.app).await?;
        let etag = document.etag().map(|etag| etag.0.as_str());
        let known = bucket.as_ref().filter(|bucket| bucket.etag.as_deref() == etag);
        let named_for = known.map(|it| Duration::from_millis(self.bucket.clock.wall().since(it.named_at)));
        let recorded = match &document {
            Document::Good { current, .. } => {
                self.bucket.db.releases_of_version(&self.app, &current.version).await?
            }
            _ => Vec::new(),
        };
        loop {
            let look = Look {
                document: &document,
                tarball: self.tarball.as_ref(),
                read: self.read.as_ref(),
                recorded: &recorded,
                wish: bucket.as_ref().and_then(|bucket| bucket.wish.as_ref()),
                asked_for: application
                    .as_ref()
                    .and_then(|application| application.manual.as_ref())
                    .map(|manual| &manual.release),
                named_for: named_for.unwrap_or_default(),
                has_packages: self.language != Language::Gleam,
            };
            let version = match judge(&look) {
                Verdict::Stand(stand) => return self.tell(stand).await,
                Verdict::Read { version } => version,
            };
            match self.bucket.source.inspect(&self.app, &version, self.language).await {
                Ok(inspected) => {
                    // What was read may be newer than what was listed: the listing follows, or it would be read for ever.
                    if let Some(tarball) = &mut self.tarball {
                        tarball.etag = inspected.etag.clone();
                    }
                    self.read = Some(Read { version, etag: inspected.etag, archive: inspected.archive });
                }
                Err(ReadFault::Gone | ReadFault::Changed) => {
                    // It is being written. The next look finds it whole, or gone.
                    return Ok(true);
                }
                Err(ReadFault::Source(error)) => {
                    let outcome = Outcome::Trouble(unreadable(error));
                    return self.tell(Stand { records: Vec::new(), outcome }).await;
                }
            }
        }
    }

    /// Stores where it differs from what is stored. Says whether something is waited for.
    async fn tell(&mut self, stand: Stand) -> Result<bool, DbError> {
        let etag = self.document.as_ref().and_then(Document::etag).cloned();
        let is_wait = stand.is_wait();
        let now_told = (etag, stand);
        if self.told.as_ref() == Some(&now_told) {
            self.is_news = false;
            return Ok(is_wait);
        }
        let (etag, stand) = &now_told;
        for record in &stand.records {
            self.record(record).await?;
        }
        let etag = etag.as_ref().map(|etag| etag.0.as_str());
        let changed = match &stand.outcome {
            Outcome::Wish(key) => self.tell_wish(etag, key).await?,
            Outcome::Trouble(trouble) => self.tell_trouble(etag, trouble).await?,
        };
        self.told = Some(now_told);
        self.is_news = false;
        if changed {
            self.bucket.wake.notify_one();
        }
        Ok(is_wait)
    }

    async fn tell_wish(&self, etag: Option<&str>, key: &ReleaseKey) -> Result<bool, DbError> {
        let text = format!("the bucket names {key} as the release of {}", self.app);
        let event = self.event("release_named", Severity::Info, text, Some(key));
        self.bucket.db.set_bucket_wish(&self.app, etag, key, self.bucket.clock.wall(), &[event]).await
    }

    async fn tell_trouble(&self, etag: Option<&str>, trouble: &Trouble) -> Result<bool, DbError> {
        let document = self.bucket.source.document_name(&self.app);
        let text = trouble.sentence(self.app.as_str(), &document).to_string();
        let event = self.event(trouble.kind(), trouble.severity(), text.clone(), None);
        let now = self.bucket.clock.wall();
        let fault = BucketFault { kind: trouble.fault_kind(), text };
        self.bucket.db.set_bucket_fault(&self.app, etag, Some(&fault), now, &[event]).await
    }

    async fn record(&self, record: &Record) -> Result<(), DbError> {
        match record {
            Record::Moved { key, etag } => self.bucket.db.set_release_etag(&self.app, key, &etag.0).await,
            Record::Package { key, package } => {
                self.bucket.db.set_release_package(&self.app, key, package).await
            }
            Record::PreCommands { key, pre_commands } => {
                let now = match pre_commands.as_slice() {
                    [] => "none".to_owned(),
                    some => some.join("; "),
                };
                let text =
                    format!("{} {key} has other pre-commands from its next deployment on: {now}", self.app);
                let event = self.event("pre_commands_changed", Severity::Info, text, Some(key));
                self.bucket.db.set_pre_commands(&self.app, key, pre_commands, &[event]).await
            }
            Record::New { key, size, etag, package } => {
                let current = match &self.document {
                    Some(Document::Good { current, .. }) => Some(current),
                    _ => None,
                };
                let release = Release {
                    app: self.app.clone(),
                    key: key.clone(),
                    size: *size,
                    declared_hash: current.and_then(|current| current.hash.clone()),
                    pre_commands: current.map(|current| current.pre_commands.clone()).unwrap_or_default(),
                    etag: Some(etag.0.clone()),
                    recorded_at: self.bucket.clock.wall(),
                    package: package.clone(),
                };
                let text = format!("{} {key} was found and read: {size} bytes", self.app);
                let event = self.event("release_recorded", Severity::Info, text, Some(key));
                self.bucket.db.record_release(&release, &[event]).await.map(drop)
            }
        }
    }

    fn event(&self, kind: &str, severity: Severity, text: String, key: Option<&ReleaseKey>) -> NewEvent {
        let mut data = Map::new();
        if let Some(ReleaseKey { version, sha256 }) = key {
            data.insert("version".to_owned(), Value::String(version.to_string()));
            data.insert("sha256".to_owned(), Value::String(sha256.to_string()));
        }
        let event = NewEvent::new(self.bucket.clock.wall(), kind, severity, text);
        NewEvent { app: Some(self.app.clone()), data, ..event }
    }
}

impl Stand {
    fn is_wait(&self) -> bool {
        matches!(&self.outcome, Outcome::Trouble(trouble) if trouble.is_wait())
    }

    /// Nothing but a change of the bucket changes it.
    fn is_settled(&self) -> bool {
        match &self.outcome {
            Outcome::Wish(_) => true,
            Outcome::Trouble(trouble) => trouble.is_settled(),
        }
    }
}

fn pause(interval: Duration, waits: u32) -> Duration {
    let factor = 1_u32 << waits.saturating_sub(1).min(8);
    interval.saturating_mul(factor).min(RAREST.max(interval))
}

fn unreadable(error: SourceError) -> Trouble {
    match error {
        SourceError::NotInBuild { adapter } => Trouble::NoSource { adapter },
        error => Trouble::Unreadable { why: chain(&error) },
    }
}

/// The error with its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
