//! One agent after another in the same process: whoever looks after the agent sees no end, and no replica is touched.
//!
//! ```text
//!   SIGHUP ─▶ another file? ─no─▶ Same                        (asked by the control plane it begins anew all the same)
//!                 │ yes
//!                 ▼
//!             would it begin? ─no─▶ Refused                   (this one goes on as it is, and says why)
//!                 │ yes
//!                 ▼
//!             Began ─▶ everything here ends ─▶ exec ─▶ the next one looks which file it is ─▶ Done | Failed
//! ```
//! How it went is written down in the node's ledger, for who asked and for whoever takes over when all are killed in between.

mod ask;

use std::collections::HashMap;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use proto::pb;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

pub(crate) use self::ask::ask;
use crate::clock;
use crate::program::{self, ProgramFile, Successor, VERSION};
use crate::supervisor::Paths;
use crate::supervisor::ledger::Ledger;
use crate::supervisor::ledger::forms::WRITES;

/// Why this agent may make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// By the control plane: whatever lies there begins, also the same.
    Anew,
    /// By SIGHUP: where another program lies there.
    Upgrade,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    Began,
    Done,
    Failed,
    Refused,
    Same,
    /// A word of a newer agent's.
    #[serde(other)]
    Unknown,
}

/// How the last succession stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// One more with each that is written.
    pub(crate) number: u64,
    pub(crate) stage: Stage,
    /// A sentence.
    pub(crate) text: String,
    from: String,
    to: String,
    /// Of the one that made room.
    file: Option<ProgramFile>,
}

/// What this agent knows of who comes after it.
pub(crate) struct Succession {
    program: PathBuf,
    ledger: Ledger,
    notes: mpsc::Sender<pb::AgentEvent>,
}

impl Succession {
    /// `program`: what begins next. The agent's lock is held.
    pub(crate) fn new(program: PathBuf, paths: &Paths, notes: mpsc::Sender<pb::AgentEvent>) -> Self {
        Self { program, ledger: paths.node_ledger(), notes }
    }

    /// Says how the succession went that made this program begin, if one did.
    pub(crate) fn begun(&self) {
        let began = self.last().filter(|it| it.stage == Stage::Began);
        let Some(Handover { from, to, file, .. }) = began else { return };
        // Another file, and not what was to begin: that did not come up, and somebody put this in its place.
        let is_another = to != VERSION;
        if (file.is_some() && file == ProgramFile::running().ok()) || is_another {
            let text = match is_another && from != VERSION {
                true => format!(
                    "{to} was to take over from {from} and did not begin: {VERSION} does; no replica was touched"
                ),
                false => format!(
                    "{to} was to take over from {from} and did not begin: {VERSION} goes on; the agent's log says more"
                ),
            };
            error!("{text}");
            self.tell("agent_upgrade_failed", &text, &from, &to);
            self.write(Stage::Failed, text, (from, to), None);
        } else {
            let text = match from == VERSION {
                true => format!("another program of the same version, {VERSION}, has taken over"),
                false => format!("the agent was upgraded from {from} to {VERSION}"),
            };
            let text = format!("{text}; no replica was touched");
            info!("{text}");
            self.tell("agent_upgraded", &text, &from, VERSION);
            self.write(Stage::Done, text, (from, VERSION.to_owned()), None);
        }
    }

    /// Whether it is time to make room. May be given up at any moment.
    pub(crate) async fn is_due(&self, asked: Asked) -> bool {
        let running = ProgramFile::running().ok();
        let same = running.is_some() && running == ProgramFile::at(&self.program).ok();
        if same && asked == Asked::Upgrade {
            let text = format!("{VERSION} is what lies at {} and what runs", self.program.display());
            info!("{text}");
            self.write(Stage::Same, text, (VERSION.to_owned(), VERSION.to_owned()), None);
            return false;
        }
        let next = program::would_begin(&self.program).await;
        match next.and_then(|next| reads_enough(&self.program, next)) {
            Ok(_) if same => true,
            Ok(next) => {
                let text = format!("{} is taking over from {VERSION}", next.version);
                info!("{text}");
                self.write(Stage::Began, text, (VERSION.to_owned(), next.version), running);
                true
            }
            Err(why) => {
                let (kind, what) = match asked {
                    Asked::Anew => ("agent_restart_refused", "begin anew"),
                    Asked::Upgrade => ("agent_upgrade_refused", "make room for another program"),
                };
                let text = format!("the agent was to {what} and goes on as it is: {why}");
                error!("{text}");
                self.tell(kind, &text, VERSION, "");
                self.write(Stage::Refused, text, (VERSION.to_owned(), String::new()), None);
                false
            }
        }
    }

    /// When all of this one has ended. Comes back only where nothing can be begun.
    pub(crate) fn make_room(&self) -> io::Error {
        // What lies there by now is what begins.
        let failed = exec(&self.program);
        error!(error = %failed, "cannot begin {}; this program begins anew instead", self.program.display());
        // The file that runs, also where it was removed: the next one says that it is still the same. It goes by the name that it
        // had, or it would look for its successors below /proc.
        exec_as(Path::new(ProgramFile::RUNNING), &self.program);
        failed
    }

    fn last(&self) -> Option<Handover> {
        self.ledger.handover().unwrap_or_else(|error| {
            warn!(error = &error as &dyn std::error::Error, "how the last agent made room is not known");
            None
        })
    }

