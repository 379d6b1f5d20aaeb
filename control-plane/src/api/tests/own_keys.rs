//! That each key of the control plane itself counts when it is promised to: applied while everything runs, what is followed is
//! told to whom it concerns, what is read at a start waits for one and touches nobody, and what has no effect yet says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proto::configuration::{Applied, Change, Class};
use serde_json::json;

use super::Bench;
use super::fleet::enrolled;
use crate::config::apply::own::PROMISED;
use crate::config::{Config, Flags};
use crate::spec::monitoring::HostMonitoring;

/// What a changed key does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    /// Every host is told.
    Hosts,
    /// Nothing before the next start.
    NextStart,
    /// Nothing, also after a start: which part is missing is said.
    NotYet,
}

use Shows::{Hosts, NextStart, NotYet};

/// A change of the file, and the keys that differ by it. `TLS` stands for a folder with a certificate.
const ROWS: &[(&str, &[&str], Shows)] = &[
    ("account_name: staging", &["account_name"], NextStart),
    ("agents: { bind: 127.0.0.1 }", &["agents.bind"], NextStart),
    ("agents: { port: 7002 }", &["agents.port"], NextStart),
    ("agents: { public: 'a.example:7' }", &["agents.public"], NextStart),
    ("aws_region: eu", &["aws_region"], NextStart),
    ("bind: 127.0.0.2", &["bind"], NextStart),
    ("database_url: postgres://me@db/x", &["database_url"], NextStart),
    ("google_credentials: /g.json", &["google_credentials"], NextStart),
    ("hostname: a.example", &["hostname"], NextStart),
    ("log_path: /l", &["log_path"], NotYet),
    ("logs_retention_time_ms: 5000", &["logs_retention_time_ms"], NotYet),
    ("metrics_retention_time_ms: 5000", &["metrics_retention_time_ms"], NotYet),
    ("monitored_app_log_path: /m", &["monitored_app_log_path"], NextStart),
    ("monitoring: [{ type: atom }]", &["monitoring"], NotYet),
    (
        "monitoring: [{ type: disk, warning_threshold_percent: 81 }]",
        &["monitoring[disk].warning_threshold_percent"],
        Hosts,
    ),
    (
        "monitoring: [{ type: memory, warning_threshold_percent: 60, restart_threshold_percent: 70, cooldown_ms: 1 }]",
        &[
            "monitoring[memory].cooldown_ms",
            "monitoring[memory].restart_threshold_percent",
            "monitoring[memory].warning_threshold_percent",
        ],
        Hosts,
    ),
    ("notifications: [{ adapter: webhook, url: 'https://n.example' }]", &["notifications"], NotYet),
    ("metrics: { otlp_endpoint: https://o.example }", &["otlp_endpoint"], NextStart),
    ("otp_tls_certificates: /o", &["otp_tls_certificates"], NextStart),
    ("port: 5003", &["port"], NextStart),
    ("release_bucket: /elsewhere", &["release_bucket"], NextStart),
    ("release_adapter: s3\nrelease_bucket: releases", &["release_adapter", "release_bucket"], NotYet),
    ("release_endpoint: https://s3.example", &["release_endpoint"], NotYet),
    ("release_signature_key: RW", &["release_signature_key"], NotYet),
    ("secrets_adapter: file\nsecrets_path: /s.json", &["secrets_adapter", "secrets_path"], NextStart),
    ("tls: { certificate: TLS/a.pem, key: TLS/b.pem }", &["tls.certificate", "tls.key"], NextStart),
    ("trusted_proxies: [10.0.0.0/8]", &["trusted_proxies"], NextStart),
    ("var_path: /v", &["var_path"], NextStart),
];

fn promised(key: &str) -> Class {
    let mut promised = PROMISED.trim().lines().filter_map(|line| line.rsplit_once(' '));
    let (_, class) = promised.find(|(it, _)| *it == key).unwrap();
    Class::ALL.into_iter().find(|it| it.word() == class).unwrap()
}

fn keys(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(|it| it.key.as_str()).collect()
}

#[test]
fn every_key_that_something_is_promised_of_is_looked_at() {
    let looked_at: BTreeSet<&str> = ROWS.iter().flat_map(|(_, keys, _)| keys.iter().copied()).collect();
    let all: BTreeSet<&str> =
        PROMISED.trim().lines().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
    assert_eq!(looked_at, all);
}

#[tokio::test]
async fn each_key_of_the_control_plane_counts_when_it_is_promised_to() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    fs::write(folder.path().join("a.pem"), made.cert.pem()).unwrap();
    fs::write(folder.path().join("b.pem"), made.signing_key.serialize_pem()).unwrap();
    let bench = Bench::new().await;
    let node = enrolled(&bench, "web-1").await;
    let mut base = 0;
    // The file is written and applied, which is allowed to change all of it.
    let mut apply = async |yaml: &str| -> Applied {
        fs::write(bench.config.path(), yaml).unwrap();
        let applied = bench.applied(json!({ "pending": true, "base": base })).await;
        base = applied.number;
        applied
    };
    apply("applications: []\n").await;
    for (change, differing, shows) in ROWS {
        let yaml = change.replace("TLS", folder.path().to_str().unwrap());
        let before = bench.api.db.node_assignment(node).await.unwrap();
        let applied = apply(&format!("{yaml}\napplications: []\n")).await;
        assert_eq!(keys(&applied.difference.control_plane), *differing, "{change}");
        for it in &applied.difference.control_plane {
            assert_eq!(it.class, promised(&it.key), "{change}");
        }
        let waits = || differing.iter().copied().filter(|key| promised(key) == Class::Restart);
        assert_eq!(keys(&applied.awaits_restart), waits().collect::<Vec<_>>(), "{change}");
        assert!(waits().all(|key| applied.sentence.contains(key)), "{change}: {}", applied.sentence);

        let told = bench.concerned.0.lock().unwrap().last().cloned().unwrap();
        let after = bench.api.db.node_assignment(node).await.unwrap();
        match shows {
            Hosts => {
                assert_eq!((told, after.generation), ([node].into(), before.generation + 1), "{change}");
                assert_eq!(after.monitoring, Some(read(&yaml).monitoring), "{change}");
                assert_ne!(after.monitoring, before.monitoring, "{change}");
            }
            NextStart | NotYet => {
                assert_eq!((told, after), (BTreeSet::new(), before), "{change} concerns nobody who runs");
            }
        }
        let said = read(&yaml).not_yet_in_force();
        let is_said =
            said.iter().any(|it| differing.iter().any(|key| it.starts_with(&format!("{key} is not"))));
        assert_eq!(is_said, *shows == NotYet, "{change}: {said:?}");

        // Taken back, nothing waits, and hosts are told what they were.
        assert_eq!(keys(&apply("applications: []\n").await.awaits_restart), [""; 0], "{change}");
    }
    let after = bench.api.db.node_assignment(node).await.unwrap();
    assert_eq!(after.monitoring, Some(HostMonitoring::default()));
}

fn read(yaml: &str) -> Config {
    let file = Some((Path::new("deployex.yaml"), yaml.as_bytes()));
    Config::read(file, &Flags::default(), &BTreeMap::new()).unwrap()
}
