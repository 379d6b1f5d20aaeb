//! [test] Files and variables made for DeployEx 0.3 to 0.9 are taken as they are, and mean what they meant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proto::state::{Language, Strategy};

use super::{Config, Faults, Flags, ReleaseAdapter, SecretsAdapter};
use crate::spec::monitoring::{HostMonitoring, Threshold, VmMonitoring};
use crate::spec::{EnvValue, Millis, PortBase, ReadyWhen};

fn read(yaml: &str, variables: &[(&str, &str)]) -> Result<Config, Faults> {
    let variables = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Config::read(Some((Path::new("deployex.yaml"), yaml.as_bytes())), &Flags::default(), &variables)
}

fn variables_alone(variables: &[(&str, &str)]) -> Result<Config, Faults> {
    let variables = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Config::read(None, &Flags::default(), &variables)
}

/// Every key of the last version.
const OF_0_9: &str = r#"
account_name: "prod"
hostname: "deployex.myphoenixapp.com"
port: 5001
release_adapter: "s3"
release_bucket: "myphoenixapp-prod-distribution"
secrets_adapter: "aws"
secrets_path: "deployex-myphoenixapp-prod-secrets"
aws_region: "sa-east-1"
google_credentials: "/home/ubuntu/gcp-config.json"
version: "0.9.13"
otp_version: 28
os_target: "ubuntu-24.04"
otp_tls_certificates: "/usr/local/share/ca-certificates"
install_path: "/opt/deployex"
var_path: "/var/lib/deployex"
log_path: "/var/log/deployex"
monitored_app_log_path: "/var/log/monitored-apps"
metrics_retention_time_ms: 3600000
logs_retention_time_ms: 3600000
notifications:
  - adapter: "webhook"
    url: "https://example.com/hooks/deployex"
    events: ["all"]
  - adapter: "slack"
    url: "https://hooks.slack.com/services/T.../B.../..."
    enabled: false
    events:
      - "crash_restart"
    options:
      username: "DeployEx"
      icon_emoji: ":rocket:"
  - adapter: "pagerduty"
    events: ["deployment_shutdown"]
    options:
      routing_key: "abc123"
monitoring:
  - type: "memory"
    enable_restart: true
    warning_threshold_percent: 75
    restart_threshold_percent: 90
applications:
  - name: "myphoenixapp"
    language: "elixir"
    replicas: 2
    deploy_rollback_timeout_ms: 300000
    deploy_schedule_interval_ms: 10000
    replica_ports:
      - key: PORT
        base: 4000
    env:
      - key: MYPHOENIXAPP_PHX_SERVER
        value: true
      - key: NUMBER
        value: 123
      - key: AWS_REGION
        value: "sa-east-1"
      - key: NOTHING
        value:
    monitoring:
      - type: "atom"
        enable_restart: false
    certificates:
      - type: "domains"
        domains: ["*.calori.com.br" , "*.hub.calori.com.br" ]
        certificate_check_interval_ms: 86400000
        dns_propagation_timeout_ms: 120000
        dns_check_interval_ms: 5000
        renew_before_days: 30
        dns_provider: "cloudflare"
        dns_options:
          ttl: 10
          zone: "Z0123456789ABCDEFG"
          api_token: "ABC123GHB"
        acme_provider: "lets_encrypt"
        acme_options:
          contact_email: "myapp@mydomain.com"
          url: "https://acme-v02.api.letsencrypt.org/directory"
          key_size: 2048
          propagation_timeout_ms: 120000
          check_interval_ms: 2000
        importer: "route53"
        importer_options:
          certificate_arn: "arn:aws:acm:us-east-1:123456789012:certificate/xxxxxxxx"
        storage_options:
          certificate_path: "/etc/ssl/myapp/host.pem"
          private_key_path: "/etc/ssl/myapp/host-key.pem"
  - name: "my-gleam-app"
    language: "gleam"
"#;

