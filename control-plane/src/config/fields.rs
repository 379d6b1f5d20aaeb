//! Reads the keys of one mapping: each by its rule, a variable before the file, and whatever nobody asked for is unknown.
//!
//! A key is known because somebody reads it, so the list of known keys cannot fall behind the code. Faults go into the sink
//! with key path and place; a reader goes on with what is left.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::fault::{Located, Origin, Sink, nearest, shown};
use super::rules::{Allowed, Checked, Scalar};
use super::tree::{Entry, Node, Value};

/// `applications[myapp].deploy`.
#[derive(Clone, Debug, Default)]
pub(super) struct Path(String);

impl Path {
    pub(super) fn key(&self, key: &str) -> Self {
        let key: String = key.chars().take(64).collect();
        Self(if self.0.is_empty() { key } else { format!("{}.{key}", self.0) })
    }

    pub(super) fn item(&self, name: &str) -> Self {
        Self(format!("{}[{name}]", self.0))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// One item of a list.
#[derive(Clone)]
pub(super) struct Item<'a> {
    pub node: &'a Node,
    pub path: Path,
}

pub(super) struct Fields<'a> {
    pub sink: &'a Sink<'a>,
    pub path: Path,
    /// Where the mapping begins: where a missing key is missed.
    pub at: Origin,
    entries: &'a [Entry],
    asked: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    /// `None`: it is no mapping, which is then a fault.
    pub(super) fn open(sink: &'a Sink<'a>, node: &'a Node, path: Path) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            sink.fault(
                node.at.clone(),
                path.as_str(),
                describe(node),
                "allowed: keys and values, one `key: value` a line, with a space behind the colon",
            );
            return None;
        };
        let mut first: HashMap<&str, &Origin> = HashMap::new();
        for entry in entries {
            if let Some(Origin::File { line, .. }) = first.get(entry.key.as_str()) {
                let advice = format!("a key stands once; the first is on line {line}");
                sink.fault(entry.key_at.clone(), path.key(&entry.key).as_str(), "the same key again", advice);
            } else {
                first.insert(&entry.key, &entry.key_at);
            }
        }
        Some(Self { sink, path, at: node.at.clone(), entries, asked: Vec::new() })
    }

    /// Without a file: everything is missing, variables still speak.
    pub(super) fn none(sink: &'a Sink<'a>) -> Self {
        Self { sink, path: Path::default(), at: Origin::WholeFile, entries: &[], asked: Vec::new() }
    }

    /// The value of a key, which is thereby known. A key with nothing behind it counts as absent.
    pub(super) fn node(&mut self, key: &'a str) -> Option<&'a Node> {
        self.asked.push(key);
        self.entries
            .iter()
            .find(|it| it.key == key)
            .map(|it| &it.value)
            .filter(|it| !matches!(it.value, Value::Null))
    }

    /// Whether the key is in the file with a value.
    pub(super) fn has(&mut self, key: &'a str) -> bool {
        self.node(key).is_some()
    }

    /// Whether the key is in the file, with or without a value.
    pub(super) fn names(&mut self, key: &'a str) -> bool {
        self.asked.push(key);
        self.entries.iter().any(|it| it.key == key)
    }

    pub(super) fn read<T>(&mut self, key: &'a str, rule: impl Fn(Scalar<'_>) -> Checked<T>) -> Option<T> {
        self.located(key, rule).map(|it| it.value)
    }

    pub(super) fn located<T>(
        &mut self,
        key: &'a str,
        rule: impl Fn(Scalar<'_>) -> Checked<T>,
    ) -> Option<Located<T>> {
        let node = self.node(key)?;
        let value = check(self.sink, node, self.path.key(key).as_str(), rule)?;
        Some(Located { value, origin: node.at.clone() })
    }

    /// The variable wins over the file; both are checked.
    pub(super) fn read_or_variable<T>(
        &mut self,
        key: &'a str,
        variable: &str,
        rule: impl Fn(Scalar<'_>) -> Checked<T>,
    ) -> Option<T> {
        let written = self.read(key, &rule);
        read_variable(self.sink, variable, &rule).map(|it| it.value).or(written)
    }

    pub(super) fn required<T>(&mut self, key: &'a str, rule: impl Fn(Scalar<'_>) -> Checked<T>) -> Option<T> {
        if !self.has(key) {
            let missing = format!("no {key}");
            self.sink.fault(
                self.at.clone(),
                self.path.key(key).as_str(),
                missing,
                format!("write `{key}: …` here"),
            );
        }
        self.read(key, rule)
    }

    /// Like `read`, for a value that no message may show.
    pub(super) fn secret<T>(&mut self, key: &'a str, rule: impl Fn(Scalar<'_>) -> Checked<T>) -> Option<T> {
        let node = self.node(key)?;
        let path = self.path.key(key);
        let Value::Scalar { text, quoted } = &node.value else {
            self.sink.fault(node.at.clone(), path.as_str(), describe(node), "allowed: a single value");
            return None;
        };
        match rule(Scalar { text, quoted: *quoted }) {
            Ok(value) => Some(value),
            Err(Allowed(what)) => {
                let found = "a value (not shown: it may be a secret)";
                self.sink.fault(node.at.clone(), path.as_str(), found, format!("allowed: {what}"));
                None
            }
        }
    }

    /// The mapping below a key.
    pub(super) fn below(&mut self, key: &'a str) -> Option<Fields<'a>> {
        let node = self.node(key)?;
        Fields::open(self.sink, node, self.path.key(key))
    }

    /// The items of the list below a key, each named by what stands under `named_by` in it, else by its number from 0.
    pub(super) fn items(&mut self, key: &'a str, named_by: &str) -> Vec<Item<'a>> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let path = self.path.key(key);
        let Value::List(items) = &node.value else {
            self.sink.fault(
                node.at.clone(),
                path.as_str(),
                describe(node),
                "allowed: a list, each item behind a `-`",
            );
            return Vec::new();
        };
        let name = |(index, node): (usize, &'a Node)| {
            let name = name_of(node, named_by).map_or_else(|| index.to_string(), str::to_owned);
            Item { node, path: path.item(&name) }
        };
        items.iter().enumerate().map(name).collect()
    }

    /// A list of single values.
    pub(super) fn values<T>(
        &mut self,
        key: &'a str,
        rule: impl Fn(Scalar<'_>) -> Checked<T>,
    ) -> Option<Vec<Located<T>>> {
        self.node(key)?;
        let items = self.items(key, "");
        let read = |it: Item<'a>| {
            check(self.sink, it.node, it.path.as_str(), &rule)
                .map(|value| Located { value, origin: it.node.at.clone() })
        };
        Some(items.into_iter().filter_map(read).collect())
    }

    /// Every key, whatever it is called, with a single value each: labels.
    pub(super) fn pairs<T: Ord, U>(
        &mut self,
        key_rule: impl Fn(Scalar<'_>) -> Checked<T>,
        value_rule: impl Fn(Scalar<'_>) -> Checked<U>,
    ) -> BTreeMap<T, U> {
        let mut pairs = BTreeMap::new();
        for entry in self.entries {
            let path = self.path.key(&entry.key);
            let key = match key_rule(Scalar { text: &entry.key, quoted: true }) {
                Ok(key) => Some(key),
                Err(Allowed(what)) => {
                    let found = format!("the key {}", shown(&entry.key));
                    self.sink.fault(entry.key_at.clone(), path.as_str(), found, format!("allowed: {what}"));
                    None
                }
            };
            if let (Some(key), Some(value)) =
                (key, check(self.sink, &entry.value, path.as_str(), &value_rule))
            {
                pairs.insert(key, value);
            }
        }
        // Every key is known.
        self.entries = &[];
        pairs
    }

    /// A fault at a key of this mapping, or at the mapping where the key is absent.
    pub(super) fn fault(&mut self, key: &'a str, found: impl Into<String>, advice: impl Into<String>) {
        let at = self.node(key).map_or_else(|| self.at.clone(), |it| it.at.clone());
        self.sink.fault(at, self.path.key(key).as_str(), found, advice);
    }

    /// Names the keys that nobody asked for.
    pub(super) fn finish(self) {
        let known: BTreeSet<&str> = self.asked.iter().copied().collect();
        for entry in self.entries.iter().filter(|it| !known.contains(it.key.as_str())) {
            if self.sink.is_full() {
                return;
            }
            let listed: Vec<&str> = known.iter().copied().collect();
            let advice = match nearest(&entry.key, known.iter().copied()) {
                _ if entry.key == "<<" => "merge keys are not read here; repeat the keys".to_owned(),
                Some(near) => format!("did you mean {near}?"),
                None => format!("known here: {}", listed.join(", ")),
            };
            let path = self.path.key(&entry.key);
            self.sink.fault(entry.key_at.clone(), path.as_str(), "an unknown key", advice);
        }
    }
}

pub(super) fn check<T>(
    sink: &Sink<'_>,
    node: &Node,
    path: &str,
    rule: impl Fn(Scalar<'_>) -> Checked<T>,
) -> Option<T> {
    let scalar = match &node.value {
        Value::Scalar { text, quoted } => Scalar { text, quoted: *quoted },
        // Every rule refuses it, or allows an empty text.
        Value::Null => Scalar { text: "", quoted: false },
        Value::List(_) | Value::Map(_) => Scalar { text: "\0", quoted: true },
    };
    match rule(scalar) {
        Ok(value) => Some(value),
        Err(Allowed(what)) => {
            sink.fault(node.at.clone(), path, describe(node), format!("allowed: {what}"));
            None
        }
    }
}

pub(super) fn read_variable<T>(
    sink: &Sink<'_>,
    name: &str,
    rule: impl Fn(Scalar<'_>) -> Checked<T>,
) -> Option<Located<T>> {
    let text = sink.variable(name)?;
    let origin = Origin::Variable(name.to_owned());
    match rule(Scalar { text, quoted: false }) {
        Ok(value) => Some(Located { value, origin }),
        Err(Allowed(what)) => {
            sink.fault(origin, "", shown(text), format!("allowed: {what}"));
            None
        }
    }
}

/// What was found, as a noun.
pub(super) fn describe(node: &Node) -> String {
    match &node.value {
        Value::Scalar { text, .. } => shown(text),
        other => other.kind().to_owned(),
    }
}

fn name_of<'n>(node: &'n Node, named_by: &str) -> Option<&'n str> {
    let Value::Map(entries) = &node.value else { return None };
    match &entries.iter().find(|it| it.key == named_by)?.value.value {
        Value::Scalar { text, .. } if text.len() <= 64 && !text.contains(char::is_control) => Some(text),
        _ => None,
    }
}
