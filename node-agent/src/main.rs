//! `deployex-agent`: reads its command line, then runs until SIGTERM. Stopping it stops no replica.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use node_agent::cli::{self, Cli};

fn main() -> ExitCode {
    node_agent::allocator::share_one_pool();
    let cli = Cli::parse();
    // One backend for all of TLS. It fails only where one was chosen before, and nobody did.
    drop(rustls::crypto::ring::default_provider().install_default());
    // Two threads: the agent waits far more than it works, and each thread's memory counts on a small host.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(cli::run(cli)),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "deployex-agent: cannot start its threads: {error}");
            ExitCode::FAILURE
        }
    }
}