#[test]
fn a_file_of_0_9_with_every_key_is_taken_as_it_is() {
    let config = read(OF_0_9, &[]).unwrap();
    assert_eq!(config.console.hostname.as_deref(), Some("deployex.myphoenixapp.com"));
    assert_eq!(config.releases.adapter, ReleaseAdapter::S3);
    assert_eq!(config.releases.account_name, "prod");
    assert_eq!(config.secrets.adapter, SecretsAdapter::Aws);
    assert_eq!(config.hosts.monitored_app_log_path.as_deref(), Some(Path::new("/var/log/monitored-apps")));
    let certificates = Path::new("/usr/local/share/ca-certificates");
    assert_eq!(config.hosts.otp_tls_certificates.as_deref(), Some(certificates));
    let [app, gleam] = config.applications.as_slice() else { panic!("two applications") };
    assert_eq!(app.replicas.get(), 2);
    assert_eq!(app.ports, [PortBase { key: "PORT".to_owned(), base: 4000 }]);
    assert_eq!(app.rollback_timeout, Millis(300_000));
    assert_eq!(app.deploy.strategy, Strategy::StartFirst);
    let atom = Some(Threshold { warning: 75, restart: None, cooldown: Millis(300_000) });
    assert_eq!(app.monitoring, VmMonitoring { atom, ..VmMonitoring::default() });
    let env: Vec<String> = app
        .env
        .iter()
        .map(|it| match &it.value {
            EnvValue::Plain(text) => format!("{}={text}", it.key),
            EnvValue::FromSecret(name) => format!("{} from {name}", it.key),
        })
        .collect();
    assert_eq!(env, ["MYPHOENIXAPP_PHX_SERVER=true", "NUMBER=123", "AWS_REGION=sa-east-1", "NOTHING="]);
    assert_eq!((gleam.language, gleam.replicas.get(), gleam.ports.len()), (Language::Gleam, 3, 0));
    assert_eq!(config.notices, Vec::<String>::new());
    let memory = Threshold { warning: 75, restart: Some(90), cooldown: Millis(300_000) };
    assert_eq!(config.monitoring, HostMonitoring { memory: Some(memory), disk: Some(Threshold::OF_DISKS) });
}

#[test]
fn what_is_watched_on_hosts_is_what_is_listed_and_the_disk() {
    let of = |yaml: &str| read(yaml, &[]).unwrap().monitoring;
    assert_eq!(of("port: 5001\n"), HostMonitoring { memory: None, disk: Some(Threshold::OF_DISKS) });
    let said = of(
        "monitoring:\n  - { type: memory, enable_restart: false, warning_threshold_percent: 60 }\n  - { type: disk, warning_threshold_percent: 80 }\n  - { type: atom }\n",
    );
    let memory = Threshold { warning: 60, restart: None, cooldown: Millis(300_000) };
    let disk = Threshold { warning: 80, ..Threshold::OF_DISKS };
    assert_eq!(said, HostMonitoring { memory: Some(memory), disk: Some(disk) });
    let later = read("monitoring: [{ type: memory }, { type: atom }]\n", &[]).unwrap().not_yet_in_force();
    assert_eq!(
        later,
        [
            "monitoring is not yet in force: this program is no Erlang VM and has no atoms, processes or ports of its own; \
             memory and disk of hosts are watched, and VMs where their application's `monitoring` says so"
        ]
    );
}

#[test]
fn what_is_watched_of_a_replica_is_what_is_listed() {
    let of = |list: &str| {
        let yaml = format!("applications: [{{ name: shop, monitoring: {list} }}]\n");
        read(&yaml, &[]).unwrap().applications.remove(0).monitoring
    };
    assert_eq!(of("[]"), VmMonitoring::default());
    let usual = Some(Threshold { warning: 75, restart: Some(90), cooldown: Millis(300_000) });
    let expected = VmMonitoring { atom: usual, process: usual, port: usual, memory: usual };
    assert_eq!(of("[{ type: port }, { type: memory }, { type: atom }, { type: process }]"), expected);
    let own = of(
        "[{ type: atom, warning_threshold_percent: 80, restart_threshold_percent: 80, cooldown_ms: 10s }]",
    );
    let atom = Some(Threshold { warning: 80, restart: Some(80), cooldown: Millis(10_000) });
    assert_eq!(own, VmMonitoring { atom, ..VmMonitoring::default() });
}

