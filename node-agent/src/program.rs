//! Which program begins when this one begins anew in its own process, and whether it would.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Access, access};
use tokio::time::timeout;

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

/// Beside the agent's own program.
pub(crate) const KEEPER: &str = "deployex-keeper";
/// To say its version takes a program some milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looked at before the one that runs ends. `Err`: what is wrong, and what to do.
pub(crate) async fn would_begin(program: &Path) -> Result<(), String> {
    let place = program.display();
    let mut asked = tokio::process::Command::new(program);
    asked
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match timeout(PATIENCE, asked.status()).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(Ok(status)) => {
            return Err(format!("{place} --version ended with {status}; put a whole agent there"));
        }
        Ok(Err(error)) => return Err(format!("{place} cannot be run: {error}; put a whole agent there")),
        Err(_) => return Err(format!("{place} --version does not end; put a whole agent there")),
    }
    // Where the program itself lies, behind any link: it looks for its keeper there.
    let keeper = program.canonicalize().unwrap_or_else(|_| program.to_owned()).with_file_name(KEEPER);
    access(&keeper, Access::EXEC_OK)
        .map_err(|error| format!("{} cannot be run: {error}; put it beside the agent", keeper.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn what_would_not_begin_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (agent, keeper) = (folder.path().join("deployex-agent"), folder.path().join(KEEPER));
        let put = |path: &Path, text: &str, mode| {
            // Beside it and into its place: a program that is open for writing cannot be run.
            let new = path.with_extension("new");
            std::fs::write(&new, text).unwrap();
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode)).unwrap();
            std::fs::rename(&new, path).unwrap();
        };
        let wrong = async || would_begin(&agent).await.unwrap_err();
        assert!(wrong().await.contains("cannot be run: No such file"));
        put(&agent, "half a download", 0o755);
        assert!(wrong().await.contains("cannot be run: Exec format error"));
        put(&agent, "#!/bin/sh\nexit 127\n", 0o755);
        assert!(wrong().await.contains("--version ended with exit status: 127"));
        put(&agent, "#!/bin/sh\nexit 0\n", 0o755);
        assert!(wrong().await.contains("deployex-keeper cannot be run: No such file"));
        put(&keeper, "", 0o644);
        assert!(wrong().await.contains("put it beside the agent"));
        put(&keeper, "", 0o755);
        assert_eq!(would_begin(&agent).await, Ok(()));
    }

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
