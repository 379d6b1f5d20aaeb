//! Keepers are programs that have to be started, which takes longer than all else between the end of a process and the start
//! of its successor. So one waits, started already, for its order.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::spawn_blocking;

use super::connection::Connection;
use crate::cgroup::home::{Hierarchy, Home};
use crate::keeper::procfs::Stat;
use crate::kernel_file;
use crate::systemd::{ScopeError, Systemd};

/// What the scope of a keeper is called, before its pid and its start.
const SCOPE: &str = "deployex-keeper-";

/// Where keepers come from, and where the groups of their programs go.
#[derive(Clone, Debug)]
pub struct Keepers {
    program: PathBuf,
    home: Arc<Home>,
    /// Gives each a scope of its own.
    systemd: Option<Systemd>,
    why: Arc<Mutex<Why>>,
}

/// What was in the way of the last keeper that was started.
#[derive(Debug, Default)]
struct Why {
    /// Of its having a scope of its own.
    unscoped: Option<String>,
    /// Of limits for what it starts, though it has one.
    undivided: Option<String>,
}

impl Keepers {
    /// All groups in one place.
    pub fn new(program: impl Into<PathBuf>, home: Home) -> Self {
        Self { program: program.into(), home: Arc::new(home), systemd: None, why: Arc::default() }
    }

    /// Each keeper in a scope of its own, and the group of its program in there.
    pub fn in_scopes(program: impl Into<PathBuf>, systemd: Systemd) -> Self {
        let home = Home::of_scopes(Hierarchy::of_this_process().as_ref());
        Self { systemd: Some(systemd), ..Self::new(program, home) }
    }

    /// What is wrong with where a replica is, as a sentence: where systemd runs, its keeper and itself belong into a scope.
    pub fn unscoped(&self, pid: u32) -> Option<String> {
        let groups = kernel_file::read(format!("/proc/{pid}/cgroup")).ok()?;
        if self.systemd.is_none() || is_in_scope(&groups) {
            return None;
        }
        let why = self.why().unscoped.clone();
        let why = why.unwrap_or_else(|| "it was started before it could have one; restart it".to_owned());
        Some(format!(
            "its keeper has no scope of its own, so it ends with the agent's unit where that kills all of it: {why}"
        ))
    }

    /// Why not all limits can be set for what they start.
    pub fn why_not(&self) -> Option<String> {
        let Why { unscoped, undivided } = &*self.why();
        let home = || self.home.why_not().map(str::to_owned);
        unscoped.clone().or_else(|| undivided.clone()).or_else(home)
    }

    fn why(&self) -> MutexGuard<'_, Why> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new one, which waits for its order, where it is to stay.
    async fn start(&self) -> io::Result<Connection> {
        let connection = Connection::spawn(&self.program, self.home.clone())?;
        let Some((systemd, pid)) = self.systemd.clone().zip(connection.pid()) else { return Ok(connection) };
        let scoped = spawn_blocking(move || {
            let start = Stat::of(pid).map_or(0, |it| it.start_ticks);
            systemd.scope(&format!("{SCOPE}{pid}-{start}.scope"), pid)?;
            Ok::<_, ScopeError>(Home::in_scope(Hierarchy::of_this_process().as_ref(), pid))
        });
        let (home, why) = match scoped.await {
            Ok(Ok(home)) => {
                let undivided = home.why_not().map(str::to_owned);
                (home, Why { unscoped: None, undivided })
            }
            Ok(Err(error)) => {
                let why = error.to_string();
                let without = format!("its keeper has no scope of its own: {why}");
                (Home::none(without), Why { unscoped: Some(why), undivided: None })
            }
            Err(_) => return Ok(connection),
        };
        let before = std::mem::replace(&mut *self.why(), why);
        if let (Some(why), None) = (&self.why().unscoped, before.unscoped) {
            tracing::warn!(why, "a keeper has no scope of its own");
        }
        Ok(connection.at(home))
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn home(&self) -> &Home {
        &self.home
    }
}

/// From what `/proc/PID/cgroup` says.
fn is_in_scope(groups: &str) -> bool {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    own.split('/').any(|it| it.starts_with(SCOPE))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_in_a_scope_where_its_own_group_lies_in_one() {
        let own = "0::/deployex.slice/deployex-keeper-71-9.scope/shop-1-4\n";
        assert!(is_in_scope(own));
        assert!(is_in_scope(&format!("9:name=systemd:/user.slice\n{own}")));
        assert!(!is_in_scope("0::/system.slice/deployex-agent.service\n"));
        assert!(!is_in_scope("9:name=systemd:/deployex.slice/deployex-keeper-71-9.scope\n0::/\n"));
        assert!(!is_in_scope(""));
    }
}
