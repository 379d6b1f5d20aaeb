//! `cargo xtask bench …`: what DeployEx costs and how fast it is, beside what others do on the same machine in the same run.
//!
//! Ours and the peer's turns alternate, so that whatever else the machine does meets both. Figures are printed with the bar
//! that they are held to; a bar that is missed is said and is no error, because a shared machine misses some at times.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Subcommand;

mod fleet;
mod footprint;
mod machine;
mod procfs;
mod release;
mod table;

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// Memory and CPU of an idle agent with three replicas, and of their keepers
    #[command(long_about = footprint::ABOUT)]
    Footprint {
        /// How long the agent is left alone before it is measured, and how long its CPU time is watched then
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        idle: u64,
    },
}

/// Builds what is measured, measures it and prints what was found.
pub fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Footprint { idle } => footprint::run(Duration::from_secs(idle)),
    }
}

#[expect(clippy::disallowed_methods, reason = "benchmarks are about time")]
fn now() -> Instant {
    Instant::now()
}
