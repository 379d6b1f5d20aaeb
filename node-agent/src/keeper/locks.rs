//! Who may be a keeper of a slot, and who may run in it.
//!
//! Two `flock`s. `keeper.lock` is held by the one process that drains and answers, and by nobody else. `lock` is the slot:
//! its descriptor is passed on to the program, so that the slot is taken while either lives, whoever is killed. The kernel
//! frees both, never we.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

use super::SOCKET;
use super::procfs::{Stat, boot_id};
use super::protocol::Said;
use super::record::{Process, ProcessRecord};
use crate::clock::monotonic_ms;

pub(crate) const SLOT_LOCK: &str = "lock";
const KEEPER_LOCK: &str = "keeper.lock";

/// A predecessor takes up to two seconds to end what its program left behind, and as long again where that is deaf.
pub(crate) const PREDECESSOR_MS: u64 = 5_000;

/// Between two looks where there is nothing to wait on. Never on the way of an ordinary restart.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// Held until dropped, the slot also while the program lives.
pub(super) struct Locks {
    keeper: File,
    slot: Option<OwnedFd>,
}

impl Locks {
    /// Both. Waits for a keeper that is about to go, but not for one whose program runs.
    pub(super) fn take(slot: &Path) -> io::Result<Result<Self, Said>> {
        let deadline = monotonic_ms() + PREDECESSOR_MS;
        loop {
            if let Some(keeper) = try_keeper(slot)?
                && let Some(lock) = try_slot(slot)?
            {
                return Ok(Ok(Self { keeper, slot: Some(lock) }));
            }
            let holder = match Predecessor::of(slot) {
                Predecessor::Runs(process) => return Ok(Err(Said::Held(Some(process)))),
                Predecessor::Goes(line) => {
                    hang_up(&line, deadline.saturating_sub(monotonic_ms()));
                    None
                }
                Predecessor::Silent => living_process(slot),
            };
            if holder.is_some() || monotonic_ms() >= deadline {
                return Ok(Err(Said::Held(holder)));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// That of the keeper alone; `None` if one is there and stays.
    pub(super) fn take_over(slot: &Path, patience_ms: u64) -> io::Result<Option<Self>> {
        let deadline = monotonic_ms() + patience_ms;
        loop {
            if let Some(keeper) = try_keeper(slot)? {
                return Ok(Some(Self { keeper, slot: None }));
            }
            if monotonic_ms() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// That of the keeper alone, for a child to close: it may not hold up who takes over from its parent.
    pub(super) fn keeper_fd(&self) -> RawFd {
        self.keeper.as_raw_fd()
    }

    /// Whether the slot was free; now it is ours.
    pub(super) fn try_slot(&mut self, slot: &Path) -> io::Result<bool> {
        self.slot = try_slot(slot)?;
        Ok(self.slot.is_some())
    }
}

/// Whether nobody holds the slot at this moment. For looking only: whoever is to run there takes the lock.
pub(crate) fn is_free(slot: &Path) -> io::Result<bool> {
    match File::open(slot.join(SLOT_LOCK)) {
        Ok(file) => match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn try_keeper(slot: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(slot.join(KEEPER_LOCK))?;
    try_lock(file)
}

/// Without CLOEXEC: that the program inherits it is what it is for.
fn try_slot(slot: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW;
    try_lock(open(slot.join(SLOT_LOCK), flags, Mode::from_raw_mode(0o600))?)
}

fn try_lock<F: AsFd>(file: F) -> io::Result<Option<F>> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The keeper that is there, as it speaks.
enum Predecessor {
    Runs(Process),
    Goes(UnixStream),
    /// None, or one that has closed its socket already, or is not listening yet.
    Silent,
}

impl Predecessor {
    fn of(slot: &Path) -> Self {
        let Ok(stream) = UnixStream::connect(slot.join(SOCKET)) else { return Self::Silent };
        let mut line = String::new();
        let heard = stream
            .set_read_timeout(Some(Duration::from_secs(1)))
            .and_then(|()| BufReader::new(&stream).read_line(&mut line));
        match (heard, Said::parse(line.trim_end())) {
            (Ok(_), Some(Said::Hello(process))) => Self::Runs(process),
            (Ok(_), Some(Said::Exited(_))) => Self::Goes(stream),
            _ => Self::Silent,
        }
    }
}

fn hang_up(line: &UnixStream, patience_ms: u64) {
    let patience = Timespec::try_from(Duration::from_millis(patience_ms)).unwrap_or_default();
    let mut fds = [PollFd::new(line, PollFlags::RDHUP)];
    let _ = poll(&mut fds, Some(&patience));
}

fn living_process(slot: &Path) -> Option<Process> {
    let record = ProcessRecord::load(slot).filter(|it| it.boot_id == boot_id())?;
    let stat = Stat::of(record.process.pid)?;
    (!stat.dead && stat.start_ticks == record.process.start_ticks).then_some(record.process)
}
