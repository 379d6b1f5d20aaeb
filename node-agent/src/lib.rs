//! DeployEx's node agent: one on every host. It supervises the replicas of that host and tells the control plane what is true.
//!
//! `replica` decides and is pure; `supervisor` acts and is thin.

pub mod allocator;
pub mod beam;
pub mod cgroup;
pub mod cli;
pub mod clock;
pub mod dist;
pub mod gauge;
pub mod host;
pub mod hot;
mod inherited;
pub mod keeper;
mod kernel_file;
mod limits;
pub mod link;
pub mod logs;
pub mod mesh;
mod oom;
mod program;
pub mod releases;
pub mod replica;
mod succession;
pub mod supervisor;
pub mod systemd;
pub mod telemetry;
