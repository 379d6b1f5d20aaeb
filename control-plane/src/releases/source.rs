//! What every kind of bucket can do, and how its paths are named.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use std::fmt;
use std::io;

use async_trait::async_trait;
use proto::archive::{Fault, Inspection};
use proto::ids::{AppName, Version};
use proto::state::Language;

/// Which state of an object this is: compared, never understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(pub String);

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tarball as the bucket lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tarball {
    pub etag: Etag,
    pub size: u64,
}

/// A look at `current.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    Absent,
    /// Still what was seen before.
    Same,
    Found {
        etag: Etag,
        bytes: Bytes,
    },
}

/// A tarball that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    pub etag: Etag,
    pub archive: Result<Inspection, Fault>,
}

/// A tarball's bytes, from an offset to the end.
pub type Chunks = BoxStream<'static, Result<Bytes, SourceError>>;

#[async_trait]
pub trait Source: Send + Sync + fmt::Debug {
    /// The name of an application's `current.json` in the bucket, for people.
    fn document_name(&self, app: &AppName) -> String;

    async fn document(&self, app: &AppName, seen: Option<&Etag>) -> Result<Looked, SourceError>;

    /// `None`: not there (yet).
    async fn tarball(&self, app: &AppName, version: &Version) -> Result<Option<Tarball>, SourceError>;

    /// Reads all of it once.
    async fn inspect(
        &self,
        app: &AppName,
        version: &Version,
        language: Language,
    ) -> Result<Inspected, ReadFault>;

    /// Its bytes, if it is still the object that `etag` names.
    async fn open(
        &self,
        app: &AppName,
        version: &Version,
        etag: &Etag,
        offset: u64,
    ) -> Result<Chunks, OpenError>;
}

/// The name of a tarball in the bucket.
pub(super) fn tarball_name(app: &AppName, version: &Version) -> String {
    format!("dist/{app}/{app}-{version}.tar.gz")
}

/// The bucket could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot {what} {name}")]
    Io {
        what: &'static str,
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("the bucket {name} cannot be read: `release_bucket` names the folder")]
    Bucket {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("{name} is not a file")]
    NotAFile { name: String },
    #[error("{name} has {size} bytes; no current.json needs more than {max}")]
    TooLarge { name: String, size: u64, max: u64 },
    #[error(
        "releases cannot be fetched from {adapter} by this version of DeployEx: use release_adapter local, a folder"
    )]
    NotInBuild { adapter: &'static str },
    #[error("the work was broken off")]
    Aborted(#[source] tokio::task::JoinError),
}

/// Why a tarball could not be read to its end. None of these is a fault of the tarball.
#[derive(Debug, thiserror::Error)]
pub enum ReadFault {
    #[error("it is no longer there")]
    Gone,
    #[error("it changed while it was read")]
    Changed,
    #[error(transparent)]
    Source(#[from] SourceError),
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the tarball is no longer in the bucket")]
    Gone,
    #[error("the tarball in the bucket is not the one that was recorded")]
    Changed,
    #[error(transparent)]
    Source(#[from] SourceError),
}
