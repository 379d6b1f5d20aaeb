//! Labels, by which nodes are chosen and ordered: what they may look like, wherever they are typed.

/// Of one node: more is a mistake.
pub const MOST: usize = 64;

/// What a key or a value is, for who typed something else.
pub const ALLOWED: &str = "1 to 63 of a-z A-Z 0-9 . _ - / that begin with a letter or digit";

/// Whether it can be a key or a value.
pub fn fits(text: &str) -> bool {
    text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}
