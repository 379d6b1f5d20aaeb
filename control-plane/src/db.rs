//! What the control plane remembers, on SQLite or PostgreSQL with the same code.
//!
//! [`Db`] is a cheap handle. Its methods take and return domain types; each is one transaction, however much it writes.
//! Nothing outside this folder knows of rows, entities or SQL. Where the engines differ, `connection` alone says so.

mod access;
mod applications;
mod assignments;
mod authorities;
mod configurations;
mod connection;
mod demo;
mod entity;
mod error;
mod events;
mod migration;
mod nodes;
mod plans;
mod releases;
mod restarts;
mod rollouts;
mod settings;
#[cfg(test)]
pub(crate) mod tests;

pub use access::{ApiToken, JoinToken, NewApiToken, NewJoinToken, NewSession, Session, User};
pub use applications::{Application, ApplicationsDiff, ManualWish, NewApplication, Source};
pub use assignments::{NodeAssignment, WantedApplication, WantedFallback, WantedSlot};
pub use authorities::{Authority, NewAuthority};
pub use configurations::{ConfigurationVersion, NewVersion, SealedVersion};
pub use connection::Db;
pub use error::DbError;
pub use events::{AuditEntry, Event, EventFilter, NewEvent};
pub use nodes::{Certificate, EnrolledNode, Enrolment, HelloFacts, Inventory, NewCertificate};
pub use releases::{BucketFault, BucketState, Release};
pub use restarts::Restart;
pub use rollouts::{Ghosted, HistoryEntry, RolloutFilter, RolloutRecord};

/// The name of the last change of the tables that this program knows.
pub fn last_change() -> String {
    migration::last_change()
}

/// What is logged where nobody says otherwise. The library here says a dozen things at `info` that mean nothing to whoever
/// runs this, and the first password stood among them.
pub const LOG_FILTER: &str = "info,sea_orm_migration=warn";

/// Rows in one statement: well below what either engine takes.
const ROWS_PER_STATEMENT: usize = 500;

/// One page of a list, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, Id> {
    pub items: Vec<T>,
    /// What to ask for next; `None`: this was the last page.
    pub next: Option<Id>,
}

/// Where a page begins and how long it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest<Id> {
    /// `next` of the page before; `None`: the newest.
    pub after: Option<Id>,
    pub limit: u32,
}

impl<Id> PageRequest<Id> {
    /// A page larger than this is cut to it: no list is loaded whole by mistake.
    pub const MAX: u32 = 1000;

    pub fn newest(limit: u32) -> Self {
        Self { after: None, limit }
    }

    fn rows(&self) -> u64 {
        u64::from(self.limit.clamp(1, Self::MAX))
    }
}

impl<T, Id> Page<T, Id> {
    /// From one row more than were asked for, which tells whether there is a next page.
    fn cut(mut items: Vec<T>, request: &PageRequest<Id>, id: impl FnOnce(&T) -> Id) -> Self {
        let rows = usize::try_from(request.rows()).unwrap_or(usize::MAX);
        let more = items.len() > rows;
        items.truncate(rows);
        let next = if more { items.last().map(id) } else { None };
        Self { items, next }
    }
}
