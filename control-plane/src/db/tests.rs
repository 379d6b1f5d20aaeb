//! What the database promises, on both engines.

mod access;
mod configurations;
mod crash;
mod demo;
mod engines;
pub(crate) mod fixture;
mod fleet;
mod plans;
mod predecessors;
mod records;
