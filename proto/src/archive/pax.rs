//! The records of a PAX extended header: `LENGTH key=value\n`, one after another. Pure.

use super::fault::{HeaderFault, Quoted};

/// What the records say of the next entry.
#[derive(Debug, Default)]
pub(super) struct Extension {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) sparse: bool,
}

/// Of one entry. Times, owners and attributes are not ours to keep and are passed over.
pub(super) fn parse(bytes: &[u8]) -> Result<Extension, HeaderFault> {
    let mut extension = Extension::default();
    for record in records(bytes) {
        let (key, value) = record?;
        match key {
            b"path" => set(&mut extension.path, value)?,
            b"linkpath" => set(&mut extension.link, value)?,
            b"size" => {
                let size =
                    std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
                let size = size.and_then(|text| text.parse().ok()).ok_or(HeaderFault::Number("size"))?;
                if extension.size.replace(size).is_some_and(|before| before != size) {
                    return Err(HeaderFault::Number("size"));
                }
            }
            b"SCHILY.realsize" => extension.sparse = true,
            key if key.starts_with(b"GNU.sparse.") => extension.sparse = true,
            _ => {}
        }
    }
    Ok(extension)
}

/// Of all entries that follow: nothing that matters may be said there, because no honest archiver does.
pub(super) fn check_global(bytes: &[u8]) -> Result<(), HeaderFault> {
    for record in records(bytes) {
        let (key, _) = record?;
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
            return Err(HeaderFault::Global(Quoted::bytes(key)));
        }
    }
    Ok(())
}

fn set(slot: &mut Option<Vec<u8>>, value: &[u8]) -> Result<(), HeaderFault> {
    match slot.replace(value.to_vec()) {
        Some(_) => Err(HeaderFault::NamedTwice),
        None => Ok(()),
    }
}

type Record<'a> = (&'a [u8], &'a [u8]);

fn records(mut rest: &[u8]) -> impl Iterator<Item = Result<Record<'_>, HeaderFault>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((record, after)) = first(rest) else {
            rest = &[];
            return Some(Err(HeaderFault::BadExtension));
        };
        rest = after;
        Some(Ok(record))
    })
}

fn first(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    // A length of more than 7 digits is beyond any header that is read at all.
    let space = bytes.iter().take(8).position(|&byte| byte == b' ')?;
    let digits =
        std::str::from_utf8(&bytes[..space]).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
    let (record, rest) = bytes.split_at_checked(digits.parse().ok()?)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=').filter(|&at| at > 0)?;
    Some(((&body[..equals], &body[equals + 1..]), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_by_their_length_and_not_by_their_newlines() {
        let extension = parse(b"12 path=a\nb\n7 a=bc\n11 size=42\n").unwrap();
        assert_eq!(extension.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(extension.size, Some(42));
    }

    #[test]
    fn a_record_that_does_not_add_up_is_refused() {
        for bad in [
            &b"0 path=a\n"[..],
            b"3 path=a\n",
            b"99 path=a\n",
            b"path=a\n",
            b"9 path=a\0",
            b"-9 path=a\n",
            b"5 =a\n",
            b"18446744073709551616 a=b\n",
            b"9 path",
        ] {
            assert_eq!(parse(bad).unwrap_err(), HeaderFault::BadExtension, "{bad:?}");
        }
        for bad in [&b"9 size=x\n"[..], b"11 size=-1\n", b"11 size=+1\n", b"8 size=\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
