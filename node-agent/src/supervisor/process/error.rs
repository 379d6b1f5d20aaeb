//! Why a process could not be launched, found or given another log, in words that say where and what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::{LaunchSpec, SlotDir, SpecError, Step};
use crate::keeper::protocol::Failure;

/// Why nothing was launched. Nothing of this launch runs, save perhaps where it is not known ([`LaunchError::Unclear`]).
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Zero where it is not known who.
    #[error("the slot is held by process {pid} of launch {ticket}")]
    Held { ticket: u64, pid: u32 },
    #[error("the launch cannot be put into words")]
    Spec(#[from] SpecError),
    #[error("the program {0} is not given by an absolute path")]
    Relative(PathBuf),
    #[error("cannot start the keeper {keeper}{}", Missing(.source))]
    Keeper { keeper: PathBuf, source: io::Error },
    #[error("cannot prepare the slot's folder {slot}")]
    Folder { slot: PathBuf, source: io::Error },
    #[error("{}", Doing(.step, .path))]
    Step { step: Step, path: PathBuf, source: io::Error },
    #[error("cannot make the control group {}", group.display())]
    Group { group: PathBuf, source: io::Error },
    #[error("the keeper ended before it launched anything; trying again can help")]
    Lost,
    /// The keeper went silent and the slot could not be looked into: the program may run. Whoever launches again meets the
    /// slot's lock, which says so.
    #[error("cannot tell what became of the launch")]
    Unclear(#[from] FindError),
}

/// Why it is not known what runs in a slot. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("cannot look into the slot's folder {slot}")]
    Folder { slot: PathBuf, source: io::Error },
    #[error("cannot start the keeper {keeper}{}", Missing(.source))]
    Keeper { keeper: PathBuf, source: io::Error },
    #[error("a keeper that was to take over could not: {}", Doing(.step, .path))]
    Step { step: Step, path: PathBuf, source: io::Error },
    #[error("somebody holds the lock {0} and no keeper answers; see `fuser` for who it is")]
    Silent(PathBuf),
}

/// Why a log was not rotated; it goes on as it was.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("{0:?} cannot be the name of a log file")]
    Name(String),
    #[error("the keeper is not to be reached")]
    Unreached(#[from] io::Error),
    #[error("the keeper refused: {0}")]
    Refused(String),
}

/// A keeper's failure, with the path that it is about.
pub(super) fn explain(
    failure: Failure,
    dir: &SlotDir,
    spec: Option<&LaunchSpec>,
) -> (Step, PathBuf, io::Error) {
    let path = match (failure.step, spec) {
        (Step::StdoutLog, Some(spec)) => spec.stdout_log.clone(),
        (Step::StderrLog, Some(spec)) => spec.stderr_log.clone(),
        (Step::Cwd, Some(spec)) => spec.cwd.clone(),
        (Step::Exec | Step::User, Some(spec)) => spec.program.clone(),
        _ => dir.0.clone(),
    };
    (failure.step, path, io::Error::from_raw_os_error(failure.errno))
}

/// What to look after where there may be no such program.
struct Missing<'a>(&'a io::Error);

impl std::fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                f.write_str("; is it installed beside the agent?")
            }
            _ => Ok(()),
        }
    }
}

struct Doing<'a>(&'a Step, &'a Path);

impl std::fmt::Display for Doing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.1.display();
        match self.0 {
            Step::Order => {
                write!(f, "the keeper does not understand its order; agent and keeper must be of one version")
            }
            Step::Folder => write!(f, "cannot enter the slot's folder {path}"),
            Step::Detach => write!(f, "the keeper cannot leave the agent's session"),
            Step::Lock => write!(f, "cannot lock the slot's folder {path}"),
            Step::Socket => write!(f, "cannot listen on {path}/keeper.sock"),
            Step::Fifo => write!(f, "cannot open the pipes of the program's output in {path}"),
            Step::StdoutLog | Step::StderrLog => write!(f, "cannot open the log file {path}"),
            Step::Spawn => write!(f, "cannot start a process"),
            Step::Record => write!(f, "cannot write the process down in {path}"),
            Step::User => write!(f, "cannot become the user that {path} is to run as"),
            Step::Cwd => write!(f, "cannot enter the working folder {path}"),
            Step::Exec => write!(f, "cannot execute {path}"),
            Step::Cgroup => write!(f, "cannot start a process in its control group"),
        }
    }
}
