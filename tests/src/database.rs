//! The two database engines, and PostgreSQL for a test: a database of its own, in the server that `cargo xtask test` started
//! for all, else in one that is started here.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use xtask::postgres::{SHARED, Server};
use xtask::setup::detect;

/// What a control plane keeps its data in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// In a file of the control plane's own.
    #[default]
    Sqlite,
    Postgres,
}

impl Engine {
    /// An empty database where that needs a server.
    pub fn create(self) -> Option<Database> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(Database::create()),
        }
    }
}

/// Turns each story, an `async fn name(engine: Engine)`, into one test per engine.
#[macro_export]
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::database::Engine::Sqlite).await;
            })+
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::database::Engine::Postgres).await;
            })+
        }
    };
}

/// An empty database. Dropping it drops the database, or the server with it.
#[derive(Debug)]
pub struct Database {
    url: String,
    name: String,
    maintenance: String,
    server: Option<Server>,
}

impl Database {
    /// Blocks for as long as a server needs to start where none is shared.
    #[expect(
        clippy::disallowed_methods,
        reason = "the test runner says in the environment which server is shared"
    )]
    pub fn create() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (maintenance, server) = match std::env::var(SHARED) {
            Ok(url) => (url, None),
            Err(_) => {
                let server = Server::start().unwrap_or_else(|error| panic!("{error:#}"));
                (server.url("postgres"), Some(server))
            }
        };
        let name = format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        psql(&maintenance, &format!("create database {name}"));
        let url = maintenance.rsplit_once('/').map(|(server, _)| format!("{server}/{name}"));
        Self { url: url.expect("an address names a database"), name, maintenance, server }
    }

    /// As `--database-url` takes it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs a statement as the superuser: what an operator, or a fault, does behind the program's back.
    pub fn execute(&self, sql: &str) {
        psql(&self.url, sql);
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.server.is_none() && !std::thread::panicking() {
            psql(&self.maintenance, &format!("drop database {} with (force)", self.name));
        }
    }
}

fn psql(url: &str, sql: &str) {
    let programs = detect::postgres().expect("a PostgreSQL server is not installed: cargo xtask setup");
    let output = Command::new(programs.join("psql"))
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, url])
        .stdin(Stdio::null())
        .output()
        .expect("psql comes with the server");
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_has_a_database_of_its_own() {
        let first = Database::create();
        first.execute("create table seen (id int)");
        let second = Database::create();
        second.execute("create table seen (id int)");
        assert_ne!(first.url(), second.url());
    }
}
