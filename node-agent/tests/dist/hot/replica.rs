//! One replica of a sample application: staged as the agent stages it, started as the agent starts it, on loopback.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use node_agent::dist::connection::{Connection, Settings};
use node_agent::dist::dial::Node;
use node_agent::dist::term::Atom;
use node_agent::hot::{self, Fault, Site};
use node_agent::releases::{Chunks, Fetch, FetchError, SlotFolder, Store, Wanted};
use proto::ids::{AppName, ReleaseKey};
use proto::state::Language;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use xtask::fixtures::{Sample, tarball};

use crate::dist::world::{COOKIE, Epmd, Program, connect, eventually, free};

const US: &str = "agent@localhost";

pub(crate) struct Replica {
    pub(crate) sample: Sample,
    pub(crate) address: SocketAddr,
    pub(crate) vm: Program,
    /// More of its environment.
    environment: Vec<(String, String)>,
    epmd: Epmd,
    folder: SlotFolder,
    store: Store,
    home: TempDir,
}

/// A file.
struct Bucket(PathBuf);

#[async_trait]
impl Fetch for Bucket {
    async fn open(&self, _: &AppName, _: &ReleaseKey, offset: u64) -> Result<Chunks, FetchError> {
        let rest = Bytes::from(fs::read(&self.0).unwrap()).slice(usize::try_from(offset).unwrap()..);
        Ok(stream::iter([Ok(rest)]).boxed())
    }
}

impl Replica {
    /// It serves.
    pub(crate) async fn start(sample: Sample, version: &str) -> Self {
        Self::start_with(sample, version, &[], |_| {}).await
    }

    /// `prepare`: changes the release before it runs, in its folder.
    pub(crate) async fn start_with(
        sample: Sample,
        version: &str,
        environment: &[(&str, &str)],
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        let epmd = Epmd::start().await;
        let folder = SlotFolder::at(home.path().join("1"), "boot".to_owned());
        let store = Store::open(home.path().join("store")).await.unwrap();
        stage(&store, &folder, sample, version).await;
        folder.swap().await.unwrap();
        prepare(&folder.current());
        let address = free();
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let vm = boot(sample, &folder.current(), home.path(), &epmd, address, &environment);
        let replica = Self { sample, address, vm, environment, epmd, folder, store, home };
        replica.serves(version).await;
        replica
    }

    /// After a kill, by the start script that is there now.
    pub(crate) fn start_again(&mut self) {
        self.vm.kill();
        let (sample, root) = (self.sample, self.folder.current());
        self.vm = boot(sample, &root, self.home.path(), &self.epmd, self.address, &self.environment);
    }

    pub(crate) async fn serves(&self, version: &str) {
        eventually(version, async || (self.get("/version").await.ok()?.trim() == version).then_some(()))
            .await;
    }

    pub(crate) async fn connect(&self) -> Connection {
        let name = Atom::new(&format!("{}-1@localhost", self.sample)).unwrap();
        let node = Node { name, epmd: self.epmd.address, cookie: COOKIE.into(), tls: None };
        connect(&node, US, Settings::default()).await
    }

    /// Into `new`.
    pub(crate) async fn bring(&self, version: &str) {
        stage(&self.store, &self.folder, self.sample, version).await;
    }

    pub(crate) fn site(&self, from: &str, to: &str) -> Site {
        Site {
            root: self.folder.current(),
            incoming: self.folder.incoming(),
            app: self.sample.name().to_owned(),
            language: language(self.sample),
            from: from.to_owned(),
            to: to.to_owned(),
            owner: None,
        }
    }

    pub(crate) fn root(&self, path: &str) -> PathBuf {
        self.folder.current().join(path)
    }

    pub(crate) fn incoming(&self, path: &str) -> PathBuf {
        self.folder.incoming().join(path)
    }

    /// The body.
    pub(crate) async fn get(&self, path: &str) -> std::io::Result<String> {
        get(self.address, path).await
    }

    pub(crate) async fn count(&self) -> u64 {
        self.get("/count").await.unwrap().trim().parse().unwrap()
    }

