//! Builds the sample applications of `tests/fixtures` into tarballs, once per content: `target/fixtures/dist` keeps them.
//!
//! The sources are copied first, so nothing is written into the repository. One build at a time, also between processes (a
//! file lock), because mix and rebar3 share folders between their runs.

use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::command::{find, need_space};
use crate::workspace;

mod build;

pub(crate) use build::tool;

/// A sample application, named as its folder and as the application that it is deployed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sample {
    Elixir,
    Erlang,
    Gleam,
    /// An Elixir umbrella of two applications. For hot upgrades alone: neither the demo nor [`Sample::ALL`] has it.
    Umbrella,
}

/// A tarball that was built, as it goes into a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tarball {
    pub sample: Sample,
    pub version: String,
    pub path: PathBuf,
}

impl Sample {
    /// One in each language.
    pub const ALL: [Self; 3] = [Self::Elixir, Self::Erlang, Self::Gleam];

    pub fn name(self) -> &'static str {
        match self {
            Self::Elixir => "elixir_demo",
            Self::Erlang => "erlang_demo",
            Self::Gleam => "gleam_demo",
            Self::Umbrella => "umbrella_demo",
        }
    }

    /// As `language:` in `deployex.yaml`.
    pub fn language(self) -> &'static str {
        match self {
            Self::Elixir | Self::Umbrella => "elixir",
            Self::Erlang => "erlang",
            Self::Gleam => "gleam",
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The tarball of this version, built now unless the same sources were built before.
pub fn tarball(sample: Sample, version: &str) -> Result<Tarball> {
    let name = format!("{sample}-{version}");
    let dist = workspace::target().join("fixtures/dist");
    let path = dist.join(format!("{name}.tar.gz"));
    let key_file = dist.join(format!("{name}.key"));
    fs::create_dir_all(&dist).with_context(|| format!("cannot create {}", dist.display()))?;

    let _lock = lock(&dist.join("lock"))?;
    let sources = workspace::root().join("tests/fixtures").join(sample.name());
    let key = content_key(&sources)?;
    if !(path.exists() && fs::read_to_string(&key_file).is_ok_and(|built| built == key)) {
        need_space(&dist, 300, "building the sample applications")?;
        let built =
            build::build(sample, version, &sources).with_context(|| format!("could not build {name}"))?;
        // The key last: a build that was cut off is built again.
        let _ = fs::remove_file(&key_file);
        let new = dist.join(format!("{name}.new"));
        fs::copy(&built, &new).with_context(|| format!("cannot copy {}", built.display()))?;
        fs::rename(&new, &path)?;
        fs::write(&key_file, key)?;
    }
    Ok(Tarball { sample, version: version.to_owned(), path })
}

/// Builds these versions of every sample, 0.1.0 and 0.2.0 where none are named, and shows where they are.
pub fn build_all(versions: &[String]) -> Result<()> {
    let usual = ["0.1.0".to_owned(), "0.2.0".to_owned()];
    let versions = if versions.is_empty() { &usual[..] } else { versions };
    for sample in Sample::ALL {
        for version in versions {
            println!("{}", tarball(sample, version)?.path.display());
        }
    }
    Ok(())
}

impl Tarball {
    /// SHA-256 of the file, in hex.
    pub fn digest(&self) -> Result<String> {
        digest(&self.path)
    }
}

/// SHA-256 of a file, in hex.
pub(crate) fn digest(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    std::io::copy(&mut file, &mut HashWriter(&mut hasher))?;
    Ok(hex(&hasher.finalize()))
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Of everything that decides what a build yields: the sources, the recipe, and the tools' own files.
fn content_key(sources: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    for (path, contents) in read_tree(sources)? {
        hasher.update(path.as_os_str().as_encoded_bytes());
        hasher.update([0]);
        hasher.update(&contents);
        hasher.update([0]);
    }
    hasher.update(include_bytes!("fixtures/build.rs"));
    for tool in ["erl", "mix", "rebar3", "gleam"] {
        // Another version of a tool is another file; asking each for its version would take a second each time.
        let stamp = find(tool).and_then(|path| fs::canonicalize(path).ok()).map(|path| {
            let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
            format!("{} {modified:?}", path.display())
        });
        hasher.update(format!("{tool} {stamp:?}"));
    }
    Ok(hex(&hasher.finalize()))
}

/// Every file below, by relative path, in order.
fn read_tree(root: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let contents = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                files.push((path.strip_prefix(root).unwrap_or(&path).to_path_buf(), contents));
            }
        }
    }
    if files.is_empty() {
        bail!("{} holds no sources", root.display());
    }
    files.sort();
    Ok(files)
}

pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for (path, contents) in read_tree(from)? {
        let file = to.join(&path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(&file, contents).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_or_name_changes_the_key() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("lib")).unwrap();
        fs::write(folder.path().join("lib/a.ex"), "one").unwrap();
        let first = content_key(folder.path()).unwrap();
        assert_eq!(first, content_key(folder.path()).unwrap());
        fs::write(folder.path().join("lib/a.ex"), "two").unwrap();
        let second = content_key(folder.path()).unwrap();
        assert_ne!(first, second);
        fs::rename(folder.path().join("lib/a.ex"), folder.path().join("lib/b.ex")).unwrap();
        assert_ne!(second, content_key(folder.path()).unwrap());
    }

    #[test]
    fn every_sample_has_sources() {
        for sample in Sample::ALL.into_iter().chain([Sample::Umbrella]) {
            assert!(read_tree(&workspace::root().join("tests/fixtures").join(sample.name())).is_ok());
        }
    }
}
