//! The process of a slot as the agent holds it: launched under a keeper, found again after a restart, watched, stopped.
//!
//! The agent is never its parent. All that is asked goes over the keeper's socket, and a keeper that was killed is replaced
//! here, without anybody above noticing. Whether to launch, stop or start again is not decided here.

mod connection;
mod error;
mod find;
mod silence;
mod standby;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use proto::state::ExitCause;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::connection::Connection;
use self::error::explain;
pub use self::error::{FindError, LaunchError, RotateError};
pub use self::find::{Found, find};
use self::silence::{Silence, Turn};
pub use self::standby::{Keepers, Standby};
use crate::cgroup::home::Home;
use crate::cgroup::{Cgroup, Limits};
use crate::clock;
use crate::keeper::fifo;
use crate::keeper::protocol::{Request, Said, is_file_name};
pub use crate::keeper::protocol::{Step, Stream};
use crate::keeper::record::ProcessRecord;
pub use crate::keeper::record::{Ended, Process};
use crate::keeper::spec::Order;
pub use crate::keeper::spec::{LOG_MODE, LaunchSpec, SpecError, UserIds};

/// A launch is two executions and a few small files; more than that is a disk that hangs.
const LAUNCH_DEADLINE: Duration = Duration::from_secs(30);

/// A keeper answers at once. One that is stopped or swapped out may take longer, one that never does is not waited for.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Between two attempts to replace a keeper on a host that cannot start one.
const REPLACE_AGAIN: Duration = Duration::from_secs(1);

/// The folder of a slot, 0700 and the agent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotDir(PathBuf);

impl SlotDir {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it, and the folders above, where it is not there.
    pub fn create(&self) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }
}

/// What a program begins in where this host has control groups: one of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// Told from those of all other launches on this host.
    pub name: String,
    pub limits: Limits,
}

/// Hold on a running process. Dropping it stops nothing.
#[derive(Debug)]
pub struct Keeper {
    keepers: Keepers,
    dir: SlotDir,
    process: Process,
    connection: Option<Connection>,
    asked: Mutex<Asked>,
    silence: Mutex<Silence>,
    /// When it is asked next how it is. Kept, for the wait is dropped and begun again at any time.
    ask_at: Instant,
    /// Tells of its end where the keeper does not.
    watched: Option<AsyncFd<OwnedFd>>,
    ended: Option<Ended>,
    /// So that what lies in them outlives keeper and program both.
    _fifos: [std::fs::File; 2],
}

/// What the process was told, to be told again to the next keeper.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Nothing,
    Stop { by: Instant },
    Kill,
}

/// Launches a program under a keeper of its own. It runs when this returns: its file was executed.
///
/// Waits for the keeper of the slot's last process where that is about to go; that never takes longer than it needs to end
/// what the process left behind.
pub async fn launch(
    standby: &Standby,
    dir: &SlotDir,
    spec: &LaunchSpec,
    confinement: Option<&Confinement>,
) -> Result<Keeper, LaunchError> {
    let keepers = standby.keepers();
    if !spec.program.is_absolute() {
        return Err(LaunchError::Relative(spec.program.clone()));
    }
    let folder = |source| LaunchError::Folder { slot: dir.0.clone(), source };
    dir.create().map_err(folder)?;
    let fifos = open_fifos(dir).map_err(folder)?;
    let order = |home: &Home| {
        let group = confinement.and_then(|it| Some((home.group(&it.name)?, &it.limits)));
        if let Some((group, limits)) = &group {
            make(group, limits)
                .map_err(|source| LaunchError::Group { group: group.path().to_owned(), source })?;
        }
        let cgroup = group.map(|(group, _)| group.path().to_owned());
        Ok(Order::Launch { slot: dir.0.clone(), spec: spec.clone(), cgroup }.encode()?)
    };
    let unstarted = |source| LaunchError::Keeper { keeper: keepers.program().to_owned(), source };
    let mut connection = standby.order(order, unstarted).await?;
    match timeout(LAUNCH_DEADLINE, connection.next()).await {
        Ok(Some(Said::Hello(process))) => {
            Ok(Keeper::new(keepers, dir, process, Some(connection), None, fifos))
        }
        Ok(Some(Said::Held(holder))) => {
            let (ticket, pid) = holder.map_or((0, 0), |it| (it.ticket, it.pid));
            Err(LaunchError::Held { ticket, pid })
        }
        Ok(Some(Said::Failed(failure))) => {
            let (step, path, source) = explain(failure, dir, Some(spec));
            Err(LaunchError::Step { step, path, source })
        }
        // The keeper was killed on its way, or says nothing; what it launched may run all the same.
        _ => match find(keepers, dir).await? {
            Found::Running(keeper) if keeper.process.ticket == spec.ticket => Ok(keeper),
            Found::Ended(ended) if ended.process.ticket == spec.ticket => {
                Ok(Keeper::new(keepers, dir, ended.process, None, Some(ended), fifos))
            }
            Found::Running(keeper) => {
                Err(LaunchError::Held { ticket: keeper.process.ticket, pid: keeper.process.pid })
            }
            Found::Ended(_) | Found::Nothing => Err(LaunchError::Lost),
        },
    }
}

