//! The data folder: what lies where in it, and that one control plane at a time uses it.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const SOCKET: &str = "deployex.sock";
const KEY_FILE: &str = "secret-key";
const LOCK: &str = "lock";

#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("cannot use the data folder {}; --data-dir names another", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another control plane uses the data folder {}; --data-dir names another", path.display())]
    Taken { path: PathBuf },
}

/// A data folder that is this control plane's until it is dropped.
#[derive(Debug)]
pub struct Home {
    folder: PathBuf,
    /// The kernel lets go of it when the program ends, however it ends.
    _lock: File,
}

impl Home {
    /// Makes the folder where it is missing. Nothing else in it is touched.
    pub fn take(data_dir: &Path) -> Result<Self, HomeError> {
        let failed = |source| HomeError::Folder { path: data_dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(data_dir.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder: data_dir.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(HomeError::Taken { path: data_dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Where a command on this host finds the control plane that uses this data folder.
    pub fn socket_in(data_dir: &Path) -> PathBuf {
        data_dir.join(SOCKET)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }

    pub fn key_file(&self) -> PathBuf {
        self.folder.join(KEY_FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_is_one_programs_until_that_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let home = Home::take(&data).unwrap();
        let said = Home::take(&data).unwrap_err().to_string();
        assert_eq!(
            said,
            format!(
                "another control plane uses the data folder {}; --data-dir names another",
                data.display()
            )
        );
        drop(home);
        Home::take(&data).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let said = Home::take(&file.join("data")).unwrap_err().to_string();
        assert!(said.contains("file/data"), "{said}");
    }
}
