//! What must outlive the agent: one folder per slot, files that are replaced whole or not at all.
//!
//! `assignment` (what the slot is to run) is on the disk before it is acted on; `runtime` (the whole machine) before any of
//! its actions, flushed to the disk only where it says something that a restart of the host must not undo; `deployed` (the
//! application as it was when the running release took its place, or was last asked to be started anew, which `deployed-for`
//! names). `remains` (the last words of the process before) and `mark` (where the output of a pre-command begins) are for people
//! and decide nothing. A file that is torn or from a newer program is set aside and said so, never guessed at. Which program
//! reads what another wrote: `forms`.

pub(crate) mod forms;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use prost::Message;
use proto::pb;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::forms::{Framed, READS, frame, unframe};
use super::acts::Mark;
use super::host_watch::Remembered;
use super::slot::RememberedLevels;
use super::traffic::Pending;
use crate::clock::Time;
use crate::program::VERSION;
use crate::replica::Replica;
use crate::succession::Handover;

/// An assignment carries one application's settings; more than this is not one.
const MAX_BYTES: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is torn or was changed; it was set aside as {}", path.display(), aside.display())]
    Torn { path: PathBuf, aside: PathBuf },
    #[error("{} is no file; it was set aside as {}", path.display(), aside.display())]
    NotAFile { path: PathBuf, aside: PathBuf },
    #[error("{} cannot be read; it was set aside as {}", path.display(), aside.display())]
    Denied {
        path: PathBuf,
        aside: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} was written by {writer} in form {found}, and this one, {VERSION}, reads up to {READS}; it was set aside as {}", path.display(), aside.display())]
    Newer { path: PathBuf, found: u32, writer: String, aside: PathBuf },
    #[error("{} was written whole by {writer}, and this one, {VERSION}, does not understand it; it was set aside as {}", path.display(), aside.display())]
    Foreign {
        path: PathBuf,
        writer: String,
        aside: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl LedgerError {
    /// The file is out of the way, and a new one can be written.
    pub(super) fn was_set_aside(&self) -> bool {
        match self {
            Self::Torn { .. }
            | Self::NotAFile { .. }
            | Self::Denied { .. }
            | Self::Newer { .. }
            | Self::Foreign { .. } => true,
            Self::Io { .. } => false,
        }
    }
}

/// The folder of one slot, or of the agent for what concerns the whole node.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    folder: PathBuf,
}

/// The machine as it was written, and in which boot of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Runtime {
    pub(super) boot_id: String,
    pub(super) replica: Replica,
}

/// Why the last process of a slot ended, as far as it left words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Remains {
    /// Of which end these are the last words.
    pub(super) exit_at: Option<Time>,
    /// The last lines of both streams.
    pub(super) log_tail: String,
    /// In the VM's own words; empty: it wrote no dump.
    pub(super) slogan: String,
    /// Where its dump is kept now; empty: there is none.
    pub(super) crash_dump: String,
}

