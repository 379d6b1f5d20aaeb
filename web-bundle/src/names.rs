//! Names with a hash of what they name, and the places in texts where such names are filled in. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail};
use sha2::{Digest, Sha256};

/// `style.css` becomes `style-0123456789ab.css`.
pub(crate) fn hashed(name: &str, contents: &[u8]) -> String {
    let digest = Sha256::digest(contents);
    let mut short = String::new();
    for byte in digest.iter().take(6) {
        let _ = write!(short, "{byte:02x}");
    }
    match name.rsplit_once('.') {
        Some((stem, extension)) => format!("{stem}-{short}.{extension}"),
        None => format!("{name}-{short}"),
    }
}

/// Replaces each `{{name}}` by the address of that file. A name without a file is an error, never an empty link.
pub(crate) fn fill(text: &str, urls: &BTreeMap<String, String>) -> Result<String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, behind)) = after.split_once("}}") else {
            bail!("\"{{{{\" is not closed by \"}}}}\"");
        };
        let name = name.trim();
        let Some(url) = urls.get(name) else {
            let known: Vec<&str> = urls.keys().map(String::as_str).collect();
            bail!("there is no file {name:?} for {{{{{name}}}}}; there are: {}", known.join(", "));
        };
        filled.push_str(before);
        filled.push_str(url);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_changes_with_its_contents_only() {
        assert_eq!(hashed("style.css", b"abc"), "style-ba7816bf8f01.css");
        assert_ne!(hashed("style.css", b"abd"), hashed("style.css", b"abc"));
    }

    #[test]
    fn places_are_filled_with_addresses() {
        let urls = BTreeMap::from([("a.css".to_owned(), "/assets/a-1.css".to_owned())]);
        assert_eq!(fill("<link href=\"{{ a.css }}\">", &urls).unwrap(), "<link href=\"/assets/a-1.css\">");
    }

    #[test]
    fn a_place_without_a_file_is_named_with_what_there_is() {
        let urls = BTreeMap::from([("a.css".to_owned(), String::new())]);
        let error = fill("{{b.css}}", &urls).unwrap_err().to_string();
        assert!(error.contains("\"b.css\"") && error.contains("a.css"), "{error}");
        assert!(fill("{{b.css", &urls).is_err());
    }
}
