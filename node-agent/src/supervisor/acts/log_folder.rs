//! The folder for an application's logs, and that it is ours: `/var/log/{app}` may be there because another program of that
//! name writes to it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Says that a folder is ours, whatever people put beside the logs later.
const MARK: &str = ".deployex";

#[derive(Debug, thiserror::Error)]
pub(super) enum LogFolderError {
    #[error(
        "the log folder {} may be another program's: it holds {found}; name the application otherwise, set \
         monitored_app_log_path, or, where the folder is the application's own, put an empty file {MARK} into it",
        folder.display()
    )]
    Foreign { folder: PathBuf, found: String },
    #[error("cannot make the log folder {}", folder.display())]
    Io {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Makes it where it is not there. One that is there is taken where nothing but logs of the application lies in it, as an
/// earlier installation leaves them.
pub(super) fn own(folder: &Path, app: &str) -> Result<(), LogFolderError> {
    let mark = folder.join(MARK);
    if mark.exists() {
        return Ok(());
    }
    let failed = |source| LogFolderError::Io { folder: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        // Another slot of the application made the folder its own since we looked.
        if name != MARK && !is_log_of(&name, app) {
            return Err(LogFolderError::Foreign { folder: folder.to_owned(), found: name });
        }
    }
    fs::write(&mark, "the logs of an application that DeployEx runs\n").map_err(failed)
}

/// `{app}-{instance}-{stdout,stderr}.log` and what rotation makes of it. An instance is a slot's number here, and was a number
/// or, from DeployEx 0.4 on, six random letters and digits.
fn is_log_of(name: &str, app: &str) -> bool {
    let streams = ["stdout.log", "stderr.log", "pre-commands-stdout.log", "pre-commands-stderr.log"];
    name.strip_prefix(app)
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(instance, stream)| {
            instance.chars().all(|it| it.is_ascii_alphanumeric())
                && streams.iter().any(|it| stream.starts_with(it))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_another_program_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("access.log"), "").unwrap();
        let error = own(folder.path(), "nginx").unwrap_err().to_string();
        assert!(error.contains("holds access.log") && error.contains("monitored_app_log_path"), "{error}");
        assert!(error.contains("an empty file .deployex"), "{error}");
        fs::rename(folder.path().join("access.log"), folder.path().join("nginx-15-main.log")).unwrap();
        assert!(own(folder.path(), "nginx").is_err());
        assert!(!folder.path().join(MARK).exists());
    }

    #[test]
    fn slots_that_begin_at_once_own_it_together() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..200 {
            let logs = folder.path().join(round.to_string());
            let own = || own(&logs, "demo").map_err(|error| error.to_string());
            let owned = std::thread::scope(|slots| {
                [(); 4].map(|()| slots.spawn(own)).map(|slot| slot.join().unwrap())
            });
            assert_eq!(owned, [(); 4].map(|()| Ok(())));
        }
    }

    #[test]
    fn what_an_earlier_installation_left_is_taken_and_stays_ours() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "demo-1-stdout.log",
            "demo-12-stderr.log.3.gz",
            "demo-1-pre-commands-stdout.log",
            "demo-k3x9qa-stdout.log",
            "demo-abcdef-stderr.log-20260101",
        ];
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
        }
        own(folder.path(), "demo").unwrap();
        fs::write(folder.path().join("notes.txt"), "").unwrap();
        own(folder.path(), "demo").unwrap();
        own(&folder.path().join("new/demo"), "demo").unwrap();
    }
}
