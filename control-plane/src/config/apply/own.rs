//! The control plane's own settings and those of its hosts as they were put in force last, what of them is another one now, and
//! when each counts.
//!
//! Pure. Holds no secret, and of what may hold one a digest that tells only that it changed.

use std::collections::BTreeMap;

use proto::ids::Digest;
use proto::state::Severity;
use sha2::{Digest as _, Sha256};

use crate::clock::Time;
use crate::config::Config;
use crate::config::changes::{Change, Class, Side};
use crate::db::NewEvent;
use crate::spec::monitoring::{HostMonitoring, Threshold};

/// Before what is compared and not said.
const HIDDEN: &str = "sha256:";

/// Key by key.
pub type Sheet = BTreeMap<String, String>;

/// These are followed while everything runs, and so is all that nothing reads yet. All others are read at a start: sockets,
/// certificates, the database, the bucket, secrets, and what agents are told of their hosts when a session begins.
const FOLLOWED: [&str; 4] =
    ["monitoring", "notifications", "metrics_retention_time_ms", "logs_retention_time_ms"];

fn class(key: &str) -> Class {
    let section = key.split('[').next().unwrap_or(key);
    if FOLLOWED.contains(&section) { Class::Immediate } else { Class::Restart }
}

/// The keys of the control plane with what is worth remembering of them. No secret, and no address that holds one.
pub fn sheet(config: &Config) -> Sheet {
    let Config {
        // Where it starts, not what it does; or applied elsewhere.
        file: _,
        text: _,
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
        otlp,
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
        ("otp_tls_certificates", &hosts.otp_tls_certificates),
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
    let mut hide = |key: &str, value: String| {
        let digest = Digest(Sha256::digest(value).into());
        put(key, format!("{HIDDEN}{}", digest.short()));
    };
    if let Some(otlp) = otlp {
        hide("otlp_endpoint", format!("{:?}", otlp.written()));
    }
    for (key, value) in &later.0 {
        hide(key, value.to_string());
    }
    keys
}

/// Every key that differs, by name. `before`, as it was remembered: empty where nothing was, or it cannot be read any more.
pub(super) fn between(before: Option<&str>, after: &Sheet) -> Vec<Change> {
    let before = before.and_then(|it| serde_json::from_str::<Sheet>(it).ok());
    before.map(|before| changes(&before, after)).unwrap_or_default()
}

/// The other way round: what is remembered now, against what was in force at a start.
pub(super) fn since(started: &Sheet, after: Option<&str>) -> Vec<Change> {
    let after = after.and_then(|it| serde_json::from_str::<Sheet>(it).ok());
    after.map(|after| changes(started, &after)).unwrap_or_default()
}

fn changes(before: &Sheet, after: &Sheet) -> Vec<Change> {
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let side = |value: Option<&String>| match value {
        None => Side::Absent,
        Some(digest) if digest.starts_with(HIDDEN) => Side::Hidden,
        Some(text) => Side::Value(text.clone()),
    };
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| Change {
            key: key.clone(),
            class: class(key),
            before: side(before.get(key)),
            after: side(after.get(key)),
        })
        .collect()
}

/// `None`: nothing differs. At a start everything counts that is read.
pub(super) fn event(changes: &[Change], at_start: bool, now: Time) -> Option<NewEvent> {
    if changes.is_empty() {
        return None;
    }
    let words: Vec<String> = changes
        .iter()
        .map(|it| match it.class {
            Class::Restart if !at_start => format!("{it} ({})", it.class.when()),
            _ => it.to_string(),
        })
        .collect();
    let text = format!("the control plane's configuration changed: {}", words.join("; "));
    let mut event = NewEvent::new(now, "config_change_applied", Severity::Info, text);
    event.data.insert("changes_count".to_owned(), changes.len().into());
    let class = |it: &Change| if at_start { Class::Immediate } else { it.class };
    let fields = changes.iter().map(|it| (it.key.clone(), class(it).word().into()));
    event.data.insert("fields".to_owned(), serde_json::Value::Object(fields.collect()));
    Some(event)
}

/// Of every key, when a change of it counts.
#[cfg(test)]
pub(crate) const PROMISED: &str = "
account_name restart
agents.bind restart
agents.port restart
agents.public restart
aws_region restart
bind restart
database_url restart
google_credentials restart
hostname restart
log_path restart
logs_retention_time_ms immediate
metrics_retention_time_ms immediate
monitored_app_log_path restart
monitoring immediate
monitoring[disk].warning_threshold_percent immediate
monitoring[memory].cooldown_ms immediate
monitoring[memory].restart_threshold_percent immediate
monitoring[memory].warning_threshold_percent immediate
notifications immediate
otlp_endpoint restart
otp_tls_certificates restart
port restart
release_adapter restart
release_bucket restart
release_endpoint restart
release_signature_key restart
secrets_adapter restart
secrets_path restart
tls.certificate restart
tls.key restart
trusted_proxies restart
var_path restart
";

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
        let told = |after: &Config| event(&between(Some(&before), &sheet(after)), true, Time(1));
        assert_eq!(
            told(&with("b/s3cret")).unwrap().text,
            "the control plane's configuration changed: notifications changed"
        );
        assert_eq!(told(&with("a/s3cret")), None);
    }

    #[test]
    fn every_key_has_the_class_that_is_promised() {
        let all = config(
            "hostname: a.example\ntls: { certificate: /a.pem, key: /b.pem }\nagents: { public: 'a.example:7' }\n\
             release_adapter: s3\nrelease_bucket: releases\nrelease_endpoint: https://s3.example\n\
             release_signature_key: RW\naws_region: eu\ngoogle_credentials: /g.json\n\
             secrets_adapter: file\nsecrets_path: /s.json\nvar_path: /v\nlog_path: /l\n\
             monitored_app_log_path: /m\notp_tls_certificates: /o\nmetrics: { otlp_endpoint: https://o.example }\n\
             metrics_retention_time_ms: 5000\nlogs_retention_time_ms: 5000\n\
             monitoring: [{ type: memory }, { type: disk }, { type: atom }]\n\
             notifications: [{ adapter: webhook, url: 'https://n.example' }]\n",
        );
        let said: Vec<String> = sheet(&all).keys().map(|key| format!("{key} {}", class(key))).collect();
        assert_eq!(said, PROMISED.trim().lines().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_read_at_a_start_waits_for_the_next_one() {
        let started = sheet(&config("port: 5001\nagents: { port: 7 }\n"));
        let after = config("port: 5003\nmonitoring: [{ type: memory }]\n");
        let in_force = serde_json::to_string(&sheet(&after)).unwrap();
        let waits = since(&started, Some(&in_force));
        let said: Vec<String> = waits.iter().map(|it| format!("{it} [{}]", it.class)).collect();
        assert_eq!(
            said,
            [
                "agents.port 7 → 5002 [restart]",
                "monitoring[memory].cooldown_ms 300000 (was not set) [immediate]",
                "monitoring[memory].restart_threshold_percent 90 (was not set) [immediate]",
                "monitoring[memory].warning_threshold_percent 75 (was not set) [immediate]",
                "port 5001 → 5003 [restart]",
            ]
        );
        let told = event(&waits, false, Time(1)).unwrap();
        assert!(
            told.text.contains("port 5001 → 5003 (needs a restart of the control plane)"),
            "{}",
            told.text
        );
        assert_eq!(told.data["fields"]["port"], "restart");
    }
}
