//! The order in which people expect names: numbers in them count as numbers, so that `node-2` comes before `node-10`.

use std::cmp::Ordering;

/// Total: names that read the same (`node-2`, `node-02`) are ordered as text.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    by_parts(a.as_bytes(), b.as_bytes()).then_with(|| a.cmp(b))
}

fn by_parts(mut a: &[u8], mut b: &[u8]) -> Ordering {
    loop {
        let (left, right) = match (a.first(), b.first()) {
            (Some(left), Some(right)) => (*left, *right),
            (left, right) => return left.cmp(&right),
        };
        let order = if left.is_ascii_digit() && right.is_ascii_digit() {
            let (x, y) = (number(&mut a), number(&mut b));
            // Without leading zeros, the longer one is the larger one.
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            (a, b) = (&a[1..], &b[1..]);
            left.cmp(&right)
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Takes the digits at the beginning; returns them without leading zeros.
fn number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let ordered = [
            "1",
            "9",
            "10",
            "Web",
            "a",
            "node",
            "node-01",
            "node-1",
            "node-1a",
            "node-2",
            "node-2-b9",
            "node-2-b10",
            "node-10",
            "node-99999999999999999999",
            "node-100000000000000000000",
            "node.1",
            "nodes",
        ];
        let mut sorted = ordered;
        sorted.reverse();
        sorted.sort_by(|a, b| compare(a, b));
        assert_eq!(sorted, ordered);
    }

    #[test]
    fn it_is_a_total_order_in_which_only_the_same_is_equal() {
        let names =
            ["a1", "a01", "a1b", "a01b", "a1b2", "a01b1", "a001", "b", "0", "00", "1a", "a", "a-1", "a.1"];
        for x in names {
            for y in names {
                assert_eq!(compare(x, y).is_eq(), x == y);
                assert_eq!(compare(x, y), compare(y, x).reverse());
                for z in names {
                    if compare(x, y).is_le() && compare(y, z).is_le() {
                        assert!(compare(x, z).is_le(), "{x} {y} {z}");
                    }
                }
            }
        }
    }
}
