//! A PostgreSQL server of our own, for tests, benchmarks and for trying things: in a temporary folder, on a free port of
//! 127.0.0.1, gone with its handle. Durability is off except where that is what is measured.
//!
//! PostgreSQL refuses to run as root, so as root it runs as the user that its package made, or as nobody.

mod database;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::command::{command, run_quietly};
use crate::setup::detect;

pub use database::Database;

/// The variable by which `cargo xtask test` tells tests of the one server that they share.
pub const SHARED: &str = "DEPLOYEX_TEST_POSTGRES";

/// The superuser inside the server.
const USER: &str = "deployex";

/// A running server. Dropping it stops it and removes its files.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Server {
    /// One that is fast and forgets.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        Self::start_in(folder, &["fsync=off", "synchronous_commit=off", "full_page_writes=off"])
    }

    /// One that has every commit on the disk before it is acknowledged, in a folder of its own below this one.
    pub fn durable(disk: &Path) -> Result<Self> {
        let folder = TempDir::new_in(disk).context("cannot make a temporary folder")?;
        Self::start_in(folder, &["fsync=on", "synchronous_commit=on", "full_page_writes=on"])
    }

    fn start_in(folder: TempDir, durability: &[&str]) -> Result<Self> {
        let Some(programs) = detect::postgres() else {
            bail!("a PostgreSQL server is not installed: cargo xtask setup");
        };
        let owner = owner()?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid))?;
        }
        let data = folder.path().join("data");
        let mut initdb = as_owner(&programs.join("initdb"), owner, folder.path());
        initdb.arg("-D").arg(&data).args([
            "-U",
            USER,
            "--auth=trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        run_quietly(&mut initdb).context("no database cluster could be made")?;

        let port = free_port()?;
        let log = File::create(folder.path().join("log"))?;
        let mut postgres = as_owner(&programs.join("postgres"), owner, folder.path());
        postgres.arg("-D").arg(&data).arg("-p").arg(port.to_string()).arg("-k").arg(folder.path());
        for setting in ["listen_addresses=127.0.0.1", "max_connections=200"].iter().chain(durability) {
            postgres.arg("-c").arg(setting);
        }
        let child = postgres
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} could not be started", programs.join("postgres").display()))?;
        let mut server = Self { child, port, folder };
        server.wait_until_it_answers(&programs)?;
        Ok(server)
    }

    /// The address of a database in this server, whether it exists or not.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Where its log is, for the message of a failure.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn wait_until_it_answers(&mut self, programs: &Path) -> Result<()> {
        for _ in 0..300 {
            if let Some(status) = self.child.try_wait()? {
                bail!("the PostgreSQL server ended with {status}:\n{}", self.log_text());
            }
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
            let listens = TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
            let port = self.port.to_string();
            let mut ready = command(programs.join("pg_isready"));
            if listens && run_quietly(ready.args(["-q", "-h", "127.0.0.1", "-p", &port])).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!("the PostgreSQL server did not answer within 30 s:\n{}", self.log_text())
    }

    fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGQUIT is its immediate shutdown: nothing here is worth a checkpoint, and its shared memory is given back.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::QUIT);
        }
        let _ = self.child.wait();
    }
}

fn as_owner(program: &Path, owner: Option<(u32, u32)>, folder: &Path) -> Command {
    let mut command = command(program);
    if let Some((uid, gid)) = owner {
        command.uid(uid).gid(gid);
    }
    command.current_dir(folder).env("LC_ALL", "C.UTF-8");
    command
}

/// Whom it runs as; none where that is us.
fn owner() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let ids = ["postgres", "nobody"].iter().find_map(|name| ids_of(&users, name));
    ids.map(Some).context("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

fn ids_of(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_ids_are_read_by_its_whole_name() {
        let users = "nobody2:x:1:2::/:/bin/sh\nnobody:x:65534:65533:n:/nonexistent:/usr/sbin/nologin\n";
        assert_eq!(ids_of(users, "nobody"), Some((65534, 65533)));
        assert_eq!(ids_of(users, "postgres"), None);
    }

    #[test]
    fn a_server_answers_and_is_gone_with_its_handle() {
        let server = Server::start().unwrap();
        let (port, folder) = (server.port, server.folder.path().to_path_buf());
        assert!(server.url("any").starts_with("postgres://deployex@127.0.0.1:"));
        drop(server);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
        assert!(!folder.exists());
    }
}
