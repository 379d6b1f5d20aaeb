//! An upstream file on the disk: read where it is ours, and replaced whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::upstream::{is_ours, temporary};

/// A file of ours has a line for each replica.
const FILE_MAX: u64 = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot {what} {}{}", path.display(), hint(source))]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{} was not written by DeployEx and is left as it is; remove it, or name another upstream_file",
        path.display()
    )]
    Foreign { path: PathBuf },
}

fn hint(error: &io::Error) -> &'static str {
    let denied = error.kind() == io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root();
    if denied { ", as the agent is not root and its user may not" } else { "" }
}

/// What lies there, where it is ours to replace.
pub(super) fn read(path: &Path) -> Result<Option<String>, FileError> {
    let failed = |source| FileError::Io { what: "read", path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(there) if !there.is_file() || there.len() > FILE_MAX => {
            return Err(FileError::Foreign { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|it| it.take(FILE_MAX).read_to_end(&mut bytes)).map_err(failed)?;
    match String::from_utf8(bytes) {
        Ok(text) if is_ours(&text) => Ok(Some(text)),
        _ => Err(FileError::Foreign { path: path.to_owned() }),
    }
}

/// Whole or not at all, and on the disk when this returns. NGINX's workers may have another user, and need not read it.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), FileError> {
    let new = temporary(path);
    let failed = |what| move |source| FileError::Io { what, path: path.to_owned(), source };
    let written = File::create(&new).and_then(|mut file| {
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let replaced = written.and_then(|()| fs::rename(&new, path));
    if let Err(source) = replaced {
        let _ = fs::remove_file(&new);
        return Err(failed("write")(source));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|it| it.sync_all()).map_err(failed("flush"))
}

/// What it held before; `None`: it was not there.
pub(super) fn put_back(file: &Path, before: Option<&str>) -> Result<(), FileError> {
    match before {
        Some(text) => replace(file, text),
        None => match fs::remove_file(file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(FileError::Io { what: "remove", path: file.to_owned(), source })
            }
            _ => Ok(()),
        },
    }
}
