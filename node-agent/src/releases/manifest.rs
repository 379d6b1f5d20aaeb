//! What lies in an unpacked release: written beside it when it is whole, read by whoever links it into a slot.
//!
//! Text, one entry a line in the order of making: a folder comes before what is in it. Size and modification time tell
//! whether a file is still the one that was unpacked, at the price of one `stat`.

use std::fmt::Write as _;

/// One entry below the release's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Folder { path: String },
    File { path: String, mode: u32, stamp: Stamp },
    Symlink { path: String, target: String },
}

impl Item {
    pub(super) fn path(&self) -> &str {
        match self {
            Self::Folder { path } | Self::File { path, .. } | Self::Symlink { path, .. } => path,
        }
    }
}

/// What changes when a file is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    pub(super) modified_s: i64,
    pub(super) modified_ns: u32,
}

impl From<&rustix::fs::Stat> for Stamp {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast)]
    fn from(stat: &rustix::fs::Stat) -> Self {
        // The C types differ between platforms; a size is never negative and nanoseconds are below 10^9.
        Self {
            size: stat.st_size as u64,
            modified_s: stat.st_mtime as i64,
            modified_ns: stat.st_mtime_nsec as u32,
        }
    }
}

const FIRST_LINE: &str = "deployex release 1";

/// Paths and targets have no control characters: an archive with one is refused.
pub(super) fn write(items: &[Item]) -> String {
    let mut text = format!("{FIRST_LINE}\n");
    for item in items {
        // Writing into a string cannot fail.
        let _ = match item {
            Item::Folder { path } => writeln!(text, "d\t{path}"),
            Item::File { path, mode, stamp: Stamp { size, modified_s, modified_ns } } => {
                writeln!(text, "f\t{mode:o}\t{size}\t{modified_s}\t{modified_ns}\t{path}")
            }
            Item::Symlink { path, target } => writeln!(text, "l\t{target}\t{path}"),
        };
    }
    text.push_str("end\n");
    text
}

/// `None`: not a whole manifest of ours.
pub(super) fn parse(text: &str) -> Option<Vec<Item>> {
    let mut lines = text.strip_suffix("end\n")?.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    lines.map(item).collect()
}

fn item(line: &str) -> Option<Item> {
    let mut fields = line.split('\t');
    let item = match fields.next()? {
        "d" => Item::Folder { path: fields.next()?.to_owned() },
        "f" => {
            let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
            let stamp = Stamp {
                size: fields.next()?.parse().ok()?,
                modified_s: fields.next()?.parse().ok()?,
                modified_ns: fields.next()?.parse().ok()?,
            };
            Item::File { path: fields.next()?.to_owned(), mode, stamp }
        }
        "l" => {
            let target = fields.next()?.to_owned();
            Item::Symlink { path: fields.next()?.to_owned(), target }
        }
        _ => return None,
    };
    fields.next().is_none().then_some(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_as_it_was_written_and_never_by_halves() {
        let items = vec![
            Item::Folder { path: "lib".into() },
            Item::File {
                path: "lib/ünï x".into(),
                mode: 0o755,
                stamp: Stamp { size: 1 << 40, modified_s: -1, modified_ns: 999_999_999 },
            },
            Item::Symlink { path: "lib/l".into(), target: "../bin".into() },
        ];
        let text = write(&items);
        assert_eq!(parse(&text).unwrap(), items);
        for cut in (0..text.len()).filter(|&at| text.is_char_boundary(at)) {
            assert_eq!(parse(&text[..cut]), None);
        }
    }
}
