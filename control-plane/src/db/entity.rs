//! Rows as the tables hold them, private to this folder. What they mean is said where they are read into domain types.

#![allow(unreachable_pub, reason = "the derives of sea-orm write `pub` items")]

pub(super) mod access;
pub(super) mod applications;
pub(super) mod configurations;
pub(super) mod nodes;
pub(super) mod records;
pub(super) mod restarts;
pub(super) mod rollouts;
pub(super) mod row;
