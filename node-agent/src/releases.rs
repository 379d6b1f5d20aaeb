//! Releases on this host: brought, verified and unpacked once, then given to slots.

mod fetch;

pub use fetch::{Chunks, Fetch, FetchError};
