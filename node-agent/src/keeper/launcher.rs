//! The keeper's second stage: the process that becomes the program.
//!
//! It writes its own pid down before the program exists, so that no moment is left in which a program runs that nobody could
//! find, even where the keeper is killed in between. Then it sheds all that is the agent's and executes. Standard input is
//! the line to the keeper: the order comes in, and a failure goes out; the end without one means that the program runs.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use rustix::fs::Mode;
use rustix::process::{Gid, Uid, umask};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::procfs::{Stat, boot_id};
use super::protocol::{Failure, Step};
use super::record::{Process, ProcessRecord};
use super::spec::{LaunchSpec, Order, UserIds};

/// The one argument that makes a keeper a launcher.
pub(super) const STAGE: &str = "launch";

/// As shells have it for a command that could not be executed.
const NOT_EXECUTED: u8 = 127;

pub(super) fn main() -> ExitCode {
    // A copy that closes on execution: that is how the keeper learns of it.
    let Ok(keeper) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::from(NOT_EXECUTED) };
    let mut keeper = UnixStream::from(keeper);
    let failure = match Order::read(&mut keeper) {
        Ok(Order::Launch { spec, .. }) => become_program(&spec),
        _ => Failure { step: Step::Order, errno: 0 },
    };
    let _ = keeper.write_all(&encode(failure));
    ExitCode::from(NOT_EXECUTED)
}

/// Returns only where it failed.
fn become_program(spec: &LaunchSpec) -> Failure {
    match prepare(spec) {
        Err(failure) => failure,
        Ok(()) => {
            let LaunchSpec { program, args, env, .. } = spec;
            let error = Command::new(program).args(args).env_clear().envs(env).stdin(Stdio::null()).exec();
            Failure::at(Step::Exec)(error)
        }
    }
}

fn prepare(spec: &LaunchSpec) -> Result<(), Failure> {
    record(spec, std::process::id(), Path::new(".")).map_err(Failure::at(Step::Record))?;
    umask(Mode::from_raw_mode(0o022));
    if let Some(user) = &spec.user {
        become_user(user).map_err(Failure::at(Step::User))?;
    }
    // As the user, who may or may not enter it.
    std::env::set_current_dir(&spec.cwd).map_err(Failure::at(Step::Cwd))
}

/// Writes down which process this launch is, and says which.
pub(super) fn record(spec: &LaunchSpec, pid: u32, slot: &Path) -> io::Result<Process> {
    let start_ticks = Stat::of(pid).ok_or(io::ErrorKind::NotFound)?.start_ticks;
    let process = Process { ticket: spec.ticket, pid, start_ticks };
    ProcessRecord {
        process,
        boot_id: boot_id(),
        stdout_log: spec.stdout_log.clone(),
        stderr_log: spec.stderr_log.clone(),
        log_mode: spec.log_mode,
    }
    .store(slot)?;
    Ok(process)
}

/// Groups first, the user last: after that there is no right to do the others. This process has one thread.
fn become_user(user: &UserIds) -> io::Result<()> {
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    // Without root there is one user for all; asking for that one is no change.
    if !rustix::process::geteuid().is_root() && rustix::process::geteuid() == uid {
        return Ok(());
    }
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

fn encode(failure: Failure) -> Vec<u8> {
    format!("{}\n", super::protocol::Said::Failed(failure)).into_bytes()
}

/// What the launcher left on the line: a failure, or nothing at all.
pub(super) fn decode(left: &str) -> Option<Failure> {
    match super::protocol::Said::parse(left.trim_end()) {
        Some(super::protocol::Said::Failed(failure)) => Some(failure),
        _ => None,
    }
}
