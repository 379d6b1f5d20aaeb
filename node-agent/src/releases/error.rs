//! Why a release could not be brought into a slot, and whether trying again can help.

use std::io;
use std::path::{Path, PathBuf};

use proto::archive::Fault;
use proto::ids::{Digest, Version};

use super::FetchError;

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the download ended after {found} of {expected} bytes")]
    Short { expected: u64, found: u64 },
    #[error("the tarball has more than the {expected} bytes that were recorded")]
    Long { expected: u64 },
    #[error("the tarball's SHA-256 is {found}, not {expected} as recorded; it was thrown away")]
    WrongDigest { expected: Digest, found: Digest },
    /// Its bytes are the right ones, so no further try changes it.
    #[error("the release archive was refused: {0}")]
    Archive(Fault),
    /// It would be so each time.
    #[error(
        "release {version} is built for {built_for}, this host is {host}; build it for {host} and publish it anew"
    )]
    Machine { version: Version, built_for: &'static str, host: &'static str },
    #[error("no room left on the disk of {}; what was written was removed", path.display())]
    DiskFull { path: PathBuf },
    #[error("{} of the unpacked release was changed or lost; it will be fetched again", path.display())]
    Damaged { path: PathBuf },
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the work was broken off")]
    Aborted(#[source] tokio::task::JoinError),
}

impl StageError {
    /// Trying again can only fail in the same way.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Archive(_) | Self::Machine { .. })
    }

    /// For `map_err`: what was done to which path. A full disk has its own words.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            if is_no_room(&source) { Self::DiskFull { path } } else { Self::Io { what, path, source } }
        }
    }

    /// The same for the errors of `rustix`.
    pub(super) fn os(what: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::io(what, path)(errno.into())
    }
}

/// The disk, the user's quota on it, or the largest file this process may write.
fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
