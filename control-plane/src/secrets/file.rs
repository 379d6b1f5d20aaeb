//! Secrets in a file: a JSON object, in it DeployEx's own as texts and those of applications as objects of texts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use secrecy::SecretString;
use serde::Deserialize;

use super::{SecretError, malformed};

/// Secrets are short; what is larger is another file.
const MAX_BYTES: u64 = 1024 * 1024;

pub(super) struct Entries {
    own: BTreeMap<String, String>,
    named: BTreeMap<String, BTreeMap<String, SecretString>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Named(BTreeMap<String, String>),
}

impl Entries {
    pub(super) fn get(&self, name: &str, key: &str) -> Option<&SecretString> {
        self.named.get(name)?.get(key)
    }

    pub(super) fn take_own(&mut self, key: &str) -> Option<String> {
        self.own.remove(key).filter(|it| !it.is_empty())
    }
}

pub(super) fn read(path: &Path) -> Result<Entries, SecretError> {
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    // Of the opened file, so that nothing can be put in its place in between.
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Open { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    let values: BTreeMap<String, Value> =
        serde_json::from_str(&text).map_err(|error| malformed(path, error.line()))?;
    let mut entries = Entries { own: BTreeMap::new(), named: BTreeMap::new() };
    for (name, value) in values {
        match value {
            Value::Text(text) => {
                entries.own.insert(name, text);
            }
            Value::Named(keys) => {
                let secret = keys.into_iter().map(|(key, text)| (key, SecretString::from(text))).collect();
                entries.named.insert(name, secret);
            }
        }
    }
    Ok(entries)
}
