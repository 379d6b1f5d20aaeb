//! Where a tarball's bytes come from: asked for from an offset, so that a cut download goes on where it ended.
//!
//! What comes is not trusted: the store counts and hashes it.

use std::error::Error;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use proto::ids::{AppName, ReleaseKey};

/// The bytes from the offset asked for to the end.
pub type Chunks = BoxStream<'static, Result<Bytes, FetchError>>;

#[async_trait]
pub trait Fetch: Send + Sync {
    async fn open(&self, app: &AppName, key: &ReleaseKey, offset: u64) -> Result<Chunks, FetchError>;
}

/// Why no bytes come.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the tarball is no longer in the bucket; publish it again or deploy another version")]
    Gone,
    #[error(
        "the tarball in the bucket is no longer the one that was recorded; deploy the new one or put the old one back"
    )]
    Changed,
    #[error("the control plane is not connected")]
    NotConnected,
    #[error("the download was interrupted")]
    Interrupted(#[source] Box<dyn Error + Send + Sync>),
}
