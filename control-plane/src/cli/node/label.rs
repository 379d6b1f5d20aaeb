//! `deployex node label`: gives a node labels and takes them away, beside those that it has.

use std::collections::BTreeMap;

use clap::Args;
use proto::ids::NodeName;
use proto::nodes::{Node, NodeChange};

use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::{Out, wrap};

/// Give a node labels, by which applications choose where they run, or take some away.
///
/// What an application no longer asks for there is withdrawn, and what it asks for now is started.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex node label web-1 role=web zone=a rack-")]
pub(in crate::cli) struct Label {
    /// The node's name.
    node: NodeName,
    /// KEY=VALUE gives it a label, KEY- takes one away.
    #[arg(required = true, value_name = "K=V|K-", value_parser = change)]
    changes: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Set(String, String),
    Unset(String),
}

impl Label {
    pub(in crate::cli) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let Self { node, changes } = self;
        let path = format!("/nodes/{node}");
        let now: Node = client.get(&path).await?;
        let labels = changed(now.summary.labels, changes)?;
        let node: Node = client.patch(&path, &NodeChange { labels }).await?;
        out.show(&node, |node| {
            let Node { summary, .. } = node;
            wrap(&match summary.labels.is_empty() {
                true => format!("{} has no labels.", summary.name),
                false => format!("{} has the labels {}.", summary.name, said(&summary.labels)),
            })
        })
    }
}

fn changed(
    mut labels: BTreeMap<String, String>,
    changes: Vec<Change>,
) -> Result<BTreeMap<String, String>, CliError> {
    for change in changes {
        match change {
            Change::Set(key, value) => drop(labels.insert(key, value)),
            Change::Unset(key) if labels.remove(&key).is_some() => {}
            Change::Unset(key) => return Err(CliError::Refused(format!("it has no label {key}"))),
        }
    }
    Ok(labels)
}

fn change(text: &str) -> Result<Change, String> {
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) if !key.is_empty() => Ok(Change::Set(key.to_owned(), value.to_owned())),
        (None, Some(key)) if !key.is_empty() => Ok(Change::Unset(key.to_owned())),
        _ => Err("say KEY=VALUE for a label, or KEY- to take one away".to_owned()),
    }
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

/// `role=web zone=a`
pub(super) fn said(labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if labels.is_empty() { "-".to_owned() } else { labels.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_given_and_taken_away_beside_those_that_stay() {
        let had = BTreeMap::from([("rack", "7"), ("zone", "a")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        let changes = ["role=web", "zone=b", "rack-"].map(|text| change(text).unwrap());
        assert_eq!(said(&changed(had.clone(), changes.into()).unwrap()), "role=web zone=b");
        let unknown = changed(had, vec![Change::Unset("disk".to_owned())]).unwrap_err();
        assert_eq!(unknown.to_string(), "it has no label disk");
    }

    #[test]
    fn a_value_may_end_as_what_is_taken_away_does() {
        assert_eq!(change("zone=a-"), Ok(Change::Set("zone".to_owned(), "a-".to_owned())));
        for wrong in ["zone", "=a", "-", ""] {
            assert!(change(wrong).is_err(), "{wrong}");
        }
    }
}
