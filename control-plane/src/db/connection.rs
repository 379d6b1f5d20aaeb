//! Opening the database, and all in which the two engines differ.
//!
//! SQLite: write-ahead log, every commit on disk before it is acknowledged (`synchronous=FULL`), foreign keys on, and one
//! connection for all writers, which wait for it in turn: none ever meets a locked database. Readers have their own
//! connections and see the state of one instant. PostgreSQL: one pool; a reader's transaction is `REPEATABLE READ`.

use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    AccessMode, ConnectOptions, Database, DatabaseConnection, DatabaseTransaction, DbBackend, IsolationLevel,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};

use super::error::{DbError, Fault};
use super::migration;

/// Readers at one time on SQLite, connections in all on PostgreSQL: enough for an API and a planner, few enough that a
/// small PostgreSQL (100 connections) serves several programs.
const CONNECTIONS: u32 = 8;
/// How long a caller waits for its turn. Longer than any transaction of ours takes on a slow disk, so that a crowd of
/// writers is served in order instead of being refused.
const WAIT_FOR_CONNECTION: Duration = Duration::from_secs(30);
/// Another program on the SQLite file (a backup, `sqlite3` in a shell) may hold it this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The database. Clones share it.
#[derive(Clone, Debug)]
pub struct Db {
    writer: DatabaseConnection,
    readers: DatabaseConnection,
}

impl Db {
    /// Opens `sqlite://FILE` (made where absent) or `postgres://…`, and brings its tables up to date.
    pub async fn open(url: &str) -> Result<Self, DbError> {
        let db = Self::connect(url).await?;
        migration::migrate(&db.writer).await?;
        Ok(db)
    }

    pub(super) async fn connect(url: &str) -> Result<Self, DbError> {
        let failed = |source| DbError::Open { url: without_password(url), source: Box::new(source) };
        if url.starts_with("sqlite:") {
            // The writer first: it makes the file and turns the write-ahead log on.
            let writer = Database::connect(sqlite(url, 1)).await.map_err(failed)?;
            let readers = Database::connect(sqlite(url, CONNECTIONS)).await.map_err(failed)?;
            Ok(Self { writer, readers })
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let pool = Database::connect(options(url, CONNECTIONS)).await.map_err(failed)?;
            Ok(Self { writer: pool.clone(), readers: pool })
        } else {
            Err(DbError::UnknownEngine { url: without_password(url) })
        }
    }

    /// Whether there may be a database: a file that is not there is made by who opens it.
    pub fn may_exist(url: &str) -> bool {
        let Some(rest) = url.strip_prefix("sqlite:") else { return true };
        let path = rest.strip_prefix("//").unwrap_or(rest);
        std::path::Path::new(path.split('?').next().unwrap_or(path)).exists()
    }

    /// "sqlite" or "postgres", for people.
    pub fn engine(&self) -> &'static str {
        match self.writer.get_database_backend() {
            DbBackend::Postgres => "postgres",
            _ => "sqlite",
        }
    }

    /// A statement went there and back: for health checks.
    pub async fn ping(&self) -> Result<(), DbError> {
        let failed = |source| DbError::Failed { doing: "reach the database", source: Box::new(source) };
        self.readers.ping().await.map_err(failed)
    }

    /// Waits for what is under way and closes the connections; every later call fails.
    pub async fn close(&self) -> Result<(), DbError> {
        let failed = |source| DbError::Failed { doing: "close the database", source: Box::new(source) };
        self.readers.close_by_ref().await.map_err(failed)?;
        self.writer.close_by_ref().await.map_err(failed)
    }

    /// For what reads and then writes, or writes more than once. Dropped without a commit, nothing of it was done.
    pub(super) async fn write(&self) -> Result<DatabaseTransaction, Fault> {
        let options = TransactionOptions {
            // Locks at once: a transaction that read first could otherwise find, when it writes, that it has read the past.
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        Ok(self.writer.begin_with_options(options).await?)
    }

    /// For reading more than one table as of one instant.
    pub(super) async fn read(&self) -> Result<DatabaseTransaction, Fault> {
        let options = match self.readers.get_database_backend() {
            DbBackend::Postgres => TransactionOptions {
                isolation_level: Some(IsolationLevel::RepeatableRead),
                access_mode: Some(AccessMode::ReadOnly),
                ..TransactionOptions::default()
            },
            _ => TransactionOptions::default(),
        };
        Ok(self.readers.begin_with_options(options).await?)
    }

    /// For one statement that changes something.
    pub(super) fn writer(&self) -> &DatabaseConnection {
        &self.writer
    }

    /// For one statement that reads.
    pub(super) fn reader(&self) -> &DatabaseConnection {
        &self.readers
    }
}

fn options(url: &str, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .min_connections(1)
        .connect_timeout(CONNECT_TIMEOUT)
        .acquire_timeout(WAIT_FOR_CONNECTION)
        .sqlx_logging(false);
    options
}

fn sqlite(url: &str, connections: u32) -> ConnectOptions {
    let mut options = options(url, connections);
    // A connection to a file does not age; closing the last one would also empty the write-ahead log each time.
    options.idle_timeout(None::<Duration>).max_lifetime(None::<Duration>);
    options.map_sqlx_sqlite_opts(|sqlite| {
        sqlite
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
    });
    options
}

/// `postgres://user:secret@host/db` with the secret replaced, for messages and logs.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let Some((user_info, host)) = rest.rsplit_once('@') else { return url.to_owned() };
    let user = user_info.split_once(':').map_or(user_info, |(user, _)| user);
    format!("{scheme}://{user}:…@{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_never_show_a_password() {
        assert_eq!(without_password("postgres://me:s3:cr@t@db/x"), "postgres://me:…@db/x");
        assert_eq!(
            without_password("sqlite:///var/lib/deployex/deployex.db"),
            "sqlite:///var/lib/deployex/deployex.db"
        );
    }

    #[tokio::test]
    async fn an_unknown_engine_is_refused_in_words() {
        let error = Db::open("mysql://localhost/x").await.unwrap_err();
        assert!(error.to_string().contains("neither sqlite"), "{error}");
    }
}
