//! Keepers are programs that have to be started, which takes longer than all else between the end of a process and the start
//! of its successor. So one waits, started already, for its order.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::spawn_blocking;

use super::connection::Connection;
use crate::cgroup::home::{Hierarchy, Home};
use crate::keeper::procfs::Stat;
use crate::systemd::{ScopeError, Systemd};

/// Where keepers come from, and where the groups of their programs go.
#[derive(Clone, Debug)]
pub struct Keepers {
    program: PathBuf,
    home: Arc<Home>,
    /// Gives each a scope of its own.
    systemd: Option<Systemd>,
    /// Why the last one has none.
    unscoped: Arc<Mutex<Option<String>>>,
}

impl Keepers {
    /// All groups in one place.
    pub fn new(program: impl Into<PathBuf>, home: Home) -> Self {
        Self { program: program.into(), home: Arc::new(home), systemd: None, unscoped: Arc::default() }
    }

    /// Each keeper in a scope of its own, and the group of its program in there.
    pub fn in_scopes(program: impl Into<PathBuf>, systemd: Systemd) -> Self {
        let home = Home::of_scopes(Hierarchy::of_this_process().as_ref());
        Self { systemd: Some(systemd), ..Self::new(program, home) }
    }

    /// What is wrong with where keepers are, as a sentence.
    pub fn trouble(&self) -> Option<String> {
        self.unscoped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why not all limits can be set for what they start.
    pub fn why_not(&self) -> Option<String> {
        self.trouble().or_else(|| self.home.why_not().map(str::to_owned))
    }

    /// A new one, which waits for its order, where it is to stay.
    async fn start(&self) -> io::Result<Connection> {
        let connection = Connection::spawn(&self.program, self.home.clone())?;
        let Some((systemd, pid)) = self.systemd.clone().zip(connection.pid()) else { return Ok(connection) };
        let scoped = spawn_blocking(move || {
            let start = Stat::of(pid).map_or(0, |it| it.start_ticks);
            systemd.scope(&format!("deployex-keeper-{pid}-{start}.scope"), pid)?;
            Ok::<_, ScopeError>(Home::in_scope(Hierarchy::of_this_process().as_ref(), pid))
        });
        let (home, trouble) = match scoped.await {
            Ok(Ok(home)) => (home, None),
            Ok(Err(error)) => {
                let why = format!(
                    "its keeper has no scope of its own, so it ends with the agent's unit where that kills all of it: {error}"
                );
                (Home::none(why.clone()), Some(why))
            }
            Err(_) => return Ok(connection),
        };
        let mut unscoped = self.unscoped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = trouble.as_ref().filter(|_| unscoped.is_none()) {
            tracing::warn!(why, "systemd");
        }
        *unscoped = trouble;
        Ok(connection.at(home))
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn home(&self) -> &Home {
        &self.home
    }
}

/// The one that waits knows nothing yet, holds nothing, and ends when the agent does.
#[derive(Debug)]
pub struct Standby {
    keepers: Keepers,
    waiting: Mutex<Option<Connection>>,
}

impl Standby {
    pub fn new(keepers: Keepers) -> Self {
        Self { keepers, waiting: Mutex::new(None) }
    }

    pub fn keepers(&self) -> &Keepers {
        &self.keepers
    }

    /// Sees to it that one waits, where nothing is in a hurry. Where none can be started, the next launch says so.
    pub async fn stand_by(&self) {
        if self.waiting().is_none()
            && let Ok(connection) = self.keepers.start().await
        {
            // Where two came, the later one ends.
            self.waiting().get_or_insert(connection);
        }
    }

    /// Gives the order to the keeper that waits; to a new one where none does, or it was killed meanwhile. The order is made for
    /// the one that gets it, because groups lie where their keeper is.
    pub(super) async fn order<E>(
        &self,
        order: impl Fn(&Home) -> Result<Vec<u8>, E>,
        unstarted: impl Fn(io::Error) -> E,
    ) -> Result<Connection, E> {
        let waiting = self.waiting().take();
        if let Some(mut connection) = waiting
            && connection.order(&order(connection.home())?).await.is_ok()
        {
            return Ok(connection);
        }
        let mut connection = self.keepers.start().await.map_err(&unstarted)?;
        match connection.order(&order(connection.home())?).await {
            // It ended early and may have said why.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(unstarted(error)),
            _ => Ok(connection),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Connection>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
