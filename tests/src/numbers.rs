//! The numbered lines that the samples print (behaviour `numbers`): every one there once and in order, whoever was killed
//! between the program and the file.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Digits, a space, dots; without the line's end.
const LENGTH: usize = 99;
const DIGITS: usize = 11;

/// The last number of each virtual machine that printed into the file, in order; or what is wrong with the lines.
///
/// A machine that ends cuts off its last line, and the next one begins anew behind that. Other lines are nobody's business.
pub fn counted(log: &Path) -> Result<Vec<u64>, String> {
    let file = File::open(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let mut counts = Vec::<u64>::new();
    let mut is_over = true;
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(|error| error.to_string())?;
        match numbered(&line) {
            Some((1, _)) => {
                counts.push(1);
                is_over = false;
            }
            Some((number, true)) => match counts.last_mut() {
                Some(last) if !is_over && *last + 1 == number => *last = number,
                last => return Err(format!("{number} follows {last:?} in {}", log.display())),
            },
            Some((_, false)) => is_over = true,
            // What a machine says at its start comes before its first number.
            None => is_over |= line.starts_with(b"0"),
        }
    }
    Ok(counts)
}

/// The number at the line's end, and whether it is all of the line.
fn numbered(line: &[u8]) -> Option<(u64, bool)> {
    let own = line.get(line.len().checked_sub(LENGTH)?..)?;
    let (digits, rest) = own.split_at(DIGITS);
    let is_one = rest[0] == b' ' && rest[1..].iter().all(|byte| *byte == b'.');
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    is_one.then_some((number, line.len() == LENGTH))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn line(number: u64) -> String {
        format!("{number:011} {}\n", ".".repeat(87))
    }

    fn count(text: &str) -> Result<Vec<u64>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        counted(file.path())
    }

    #[test]
    fn what_is_whole_is_counted_by_machine() {
        let mut text = "a demo starts\n".to_owned();
        (1..=3).for_each(|number| text.push_str(&line(number)));
        let cut = &line(4)[..40];
        let _ = write!(text, "{cut}another starts\n{}{}{cut}{}{}", line(1), line(2), line(1), line(2));
        assert_eq!(count(&text), Ok(vec![3, 2, 2]));
    }

    #[test]
    fn a_number_that_is_missing_or_there_twice_is_said() {
        for numbers in [vec![1, 3], vec![1, 2, 2], vec![2], vec![1, 2, 4]] {
            let text: String = numbers.iter().map(|number| line(*number)).collect();
            assert!(count(&text).is_err(), "{numbers:?}");
        }
        assert!(count(&format!("{}{}{}", line(1), &line(2)[..50], &line(3)[50..])).is_ok_and(|it| it == [2]));
        assert!(count(&format!("{}{}\n{}", line(1), &line(2)[..50], line(3))).is_err());
    }
}
