//! `cargo xtask bench …`: what DeployEx costs and how fast it is, beside what others do on the same machine in the same run.
//!
//! Ours and the peer's turns alternate, so that whatever else the machine does meets both. Figures are printed with the bar
//! that they are held to; a bar that is missed is said and is no error, because a shared machine misses some at times.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Subcommand;

mod assignments;
mod dist;
mod fleet;
mod footprint;
mod hot_upgrade;
mod machine;
mod plan;
mod procfs;
mod release;
mod restart;
mod sampling;
mod serving;
mod statistics;
mod table;
mod traffic;
mod unpack;

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// Assignments committed durably per second, on SQLite and on PostgreSQL
    #[command(long_about = assignments::ABOUT)]
    Assignments {
        /// Turns of each
        #[arg(long, default_value_t = 5)]
        turns: usize,
        /// How long each number of slots in a plan is stored in each turn
        #[arg(long, value_name = "SECONDS", default_value_t = 2)]
        each: u64,
    },
    /// Latency and rate of calls into a live node, beside an Erlang hidden node
    #[command(long_about = dist::ABOUT)]
    Dist {
        /// Alternating pairs of ours and the peer's, over TCP and over TLS each
        #[arg(long, default_value_t = 20)]
        pairs: usize,
    },
    /// Memory and CPU of an idle agent with its replicas, and of their keepers
    #[command(long_about = footprint::ABOUT)]
    Footprint {
        #[arg(long, default_value_t = 10)]
        replicas: u16,
        /// How long the agent is left alone before it is measured, and how long its CPU time is watched then
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        idle: u64,
    },
    /// What clients wait for while a running VM takes another release, beside the bare release handler
    #[command(long_about = hot_upgrade::ABOUT)]
    HotUpgrade {
        /// Alternating pairs of ours and the bare sequence, each with a full deployment
        #[arg(long, default_value_t = 3)]
        pairs: usize,
        /// Requests a second
        #[arg(long, default_value_t = 1_000)]
        rate: u32,
        /// Processes whose state the upgrade changes
        #[arg(long, default_value_t = 10_000)]
        processes: u32,
    },
    /// How long the planner takes for fleets of 50 to 5,000 nodes
    #[command(long_about = plan::ABOUT)]
    Plan {
        /// Plans of each fleet in each situation
        #[arg(long, default_value_t = 20)]
        turns: usize,
    },
    /// From the SIGKILL of a replica to its successor, beside runit and supervisord
    #[command(long_about = restart::ABOUT)]
    Restart {
        /// Alternating pairs of ours and runit's, for each program
        #[arg(long, default_value_t = 50)]
        pairs: usize,
    },
    /// What being sampled every two seconds costs a VM with many processes
    #[command(long_about = sampling::ABOUT)]
    Sampling {
        #[arg(long, default_value_t = 100_000)]
        processes: u32,
        /// Alternating turns with and without the agent
        #[arg(long, default_value_t = 5)]
        turns: usize,
        /// How long each of them lasts
        #[arg(long, value_name = "SECONDS", default_value_t = 20)]
        each: u64,
    },
    /// From the SIGKILL of a replica until its application answers again, beside a bare start
    #[command(long_about = serving::ABOUT)]
    Serving {
        /// Alternating pairs of a crash and a bare start
        #[arg(long, default_value_t = 30)]
        pairs: usize,
    },
    /// Requests lost and waited for during deployments, restarts and crashes behind NGINX
    #[command(long_about = traffic::ABOUT)]
    Traffic {
        /// Of each phase with each of the two
        #[arg(long, default_value_t = 3)]
        turns: usize,
        /// Requests a second
        #[arg(long, default_value_t = 1_000)]
        rate: u32,
    },
    /// CPU time of unpacking a release, beside `sha256sum FILE && tar xzf FILE`
    #[command(long_about = unpack::ABOUT)]
    Unpack {
        /// Turns of each
        #[arg(long, default_value_t = 9)]
        turns: usize,
    },
}

/// Builds what is measured, measures it and prints what was found.
pub fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Assignments { turns, each } => assignments::run(turns, Duration::from_secs(each)),
        Bench::Dist { pairs } => dist::run(pairs),
        Bench::Footprint { replicas, idle } => footprint::run(replicas, Duration::from_secs(idle)),
        Bench::HotUpgrade { pairs, rate, processes } => hot_upgrade::run(pairs, rate, processes),
        Bench::Plan { turns } => plan::run(turns),
        Bench::Restart { pairs } => restart::run(pairs),
        Bench::Sampling { processes, turns, each } => {
            sampling::run(processes, turns, Duration::from_secs(each))
        }
        Bench::Serving { pairs } => serving::run(pairs),
        Bench::Traffic { turns, rate } => traffic::run(turns, rate),
        Bench::Unpack { turns } => unpack::run(turns),
    }
}

#[expect(clippy::disallowed_methods, reason = "benchmarks are about time")]
fn now() -> Instant {
    Instant::now()
}
