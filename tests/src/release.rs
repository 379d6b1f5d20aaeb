//! Sample releases: built once, published into a bucket that belongs to the test.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use xtask::bucket;
use xtask::fixtures::{self, Sample, Tarball};

/// The `{env}` in the bucket's paths.
pub const ENVIRONMENT: &str = "local";

/// A local bucket in a temporary folder.
#[derive(Debug)]
pub struct Bucket {
    folder: TempDir,
}

impl Bucket {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder can be made") }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Builds the version where it was not built before, and publishes it as CI would.
    pub async fn publish(&self, sample: Sample, version: &str) {
        let tarball = tarball(sample, version).await;
        bucket::publish(self.path(), ENVIRONMENT, &tarball).expect("the bucket is ours");
    }

    /// The same with commands that run before it takes its place.
    pub async fn publish_with(&self, sample: Sample, version: &str, pre_commands: &[String]) {
        let tarball = tarball(sample, version).await;
        std::fs::copy(&tarball.path, self.tarball_path(sample.name(), version)).expect("the bucket is ours");
        let commands = pre_commands.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(",");
        let json = format!("{{\"version\":\"{version}\",\"hash\":\"-\",\"pre_commands\":[{commands}]}}");
        self.write_current(sample.name(), &json);
    }

    /// Writes `current.json` as given, sensible or not.
    pub fn write_current(&self, app: &str, json: &str) {
        bucket::write_current(self.path(), ENVIRONMENT, app, json).expect("the bucket is ours");
    }

    /// Puts these bytes where the tarball of a version belongs, whole or not at all.
    pub fn put_tarball(&self, app: &str, version: &str, bytes: &[u8]) {
        bucket::put_tarball(self.path(), app, version, bytes).expect("the bucket is ours");
    }

    pub fn current_path(&self, app: &str) -> PathBuf {
        bucket::current_path(self.path(), app, ENVIRONMENT)
    }

    pub fn tarball_path(&self, app: &str, version: &str) -> PathBuf {
        bucket::tarball_path(self.path(), app, version)
    }
}

impl Default for Bucket {
    fn default() -> Self {
        Self::new()
    }
}

/// The tarball of a sample, built at most once per version.
pub async fn tarball(sample: Sample, version: &str) -> Tarball {
    let wanted = version.to_owned();
    let built = tokio::task::spawn_blocking(move || fixtures::tarball(sample, &wanted)).await;
    match built.expect("building does not panic") {
        Ok(tarball) => tarball,
        Err(error) => panic!("{sample} {version} could not be built: {error:#}"),
    }
}
