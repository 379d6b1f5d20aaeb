//! Where things lie on a host: the folders that people and scripts of DeployEx know, and the agent's own.

use std::path::{Path, PathBuf};
use std::{fs, io};

use proto::ids::{AppName, Slot};

use super::SlotId;
use super::ledger::Ledger;
use super::process::SlotDir;

/// `{var}` and the folder of the applications' logs.
#[derive(Clone, Debug)]
pub struct Paths {
    var: PathBuf,
    logs: PathBuf,
}

impl Paths {
    pub fn new(var: PathBuf, logs: PathBuf) -> Self {
        Self { var, logs }
    }

    pub fn var(&self) -> &Path {
        &self.var
    }

    /// The agent's own: keys, ledger, releases. 0700.
    pub fn agent(&self) -> PathBuf {
        self.var.join("agent")
    }

    /// Erlang's port mapper, which runs as an application's user.
    pub(super) fn epmd(&self) -> PathBuf {
        self.var.join("epmd")
    }

    pub(super) fn slot_dir(&self, id: &SlotId) -> SlotDir {
        SlotDir::new(self.slot_state(id))
    }

    /// Pre-commands have locks and records of their own, so that they never contend with the replica.
    pub(super) fn pre_dir(&self, id: &SlotId) -> SlotDir {
        SlotDir::new(self.slot_state(id).join("pre"))
    }

    pub(super) fn ledger(&self, id: &SlotId) -> Ledger {
        Ledger::at(self.slot_state(id))
    }

    pub(crate) fn node_ledger(&self) -> Ledger {
        Ledger::at(self.agent())
    }

    /// Every folder in which an agent writes for those after it.
    pub(super) fn ledgers(&self) -> io::Result<Vec<PathBuf>> {
        let mut folders = vec![self.agent()];
        folders.extend(children(&self.agent().join("traffic"))?.into_iter().map(|(_, folder)| folder));
        for id in self.known_slots()? {
            let slot = self.slot_state(&id);
            folders.extend([slot.join("pre"), slot]);
        }
        Ok(folders)
    }

    /// What is under way with an application's upstream file.
    pub(super) fn traffic_ledger(&self, app: &AppName) -> Ledger {
        Ledger::at(self.agent().join("traffic").join(app.as_str()))
    }

    /// Where each slot has its ledger, its locks and its pipes.
    pub(super) fn slots(&self) -> PathBuf {
        self.agent().join("slots")
    }

    /// Keys and certificates for TLS between Erlang nodes that the control plane's authorities signed.
    pub(super) fn distribution(&self, id: &SlotId) -> PathBuf {
        self.agent().join("distribution").join(id.app.as_str()).join(id.slot.to_string())
    }

    fn slot_state(&self, id: &SlotId) -> PathBuf {
        self.slots().join(id.app.as_str()).join(id.slot.to_string())
    }

    pub(super) fn slot_folder(&self, id: &SlotId) -> PathBuf {
        self.var.join("service").join(id.app.as_str()).join(id.slot.to_string())
    }

    /// One per application, 0700: `$HOME`.
    pub(super) fn home(&self, id: &SlotId) -> PathBuf {
        self.var.join("service").join(id.app.as_str()).join("home")
    }

    pub(super) fn log_folder(&self, id: &SlotId) -> PathBuf {
        self.logs.join(id.app.as_str())
    }

    /// stdout, stderr.
    pub(super) fn logs(&self, id: &SlotId) -> [PathBuf; 2] {
        let folder = self.log_folder(id);
        ["stdout", "stderr"].map(|stream| folder.join(format!("{}-{}-{stream}.log", id.app, id.slot)))
    }

    pub(super) fn pre_logs(&self, id: &SlotId) -> [PathBuf; 2] {
        let folder = self.log_folder(id);
        ["stdout", "stderr"]
            .map(|stream| folder.join(format!("{}-{}-pre-commands-{stream}.log", id.app, id.slot)))
    }

    /// Slots that were ever assigned here. What is not named as one is not ours and left alone.
    pub(super) fn known_slots(&self) -> io::Result<Vec<SlotId>> {
        let mut found = Vec::new();
        for (app, folder) in children(&self.slots())? {
            let Ok(app) = app.parse::<AppName>() else { continue };
            for (slot, _) in children(&folder)? {
                if let Ok(slot) = slot.parse::<Slot>() {
                    found.push(SlotId { app: app.clone(), slot });
                }
            }
        }
        Ok(found)
    }
}

fn children(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}
