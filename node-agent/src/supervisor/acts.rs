//! What the slot's task does when the machine asks for it. Each runs in a task of its own and ends in exactly one answer.
//!
//! Everything here bears repeating under the same ticket, because a new agent asks again for what its predecessor had asked.

mod flush;
mod last_words;
mod log_folder;
mod owed;
mod places;
mod pre_commands;
mod prepare;
mod printed;
mod remains;
mod upgrade;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

use proto::ids::ReleaseKey;
use proto::pb;
use proto::state::ExitCause;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

pub(super) use self::flush::flush;
pub(super) use self::last_words::last_lines;
use self::owed::{BROKEN_OFF, owed};
pub(super) use self::places::probe_order;
pub(super) use self::pre_commands::{await_pre_command, pre_command_result, run_pre_command};
pub(super) use self::prepare::prepare;
pub(super) use self::printed::Mark;
pub(super) use self::remains::read_remains;
use self::upgrade::leave_no_upgrade;
pub(super) use self::upgrade::{Subject, undo_upgrade, upgrade};
use super::hindrance::Hindrance;
use super::process::{self, Confinement, Ended, Keeper, Keepers, LaunchError, SlotDir};
use super::slot::{Answer, found, name};
use super::{Shared, SlotId, crash_point};
use crate::cgroup::Limits;
use crate::clock;
use crate::keeper::locks::{PREDECESSOR_MS, SLOT_LOCK};
use crate::releases::SlotFolder;
use crate::replica::recover::Found;
use crate::replica::{Blocked, Event, Launch, Ticket};

/// Between two looks at a slot whose keeper is about to go.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

const REMAINS: &str = "what the last process left behind does not end";

/// One slot's places, shared by the tasks that work on it.
#[derive(Debug)]
pub(super) struct SlotContext {
    pub(super) id: SlotId,
    pub(super) folder: SlotFolder,
    pub(super) dir: SlotDir,
    /// Held while files are laid or moved: what was broken off may still be at it on a thread of its own.
    pub(super) folders: Mutex<()>,
    /// Held by a step of a hot upgrade: nothing is started in `current` beside it.
    pub(super) upgrading: Mutex<()>,
    /// How often another release was made what runs: whoever knows what runs asks again.
    pub(super) upgrades: watch::Sender<u64>,
}

type Answers = mpsc::Sender<Answer>;

/// A place at which a test may kill the agent.
fn passed(context: &SlotContext, release: &ReleaseKey, what: &str) {
    crash_point::here(|| format!("{} {} {what}", context.id, name(release)));
}

/// An error with its causes, on one line; and where it is the host that lacks something, what to do about it.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    if let Some(hindrance) = Hindrance::behind(error) {
        text.push_str(&hindrance.to_string());
    }
    text
}

/// How a child of our own ended.
pub(super) fn exit_cause(status: std::process::ExitStatus) -> ExitCause {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCause::Code(code),
        (None, Some(signal)) => ExitCause::Signal(signal),
        (None, None) => ExitCause::Unknown,
    }
}

/// Nothing was launched. Where the host is why, it is tried again soon.
fn not_launched(error: &(dyn std::error::Error + 'static)) -> Launch {
    let hindered = Hindrance::behind(error).is_some();
    let error = chain(error);
    if hindered { Launch::Hindered { error } } else { Launch::Failed { error } }
}

/// What a slot's lock, keeper and records show.
pub(super) async fn look(
    keepers: &Keepers,
    dir: &SlotDir,
) -> Result<(Found, Option<Box<Keeper>>, Option<Ended>), process::FindError> {
    if !dir.path().is_dir() {
        return Ok((Found::Nothing, None, None));
    }
    let seen = process::find(keepers, dir).await?;
    let found = found(&seen);
    Ok(match seen {
        process::Found::Nothing => (found, None, None),
        process::Found::Running(keeper) => (found, Some(Box::new(keeper)), None),
        process::Found::Ended(ended) => (found, None, Some(ended)),
    })
}

pub(super) fn swap(
    shared: &Arc<Shared>,
    context: Arc<SlotContext>,
    ticket: Ticket,
    release: ReleaseKey,
    (application, request): (Option<pb::Application>, String),
    answers: Answers,
) {
    let owed = owed(
        shared,
        &answers,
        Event::Swapped { ticket, result: Err(Blocked::Failed { error: BROKEN_OFF.to_owned() }) },
    );
    let shared = shared.clone();
    let work = async move {
        let _folders = context.folders.lock().await;
        let work = async {
            if let Some(application) = &application {
                let ledger = shared.paths.ledger(&context.id);
                ledger.store_deployed(application)?;
                ledger.store_deployed_for(&request)?;
            }
            passed(&context, &release, "deployed: stored");
            context.folder.swap().await?;
            passed(&context, &release, "folders: swapped");
            let lies = context.folder.release_in(&context.folder.current()).await?;
            anyhow::ensure!(lies.as_ref() == Some(&release), "{} was not staged whole", name(&release));
            Ok(())
        };
        let (result, keeper) = locked(&shared, &context, work).await;
        answer_blocked(Event::Swapped { ticket, result }, keeper, &answers).await;
        // What the swap set aside is removed while the new release starts.
        let _ = context.folder.sweep().await;
    };
    owed.by(work);
}

pub(super) fn clear(shared: &Arc<Shared>, context: Arc<SlotContext>, ticket: Ticket, answers: Answers) {
    let owed = owed(
        shared,
        &answers,
        Event::Cleared { ticket, result: Err(Blocked::Failed { error: BROKEN_OFF.to_owned() }) },
    );
    let shared = shared.clone();
    let work = async move {
        let _folders = context.folders.lock().await;
        let work = async {
            context.folder.remove_all().await?;
            crash_point::here(|| format!("{} folders: removed", context.id));
            Ok(())
        };
        let (result, keeper) = locked(&shared, &context, work).await;
        answer_blocked(Event::Cleared { ticket, result }, keeper, &answers).await;
    };
    owed.by(work);
}

async fn answer_blocked(event: Event, keeper: Option<Box<Keeper>>, answers: &Answers) {
    let answer = match keeper {
        Some(keeper) => Answer::Held { event, keeper },
        None => Answer::Event(event),
    };
    let _ = answers.send(answer).await;
}

type Worked = (Result<(), Blocked>, Option<Box<Keeper>>);

/// Does `work` on the slot's folders while holding the slot's lock, so that nothing can be running in them.
async fn locked(
    shared: &Shared,
    context: &SlotContext,
    work: impl Future<Output = anyhow::Result<()>>,
) -> Worked {
    let _lock = match hold(shared, context).await {
        Ok(lock) => lock,
        Err(held) => return held,
    };
    match work.await {
        Ok(()) => (Ok(()), None),
        Err(error) => (Err(Blocked::Failed { error: chain(error.as_ref()) }), None),
    }
}

/// The slot's lock, or who has it. A keeper that has told of its program's end holds on until it has ended what that left
/// behind: it is waited for. Who took it to be a process that runs would see it end and count a crash.
async fn hold(shared: &Shared, context: &SlotContext) -> Result<File, Worked> {
    let failed = |error: String| Err((Err(Blocked::Failed { error }), None));
    let path = context.dir.path().join(SLOT_LOCK);
    let lock = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = match lock {
        Ok(lock) => lock,
        Err(error) => return failed(format!("cannot open {}: {}", path.display(), chain(&error))),
    };
    let since = clock::now();
    while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        match look(shared.keepers(), &context.dir).await {
            Ok((Found::Running { ticket, pid }, keeper, _)) => {
                return Err((Err(Blocked::Held { by: ticket, pid }), keeper));
            }
            Ok((Found::Ended { .. } | Found::Nothing, _, _)) if clock::now() < since.plus(PREDECESSOR_MS) => {
                sleep(LOOK_AGAIN).await;
            }
            Ok((Found::Ended { .. } | Found::Nothing, _, _)) => {
                return failed(REMAINS.to_owned());
            }
            Err(error) => return failed(chain(&error)),
        }
    }
    Ok(lock)
}

