//! Reads the small files that the kernel makes up as they are read: of `/proc` and of control groups.
//!
//! Their size is not known beforehand, so that the standard library asks for it in vain and then reads them in pieces that
//! grow from 32 bytes: eight calls for a line. An agent reads some for each of its replicas, for as long as it lives; here
//! it is three calls. For files on disks this is the wrong way.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// What a line, or the figures of one group, fit in.
const AT_ONCE: usize = 4 << 10;

/// The whole of it. Whoever answers with less than there was room for has said all, as files of one record do (`/proc/PID/stat`,
/// a group's figures). Lists of many records may answer piece by piece: not for them.
/// The name of a process is cut off after 15 bytes, be it within a letter: what is no UTF-8 is replaced.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut buffer = [0; AT_ONCE];
    let length = file.read(&mut buffer)?;
    let mut rest = Vec::new();
    if length == AT_ONCE {
        rest.extend_from_slice(&buffer);
        file.read_to_end(&mut rest)?;
    }
    let text = if rest.is_empty() { &buffer[..length] } else { &rest[..] };
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_long_ones_are_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for length in [0, 1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE] {
            let text = "x".repeat(length);
            std::fs::write(&path, &text).unwrap();
            assert_eq!(read(&path).unwrap(), text, "{length} bytes");
        }
        assert_eq!(read(folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let id = std::process::id();
        assert!(read("/proc/self/stat").unwrap().starts_with(&format!("{id} (")));
        std::fs::write(&path, b"7 (gr\xc3) S 1").unwrap();
        assert_eq!(read(&path).unwrap(), "7 (gr\u{fffd}) S 1");
    }
}
