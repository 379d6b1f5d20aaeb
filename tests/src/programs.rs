//! The real programs: a control plane with a configuration, data folder and ports of its own, its command line, and agents
//! with paths and an Erlang name server of their own. What they print is in files below their folder; dropping them ends
//! everything of theirs.

use std::path::Path;
use std::process::Command;

use xtask::workspace;

mod agent;
mod command_line;
mod control_plane;
mod version;

pub use agent::{Agent, JoinError, Joining};
pub use command_line::{CommandLine, Said};
pub use control_plane::{ControlPlane, Setup};
pub use version::{LATER, THIS, later};

/// A program of the workspace, with nothing of DeployEx's from the environment.
fn program(name: &str) -> Command {
    program_at(&workspace::program(name))
}

/// The same of one that lies elsewhere.
fn program_at(path: &Path) -> Command {
    assert!(path.exists(), "{} is not built: cargo build --workspace", path.display());
    let mut command = Command::new(path);
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("DEPLOYEX_")) {
            command.env_remove(variable);
        }
    }
    command
}
