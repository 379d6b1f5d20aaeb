//! The folders of one slot: what comes, what runs, what ran before.
//!
//! Everything that changes them is a rename, and every change can be repeated after a crash at any point of it. What is no
//! longer needed is set aside by a rename too and removed later ([`SlotFolder::sweep`]), because removing thousands of
//! files while a replica is down would keep it down.

use std::fs;
use std::path::{Path, PathBuf};

use proto::ids::ReleaseKey;
use tokio::task::spawn_blocking;

use super::unpack::{remove_folder, sync_folder};
use super::{StageError, mark};

/// `{var}/service/{app}/{slot}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFolder {
    path: PathBuf,
    boot: String,
}

impl SlotFolder {
    /// `boot` is the id of the host's present one.
    pub fn at(path: PathBuf, boot: String) -> Self {
        Self { path, boot }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was staged and does not run yet: the folder `new`.
    pub fn incoming(&self) -> PathBuf {
        self.path.join("new")
    }

    pub fn current(&self) -> PathBuf {
        self.path.join("current")
    }

    pub fn previous(&self) -> PathBuf {
        self.path.join("previous")
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.path.join(".staging")
    }

    fn discarded(&self) -> PathBuf {
        self.path.join(".discarded")
    }

    /// `current` becomes `previous` and `new` becomes `current`. Where there is no `new`, it was done already.
    pub async fn swap(&self) -> Result<(), StageError> {
        self.blocking(|folder| {
            if !exists(&folder.incoming())? {
                return Ok(());
            }
            if exists(&folder.current())? {
                folder.discard(&folder.previous())?;
                rename(&folder.current(), &folder.previous())?;
            }
            rename(&folder.incoming(), &folder.current())?;
            sync_folder(&folder.path)
        })
        .await
    }

    /// Removes what was staged and what lies about.
    pub async fn clear_new(&self) -> Result<(), StageError> {
        self.blocking(|folder| {
            folder.remove_leftovers()?;
            folder.discard(&folder.incoming())?;
            remove_folder(&folder.discarded())
        })
        .await
    }

    /// Removes what swaps set aside.
    pub async fn sweep(&self) -> Result<(), StageError> {
        self.blocking(Self::remove_leftovers).await
    }

    /// The slot is withdrawn: nothing of it stays.
    pub async fn remove_all(&self) -> Result<(), StageError> {
        self.blocking(|folder| remove_folder(&folder.path)).await
    }

    /// Which release lies in `folder` (one of [`SlotFolder::incoming`], [`SlotFolder::current`], [`SlotFolder::previous`]);
    /// `None` where there is none, none that we put there, or one of which a restart of the host may have lost files.
    pub async fn release_in(&self, folder: &Path) -> Result<Option<ReleaseKey>, StageError> {
        let path = folder.to_owned();
        self.blocking(move |folder| mark::read(&path, &folder.boot)).await
    }

    /// Brings `current` to the disk, so that it outlives a power cut. Nobody needs to wait for it, and it may take seconds
    /// beside others who write.
    pub async fn flush(&self) -> Result<(), StageError> {
        self.blocking(|folder| mark::flush(&folder.current(), &folder.boot)).await
    }

    /// What runs in `current` goes on as that release. What was laid for it is not known to be on the disk.
    pub async fn becomes(&self, key: &ReleaseKey) -> Result<(), StageError> {
        let key = key.clone();
        self.blocking(move |folder| mark::replace(&folder.current(), &key, &folder.boot)).await
    }

    /// Says which release was laid into the folder, and that it was not flushed.
    pub(super) fn mark(&self, staged: &Path, key: &ReleaseKey) -> Result<(), StageError> {
        mark::write(staged, key, &self.boot)
    }

    /// Makes room for what is to be staged.
    pub(super) fn prepare(&self) -> Result<(), StageError> {
        fs::create_dir_all(&self.path).map_err(StageError::io("create", &self.path))?;
        self.remove_leftovers()
    }

    /// Staged and whole: it takes the place of what was in `new`. Not flushed, as no other boot of the host asks for a `new`.
    pub(super) fn put_new(&self) -> Result<(), StageError> {
        self.discard(&self.incoming())?;
        rename(&self.staging(), &self.incoming())?;
        remove_folder(&self.discarded())
    }

    fn remove_leftovers(&self) -> Result<(), StageError> {
        remove_folder(&self.staging())?;
        remove_folder(&self.discarded())
    }

    /// One rename where nothing was discarded before, which is what a swap finds after a sweep.
    fn discard(&self, path: &Path) -> Result<(), StageError> {
        if !exists(path)? {
            return Ok(());
        }
        remove_folder(&self.discarded())?;
        rename(path, &self.discarded())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StageError> + Send + 'static,
    ) -> Result<T, StageError> {
        let folder = self.clone();
        spawn_blocking(move || work(&folder)).await.map_err(StageError::Aborted)?
    }
}

fn exists(path: &Path) -> Result<bool, StageError> {
    path.try_exists().map_err(StageError::io("look at", path))
}

fn rename(from: &Path, to: &Path) -> Result<(), StageError> {
    fs::rename(from, to).map_err(StageError::io("rename to", to))
}
