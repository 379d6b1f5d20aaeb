//! Puts a release into a local bucket, as CI would: the tarball first, then `current.json`, each whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::fixtures::{Tarball, digest};

/// Where the tarball of a version lies in a bucket.
pub fn tarball_path(bucket: &Path, app: &str, version: &str) -> PathBuf {
    bucket.join("dist").join(app).join(format!("{app}-{version}.tar.gz"))
}

/// Where the wish for an application lies in a bucket.
pub fn current_path(bucket: &Path, app: &str, environment: &str) -> PathBuf {
    bucket.join("versions").join(app).join(environment).join("current.json")
}

/// Publishes a tarball under its own name, version and digest.
pub fn publish(bucket: &Path, environment: &str, tarball: &Tarball) -> Result<()> {
    publish_file(bucket, environment, tarball.sample.name(), &tarball.version, &tarball.path)
}

/// As [`publish`], whatever is in the file.
pub fn publish_file(bucket: &Path, environment: &str, app: &str, version: &str, file: &Path) -> Result<()> {
    put(&tarball_path(bucket, app, version), |new| fs::copy(file, new).map(|_| ()))?;
    let digest = digest(file)?;
    let json =
        format!("{{\"version\": \"{version}\", \"hash\": \"sha256:{digest}\", \"pre_commands\": []}}\n");
    write_current(bucket, environment, app, &json)
}

/// Writes `current.json` as it is given, also where that is nonsense.
pub fn write_current(bucket: &Path, environment: &str, app: &str, json: &str) -> Result<()> {
    put(&current_path(bucket, app, environment), |new| fs::write(new, json))
}

/// Puts these bytes where the tarball of a version belongs, sensible or not.
pub fn put_tarball(bucket: &Path, app: &str, version: &str, bytes: &[u8]) -> Result<()> {
    put(&tarball_path(bucket, app, version), |new| fs::write(new, bytes))
}

/// Readers see the old file or the new one, never a part.
fn put(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let folder = path.parent().context("a file in a bucket lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let new = path.with_extension("new");
    write(&new)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::Sample;

    #[test]
    fn a_published_release_lies_where_deployex_looks_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("built.tar.gz");
        fs::write(&path, "abc").unwrap();
        let tarball = Tarball { sample: Sample::Elixir, version: "1.2.3".into(), path };
        let bucket = folder.path().join("bucket");
        publish(&bucket, "local", &tarball).unwrap();
        let tarball = bucket.join("dist/elixir_demo/elixir_demo-1.2.3.tar.gz");
        assert_eq!(fs::read_to_string(tarball).unwrap(), "abc");
        assert_eq!(
            fs::read_to_string(bucket.join("versions/elixir_demo/local/current.json")).unwrap(),
            "{\"version\": \"1.2.3\", \"hash\": \"sha256:\
             ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\", \"pre_commands\": []}\n"
        );
        assert_eq!(fs::read_dir(bucket.join("dist/elixir_demo")).unwrap().count(), 1, "no half file stays");
    }
}
