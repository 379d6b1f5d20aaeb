//! Stories that run the real programs from one end to the other. `cargo xtask test` builds what they start.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod acknowledged;
mod addresses;
mod bucket;
mod chaos;
mod cluster;
mod command_line;
mod configuration;
mod connectivity;
mod console;
mod crash_points;
mod deployments;
mod desired_state;
mod environment;
mod fallback;
mod fleet;
mod host;
mod host_faults;
mod hostile;
mod hosts;
mod hot_upgrade;
mod keys;
mod membership;
mod next_start;
mod one_host;
mod otp_probe;
mod partition;
mod pre_commands;
mod proxy;
mod random_deaths;
mod readiness;
mod restarts;
mod rollback;
mod rpc;
mod samples;
mod self_upgrade;
mod steering;
mod survival;
mod telemetry;
mod thresholds;
mod traffic;
mod vitals;
mod vm_charts;
