//! From a keeper to its program: the child that is forked here, until it has become the program.
//!
//! It writes its own pid down before the program exists, so that no moment is left in which a program runs that nobody could
//! find, even where the keeper is killed in between. Then it sheds all that is the agent's and executes. A second execution
//! of the keeper's own file would do the same without `unsafe`, and did; it took longer than everything else here.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use proto::state::ExitCause;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Gid, Pid, PidfdFlags, Uid, WaitOptions, pidfd_open, umask, waitpid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::HERE;
use super::locks::Locks;
use super::procfs::{Stat, boot_id};
use super::protocol::{Failure, Said, Step};
use super::record::{Ended, Process, ProcessRecord};
use super::signals;
use super::spec::{LaunchSpec, UserIds};
use crate::cgroup::Cgroup;
use crate::clock::unix_ms;
use crate::oom;

/// As shells have it for a command that could not be executed.
const NOT_EXECUTED: i32 = 127;

/// A program that was executed, and a hold on it that no other process can get into.
pub(super) struct Launched {
    pub(super) process: Process,
    pub(super) handle: OwnedFd,
}

/// What the child is to become, and where.
#[derive(Clone)]
struct Child {
    spec: LaunchSpec,
    cgroup: Option<Cgroup>,
    /// It does not begin in its group and has to go there.
    enter: bool,
}

/// Returns when the program runs, or when nothing is left of what was to become it.
pub(super) fn launch(
    spec: &LaunchSpec,
    cgroup: Option<&Cgroup>,
    locks: &Locks,
    [stdout, stderr]: [File; 2],
) -> Result<Launched, Failure> {
    let (failures, line) = io::pipe().map_err(Failure::at(Step::Spawn))?;
    let mut command = Command::new(&spec.program);
    command.args(&spec.args).env_clear().envs(&spec.env);
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
    let child = Child { spec: spec.clone(), cgroup: cgroup.cloned(), enter: false };
    let begun = match cgroup {
        Some(cgroup) => begin_in(cgroup, command, child, locks, (failures, line)),
        None => begin(command, child, locks, (failures, line)),
    };
    match begun {
        Ok(pid) => {
            let handle = child_handle(pid).map_err(Failure::at(Step::Spawn))?;
            let process = recorded(spec, cgroup, pid).map_err(Failure::at(Step::Record))?;
            Ok(Launched { process, handle })
        }
        Err(failure) => {
            note_failure(spec);
            Err(failure)
        }
    }
}

type Line = (PipeReader, PipeWriter);

fn begin(mut command: Command, child: Child, locks: &Locks, line: Line) -> Result<u32, Failure> {
    let (mut failures, line) = line;
    let spec = child.spec.clone();
    prepare_in_child(&mut command, child, locks.keeper_fd(), line);
    let spawned = command.spawn();
    // Its end of the line goes with it.
    drop(command);
    spawned.map(|child| child.id()).map_err(|error| {
        let mut left = String::new();
        let _ = failures.read_to_string(&mut left);
        // Whoever wrote itself down was there, and only its execution is left to fail.
        let step = if written_down(&spec).is_some() { Step::Exec } else { Step::Spawn };
        decode(&left).unwrap_or_else(|| Failure::at(step)(error))
    })
}

/// The child is born in its group. To send it there once it lives would hold it up by ten milliseconds and more: the kernel
/// waits for every other start and end of a process first.
fn begin_in(
    cgroup: &Cgroup,
    mut command: Command,
    child: Child,
    locks: &Locks,
    (mut failures, line): Line,
) -> Result<u32, Failure> {
    let folder = cgroup.open().map_err(Failure::at(Step::Cgroup))?;
    let mut own_line = line.try_clone().map_err(Failure::at(Step::Spawn))?;
    match fork_into(&folder) {
        Ok(None) => {
            prepare_in_child(&mut command, child, locks.keeper_fd(), line);
            let error = command.exec();
            // Behind what the preparation may have said: the first line counts.
            let _ = own_line.write_all(&encode(Failure::at(Step::Exec)(error)));
            std::process::exit(NOT_EXECUTED);
        }
        Ok(Some(pid)) => {
            drop((line, own_line));
            let mut left = String::new();
            let _ = failures.read_to_string(&mut left);
            match left.lines().next().and_then(decode) {
                None => Ok(pid.as_raw_nonzero().get().unsigned_abs()),
                Some(failure) => {
                    // Until then it holds the slot.
                    let _ = waitpid(Some(pid), WaitOptions::empty());
                    Err(failure)
                }
            }
        }
        // A kernel before 5.7, or a container that does not let the call through.
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::TOOBIG) => {
            drop(own_line);
            begin(command, Child { enter: true, ..child }, locks, (failures, line))
        }
        Err(error) => Err(Failure::at(Step::Cgroup)(error)),
    }
}

