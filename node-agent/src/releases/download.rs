//! Brings a tarball to this disk, going on where an earlier try ended.
//!
//! Nothing is verified here but the size: the bytes are hashed when they are unpacked, those of earlier tries included.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::spawn_blocking;

use super::store::{Flight, Wanted};
use super::unpack::remove_file;
use super::{Fetch, FetchError, StageError};

/// A stream that gives nothing for so long is given up: the connection may be dead without anybody having said so.
const SILENCE: Duration = Duration::from_mins(1);

/// The tarball as far as it is here. It holds the release's flight: a write that outlives a dropped download must be over
/// before the next download looks at the file.
struct Partial {
    path: PathBuf,
    file: File,
    bytes: u64,
    flight: Flight,
}

/// Returns once the file has as many bytes as were recorded.
pub(super) async fn download(
    path: &Path,
    wanted: &Wanted,
    fetch: &dyn Fetch,
    progress: &(impl Fn(u64) + Sync),
    flight: Flight,
) -> Result<Flight, StageError> {
    let (path, size) = (path.to_owned(), wanted.size);
    let mut partial = blocking(move || Partial::open(path, size, flight)).await?;
    progress(partial.bytes);
    if partial.bytes == size {
        return Ok(partial.flight);
    }
    let mut chunks = fetch.open(&wanted.app, &wanted.key, partial.bytes).await?;
    while let Some(chunk) = tokio::time::timeout(SILENCE, chunks.next())
        .await
        .map_err(|silence| FetchError::Interrupted(silence.into()))?
    {
        let chunk = chunk?;
        partial = blocking(move || partial.append(&chunk, size)).await?;
        progress(partial.bytes);
    }
    if partial.bytes < size {
        return Err(StageError::Short { expected: size, found: partial.bytes });
    }
    Ok(partial.flight)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StageError> + Send + 'static,
) -> Result<T, StageError> {
    spawn_blocking(work).await.map_err(StageError::Aborted)?
}

impl Partial {
    fn open(path: PathBuf, size: u64, flight: Flight) -> Result<Self, StageError> {
        let open = || OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let mut file = open().map_err(StageError::io("open", &path))?;
        let mut bytes = file.metadata().map_err(StageError::io("look at", &path))?.len();
        if bytes > size {
            remove_file(&path)?;
            file = open().map_err(StageError::io("open", &path))?;
            bytes = 0;
        }
        Ok(Self { path, file, bytes, flight })
    }

    fn append(mut self, chunk: &Bytes, size: u64) -> Result<Self, StageError> {
        let bytes = self.bytes + chunk.len() as u64;
        if bytes > size {
            remove_file(&self.path)?;
            return Err(StageError::Long { expected: size });
        }
        if let Err(error) = self.file.write_all(chunk) {
            let error = StageError::io("write", &self.path)(error);
            if matches!(error, StageError::DiskFull { .. }) {
                remove_file(&self.path)?;
            }
            return Err(error);
        }
        self.bytes = bytes;
        Ok(self)
    }
}