impl Ledger {
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Makes the folder, 0700, where it is not there. It and the folders above it that had to be made are on the disk when
    /// this returns: what is stored in it later is acknowledged.
    pub(super) fn create(&self) -> Result<(), LedgerError> {
        let absent: Vec<_> = self.folder.ancestors().take_while(|it| !it.exists()).collect();
        let failed = |source| LedgerError::Io { what: "make", path: self.folder.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        for made_in in absent.iter().filter_map(|it| it.parent()) {
            File::open(made_in).and_then(|it| it.sync_all()).map_err(failed)?;
        }
        Ok(())
    }

    pub(super) fn assignment(&self) -> Result<Option<pb::Assignment>, LedgerError> {
        self.message("assignment")
    }

    /// One slot's part of an assignment: its application and itself. On the disk when this returns.
    pub(super) fn store_assignment(&self, assignment: &pb::Assignment) -> Result<(), LedgerError> {
        self.replace("assignment", &assignment.encode_to_vec(), true)
    }

    pub(super) fn deployed(&self) -> Result<Option<pb::Application>, LedgerError> {
        self.message("deployed")
    }

    pub(super) fn store_deployed(&self, application: &pb::Application) -> Result<(), LedgerError> {
        self.replace("deployed", &application.encode_to_vec(), true)
    }

    /// The last request for a restart that `deployed` takes into account; empty: none. `None`: an agent before this one did not
    /// write it.
    pub(super) fn deployed_for(&self) -> Result<Option<String>, LedgerError> {
        let Some((payload, _)) = self.read("deployed-for")? else { return Ok(None) };
        String::from_utf8(payload).map(Some).map_err(|_| self.torn("deployed-for"))
    }

    pub(super) fn store_deployed_for(&self, request: &str) -> Result<(), LedgerError> {
        self.replace("deployed-for", request.as_bytes(), true)
    }

    pub(super) fn runtime(&self) -> Result<Option<Runtime>, LedgerError> {
        let Some((payload, writer)) = self.read("runtime")? else { return Ok(None) };
        let read = serde_json::from_slice(&payload);
        read.or_else(|fault| forms::without_what_may_be_forgotten(&payload).ok_or(fault))
            .map(Some)
            .map_err(|source| self.foreign("runtime", writer, source))
    }

    /// `durable`: on the disk when this returns; otherwise it survives the agent's death but not the host's.
    pub(super) fn store_runtime(&self, runtime: &Runtime, durable: bool) -> Result<(), LedgerError> {
        self.replace("runtime", &self.json("runtime", runtime)?, durable)
    }

    pub(super) fn remains(&self) -> Result<Option<Remains>, LedgerError> {
        self.value("remains")
    }

    pub(super) fn store_remains(&self, remains: &Remains) -> Result<(), LedgerError> {
        self.replace("remains", &self.json("remains", remains)?, false)
    }

    /// Where the output of the pre-command that was begun last begins.
    pub(super) fn mark(&self) -> Result<Option<Mark>, LedgerError> {
        self.value("mark")
    }

    pub(super) fn store_mark(&self, mark: &Mark) -> Result<(), LedgerError> {
        self.replace("mark", &self.json("mark", mark)?, false)
    }

    /// The upstream file that is being replaced.
    pub(super) fn pending(&self) -> Result<Option<Pending>, LedgerError> {
        self.value("pending")
    }

    pub(super) fn store_pending(&self, pending: &Pending) -> Result<(), LedgerError> {
        self.replace("pending", &self.json("pending", pending)?, true)
    }

    pub(super) fn remove_pending(&self) -> Result<(), LedgerError> {
        let path = self.folder.join("pending");
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(LedgerError::Io { what: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Where the figures of the process stood to their limits that was watched last.
    pub(super) fn levels(&self) -> Result<Option<RememberedLevels>, LedgerError> {
        self.value("levels")
    }

    pub(super) fn store_levels(&self, levels: &RememberedLevels) -> Result<(), LedgerError> {
        self.replace("levels", &self.json("levels", levels)?, false)
    }

    /// What was last said of the host's limits.
    pub(super) fn watch(&self) -> Result<Option<Remembered>, LedgerError> {
        self.value("watch")
    }

    pub(super) fn store_watch(&self, watch: &Remembered) -> Result<(), LedgerError> {
        self.replace("watch", &self.json("watch", watch)?, false)
    }

    /// How the last succession of one agent by another went.
    pub(crate) fn handover(&self) -> Result<Option<Handover>, LedgerError> {
        self.value("handover")
    }

    pub(crate) fn store_handover(&self, handover: &Handover) -> Result<(), LedgerError> {
        self.replace("handover", &self.json("handover", handover)?, true)
    }

    fn value<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, LedgerError> {
        let Some((payload, writer)) = self.read(name)? else { return Ok(None) };
        serde_json::from_slice(&payload).map(Some).map_err(|source| self.foreign(name, writer, source))
    }

    fn json(&self, name: &str, value: &impl Serialize) -> Result<Vec<u8>, LedgerError> {
        serde_json::to_vec(value).map_err(|source| LedgerError::Io {
            what: "write",
            path: self.folder.join(name),
            source: source.into(),
        })
    }

    fn message<M: Message + Default>(&self, name: &str) -> Result<Option<M>, LedgerError> {
        let Some((payload, _)) = self.read(name)? else { return Ok(None) };
        M::decode(payload.as_slice()).map(Some).map_err(|_| self.torn(name))
    }

    /// The payload, and who wrote it.
    fn read(&self, name: &str) -> Result<Option<(Vec<u8>, String)>, LedgerError> {
        let path = self.folder.join(name);
        let mut bytes = Vec::new();
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // To open a pipe would be to wait for its writer.
            Ok(there) if !there.is_file() => {
                return Err(self.set_aside(name, |path, aside| LedgerError::NotAFile { path, aside }));
            }
            // What is wrong with it, opening it says.
            _ => {}
        }
        match File::open(&path) {
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                return Err(self.set_aside(name, |path, aside| LedgerError::Denied { path, aside, source }));
            }
            Err(source) => return Err(LedgerError::Io { what: "open", path, source }),
            Ok(file) => {
                file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|source| LedgerError::Io {
                    what: "read",
                    path: path.clone(),
                    source,
                })?;
            }
        }
        match unframe(&bytes) {
            Framed::Whole { payload, writer } => Ok(Some((payload.to_vec(), writer))),
            Framed::Torn => Err(self.torn(name)),
            Framed::Newer { form: found, writer } => {
                Err(self.set_aside(name, |path, aside| LedgerError::Newer { path, found, writer, aside }))
            }
        }
    }

    fn torn(&self, name: &str) -> LedgerError {
        self.set_aside(name, |path, aside| LedgerError::Torn { path, aside })
    }

    /// Its checksum is right: it is as somebody meant it.
    fn foreign(&self, name: &str, writer: String, source: serde_json::Error) -> LedgerError {
        self.set_aside(name, |path, aside| LedgerError::Foreign { path, writer, aside, source })
    }

    fn set_aside(&self, name: &str, fault: impl FnOnce(PathBuf, PathBuf) -> LedgerError) -> LedgerError {
        let path = self.folder.join(name);
        let aside = self.folder.join(format!("{name}.set-aside-{}", crate::clock::unix_ms()));
        match fs::rename(&path, &aside) {
            Ok(()) => fault(path, aside),
            Err(source) => LedgerError::Io { what: "set aside", path, source },
        }
    }

    fn replace(&self, name: &str, payload: &[u8], durable: bool) -> Result<(), LedgerError> {
        let path = self.folder.join(name);
        let temporary = self.folder.join(format!("{name}.new"));
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| LedgerError::Io { what, path, source }
        };
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(failed("create", &temporary))?;
        let written = file.write_all(&frame(payload)).map_err(failed("write", &temporary));
        let written = written.and_then(|()| match durable {
            true => file.sync_all().map_err(failed("flush", &temporary)),
            false => Ok(()),
        });
        if let Err(fault) = written {
            // Half of it is of no use, and there may be no room for it.
            let _ = fs::remove_file(&temporary);
            return Err(fault);
        }
        fs::rename(&temporary, &path).map_err(failed("replace", &path))?;
        if durable {
            let folder = File::open(&self.folder).map_err(failed("open", &self.folder))?;
            folder.sync_all().map_err(failed("flush", &self.folder))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> (tempfile::TempDir, Ledger) {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(folder.path().to_owned());
        (folder, ledger)
    }

    #[test]
    fn what_was_stored_is_read() {
        let (_folder, ledger) = ledger();
        assert_eq!(ledger.runtime().unwrap(), None);
        let runtime = Runtime { boot_id: "b".to_owned(), replica: Replica::default() };
        ledger.store_runtime(&runtime, false).unwrap();
        ledger.store_runtime(&runtime, true).unwrap();
        assert_eq!(ledger.runtime().unwrap(), Some(runtime));
        let assignment = pb::Assignment { generation: 7, ..Default::default() };
        ledger.store_assignment(&assignment).unwrap();
        assert_eq!(ledger.assignment().unwrap(), Some(assignment));
    }

    #[test]
    fn secrets_are_for_the_agent_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, ledger) = ledger();
        ledger.store_assignment(&pb::Assignment::default()).unwrap();
        let mode = fs::metadata(folder.path().join("assignment")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_torn_file_is_set_aside_at_every_length() {
        let (folder, ledger) = ledger();
        let runtime = Runtime { boot_id: "b".to_owned(), replica: Replica::default() };
        ledger.store_runtime(&runtime, false).unwrap();
        let path = folder.path().join("runtime");
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = ledger.runtime().unwrap_err();
            let LedgerError::Torn { aside, .. } = error else { panic!("{length}: {error}") };
            assert!(!path.exists());
            assert_eq!(fs::read(&aside).unwrap(), &whole[..length]);
            fs::remove_file(aside).unwrap();
        }
    }

    #[test]
    fn a_file_of_a_newer_program_is_not_guessed_at() {
        let (folder, ledger) = ledger();
        fs::write(folder.path().join("assignment"), "deployex-ledger 2 0\nanything").unwrap();
        let error = ledger.assignment().unwrap_err();
        assert!(matches!(error, LedgerError::Newer { found: 2, .. }), "{error}");
        assert!(error.to_string().contains(VERSION), "{error}");
        assert_eq!(ledger.assignment().unwrap(), None);
    }
}
