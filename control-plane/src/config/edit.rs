//! One number of a configuration written anew, and everything else of the text left as somebody wrote it: comments, order,
//! blanks. Pure.
//!
//! What came of it is read again and compared: where it is more or less than that one number that changed (an anchor that is
//! used twice, a style that was not foreseen), nothing is edited, and who asks is told to write it himself.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use proto::ids::AppName;
use serde_json::Value as Json;

use super::Text;
use super::fault::{Origin, Sink};
use super::tree::{self, Entry, Node, Value};

/// Why a number is not written into a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotEdit {
    #[error("the configuration in force does not name {0}")]
    NoApplication(AppName),
    #[error(
        "{key} of {app} cannot be written into the configuration without changing more of it: write it where it \
         stands, and apply that"
    )]
    TooEntangled { app: AppName, key: &'static str },
}

/// The text with another number of replicas of an application: of its `spread` where it has one, else `replicas` per node.
pub(crate) fn scaled(text: &Text, app: &AppName, count: NonZeroU16) -> Result<Text, CannotEdit> {
    let none = || CannotEdit::NoApplication(app.clone());
    let root = parsed(text.bytes()).ok_or_else(none)?;
    let (at, application) = named(&root, app).ok_or_else(none)?;
    let key = if given(application, "spread").is_some() { "spread" } else { "replicas" };
    let mut wanted = root.to_json();
    if let Some(settings) = wanted.pointer_mut(&format!("/applications/{at}")).and_then(Json::as_object_mut) {
        settings.insert(key.to_owned(), count.get().into());
    }
    let number = count.to_string();
    let source = text.written();
    let drafts = match entry(application, key) {
        Some(entry) if matches!(entry.value.value, Value::Null) => filled(&source, entry, &number),
        Some(entry) => vec![replaced(&source, &entry.value, &number)],
        None => added(&source, application, &format!("{key}: {number}")),
    };
    let edited = drafts.into_iter().flatten().find(|draft| {
        let means = parsed(draft.as_bytes()).map(|it| it.to_json());
        means.as_ref() == Some(&wanted)
    });
    let too_entangled = || CannotEdit::TooEntangled { app: app.clone(), key };
    edited.map(|it| Text::from(it.into_bytes())).ok_or_else(too_entangled)
}

fn parsed(bytes: &[u8]) -> Option<Node> {
    tree::parse(bytes, &Sink::new(&BTreeMap::new()))
}

fn entry<'a>(node: &'a Node, key: &str) -> Option<&'a Entry> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|it| it.key == key),
        _ => None,
    }
}

/// One that says something.
fn given<'a>(node: &'a Node, key: &str) -> Option<&'a Entry> {
    entry(node, key).filter(|it| !matches!(it.value.value, Value::Null))
}

/// Which of the applications it is, and what is written of it.
fn named<'a>(root: &'a Node, app: &AppName) -> Option<(usize, &'a Node)> {
    let Value::List(applications) = &entry(root, "applications")?.value.value else { return None };
    let is_it = |node: &Node| match entry(node, "name").map(|it| &it.value.value) {
        Some(Value::Scalar { text, .. }) => text == app.as_str(),
        _ => false,
    };
    applications.iter().enumerate().find(|(_, node)| is_it(node))
}

/// Where a position of the parser's is in the text, in bytes.
fn offset(source: &str, at: &Origin) -> Option<usize> {
    let Origin::File { line, column } = at else { return None };
    let before: usize = source.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let rest = source.get(before..)?;
    rest.char_indices().nth(column.checked_sub(1)?).map(|(index, _)| before + index)
}

/// A plain or quoted number has no line of its own that it could end on: up to what cannot be part of it.
fn replaced(source: &str, value: &Node, number: &str) -> Option<String> {
    let begin = offset(source, &value.at)?;
    let rest = source.get(begin..)?;
    let length = rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | '}' | ']')).unwrap_or(rest.len());
    Some(format!("{}{number}{}", source.get(..begin)?, rest.get(length..)?))
}

/// Nothing behind the colon, or a word for nothing. The key stands there: a second one would be a fault.
fn filled(source: &str, entry: &Entry, number: &str) -> Vec<Option<String>> {
    let behind = || {
        let begin = offset(source, &entry.key_at)?;
        let colon = begin + source.get(begin..)?.find(':')? + 1;
        Some(format!("{} {number}{}", source.get(..colon)?, source.get(colon..)?))
    };
    vec![replaced(source, &entry.value, number), behind()]
}

