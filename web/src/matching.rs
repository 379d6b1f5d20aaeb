//! Which of many names a person means by a few letters. Pure.

use crate::order::sorted;

/// How well `wanted` fits `text`; higher is better, `None`: not at all. Every letter has to be there, in this order.
pub fn score(wanted: &str, text: &str) -> Option<i32> {
    let wanted = wanted.trim().to_lowercase();
    let text = text.to_lowercase();
    if wanted.is_empty() {
        return Some(0);
    }
    if let Some(at) = text.find(&wanted) {
        let begins_word = at == 0 || !text.as_bytes()[at - 1].is_ascii_alphanumeric();
        let length = i32::try_from(text.len()).unwrap_or(i32::MAX / 2);
        return Some(if begins_word { 2_000 } else { 1_000 } - length);
    }
    scattered(&wanted, &text)
}

/// The letters with others in between: the fewer jumps the better.
fn scattered(wanted: &str, text: &str) -> Option<i32> {
    let mut rest = text.char_indices();
    let (mut jumps, mut last) = (0, None);
    for letter in wanted.chars().filter(|it| !it.is_whitespace()) {
        let (at, found) = rest.find(|(_, it)| *it == letter)?;
        if last.is_some_and(|end| end != at) {
            jumps += 1;
        }
        last = Some(at + found.len_utf8());
    }
    Some(500 - 50 * jumps - i32::try_from(text.len()).unwrap_or(i32::MAX / 2))
}

/// Those that fit, best first; equally good ones stay in their order.
pub fn best<T: Clone>(wanted: &str, items: Vec<T>, text: impl Fn(&T) -> &str, most: usize) -> Vec<T> {
    let found: Vec<(i32, T)> =
        items.into_iter().filter_map(|item| Some((score(wanted, text(&item))?, item))).collect();
    let found = sorted(&found, |a, b| b.0.cmp(&a.0));
    found.into_iter().take(most).map(|(_, item)| item).collect()
}

/// Does a row stay under a filter? Every word has to occur.
pub fn passes(filter: &str, text: &str) -> bool {
    let text = text.to_lowercase();
    filter.to_lowercase().split_whitespace().all(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_word_comes_first_then_its_middle_then_scattered_letters() {
        let items = vec!["webshop", "shop", "my-shop", "s-h-o-p", "billing"];
        assert_eq!(best("shop", items, |it| it, 10), ["shop", "my-shop", "webshop", "s-h-o-p"]);
    }

    #[test]
    fn nothing_wanted_is_everything_in_order() {
        assert_eq!(best(" ", vec!["b", "a"], |it| it, 10), ["b", "a"]);
        assert_eq!(best("", vec!["b", "a"], |it| it, 1), ["b"]);
    }

    #[test]
    fn letters_in_another_order_do_not_fit() {
        assert_eq!(score("ba", "ab"), None);
        assert!(score("gte", "go to events").is_some());
    }

    #[test]
    fn a_filter_wants_every_word() {
        assert!(passes("node-1 READY", "node-1 myapp ready"));
        assert!(!passes("node-1 failed", "node-1 myapp ready"));
        assert!(passes("  ", "anything"));
    }
}