pub(super) fn launch(
    shared: &Arc<Shared>,
    context: Arc<SlotContext>,
    ticket: Ticket,
    release: ReleaseKey,
    limits: Limits,
    (assigned, request): (Option<pb::Application>, String),
    answers: Answers,
) {
    let owed = owed(
        shared,
        &answers,
        Event::Launched { ticket, result: Launch::Failed { error: BROKEN_OFF.to_owned() } },
    );
    let shared = shared.clone();
    let work = async move {
        let name = format!("{}-{}-{}", context.id.app, context.id.slot, ticket.0);
        let confinement = Confinement { name, limits };
        let known = assigned.clone();
        // Of a process that has ended. Its connection is gone, so that this is soon over.
        let _upgrading = context.upgrading.lock().await;
        if let Err(fault) = leave_no_upgrade(&context).await {
            let result = not_launched(&fault);
            let _ = answers.send(Answer::Launched { ticket, result, keeper: None, ended: None }).await;
            return;
        }
        let spec = places::launch_spec(&shared, &context, ticket, &release, assigned, &request).await;
        passed(&context, &release, "process: to be launched");
        let launched = match spec {
            Ok(spec) => process::launch(&shared.standby, &context.dir, &spec, Some(&confinement)).await,
            Err(error) => {
                let result = not_launched(error.as_ref());
                let _ = answers.send(Answer::Launched { ticket, result, keeper: None, ended: None }).await;
                return;
            }
        };
        passed(&context, &release, "process: launched");
        let answer = match launched {
            Ok(keeper) => {
                let result = Launch::Started { pid: keeper.process().pid };
                Answer::Launched { ticket, result, keeper: Some(Box::new(keeper)), ended: None }
            }
            Err(LaunchError::Held { .. }) => held(&shared, &context, ticket).await,
            Err(error) => {
                let result = not_launched(&error);
                Answer::Launched { ticket, result, keeper: None, ended: None }
            }
        };
        let _ = answers.send(answer).await;
        // Now that this one runs, one for whoever is next.
        shared.standby.stand_by().await;
        if let Some(app) = known {
            let looking = shared.clone();
            drop(
                spawn_blocking(move || looking.accounts.look_again(&app.run_as_user, &app.run_as_group))
                    .await,
            );
        }
        flush(&shared, &context);
    };
    owed.by(work);
}

async fn held(shared: &Shared, context: &SlotContext, ticket: Ticket) -> Answer {
    let (result, keeper, ended) = match look(shared.keepers(), &context.dir).await {
        Ok((Found::Running { ticket: by, pid }, keeper, _)) => (Launch::Held { by, pid }, keeper, None),
        // Started by an earlier agent in answer to the same asking, and over by now. The end of another was counted before.
        Ok((Found::Ended { ticket: by, .. }, _, ended)) if by == ticket => {
            (Launch::Held { by, pid: 0 }, None, ended)
        }
        Ok((Found::Ended { .. } | Found::Nothing, _, _)) => {
            (Launch::Failed { error: REMAINS.to_owned() }, None, None)
        }
        Err(error) => (not_launched(&error), None, None),
    };
    Answer::Launched { ticket, result, keeper, ended }
}