/// As a line of its own behind the name's, as block style has it; or behind the name, as flow style has it.
fn added(source: &str, application: &Node, what: &str) -> Vec<Option<String>> {
    let Some(name) = entry(application, "name") else { return Vec::new() };
    let block = || {
        let Origin::File { column, .. } = &name.key_at else { return None };
        let begin = offset(source, &name.value.at)?;
        let end = source.get(begin..)?.find('\n').map_or(source.len(), |it| begin + it);
        let (indent, line_end) = (" ".repeat(column - 1), if source.contains("\r\n") { "\r" } else { "" });
        let head = source.get(..end)?;
        // Of a line that ends with `\r\n` the first half stands in front already.
        Some(format!("{head}\n{indent}{what}{line_end}{}", source.get(end..)?))
    };
    let flow = || {
        let begin = offset(source, &name.value.at)?;
        let rest = source.get(begin..)?;
        let length = rest.find([',', '}'])?;
        Some(format!("{}, {what}{}", source.get(..begin + length)?, rest.get(length..)?))
    };
    vec![block(), flow()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop(text: &str, count: u16) -> Result<String, CannotEdit> {
        let count = NonZeroU16::new(count).unwrap();
        scaled(&Text::from(text), &"shop".parse().unwrap(), count).map(|it| it.written())
    }

    #[test]
    fn one_number_changes_and_nothing_else_of_the_text() {
        let text = "# ours\nport: 5001   # öffentlich\napplications:\n  - name: other\n    replicas: 3\n  \
                    - replicas: 3 # per host\n    name: \"shop\"\n";
        let edited = shop(text, 12).unwrap();
        assert_eq!(edited, text.replace("replicas: 3 # per", "replicas: 12 # per"));
        let spread = "applications:\n- {name: shop, spread: 4}\n- name: other\n";
        assert_eq!(shop(spread, 6).unwrap(), spread.replace('4', "6"));
        let last = "applications: [{ replicas: '2', name: shop }]";
        assert_eq!(shop(last, 5).unwrap(), "applications: [{ replicas: 5, name: shop }]");
        assert_eq!(
            shop("applications:\n- name: shop\n  replicas: 2", 3).unwrap().lines().last(),
            Some("  replicas: 3")
        );
    }

    #[test]
    fn a_number_that_nobody_wrote_is_written_behind_the_name() {
        let text = "applications:\n  - name: shop # the first\n    env: []\n    spread: null\n";
        let edited = shop(text, 2).unwrap();
        assert_eq!(edited, text.replace("# the first\n", "# the first\n    replicas: 2\n"));
        let windows = "applications:\r\n  - name: shop\r\n    env: []\r\n";
        assert_eq!(shop(windows, 2).unwrap(), windows.replace("shop\r\n", "shop\r\n    replicas: 2\r\n"));
        assert_eq!(
            shop("applications:\n- name: shop", 2).unwrap(),
            "applications:\n- name: shop\n  replicas: 2"
        );
        let flow = "applications: [{ name: shop }, { name: other }]\n";
        assert_eq!(shop(flow, 2).unwrap(), "applications: [{ name: shop , replicas: 2}, { name: other }]\n");
    }

    #[test]
    fn a_key_that_says_nothing_is_filled_and_not_written_a_second_time() {
        for nothing in ["", " ~", " null", "   # as ever"] {
            let text = format!("applications:\n  - replicas:{nothing}\n    name: shop\n    env: []\n");
            let edited = shop(&text, 2).unwrap();
            assert!(edited.contains("- replicas: 2"), "{edited}");
            assert_eq!(
                (edited.matches("replicas").count(), edited.contains("as ever")),
                (1, text.contains("as ever"))
            );
        }
        assert_eq!(
            shop("applications: [{ name: shop, replicas: null }]", 2).unwrap(),
            "applications: [{ name: shop, replicas: 2 }]"
        );
    }

    #[test]
    fn where_more_would_change_nothing_does() {
        let twice = "applications:\n  - name: shop\n    replicas: &n 3\n  - name: other\n    replicas: *n\n";
        assert!(
            matches!(shop(twice, 4), Err(CannotEdit::TooEntangled { key: "replicas", .. })),
            "{:?}",
            shop(twice, 4)
        );
        let merged = "applications:\n  - name: other\n    replicas: &n 3\n  - name: shop\n    replicas: *n\n";
        assert!(matches!(shop(merged, 4), Err(CannotEdit::TooEntangled { .. })), "{:?}", shop(merged, 4));
        for none in ["", "port: 5001\n", "applications:\n  - name: other\n", "applications: shop\n"] {
            assert_eq!(shop(none, 2), Err(CannotEdit::NoApplication("shop".parse().unwrap())), "{none:?}");
        }
    }
}
