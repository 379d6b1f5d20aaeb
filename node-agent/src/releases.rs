//! Releases on this host: brought, verified and unpacked once, then given to slots.
//!
//! ```text
//!  Fetch ── download ──▶ {sha}.partial ── unpack (hash, inflate, write: one pass) ──▶ {sha}.unpacking ── rename ──▶ {sha}/
//!                          kept, resumed                                               gone at the next start     │ stage:
//!                                                                                                                 ▼ link, copy
//!  {var}/service/{app}/{slot}/  previous ◀── current ◀── new ◀── rename ── .staging  ◀────────────────────────────┘
//! ```
//! Whatever a name without a dot before or after it shows is whole. In the store it is on the disk too; in a slot it is after
//! [`SlotFolder::flush`], and before that it counts for nothing once the host has restarted. Nothing here decides when a slot
//! changes its release (`replica`) or starts a program.

mod download;
mod error;
mod fetch;
pub(crate) mod layout;
pub mod logo;
mod machine;
mod manifest;
mod mark;
pub(crate) mod otp;
mod slot_folder;
mod stage;
mod store;
#[cfg(test)]
mod tests;
mod unpack;

pub use error::StageError;
pub use fetch::{Chunks, Fetch, FetchError};
pub use slot_folder::SlotFolder;
pub use store::{Owner, Store, Unpacked, Wanted};
