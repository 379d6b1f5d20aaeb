//! What carries out a hot upgrade of one running BEAM release, step by step: in its folder, and on its node over the
//! distribution. Which step is next, and what follows from a failure, is decided elsewhere.
//!
//! ```text
//!  lay ─▶ unpack ─▶ relup ─▶ check ─▶ configure ─▶ install ─▶ (healthy?) ─▶ permanent ─▶ settle ─▶ tidy
//!   └────────┴─────────┴────────┴─────────┴── undo: the folder is what it was
//! ```
//! Every step can be repeated, also after an agent was killed in the middle of it: it looks first at what is done already. The
//! new release's folder (`new`) is only read; what is laid beside the running release is written down in a journal before
//! (`journal`), so that it can be taken back without anybody who remembers it.

mod beam_file;
mod beside;
mod configure;
mod fault;
mod folder;
mod install;
mod journal;
mod lay;
mod node;
mod relup;
mod relx;
mod tidy;

use std::path::{Path, PathBuf};

use proto::state::Language;

use crate::dist::connection::Connection;
use crate::releases::Owner;

pub use self::fault::Fault;
pub use self::journal::Pending;
pub use self::node::{Standing, Status};

/// The folders and names of one hot upgrade.
#[derive(Clone, Debug)]
pub struct Site {
    /// The replica's `current`: what runs.
    pub root: PathBuf,
    /// The replica's `new`: the whole new release, unpacked and verified. Never changed here.
    pub incoming: PathBuf,
    /// The application, which is also what its release is called.
    pub app: String,
    pub language: Language,
    /// The version that runs.
    pub from: String,
    pub to: String,
    /// Whom laid files are to belong to.
    pub owner: Option<Owner>,
}

impl Site {
    /// Below `releases` of what runs.
    fn of_release(&self, version: &str, file: &str) -> PathBuf {
        self.root.join("releases").join(version).join(file)
    }
}

/// Lays what the new release has and the running one has not beside it, and whatever an earlier attempt left goes.
///
/// # Errors
/// Where the release cannot be upgraded to hot, or the folder cannot be written.
pub async fn lay(site: &Site) -> Result<(), Fault> {
    let site = site.clone();
    blocking(move || lay::lay(&site)).await
}

/// Tells the node's release handler of the new release.
///
/// # Errors
/// Where the node does not answer, runs from another folder, or refuses.
pub async fn unpack(connection: &Connection, site: &Site) -> Result<(), Fault> {
    node::unpack(connection, site).await
}

/// Lets the node work out from the appups how it gets from one release to the other.
///
/// # Errors
/// Where there is no such way, or it leads through a restart of the emulator.
pub async fn relup(connection: &Connection, site: &Site) -> Result<(), Fault> {
    relup::relup(connection, site).await
}

/// Lets the node look whether it could install the new release.
///
/// # Errors
/// Where it could not.
pub async fn check(connection: &Connection, site: &Site) -> Result<(), Fault> {
    relup::check(connection, site).await
}

/// Resolves the new release's runtime configuration, and sees to it that the install applies it.
///
/// # Errors
/// Where it cannot be resolved.
pub async fn configure(connection: &Connection, site: &Site) -> Result<(), Fault> {
    configure::configure(connection, site).await
}

/// Changes the code that runs. Until [`permanent`] a restart of the VM starts the earlier release.
///
/// # Errors
/// Where the node does not take it. Whether it then runs the one or the other release, and since when, [`standing`] says.
pub async fn install(connection: &Connection, site: &Site) -> Result<(), Fault> {
    install::install(connection, site).await
}

/// From now on a restart of the VM starts the new release.
///
/// # Errors
/// Where the node does not answer, or what is started from cannot be written.
pub async fn permanent(connection: &Connection, site: &Site) -> Result<(), Fault> {
    install::permanent(connection, site).await
}

/// The upgrade is over and good: nothing of it can be taken back any more.
///
/// # Errors
/// Where the journal cannot be removed.
pub async fn settle(site: &Site) -> Result<(), Fault> {
    let root = site.root.clone();
    blocking(move || journal::settle(&root)).await
}

/// Takes back all that was done before the install, so that the folder is what it was. `None`: nothing runs in `root`.
///
/// # Errors
/// Where the new release is installed already, or the folder cannot be written.
pub async fn undo(connection: Option<&Connection>, root: &Path) -> Result<(), Fault> {
    let path = root.to_owned();
    let Some(pending) = blocking(move || journal::pending(&path)).await? else { return Ok(()) };
    if let Some(connection) = connection {
        node::forget(connection, root, &pending).await?;
        let (path, to) = (root.to_owned(), pending.to.clone());
        if blocking(move || Ok(journal::restore(&path)? && journal::knew(&path, &to)?)).await? {
            // What it is good for, a full deployment brings as well.
            if let Err(fault) = node::remember(connection, root, &pending).await {
                tracing::warn!(%fault, "the node does not know the release that ran before any more");
            }
        }
    }
    let path = root.to_owned();
    blocking(move || journal::undo(&path)).await
}

/// Removes the releases that are neither what ran nor what runs, with the libraries that nobody else needs; which ones.
///
/// # Errors
/// Where the node does not answer, or the folder cannot be written.
pub async fn tidy(connection: &Connection, site: &Site) -> Result<Vec<String>, Fault> {
    tidy::tidy(connection, site).await
}

/// The hot upgrade that was begun in this folder and is neither settled nor undone.
///
/// # Errors
/// Where the journal cannot be read.
pub fn pending(root: &Path) -> Result<Option<Pending>, Fault> {
    journal::pending(root)
}

/// What the node says of its releases.
///
/// # Errors
/// Where it does not answer.
pub async fn standing(connection: &Connection, site: &Site) -> Result<Standing, Fault> {
    node::standing(connection, &site.to, node::PATIENCE).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let broken_off = |_| Fault::here("the work in the release's folder was broken off; try again");
    tokio::task::spawn_blocking(work).await.map_err(broken_off)?
}
