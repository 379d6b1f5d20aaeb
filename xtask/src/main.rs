//! `cargo xtask …`: see `--help`. Parses the words and prints the error; the work is in the library.

#![allow(clippy::print_stderr, clippy::print_stdout)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::bench::{self, Bench};
use xtask::fuzz::{self, Fuzz};
use xtask::setup::{self, Purpose};
use xtask::{demo, fixtures, test, web};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Sets up, builds and tests this repository", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing on this machine, or print the one command that does
    Setup {
        #[arg(long = "for", value_enum, default_value = "test")]
        purpose: Purpose,
    },
    /// Run every check and test, as CI does
    Test {
        /// Only what one runs between edits: formatting, lints and the tests that need nothing started
        #[arg(long)]
        quick: bool,
    },
    /// Build the sample applications into target/fixtures/dist
    Fixtures {
        /// A version to build, instead of 0.1.0 and 0.2.0; words after a dash choose misbehaviour
        #[arg(long = "version", value_name = "VERSION")]
        versions: Vec<String>,
    },
    /// Build the console into web/dist
    Web,
    /// Measure what DeployEx costs and how fast it is, beside what others do
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Look for bytes from a peer that do harm, starting from what a real one sent
    Fuzz {
        #[command(subcommand)]
        what: Fuzz,
    },
    /// Run DeployEx with three sample applications on this machine, until Ctrl-C
    Demo {
        /// Keep the data in this folder; a second run goes on from it
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
        #[command(subcommand)]
        step: Option<DemoStep>,
    },
}

#[derive(Subcommand)]
enum DemoStep {
    /// Publish the next version of each sample into the running demo
    Publish,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup { purpose } => {
            setup::ensure(purpose)?;
            println!("everything is there");
            Ok(())
        }
        Command::Test { quick } => test::run_all(quick),
        Command::Fixtures { versions } => {
            setup::ensure(Purpose::Demo)?;
            fixtures::build_all(&versions)
        }
        Command::Demo { step: Some(DemoStep::Publish), .. } => demo::publish(),
        Command::Demo { keep, step: None } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(demo::demo(keep))
        }
        Command::Web => {
            setup::ensure(Purpose::Demo)?;
            web::bundle()
        }
        Command::Bench { what } => bench::run(what),
        Command::Fuzz { what } => fuzz::fuzz(what),
    }
}
