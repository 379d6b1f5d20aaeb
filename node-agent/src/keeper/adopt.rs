//! Taking over what a keeper that was killed has left: a program that lives on, or only its end and its last words.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use proto::state::ExitCause;

use super::fifo::printers;
use super::locks::{Locks, SLOT_LOCK};
use super::log_file::Drain;
use super::procfs::{Holders, Stat, boot_id, handle};
use super::protocol::{Said, Step};
use super::reap::Family;
use super::record::{Ended, Process, ProcessRecord};
use super::signals::Signals;
use super::socket::Clients;
use super::start::{Started, failed, open_drains};
use super::watch::{Phase, Watch};
use super::{HERE, SOCKET};
use crate::cgroup::Cgroup;
use crate::cgroup::deaths::Deaths;
use crate::clock::{monotonic_ms, unix_ms};

/// A keeper that was just killed holds its lock for the moment that its end takes.
const DYING_KEEPER_MS: u64 = 500;

/// A child without its keeper becomes a program, or gives up, in milliseconds; longer where the disk is slow.
const CHILD_MS: u64 = 5_000;

/// What there is to take over.
enum Left {
    Program {
        record: ProcessRecord,
        handle: OwnedFd,
    },
    /// The program is gone; who still holds the slot is what it left behind.
    Remains {
        record: ProcessRecord,
        family: Family,
    },
}

/// `Err` is the answer to the agent: there is nothing to keep, or it is kept by another.
pub(super) fn adopt(signals: Signals) -> Result<Started, Said> {
    let locks = Locks::take_over(Path::new(HERE), DYING_KEEPER_MS).map_err(failed(Step::Lock))?;
    let mut locks = locks.ok_or(Said::Held(None))?;
    let left = look(&mut locks)?;
    let (Left::Program { record, .. } | Left::Remains { record, .. }) = &left;
    let process = record.process;
    let mut drains = open_drains(&record.stdout_log, &record.stderr_log, record.log_mode)?;
    let clients = Clients::listen(Path::new(SOCKET)).map_err(failed(Step::Socket))?;
    let cgroup = record.cgroup.clone().map(Cgroup::at);
    let (family, phase) = match left {
        Left::Program { handle, .. } => {
            let mut family = Family::default();
            family.add_descendants(process.pid, &handle);
            (family, Phase::running(handle))
        }
        Left::Remains { mut family, .. } => {
            if let Some(cgroup) = &cgroup {
                family.add_members(cgroup);
            }
            drains.iter_mut().for_each(Drain::finish);
            (family, Phase::ending(unseen_end(process, &drains), false))
        }
    };
    // Of this very process: its number may be another's by now.
    let its = |stat: &Stat| stat.start_ticks == process.start_ticks;
    let session = Stat::of(process.pid).filter(its).map(|stat| stat.session);
    let deaths = cgroup.as_ref().and_then(Deaths::from_now_on);
    let watch = Watch {
        process,
        session,
        adopted: true,
        looked_at: 0,
        signals,
        reap_at: 0,
        drains,
        clients,
        family,
        cgroup,
        deaths,
        phase,
    };
    Ok(Started { watch, locks })
}

/// Looks until it is clear what is there, which it is not while a child is about to become a program.
fn look(locks: &mut Locks) -> Result<Left, Said> {
    let here = Path::new(HERE);
    let deadline = monotonic_ms() + CHILD_MS;
    loop {
        // Before the record is read: whoever let go of the slot between the two has written it.
        let free = locks.try_slot(here).map_err(failed(Step::Lock))?;
        let record = ProcessRecord::load(here).filter(|it| it.boot_id == boot_id());
        if let Some(record) = &record
            && let Some(handle) = handle(record.process.pid, record.process.start_ticks)
        {
            return Ok(Left::Program { record: record.clone(), handle });
        }
        let holders = if free { Holders::none() } else { Holders::of(&here.join(SLOT_LOCK)) };
        let found = holders.eldest();
        if (holders.launching || !free && found.is_none()) && monotonic_ms() < deadline {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        return match (record, found) {
            (Some(record), _) => {
                let mut family = Family::default();
                family.add_all(holders.programs);
                // Port programs of a BEAM do not hold the lock.
                family.add_all(printers(here));
                Ok(Left::Remains { record, family })
            }
            (None, Some((pid, stat))) => match handle(pid, stat.start_ticks) {
                Some(handle) => Ok(Left::Program { record: lost_record(pid, stat)?, handle }),
                None => continue,
            },
            (None, None) if free => Err(Said::Gone),
            (None, None) => Err(Said::Held(None)),
        };
    }
}

/// For a program whose record was lost and that only its lock tells of. Where its logs were is not known any more.
fn lost_record(pid: u32, stat: Stat) -> Result<ProcessRecord, Said> {
    let record = ProcessRecord {
        process: Process { ticket: Process::TICKET_LOST, pid, start_ticks: stat.start_ticks },
        boot_id: boot_id(),
        stdout_log: "stdout.log".into(),
        stderr_log: "stderr.log".into(),
        log_mode: super::spec::LOG_MODE,
        cgroup: None,
    };
    record.store(Path::new(HERE)).map_err(failed(Step::Record))?;
    Ok(record)
}

/// What was written down of the end, if that was reached; else that nobody saw it.
fn unseen_end(process: Process, drains: &[Drain; 2]) -> Ended {
    match Ended::load(Path::new(HERE)) {
        Some(ended) if ended.process == process => ended,
        _ => {
            let dropped = drains.iter().map(Drain::dropped).sum();
            // Nor when: a death for want of memory that its group counts may be one of days before.
            let ended = Ended { process, cause: ExitCause::Unknown, dropped, unix_ms: unix_ms() };
            let _ = ended.store(Path::new(HERE));
            ended
        }
    }
}