    fn write(&self, stage: Stage, text: String, (from, to): (String, String), file: Option<ProgramFile>) {
        let number = self.last().map_or(0, |it| it.number) + 1;
        let handover = Handover { number, stage, text, from, to, file };
        if let Err(error) = self.ledger.store_handover(&handover) {
            // It goes on all the same: only who asked is not told, and there is no event.
            warn!(
                error = &error as &dyn std::error::Error,
                "how the agent makes room cannot be written down"
            );
        }
    }

    fn tell(&self, kind: &str, text: &str, from: &str, to: &str) {
        let data = [("from_version", from), ("to_version", to)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let data = HashMap::from(data);
        let event = pb::AgentEvent {
            at_unix_ms: clock::unix_ms(),
            kind: kind.to_owned(),
            text: text.to_owned(),
            data,
            ..Default::default()
        };
        if self.notes.try_send(event).is_err() {
            warn!("too many events wait for the control plane; this one is in the log alone");
        }
    }
}

/// With the same arguments and environment.
fn exec(program: &Path) -> io::Error {
    exec_as(program, program)
}

fn exec_as(program: &Path, name: &Path) -> io::Error {
    Command::new(program).arg0(name).args(std::env::args_os().skip(1)).exec()
}

fn reads_enough(program: &Path, next: Successor) -> Result<Successor, String> {
    if next.reads >= WRITES {
        return Ok(next);
    }
    Err(format!(
        "{} is {}, which reads state up to form {}, and {VERSION} writes form {WRITES}: downgrade by one version at a time",
        program.display(),
        next.version,
        next.reads
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn succession(folder: &Path) -> (Succession, mpsc::Receiver<pb::AgentEvent>) {
        let paths = Paths::new(folder.to_owned(), folder.to_owned());
        std::fs::create_dir(paths.agent()).unwrap();
        let (notes, told) = mpsc::channel(8);
        (Succession::new(folder.join("deployex-agent"), &paths, notes), told)
    }

    fn began(file: Option<ProgramFile>) -> (Stage, String, (String, String), Option<ProgramFile>) {
        (Stage::Began, String::new(), ("0.0.9".to_owned(), VERSION.to_owned()), file)
    }

    fn did_not(from: &str) -> (Stage, String, (String, String), Option<ProgramFile>) {
        let file = ProgramFile::at(Path::new("/")).ok();
        (Stage::Began, String::new(), (from.to_owned(), "9.9.9".to_owned()), file)
    }

    fn write(
        of: &Succession,
        (stage, text, versions, file): (Stage, String, (String, String), Option<ProgramFile>),
    ) {
        of.write(stage, text, versions, file);
    }

    #[test]
    fn who_begins_says_once_from_which_version_to_which() {
        let folder = tempfile::tempdir().unwrap();
        let (succession, mut told) = succession(folder.path());
        succession.begun();
        assert!(told.try_recv().is_err(), "nobody made room");
        write(&succession, began(Some(ProgramFile::at(folder.path()).unwrap())));
        succession.begun();
        let event = told.try_recv().unwrap();
        assert_eq!((event.kind.as_str(), event.data["from_version"].as_str()), ("agent_upgraded", "0.0.9"));
        assert_eq!(event.data["to_version"], VERSION);
        let last = succession.last().unwrap();
        assert_eq!((last.number, last.stage), (2, Stage::Done));
        succession.begun();
        assert!(told.try_recv().is_err(), "once");
    }

    #[test]
    fn a_successor_that_did_not_begin_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (succession, mut told) = succession(folder.path());
        write(&succession, began(ProgramFile::running().ok()));
        succession.begun();
        let event = told.try_recv().unwrap();
        assert_eq!(event.kind, "agent_upgrade_failed");
        let text = format!("{VERSION} was to take over from 0.0.9 and did not begin");
        assert!(event.text.starts_with(&text), "{}", event.text);
        assert_eq!(succession.last().unwrap().stage, Stage::Failed);
        // It said its version and then could not run: somebody put the old one back, or a third in its place.
        for (from, what) in [(VERSION, "goes on"), ("0.0.9", "does")] {
            write(&succession, did_not(from));
            succession.begun();
            let event = told.try_recv().unwrap();
            assert_eq!(event.kind, "agent_upgrade_failed");
            let text = format!("9.9.9 was to take over from {from} and did not begin: {VERSION} {what}");
            assert!(event.text.starts_with(&text), "{}", event.text);
        }
    }

    #[test]
    fn who_cannot_read_what_is_written_here_does_not_take_over() {
        let next = |reads| Successor { version: "0.0.1".to_owned(), reads };
        assert!(reads_enough(Path::new("a"), next(WRITES)).is_ok());
        let why = reads_enough(Path::new("a"), next(WRITES - 1)).unwrap_err();
        assert!(why.contains("a is 0.0.1, which reads state up to form 0") && why.contains(VERSION), "{why}");
    }

    #[test]
    fn a_word_of_a_newer_agent_is_no_fault() {
        let text = r#"{"number":3,"stage":"Postponed","text":"","from":"a","to":"b","file":null,"more":1}"#;
        assert_eq!(serde_json::from_str::<Handover>(text).unwrap().stage, Stage::Unknown);
    }
}
