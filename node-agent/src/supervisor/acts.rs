//! What the slot's task does when the machine asks for it. Each runs in a task of its own and ends in exactly one answer.
//!
//! Everything here bears repeating under the same ticket, because a new agent asks again for what its predecessor had asked.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use proto::ids::ReleaseKey;
use proto::pb;
use proto::state::ExitCause;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::accounts::{Account, account, own_name};
use super::launch::{self, Command, Host, Places};
use super::process::{self, Ended, Keeper, LOG_MODE, LaunchError, LaunchSpec, SlotDir};
use super::slot::{Answer, found, name};
use super::{Shared, SlotId, epmd};
use crate::keeper::locks::SLOT_LOCK;
use crate::releases::{self, Owner, SlotFolder};
use crate::replica::recover::Found;
use crate::replica::report::{TAIL_MAX, tail};
use crate::replica::{Blocked, Event, Launch, PreCommandFailure, PrepareFailure, Ticket};

/// One slot's places, shared by the tasks that work on it.
#[derive(Debug)]
pub(super) struct SlotContext {
    pub(super) id: SlotId,
    pub(super) folder: SlotFolder,
    pub(super) dir: SlotDir,
    /// Held while files are laid or moved: what was broken off may still be at it on a thread of its own.
    pub(super) folders: Mutex<()>,
}

type Answers = mpsc::Sender<Answer>;

/// An error with its causes, on one line.
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
    text
}

/// What a slot's lock, keeper and records show.
pub(super) async fn look(
    keeper: &Path,
    dir: &SlotDir,
) -> Result<(Found, Option<Box<Keeper>>, Option<Ended>), process::FindError> {
    if !dir.path().is_dir() {
        return Ok((Found::Nothing, None, None));
    }
    let seen = process::find(keeper, dir).await?;
    let found = found(&seen);
    Ok(match seen {
        process::Found::Nothing => (found, None, None),
        process::Found::Running(keeper) => (found, Some(Box::new(keeper)), None),
        process::Found::Ended(ended) => (found, None, Some(ended)),
    })
}

pub(super) fn prepare(
    shared: &Arc<Shared>,
    context: Arc<SlotContext>,
    ticket: Ticket,
    wanted: Option<(releases::Wanted, pb::Application)>,
    cancel: CancellationToken,
    answers: Answers,
) {
    let shared = shared.clone();
    shared.tracker.clone().spawn(async move {
        let Some((wanted, app)) = wanted else {
            let error = "another release is wanted by now".to_owned();
            let result = Err(PrepareFailure { error, permanent: false });
            let _ = answers.send(Answer::Event(Event::Prepared { ticket, result })).await;
            return;
        };
        let result = tokio::select! {
            // What is no longer wanted gets no answer: its ticket means nothing any more.
            biased;
            () = cancel.cancelled() => return,
            result = bring(&shared, &wanted, ticket, &answers) => result,
        };
        let result = match result {
            Ok(unpacked) => lay(&shared, &context, &unpacked, &app, &cancel).await,
            Err(failure) => Err(failure),
        };
        let _ = answers.send(Answer::Event(Event::Prepared { ticket, result })).await;
    });
}

async fn bring(
    shared: &Shared,
    wanted: &releases::Wanted,
    ticket: Ticket,
    answers: &Answers,
) -> Result<releases::Unpacked, PrepareFailure> {
    // Progress is for people: what finds no room is left out.
    let progress = |bytes| drop(answers.try_send(Answer::Fetched { ticket, bytes }));
    shared.store.ensure(wanted, shared.fetch.as_ref(), progress).await.map_err(|error| failure(&error))
}

