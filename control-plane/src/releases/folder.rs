//! A bucket that is a folder on this machine.
//!
//! Its files are other people's: a FIFO or a device is never waited for, and a file that changes while it is read is told
//! from one that is wrong.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use proto::archive::{self, Expected, Limits, ReadError};
use proto::ids::{AppName, Version};
use proto::state::Language;
use rustix::fs::OFlags;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use super::source::{
    Chunks, Etag, Inspected, Looked, OpenError, ReadFault, Source, SourceError, Tarball, tarball_name,
};

const MAX_DOCUMENT: u64 = 256 << 10;
/// What one message to an agent carries at most.
const CHUNK: usize = 256 << 10;

#[derive(Clone, Debug)]
pub struct FolderSource {
    root: PathBuf,
    environment: String,
    /// Tarballs are read one at a time: nobody waits for a release as they wait for the console.
    reading: Arc<Semaphore>,
}

impl FolderSource {
    /// `environment` is the `{env}` of `versions/{app}/{env}/current.json`.
    pub fn new(root: PathBuf, environment: String) -> Self {
        Self { root, environment, reading: Arc::new(Semaphore::new(1)) }
    }

    /// `None` where there is none.
    fn open_file(&self, name: &str) -> Result<Option<(File, Metadata)>, SourceError> {
        let failed = |source| SourceError::Io { what: "read", name: self.shown(name), source };
        // Opening a FIFO would wait for its writer otherwise.
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = match OpenOptions::new().read(true).custom_flags(nonblocking).open(self.root.join(name)) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                // Nothing in the bucket, or no bucket: a path mistyped, a disk not mounted.
                let root = self.root.metadata().and_then(|it| match it.is_dir() {
                    true => Ok(()),
                    false => Err(io::ErrorKind::NotADirectory.into()),
                });
                let bucket = self.root.display().to_string();
                return root.map(|()| None).map_err(|source| SourceError::Bucket { name: bucket, source });
            }
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(SourceError::NotAFile { name: self.shown(name) });
        }
        Ok(Some((file, metadata)))
    }

    fn shown(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }

    async fn blocking<T: Send + 'static, E: From<SourceError> + Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let source = self.clone();
        spawn_blocking(move || work(&source)).await.map_err(SourceError::Aborted)?
    }

    fn read_document(&self, name: &str, seen: Option<&Etag>) -> Result<Looked, SourceError> {
        let Some((file, metadata)) = self.open_file(name)? else { return Ok(Looked::Absent) };
        let etag = etag(&metadata);
        if seen == Some(&etag) {
            return Ok(Looked::Same);
        }
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(|source| SourceError::Io {
            what: "read",
            name: self.shown(name),
            source,
        })?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            let size = metadata.len();
            return Err(SourceError::TooLarge { name: self.shown(name), size, max: MAX_DOCUMENT });
        }
        Ok(Looked::Found { etag, bytes: bytes.into() })
    }

    fn read_tarball(
        &self,
        app: &AppName,
        version: &Version,
        language: Language,
        stop: &CancellationToken,
    ) -> Result<Inspected, ReadFault> {
        let name = tarball_name(app, version);
        let failed = |source| SourceError::Io { what: "read", name: self.shown(&name), source };
        let Some((file, before)) = self.open_file(&name)? else { return Err(ReadFault::Gone) };
        let reader = Stoppable { file: &file, stop };
        let archive = match archive::inspect(reader, &Limits::default(), &Expected { app, language }) {
            Ok(inspection) => Ok(inspection),
            Err(ReadError::Fault(fault)) => Err(fault),
            Err(ReadError::Read(source)) => return Err(failed(source).into()),
            Err(ReadError::Sink(never)) => match never {},
        };
        // The path may by now lead to another file, or this one may have been written on.
        let etag = etag(&before);
        match self.open_file(&name)? {
            Some((_, after)) if self::etag(&after) == etag => Ok(Inspected { etag, archive }),
            Some(_) => Err(ReadFault::Changed),
            None => Err(ReadFault::Gone),
        }
    }
}

#[async_trait]
impl Source for FolderSource {
    fn document_name(&self, app: &AppName) -> String {
        format!("versions/{app}/{}/current.json", self.environment)
    }

    async fn document(&self, app: &AppName, seen: Option<&Etag>) -> Result<Looked, SourceError> {
        let (name, seen) = (self.document_name(app), seen.cloned());
        self.blocking(move |source| source.read_document(&name, seen.as_ref())).await
    }

    async fn tarball(&self, app: &AppName, version: &Version) -> Result<Option<Tarball>, SourceError> {
        let name = tarball_name(app, version);
        self.blocking(move |source| {
            let found = source.open_file(&name)?;
            Ok(found.map(|(_, metadata)| Tarball { etag: etag(&metadata), size: metadata.len() }))
        })
        .await
    }

    async fn inspect(
        &self,
        app: &AppName,
        version: &Version,
        language: Language,
    ) -> Result<Inspected, ReadFault> {
        let turn = Arc::clone(&self.reading).acquire_owned().await;
        let stop = CancellationToken::new();
        // Whoever stops waiting for the answer stops the reading too.
        let _guard = stop.clone().drop_guard();
        let (app, version) = (app.clone(), version.clone());
        self.blocking(move |source| {
            let _held = turn;
            source.read_tarball(&app, &version, language, &stop)
        })
        .await
    }

    async fn open(
        &self,
        app: &AppName,
        version: &Version,
        etag: &Etag,
        offset: u64,
    ) -> Result<Chunks, OpenError> {
        let (name, etag) = (tarball_name(app, version), etag.clone());
        let (file, shown) = self
            .blocking(move |source| {
                let Some((mut file, metadata)) = source.open_file(&name)? else {
                    return Err(OpenError::Gone);
                };
                if self::etag(&metadata) != etag {
                    return Err(OpenError::Changed);
                }
                let shown = source.shown(&name);
                match file.seek(SeekFrom::Start(offset)) {
                    Ok(_) => Ok((file, shown)),
                    Err(error) => Err(SourceError::Io { what: "read", name: shown, source: error }.into()),
                }
            })
            .await?;
        let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK)
            .map_ok(Bytes::from)
            .map_err(move |source| SourceError::Io { what: "read", name: shown.clone(), source });
        Ok(Box::pin(stream))
    }
}

/// A file that is written in place keeps its inode, one that is replaced may keep its size and time. Without the device: its
/// number is another one after a restart of the host or of a container.
fn etag(metadata: &Metadata) -> Etag {
    let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
    Etag(format!("{seconds}.{nanos:09}-{}-{}", metadata.size(), metadata.ino()))
}

/// Ends a long read when nobody waits for it any more.
struct Stoppable<'a> {
    file: &'a File,
    stop: &'a CancellationToken,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "nobody waits for it any more"));
        }
        self.file.read(into)
    }
}
