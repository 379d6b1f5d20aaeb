//! `deployex serve`: the control plane itself, until it is told to stop.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::output::note;
use crate::auth::first::{ADMIN, DEMO_PASSWORD, FirstSignIn};
use crate::config::{Config, ConfigError, DatabaseUrl, Flags, Reading};
use crate::db::LOG_FILTER;
use crate::next_start::{self, NextStart};
use crate::secrets::{SecretError, Secrets};
use crate::server::{Running, Server, StartError};
use crate::telemetry::{LogFormat, LoggingError, start_logging};

/// Run the control plane.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex serve --config /etc/deployex/deployex.yaml")]
pub(super) struct Serve {
    /// The configuration; without it, variables alone.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the data is kept: `sqlite:///…` or `postgres://…`.
    #[arg(long, value_name = "URL", hide_env_values = true)]
    database_url: Option<SecretString>,
    /// Apply the configuration as soon as its file has changed; without it, it waits for `deployex apply`.
    #[arg(long)]
    auto_apply: bool,
    /// Sign in with admin / deployex, from this machine alone.
    #[arg(long)]
    demo: bool,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "DEPLOYEX_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged, such as `warn` or `info,control_plane::agents=debug` [default: info].
    #[arg(long, env = "DEPLOYEX_LOG", value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error(transparent)]
    Logging(#[from] LoggingError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Secrets(#[from] SecretError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    #[error("cannot tell where this program lies")]
    Program(#[source] std::io::Error),
    #[error("{} cannot begin anew; start it by hand", program.display())]
    Again { program: PathBuf, source: std::io::Error },
}

impl Serve {
    pub(super) async fn run(self, data_dir: Option<PathBuf>) -> Result<(), ServeError> {
        // Whatever it writes from here on is nobody else's: there are hashes of passwords and secrets of applications in it.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        // Asked before anybody can have put another program in its place.
        let program = next_start::this_program().map_err(ServeError::Program)?;
        start_logging(self.log_format, self.log.as_deref().unwrap_or(LOG_FILTER))?;
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let flags = self.flags(data_dir);
        let config = Config::load(&flags, &variables)?;
        for notice in config.notices.iter().chain(&config.not_yet_in_force()) {
            tracing::info!("{notice}");
        }
        let secrets = Secrets::load(&config.secrets, &variables)?;
        let scheme = if config.console.tls.is_some() { "https" } else { "http" };
        let (mut term, mut interrupt) = (
            signal(SignalKind::terminate()).map_err(ServeError::Signals)?,
            signal(SignalKind::interrupt()).map_err(ServeError::Signals)?,
        );
        let cancel = CancellationToken::new();
        let next = NextStart::new(program, Reading::new(flags, variables));
        let running = Server::start(config, secrets, next.clone(), cancel.clone()).await?;
        note(&said_at_start(&running, scheme));
        let again = tokio::select! {
            biased; // who is told to stop does not begin anew
            _ = term.recv() => false,
            _ = interrupt.recv() => false,
            () = cancel.cancelled() => running.begin_anew.is_cancelled(),
        };
        tracing::info!(again, "stopping; replicas go on running");
        cancel.cancel();
        running.wait().await;
        let again = again
            && tokio::select! {
                biased; // who is told to stop meanwhile does not begin anew
                _ = term.recv() => false,
                _ = interrupt.recv() => false,
                () = std::future::ready(()) => true,
            };
        if again {
            // The same process: whoever looks after it sees no end. What lies there by now is what begins.
            let (program, source) = next.begin();
            return Err(ServeError::Again { program, source });
        }
        Ok(())
    }

    fn flags(self, data_dir: Option<PathBuf>) -> Flags {
        Flags {
            config: self.config,
            data_dir,
            database_url: self.database_url.map(|url| DatabaseUrl::new(url.expose_secret().to_owned())),
            demo: self.demo,
            auto_apply: self.auto_apply,
        }
    }
}

fn said_at_start(running: &Running, scheme: &str) -> String {
    let Running { console, agents, socket, first_sign_in, .. } = running;
    let sign_in = match first_sign_in {
        FirstSignIn::Demo => format!("\nSign in as {ADMIN} / {DEMO_PASSWORD} (this is a demo)"),
        FirstSignIn::OneTime(password) => format!(
            "\nSign in as {ADMIN} with the password {} (made now, not shown again)",
            password.expose_secret()
        ),
        FirstSignIn::Unchanged | FirstSignIn::Configured => String::new(),
    };
    format!(
        "Console and API: {scheme}://{console}\nAgents: {agents}\nLocal socket: {}{sign_in}",
        socket.display()
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::Cli;
    use super::*;

    /// The data folder of a start with these arguments.
    fn data_dir(arguments: &str) -> PathBuf {
        let cli = Cli::parse_from(arguments.split_whitespace());
        let super::super::Command::Serve(serve) = cli.command else { panic!("another command") };
        let flags = serve.flags(cli.connection.data_dir);
        Config::load(&flags, &BTreeMap::new()).unwrap().data_dir
    }

    #[test]
    fn a_demo_has_a_folder_of_its_own() {
        assert_eq!(data_dir("deployex serve"), PathBuf::from("/var/lib/deployex"));
        assert_eq!(data_dir("deployex serve --demo"), PathBuf::from("/tmp/deployex/varlib"));
        assert_eq!(data_dir("deployex serve --demo --data-dir /srv/demo"), PathBuf::from("/srv/demo"));
    }
}
