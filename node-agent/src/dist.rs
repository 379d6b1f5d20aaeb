//! The Erlang distribution protocol, as a hidden node that dials others and is dialled by none: how the agent looks into any
//! BEAM release with nothing installed in it.
//!
//! ```text
//!   link ──▶ dial: epmd ── port ──▶ tls ──▶ handshake ── peer ──▶ connection ── call, watch ──▶ term
//!     ▲                                                             │  frame ◀─▶ control
//!     └────────────────────────── its end ──────────────────────────┘
//! ```
//! `started` tells which node a process is. It knows nothing of replicas. Everything that a node sends is bounded: it may be what the application's users wrote.

pub mod connection;
pub mod control;
pub mod dial;
pub mod epmd;
pub mod flags;
pub mod frame;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod handshake;
pub mod link;
pub mod reach;
pub mod started;
pub mod term;
pub mod tls;
