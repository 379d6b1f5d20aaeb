//! What is written down about a slot's process: `process` before it exists, `exit` when it has ended.
//!
//! Both are for an agent that comes later. They are replaced whole by renaming, and never synced: they mean nothing after a
//! reboot, and a sync would delay every restart. Whether something runs is said by the slot's lock, not by them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use proto::state::ExitCause;

use super::protocol::{cause_words, memory_word, parse_cause, with_memory};
use super::spec::{unword, word};

/// A process that was launched in a slot, told from all others, also from one that got the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Of its [`LaunchSpec`](super::spec::LaunchSpec); [`Self::TICKET_LOST`] where the process was found by its lock alone.
    pub ticket: u64,
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
}

impl Process {
    pub const TICKET_LOST: u64 = 0;
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub process: Process,
    pub cause: ExitCause,
    /// Bytes of output that its log files could not take.
    pub dropped: u64,
    /// When it was seen to end, by the wall clock.
    pub unix_ms: u64,
}

/// The `process` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProcessRecord {
    pub(crate) process: Process,
    pub(crate) boot_id: String,
    /// So that a keeper that takes over writes where its predecessor wrote.
    pub(crate) stdout_log: PathBuf,
    pub(crate) stderr_log: PathBuf,
    pub(crate) log_mode: u32,
    /// The control group that it began in; `None`: that of its keeper, also where that was of version 1.
    pub(crate) cgroup: Option<PathBuf>,
}

const PROCESS: &str = "process";
const EXIT: &str = "exit";

impl ProcessRecord {
    /// `None` where there is none, or none that makes sense.
    pub(crate) fn load(slot: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(slot.join(PROCESS)).ok()?)
    }

    pub(super) fn store(&self, slot: &Path) -> io::Result<()> {
        replace(slot, PROCESS, &self.text())
    }

    fn text(&self) -> String {
        let Self { process, boot_id, stdout_log, stderr_log, log_mode, cgroup } = self;
        let Process { ticket, pid, start_ticks } = process;
        let cgroup = cgroup.as_ref().map(|it| format!("cgroup {}\n", word(it))).unwrap_or_default();
        format!(
            "process 1\nticket {ticket}\npid {pid}\nstart {start_ticks}\nboot {boot_id}\nstdout {}\nstderr {}\n\
             mode {log_mode:o}\n{cgroup}end\n",
            word(stdout_log),
            word(stderr_log)
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let fields = Fields::of(text, "process 1")?;
        Some(Self {
            process: fields.process()?,
            boot_id: fields.get("boot")?.to_owned(),
            stdout_log: unword(fields.get("stdout")?)?,
            stderr_log: unword(fields.get("stderr")?)?,
            log_mode: u32::from_str_radix(fields.get("mode")?, 8).ok()?,
            cgroup: fields.get("cgroup").and_then(unword),
        })
    }
}

impl Ended {
    /// `None` where there is none, or none that makes sense.
    pub(crate) fn load(slot: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(slot.join(EXIT)).ok()?)
    }

    pub(super) fn store(&self, slot: &Path) -> io::Result<()> {
        replace(slot, EXIT, &self.text())
    }

    fn text(&self) -> String {
        let Self { process: Process { ticket, pid, start_ticks }, cause, dropped, unix_ms } = self;
        let memory = memory_word(*cause).map(|it| format!("memory {it}\n")).unwrap_or_default();
        format!(
            "exit 1\nticket {ticket}\npid {pid}\nstart {start_ticks}\ncause {}\nat {unix_ms}\ndropped {dropped}\n\
             {memory}end\n",
            cause_words(*cause)
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let fields = Fields::of(text, "exit 1")?;
        let (word, value) = fields.get("cause")?.split_once(' ')?;
        Some(Self {
            process: fields.process()?,
            cause: with_memory(parse_cause(word, value)?, fields.get("memory")),
            dropped: fields.get("dropped")?.parse().ok()?,
            unix_ms: fields.get("at")?.parse().ok()?,
        })
    }
}

struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    /// The last line says that the text is whole.
    fn of(text: &'a str, first: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != first {
            return None;
        }
        let mut fields = Vec::new();
        for line in lines {
            if line == "end" {
                return Some(Self(fields));
            }
            fields.push(line.split_once(' ')?);
        }
        None
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(it, _)| *it == name).map(|(_, value)| *value)
    }

    fn process(&self) -> Option<Process> {
        Some(Process {
            ticket: self.get("ticket")?.parse().ok()?,
            pid: self.get("pid")?.parse().ok()?,
            start_ticks: self.get("start")?.parse().ok()?,
        })
    }
}

fn replace(slot: &Path, name: &str, text: &str) -> io::Result<()> {
    let path = slot.join(name);
    let fresh = slot.join(format!("{name}.new"));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&fresh, &path));
    match written {
        // A full disk must not keep a crashed program from being started again. The old record has its block already.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => overwrite(&path, text).map_err(|_| error),
        result => result,
    }
}

/// Not atomic against a crash of the machine, after which the record means nothing.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let file: File = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: Process = Process { ticket: 1, pid: 2, start_ticks: 3 };

    #[test]
    fn records_come_back_as_they_were_and_cut_ones_do_not() {
        let record = ProcessRecord {
            process: PROCESS,
            boot_id: "b".into(),
            stdout_log: "/var/log/a b.log".into(),
            stderr_log: "/var/log/c".into(),
            log_mode: 0o640,
            cgroup: Some("/sys/fs/cgroup/a b-1-7".into()),
        };
        let text = record.text();
        assert_eq!(ProcessRecord::parse(&text), Some(record));
        let of_version_1 = text.replace("cgroup /sys/fs/cgroup/a%20b-1-7\n", "");
        assert_eq!(ProcessRecord::parse(&of_version_1).unwrap().cgroup, None);
        for end in 0..text.len() - 1 {
            assert_eq!(ProcessRecord::parse(&text[..end]), None, "cut at {end}");
        }
        for cause in [ExitCause::Code(3), ExitCause::Signal(9), ExitCause::Unknown, ExitCause::OutOfMemory(7)]
        {
            let ended = Ended { process: PROCESS, cause, dropped: 4, unix_ms: 5 };
            assert_eq!(Ended::parse(&ended.text()), Some(ended));
        }
    }

    #[test]
    fn what_follows_the_end_of_a_record_is_left_over_from_a_longer_one() {
        let ended = Ended { process: PROCESS, cause: ExitCause::Code(0), dropped: 0, unix_ms: 5 };
        assert_eq!(Ended::parse(&format!("{}nd\n", ended.text())), Some(ended));
    }

    #[test]
    fn a_record_is_replaced_whole() {
        let slot = tempfile::tempdir().unwrap();
        assert_eq!(Ended::load(slot.path()), None);
        for dropped in [0, 1_000_000] {
            let ended = Ended { process: PROCESS, cause: ExitCause::Unknown, dropped, unix_ms: 5 };
            ended.store(slot.path()).unwrap();
            assert_eq!(Ended::load(slot.path()), Some(ended));
        }
    }
}