async fn lay(
    shared: &Shared,
    context: &SlotContext,
    unpacked: &releases::Unpacked,
    app: &pb::Application,
    cancel: &CancellationToken,
) -> Result<(), PrepareFailure> {
    let _folders = context.folders.lock().await;
    if cancel.is_cancelled() {
        return Err(PrepareFailure {
            error: "another release is wanted by now".to_owned(),
            permanent: false,
        });
    }
    let account = account(&app.run_as_user, &app.run_as_group)
        .map_err(|error| PrepareFailure { error: chain(&error), permanent: false })?;
    let owner = account.as_ref().map(|it| Owner { uid: it.ids.uid, gid: it.ids.gid });
    shared.store.stage(unpacked, &context.folder, owner).await.map_err(|error| failure(&error))
}

fn failure(error: &releases::StageError) -> PrepareFailure {
    PrepareFailure { error: chain(error), permanent: error.is_permanent() }
}

pub(super) fn swap(
    shared: &Arc<Shared>,
    context: Arc<SlotContext>,
    ticket: Ticket,
    release: ReleaseKey,
    application: Option<pb::Application>,
    answers: Answers,
) {
    let shared = shared.clone();
    shared.tracker.clone().spawn(async move {
        let _folders = context.folders.lock().await;
        let work = async {
            if let Some(application) = &application {
                shared.paths.ledger(&context.id).store_deployed(application)?;
            }
            context.folder.swap().await?;
            let lies = context.folder.release_in(&context.folder.current()).await?;
            anyhow::ensure!(lies.as_ref() == Some(&release), "{} was not staged whole", name(&release));
            Ok(())
        };
        let (result, keeper, ended) = locked(&shared, &context, work).await;
        answer_blocked(Event::Swapped { ticket, result }, keeper, ended, &answers).await;
        // What the swap set aside is removed while the new release starts.
        let _ = context.folder.sweep().await;
    });
}

pub(super) fn clear(shared: &Arc<Shared>, context: Arc<SlotContext>, ticket: Ticket, answers: Answers) {
    let shared = shared.clone();
    shared.tracker.clone().spawn(async move {
        let _folders = context.folders.lock().await;
        let work = async { Ok(context.folder.remove_all().await?) };
        let (result, keeper, ended) = locked(&shared, &context, work).await;
        answer_blocked(Event::Cleared { ticket, result }, keeper, ended, &answers).await;
    });
}

async fn answer_blocked(event: Event, keeper: Option<Box<Keeper>>, ended: Option<Ended>, answers: &Answers) {
    let answer = if keeper.is_some() || ended.is_some() {
        Answer::Held { event, keeper, ended }
    } else {
        Answer::Event(event)
    };
    let _ = answers.send(answer).await;
}

type Worked = (Result<(), Blocked>, Option<Box<Keeper>>, Option<Ended>);

/// Does `work` on the slot's folders while holding the slot's lock, so that nothing can be running in them.
async fn locked(
    shared: &Shared,
    context: &SlotContext,
    work: impl Future<Output = anyhow::Result<()>>,
) -> Worked {
    let failed = |error: String| (Err(Blocked::Failed { error }), None, None);
    let path = context.dir.path().join(SLOT_LOCK);
    let lock = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = match lock {
        Ok(lock) => lock,
        Err(error) => return failed(format!("cannot open {}: {error}", path.display())),
    };
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return match look(&shared.keeper, &context.dir).await {
            Ok((Found::Running { ticket, pid }, keeper, _)) => {
                (Err(Blocked::Held { by: ticket, pid }), keeper, None)
            }
            Ok((Found::Ended { ticket, .. }, _, ended)) => {
                (Err(Blocked::Held { by: ticket, pid: 0 }), None, ended)
            }
            Ok((Found::Nothing, _, _)) => failed("the slot's lock was taken for a moment".to_owned()),
            Err(error) => failed(chain(&error)),
        };
    }
    match work.await {
        Ok(()) => (Ok(()), None, None),
        Err(error) => failed(format!("{error:#}")),
    }
}

