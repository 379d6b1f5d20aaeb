//! The program that would begin, asked what it is before the one that runs ends. What it makes of the configuration it is not
//! asked: that is read here, by the program that knows what is in force.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

const NAME: &str = "deployex";
/// Before the last change of the database's tables that a program knows, on the second line of what it says to `--version`.
const KNOWS: &str = "knows database change ";
/// To say its version takes a program some milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any program says to that.
const MOST: u64 = 4 << 10;

/// What is wrong with a program, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum NoSuccessor {
    #[error("{place} cannot be run; put a whole deployex there")]
    Run {
        place: String,
        #[source]
        source: io::Error,
    },
    #[error("{place} --version ended with {status}; put a whole deployex there")]
    Ended { place: String, status: std::process::ExitStatus },
    #[error("{place} --version does not end; put a whole deployex there")]
    Silent { place: String },
    #[error("{place} does not say that it is {NAME}; put a whole deployex there")]
    Stranger { place: String },
    #[error(
        "{place} is deployex {version}, which is too old for the database: that needs one that knows its change {needs}, and the \
         last that this one knows is {knows}; put a version there that is not so far from this one"
    )]
    TooOld { place: String, version: String, needs: String, knows: String },
}

/// What this one says to `--version`, behind its name. Both lines are read by programs of other versions.
pub fn long_version() -> &'static str {
    static SAID: LazyLock<String> =
        LazyLock::new(|| format!("{}\n{KNOWS}{}", env!("CARGO_PKG_VERSION"), crate::db::last_change()));
    &SAID
}

/// A program, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Successor {
    version: String,
    /// `None`: it is of a time when nobody was asked.
    knows: Option<String>,
}

impl Successor {
    fn parse(said: &str) -> Option<Self> {
        let mut lines = said.lines();
        let version = lines.next()?.strip_prefix(NAME)?.strip_prefix(' ')?.trim();
        let is_word = |it: &str| !it.is_empty() && it.len() <= 64 && !it.contains(char::is_control);
        let knows = lines.find_map(|it| it.strip_prefix(KNOWS)).map(|it| it.trim().to_owned());
        let is_sound = is_word(version) && knows.as_deref().is_none_or(is_word);
        is_sound.then(|| Self { version: version.to_owned(), knows })
    }
}

/// Whether it runs, is a control plane and may use the database. `needs`: the change that a program has to know for that.
pub(super) async fn would_begin(program: &Path, needs: Option<&str>) -> Result<(), NoSuccessor> {
    would_begin_within(program, needs, PATIENCE).await
}

async fn would_begin_within(
    program: &Path,
    needs: Option<&str>,
    patience: Duration,
) -> Result<(), NoSuccessor> {
    let place = program.display().to_string();
    let said = match timeout(patience, ask(program)).await {
        Ok(Ok((status, said))) if status.success() => said,
        Ok(Ok((status, _))) => return Err(NoSuccessor::Ended { place, status }),
        Ok(Err(source)) => return Err(NoSuccessor::Run { place, source }),
        Err(_) => return Err(NoSuccessor::Silent { place }),
    };
    let Some(Successor { version, knows }) = Successor::parse(&String::from_utf8_lossy(&said)) else {
        return Err(NoSuccessor::Stranger { place });
    };
    match (needs, knows) {
        // Changes are named by their time and number.
        (Some(needs), Some(knows)) if *knows < *needs => {
            Err(NoSuccessor::TooOld { place, version, needs: needs.to_owned(), knows })
        }
        _ => Ok(()),
    }
}

async fn ask(program: &Path) -> io::Result<(std::process::ExitStatus, Vec<u8>)> {
    let mut asked = Command::new(program);
    asked.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // What it starts ends with it.
    asked.process_group(0).kill_on_drop(true);
    let mut child = asked.spawn()?;
    let mut group = Group(child.id().and_then(|it| Pid::from_raw(i32::try_from(it).ok()?)));
    let mut said = Vec::new();
    if let Some(out) = child.stdout.take() {
        out.take(MOST).read_to_end(&mut said).await?;
    }
    let status = child.wait().await?;
    // Its number may be another's from here on.
    group.0 = None;
    Ok((status, said))
}

/// All that a program started, killed when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    fn script(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("deployex");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn this_one_is_understood() {
        let said = Successor::parse(&format!("deployex {}\n", long_version())).unwrap();
        assert_eq!(said.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(said.knows.as_deref(), Some(crate::db::last_change().as_str()));
    }

    #[tokio::test]
    async fn what_would_not_come_up_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let ask = async |text: &str, needs| {
            let program = script(folder, text);
            would_begin_within(&program, needs, Duration::from_secs(3)).await.map_err(|it| it.to_string())
        };
        let needs = Some("m20261128_000014_it");
        ask("echo deployex 9.9.9; echo knows database change m20261128_000014_it", needs).await.unwrap();
        ask("echo deployex 9.9.9; echo else; echo knows database change m20270101_000015_x", needs)
            .await
            .unwrap();
        // Of a time when nobody was asked; and a database of such a time.
        ask("echo deployex 0.0.1", needs).await.unwrap();
        ask("echo deployex 0.0.1; echo knows database change m1", None).await.unwrap();
        for (text, words) in [
            (
                "echo deployex 0.0.1; echo knows database change m20261128_000013_x",
                "too old for the database",
            ),
            ("echo deployex-agent 1.0.0", "does not say that it is deployex"),
            ("echo deployex", "does not say that it is deployex"),
            ("echo deployex 1.0.0; exit 3", "ended with exit status: 3"),
            ("sleep 60", "does not end"),
            ("yes deployex", "ended with"),
        ] {
            let said = ask(text, needs).await.unwrap_err();
            assert!(said.contains(words), "{text}: {said}");
        }
        let place = script(folder, "");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o644)).unwrap();
        let said = would_begin(&place, None).await.unwrap_err();
        assert!(said.to_string().contains("cannot be run"), "{said}");
    }
}
