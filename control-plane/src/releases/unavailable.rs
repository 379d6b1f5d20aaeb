//! A bucket of a kind that this program cannot read: it says so wherever it is asked, and the rest goes on.

use async_trait::async_trait;
use proto::ids::{AppName, Version};
use proto::state::Language;

use super::source::{Chunks, Etag, Inspected, Looked, OpenError, ReadFault, Source, SourceError, Tarball};

#[derive(Clone, Debug)]
pub struct UnavailableSource {
    adapter: &'static str,
    environment: String,
}

impl UnavailableSource {
    /// `adapter` is the word of the configuration.
    pub fn new(adapter: &'static str, environment: String) -> Self {
        Self { adapter, environment }
    }

    fn refused(&self) -> SourceError {
        SourceError::NotInBuild { adapter: self.adapter }
    }
}

#[async_trait]
impl Source for UnavailableSource {
    fn document_name(&self, app: &AppName) -> String {
        format!("versions/{app}/{}/current.json", self.environment)
    }

    async fn document(&self, _: &AppName, _: Option<&Etag>) -> Result<Looked, SourceError> {
        Err(self.refused())
    }

    async fn tarball(&self, _: &AppName, _: &Version) -> Result<Option<Tarball>, SourceError> {
        Err(self.refused())
    }

    async fn inspect(&self, _: &AppName, _: &Version, _: Language) -> Result<Inspected, ReadFault> {
        Err(self.refused().into())
    }

    async fn open(&self, _: &AppName, _: &Version, _: &Etag, _: u64) -> Result<Chunks, OpenError> {
        Err(self.refused().into())
    }
}
