//! Keeps, of an archive that is read to its end, the small files that say whether it can be upgraded to in a running VM.
//!
//! What is kept is capped file by file and together, so that looking costs no memory worth speaking of.

use std::convert::Infallible;
use std::io::Read;

use super::read::{ReadError, Sink, Summary, read};
use super::rules::Entry;
use super::{Expected, Limits};
use crate::hot_upgrade::{self, Files, Package};
use crate::state::Language;

/// Of one file: appups and `.rel` files have some kilobytes.
const FILE_BYTES: u64 = 256 << 10;
const ALL_BYTES: u64 = 4 << 20;
const ALL_FILES: usize = 4_000;

/// What a good archive was found to be and to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    pub summary: Summary,
    /// `None` where the language has no hot upgrades.
    pub package: Option<Package>,
}

/// Looks at all of it and keeps what little says how it can be deployed.
pub fn inspect(
    input: impl Read,
    limits: &Limits,
    expected: &Expected<'_>,
) -> Result<Inspection, ReadError<Infallible>> {
    let has_packages = expected.language != Language::Gleam;
    let mut gather = Gather { has_packages, ..Gather::default() };
    let summary = read(input, limits, expected, &mut gather)?;
    let package = has_packages.then(|| hot_upgrade::read(expected.app, &gather.files));
    Ok(Inspection { summary, package })
}

#[derive(Default)]
struct Gather {
    has_packages: bool,
    files: Files,
    bytes: u64,
    /// The file that is coming.
    open: Option<(String, Vec<u8>)>,
}

impl Gather {
    /// Whether so much more may be kept; what is not is remembered.
    fn admits(&mut self, path: &str, size: u64) -> bool {
        let count = self.files.kept.len() + self.files.too_large.len();
        if count >= ALL_FILES || self.bytes.saturating_add(size.min(FILE_BYTES)) > ALL_BYTES {
            self.files.too_many = true;
            return false;
        }
        if size > FILE_BYTES {
            self.files.too_large.insert(path.to_owned());
            return false;
        }
        self.bytes += size;
        true
    }
}

impl Sink for Gather {
    type Error = Infallible;

    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), Infallible> {
        match *entry {
            Entry::File { path, size, .. }
                if self.has_packages && hot_upgrade::is_wanted(path) && self.admits(path, size) =>
            {
                self.open = Some((path.to_owned(), Vec::new()));
            }
            // relx writes some of these files twice, and archivers keep such a pair as one.
            Entry::HardLink { path, target, .. } if self.has_packages && hot_upgrade::is_wanted(path) => {
                if let Some(bytes) = self.files.kept.get(target).cloned()
                    && self.admits(path, bytes.len() as u64)
                {
                    self.files.kept.insert(path.to_owned(), bytes);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        if let Some((_, kept)) = &mut self.open {
            kept.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Infallible> {
        self.files.kept.extend(self.open.take());
        Ok(())
    }
}
