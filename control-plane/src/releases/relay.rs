//! A recorded release's tarball, for an agent that fetches it from us.

use proto::ids::{AppName, ReleaseKey};

use super::source::{Chunks, Etag, OpenError, Source, SourceError};
use crate::db::{Db, DbError};

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

/// From `offset` to the end, if the object in the bucket is still the one that was recorded.
pub async fn relay(
    db: &Db,
    source: &dyn Source,
    app: &AppName,
    key: &ReleaseKey,
    offset: u64,
) -> Result<Chunks, RelayError> {
    let release = db.release(app, key).await.map_err(RelayError::Db)?;
    let (app, key) = (app.clone(), key.clone());
    let Some(etag) = release.and_then(|release| release.etag) else {
        return Err(RelayError::Unknown { app, key });
    };
    match source.open(&app, &key.version, &Etag(etag), offset).await {
        Ok(chunks) => Ok(chunks),
        Err(OpenError::Gone) => Err(RelayError::Gone { app, key }),
        Err(OpenError::Changed) => Err(RelayError::Changed { app, key }),
        Err(OpenError::Source(error)) => Err(RelayError::Source(error)),
    }
}
