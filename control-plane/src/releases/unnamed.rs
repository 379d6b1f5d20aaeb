//! A version that a person asks for and that no `current.json` has named: looked for in the bucket, read and recorded.
//!
//! Its pre-commands are unknown, so it has none, unless `current.json` names this very version now.

use proto::archive::{self, Fault};
use proto::ids::{AppName, Digest, ReleaseKey, Version};
use proto::state::{Language, Severity};

use super::current::Current;
use super::source::{Looked, ReadFault, Source, SourceError, tarball_name};
use crate::clock::Time;
use crate::db::{Db, DbError, NewEvent, Release};

/// Why a version cannot be had from the bucket.
#[derive(Debug, thiserror::Error)]
pub enum SeekError {
    #[error("{name} is not in the bucket")]
    Missing { name: String },
    #[error("{name} is being written: try again in a moment")]
    Unfinished { name: String },
    #[error("{name} was refused: {fault}")]
    Refused { name: String, fault: Fault },
    #[error("{name} has the SHA-256 {found}, but current.json says {written}")]
    WrongHash { name: String, found: Digest, written: Digest },
    #[error("the bucket cannot be read")]
    Source(#[from] SourceError),
    #[error("what was found cannot be recorded")]
    Db(#[from] DbError),
}

/// Records the version as it lies in the bucket now.
pub async fn record_unnamed(
    (db, source): (&Db, &dyn Source),
    app: &AppName,
    language: Language,
    version: &Version,
    now: Time,
) -> Result<ReleaseKey, SeekError> {
    let name = tarball_name(app, version);
    let tarball = source.tarball(app, version).await?;
    let Some(tarball) = tarball else { return Err(SeekError::Missing { name }) };
    let inspected = match source.inspect(app, version, language).await {
        Ok(inspected) => inspected,
        Err(ReadFault::Gone) => return Err(SeekError::Missing { name }),
        Err(ReadFault::Changed) => return Err(SeekError::Unfinished { name }),
        Err(ReadFault::Source(error)) => return Err(error.into()),
    };
    let archive::Inspection { summary, package } = match inspected.archive {
        Ok(inspection) => inspection,
        // It may be half of what it will be.
        Err(_) if inspected.etag != tarball.etag => return Err(SeekError::Unfinished { name }),
        Err(fault) => return Err(SeekError::Refused { name, fault }),
    };
    let current = named(source, app, version).await?;
    if let Some(written) = current.as_ref().and_then(Current::digest).filter(|it| *it != summary.sha256) {
        return Err(SeekError::WrongHash { name, found: summary.sha256, written });
    }
    let key = ReleaseKey { version: version.clone(), sha256: summary.sha256 };
    let release = Release {
        app: app.clone(),
        key: key.clone(),
        size: summary.size,
        declared_hash: current.as_ref().and_then(|current| current.hash.clone()),
        pre_commands: current.map(|current| current.pre_commands).unwrap_or_default(),
        etag: Some(inspected.etag.0),
        recorded_at: now,
        package,
    };
    let text = format!("{app} {key} was found on request and read: {} bytes", summary.size);
    let mut event = NewEvent::new(now, "release_recorded", Severity::Info, text);
    event.app = Some(app.clone());
    event.data.insert("version".to_owned(), version.to_string().into());
    event.data.insert("sha256".to_owned(), key.sha256.to_string().into());
    db.record_release(&release, &[event]).await?;
    Ok(key)
}

/// `current.json`, where it is good and names this version.
async fn named(
    source: &dyn Source,
    app: &AppName,
    version: &Version,
) -> Result<Option<Current>, SourceError> {
    Ok(match source.document(app, None).await? {
        Looked::Found { bytes, .. } => Current::parse(&bytes).ok().filter(|it| it.version == *version),
        Looked::Absent | Looked::Same => None,
    })
}