impl Keeper {
    fn new(
        keepers: &Keepers,
        dir: &SlotDir,
        process: Process,
        connection: Option<Connection>,
        ended: Option<Ended>,
        fifos: [std::fs::File; 2],
    ) -> Self {
        Self {
            keepers: keepers.clone(),
            dir: dir.clone(),
            process,
            connection,
            asked: Mutex::new(Asked::Nothing),
            silence: Mutex::default(),
            ask_at: Instant::now() + silence::until_asked(clock::now()),
            watched: silence::watch(&process),
            ended,
            _fifos: fifos,
        }
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits for the end of the process, and sees to it meanwhile that it has a keeper. May be dropped and called again at
    /// any time; after the end it answers the same for ever.
    pub async fn ended(&mut self) -> Ended {
        loop {
            if let Some(ended) = self.ended {
                return ended;
            }
            let Some(connection) = &mut self.connection else {
                self.replace().await;
                continue;
            };
            let silence = self.silence.get_mut().unwrap_or_else(PoisonError::into_inner);
            tokio::select! {
                biased; // what it says before that it says nothing
                said = connection.next() => {
                    silence.end();
                    match said {
                        Some(Said::Exited(ended)) => self.ended = Some(ended),
                        Some(_) => {}
                        None => self.connection = None,
                    }
                }
                () = silence::over(self.watched.as_ref()) => {
                    silence.begin(Instant::now());
                    self.watched = None;
                }
                turn = silence.lasts() => {
                    tracing::warn!(slot = %self.dir.0.display(), ?turn, "a keeper owes a word and says nothing");
                    connection.act(turn);
                    if turn == Turn::GiveUp {
                        self.connection = None;
                    }
                }
                () = sleep_until(self.ask_at) => {
                    self.ask_at = Instant::now() + silence::until_asked(clock::now());
                    silence.begin(Instant::now());
                    if let Err(error) = connection.say(&Request::Status) {
                        tracing::debug!(%error, slot = %self.dir.0.display(), "a keeper takes no question");
                    }
                }
            }
        }
    }

    /// SIGTERM to the process, and when the grace is over SIGKILL to all that belongs to it. A second call may shorten the
    /// grace. Returns at once; that it ended is said by [`Self::ended`], which also carries this over to another keeper
    /// where this one was killed.
    pub fn stop(&self, grace: Duration) {
        let by = Instant::now() + grace;
        self.ask(match self.asked() {
            Asked::Nothing => Asked::Stop { by },
            Asked::Stop { by: earlier } => Asked::Stop { by: by.min(earlier) },
            Asked::Kill => Asked::Kill,
        });
    }

    /// SIGKILL to all that belongs to the process, now.
    pub fn kill(&self) {
        self.ask(Asked::Kill);
    }

    /// Gives the current log of a stream another name in its folder and goes on in a fresh one, between two bytes. Never
    /// replaces a file.
    pub async fn rotate(&self, stream: Stream, name: &str) -> Result<(), RotateError> {
        if !is_file_name(name) {
            return Err(RotateError::Name(name.to_owned()));
        }
        // A line of its own, so that the answer is not mixed up with what `ended` waits for.
        let conversation = async {
            let mut connection = Connection::open(&self.dir).await?;
            connection.say(&Request::Rotate { stream, name: name.to_owned() })?;
            loop {
                match connection.next().await {
                    Some(Said::Done) => return Ok(()),
                    Some(Said::Refused(why)) => return Err(RotateError::Refused(why)),
                    Some(_) => {}
                    None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                }
            }
        };
        match timeout(ANSWER_DEADLINE, conversation).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }

    fn asked(&self) -> Asked {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, asked: Asked) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        let request = match asked {
            Asked::Nothing => return,
            Asked::Kill => Request::Kill,
            Asked::Stop { by } => {
                let grace = by.saturating_duration_since(Instant::now());
                Request::Stop { grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX) }
            }
        };
        let Some(connection) = &self.connection else { return };
        self.silence.lock().unwrap_or_else(PoisonError::into_inner).begin(Instant::now());
        if let Err(error) = connection.say(&request) {
            tracing::debug!(%error, slot = %self.dir.0.display(), "the keeper is gone; its successor is told");
        }
    }

    /// The keeper is gone. What has become of the process, and who tells us from now on?
    async fn replace(&mut self) {
        let same = |it: &Process| (it.pid, it.start_ticks) == (self.process.pid, self.process.start_ticks);
        match find(&self.keepers, &self.dir).await {
            Ok(Found::Running(keeper)) if same(&keeper.process) => {
                self.connection = keeper.connection;
                self.ask(self.asked());
            }
            Ok(Found::Ended(ended)) if same(&ended.process) => {
                self.ended = Some(Ended { process: self.process, ..ended });
            }
            Ok(_) => {
                self.ended = Some(Ended {
                    process: self.process,
                    cause: ExitCause::Unknown,
                    dropped: 0,
                    unix_ms: clock::unix_ms(),
                });
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &(dyn std::error::Error + 'static),
                    slot = %self.dir.0.display(),
                    "cannot replace a keeper that is gone; its process goes on, and so do the attempts"
                );
                sleep(REPLACE_AGAIN).await;
            }
        }
    }
}

/// The control group that a process of this slot began in; `None`: that of its keeper.
pub fn cgroup_of(dir: &SlotDir, process: &Process) -> Option<Cgroup> {
    let record = ProcessRecord::load(dir.path()).filter(|it| it.process == *process)?;
    record.cgroup.map(Cgroup::at)
}

/// A limit that cannot be set does not keep a program from running; that it does not hold is seen, and said, afterwards.
fn make(group: &Cgroup, limits: &Limits) -> io::Result<()> {
    group.create()?;
    if let Err(unset) = group.limit(limits) {
        tracing::warn!(group = %group.path().display(), unset, "limits cannot be set");
    }
    Ok(())
}

fn open_fifos(dir: &SlotDir) -> io::Result<[std::fs::File; 2]> {
    Ok([fifo::open_reader(&dir.0.join(fifo::STDOUT))?, fifo::open_reader(&dir.0.join(fifo::STDERR))?])
}
