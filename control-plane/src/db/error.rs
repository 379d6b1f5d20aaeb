//! What can go wrong with the database, told so that the reader knows what was being done and what is wrong.

use std::error::Error as StdError;
use std::fmt::Display;

use sea_orm::{DbErr, SqlErr};

/// Why something was not stored or not read. Nothing of a call that failed was written.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    #[error("cannot {doing}")]
    Failed {
        doing: &'static str,
        #[source]
        source: Box<DbErr>,
    },
    #[error("cannot open the database {url}; its folder must exist and be writable, its server must answer")]
    Open {
        /// Without the password.
        url: String,
        #[source]
        source: Box<DbErr>,
    },
    #[error("the database address {url:?} is neither sqlite://FILE nor postgres://…")]
    UnknownEngine { url: String },
    #[error(
        "the database was last used by deployex {program}, which made the change {change:?}; this one, {this}, is too old for \
         it: run that version, or one that is not so far from it, or restore a backup from before it. Nothing was changed"
    )]
    Newer { change: String, program: String, this: &'static str },
    #[error(
        "the database was used without --demo before, and a demo gives its admin a password that everybody knows: start \
         without --demo, or name another folder with --data-dir"
    )]
    NotADemos,
    #[error("row {id} of table {table} cannot be read: column {column}")]
    Corrupt {
        table: &'static str,
        id: String,
        column: &'static str,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Compare-and-set: load again, decide again.
    #[error("cannot {doing}: {what} was changed by somebody else in the meantime")]
    Conflict { doing: &'static str, what: String },
    #[error("cannot {doing}: {what} exists already")]
    Taken { doing: &'static str, what: String },
    #[error("cannot {doing}: there is no {what}")]
    Missing { doing: &'static str, what: String },
}

impl DbError {
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Taken { .. })
    }

    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// A stored word that this program does not know.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a word known here")]
pub(super) struct UnknownWord(pub(super) String);

/// What a step of a method fails with: it becomes a [`DbError`] where [`doing`] says what the steps were for.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(DbErr),
    Conflict(String),
    Taken(String),
    Missing(String),
    Corrupt(DbError),
}

impl From<DbErr> for Fault {
    fn from(error: DbErr) -> Self {
        Self::Sql(error)
    }
}

impl Fault {
    fn told(self, doing: &'static str) -> DbError {
        match self {
            Self::Sql(source) => DbError::Failed { doing, source: Box::new(source) },
            Self::Conflict(what) => DbError::Conflict { doing, what },
            Self::Taken(what) => DbError::Taken { doing, what },
            Self::Missing(what) => DbError::Missing { doing, what },
            Self::Corrupt(error) => error,
        }
    }
}

/// Runs the steps of a method; `what` completes the sentence "cannot …".
pub(super) async fn doing<T>(
    what: &'static str,
    steps: impl Future<Output = Result<T, Fault>> + Send,
) -> Result<T, DbError> {
    steps.await.map_err(|fault| fault.told(what))
}

/// For an insert: a unique violation is said of `what`.
pub(super) fn taken(what: impl Display) -> impl FnOnce(DbErr) -> Fault {
    move |error| match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => Fault::Taken(what.to_string()),
        _ => Fault::Sql(error),
    }
}

/// For a row that must be there.
pub(super) fn missing(what: impl Display) -> Fault {
    Fault::Missing(what.to_string())
}
