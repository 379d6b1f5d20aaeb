//! All that crosses a wire: the agents' gRPC contract (`agent.proto`, feature `grpc`), the HTTP API's requests and views,
//! and the rules that both ends of a wire must agree on (names, digests, what a release archive may hold).
//!
//! Without features this is serde alone and compiles for wasm32, because the console uses it. Nothing of a database, of axum
//! or of tokio may appear here.

#[cfg(feature = "grpc")]
pub mod agent;
pub mod apps;
#[cfg(feature = "archive")]
pub mod archive;
pub mod checkup;
pub mod configuration;
pub mod evaluations;
pub mod events;
pub mod hot_upgrade;
pub mod ids;
pub mod join_token;
pub mod live;
pub mod metrics;
mod natural;
pub mod nodes;
pub mod overview;
pub mod page;
pub mod problem;
pub mod programs;
pub mod releases;
pub mod replicas;
pub mod restarts;
pub mod rollouts;
pub mod state;
pub mod telemetry;
pub mod timestamp;
pub mod users;
pub mod words;

/// Generated from `agent.proto`.
#[cfg(feature = "grpc")]
#[allow(clippy::pedantic, clippy::large_enum_variant, unreachable_pub, unused_qualifications, missing_docs)]
pub mod pb {
    tonic::include_proto!("deployex.agent.v1");
}
