//! Whether two compiled modules are the same code. Pure.
//!
//! What counts is what the emulator takes for a module's digest: debug information, documentation and line numbers may differ
//! between two builds of the same source.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Read, copy, sink};

use flate2::read::{GzDecoder, ZlibDecoder};

/// Of an unpacked module; the largest of OTP has 2 MB.
const MOST: u64 = 64 << 20;
const COUNT: [&[u8; 4]; 8] = [b"Atom", b"AtU8", b"Code", b"StrT", b"ImpT", b"ExpT", b"FunT", b"LitT"];

/// Files that are no modules are the same where their bytes are.
pub(super) fn is_same_code(one: &[u8], other: &[u8]) -> bool {
    if one == other {
        return true;
    }
    let (Some(one), Some(other)) = (unpacked(one), unpacked(other)) else { return false };
    matches!((chunks(&one), chunks(&other)), (Some(one), Some(other)) if one == other)
}

/// Releases may be stripped to gzipped modules.
fn unpacked(file: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !file.starts_with(&[0x1f, 0x8b]) {
        return Some(Cow::Borrowed(file));
    }
    bounded(GzDecoder::new(file)).map(Cow::Owned)
}

fn bounded(mut from: impl Read) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    (&mut from).take(MOST).read_to_end(&mut bytes).ok()?;
    (copy(&mut from.take(1), &mut sink()).ok()? == 0).then_some(bytes)
}

fn chunks(file: &[u8]) -> Option<BTreeMap<[u8; 4], Cow<'_, [u8]>>> {
    let rest = file.strip_prefix(b"FOR1")?.get(4..)?;
    let mut rest = rest.strip_prefix(b"BEAM")?;
    let mut chunks = BTreeMap::new();
    while let Some((head, after)) = rest.split_at_checked(8) {
        let name: [u8; 4] = head[..4].try_into().ok()?;
        let length = usize::try_from(u32::from_be_bytes(head[4..].try_into().ok()?)).ok()?;
        let content = after.get(..length)?;
        if COUNT.contains(&&name) {
            chunks.insert(name, if &name == b"LitT" { literals(content)? } else { Cow::Borrowed(content) });
        }
        rest = after.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    (!chunks.is_empty()).then_some(chunks)
}

/// How well they are deflated is a matter of who compiled. 0: they are not.
fn literals(chunk: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (size, content) = chunk.split_at_checked(4)?;
    if size == [0; 4] {
        return Some(Cow::Borrowed(content));
    }
    bounded(ZlibDecoder::new(content)).map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn file(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut body = b"BEAM".to_vec();
        for (name, content) in chunks {
            body.extend(*name);
            body.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
            body.extend(*content);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut file = b"FOR1".to_vec();
        file.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        file.extend(body);
        file
    }

    fn literals(level: u32) -> Vec<u8> {
        let text = b"a literal, a literal, a literal";
        let mut chunk = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
        let mut encoder = ZlibEncoder::new(&mut chunk, Compression::new(level));
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap();
        chunk
    }

    #[test]
    fn code_counts_and_what_describes_it_does_not() {
        let one = file(&[(b"AtU8", b"m"), (b"Code", b"12345"), (b"Dbgi", b"here"), (b"Line", b"1")]);
        let elsewhere = file(&[(b"AtU8", b"m"), (b"Code", b"12345"), (b"CInf", b"there"), (b"Docs", b"x")]);
        let other = file(&[(b"AtU8", b"m"), (b"Code", b"12346"), (b"Dbgi", b"here"), (b"Line", b"1")]);
        let more = file(&[(b"AtU8", b"m"), (b"Code", b"12345"), (b"ExpT", b"")]);
        assert!(is_same_code(&one, &elsewhere));
        assert!(!is_same_code(&one, &other) && !is_same_code(&one, &more));
        let mut gzipped = GzEncoder::new(Vec::new(), Compression::new(3));
        gzipped.write_all(&elsewhere).unwrap();
        assert!(is_same_code(&one, &gzipped.finish().unwrap()));
    }

    #[test]
    fn literals_are_compared_inflated() {
        let with = |level| file(&[(b"Code", b"x"), (b"LitT", &literals(level))]);
        assert_ne!(with(1), with(0));
        assert!(is_same_code(&with(1), &with(0)));
    }

    #[test]
    fn what_is_cut_off_is_the_same_as_nothing_but_itself() {
        let whole = file(&[(b"AtU8", b"m"), (b"Code", b"12345678")]);
        for end in 0..whole.len() {
            assert!(!is_same_code(&whole[..end], &whole), "{end}");
        }
        assert!(is_same_code(b"text", b"text") && !is_same_code(b"text", b"other"));
    }
}
