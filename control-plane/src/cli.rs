//! `deployex …`: the commands, and what each exits with. It speaks the HTTP API and nothing else, like the console.
//!
//! One file per noun; each asks, then renders by a pure function. Exit status: 0 done, 1 what was asked for did not happen,
//! 2 wrong use, 3 not reachable, 4 not allowed, 5 timed out while waiting.

mod app;
mod client;
mod configuration;
mod deploy;
mod event;
mod ghosted;
mod logs;
mod node;
mod output;
mod plan;
mod release;
mod restart;
mod rollout;
mod rpc;
mod scale;
mod serve;
mod status;
mod token;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;

use self::client::Client;
use self::output::Out;
use crate::config::Config;
use crate::error::chain;

/// Deploys, supervises and watches BEAM releases on plain hosts.
#[derive(Debug, Parser)]
#[command(name = "deployex", version, long_version = crate::next_start::long_version(), max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

/// Which control plane is asked. Without `--url`: the one on this host, through the socket in its data folder.
#[derive(Debug, Args)]
struct Connection {
    /// Answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Address of the control plane; without it, the one on this host is asked.
    #[arg(long, global = true, env = "DEPLOYEX_URL", value_name = "URL")]
    url: Option<String>,
    /// API token for --url.
    #[arg(long, global = true, env = "DEPLOYEX_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<SecretString>,
    /// Where the control plane of this host keeps its data, and its socket
    /// [default: /var/lib/deployex; with `serve --demo`: /tmp/deployex/varlib].
    #[arg(long, global = true, env = "DEPLOYEX_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Connection {
    /// For all but `serve`, which knows the default once it knows whether it is a demo.
    fn data_dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new(Config::DEFAULT_DATA_DIR))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Status(status::Status),
    /// Applications: what runs of each, and what it is doing.
    #[command(subcommand)]
    App(app::App),
    /// Hosts that run an agent.
    #[command(subcommand)]
    Node(node::Node),
    /// What changed, when, and on whose word.
    #[command(subcommand)]
    Event(event::Event),
    /// Tokens of the API, for programs.
    #[command(subcommand)]
    Token(token::Token),
    /// Releases: what a deployment of one would be.
    #[command(subcommand)]
    Release(release::Release),
    /// Releases that failed to become stable and are not deployed again.
    #[command(subcommand)]
    Ghosted(ghosted::Ghosted),
    /// The configuration: its versions, and what waits for somebody.
    #[command(subcommand)]
    Config(configuration::Configuration),
    Plan(plan::Plan),
    Apply(plan::Apply),
    Deploy(deploy::Deploy),
    Rollback(deploy::Rollback),
    Pin(deploy::Pin),
    Unpin(deploy::Unpin),
    Scale(scale::Scale),
    Logs(logs::Logs),
    Restart(restart::Restart),
    Rpc(rpc::Rpc),
    /// Moves of an application to a release.
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    /// Print the version of this program.
    #[command(after_help = "Example:\n  deployex version")]
    Version,
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{0}")]
    WrongUse(String),
    #[error("{what} is not reachable; {hint}")]
    NotReachable {
        what: String,
        hint: &'static str,
        #[source]
        source: reqwest::Error,
    },
    #[error("{0}")]
    NotAllowed(String),
    #[error("{0}")]
    Refused(String),
    #[error("the answer of {what} could not be read; is it a control plane of this version?")]
    Unreadable {
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{0}")]
    TimedOut(String),
    #[error("cannot write the output")]
    Output(#[source] std::io::Error),
    #[error(transparent)]
    Serve(#[from] serve::ServeError),
}

impl CliError {
    fn status(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Unreadable { .. } | Self::Output(_) | Self::Serve(_) => 1,
            Self::WrongUse(_) => 2,
            Self::NotReachable { .. } => 3,
            Self::NotAllowed(_) => 4,
            Self::TimedOut(_) => 5,
        }
    }
}

/// Runs the command and says what to exit with.
pub async fn run(cli: Cli) -> ExitCode {
    let mut out = Out::standard(cli.connection.json);
    match dispatch(cli, &mut out).await {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has gone: there is nobody to tell.
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&chain(&error));
            ExitCode::from(error.status())
        }
    }
}

