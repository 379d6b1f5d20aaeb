//! The agent's acting side.

pub mod process;
