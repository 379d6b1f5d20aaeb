//! `deployex-agent`: reads its command line, then runs until SIGTERM. Stopping it stops no replica.

use std::process::ExitCode;

use clap::Parser;
use node_agent::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One backend for all of TLS. It fails only where one was chosen before, and nobody did.
    drop(rustls::crypto::ring::default_provider().install_default());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(cli::filter())
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .finish();
    let told = tracing::subscriber::set_global_default(subscriber);
    // Two threads: the agent waits far more than it works, and each thread's memory counts on a small host.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match (told, runtime) {
        (Ok(()), Ok(runtime)) => runtime.block_on(cli::run(cli)),
        _ => ExitCode::FAILURE,
    }
}