async fn dispatch(cli: Cli, out: &mut Out) -> Result<(), CliError> {
    let Cli { connection, command } = cli;
    let client = || Client::open(&connection);
    match command {
        Command::Serve(serve) => Ok(serve.run(connection.data_dir).await?),
        Command::Status(status) => status.run(&client()?, out).await,
        Command::App(app) => app.run(&client()?, out).await,
        Command::Node(node) => node.run(&client()?, out).await,
        Command::Event(event) => event.run(&client()?, out).await,
        Command::Token(token) => token.run(&client()?, out).await,
        Command::Release(release) => release.run(&client()?, out).await,
        Command::Ghosted(ghosted) => ghosted.run(&client()?, out).await,
        Command::Config(configuration) => configuration.run(&client()?, out).await,
        Command::Plan(plan) => plan.run(&client()?, out).await,
        Command::Apply(apply) => apply.run(&client()?, out).await,
        Command::Deploy(deploy) => deploy.run(&client()?, out).await,
        Command::Rollback(rollback) => rollback.run(&client()?, out).await,
        Command::Pin(pin) => pin.run(&client()?, out).await,
        Command::Unpin(unpin) => unpin.run(&client()?, out).await,
        Command::Scale(scale) => scale.run(&client()?, out).await,
        Command::Logs(logs) => logs.run(&client()?, out).await,
        Command::Restart(restart) => restart.run(&client()?, out).await,
        Command::Rpc(rpc) => rpc.run(&client()?, out).await,
        Command::Rollout(rollout) => rollout.run(&client()?, out).await,
        Command::Version => {
            let version = serde_json::json!({ "version": env!("CARGO_PKG_VERSION") });
            out.show(&version, |_| format!("deployex {}\n", env!("CARGO_PKG_VERSION")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::CommandFactory as _;

    use super::*;

    /// Every command down to the last, with its path.
    fn leaves(command: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
        let path = format!("{path} {}", command.get_name());
        match command.has_subcommands() {
            true => command.get_subcommands().flat_map(|it| leaves(it, &path)).collect(),
            false => vec![(path, command.clone())],
        }
    }

    #[test]
    fn every_command_shows_an_example_and_fits_on_a_narrow_terminal() {
        Cli::command().debug_assert();
        let mut root = Cli::command();
        root.build();
        for (path, mut command) in leaves(&root, "") {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{path} has no example");
            assert!(help.contains("--json") && help.contains("--url"), "{path}");
            for line in help.lines() {
                assert!(line.chars().count() <= 100, "{path}: {line}");
            }
        }
    }

    #[test]
    fn the_commands_are_those_that_are_promised() {
        let mut root = Cli::command();
        root.build();
        let paths: Vec<String> =
            leaves(&root, "").into_iter().map(|(path, _)| path.trim().to_owned()).collect();
        insta::assert_snapshot!(paths.join("\n"));
    }

    #[test]
    fn the_example_of_every_command_is_understood() {
        let mut root = Cli::command();
        root.build();
        for (path, mut command) in leaves(&root, "") {
            let help = command.render_long_help().to_string();
            let example = help.lines().skip_while(|line| !line.starts_with("Example")).nth(1).unwrap();
            let parsed = Cli::try_parse_from(example.split_whitespace());
            assert!(parsed.is_ok(), "{path}: {example}: {parsed:?}");
        }
    }

    #[test]
    fn a_variable_that_an_argument_reads_means_something_to_the_configuration() {
        let mut root = Cli::command();
        root.build();
        let variables: BTreeMap<String, String> = leaves(&root, "")
            .iter()
            .flat_map(|(_, command)| command.get_arguments())
            .filter_map(|argument| argument.get_env()?.to_str())
            .map(|name| (name.to_owned(), "/value".to_owned()))
            .collect();
        assert!(variables.len() >= 5, "{variables:?}");
        let config = Config::read(None, &crate::config::Flags::default(), &variables).unwrap();
        assert!(!config.notices.join("\n").contains("means nothing"), "{:?}", config.notices);
    }

    #[test]
    fn a_token_is_not_printed_with_the_arguments() {
        let cli = Cli::parse_from(["deployex", "status", "--token", "dpx_secret"]);
        assert!(!format!("{cli:?}").contains("dpx_secret"));
    }
}
