//! A database for one test: in the server that `cargo xtask test` started for all, else in one of its own.

use std::hash::{BuildHasher, RandomState};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::{SHARED, Server};
use crate::command::{command, run_quietly};
use crate::setup::detect;

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
    pub fn create() -> Result<Self> {
        let (maintenance, server) = match std::env::var(SHARED) {
            Ok(url) => (url, None),
            Err(_) => {
                let server = Server::start()?;
                (server.url("postgres"), Some(server))
            }
        };
        // Chance, because the numbers of processes come again while one that failed has left its database behind.
        let name = format!("test_{:016x}", RandomState::new().hash_one(std::process::id()));
        psql(&maintenance, &format!("create database {name}"))?;
        let (server_url, _) = maintenance.rsplit_once('/').context("an address names a database")?;
        Ok(Self { url: format!("{server_url}/{name}"), name, maintenance, server })
    }

    /// As `--database-url` takes it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs a statement as the superuser: what an operator, or a fault, does behind the program's back.
    pub fn execute(&self, sql: &str) -> Result<()> {
        psql(&self.url, sql)
    }
}

impl Server {
    /// Makes an empty database that goes with the server; returns its address.
    pub fn create_database(&self, name: &str) -> Result<String> {
        psql(&self.url("postgres"), &format!("create database {name}"))?;
        Ok(self.url(name))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A server of its own goes with all that is in it; a failed test's database is worth a look until the shared one goes.
        if self.server.is_none() && !std::thread::panicking() {
            let _ = psql(&self.maintenance, &format!("drop database {} with (force)", self.name));
        }
    }
}

fn psql(url: &str, sql: &str) -> Result<()> {
    let Some(programs) = detect::postgres() else {
        bail!("a PostgreSQL server is not installed: cargo xtask setup");
    };
    let mut psql = command(programs.join("psql"));
    run_quietly(psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, url]).stdin(Stdio::null()))
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_has_a_database_of_its_own() {
        let first = Database::create().unwrap();
        first.execute("create table seen (id int)").unwrap();
        let second = Database::create().unwrap();
        second.execute("create table seen (id int)").unwrap();
        assert_ne!(first.url(), second.url());
    }
}
