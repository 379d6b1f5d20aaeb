//! The harness of the end-to-end tests: real programs, real Erlang VMs, a real database and browser, each started by the test
//! that needs it, in folders and on ports of its own, and gone when the test is over.
//!
//! A tool that is not installed fails the test by name, with the command that installs it. Nothing is skipped silently. Tests
//! wait for states ([`wait::eventually`]), never for a while.

// A harness fails the test that uses it.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

pub mod browser;
pub mod database;
pub mod erlang;
pub mod hosts;
pub mod http;
pub mod link;
pub mod nginx;
pub mod numbers;
pub mod outage;
pub mod ports;
pub mod process;
pub mod programs;
pub mod release;
pub mod replicas;
pub mod strokes;
pub mod wait;
