//! The start that follows when this program begins anew in its own process: which program it is, and whether it would come up.
//!
//! Asked before anything stops, because a control plane that finds its configuration unusable does not come back by itself.
//! The program itself is asked what it is (`successor`), the configuration is read here.
//! What only a start can tell (a port that another program takes meanwhile, a database that does not answer) is not asked.

mod successor;

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use self::successor::{NoSuccessor, long_version};
use crate::config::{Config, ConfigError, Reading};
use crate::configuration::start::BeginError;
use crate::listen::{self, ListenError};
use crate::secrets::{SecretError, Secrets};

/// Why it would not come up.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Secrets(#[from] SecretError),
    #[error(transparent)]
    Begin(#[from] BeginError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Program(#[from] NoSuccessor),
}

/// With the flags and variables of this one, which it inherits.
#[derive(Clone, Debug)]
pub struct NextStart {
    program: PathBuf,
    reading: Reading,
}

impl NextStart {
    pub fn new(program: PathBuf, reading: Reading) -> Self {
        Self { program, reading }
    }

    /// What a configuration is read with, now and then.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Whether the program that lies there by now runs, and may use the database. `needs`: the change of its tables that a
    /// program has to know.
    pub async fn program_fits(&self, needs: Option<&str>) -> Result<(), Unfit> {
        Ok(successor::would_begin(&self.program, needs).await?)
    }

    /// What a start reads before it knows what is in force. Reads files.
    pub fn read(&self) -> Result<(Config, Secrets), Unfit> {
        let config = Config::load(self.reading.flags(), self.reading.variables())?;
        let secrets = Secrets::load(&config.secrets, self.reading.variables())?;
        Ok((config, secrets))
    }

    /// Whether it could listen with the configuration that counts then: its certificate, and that its addresses are this host's.
    /// Reads files, and opens sockets for a moment.
    pub fn listens(config: &Config) -> Result<(), Unfit> {
        for address in [config.console.bind, config.agents.bind] {
            // At whatever port is free: its own are taken, by this program.
            let address = SocketAddr::new(address, 0);
            TcpListener::bind(address).map_err(|source| ListenError::Bind { address, source })?;
        }
        if let Some(files) = &config.console.tls {
            listen::check(files)?;
        }
        Ok(())
    }

    /// Takes this program's place, with its arguments. Returns where that fails.
    pub fn begin(&self) -> (PathBuf, std::io::Error) {
        let error = Command::new(&self.program).args(std::env::args_os().skip(1)).exec();
        (self.program.clone(), error)
    }
}

/// This program by the name it was started under, so that a link that points elsewhere by then leads there. To be asked before
/// anybody can have put another program in its place.
pub fn this_program() -> std::io::Result<PathBuf> {
    let (lies, folder) = (std::env::current_exe()?, std::env::current_dir().unwrap_or_default());
    let named = std::env::args_os().next().unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(by_name(&named, &folder, &path, lies))
}

/// Where the name leads to another program or to none, the place where this one lies.
fn by_name(named: &OsStr, folder: &Path, path: &OsStr, lies: PathBuf) -> PathBuf {
    let is_this = |place: &PathBuf| place.canonicalize().is_ok_and(|it| it == lies);
    let found = if named.as_encoded_bytes().contains(&b'/') {
        Some(folder.join(named)).filter(is_this)
    } else {
        std::env::split_paths(path).map(|it| folder.join(it).join(named)).find(is_this)
    };
    found.unwrap_or(lies)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Flags;

    #[test]
    fn a_program_that_was_started_through_a_link_is_found_through_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let (old, new, link) = (folder.join("old"), folder.join("new"), folder.join("deployex"));
        for program in [&old, &new] {
            std::fs::write(program, "").unwrap();
        }
        std::os::unix::fs::symlink("old", &link).unwrap();
        let found = |named: &str| by_name(named.as_ref(), &folder, folder.as_os_str(), old.clone());
        for named in [link.to_str().unwrap(), "./deployex", "deployex"] {
            assert_eq!(found(named).file_name().unwrap(), "deployex", "{named}");
        }
        assert_eq!(found("old"), old);
        for named in ["another", "./new", ""] {
            assert_eq!(found(named), old, "{named}");
        }
        // Nobody may have one of these begin in our place.
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("new", &link).unwrap();
        assert_eq!(found("deployex"), old);
    }

    #[test]
    fn what_a_start_would_refuse_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deployex.yaml");
        let flags = Flags { config: Some(file.clone()), ..Flags::default() };
        let next = NextStart::new(std::env::current_exe().unwrap(), Reading::new(flags, BTreeMap::new()));
        let check = || next.read().and_then(|(config, _)| NextStart::listens(&config));
        assert!(matches!(check(), Err(Unfit::Config(ConfigError::Unreadable { .. }))));
        std::fs::write(&file, "port: 5001\n").unwrap();
        check().unwrap();
        std::fs::write(&file, "port: many\nport_: 1\n").unwrap();
        let said = check().unwrap_err().to_string();
        assert!(said.contains("has 2 faults") && said.contains(":1:7: port: "), "{said}");
        std::fs::write(&file, "tls: { certificate: /nowhere/a.pem, key: /nowhere/b.pem }\n").unwrap();
        assert!(matches!(check(), Err(Unfit::Listen(ListenError::Pem { .. }))));
        std::fs::write(&file, "secrets_adapter: file\nsecrets_path: /nowhere/secrets.yaml\n").unwrap();
        assert!(matches!(check(), Err(Unfit::Secrets(_))));
        std::fs::write(&file, "bind: 192.0.2.1\n").unwrap();
        let said = check().unwrap_err().to_string();
        assert!(said.contains("cannot listen on 192.0.2.1:0"), "{said}");
        assert!(!format!("{next:?}").contains("variables"));
    }
}
