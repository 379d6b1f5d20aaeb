//! The control plane's own settings as they were at the last start, and what of them is another one now.
//!
//! Pure. Holds no secret, and of what may hold one a digest that tells only that it changed.

use std::collections::BTreeMap;

use proto::ids::Digest;
use proto::state::Severity;
use sha2::{Digest as _, Sha256};

use crate::clock::Time;
use crate::config::Config;
use crate::config::changes::Class;
use crate::db::NewEvent;
use crate::spec::monitoring::{HostMonitoring, Threshold};

/// Before what is compared and not said.
const HIDDEN: &str = "sha256:";

/// The keys of the control plane with what is worth remembering of them. No secret, and no address that holds one.
pub(super) fn sheet(config: &Config) -> BTreeMap<String, String> {
    let Config {
        // Where it starts, not what it does; or applied elsewhere.
        file: _,
        data_dir: _,
        demo: _,
        applications: _,
        names_applications: _,
        notices: _,
        database_url,
        console,
        agents,
        releases,
        secrets,
        hosts,
        monitoring,
        later,
    } = config;
    let mut keys = BTreeMap::new();
    let mut put = |key: &str, value: String| keys.insert(key.to_owned(), value);
    put("database_url", database_url.to_string());
    if let Some(hostname) = &console.hostname {
        put("hostname", hostname.clone());
    }
    put("bind", console.bind.to_string());
    put("port", console.port.to_string());
    let proxies: Vec<String> = console.trusted_proxies.iter().map(ToString::to_string).collect();
    put("trusted_proxies", proxies.join(", "));
    if let Some(tls) = &console.tls {
        put("tls.certificate", tls.certificate.display().to_string());
        put("tls.key", tls.key.display().to_string());
    }
    put("agents.bind", agents.bind.to_string());
    put("agents.port", agents.port.to_string());
    if let Some(public) = &agents.public {
        put("agents.public", public.to_string());
    }
    put("release_adapter", releases.adapter.word().to_owned());
    put("release_bucket", releases.bucket.clone());
    put("account_name", releases.account_name.clone());
    if let Some(region) = &releases.aws_region {
        put("aws_region", region.clone());
    }
    if let Some(file) = &releases.google_credentials {
        put("google_credentials", file.display().to_string());
    }
    put("secrets_adapter", secrets.adapter.word().to_owned());
    if let Some(path) = &secrets.path {
        put("secrets_path", path.clone());
    }
    let paths = [
        ("var_path", &hosts.var_path),
        ("log_path", &hosts.log_path),
        ("monitored_app_log_path", &hosts.monitored_app_log_path),
    ];
    for (key, path) in paths {
        if let Some(path) = path {
            put(key, path.display().to_string());
        }
    }
    let HostMonitoring { memory, disk } = monitoring;
    for (figure, threshold) in [("memory", memory), ("disk", disk)] {
        if let Some(Threshold { warning, restart, cooldown }) = threshold {
            put(&format!("monitoring[{figure}].warning_threshold_percent"), warning.to_string());
            if let Some(restart) = restart {
                put(&format!("monitoring[{figure}].restart_threshold_percent"), restart.to_string());
                put(&format!("monitoring[{figure}].cooldown_ms"), cooldown.0.to_string());
            }
        }
    }
    // There are tokens in these: a digest tells that they changed, and nothing else.
    for (key, value) in &later.0 {
        let digest = Digest(Sha256::digest(value.to_string()).into());
        put(key, format!("{HIDDEN}{}", digest.short()));
    }
    keys
}

/// `None`: nothing differs, or what was remembered cannot be read any more.
pub(super) fn event(before: &str, after: &BTreeMap<String, String>, now: Time) -> Option<NewEvent> {
    let before: BTreeMap<String, String> = serde_json::from_str(before).ok()?;
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let words: Vec<(String, String)> = keys
        .into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| {
            let words = match (before.get(key), after.get(key)) {
                (Some(old), Some(_)) if old.starts_with(HIDDEN) => format!("{key} changed"),
                (None, Some(new)) if new.starts_with(HIDDEN) => format!("{key} added"),
                (Some(old), None) if old.starts_with(HIDDEN) => format!("{key} removed"),
                (Some(old), Some(new)) => format!("{key} {old} → {new}"),
                (None, Some(new)) => format!("{key} {new} (was not set)"),
                (Some(old), None) => format!("{key} removed (was {old})"),
                (None, None) => key.clone(),
            };
            (key.clone(), words)
        })
        .collect();
    if words.is_empty() {
        return None;
    }
    let text: Vec<&str> = words.iter().map(|(_, words)| words.as_str()).collect();
    let text = format!("the control plane's configuration changed: {}", text.join("; "));
    let mut event = NewEvent::new(now, "config_change_applied", Severity::Info, text);
    event.data.insert("changes_count".to_owned(), words.len().into());
    // Read at the start, so in force now.
    let fields = words.into_iter().map(|(key, _)| (key, Class::Immediate.word().into()));
    event.data.insert("fields".to_owned(), serde_json::Value::Object(fields.collect()));
    Some(event)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Flags;

    fn config(yaml: &str) -> Config {
        let file = Some((Path::new("deployex.yaml"), yaml.as_bytes()));
        Config::read(file, &Flags::default(), &BTreeMap::new()).unwrap()
    }

    #[test]
    fn a_changed_channel_is_named_and_not_shown() {
        let with =
            |url: &str| config(&format!("notifications: [{{ adapter: webhook, url: 'https://{url}' }}]\n"));
        let before = serde_json::to_string(&sheet(&with("a/s3cret"))).unwrap();
        assert!(!before.contains("s3cret"));
        let told = event(&before, &sheet(&with("b/s3cret")), Time(1)).unwrap();
        assert_eq!(told.text, "the control plane's configuration changed: notifications changed");
        assert_eq!(event(&before, &sheet(&with("a/s3cret")), Time(1)), None);
    }
}
