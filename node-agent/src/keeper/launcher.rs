//! From a keeper to its program: the child that is forked here, until it has become the program.
//!
//! It writes its own pid down before the program exists, so that no moment is left in which a program runs that nobody could
//! find, even where the keeper is killed in between. Then it sheds all that is the agent's and executes. A second execution
//! of the keeper's own file would do the same without `unsafe`, and did; it took longer than everything else here.

use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use proto::state::ExitCause;
use rustix::fs::Mode;
use rustix::process::{Gid, Pid, PidfdFlags, Uid, pidfd_open, umask};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::HERE;
use super::locks::Locks;
use super::procfs::{Stat, boot_id};
use super::protocol::{Failure, Said, Step};
use super::record::{Ended, Process, ProcessRecord};
use super::spec::{LaunchSpec, UserIds};
use crate::clock::unix_ms;

/// As shells have it for a command that could not be executed.
const NOT_EXECUTED: i32 = 127;

/// A program that was executed, and a hold on it that no other process can get into.
pub(super) struct Launched {
    pub(super) process: Process,
    pub(super) handle: OwnedFd,
}

/// Returns when the program runs, or when nothing is left of what was to become it.
pub(super) fn launch(
    spec: &LaunchSpec,
    locks: &Locks,
    [stdout, stderr]: [File; 2],
) -> Result<Launched, Failure> {
    let (mut failures, line) = io::pipe().map_err(Failure::at(Step::Spawn))?;
    let mut command = Command::new(&spec.program);
    command.args(&spec.args).env_clear().envs(&spec.env);
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
    prepare_in_child(&mut command, spec.clone(), locks.keeper_fd(), line);
    let spawned = command.spawn();
    // Its end of the line goes with it.
    drop(command);
    match spawned {
        Ok(child) => {
            let handle = child_handle(child.id()).map_err(Failure::at(Step::Spawn))?;
            let process = recorded(spec, child.id()).map_err(Failure::at(Step::Record))?;
            Ok(Launched { process, handle })
        }
        Err(error) => {
            let mut left = String::new();
            let _ = failures.read_to_string(&mut left);
            let step = if note_failure(spec) { Step::Exec } else { Step::Spawn };
            Err(decode(&left).unwrap_or_else(|| Failure::at(step)(error)))
        }
    }
}

/// What is done between fork and exec, as whoever the program is to be.
#[expect(
    unsafe_code,
    reason = "the only way from a fork to a program that leaves room for a step in between"
)]
fn prepare_in_child(command: &mut Command, spec: LaunchSpec, keeper_lock: RawFd, mut line: PipeWriter) {
    let prepare = move || {
        // SAFETY: the descriptor is open in this process, a copy of the keeper's, whose `Locks` nobody uses or drops here.
        unsafe { rustix::io::close(keeper_lock) };
        prepare(&spec).map_err(|failure| {
            let _ = line.write_all(&encode(failure));
            io::Error::from_raw_os_error(failure.errno)
        })
    };
    // SAFETY: a forked child may do as little as a signal handler because another thread may have held a lock, the
    // allocator's for one, at the fork. A keeper has one thread, so nothing was held and everything may be called.
    unsafe { command.pre_exec(prepare) };
}

fn prepare(spec: &LaunchSpec) -> Result<(), Failure> {
    record(spec, std::process::id(), Path::new(HERE)).map_err(Failure::at(Step::Record))?;
    umask(Mode::from_raw_mode(0o022));
    if let Some(user) = &spec.user {
        become_user(user).map_err(Failure::at(Step::User))?;
    }
    // As the user, who may or may not enter it.
    std::env::set_current_dir(&spec.cwd).map_err(Failure::at(Step::Cwd))
}

/// Writes down which process this launch is, and says which.
fn record(spec: &LaunchSpec, pid: u32, slot: &Path) -> io::Result<Process> {
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

/// The child has written itself down, unless it was killed before.
fn recorded(spec: &LaunchSpec, pid: u32) -> io::Result<Process> {
    match ProcessRecord::load(Path::new(HERE)) {
        Some(record) if record.process.ticket == spec.ticket && record.process.pid == pid => {
            Ok(record.process)
        }
        _ => record(spec, pid, Path::new(HERE)),
    }
}

/// For an agent that comes later and finds the record of what never became a program. Whether there was a child to write one.
fn note_failure(spec: &LaunchSpec) -> bool {
    let record = ProcessRecord::load(Path::new(HERE)).filter(|it| it.process.ticket == spec.ticket);
    if let Some(ProcessRecord { process, .. }) = &record {
        let process = *process;
        let cause = ExitCause::Code(NOT_EXECUTED);
        let _ = Ended { process, cause, dropped: 0, unix_ms: unix_ms() }.store(Path::new(HERE));
    }
    record.is_some()
}

/// Of our own child, whose pid is its until we have taken it up.
fn child_handle(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
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
    format!("{}\n", Said::Failed(failure)).into_bytes()
}

/// What the child left on the line: a failure, or nothing at all.
fn decode(left: &str) -> Option<Failure> {
    match Said::parse(left.trim_end()) {
        Some(Said::Failed(failure)) => Some(failure),
        _ => None,
    }
}