pub(super) fn launch(
    shared: &Arc<Shared>,
    context: Arc<SlotContext>,
    ticket: Ticket,
    release: ReleaseKey,
    answers: Answers,
) {
    let shared = shared.clone();
    shared.tracker.clone().spawn(async move {
        let spec = launch_spec(&shared, &context, ticket, &release).await;
        let launched = match spec {
            Ok(spec) => process::launch(&shared.keeper, &context.dir, &spec).await,
            Err(error) => {
                let result = Launch::Failed { error: format!("{error:#}") };
                let _ = answers.send(Answer::Launched { ticket, result, keeper: None, ended: None }).await;
                return;
            }
        };
        let answer = match launched {
            Ok(keeper) => {
                let result = Launch::Started { pid: keeper.process().pid };
                Answer::Launched { ticket, result, keeper: Some(Box::new(keeper)), ended: None }
            }
            Err(LaunchError::Held { .. }) => held(&shared, &context, ticket).await,
            Err(error) => {
                let result = Launch::Failed { error: chain(&error) };
                Answer::Launched { ticket, result, keeper: None, ended: None }
            }
        };
        let _ = answers.send(answer).await;
    });
}

async fn held(shared: &Shared, context: &SlotContext, ticket: Ticket) -> Answer {
    let (result, keeper, ended) = match look(&shared.keeper, &context.dir).await {
        Ok((Found::Running { ticket: by, pid }, keeper, _)) => (Launch::Held { by, pid }, keeper, None),
        Ok((Found::Ended { ticket: by, .. }, _, ended)) => (Launch::Held { by, pid: 0 }, None, ended),
        Ok((Found::Nothing, _, _)) => {
            (Launch::Failed { error: "the slot's lock was taken for a moment".to_owned() }, None, None)
        }
        Err(error) => (Launch::Failed { error: chain(&error) }, None, None),
    };
    Answer::Launched { ticket, result, keeper, ended }
}

async fn launch_spec(
    shared: &Shared,
    context: &SlotContext,
    ticket: Ticket,
    release: &ReleaseKey,
) -> anyhow::Result<LaunchSpec> {
    let app = shared.paths.ledger(&context.id).deployed()?;
    let app =
        app.with_context(|| format!("it is not known with which settings {} was deployed", name(release)))?;
    let surroundings = surroundings(shared, context, &app, context.folder.current())?;
    let distributed = app.distribution.as_ref().is_none_or(|it| it.mode() != pb::DistributionMode::Off);
    if distributed {
        let keep = shared.paths.agent().join("epmd");
        // Without it the node starts one of its own out of its release: worse, but it runs.
        if let Err(error) = epmd::ensure(shared.epmd_port, &context.folder.current(), &keep).await {
            tracing::warn!(error = %chain(&error), "no epmd");
        }
    }
    let Surroundings { places, host, account } = &surroundings;
    let command = launch::replica(&app, context.id.slot.number(), places, host)?;
    write_cookie(places, &launch::cookie(&app, host), account.as_ref())?;
    let logs = shared.paths.logs(&context.id);
    Ok(spec(ticket, command, &surroundings, logs))
}

struct Surroundings {
    places: Places,
    host: Host,
    account: Option<Account>,
}

