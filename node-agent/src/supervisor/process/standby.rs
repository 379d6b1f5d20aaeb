//! Keepers are programs that have to be started, which takes longer than all else between the end of a process and the start
//! of its successor. So one waits, started already, for its order.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::connection::Connection;

/// Where keepers come from. The one that waits knows nothing yet, holds nothing, and ends when the agent does.
#[derive(Debug)]
pub struct Standby {
    program: PathBuf,
    waiting: Mutex<Option<Connection>>,
}

impl Standby {
    pub fn new(program: &Path) -> Self {
        Self { program: program.to_owned(), waiting: Mutex::new(None) }
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Sees to it that one waits, where nothing is in a hurry. Where none can be started, the next launch says so.
    pub fn stand_by(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_none() {
            *waiting = Connection::spawn(&self.program).ok();
        }
    }

    /// Gives the order to the keeper that waits; to a new one where none does, or it was killed meanwhile.
    pub(super) async fn order(&self, order: &[u8]) -> io::Result<Connection> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut connection) = waiting
            && connection.order(order).await.is_ok()
        {
            return Ok(connection);
        }
        let mut connection = Connection::spawn(&self.program)?;
        match connection.order(order).await {
            // It ended early and may have said why.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
            _ => Ok(connection),
        }
    }
}
