//! `deployex`: the control plane and the command line.

use std::process::ExitCode;

use clap::Parser as _;
use control_plane::cli::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // One backend for all of TLS. It fails only where one was chosen before, and nobody did.
    drop(rustls::crypto::ring::default_provider().install_default());
    cli::run(cli).await
}
