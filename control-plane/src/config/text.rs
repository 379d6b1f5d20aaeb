//! A configuration as it was written, with the flags and variables that it is read with; and how it is shown to who may not
//! see its secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use proto::ids::Digest;
use sha2::{Digest as _, Sha256};

use super::fault::Sink;
use super::tree::{self, Node, Value};
use super::{Config, Faults, Flags};

/// The bytes of a configuration. There may be secrets in them: nothing of it is shown by accident.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text(Arc<[u8]>);

impl Text {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn sha256(&self) -> Digest {
        Digest(Sha256::digest(&self.0).into())
    }

    /// What cannot be text was never in force: it does not read.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// Its settings alone, with a word where a secret is or may be. Comments are left out: nobody knows what is in them.
    pub fn masked(&self) -> String {
        let variables = BTreeMap::new();
        let mut shown = String::new();
        if let Some(root) = tree::parse(&self.0, &Sink::new(&variables)) {
            show(&root, "", 0, &mut shown);
        }
        shown
    }
}

impl<T: AsRef<[u8]>> From<T> for Text {
    fn from(bytes: T) -> Self {
        Self(Arc::from(bytes.as_ref()))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.0.len())
    }
}

/// What a text is read with: the flags and variables that the program was started with.
#[derive(Clone)]
pub struct Reading {
    flags: Flags,
    variables: BTreeMap<String, String>,
}

impl Reading {
    pub fn new(flags: Flags, variables: BTreeMap<String, String>) -> Self {
        Self { flags, variables }
    }

    pub fn flags(&self) -> &Flags {
        &self.flags
    }

    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// `name`: what the text is called in messages.
    pub fn read(&self, name: &str, text: &Text) -> Result<Config, Faults> {
        Config::read(Some((Path::new(name), text.bytes())), &self.flags, &self.variables)
    }
}

impl fmt::Debug for Reading {
    /// Variables may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("flags", &self.flags).finish_non_exhaustive()
    }
}

/// In the place of what is not shown.
const HIDDEN: &str = "(hidden)";

/// Keys whose values may be secrets: those of variables, addresses that carry a password, tokens of services.
const SECRET: [&str; 7] =
    ["value", "database_url", "url", "api_token", "routing_key", "otlp_endpoint", "release_endpoint"];

fn is_secret(key: &str) -> bool {
    SECRET.contains(&key)
        || (key != "from_secret"
            && ["token", "secret", "password"].iter().any(|it| key.contains(it))
            && !key.starts_with("secrets_"))
}

/// As YAML again, in the order of the file. `key`: under which the node stands.
fn show(node: &Node, key: &str, depth: usize, shown: &mut String) {
    let indent = "  ".repeat(depth);
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            for entry in entries {
                shown.push_str(&indent);
                shown.push_str(&entry.key);
                shown.push(':');
                below(&entry.value, &entry.key, depth, shown);
            }
        }
        Value::List(items) if !items.is_empty() => {
            for item in items {
                shown.push_str(&indent);
                shown.push('-');
                match &item.value {
                    Value::Map(entries) if !entries.is_empty() => {
                        // The first key stands behind the dash.
                        let mut inner = String::new();
                        show(item, key, depth + 1, &mut inner);
                        shown.push(' ');
                        shown.push_str(inner.trim_start());
                    }
                    _ => below(item, key, depth, shown),
                }
            }
        }
        _ => {
            shown.push_str(&indent);
            shown.push_str(&one(node, key));
            shown.push('\n');
        }
    }
}

fn below(node: &Node, key: &str, depth: usize, shown: &mut String) {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            shown.push('\n');
            show(node, key, depth + 1, shown);
        }
        Value::List(items) if !items.is_empty() => {
            shown.push('\n');
            show(node, key, depth + 1, shown);
        }
        Value::Null => shown.push('\n'),
        _ => {
            shown.push(' ');
            shown.push_str(&one(node, key));
            shown.push('\n');
        }
    }
}

fn one(node: &Node, key: &str) -> String {
    match &node.value {
        Value::Null => String::new(),
        Value::Scalar { .. } if is_secret(key) => HIDDEN.to_owned(),
        // A JSON string is one of YAML.
        Value::Scalar { text, quoted: true } => serde_json::Value::from(text.as_str()).to_string(),
        Value::Scalar { text, quoted: false } => text.clone(),
        Value::List(_) => "[]".to_owned(),
        Value::Map(_) => "{}".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "\
# the password is s3cret
database_url: postgres://me:s3cret@db/x
secrets_path: 'prod secrets'
notifications: [{ adapter: slack, url: 'https://hooks/s3cret', options: { routing_key: s3cret } }]
trusted_proxies: []
applications:
  - name: shop   # s3cret
    replicas: 2
    replica_ports: [{ key: PORT, base: 4000 }]
    env:
      - { key: &s TOKEN, value: &t \"s3cret\" }
      - key: FOUND
        from_secret: prod/TOKEN
      - { key: EMPTY, value: }
";

    #[test]
    fn settings_are_shown_without_secrets_and_comments() {
        insta::assert_snapshot!(Text::from(WRITTEN).masked(), @r#"
        database_url: (hidden)
        secrets_path: "prod secrets"
        notifications:
          - adapter: slack
            url: (hidden)
            options:
              routing_key: (hidden)
        trusted_proxies: []
        applications:
          - name: shop
            replicas: 2
            replica_ports:
              - key: PORT
                base: 4000
            env:
              - key: TOKEN
                value: (hidden)
              - key: FOUND
                from_secret: prod/TOKEN
              - key: EMPTY
                value:
        "#);
    }

    #[test]
    fn what_is_shown_means_the_same_but_for_what_is_hidden() {
        let plain = WRITTEN.replace("s3cret", "(hidden)");
        let read = |text: &Text| {
            let reading = Reading::new(Flags::default(), BTreeMap::new());
            reading.read("deployex.yaml", text)
        };
        let shown = Text::from(Text::from(&plain).masked());
        assert!(!shown.written().contains("s3cret"));
        // A hidden address is none: the rest reads as it was.
        let applications = |text: &str| {
            let from = text.find("applications:").unwrap();
            read(&Text::from(&text[from..])).unwrap().applications
        };
        assert_eq!(applications(&shown.written()), applications(&plain));
    }

    #[test]
    fn a_text_shows_nothing_of_itself_by_accident() {
        assert_eq!(format!("{:?}", Text::from("s3cret")), "Text(6 bytes)");
    }
}
