//! How a keeper gets its process: it launches it. `adopt` is the other way.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Uid, fchown};
use rustix::process::geteuid;

use super::fifo::{self, open_reader, open_writer};
use super::launcher::{self, Launched};
use super::locks::Locks;
use super::log_file::Drain;
use super::procfs::{Stat, boot_id};
use super::protocol::{Failure, Said, Step};
use super::reap::Family;
use super::record::ProcessRecord;
use super::signals::Signals;
use super::socket::Clients;
use super::spec::LaunchSpec;
use super::watch::{Phase, Watch};
use super::{HERE, SOCKET};
use crate::cgroup::Cgroup;
use crate::cgroup::deaths::Deaths;

/// What is kept, and the locks for as long as it is.
pub(super) struct Started {
    pub(super) watch: Watch,
    /// Held for as long as the watch runs.
    pub(super) locks: Locks,
}

/// `Err` is the answer to the agent: nothing was started, and why.
pub(super) fn launch(
    spec: &LaunchSpec,
    cgroup: Option<Cgroup>,
    signals: Signals,
    agent: &UnixStream,
) -> Result<Started, Said> {
    let locks = Locks::take(Path::new(HERE)).map_err(failed(Step::Lock))??;
    end_remains();
    let drains = open_drains(&spec.stdout_log, &spec.stderr_log, spec.log_mode)?;
    let clients = Clients::listen(Path::new(SOCKET)).map_err(failed(Step::Socket))?;
    let outputs = open_outputs(spec)?;
    if has_hung_up(agent) {
        // Another agent may have looked here meanwhile and found nothing.
        return Err(Said::Gone);
    }
    // From before it: a program may be over its limit at once.
    let deaths = cgroup.as_ref().and_then(Deaths::from_now_on);
    let Launched { process, handle } =
        launcher::launch(spec, cgroup.as_ref(), &locks, outputs).map_err(Said::Failed)?;
    let session = Stat::of(std::process::id()).map(|it| it.session);
    let watch = Watch {
        process,
        session,
        adopted: false,
        looked_at: 0,
        signals,
        reap_at: 0,
        drains,
        clients,
        family: Family::default(),
        cgroup,
        deaths,
        phase: Phase::running(handle),
    };
    Ok(Started { watch, locks })
}

/// The slot is ours, so whoever is in the group of the process before was left by a keeper that was killed over ending them.
fn end_remains() {
    let record = ProcessRecord::load(Path::new(HERE)).filter(|it| it.boot_id == boot_id());
    if let Some(group) = record.and_then(|it| it.cgroup).map(Cgroup::at)
        && !group.members().is_empty()
    {
        let _ = group.kill();
    }
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