/// As fork, with the child born in this group. `None`: this is the child.
#[expect(unsafe_code, reason = "no library offers a fork into a control group")]
fn fork_into(cgroup: &OwnedFd) -> Result<Option<Pid>, Errno> {
    use nix::libc::{SIGCHLD, SYS_clone3, clone_args, syscall};
    /// As the kernel has it since 5.7.
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    // SAFETY: a structure of numbers, of which zero means that nothing is asked for.
    let mut wish: clone_args = unsafe { std::mem::zeroed() };
    wish.flags = CLONE_INTO_CGROUP;
    wish.exit_signal = u64::try_from(SIGCHLD).unwrap_or_default();
    wish.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
    // SAFETY: without CLONE_VM this is a fork: the child goes on with a copy of all memory and the same stack. A keeper has
    // one thread, so no lock is held by anybody who does not exist in the child.
    let pid = unsafe { syscall(SYS_clone3, &raw mut wish, size_of::<clone_args>()) };
    match i32::try_from(pid) {
        Ok(0) => Ok(None),
        Ok(pid) if pid > 0 => Ok(Pid::from_raw(pid)),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::AGAIN)),
    }
}

/// What is done between fork and exec, as whoever the program is to be.
#[expect(
    unsafe_code,
    reason = "the only way from a fork to a program that leaves room for a step in between"
)]
fn prepare_in_child(command: &mut Command, child: Child, keeper_lock: RawFd, mut line: PipeWriter) {
    let prepare = move || {
        // SAFETY: the descriptor is open in this process, a copy of the keeper's, whose `Locks` nobody uses or drops here.
        unsafe { rustix::io::close(keeper_lock) };
        prepare(&child).map_err(|failure| {
            let _ = line.write_all(&encode(failure));
            io::Error::from_raw_os_error(failure.errno)
        })
    };
    // SAFETY: a forked child may do as little as a signal handler because another thread may have held a lock, the
    // allocator's for one, at the fork. A keeper has one thread, so nothing was held and everything may be called.
    unsafe { command.pre_exec(prepare) };
}

fn prepare(child: &Child) -> Result<(), Failure> {
    let Child { spec, cgroup, enter } = child;
    record(spec, cgroup.as_ref(), std::process::id(), Path::new(HERE)).map_err(Failure::at(Step::Record))?;
    if let Some(cgroup) = cgroup.as_ref().filter(|_| *enter) {
        cgroup.enter().map_err(Failure::at(Step::Cgroup))?;
    }
    oom::spare_me_no_more();
    signals::let_through().map_err(Failure::at(Step::Spawn))?;
    umask(Mode::from_raw_mode(0o022));
    if let Some(user) = &spec.user {
        become_user(user).map_err(Failure::at(Step::User))?;
    }
    // As the user, who may or may not enter it.
    std::env::set_current_dir(&spec.cwd).map_err(Failure::at(Step::Cwd))
}

/// Writes down which process this launch is, and says which.
fn record(spec: &LaunchSpec, cgroup: Option<&Cgroup>, pid: u32, slot: &Path) -> io::Result<Process> {
    let start_ticks = Stat::of(pid).ok_or(io::ErrorKind::NotFound)?.start_ticks;
    let process = Process { ticket: spec.ticket, pid, start_ticks };
    ProcessRecord {
        process,
        boot_id: boot_id(),
        stdout_log: spec.stdout_log.clone(),
        stderr_log: spec.stderr_log.clone(),
        log_mode: spec.log_mode,
        cgroup: cgroup.map(|it| it.path().to_owned()),
    }
    .store(slot)?;
    Ok(process)
}

/// The child has written itself down, unless it was killed before.
fn recorded(spec: &LaunchSpec, cgroup: Option<&Cgroup>, pid: u32) -> io::Result<Process> {
    match ProcessRecord::load(Path::new(HERE)) {
        Some(record) if record.process.ticket == spec.ticket && record.process.pid == pid => {
            Ok(record.process)
        }
        _ => record(spec, cgroup, pid, Path::new(HERE)),
    }
}

/// For an agent that comes later and finds the record of what never became a program.
fn note_failure(spec: &LaunchSpec) {
    if let Some(process) = written_down(spec) {
        let cause = ExitCause::Code(NOT_EXECUTED);
        let _ = Ended { process, cause, dropped: 0, unix_ms: unix_ms() }.store(Path::new(HERE));
    }
}

/// What the child of this launch wrote.
fn written_down(spec: &LaunchSpec) -> Option<Process> {
    let record = ProcessRecord::load(Path::new(HERE))?;
    Some(record.process).filter(|it| it.ticket == spec.ticket)
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
