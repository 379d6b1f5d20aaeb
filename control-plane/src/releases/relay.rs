//! A recorded release's tarball, for an agent that fetches it from us.
//!
//! What counts is its SHA-256. Which state of the object has it is remembered, so that it is not read for each agent; where
//! the object is another one now (a bucket that was copied, restored or mounted anew) it is read once more.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::ids::{AppName, ReleaseKey};
use tokio::sync::Mutex;

use super::source::{Chunks, Etag, OpenError, ReadFault, Source, SourceError};
use crate::db::{Db, DbError, Release};

/// Why a tarball cannot be relayed.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("{app} has no recorded release {key}")]
    Unknown { app: AppName, key: ReleaseKey },
    #[error("the tarball of {app} {key} is no longer in the bucket")]
    Gone { app: AppName, key: ReleaseKey },
    /// The version's tarball was replaced after it was recorded.
    #[error("the tarball of {app} {key} in the bucket is no longer the one that was recorded")]
    Changed { app: AppName, key: ReleaseKey },
    #[error("the bucket cannot be read")]
    Source(#[source] SourceError),
    #[error("the release cannot be looked up")]
    Db(#[source] DbError),
}

/// Relays tarballs.
pub struct Relay {
    db: Db,
    source: Arc<dyn Source>,
    /// What was read in vain: it is another tarball, and stays so until the object changes. Held while one is read, so that
    /// a hundred agents that ask at once are one reason to read it.
    others: Mutex<BTreeMap<(AppName, ReleaseKey), Etag>>,
}

impl Relay {
    pub fn new(db: Db, source: Arc<dyn Source>) -> Self {
        Self { db, source, others: Mutex::default() }
    }

    /// From `offset` to the end, if the object in the bucket still has the bytes that were recorded.
    pub async fn open(&self, app: &AppName, key: &ReleaseKey, offset: u64) -> Result<Chunks, RelayError> {
        let etag = self.etag(app, key).await?;
        match self.source.open(app, &key.version, &etag, offset).await {
            Err(OpenError::Changed) => {
                let etag = self.found_again(app, key, &etag).await?;
                self.source.open(app, &key.version, &etag, offset).await
            }
            opened => opened,
        }
        .map_err(|error| match error {
            OpenError::Gone => RelayError::Gone { app: app.clone(), key: key.clone() },
            OpenError::Changed => RelayError::Changed { app: app.clone(), key: key.clone() },
            OpenError::Source(error) => RelayError::Source(error),
        })
    }

    /// Of the object that had the release's bytes when it was last read.
    async fn etag(&self, app: &AppName, key: &ReleaseKey) -> Result<Etag, RelayError> {
        let release = self.db.release(app, key).await.map_err(RelayError::Db)?;
        let etag = release.and_then(|Release { etag, .. }| etag);
        etag.map(Etag).ok_or_else(|| RelayError::Unknown { app: app.clone(), key: key.clone() })
    }

    /// The object is not the one that was read: reads it, and remembers it where it has the same bytes.
    async fn found_again(&self, app: &AppName, key: &ReleaseKey, was: &Etag) -> Result<Etag, RelayError> {
        let gone = || RelayError::Gone { app: app.clone(), key: key.clone() };
        let changed = || RelayError::Changed { app: app.clone(), key: key.clone() };
        let mut others = self.others.lock().await;
        let known = self.etag(app, key).await?;
        if known != *was {
            return Ok(known);
        }
        let listed = self.source.tarball(app, &key.version).await.map_err(RelayError::Source)?;
        let listed = listed.ok_or_else(gone)?.etag;
        let this = (app.clone(), key.clone());
        if others.get(&this) == Some(&listed) {
            return Err(changed());
        }
        let application = self.db.application(app).await.map_err(RelayError::Db)?;
        let language = application.ok_or_else(gone)?.spec.language;
        let inspected = match self.source.inspect(app, &key.version, language).await {
            Ok(inspected) => inspected,
            Err(ReadFault::Gone) => return Err(gone()),
            // It is being written.
            Err(ReadFault::Changed) => return Err(changed()),
            Err(ReadFault::Source(error)) => return Err(RelayError::Source(error)),
        };
        if inspected.archive.is_ok_and(|archive| archive.summary.sha256 == key.sha256) {
            let etag = &inspected.etag.0;
            self.db.set_release_etag(app, key, etag).await.map_err(RelayError::Db)?;
            tracing::info!(%app, %key, "the bucket holds a recorded tarball as another object");
            others.remove(&this);
            Ok(inspected.etag)
        } else {
            others.insert(this, inspected.etag);
            Err(changed())
        }
    }
}
