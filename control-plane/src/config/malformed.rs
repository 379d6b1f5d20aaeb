//! [test] What an operator sees of a file that is wrong: every message word for word, so that a change of one is seen as one.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Config, Faults, Flags};

/// What is wrong, the file, and its faults as `line:column: …`.
type Case = (&'static str, &'static str, &'static [&'static str]);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("not a mapping",
     "- a
- b
",
     &["1:1: found a list; allowed: keys and values, one `key: value` a line, with a space behind the colon"]),
    ("unclosed bracket",
     "port: [5001
",
     &["2:1: found text that is not YAML (while parsing a flow sequence, expected ',' or ']'); mend the indentation, quotes or brackets here"]),
    ("unclosed quote",
     r#"hostname: "deployex.example.com
port: 5001
"#,
     &["1:11: found text that is not YAML (invalid indentation in quoted scalar); mend the indentation, quotes or brackets here"]),
    ("a tab",
     "applications:
	- name: myapp
",
     &["2:2: found text that is not YAML (tabs disallowed within this context (block indentation)); mend the indentation, quotes or brackets here"]),
    ("bad indentation",
     "hostname: a
  port: 5001
",
     &["2:7: found text that is not YAML (mapping values are not allowed in this context); mend the indentation, quotes or brackets here"]),
    ("a missing space after the colon",
     "port:5001
",
     &[r#"1:1: found "port:5001"; allowed: keys and values, one `key: value` a line, with a space behind the colon"#]),
    ("two documents",
     "port: 5001
---
port: 5002
",
     &["2:1: found a second document (---); a configuration is one document"]),
    ("a misspelt key",
     "hostnme: example.com
",
     &["1:1: hostnme: found an unknown key; did you mean hostname?"]),
    ("a strange key",
     "kubernetes: true
",
     &["1:1: kubernetes: found an unknown key; known here: account_name, agents, applications, aws_region, bind, database_url, deploy_rollback_timeout_ms, deploy_schedule_interval_ms, deploy_timeout_rollback_ms, google_credentials, hostname, install_path, log_path, logs_retention_time_ms, metrics, metrics_retention_time_ms, monitored_app_log_path, monitoring, notifications, os_target, otp_tls_certificates, otp_version, port, release_adapter, release_bucket, release_endpoint, release_signature_key, secrets_adapter, secrets_path, tls, trusted_proxies, var_path, version"]),
    ("a key of another level",
     "applications:
  - name: myapp
    port: 5001
",
     &["3:5: applications[myapp].port: found an unknown key; known here: certificates, cluster, deploy, deploy_rollback_timeout_ms, deploy_schedule_interval_ms, distribution, env, env_file, initial_port, language, limits, live, logs, monitoring, name, nginx, nodes, ready, replica_ports, replicas, restart, run_as, shell_user, spread, telemetry"]),
    ("a key twice",
     "port: 5001
hostname: a
port: 5002
",
     &["3:1: port: found the same key again; a key stands once; the first is on line 1"]),
    ("a merge key",
     "defaults: &d
  replicas: 2
applications:
  - <<: *d
    name: myapp
",
     &[
        "1:1: defaults: found an unknown key; known here: account_name, agents, applications, aws_region, bind, database_url, deploy_rollback_timeout_ms, deploy_schedule_interval_ms, deploy_timeout_rollback_ms, google_credentials, hostname, install_path, log_path, logs_retention_time_ms, metrics, metrics_retention_time_ms, monitored_app_log_path, monitoring, notifications, os_target, otp_tls_certificates, otp_version, port, release_adapter, release_bucket, release_endpoint, release_signature_key, secrets_adapter, secrets_path, tls, trusted_proxies, var_path, version",
        "4:5: applications[myapp].<<: found an unknown key; merge keys are not read here; repeat the keys",
    ]),
    ("a number in quotes",
     r#"port: "5001"
"#,
     &[r#"1:7: port: found "5001"; allowed: a port from 1 to 65535, without quotes"#]),
    ("a port out of range",
     "port: 70000
",
     &[r#"1:7: port: found "70000"; allowed: a port from 1 to 65535, without quotes"#]),
    ("a word for a number",
     "applications:
  - name: myapp
    replicas: three
",
     &[r#"3:15: applications[myapp].replicas: found "three"; allowed: a whole number from 1 to 999 in plain decimal digits"#]),
    ("no replicas",
     "applications:
  - name: myapp
    replicas: 0
",
     &[r#"3:15: applications[myapp].replicas: found "0"; allowed: a whole number from 1 to 999 in plain decimal digits"#]),
    ("exponents, octals and underscores",
     "port: 1e3
agents: { port: 0o17 }
applications:
  - { name: a, replicas: 007 }
  - { name: b, replicas: 1_000 }
",
     &[
        r#"1:7: port: found "1e3"; allowed: a port from 1 to 65535, without quotes"#,
        r#"2:17: agents.port: found "0o17"; allowed: a port from 1 to 65535, without quotes"#,
        r#"4:26: applications[a].replicas: found "007"; allowed: a whole number from 1 to 999 in plain decimal digits"#,
        r#"5:26: applications[b].replicas: found "1_000"; allowed: a whole number from 1 to 999 in plain decimal digits"#,
    ]),
    ("a YAML 1.1 boolean",
     "monitoring:
  - { type: memory, enable_restart: yes }
",
     &[r#"2:37: monitoring[memory].enable_restart: found "yes"; allowed: true or false, without quotes"#]),
    ("a restart before its warning",
     "monitoring:
  - { type: memory, restart_threshold_percent: 60 }
applications:
  - name: myapp
    monitoring:
      - { type: atom, warning_threshold_percent: 95 }
      - { type: port, warning_threshold_percent: 80, restart_threshold_percent: 79 }
      - { type: process, enable_restart: false, warning_threshold_percent: 95 }
      - { type: port }
      - { type: disk, warning_threshold_percent: 0 }
",
     &[
        "2:48: monitoring[memory].restart_threshold_percent: found 60, below warning_threshold_percent, which is 75, the default; allowed: the percentage from which on is warned, or a higher one",
        "6:50: applications[myapp].monitoring[atom].warning_threshold_percent: found 95, above restart_threshold_percent, which is 90, the default; write a restart_threshold_percent that is at least as high, or `enable_restart: false`",
        "7:81: applications[myapp].monitoring[port].restart_threshold_percent: found 79, below warning_threshold_percent, which is 80; allowed: the percentage from which on is warned, or a higher one",
        "9:17: applications[myapp].monitoring[port].type: found port again; a type stands once; the first is on line 7",
        r#"10:17: applications[myapp].monitoring[disk].type: found "disk"; allowed: atom, process, port or memory"#,
        r#"10:50: applications[myapp].monitoring[disk].warning_threshold_percent: found "0"; allowed: a whole number from 1 to 100 in plain decimal digits"#,
     ]),
    ("a list for a value",
     "hostname: [a, b]
",
     &["1:11: hostname: found a list; allowed: a host's name or address, without scheme, port or path"]),
    ("a value for a list",
     "applications: myapp
",
     &[r#"1:15: applications: found "myapp"; allowed: a list, each item behind a `-`"#]),
    ("a mapping for a list",
     "applications:
  name: myapp
",
     &["2:3: applications: found keys and values; allowed: a list, each item behind a `-`"]),
    ("a value for keys",
     "tls: /etc/deployex/tls
",
     &[r#"1:6: tls: found "/etc/deployex/tls"; allowed: keys and values, one `key: value` a line, with a space behind the colon"#]),
    ("no name",
     "applications:
  - language: elixir
",
     &["2:5: applications[0].name: found no name; write `name: …` here"]),
    ("a name with a slash",
     "applications:
  - name: ../etc
",
     &[r#"2:11: applications[../etc].name: found "../etc"; allowed: 1 to 64 of a-z A-Z 0-9 _ - that begin with a letter or digit"#]),
    ("an application twice",
     "applications:
  - name: myapp
  - name: other
  - name: myapp
",
     &["4:5: applications[myapp]: found a second application of this name; a name stands once; the first is on line 2"]),
    ("an unknown language",
     "applications:
  - name: myapp
    language: go
",
     &[r#"3:15: applications[myapp].language: found "go"; allowed: elixir, erlang or gleam"#]),
    ("a URL for a hostname",
     "hostname: https://deployex.example.com/
",
     &[r#"1:11: hostname: found "https://deployex.example.com/"; allowed: a host's name or address, without scheme, port or path"#]),
    ("a relative path",
     "var_path: var/lib/deployex
",
     &[r#"1:11: var_path: found "var/lib/deployex"; allowed: an absolute path without .."#]),
    ("a path that climbs",
     "log_path: /var/log/../../etc
",
     &[r#"1:11: log_path: found "/var/log/../../etc"; allowed: an absolute path without .."#]),
    ("half of tls",
     "tls: { certificate: /etc/tls/console.pem }
",
     &["1:6: tls.key: found no key; write `key: …` here"]),
    ("s3 without a bucket",
     "release_adapter: s3
",
     &["1:1: release_bucket: found no bucket for release_adapter s3; write release_bucket, or set DEPLOYEX_RELEASE_BUCKET"]),
    ("an unknown adapter",
     "release_adapter: gcs
secrets_adapter: vault
",
     &[
        r#"1:18: release_adapter: found "gcs"; allowed: s3, gcp-storage or local"#,
        r#"2:18: secrets_adapter: found "vault"; allowed: aws, gcp, env or file"#,
    ]),
    ("a bucket's URL",
     "release_adapter: s3
release_bucket: s3://bucket/path
",
     &[r#"2:17: release_bucket: found "s3://bucket/path"; allowed: the bucket's name alone"#]),
    ("aws without a path",
     "secrets_adapter: aws
",
     &["1:1: secrets_path: found no path for secrets_adapter aws; write secrets_path, or set DEPLOYEX_SECRETS_PATH"]),
    ("a database nobody knows",
     "database_url: mysql://root:s3cret@localhost/x
",
     &["1:15: database_url: found a value (not shown: it may be a secret); allowed: sqlite:///PATH or postgres://USER:PASSWORD@HOST/DATABASE"]),
    ("one port for two listeners",
     "port: 5002
",
     &["1:1: agents: found port 5002, which is the console's too; give agents.port and port different numbers"]),
    ("a network that is none",
     "trusted_proxies: [10.0.0.0/33, nginx]
",
     &[
        r#"1:19: trusted_proxies[0]: found "10.0.0.0/33"; allowed: an IP address or a network such as 10.0.0.0/8"#,
        r#"1:32: trusted_proxies[1]: found "nginx"; allowed: an IP address or a network such as 10.0.0.0/8"#,
    ]),
    ("agents' address with a scheme",
     "agents: { public: 'https://deployex.example.com:5002' }
",
     &[r#"1:19: agents.public: found "https://deployex.example.com:5002"; allowed: HOST:PORT as agents dial it, without scheme"#]),
    ("ports that meet",
     "applications:
  - name: one
    replica_ports: [{ key: PORT, base: 4000 }]
  - name: two
    replica_ports: [{ key: PORT, base: 4002 }]
",
     &["5:40: applications[two].replica_ports[PORT].base: found ports 4002..4004, which meet PORT of one (4000..4002); each replica needs a port of its own; move one of the two"]),
    ("ports of one application that meet",
     "applications:
  - name: myapp
    replica_ports:
      - { key: PORT, base: 4000 }
      - { key: ADMIN_PORT, base: 4001 }
",
     &["5:34: applications[myapp].replica_ports[ADMIN_PORT].base: found ports 4001..4003, which meet PORT of myapp (4000..4002); each replica needs a port of its own; move one of the two"]),
    ("ports beyond the last",
     "applications:
  - name: myapp
    replica_ports: [{ key: PORT, base: 65534 }]
",
     &["3:40: applications[myapp].replica_ports[PORT].base: found 65534, which needs ports up to 65536; allowed: a base from which every replica gets a port up to 65535"]),
    ("no room for the spare slot",
     "applications:
  - name: one
    deploy: { strategy: start_first }
    replica_ports: [{ key: PORT, base: 4000 }]
  - name: two
    replica_ports: [{ key: PORT, base: 4003 }]
",
     &["3:25: applications[one].deploy.strategy: found start_first without room for its spare slot; its spare slot would need port 4003 for PORT, which belongs to PORT of two (4003..4005); leave room for one port more, or write stop_first"]),
    ("a port's key twice",
     "applications:
  - name: myapp
    replica_ports: [{ key: PORT, base: 4000 }, { key: PORT, base: 4100 }]
",
     &["3:55: applications[myapp].replica_ports[PORT].key: found a second port PORT; each key stands once; give it another name"]),
    ("a port without base",
     "applications:
  - name: myapp
    replica_ports: [{ key: PORT }]
",
     &["3:21: applications[myapp].replica_ports[PORT].base: found no base; write `base: …` here"]),
    ("initial_port beside replica_ports",
     "applications:
  - name: myapp
    initial_port: 4000
    replica_ports: [{ key: PORT, base: 4000 }]
",
     &["3:19: applications[myapp].initial_port: found initial_port beside replica_ports; keep replica_ports alone"]),
    ("env as a mapping",
     "applications:
  - name: myapp
    env:
      PHX_HOST: myapp.com
",
     &["4:7: applications[myapp].env: found keys and values; allowed: a list, each item behind a `-`"]),
    ("env without value",
     "applications:
  - name: myapp
    env:
      - key: SECRET
",
     &["4:9: applications[myapp].env[SECRET].value: found no value; write `value: …` or `from_secret: NAME/KEY` here"]),
    ("env twice",
     "applications:
  - name: myapp
    env:
      - { key: A, value: 1 }
      - { key: A, value: 2 }
",
     &["5:16: applications[myapp].env[A].key: found A again; each variable stands once"]),
    ("env with a value that is a list",
     "applications:
  - name: myapp
    env: [{ key: HOSTS, value: [s3cret] }]
",
     &["3:32: applications[myapp].env[HOSTS].value: found a list; allowed: a single value"]),
    ("an env key with a dash",
     "applications:
  - name: myapp
    env: [{ key: MY-KEY, value: 1 }]
",
     &[r#"3:18: applications[myapp].env[MY-KEY].key: found "MY-KEY"; allowed: a variable's name: letters, digits and _, not beginning with a digit"#]),
    ("a value and a secret",
     "applications:
  - name: myapp
    env: [{ key: A, value: s3cret, from_secret: x/Y }]
",
     &["3:49: applications[myapp].env[A].from_secret: found from_secret beside value; write one of the two"]),
    ("a secret without key",
     "applications:
  - name: myapp
    env: [{ key: A, from_secret: DATABASE_URL }]
",
     &[r#"3:34: applications[myapp].env[A].from_secret: found "DATABASE_URL"; allowed: NAME/KEY: the secret's name and a key in it"#]),
    ("a duration with a strange unit",
     "applications:
  - name: myapp
    deploy_rollback_timeout_ms: 10min
",
     &[r#"3:33: applications[myapp].deploy_rollback_timeout_ms: found "10min"; allowed: milliseconds, or a duration such as 30s or 10m, from 1s to 30d"#]),
    ("a duration that is too short",
     "applications:
  - name: myapp
    deploy_schedule_interval_ms: 5
",
     &[r#"3:34: applications[myapp].deploy_schedule_interval_ms: found "5"; allowed: milliseconds, or a duration such as 30s or 10m, from 100ms to 1d"#]),
    ("a size with a strange unit",
     "applications:
  - name: myapp
    limits: { memory_max: 2G, cpu_max: 2, pids_max: 4 }
",
     &[
        r#"3:27: applications[myapp].limits.memory_max: found "2G"; allowed: a size such as 512KiB, 20MiB or 1GiB"#,
        r#"3:40: applications[myapp].limits.cpu_max: found "2"; allowed: a share of one core such as 50%, or of several such as 200%"#,
        r#"3:53: applications[myapp].limits.pids_max: found "4"; allowed: a whole number from 16 to 4194304 in plain decimal digits"#,
    ]),
    ("an age without a unit",
     "applications:
  - name: myapp
    logs: { max_age: 14 }
",
     &[r#"3:22: applications[myapp].logs.max_age: found "14"; allowed: a duration such as 30s or 10m, from 1m to 3650d"#]),
    ("labels",
     "applications:
  - name: myapp
    nodes: { role: 'web server', '': x }
",
     &[
        r#"3:20: applications[myapp].nodes.role: found "web server"; allowed: a label: 1 to 63 of a-z A-Z 0-9 . _ - / that begin with a letter or digit"#,
        r#"3:34: applications[myapp].nodes.: found the key ""; allowed: a label: 1 to 63 of a-z A-Z 0-9 . _ - / that begin with a letter or digit"#,
    ]),
    ("labels as a list",
     "applications:
  - name: myapp
    nodes: [web]
",
     &["3:12: applications[myapp].nodes: found a list; allowed: keys and values, one `key: value` a line, with a space behind the colon"]),
    ("a strategy nobody knows",
     "applications:
  - name: myapp
    deploy: { strategy: rolling, batch: 150%, max_unavailable: -1 }
",
     &[
        r#"3:25: applications[myapp].deploy.strategy: found "rolling"; allowed: start_first or stop_first"#,
        r#"3:41: applications[myapp].deploy.batch: found "150%"; allowed: a count from 1, or a share from 1% to 100%"#,
        r#"3:64: applications[myapp].deploy.max_unavailable: found "-1"; allowed: a count from 0, or a share from 1% to 100%"#,
    ]),
    ("a canary without nodes",
     "applications:
  - name: myapp
    deploy: { canary: { promote: later } }
",
     &[
        "3:23: applications[myapp].deploy.canary.nodes: found no nodes; write `nodes: …` here",
        r#"3:34: applications[myapp].deploy.canary.promote: found "later"; allowed: auto or manual"#,
    ]),
    ("backoff the wrong way round",
     "applications:
  - name: myapp
    restart: { backoff_min_ms: 10s, backoff_max_ms: 1s }
",
     &["3:53: applications[myapp].restart.backoff_max_ms: found 1000 ms, which is below backoff_min_ms (10000); give it at least the value of backoff_min_ms"]),
    ("a probe with two kinds",
     "applications:
  - name: myapp
    ready: [{ http: { path: / }, tcp: { port: PORT } }]
",
     &["3:13: applications[myapp].ready[0]: found http and tcp; one of http, tcp, exec, otp or process in each item"]),
    ("a probe of an unknown port",
     "applications:
  - name: myapp
    replica_ports: [{ key: PORT, base: 4000 }]
    ready: [{ http: { port: HTTP, path: health } }]
",
     &[
        r#"4:29: applications[myapp].ready[0].http.port: found "HTTP"; allowed: a key of the application's replica_ports (PORT)"#,
        r#"4:41: applications[myapp].ready[0].http.path: found "health"; allowed: a path that begins with /"#,
    ]),
    ("a probe without a kind",
     "applications:
  - name: myapp
    ready: [{ interval_ms: 1s }]
    live: [http]
",
     &[
        "3:13: applications[myapp].ready[0]: found no probe; one of http, tcp, exec, otp or process in each item",
        r#"4:12: applications[myapp].live[0]: found "http"; allowed: process, or a probe such as { tcp: { port: PORT } }"#,
    ]),
    ("a probe with nothing to ask on",
     "applications:
  - name: myapp
    ready: [{ tcp: }]
    live: [{ http: { path: /a b } }, { http: { path: /up } }]
",
     &[
        "3:13: applications[myapp].ready[0].tcp: found no port to ask on; give the application replica_ports",
        r#"4:28: applications[myapp].live[0].http.path: found "/a b"; allowed: a path that begins with /"#,
        "4:46: applications[myapp].live[1].http: found no port to ask on; give the application replica_ports",
     ]),
    ("a probe whose command cannot be read",
     "applications:
  - name: myapp
    ready: [{ exec: { command: bin/ok 'it } }]
    live: [{ exec: { command: \"''\" } }]
",
     &[
        r#"3:32: applications[myapp].ready[0].exec.command: found "bin/ok 'it"; allowed: a command whose quotes are closed, and no backslash at its end"#,
        r#"4:31: applications[myapp].live[0].exec.command: found "''"; allowed: a command that names a program"#,
     ]),
    ("ready as a word",
     "applications:
  - name: myapp
    ready: tcp
",
     &[r#"3:12: applications[myapp].ready: found "tcp"; allowed: process, or a list of probes such as [{ http: { path: /health } }]"#]),
    ("a short name with dots",
     "applications:
  - name: myapp
    distribution: { mode: short, host: web1.example.com }
",
     &["3:40: applications[myapp].distribution.host: found a name with dots, which Erlang refuses for mode short; write its first part alone, or mode: long"]),
    ("a long name without dots",
     "applications:
  - name: myapp
    distribution: { mode: long, host: web1 }
",
     &["3:39: applications[myapp].distribution.host: found a name without dots, which Erlang refuses for mode long; write the full name or an address, or mode: short"]),
    ("a cluster of nodes that are none",
     "applications:
  - name: myapp
    distribution: { mode: \"off\" }
    cluster: fleet
  - name: other
    distribution: { mode: \"off\" }
    cluster: node
  - name: third
    cluster: hosts
",
     &[
        "4:14: applications[myapp].cluster: found fleet beside distribution.mode off, with which its replicas are no Erlang nodes; write cluster: off, or distribution.mode: short or long",
        r#"9:14: applications[third].cluster: found "hosts"; allowed: off, node or fleet"#,
     ]),
    ("events that are none",
     "applications:
  - name: myapp
    telemetry: { events: [fenix, phoenix, \"shop..stop\", phoenix, shop.orders.stop] }
  - name: other
    telemetry: { event: [phoenix] }
",
     &[
        r#"3:27: applications[myapp].telemetry.events[0]: found "fenix"; allowed: phoenix, ecto, vm, or an event's name with dots, such as my_app.orders.checkout.stop"#,
        r#"3:43: applications[myapp].telemetry.events[2]: found "shop..stop"; allowed: phoenix, ecto, vm, or an event's name with dots, such as my_app.orders.checkout.stop"#,
        "3:57: applications[myapp].telemetry.events: found phoenix again; each stands once",
        "5:18: applications[other].telemetry.event: found an unknown key; did you mean events?",
     ]),
    ("distribution ports",
     "applications:
  - name: myapp
    distribution: { ports: [9200, 9100] }
",
     &["3:28: applications[myapp].distribution.ports: found 9200 before 9100; write the lower port first"]),
    ("too few distribution ports",
     "applications:
  - name: myapp
    distribution: { ports: [9100, 9101] }
",
     &["3:19: applications[myapp].distribution.ports: found 2 ports for 4 slots; name a range of at least 4 ports"]),
    ("distribution ports that meet replica ports",
     "applications:
  - name: myapp
    replica_ports: [{ key: PORT, base: 9100 }]
    distribution: { ports: [9102, 9200] }
",
     &["4:19: applications[myapp].distribution.ports: found ports 9102..9200, which meet PORT of myapp (9100..9102); each replica needs a port of its own; move one of the two"]),
    ("a disk",
     "monitoring:
  - { type: disk, enable_restart: true, warning_threshold_percent: 0 }
",
     &[
        "2:35: monitoring[disk].enable_restart: found a key that a disk has not; remove it: a full disk is warned of, and nothing is restarted for it",
        r#"2:68: monitoring[disk].warning_threshold_percent: found "0"; allowed: a whole number from 1 to 100 in plain decimal digits"#,
     ]),
    ("monitoring",
     "applications:
  - name: myapp
    monitoring:
      - { type: disk }
      - { type: atom, warning_threshold_percent: 120 }
      - { type: atom }
",
     &[
        r#"4:17: applications[myapp].monitoring[disk].type: found "disk"; allowed: atom, process, port or memory"#,
        r#"5:50: applications[myapp].monitoring[atom].warning_threshold_percent: found "120"; allowed: a whole number from 1 to 100 in plain decimal digits"#,
        "6:17: applications[myapp].monitoring[atom].type: found atom again; a type stands once; the first is on line 5",
    ]),
    ("a notification",
     r#"notifications:
  - { adapter: email, url: "mailto:s3cret" }
  - { adapter: slack, events: [deployed] }
  - { adapter: pagerduty }
"#,
     &[
        r#"2:16: notifications[0].adapter: found "email"; allowed: webhook, slack or pagerduty"#,
        "2:28: notifications[0].url: found a value (not shown: it may be a secret); allowed: a URL that begins with https:// or http://",
        "3:5: notifications[1].url: found no url; write `url: https://…` here; only pagerduty has one of its own",
        r#"3:32: notifications[1].events[0]: found "deployed"; allowed: all, crash_restart, deployment_started, deployment_complete, application_ready, deployment_shutdown, watchdog_threshold_exceeded, watchdog_threshold_warning, certificate_renewed, certificate_valid, certificate_failed, config_changed, config_change_applied, deployment_rolled_back, version_ghosted, node_lost or node_back"#,
        "4:5: notifications[2].options: found no routing_key; pagerduty needs `options: { routing_key: … }`",
    ]),
    ("a certificate",
     "applications:
  - name: myapp
    certificates:
      - { type: domains, domains: [localhost], dns_provider: godaddy, acme_options: { key_size: 1024 } }
",
     &[
        r#"4:36: applications[myapp].certificates[0].domains[0]: found "localhost"; allowed: a domain such as example.com or *.example.com"#,
        r#"4:62: applications[myapp].certificates[0].dns_provider: found "godaddy"; allowed: cloudflare or route53"#,
        r#"4:97: applications[myapp].certificates[0].acme_options.key_size: found "1024"; allowed: 2048, 3072 or 4096"#,
    ]),
    ("a certificate without domains",
     "applications:
  - name: myapp
    certificates: [{ type: domains, dns_provider: route53 }]
",
     &["3:20: applications[myapp].certificates[0].domains: found no domains; write `domains: [example.com]` here"]),
    ("nginx",
     "applications:
  - name: myapp
    nginx: { upstream_file: upstream.conf, upstream: my app, port: PORT }
",
     &[
        r#"3:29: applications[myapp].nginx.upstream_file: found "upstream.conf"; allowed: an absolute path without .."#,
        r#"3:54: applications[myapp].nginx.upstream: found "my app"; allowed: the name of an NGINX upstream: a-z A-Z 0-9 . _ -"#,
        r#"3:68: applications[myapp].nginx.port: found "PORT"; allowed: a key of the application's replica_ports (there are none)"#,
    ]),
    ("one upstream file of two applications",
     "applications:
  - name: one
    replica_ports: [{ key: PORT, base: 4000 }]
    nginx: { upstream_file: /etc/nginx/conf.d/shared.conf, upstream: one, port: PORT }
  - name: two
    replica_ports: [{ key: PORT, base: 4100 }]
    nginx: { upstream_file: /etc/nginx/conf.d/shared.conf, upstream: two, port: PORT }
",
     &["7:29: applications[two].nginx.upstream_file: found the upstream file of one; each application needs a file of its own"]),
    ("a user",
     "applications:
  - name: myapp
    run_as: deployex
",
     &[r#"3:13: applications[myapp].run_as: found "deployex"; allowed: keys and values, one `key: value` a line, with a space behind the colon"#]),
    ("a tag",
     "hostname: !env HOST
",
     &[r#"1:16: found the tag "!env"; tags are not understood here; write the value without it"#]),
    ("an alias inside of itself",
     "monitoring: &a [*a]
",
     &["1:17: found an alias inside of what it names; write the value out"]),
    ("an unknown alias",
     "hostname: *host
",
     &["1:11: found text that is not YAML (while parsing node, found unknown anchor); mend the indentation, quotes or brackets here"]),
    ("a control character",
     "hostname: a\0b\n",
     &["1:12: found the control character U+0000; remove it, or write it as an escape in double quotes"]),
    ("several at once",
     "prot: 5001
bind: localhost
applications:
  - name: myapp
    replica: 3
    language: elixr
",
     &[
        "1:1: prot: found an unknown key; did you mean port?",
        r#"2:7: bind: found "localhost"; allowed: an IP address to listen on, such as 127.0.0.1, 0.0.0.0 or ::"#,
        "5:5: applications[myapp].replica: found an unknown key; did you mean replicas?",
        r#"6:15: applications[myapp].language: found "elixr"; allowed: elixir, erlang or gleam"#,
    ]),
];

fn read(yaml: &[u8]) -> Result<Config, Faults> {
    Config::read(Some((Path::new("deployex.yaml"), yaml)), &Flags::default(), &BTreeMap::new())
}

#[test]
fn every_fault_is_named_with_its_place_and_what_is_allowed() {
    for (what, yaml, expected) in CASES {
        let text = match read(yaml.as_bytes()) {
            Ok(_) => panic!("{what}: accepted"),
            Err(faults) => faults.to_string(),
        };
        let found: Vec<&str> =
            text.lines().skip(1).map(|it| it.trim_start().trim_start_matches("deployex.yaml:")).collect();
        assert_eq!(&found, expected, "{what}\n{yaml}");
    }
}
