//! How a keeper gets its process: it launches it. `adopt` is the other way.

use std::fs::File;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use proto::state::ExitCause;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Uid, fchown};
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};

use super::fifo::{self, open_reader, open_writer};
use super::launcher;
use super::locks::Locks;
use super::log_file::Drain;
use super::procfs::Stat;
use super::protocol::{Failure, Said, Step};
use super::reap::{Family, reap};
use super::record::{Ended, Process, ProcessRecord};
use super::socket::Clients;
use super::spec::{LaunchSpec, Order};
use super::watch::{Phase, Watch};
use super::{HERE, SOCKET};
use crate::clock::unix_ms;

/// What is kept, and the locks for as long as it is.
pub(super) struct Started {
    pub(super) watch: Watch,
    /// Held for as long as the watch runs.
    pub(super) locks: Locks,
}

/// `Err` is the answer to the agent: nothing was started, and why.
pub(super) fn launch(spec: &LaunchSpec, agent: &UnixStream) -> Result<Started, Said> {
    let locks = Locks::take(Path::new(HERE)).map_err(failed(Step::Lock))??;
    let drains = open_drains(&spec.stdout_log, &spec.stderr_log, spec.log_mode)?;
    let clients = Clients::listen(Path::new(SOCKET)).map_err(failed(Step::Socket))?;
    let [stdout, stderr] = open_outputs(spec)?;
    if has_hung_up(agent) {
        // Another agent may have looked here meanwhile and found nothing.
        return Err(Said::Gone);
    }
    let (line, stage) = UnixStream::pair().map_err(failed(Step::Spawn))?;
    // The child becomes the program; it is waited for by its pid, among all others.
    let pid = Command::new("/proc/self/exe")
        .arg(launcher::STAGE)
        .env_clear()
        .stdin(OwnedFd::from(stage))
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .spawn()
        .map_err(failed(Step::Spawn))?
        .id();
    let handle = child_handle(pid).map_err(failed(Step::Spawn))?;
    let left = hand_over(spec, line);
    let process = recorded(spec, pid).map_err(failed(Step::Record))?;
    if let Some(failure) = launcher::decode(&left) {
        // It is about to end, and holds the slot until it has: who tries again at once must find it free.
        let patience = Timespec { tv_sec: 2, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&patience));
        let cause = reap(pid).unwrap_or(ExitCause::Code(127));
        let _ = Ended { process, cause, dropped: 0, unix_ms: unix_ms() }.store(Path::new(HERE));
        return Err(Said::Failed(failure));
    }
    let session = Stat::of(std::process::id()).map(|it| it.session);
    let watch = Watch {
        process,
        session,
        adopted: false,
        drains,
        clients,
        family: Family::default(),
        phase: Phase::running(handle),
    };
    Ok(Started { watch, locks })
}

/// Gives the launcher stage its order and returns what it said until it was gone from the line.
fn hand_over(spec: &LaunchSpec, mut line: UnixStream) -> String {
    let order = Order::Launch { slot: PathBuf::from(HERE), spec: spec.clone() };
    let mut left = String::new();
    // A launcher that was killed has said nothing; the wait for it tells how it ended.
    let _ = order.send(&mut line);
    let _ = line.shutdown(Shutdown::Write);
    let _ = line.take(256).read_to_string(&mut left);
    left
}

/// The launcher has written itself down, unless it was killed before.
fn recorded(spec: &LaunchSpec, pid: u32) -> io::Result<Process> {
    match ProcessRecord::load(Path::new(HERE)) {
        Some(record) if record.process.ticket == spec.ticket && record.process.pid == pid => {
            Ok(record.process)
        }
        _ => launcher::record(spec, pid, Path::new(HERE)),
    }
}

/// Of our own child, whose pid is its until we have taken it up.
fn child_handle(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// The FIFOs, and the logs that they are drained into.
pub(super) fn open_drains(stdout_log: &Path, stderr_log: &Path, mode: u32) -> Result<[Drain; 2], Said> {
    let open = |fifo: &str, log: &Path, step: Step| {
        let reader = open_reader(&Path::new(HERE).join(fifo)).map_err(failed(Step::Fifo))?;
        Drain::new(reader, log, mode).map_err(failed(step))
    };
    Ok([open(fifo::STDOUT, stdout_log, Step::StdoutLog)?, open(fifo::STDERR, stderr_log, Step::StderrLog)?])
}

/// The program's ends of the FIFOs. They are given to its user, so that it may open `/dev/stdout` as scripts do.
fn open_outputs(spec: &LaunchSpec) -> Result<[File; 2], Said> {
    let open = |fifo: &str| {
        let writer = open_writer(&Path::new(HERE).join(fifo))?;
        match &spec.user {
            Some(user) if geteuid().is_root() => fchown(&writer, Some(Uid::from_raw(user.uid)), None)?,
            _ => {}
        }
        Ok(writer)
    };
    let both = open(fifo::STDOUT).and_then(|stdout| Ok([stdout, open(fifo::STDERR)?]));
    both.map_err(failed::<io::Error>(Step::Fifo))
}

fn has_hung_up(agent: &UnixStream) -> bool {
    let mut fds = [PollFd::new(agent, PollFlags::RDHUP)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
}

pub(super) fn failed<E: Into<io::Error>>(step: Step) -> impl Fn(E) -> Said {
    move |error| Said::Failed(Failure::at(step)(error))
}
