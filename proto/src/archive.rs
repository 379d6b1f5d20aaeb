//! What an acceptable release archive is: a gzip-compressed tar whose every entry stays inside the release.
//!
//! Both ends ask here: the control plane before it records a release ([`inspect`]), the agent while it unpacks one
//! ([`read`] with a [`Sink`] of its own). The bytes pass once, through fixed buffers, and are hashed on the way. What is
//! allowed is decided in `rules` and `shape` without any I/O; headers are parsed strictly here rather than by a tar
//! library, because every leniency of a parser (sizes said twice, names said twice, unbounded extensions) is a way in.
//!
//! Nothing here writes a file, and nothing of an archive is believed before its bytes were counted. Of a good one, [`inspect`]
//! also says what `hot_upgrade` goes by.

mod fault;
mod gather;
mod header;
#[cfg(any(test, feature = "hostile-archives"))]
pub mod hostile;
mod pax;
mod read;
mod rules;
mod shape;
mod stream;
#[cfg(test)]
mod tests;

pub use fault::{EntryFault, Fault, HeaderFault, LimitFault, ShapeFault, StreamFault};
pub use gather::{Inspection, inspect};
pub use read::{ReadError, Sink, Summary, read};
pub use rules::Entry;

use crate::ids::AppName;
use crate::state::Language;

/// Which program the archive should hold: decides the folders that must be in it.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub app: &'a AppName,
    pub language: Language,
}

/// How much an archive may hold. The defaults fit any release that was ever seen several times over.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the tarball as it lies in the bucket.
    pub archive_bytes: u64,
    /// Of everything in it together.
    pub unpacked_bytes: u64,
    /// Files, links and folders, those included that a path only implies.
    pub entries: usize,
    /// Of all paths together: it bounds the memory that reading takes.
    pub names_bytes: usize,
    /// Of one path.
    pub path_bytes: usize,
    /// Folders above one entry.
    pub depth: usize,
    /// Unpacked bytes per packed byte, looked at once [`Limits::RATIO_FROM`] bytes came out. Real code packs 3 to 10
    /// times, gzip ends at about 1,000.
    pub ratio: u64,
}

impl Limits {
    /// Below this much output no ratio is a bomb.
    pub const RATIO_FROM: u64 = 64 << 20;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            archive_bytes: 2 << 30,
            unpacked_bytes: 6 << 30,
            entries: 60_000,
            names_bytes: 8 << 20,
            path_bytes: 1_024,
            depth: 32,
            ratio: 200,
        }
    }
}
