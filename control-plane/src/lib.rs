//! DeployEx's control plane: one program that reads wishes (configuration, bucket, people), plans, stores and tells agents.

pub mod agents;
pub mod api;
pub mod assets;
pub mod assign;
pub mod auth;
pub mod checkup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod configuration;
pub mod db;
pub mod error;
pub mod fleet;
pub mod home;
pub mod http;
pub mod listen;
pub mod next_start;
pub mod picture;
pub mod reconcile;
pub mod releases;
pub mod rollout;
pub mod secrets;
pub mod server;
pub mod spec;
pub mod telemetry;
pub mod vault;
