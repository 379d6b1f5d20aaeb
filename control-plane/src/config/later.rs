//! Which settings are accepted and not yet used, in words for the log of a start.
//!
//! A setting that asks for what happens anyway is not listed: nobody has to act on it.

use serde_json::Value;

use super::{Config, ReleaseAdapter, SecretsAdapter};

/// Key, the values under which nothing is missing, and what is missing otherwise.
type Known = (&'static str, &'static [&'static str], &'static str);

const OF_THE_FILE: [Known; 6] = [
    ("release_endpoint", &[], "no store is reached yet"),
    ("release_signature_key", &[], "signatures of releases are not checked"),
    ("monitoring", &["[]"], NO_VM),
    ("notifications", &["[]"], "nothing is sent"),
    ("metrics_retention_time_ms", &["3600000"], "the metrics of hosts are kept for one hour"),
    ("logs_retention_time_ms", &[], "logs are read from the hosts' files, which it does not bound"),
];

/// Of DeployEx 0.x, which was a virtual machine itself.
const NO_VM: &str = "this program is no Erlang VM and has no atoms, processes or ports of its own; memory and disk of hosts are \
                     watched, and VMs where their application's `monitoring` says so";

const OF_AN_APPLICATION: [Known; 3] = [
    ("shell_user", &[], "there are no shells"),
    ("logs", &[], "log files are not rotated or removed"),
    ("certificates", &["[]"], "no certificates are ordered"),
];

impl Config {
    /// One sentence for each setting that is accepted and has no effect yet.
    pub fn not_yet_in_force(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        match self.releases.adapter {
            ReleaseAdapter::Local => {}
            adapter => sentences.push(sentence(
                "",
                "release_adapter",
                &format!(
                    "releases cannot be fetched from {} yet, only from a folder (local)",
                    adapter.word()
                ),
            )),
        }
        match self.secrets.adapter {
            SecretsAdapter::Env | SecretsAdapter::File => {}
            adapter => sentences.push(sentence(
                "",
                "secrets_adapter",
                &format!(
                    "secrets cannot be fetched from {} yet, only from variables (env) or a file",
                    adapter.word()
                ),
            )),
        }
        if self.hosts.log_path.is_some() {
            sentences.push(sentence("", "log_path", "both programs log to standard error"));
        }
        sentences.extend(listed("", &self.later.0, &OF_THE_FILE));
        for app in &self.applications {
            let prefix = format!("applications[{}].", app.name);
            sentences.extend(listed(&prefix, &app.later.0, &OF_AN_APPLICATION));
        }
        sentences
    }
}

fn listed<'a>(
    prefix: &'a str,
    later: &'a std::collections::BTreeMap<String, Value>,
    known: &[Known],
) -> Vec<String> {
    known
        .iter()
        .filter_map(|(key, harmless, missing)| {
            let value = later.get(*key)?.to_string();
            (!harmless.contains(&value.as_str())).then(|| sentence(prefix, key, missing))
        })
        .collect()
}

fn sentence(prefix: &str, key: &str, missing: &str) -> String {
    format!("{prefix}{key} is not yet in force: {missing}")
}