/// The slot's folders, made where they are missing, and what the host adds to the environment.
fn surroundings(
    shared: &Shared,
    context: &SlotContext,
    app: &pb::Application,
    release: PathBuf,
) -> anyhow::Result<Surroundings> {
    let account = account(&app.run_as_user, &app.run_as_group)?;
    let slot = context.folder.path();
    let places = Places {
        release,
        home: shared.paths.home(&context.id),
        tmp: slot.join("tmp"),
        work: slot.join("work"),
    };
    for folder in [&places.home, &places.tmp, &places.work] {
        own_folder(folder, account.as_ref()).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let logs = shared.paths.log_folder(&context.id);
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let env_file = match app.env_file.as_str() {
        "" => Vec::new(),
        path => launch::env_file(
            &fs::read_to_string(path).with_context(|| format!("cannot read env_file {path}"))?,
        ),
    };
    let user = account.as_ref().map_or_else(own_name, |it| it.name.clone());
    let host = Host { user, epmd_port: shared.epmd_port, timezone: shared.timezone.clone(), env_file };
    Ok(Surroundings { places, host, account })
}

fn spec(
    ticket: Ticket,
    command: Command,
    around: &Surroundings,
    [stdout, stderr]: [PathBuf; 2],
) -> LaunchSpec {
    LaunchSpec {
        ticket: ticket.0,
        program: command.program,
        args: command.args,
        env: command.env,
        cwd: around.places.work.clone(),
        user: around.account.as_ref().map(|it| it.ids.clone()),
        stdout_log: stdout,
        stderr_log: stderr,
        log_mode: LOG_MODE,
    }
}

/// 0700 and the account's; the folders above it can be passed through by everybody.
fn own_folder(folder: &Path, account: Option<&Account>) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if let Some(account) = account {
        chown(folder, Some(account.ids.uid), Some(account.ids.gid))?;
    }
    Ok(())
}

/// `$HOME/.erlang.cookie`, 0400: where Erlang looks when nobody passes one, and where ours never is in an argument list.
fn write_cookie(places: &Places, cookie: &str, account: Option<&Account>) -> anyhow::Result<()> {
    let path = places.home.join(".erlang.cookie");
    if fs::read_to_string(&path).is_ok_and(|it| it == cookie) {
        return Ok(());
    }
    let work = || {
        // The folder is the application's: what it put there under this name is not followed.
        let temporary = places.home.join(".erlang.cookie.new");
        let _ = fs::remove_file(&temporary);
        fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&temporary).and_then(
            |mut file| {
                io::Write::write_all(&mut file, cookie.as_bytes())?;
                if let Some(account) = account {
                    std::os::unix::fs::fchown(&file, Some(account.ids.uid), Some(account.ids.gid))?;
                }
                file.set_permissions(fs::Permissions::from_mode(0o400))
            },
        )?;
        fs::rename(&temporary, &path)
    };
    work().with_context(|| format!("cannot write {}", path.display()))
}

pub(super) fn run_pre_command(
    shared: &Arc<Shared>,
    context: Arc<SlotContext>,
    ticket: Ticket,
    command: Option<(String, pb::Application)>,
    kill: CancellationToken,
    answers: Answers,
) {
    let shared = shared.clone();
    shared.tracker.clone().spawn(async move {
        let result = match command {
            None => Err(failed("another release is wanted by now".to_owned())),
            Some((line, app)) => start_pre_command(&shared, &context, ticket, &line, &app, &kill).await,
        };
        if let Some(result) = result.transpose() {
            let _ = answers.send(Answer::Event(Event::PreCommandEnded { ticket, result })).await;
        }
    });
}

/// `Ok(None)`: the agent stops; the command goes on and is found by the next one.
async fn start_pre_command(
    shared: &Shared,
    context: &SlotContext,
    ticket: Ticket,
    line: &str,
    app: &pb::Application,
    kill: &CancellationToken,
) -> Result<Option<()>, PreCommandFailure> {
    let dir = shared.paths.pre_dir(&context.id);
    let work = async {
        let around = surroundings(shared, context, app, context.folder.incoming())?;
        let command = launch::pre_command(app, context.id.slot.number(), &around.places, &around.host, line)?;
        write_cookie(&around.places, &launch::cookie(app, &around.host), around.account.as_ref())?;
        let logs = shared.paths.pre_logs(&context.id);
        anyhow::Ok(spec(ticket, command, &around, logs))
    };
    let spec = work.await.map_err(|error| failed(format!("`{line}` cannot be run: {error:#}")))?;
    let keeper = loop {
        match process::launch(&shared.keeper, &dir, &spec).await {
            Ok(keeper) => break keeper,
            // One that was given up still runs: it goes first.
            Err(LaunchError::Held { .. }) => match look(&shared.keeper, &dir).await {
                Ok((_, Some(mut other), _)) => {
                    if other.process().ticket == ticket.0 {
                        break *other;
                    }
                    other.kill();
                    other.ended().await;
                }
                Ok(_) => {}
                Err(error) => return Err(failed(format!("`{line}` cannot be run: {}", chain(&error)))),
            },
            Err(error) => return Err(failed(format!("`{line}` cannot be run: {}", chain(&error)))),
        }
    };
    finish_pre_command(shared, context, keeper, kill, line).await
}

