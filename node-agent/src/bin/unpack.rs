//! What the agent does with a release's tarball, alone, so that it can be measured: brought from a file, verified, unpacked,
//! laid into a slot. Built with the feature `bench` only; no part of an installation.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::BytesMut;
use clap::Parser;
use futures_util::StreamExt as _;
use node_agent::releases::{Chunks, Fetch, FetchError, Owner, SlotFolder, Store, Wanted};
use proto::agent::MAX_RELEASE_CHUNK;
use proto::ids::{AppName, Digest, ReleaseKey, Version};
use proto::state::Language;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

/// Lays a tarball into a slot, and says how much memory it took at most.
#[derive(Debug, Parser)]
struct Arguments {
    tarball: PathBuf,
    /// As the tarball was recorded.
    #[arg(long)]
    sha256: Digest,
    #[arg(long)]
    app: AppName,
    #[arg(long)]
    version: Version,
    #[arg(long, value_parser = language)]
    language: Language,
    /// Of the host's copies.
    #[arg(long)]
    store: PathBuf,
    /// Of the slot.
    #[arg(long)]
    slot: PathBuf,
}

fn language(text: &str) -> Result<Language, String> {
    match text {
        "elixir" => Ok(Language::Elixir),
        "erlang" => Ok(Language::Erlang),
        "gleam" => Ok(Language::Gleam),
        _ => Err("a language is elixir, erlang or gleam".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // As the agent's own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.context("no runtime").and_then(|runtime| runtime.block_on(unpack(arguments)));
    match result.and_then(|()| say_peak()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn unpack(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { tarball, sha256, app, version, language, store, slot } = arguments;
    let size =
        std::fs::metadata(&tarball).with_context(|| format!("cannot read {}", tarball.display()))?.len();
    let wanted = Wanted { app, language, key: ReleaseKey { version, sha256 }, size };
    let store = Store::open(store).await?;
    let unpacked = store.ensure(&wanted, &LocalFile(tarball), |_| {}).await?;
    // As a root's agent does: every file of the slot's own is given away.
    let owner = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    store.stage(&unpacked, &SlotFolder::at(slot, node_agent::host::boot_id()), Some(owner)).await?;
    Ok(())
}

fn say_peak() -> anyhow::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    writeln!(std::io::stdout(), "peak {}", peak.trim()).context("cannot write to standard output")
}

/// In pieces as large as the control plane sends.
struct LocalFile(PathBuf);

#[async_trait]
impl Fetch for LocalFile {
    async fn open(&self, _: &AppName, _: &ReleaseKey, offset: u64) -> Result<Chunks, FetchError> {
        let file = open(&self.0, offset).await.map_err(interrupted)?;
        let chunks = futures_util::stream::try_unfold(file, |mut file| async move {
            let mut chunk = BytesMut::with_capacity(MAX_RELEASE_CHUNK);
            while chunk.len() < MAX_RELEASE_CHUNK {
                if file.read_buf(&mut chunk).await.map_err(interrupted)? == 0 {
                    break;
                }
            }
            Ok((!chunk.is_empty()).then(|| (chunk.freeze(), file)))
        });
        Ok(chunks.boxed())
    }
}

async fn open(path: &Path, offset: u64) -> std::io::Result<tokio::fs::File> {
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(std::io::SeekFrom::Start(offset)).await?;
    Ok(file)
}

fn interrupted(error: std::io::Error) -> FetchError {
    FetchError::Interrupted(error.into())
}
