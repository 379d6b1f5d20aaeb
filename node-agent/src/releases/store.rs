//! The host's releases: one verified, unpacked copy per application and digest, however many slots run it.
//!
//! One piece of work per release at a time; whoever asks meanwhile waits for it and finds it done. The work runs on
//! blocking threads that hold the release's flight themselves, so a caller that goes away leaves nothing half-guarded.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use proto::archive::Expected;
use proto::ids::{AppName, Digest, ReleaseKey};
use proto::state::Language;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::download::download;
use super::stage;
use super::unpack::{self, Home, UNPACKING, remove_file, remove_folder};
use super::{Fetch, SlotFolder, StageError};

/// A release as an assignment names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub app: AppName,
    pub language: Language,
    pub key: ReleaseKey,
    /// Of the tarball.
    pub size: u64,
}

/// Whom a slot's files are to belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// A release that lies whole on this host.
#[derive(Clone, Debug)]
pub struct Unpacked {
    wanted: Wanted,
}

impl Unpacked {
    pub fn key(&self) -> &ReleaseKey {
        &self.wanted.key
    }
}

/// Held while anything is done with one release's files.
pub(super) type Flight = OwnedMutexGuard<()>;

type Flights = HashMap<(AppName, Digest), Arc<tokio::sync::Mutex<()>>>;

/// A handle; clones share the store.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    flights: Arc<Mutex<Flights>>,
    /// Hosts are there for the replicas: one release is unpacked at a time.
    unpacking: Arc<Semaphore>,
}

impl Store {
    /// Opens `{var}/agent/releases`, made where it is missing, and removes what a crash left half done; where that cannot be
    /// done now, the next agent does it. Downloads are kept and go on.
    pub async fn open(root: PathBuf) -> Result<Self, StageError> {
        let store = Self { root, flights: Arc::default(), unpacking: Arc::new(Semaphore::new(1)) };
        let root = store.root.clone();
        blocking(move || {
            create_private(&root)?;
            for (app_folder, _) in children(&root)? {
                for (folder, _) in children(&app_folder)?.filter(|(_, name)| name.ends_with(UNPACKING)) {
                    if let Err(error) = remove_folder(&folder) {
                        let error = &error as &dyn std::error::Error;
                        warn!(error, "what a crash left half unpacked stays for now");
                    }
                }
            }
            Ok(())
        })
        .await?;
        Ok(store)
    }

    /// Makes sure that the release lies whole on this host: fetched, verified, unpacked. `progress` is told the bytes fetched.
    pub async fn ensure(
        &self,
        wanted: &Wanted,
        fetch: &dyn Fetch,
        progress: impl Fn(u64) + Send + Sync,
    ) -> Result<Unpacked, StageError> {
        let flight = self.flight(&wanted.app, wanted.key.sha256).await;
        let home = self.home(&wanted.app, wanted.key.sha256);
        let (is_whole, flight) = {
            let home = home.clone();
            blocking(move || Ok((is_whole(&home)?, flight))).await?
        };
        if !is_whole {
            let flight = download(&home.partial(), wanted, fetch, &progress, flight).await?;
            let turn = self.turn().await;
            let wanted = wanted.clone();
            blocking(move || {
                let _held = (flight, turn);
                let expected = Expected { app: &wanted.app, language: wanted.language };
                unpack::unpack(&home, &expected)
            })
            .await?;
        }
        Ok(Unpacked { wanted: wanted.clone() })
    }

    /// Lays the release into the slot's `new`, in the place of whatever was there. `owner` is who the slot runs as; without
    /// one everything stays the agent's own. Where the host's copy turns out to be damaged it is removed, so that
    /// [`Store::ensure`] fetches it again.
    pub async fn stage(
        &self,
        unpacked: &Unpacked,
        folder: &SlotFolder,
        owner: Option<Owner>,
    ) -> Result<(), StageError> {
        let wanted = unpacked.wanted.clone();
        let flight = self.flight(&wanted.app, wanted.key.sha256).await;
        let home = self.home(&wanted.app, wanted.key.sha256);
        let folder = folder.clone();
        blocking(move || {
            let _held = flight;
            let result = stage::stage(&home, &wanted, &folder, owner);
            if matches!(result, Err(StageError::Damaged { .. })) {
                remove_folder(&home.whole())?;
            }
            result
        })
        .await
    }

    /// Removes every release, and every unfinished download, that is not in `keep` and not being worked on.
    pub async fn collect(&self, keep: &BTreeSet<(AppName, Digest)>) -> Result<(), StageError> {
        let root = self.root.clone();
        let here = blocking(move || {
            let mut here = BTreeSet::new();
            for (app_folder, app) in children(&root)? {
                let Ok(app) = app.parse::<AppName>() else { continue };
                let names = children(&app_folder)?.filter_map(|(_, name)| name.get(..64)?.parse().ok());
                here.extend(names.map(|digest| (app.clone(), digest)));
            }
            Ok(here)
        })
        .await?;
        for (app, digest) in here.difference(keep) {
            let Ok(flight) = self.flight_lock(app, *digest).try_lock_owned() else { continue };
            let home = self.home(app, *digest);
            blocking(move || {
                let _held = flight;
                remove_file(&home.partial())?;
                // The manifest goes first: what is left of a removal that was cut off is not taken for whole.
                remove_file(&home.manifest())?;
                remove_folder(&home.whole())
            })
            .await?;
        }
        Ok(())
    }

    fn home(&self, app: &AppName, digest: Digest) -> Home {
        Home::new(self.root.join(app.as_str()), digest)
    }

    fn flight_lock(&self, app: &AppName, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| Arc::strong_count(flight) > 1);
        Arc::clone(flights.entry((app.clone(), digest)).or_default())
    }

    async fn flight(&self, app: &AppName, digest: Digest) -> Flight {
        self.flight_lock(app, digest).lock_owned().await
    }

    /// The semaphore is never closed; without a permit the work is done all the same.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.unpacking).acquire_owned().await.ok()
    }
}

/// A copy is there. What is left of a removal that was cut off is removed.
fn is_whole(home: &Home) -> Result<bool, StageError> {
    create_private(home.app_folder())?;
    let is_there = stage::is_there(home)?;
    if !is_there {
        remove_folder(&home.whole())?;
    }
    Ok(is_there)
}

fn create_private(path: &Path) -> Result<(), StageError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StageError::io("create", path))
}

fn children(folder: &Path) -> Result<impl Iterator<Item = (PathBuf, String)> + use<>, StageError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(StageError::io("read", folder))?;
    Ok(entries.into_iter().filter_map(|entry| Some((entry.path(), entry.file_name().into_string().ok()?))))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StageError> + Send + 'static,
) -> Result<T, StageError> {
    spawn_blocking(work).await.map_err(StageError::Aborted)?
}