#[test]
fn what_is_taken_and_not_yet_used_is_said_in_words() {
    let sentences = read(OF_0_9, &[]).unwrap().not_yet_in_force();
    insta::assert_snapshot!(sentences.join("\n"), @"
    release_adapter is not yet in force: releases cannot be fetched from s3 yet, only from a folder (local)
    secrets_adapter is not yet in force: secrets cannot be fetched from aws yet, only from variables (env) or a file
    log_path is not yet in force: both programs log to standard error
    notifications is not yet in force: nothing is sent
    logs_retention_time_ms is not yet in force: logs are read from the hosts' files, which it does not bound
    applications[myphoenixapp].certificates is not yet in force: no certificates are ordered
    ");
}

#[test]
fn no_secret_of_a_file_is_in_its_debug_output() {
    let shown = format!("{:?}", read(OF_0_9, &[]).unwrap());
    for secret in ["ABC123GHB", "abc123", "hooks/deployex"] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

#[test]
fn a_file_of_0_4_has_its_time_outs_on_top_and_one_port() {
    let yaml = r#"
account_name: "prod"
release_adapter: "gcp-storage"
release_bucket: "myapp-prod-distribution"
version: "0.4.0"
otp_version: 26
os_target: "ubuntu-20.04"
deploy_timeout_rollback_ms: 120000
deploy_schedule_interval_ms: 7000
applications:
  - name: "myapp"
    initial_port: 4050
    replicas: 2
"#;
    let config = read(yaml, &[]).unwrap();
    let app = &config.applications[0];
    assert_eq!((app.rollback_timeout, app.schedule_interval), (Millis(120_000), Millis(7_000)));
    assert_eq!(app.ports, [PortBase { key: "PORT".to_owned(), base: 4050 }]);

    let renamed = yaml.replace("deploy_timeout_rollback_ms", "deploy_rollback_timeout_ms");
    assert_eq!(read(&renamed, &[]).unwrap().applications[0].rollback_timeout, Millis(120_000));
}

#[test]
fn the_variables_of_0_3_alone_behave_as_0_3_did() {
    let config = variables_alone(&[
        ("DEPLOYEX_MONITORED_APP_NAME", "myapp"),
        ("DEPLOYEX_MONITORED_APP_LANG", "gleam"),
        ("DEPLOYEX_CLOUD_ENVIRONMENT", "stage"),
        ("DEPLOYEX_PHX_HOST", "deployex.example.com"),
        ("DEPLOYEX_PHX_PORT", "5011"),
        ("DEPLOYEX_PHX_SERVER", "false"),
        ("DEPLOYEX_RELEASE_ADAPTER", "local"),
        ("DEPLOYEX_RELEASE_BUCKET", "/tmp/myapp"),
        ("DEPLOYEX_SECRETS_ADAPTER", "env"),
        ("DEPLOYEX_MONITORED_APP_PORT", "4100"),
        ("DEPLOYEX_MONITORED_REPLICAS", "2"),
        ("DEPLOYEX_DEPLOY_TIMEOUT_ROLLBACK_MS", "60000"),
        ("DEPLOYEX_DEPLOY_SCHEDULE_INTERVAL_MS", "1000"),
        ("AWS_REGION", "sa-east-1"),
        ("PATH", "/usr/bin"),
    ])
    .unwrap();
    let app = &config.applications[0];
    assert_eq!((app.name.as_str(), app.language, app.replicas.get()), ("myapp", Language::Gleam, 2));
    assert_eq!(app.ports, [PortBase { key: "PORT".to_owned(), base: 4100 }]);
    assert_eq!((app.deploy.strategy, app.ready), (Strategy::StopFirst, ReadyWhen::Process));
    assert_eq!((app.rollback_timeout, app.schedule_interval), (Millis(60_000), Millis(1_000)));
    assert_eq!((config.console.port, config.console.served), (5011, false));
    assert_eq!(config.releases.account_name, "stage");
    assert_eq!(config.releases.bucket, "/tmp/myapp");
    assert_eq!(config.releases.aws_region.as_deref(), Some("sa-east-1"));
    assert_eq!(config.notices, Vec::<String>::new());
}

#[test]
fn nothing_at_all_is_every_default() {
    let config = variables_alone(&[("DEPLOYEX_PHX_PORT", "")]).unwrap();
    assert_eq!(config.console.port, 5001);
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/deployex"));
    assert_eq!(config.database_url.expose(), "sqlite:///var/lib/deployex/control-plane/deployex.db");
    assert_eq!(
        (config.releases.bucket.as_str(), config.releases.account_name.as_str()),
        ("/tmp/deployex/bucket", "local")
    );
    assert!(config.applications.is_empty());
}

#[test]
fn a_variable_wins_over_the_file_and_a_flag_over_the_variable() {
    let yaml = "port: 5003\ndatabase_url: sqlite:///file.db\napplications:\n  - name: myapp\n    replicas: 4\n    replica_ports: [{ key: HTTP, base: 4000 }]\n";
    let said = [
        ("DEPLOYEX_PHX_PORT", "5004"),
        ("DEPLOYEX_DATABASE_URL", "sqlite:///variable.db"),
        ("DEPLOYEX_DATA_DIR", "/variable"),
        ("DEPLOYEX_MONITORED_APP_NAME", "myapp"),
        ("DEPLOYEX_MONITORED_APP_PORT", "4200"),
        ("DEPLOYEX_MONITORED_REPLICAS", "1"),
    ];
    let config = read(yaml, &said).unwrap();
    assert_eq!(config.console.port, 5004);
    assert_eq!(config.database_url.expose(), "sqlite:///variable.db");
    assert_eq!(config.data_dir, PathBuf::from("/variable"));
    let app = &config.applications[0];
    assert_eq!((app.ports[0].key.as_str(), app.ports[0].base, app.replicas.get()), ("HTTP", 4200, 1));
    // Declared by the file, so not as 0.3 ran it.
    assert_eq!((app.deploy.strategy, app.ready), (Strategy::StartFirst, ReadyWhen::Default));

    let flags = Flags {
        data_dir: Some("/flag".into()),
        database_url: Some(super::DatabaseUrl::new("sqlite:///flag.db".to_owned())),
        ..Flags::default()
    };
    let variables: BTreeMap<String, String> =
        said.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let config = Config::read(Some((Path::new("f"), yaml.as_bytes())), &flags, &variables).unwrap();
    assert_eq!(
        (config.database_url.expose(), config.data_dir),
        ("sqlite:///flag.db", PathBuf::from("/flag"))
    );
}

/// File, variables, and what is said.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

#[test]
fn a_wrong_variable_is_named_instead_of_a_line() {
    let faults = |yaml: &str, variables: &[(&str, &str)]| {
        let text = read(yaml, variables).unwrap_err().to_string();
        text.lines().skip(1).map(|it| it.trim().to_owned()).collect::<Vec<_>>().join("\n")
    };
    let two = "applications: [{ name: one }, { name: two }]\n";
    let cases: &[Case<'_>] = &[
        (
            "",
            &[("DEPLOYEX_PHX_PORT", "http")],
            r#"DEPLOYEX_PHX_PORT: found "http"; allowed: a port from 1 to 65535, without quotes"#,
        ),
        (
            "",
            &[("DEPLOYEX_DATABASE_URL", "mysql://root:s3cret@x/y")],
            "DEPLOYEX_DATABASE_URL: found something else (not shown: it may hold a password); \
             allowed: sqlite:///PATH or postgres://USER:PASSWORD@HOST/DATABASE",
        ),
        (
            "",
            &[("DEPLOYEX_MONITORED_REPLICAS", "2")],
            "DEPLOYEX_MONITORED_REPLICAS: found no application that it could speak of \
             (DEPLOYEX_MONITORED_APP_NAME is not set); set DEPLOYEX_MONITORED_APP_NAME too, or name the application in the file",
        ),
        (
            two,
            &[("DEPLOYEX_MONITORED_REPLICAS", "2")],
            "DEPLOYEX_MONITORED_REPLICAS: found 2 applications in the file: one or two; \
             unset it, and write the value under the application it is for",
        ),
        (
            two,
            &[("DEPLOYEX_MONITORED_APP_NAME", "one")],
            "DEPLOYEX_MONITORED_APP_NAME: found one, while the file names one, two; \
             unset the DEPLOYEX_MONITORED_* variables; the file names the applications",
        ),
        (
            "applications: [{ name: one }]\n",
            &[("DEPLOYEX_MONITORED_APP_NAME", "two")],
            "DEPLOYEX_MONITORED_APP_NAME: found two, while the file names one; \
             unset the DEPLOYEX_MONITORED_* variables; the file names the applications",
        ),
        (
            "release_adapter: local\n",
            &[("DEPLOYEX_RELEASE_ADAPTER", "ftp")],
            r#"DEPLOYEX_RELEASE_ADAPTER: found "ftp"; allowed: s3, gcp-storage or local"#,
        ),
    ];
    for (yaml, variables, expected) in cases {
        assert_eq!(faults(yaml, variables), *expected);
    }
}

#[test]
fn a_misspelt_variable_is_noticed() {
    let config = variables_alone(&[("DEPLOYEX_PHX_HSOT", "x")]).unwrap();
    assert_eq!(
        config.notices[0],
        "the variable DEPLOYEX_PHX_HSOT means nothing to deployex; did you mean DEPLOYEX_PHX_HOST?"
    );
}

#[test]
fn the_demo_stays_on_loopback_and_out_of_the_way() {
    let demo = Flags { demo: true, ..Flags::default() };
    let config = Config::read(None, &demo, &BTreeMap::new()).unwrap();
    assert!(config.console.bind.is_loopback() && config.agents.bind.is_loopback());
    assert_eq!(config.data_dir, PathBuf::from("/tmp/deployex/varlib"));
    let open = "bind: 0.0.0.0\n";
    let faults = Config::read(Some((Path::new("f"), open.as_bytes())), &demo, &BTreeMap::new()).unwrap_err();
    assert_eq!(
        faults.faults[0].message(),
        "found 0.0.0.0 together with --demo, whose password everybody knows; allowed: 127.0.0.1 or ::1; or start without --demo"
    );
}

#[test]
fn the_example_file_parses_and_has_no_key_that_is_not_in_force() {
    let config = read(include_str!("../../deployex.example.yaml"), &[]).unwrap();
    assert_eq!(config.not_yet_in_force(), [""; 0]);
    assert_eq!(config.notices, Vec::<String>::new());
    assert_eq!(config.applications.len(), 2);
}

#[test]
fn probes_are_read_with_their_defaults() {
    let yaml = "applications:\n  - name: myapp\n    replicas: 1\n    replica_ports: [{ key: PORT, base: 4000 }]\n    \
        ready: [{ http: { path: /health } }, { exec: { command: bin/ok }, interval_ms: 5s, timeout_ms: 9s, after: 1 }]\n    \
        live: [{ tcp: }, process, { otp: }, { otp: { application: shop } }]\n";
    let config = read(yaml, &[]).unwrap();
    let app = &config.applications[0];
    let said = |probes: &[crate::spec::Probe]| probes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(app.ready, ReadyWhen::Default);
    assert_eq!(
        said(&app.ready_probes),
        [
            "http /health on the first port expecting 200 within 2000 ms after 2",
            "exec `bin/ok` every 5000 ms within 9000 ms after 1",
        ]
    );
    assert_eq!(
        said(&app.live),
        [
            "tcp on the first port within 2000 ms after 3",
            "process",
            "otp of the application's own name within 2000 ms after 3",
            "otp of shop within 2000 ms after 3",
        ]
    );
    assert_eq!(config.not_yet_in_force(), Vec::<String>::new());
    for process in ["process", "[process]", "[{ process: , after: 1 }]"] {
        let yaml = format!("applications: [{{ name: myapp, ready: {process} }}]\n");
        let app = read(&yaml, &[]).unwrap().applications.remove(0);
        assert_eq!((app.ready, app.ready_probes), (ReadyWhen::Process, Vec::new()), "{process}");
    }
}

#[test]
fn what_is_wished_of_hot_upgrades_is_read_and_in_force() {
    let wished = |deploy: &str| {
        let config =
            read(&format!("applications: [{{ name: hot, language: erlang{deploy} }}]\n"), &[]).unwrap();
        assert_eq!(config.not_yet_in_force(), Vec::<String>::new());
        config.applications[0].deploy.hot_upgrade.word()
    };
    let said = |word| wished(&format!(", deploy: {{ hot_upgrade: {word} }}"));
    assert_eq!(["auto", "require", "never"].map(said), ["auto", "require", "never"]);
    assert_eq!(wished(""), "auto", "as in DeployEx 0.x, which had no such key");
}

#[test]
fn what_the_example_file_comments_out_parses_too() {
    let text = include_str!("../../deployex.example.yaml");
    // A commented key is `# key:`, `#   key:` below it or `# - `; prose never looks like one.
    let is_key = |rest: &str| {
        let word = rest.trim_start().split(':').next().unwrap_or_default();
        rest.contains(':') && !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let uncommented: String = text
        .lines()
        .map(|line| match line.trim_start().strip_prefix("# ") {
            Some(rest) if is_key(rest) => {
                format!("{}{rest}\n", &line[..line.len() - line.trim_start().len()])
            }
            _ => format!("{line}\n"),
        })
        .collect();
    // Words of prose that end in a colon would be unknown keys.
    let config = read(&uncommented, &[]).unwrap_or_else(|error| panic!("{error}\n{uncommented}"));
    assert!(config.console.tls.is_some());
    assert_eq!(config.agents_address("box").address.to_string(), "deployex.example.com:5002");
}
