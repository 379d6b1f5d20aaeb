//! What the database promises, on both engines.

mod access;
mod fleet;
mod plans;
mod records;