async fn finish_pre_command(
    shared: &Shared,
    context: &SlotContext,
    mut keeper: Keeper,
    kill: &CancellationToken,
    line: &str,
) -> Result<Option<()>, PreCommandFailure> {
    let ended = tokio::select! {
        // An agent that stops leaves it running, whatever else was asked for at that moment.
        biased;
        () = shared.cancel.cancelled() => return Ok(None),
        ended = keeper.ended() => ended,
        () = kill.cancelled() => {
            keeper.kill();
            keeper.ended().await
        }
    };
    outcome(shared, context, ended, line).map(Some)
}

/// A command that an earlier agent started.
pub(super) fn await_pre_command(
    shared: &Arc<Shared>,
    context: &Arc<SlotContext>,
    ticket: Ticket,
    kill: CancellationToken,
    answers: Answers,
) {
    let (shared, context) = (shared.clone(), context.clone());
    shared.tracker.clone().spawn(async move {
        let dir = shared.paths.pre_dir(&context.id);
        let result = match look(&shared.keeper, &dir).await {
            Ok((_, Some(keeper), _)) => finish_pre_command(&shared, &context, *keeper, &kill, "it").await,
            Ok((_, None, Some(ended))) => outcome(&shared, &context, ended, "it").map(Some),
            Ok((_, None, None)) => Err(failed("its end left no trace".to_owned())),
            Err(error) => Err(failed(chain(&error))),
        };
        if let Some(result) = result.transpose() {
            let _ = answers.send(Answer::Event(Event::PreCommandEnded { ticket, result })).await;
        }
    });
}

pub(super) fn pre_command_result(
    context: &SlotContext,
    shared: &Shared,
    ended: Ended,
) -> Result<(), PreCommandFailure> {
    outcome(shared, context, ended, "it")
}

fn outcome(
    shared: &Shared,
    context: &SlotContext,
    ended: Ended,
    line: &str,
) -> Result<(), PreCommandFailure> {
    match ended.cause {
        ExitCause::Code(0) => Ok(()),
        cause => {
            let output =
                shared.paths.pre_logs(&context.id).iter().map(|path| last_bytes(path)).collect::<String>();
            Err(PreCommandFailure { error: format!("`{line}` ended with {cause}"), output: tail(&output) })
        }
    }
}

fn failed(error: String) -> PreCommandFailure {
    PreCommandFailure { error, output: String::new() }
}

/// The last lines of both streams, for the report of a crash.
pub(super) fn read_log_tail(shared: &Arc<Shared>, context: &Arc<SlotContext>, answers: Answers) {
    let (shared, context) = (shared.clone(), context.clone());
    shared.tracker.clone().spawn(async move {
        let logs = shared.paths.logs(&context.id);
        let text =
            tokio::task::spawn_blocking(move || logs.iter().map(|path| last_bytes(path)).collect::<String>());
        if let Ok(text) = text.await {
            let _ = answers.send(Answer::LogTail(tail(&text))).await;
        }
    });
}

/// At most [`TAIL_MAX`] bytes from the end of a file; nothing where there is none.
fn last_bytes(path: &Path) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_MAX as u64)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_MAX as u64).read_to_end(&mut bytes)?;
        io::Result::Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}
