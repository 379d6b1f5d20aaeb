//! The data folder: what lies where in it, and that one control plane at a time uses it.
//!
//! The agent of this host may have its folder here too, and replicas run as users of their own below that. So everybody may
//! pass through the data folder, and what is the control plane's lies in a folder in it that is nobody else's:
//!
//! ```text
//!   /var/lib/deployex/                 everybody may pass
//!     control-plane/                   0700: database, key, local socket, lock
//!     agent/  service/                 the agent's
//! ```

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

const OWN: &str = "control-plane";
const DATABASE: &str = "deployex.db";
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
    #[error("{} must be a folder of the user that runs `deployex serve`, and is not", path.display())]
    Foreign { path: PathBuf },
}

/// A data folder that is this control plane's until it is dropped.
#[derive(Debug)]
pub struct Home {
    own: PathBuf,
    /// The kernel lets go of it when the program ends, however it ends.
    _lock: File,
}

impl Home {
    /// Makes the folder where it is missing. Nothing else in it is touched.
    pub fn take(data_dir: &Path) -> Result<Self, HomeError> {
        let failed = |source| HomeError::Folder { path: data_dir.to_owned(), source };
        make_passable(data_dir).map_err(failed)?;
        let own = data_dir.join(OWN);
        if !make_private(&own).map_err(failed)? {
            return Err(HomeError::Foreign { path: own });
        }
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(own.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { own, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(HomeError::Taken { path: data_dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Where a command on this host finds the control plane that uses this data folder.
    pub fn socket_in(data_dir: &Path) -> PathBuf {
        data_dir.join(OWN).join(SOCKET)
    }

    /// Where the database is, unless the configuration names another.
    pub fn database_in(data_dir: &Path) -> PathBuf {
        data_dir.join(OWN).join(DATABASE)
    }

    pub fn socket(&self) -> PathBuf {
        self.own.join(SOCKET)
    }

    pub fn key_file(&self) -> PathBuf {
        self.own.join(KEY_FILE)
    }
}

/// What is there stays as its owner wants it.
fn make_passable(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    folder.parent().map_or(Ok(()), make_passable)?;
    fs::create_dir(folder)?;
    // Whatever the umask is.
    fs::set_permissions(folder, Permissions::from_mode(0o755))
}

/// Whether the folder is ours now, and nobody else's. In a folder such as /tmp somebody may have been there before.
fn make_private(folder: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Not followed where it is a link.
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Ok(false);
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    Ok(true)
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
    fn everybody_may_pass_and_nobody_else_may_look_in() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("srv/data");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        drop(Home::take(&data).unwrap());
        let own = data.join("control-plane");
        let modes = [mode(&folder.path().join("srv")), mode(&data), mode(&own), mode(&own.join("lock"))];
        assert_eq!(modes, [0o755, 0o755, 0o700, 0o600]);
        // What an operator made of the one stays, the other has to be private.
        for path in [&data, &own] {
            fs::set_permissions(path, Permissions::from_mode(0o750)).unwrap();
        }
        drop(Home::take(&data).unwrap());
        assert_eq!([mode(&data), mode(&own)], [0o750, 0o700]);
    }

    #[test]
    fn a_link_to_somewhere_else_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (data, elsewhere) = (folder.path().join("data"), folder.path().join("elsewhere"));
        for path in [&data, &elsewhere] {
            fs::create_dir(path).unwrap();
        }
        std::os::unix::fs::symlink(&elsewhere, data.join("control-plane")).unwrap();
        assert!(matches!(Home::take(&data), Err(HomeError::Foreign { .. })));
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let said = Home::take(&file.join("data")).unwrap_err().to_string();
        assert!(said.contains("file/data"), "{said}");
    }
}
