//! The agent's own log: lines on standard error, which whoever starts the agent keeps.

use std::io::{IsTerminal as _, stderr};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// From here on. `filter` as `info,node_agent::link=debug`.
pub fn start_logging(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let parsed = EnvFilter::try_new(filter).with_context(|| {
        format!(
            "{filter:?} is no filter for logs; one looks like \"info\" or \"info,node_agent::link=debug\""
        )
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(stderr);
    let started = match format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // Boxed by the library, without which anyhow cannot take it.
    started.map_err(anyhow::Error::from_boxed).context("cannot start logging")
}
