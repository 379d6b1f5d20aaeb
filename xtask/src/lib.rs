//! What a developer and CI do with this repository: set a machine up, build the sample applications and the console, run the
//! tests. `cargo xtask --help` lists the commands.
//!
//! The `tests` crate uses [`fixtures`] and [`bucket`] too, so that the demo and the tests deploy the same releases the same
//! way. Nothing of DeployEx itself is linked here: the programs are started, never called, so `cargo xtask` starts at once.

// Progress is what these commands are read for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod bench;
pub mod bucket;
pub mod command;
pub mod demo;
pub mod disk;
pub mod fixtures;
pub mod fuzz;
pub mod load;
pub mod postgres;
pub mod processes;
pub mod setup;
pub mod test;
pub mod web;
pub mod workspace;
