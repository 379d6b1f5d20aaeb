//! Which program begins when this one begins anew in its own process, whether it is another, and whether it would.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
const NAME: &str = "deployex-agent";
/// Before the number of the form of state that a program reads, on the second line of what it says to `--version`.
const READS: &str = "reads state ";

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

/// Where this program lies. One that was replaced since it began lay where the other one does now.
pub(crate) fn lies() -> io::Result<PathBuf> {
    let lies = std::env::current_exe()?;
    let was = lies.to_str().and_then(|it| it.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(was.filter(|_| !lies.exists()).unwrap_or(lies))
}

/// Which file a program is. As long as it runs no other file has its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgramFile {
    device: u64,
    inode: u64,
}

impl ProgramFile {
    pub(crate) const RUNNING: &str = "/proc/self/exe";

    /// Of this program, also where it was removed or replaced.
    pub(crate) fn running() -> io::Result<Self> {
        Self::at(Path::new(Self::RUNNING))
    }

    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let there = fs::metadata(path)?;
        Ok(Self { device: there.dev(), inode: there.ino() })
    }
}

/// Beside the agent's own program.
pub(crate) const KEEPER: &str = "deployex-keeper";
/// To say its version takes a program some milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// More than any program says to that.
const MOST: u64 = 4 << 10;

/// A program that would begin, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Successor {
    pub(crate) version: String,
    /// The newest form of state that it reads.
    pub(crate) reads: u32,
}

impl Successor {
    /// A program that does not say which form it reads is of a time when there was only the first.
    fn parse(said: &str) -> Option<Self> {
        let mut lines = said.lines();
        let version = lines.next()?.strip_prefix(NAME)?.trim();
        let reads =
            lines.find_map(|it| it.strip_prefix(READS)).map_or(Some(1), |it| it.trim().parse().ok())?;
        let is_version = !version.is_empty() && version.len() <= 64 && !version.contains(char::is_control);
        is_version.then(|| Self { version: version.to_owned(), reads })
    }
}

/// What this one says to `--version`, behind its name. Both lines are read by programs of other versions.
pub(crate) const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nreads state 1");

/// Looked at before the one that runs ends. `Err`: what is wrong, and what to do.
pub(crate) async fn would_begin(program: &Path) -> Result<Successor, String> {
    would_begin_within(program, PATIENCE).await
}

async fn would_begin_within(program: &Path, patience: Duration) -> Result<Successor, String> {
    let place = program.display();
    let mut asked = Command::new(program);
    asked.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // What it starts ends with it.
    asked.process_group(0).kill_on_drop(true);
    let ask = async {
        let mut child = asked.spawn()?;
        let mut group = Group(child.id().and_then(|it| Pid::from_raw(i32::try_from(it).ok()?)));
        let mut said = Vec::new();
        if let Some(out) = child.stdout.take() {
            out.take(MOST).read_to_end(&mut said).await?;
        }
        let status = child.wait().await?;
        // Its number may be another's from here on.
        group.0 = None;
        io::Result::Ok((status, said))
    };
    let said = match timeout(patience, ask).await {
        Ok(Ok((status, said))) if status.success() => said,
        Ok(Ok((status, _))) => {
            return Err(format!("{place} --version ended with {status}; put a whole agent there"));
        }
        Ok(Err(error)) => return Err(format!("{place} cannot be run: {error}; put a whole agent there")),
        Err(_) => return Err(format!("{place} --version does not end; put a whole agent there")),
    };
    let successor = Successor::parse(&String::from_utf8_lossy(&said))
        .ok_or_else(|| format!("{place} does not say that it is {NAME}; put a whole agent there"))?;
    // Where the program itself lies, behind any link: it looks for its keeper there.
    let keeper = program.canonicalize().unwrap_or_else(|_| program.to_owned()).with_file_name(KEEPER);
    access(&keeper, Access::EXEC_OK)
        .map_err(|error| format!("{} cannot be run: {error}; put it beside the agent", keeper.display()))?;
    Ok(successor)
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
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn what_would_not_begin_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (agent, keeper) = (folder.path().join("deployex-agent"), folder.path().join(KEEPER));
        let put = |path: &Path, text: &str, mode| {
            // Beside it and into its place: a program that is open for writing cannot be run.
            let new = path.with_extension("new");
            fs::write(&new, text).unwrap();
            fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
            fs::rename(&new, path).unwrap();
        };
        let wrong = async || would_begin(&agent).await.unwrap_err();
        assert!(wrong().await.contains("cannot be run: No such file"));
        put(&agent, "half a download", 0o755);
        assert!(wrong().await.contains("cannot be run: Exec format error"));
        put(&agent, "#!/bin/sh\nexit 127\n", 0o755);
        assert!(wrong().await.contains("--version ended with exit status: 127"));
        put(&agent, "#!/bin/sh\nexit 0\n", 0o755);
        assert!(wrong().await.contains("does not say that it is deployex-agent"));
        put(&agent, "#!/bin/sh\nyes deployex-agent\n", 0o755);
        assert!(wrong().await.contains("--version ended with"));
        put(&agent, "#!/bin/sh\necho deployex-agent 9.8.7\n", 0o755);
        assert!(wrong().await.contains("deployex-keeper cannot be run: No such file"));
        put(&keeper, "", 0o644);
        assert!(wrong().await.contains("put it beside the agent"));
        put(&keeper, "", 0o755);
        let old = Successor { version: "9.8.7".to_owned(), reads: 1 };
        assert_eq!(would_begin(&agent).await, Ok(old));
        put(&agent, "#!/bin/sh\nprintf 'deployex-agent 9.9.9\\nreads state 7\\n'\n", 0o755);
        assert_eq!(would_begin(&agent).await, Ok(Successor { version: "9.9.9".to_owned(), reads: 7 }));
    }

    #[test]
    fn this_program_says_which_state_it_reads() {
        let said = Successor::parse(&format!("{NAME} {LONG_VERSION}\n"));
        let reads = crate::supervisor::ledger::forms::READS;
        assert_eq!(said, Some(Successor { version: VERSION.to_owned(), reads }));
    }

    #[tokio::test]
    async fn what_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let (agent, new) = (folder.path().join("deployex-agent"), folder.path().join("new"));
        let pid = folder.path().join("pid");
        let script =
            format!("#!/bin/sh\nsleep 1000 &\necho $! > {0}.new\nmv {0}.new {0}\nwait\n", pid.display());
        fs::write(&new, script).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&new, &agent).unwrap();
        let why = would_begin_within(&agent, Duration::from_secs(1)).await.unwrap_err();
        assert!(why.contains("--version does not end"), "{why}");
        let stat = format!("/proc/{}/stat", fs::read_to_string(pid).unwrap().trim());
        while fs::read_to_string(&stat).is_ok_and(|it| !it.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_program_that_was_replaced_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let (place, link) = (folder.path().join("a"), folder.path().join("link"));
        fs::write(&place, "").unwrap();
        fs::hard_link(&place, &link).unwrap();
        let before = ProgramFile::at(&place).unwrap();
        assert_eq!(ProgramFile::at(&link).unwrap(), before);
        fs::write(folder.path().join("b"), "").unwrap();
        fs::rename(folder.path().join("b"), &place).unwrap();
        assert_ne!(ProgramFile::at(&place).unwrap(), before);
        assert_eq!(lies().unwrap(), std::env::current_exe().unwrap());
    }

    #[test]
    fn a_program_that_was_started_through_a_link_is_found_through_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let (old, new, link) = (folder.join("old"), folder.join("new"), folder.join("deployex-agent"));
        for program in [&old, &new] {
            fs::write(program, "").unwrap();
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
