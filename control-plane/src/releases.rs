//! What the bucket holds: which release an application should run, and the tarballs themselves.
//!
//! [`Source`] is a place that holds `versions/{app}/{env}/current.json` and `dist/{app}/{app}-{version}.tar.gz`; [`watch`]
//! looks there for every application and stores what it finds. What an observation means is decided in `verdict`, without
//! I/O; deploying is the reconciler's, which is only woken.

mod current;
mod folder;
mod relay;
mod source;
mod trouble;
mod unavailable;
mod unnamed;
mod verdict;
mod watcher;

pub use current::{BadCurrent, Current};
pub use folder::FolderSource;
pub use relay::{Relay, RelayError};
pub use source::{Chunks, Etag, Inspected, Looked, OpenError, ReadFault, Source, SourceError, Tarball};
pub use unavailable::UnavailableSource;
pub use unnamed::{SeekError, record_unnamed};
pub use watcher::{Bucket, watch};
