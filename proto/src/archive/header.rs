//! One 512-byte tar header, parsed strictly. Pure: what it may say is decided in `rules`.

use super::fault::{HeaderFault, Special};

pub(super) const BLOCK: usize = 512;

/// What a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
    Special(Special),
    SparseFile,
    /// PAX records for the next entry.
    Extended,
    /// PAX records for all entries that follow.
    GlobalExtended,
    /// GNU: the next entry's path.
    LongName,
    /// GNU: the next entry's link target.
    LongLink,
}

#[derive(Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, HeaderFault> {
        let sum = number(&block[148..156]).ok_or(HeaderFault::Checksum)?;
        if sum != checksum(block) {
            return Err(HeaderFault::Checksum);
        }
        let kind = kind(block[156])?;
        let size = number(&block[124..136]).ok_or(HeaderFault::Number("size"))?;
        let mode = number(&block[100..108])
            .and_then(|mode| u32::try_from(mode).ok())
            .ok_or(HeaderFault::Number("mode"))?;
        // Only POSIX archives continue the name in a prefix; GNU's keep times in its place.
        let prefix = if &block[257..263] == b"ustar\0" { text(&block[345..500]) } else { &[] };
        let mut name = prefix.to_vec();
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(text(&block[..100]));
        // The old way to say "folder".
        let kind = if kind == Kind::File && name.ends_with(b"/") { Kind::Folder } else { kind };
        Ok(Self { kind, size, mode, name, link: text(&block[157..257]).to_vec() })
    }
}

fn kind(flag: u8) -> Result<Kind, HeaderFault> {
    Ok(match flag {
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Special(Special::CharacterDevice),
        b'4' => Kind::Special(Special::BlockDevice),
        b'5' => Kind::Folder,
        b'6' => Kind::Special(Special::Fifo),
        // Solaris' tar alone can store these.
        b's' => Kind::Special(Special::Socket),
        b'S' => Kind::SparseFile,
        b'x' => Kind::Extended,
        b'g' => Kind::GlobalExtended,
        b'L' => Kind::LongName,
        b'K' => Kind::LongLink,
        other => return Err(HeaderFault::UnknownKind(char::from(other))),
    })
}

/// The sum of all bytes, its own field taken as spaces.
pub(super) fn checksum(block: &[u8; BLOCK]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    sum(&block[..148]) + 8 * u64::from(b' ') + sum(&block[156..])
}

/// Octal digits between optional leading spaces and trailing spaces or NULs; or, with the top bit set, a positive binary
/// number. `None` for everything else: no number is guessed.
fn number(field: &[u8]) -> Option<u64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        if first != 0x80 || high.iter().any(|&byte| byte != 0) {
            return None;
        }
        return Some(low.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)));
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| !(b'0'..=b'7').contains(byte)).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if rest.iter().any(|&byte| byte != 0 && byte != b' ') {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &digit| value.checked_mul(8)?.checked_add(u64::from(digit - b'0')))
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_positive_binary_and_nothing_else() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\0", Some(256)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"12a\0\0\0\0\0", None),
            (b"12\x0034\0\0\0", None),
            (b"99999999", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
