//! Labels of nodes as text that is shown and typed: `role=web zone=a`. Pure.

use std::collections::BTreeMap;

pub fn said(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

/// What was typed, with spaces or commas between. What they may look like, the control plane knows.
///
/// # Errors
///
/// What is no `key=value`, as a sentence.
pub fn read(text: &str) -> Result<BTreeMap<String, String>, String> {
    let parts = text.split([' ', ',', '\n', '\t']).filter(|part| !part.is_empty());
    let read = |part: &str| match part.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{part:?} is no label: write key=value.")),
    };
    parts.map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_as_it_was() {
        let labels = read("zone=a,  role=web").unwrap();
        assert_eq!(said(&labels), "role=web zone=a");
        assert_eq!(read(&said(&labels)), Ok(labels));
        assert_eq!(read("role"), Err("\"role\" is no label: write key=value.".to_owned()));
        assert_eq!(read(" "), Ok(BTreeMap::new()));
    }
}
