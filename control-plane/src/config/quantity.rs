//! Durations (`30s`, `10m`) and sizes (`20MiB`) as people write them.
//!
//! Pure text to number. Which range a key allows is said by the reader of that key.

/// Milliseconds. A bare number is read only where the key's own name ends in `_ms`.
pub(super) fn duration(text: &str, bare_is_ms: bool) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" if bare_is_ms => 1,
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Bytes. `MB` is a thousand thousand, `MiB` is 1024 × 1024.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// `200%`.
pub(super) fn percent(text: &str) -> Option<u32> {
    u32::try_from(whole(text.strip_suffix('%')?)?).ok()
}

/// Decimal digits and nothing else: `1e3`, `0x10`, `1_000`, `+5` and `010` mean one thing to one YAML reader and another to
/// the next, so they mean nothing here.
pub(super) fn whole(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) { None } else { text.parse().ok() }
}

/// In the largest unit that divides it, as it may be written in the file.
pub(super) fn duration_text(millis: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.iter().find(|(factor, _)| millis > 0 && millis.is_multiple_of(*factor)) {
        Some((factor, unit)) => format!("{}{unit}", millis / factor),
        None => format!("{millis}ms"),
    }
}

/// In the largest unit that divides it, as it may be written in the file.
pub(super) fn size_text(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(factor, _)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((factor, unit)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((whole(number)?, unit.trim_start_matches(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_unless_the_key_has_one() {
        let cases = [
            ("30s", Some(30_000)),
            ("10m", Some(600_000)),
            ("2h", Some(7_200_000)),
            ("14d", Some(1_209_600_000)),
            ("250ms", Some(250)),
            ("250 ms", Some(250)),
            ("250", None),
            ("1.5s", None),
            ("-1s", None),
            ("", None),
            ("s", None),
            ("10 minutes", None),
            ("99999999999999999d", None),
            ("99999999999999999999999", None),
        ];
        for (text, millis) in cases {
            assert_eq!(duration(text, false), millis, "{text:?}");
        }
        assert_eq!(duration("250", true), Some(250));
    }

    #[test]
    fn sizes_know_both_families_of_units() {
        assert_eq!(size("20MiB"), Some(20 * 1024 * 1024));
        assert_eq!(size("20 MB"), Some(20_000_000));
        assert_eq!(size("512"), Some(512));
        assert_eq!(size("20mib"), None);
        assert_eq!(size("20M"), None);
        assert_eq!(size("99999999999TiB"), None);
    }

    #[test]
    fn numbers_that_two_readers_take_differently_are_none() {
        for text in ["1e3", "0x10", "0o17", "010", "1_000", "+5", "-5", "5.0", ".5", "", " 5", "５"] {
            assert_eq!(whole(text), None, "{text:?}");
        }
        assert_eq!(whole("0"), Some(0));
        assert_eq!(percent("200%"), Some(200));
        assert_eq!(percent("200"), None);
    }

    #[test]
    fn a_duration_is_said_as_it_can_be_written() {
        for (millis, text) in [(600_000, "10m"), (86_400_000, "1d"), (1_500, "1500ms"), (0, "0ms")] {
            assert_eq!(duration_text(millis), text);
            assert_eq!(duration(text, false), Some(millis));
        }
        for (bytes, text) in [(2 << 30, "2GiB"), (1_536 << 20, "1536MiB"), (1_000, "1000"), (0, "0")] {
            assert_eq!(size_text(bytes), text);
            assert_eq!(size(text), Some(bytes));
        }
    }
}
