//! The folders of one slot: what comes, what runs, what ran before.
//!
//! Everything that changes them is a rename, and every change can be repeated after a crash at any point of it. What is no
//! longer needed is set aside by a rename too and removed later ([`SlotFolder::sweep`]), because removing thousands of
//! files while a replica is down would keep it down.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use proto::ids::ReleaseKey;
use tokio::task::spawn_blocking;

use super::StageError;
use super::unpack::{remove_file, remove_folder, sync_folder};

/// `{var}/service/{app}/{slot}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFolder(PathBuf);

/// In a release folder: which release it is. It moves with the folder, so it is true however a swap ended.
const MARK: &str = ".deployex-release";

impl SlotFolder {
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What was staged and does not run yet: the folder `new`.
    pub fn incoming(&self) -> PathBuf {
        self.0.join("new")
    }

    pub fn current(&self) -> PathBuf {
        self.0.join("current")
    }

    pub fn previous(&self) -> PathBuf {
        self.0.join("previous")
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.0.join(".staging")
    }

    fn discarded(&self) -> PathBuf {
        self.0.join(".discarded")
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
            sync_folder(&folder.0)
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
        self.blocking(|folder| remove_folder(&folder.0)).await
    }

    /// Which release lies in `folder` (one of [`SlotFolder::incoming`], [`SlotFolder::current`], [`SlotFolder::previous`]);
    /// `None` where there is none, or none that we put there.
    pub async fn release_in(&self, folder: &Path) -> Result<Option<ReleaseKey>, StageError> {
        let path = folder.join(MARK);
        self.blocking(move |_| match fs::read_to_string(&path) {
            Ok(text) => Ok(parse_mark(&text)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                Ok(None)
            }
            Err(error) => Err(StageError::io("read", &path)(error)),
        })
        .await
    }

    pub(super) fn mark(folder: &Path, key: &ReleaseKey) -> Result<(), StageError> {
        let path = folder.join(MARK);
        // An archive that has this name in it must not choose what is written to.
        remove_file(&path)?;
        let text = format!("{} {}\n", key.version, key.sha256);
        let file = File::create_new(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(StageError::io("write", &path))
    }

    /// Makes room for what is to be staged.
    pub(super) fn prepare(&self) -> Result<(), StageError> {
        fs::create_dir_all(&self.0).map_err(StageError::io("create", &self.0))?;
        self.remove_leftovers()
    }

    /// Staged and whole: it takes the place of what was in `new`.
    pub(super) fn put_new(&self) -> Result<(), StageError> {
        self.discard(&self.incoming())?;
        rename(&self.staging(), &self.incoming())?;
        sync_folder(&self.0)?;
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

fn parse_mark(text: &str) -> Option<ReleaseKey> {
    let (version, sha256) = text.trim_end().split_once(' ')?;
    Some(ReleaseKey { version: version.parse().ok()?, sha256: sha256.parse().ok()? })
}

fn exists(path: &Path) -> Result<bool, StageError> {
    path.try_exists().map_err(StageError::io("look at", path))
}

fn rename(from: &Path, to: &Path) -> Result<(), StageError> {
    fs::rename(from, to).map_err(StageError::io("rename to", to))
}
