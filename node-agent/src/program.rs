//! Which program begins when this one begins anew in its own process.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// This program by the name it was started under, so that a link that points elsewhere by then leads there. `lies`: where the
/// program itself is. To be asked before anybody can have put another in its place.
pub(crate) fn by_its_name(lies: &Path) -> PathBuf {
    let folder = std::env::current_dir().unwrap_or_default();
    let named = std::env::args_os().next().unwrap_or_default();
    by_name(&named, &folder, &std::env::var_os("PATH").unwrap_or_default(), lies)
}

/// Where the name leads to another program or to none, the place where this one lies.
fn by_name(named: &OsStr, folder: &Path, path: &OsStr, lies: &Path) -> PathBuf {
    let is_this = |place: &PathBuf| place.canonicalize().is_ok_and(|it| it == lies);
    let found = if named.as_encoded_bytes().contains(&b'/') {
        Some(folder.join(named)).filter(is_this)
    } else {
        std::env::split_paths(path).map(|it| folder.join(it).join(named)).find(is_this)
    };
    found.unwrap_or_else(|| lies.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_started_through_a_link_is_found_through_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let (old, new, link) = (folder.join("old"), folder.join("new"), folder.join("deployex-agent"));
        for program in [&old, &new] {
            std::fs::write(program, "").unwrap();
        }
        std::os::unix::fs::symlink("old", &link).unwrap();
        let found = |named: &str| by_name(named.as_ref(), &folder, folder.as_os_str(), &old);
        for named in [link.to_str().unwrap(), "./deployex-agent", "deployex-agent"] {
            assert_eq!(found(named).file_name().unwrap(), "deployex-agent", "{named}");
        }
        for named in ["old", "another", "./new", ""] {
            assert_eq!(found(named), old, "{named}");
        }
    }
}