    /// All steps up to and with the install.
    pub(crate) async fn install(&self, connection: &Connection, site: &Site) -> Result<(), Fault> {
        self.prepare(connection, site).await?;
        hot::install(connection, site).await
    }

    /// All steps before the install.
    pub(crate) async fn prepare(&self, connection: &Connection, site: &Site) -> Result<(), Fault> {
        hot::lay(site).await?;
        hot::unpack(connection, site).await?;
        hot::relup(connection, site).await?;
        hot::check(connection, site).await?;
        hot::configure(connection, site).await
    }

    /// From nothing to the end.
    pub(crate) async fn upgrade(&self, connection: &Connection, from: &str, to: &str) {
        let site = self.site(from, to);
        self.bring(to).await;
        self.install(connection, &site).await.unwrap();
        self.serves(to).await;
        hot::permanent(connection, &site).await.unwrap();
        hot::settle(&site).await.unwrap();
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(format!("answered {answer:?}"))),
    }
}

pub(crate) fn language(sample: Sample) -> Language {
    if sample == Sample::Erlang { Language::Erlang } else { Language::Elixir }
}

pub(crate) async fn stage(store: &Store, folder: &SlotFolder, sample: Sample, version: &str) {
    let version = version.to_owned();
    let built = tokio::task::spawn_blocking(move || tarball(sample, &version)).await.unwrap().unwrap();
    let wanted = Wanted {
        app: sample.name().parse().unwrap(),
        language: language(sample),
        key: ReleaseKey {
            version: built.version.parse().unwrap(),
            sha256: built.digest().unwrap().parse().unwrap(),
        },
        size: fs::metadata(&built.path).unwrap().len(),
    };
    let unpacked = store.ensure(&wanted, &Bucket(built.path), |_| {}).await.unwrap();
    store.stage(&unpacked, folder, None).await.unwrap();
}

fn boot(
    sample: Sample,
    root: &Path,
    home: &Path,
    epmd: &Epmd,
    address: SocketAddr,
    environment: &[(String, String)],
) -> Program {
    let node = format!("{sample}-1@localhost");
    let mut script = Command::new(root.join("bin").join(sample.name()));
    script.arg(if sample == Sample::Erlang { "foreground" } else { "start" });
    script
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home)
        .env("LANG", "C.UTF-8");
    script.env("RELEASE_NODE", node).env("RELEASE_COOKIE", COOKIE).env("PORT", address.port().to_string());
    script
        .env("RELEASE_DISTRIBUTION", "sname")
        .env("RELX_REPLACE_OS_VARS", "true")
        .env("RELEASE_SSL_OPTIONS", "");
    script.env("ERL_EPMD_PORT", epmd.address.port().to_string());
    script.env("ERL_AFLAGS", "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}");
    script.envs(environment.iter().map(|(name, value)| (name, value)));
    let log = File::options().create(true).append(true).open(home.join("log")).unwrap();
    script.current_dir(home).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Program::of(script.spawn().unwrap())
}

/// Every entry below, with its mode, and its bytes or where it leads.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut tree = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let bytes = if metadata.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            tree.insert(path.strip_prefix(root).unwrap().to_owned(), (metadata.permissions().mode(), bytes));
        }
    }
    tree
}

/// So that a failure shows the names, not the bytes.
pub(crate) fn assert_same(
    before: &BTreeMap<PathBuf, (u32, Vec<u8>)>,
    after: &BTreeMap<PathBuf, (u32, Vec<u8>)>,
) {
    let paths = before.keys().chain(after.keys());
    let differ: std::collections::BTreeSet<_> =
        paths.filter(|it| before.get(*it) != after.get(*it)).collect();
    assert!(differ.is_empty(), "these differ: {differ:?}");
}

/// Whether both are the same file on the disk.
pub(crate) fn is_linked(one: &Path, other: &Path) -> bool {
    let [one, other] = [one, other].map(|it| fs::metadata(it).unwrap());
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}
