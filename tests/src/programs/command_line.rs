//! `deployex …`, typed as a person or a script would.

use std::path::PathBuf;
use std::process::Stdio;

use serde::de::DeserializeOwned;

use super::program;
use crate::process::Running;

/// How the command line reaches its control plane: the local socket, or an address and a token.
#[derive(Clone, Debug)]
pub struct CommandLine {
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

/// What a command printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl CommandLine {
    pub(super) fn through_socket(data_dir: PathBuf) -> Self {
        let data_dir = data_dir.display().to_string();
        Self { arguments: vec!["--data-dir".to_owned(), data_dir], variables: Vec::new() }
    }

    /// By the variables that a CI job sets.
    pub fn over_network(url: &str, token: Option<&str>) -> Self {
        let mut variables = vec![("DEPLOYEX_URL", url.to_owned())];
        variables.extend(token.map(|token| ("DEPLOYEX_TOKEN", token.to_owned())));
        Self { arguments: Vec::new(), variables }
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Said {
        let output = self.command(words).output().expect("the program is built");
        Said {
            // Ended by a signal, it has no status; none of ours is 255.
            status: output.status.code().unwrap_or(255),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The answer of a command as JSON, or why there is none.
    pub fn ask<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T, String> {
        let said = self.run(&[words, &["--json"]].concat());
        let shown = words.join(" ");
        if said.status != 0 {
            return Err(format!("deployex {shown} ended with {}: {}", said.status, said.err));
        }
        serde_json::from_str(&said.out).map_err(|error| format!("deployex {shown}: {error} in {}", said.out))
    }

    /// Starts a command that goes on, such as one that follows a log.
    pub fn start(&self, words: &[&str], output: &std::path::Path) -> Running {
        Running::start(&mut self.command(words), output)
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = program("deployex");
        command.args(words).args(&self.arguments).stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}
