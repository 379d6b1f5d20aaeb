//! The top level of `deployex.yaml`, but for `applications`: what concerns the control plane, its hosts and its bucket.
//!
//! Reads and checks; what follows from values of several applications together is `ports`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use serde_json::Value;

use super::fault::{Origin, shown};
use super::fields::{Fields, read_variable};
use super::{
    AgentListener, Config, Console, DatabaseUrl, Flags, HostPaths, Otlp, ReleaseAdapter, ReleaseBucket,
    SecretsAdapter, SecretsFrom, TlsFiles, notifications, rules,
};
use crate::config::application::monitoring;
use crate::spec::{Later, Millis};

const DAY_MS: u64 = 86_400_000;
/// Where `--demo` keeps what otherwise lies below `/var/lib`.
const DEMO_VAR: &str = "/tmp/deployex/varlib";
const DEMO_LOG: &str = "/tmp/deployex/varlog";

/// What 0.4 to 0.7 said once for all applications, and what `--demo` shortens.
#[derive(Clone, Copy, Default)]
pub(super) struct ForAll {
    pub rollback_timeout: Option<Millis>,
    pub schedule_interval: Option<Millis>,
    pub stable_after: Option<Millis>,
}

/// Everything but the applications.
pub(super) fn read(f: &mut Fields<'_>, flags: &Flags) -> (Config, ForAll) {
    let data_dir = data_dir(f, flags);
    let mut config = Config::new(&data_dir);
    config.demo = flags.demo;
    config.database_url = database_url(f, flags).unwrap_or(config.database_url);
    config.console = console(f, config.console);
    config.agents = agents(f, flags, config.agents);
    config.releases = releases(f, config.releases);
    config.secrets = secrets(f);
    config.hosts = hosts(f, flags);
    config.monitoring = monitoring::of_hosts(f);
    config.otlp = f.below("metrics").and_then(|mut metrics| {
        let otlp = Otlp::read(&mut metrics).map(Box::new);
        metrics.finish();
        otlp
    });
    config.later = later(f);
    installer_only(f);
    listeners_differ(f, &config);
    demo_stays_at_home(f, &config);
    let for_all = for_all(f, flags);
    (config, for_all)
}

fn data_dir(f: &Fields<'_>, flags: &Flags) -> std::path::PathBuf {
    let variable = read_variable(f.sink, "DEPLOYEX_DATA_DIR", rules::absolute_path).map(|it| it.value);
    let default = if flags.demo { DEMO_VAR } else { Config::DEFAULT_DATA_DIR };
    flags.data_dir.clone().or(variable).unwrap_or_else(|| Path::new(default).to_owned())
}

const DATABASE_URLS: &str = "sqlite:///PATH or postgres://USER:PASSWORD@HOST/DATABASE";

/// Its text is never shown: it may hold a password.
fn database_url(f: &mut Fields<'_>, flags: &Flags) -> Option<DatabaseUrl> {
    let known = |text: &str| {
        ["sqlite://", "postgres://", "postgresql://"]
            .iter()
            .any(|it| text.strip_prefix(it).is_some_and(|rest| !rest.is_empty()))
    };
    let written = f.secret("database_url", |it| {
        if known(it.text) {
            Ok(DatabaseUrl::new(it.text.to_owned()))
        } else {
            Err(rules::Allowed(DATABASE_URLS.to_owned()))
        }
    });
    let said = [
        (Origin::Flag("--database-url"), flags.database_url.clone()),
        (
            Origin::Variable("DEPLOYEX_DATABASE_URL".to_owned()),
            f.sink.variable("DEPLOYEX_DATABASE_URL").map(|it| DatabaseUrl::new(it.to_owned())),
        ),
    ];
    let mut first = None;
    for (origin, url) in said {
        let Some(url) = url else { continue };
        if !known(url.expose()) {
            f.sink.fault(
                origin,
                "",
                "something else (not shown: it may hold a password)",
                format!("allowed: {DATABASE_URLS}"),
            );
        } else if first.is_none() {
            first = Some(url);
        }
    }
    first.or(written)
}

fn console(f: &mut Fields<'_>, default: Console) -> Console {
    let proxies = f.values("trusted_proxies", rules::network);
    Console {
        hostname: f.read_or_variable("hostname", "DEPLOYEX_PHX_HOST", rules::host),
        bind: f.read("bind", rules::ip).unwrap_or(default.bind),
        port: f.read_or_variable("port", "DEPLOYEX_PHX_PORT", rules::port).unwrap_or(default.port),
        served: read_variable(f.sink, "DEPLOYEX_PHX_SERVER", rules::boolean).is_none_or(|it| it.value),
        tls: tls(f),
        trusted_proxies: proxies
            .map_or(default.trusted_proxies, |all| all.into_iter().map(|it| it.value).collect()),
    }
}

fn tls(f: &mut Fields<'_>) -> Option<TlsFiles> {
    let mut tls = f.below("tls")?;
    let certificate = tls.required("certificate", rules::absolute_path);
    let key = tls.required("key", rules::absolute_path);
    tls.finish();
    Some(TlsFiles { certificate: certificate?, key: key? })
}

fn agents(f: &mut Fields<'_>, flags: &Flags, mut agents: AgentListener) -> AgentListener {
    if flags.demo {
        agents.bind = IpAddr::from(Ipv4Addr::LOCALHOST);
    }
    if let Some(mut below) = f.below("agents") {
        agents.bind = below.read("bind", rules::ip).unwrap_or(agents.bind);
        agents.port = below.read("port", rules::port).unwrap_or(agents.port);
        agents.public = below.read("public", rules::host_and_port);
        below.finish();
    }
    agents
}

const RELEASE_ADAPTERS: [(&str, ReleaseAdapter); 3] = [
    ("s3", ReleaseAdapter::S3),
    ("gcp-storage", ReleaseAdapter::GcpStorage),
    ("local", ReleaseAdapter::Local),
];

fn releases(f: &mut Fields<'_>, default: ReleaseBucket) -> ReleaseBucket {
    let adapter = f
        .read_or_variable("release_adapter", "DEPLOYEX_RELEASE_ADAPTER", rules::word(&RELEASE_ADAPTERS))
        .unwrap_or(default.adapter);
    let bucket = f.read_or_variable("release_bucket", "DEPLOYEX_RELEASE_BUCKET", rules::text);
    match (adapter, bucket.as_deref()) {
        (ReleaseAdapter::Local, Some(folder)) if !folder.starts_with('/') => f.sink.notice(format!(
            "release_bucket {folder} is a relative path: it is looked for in the folder where deployex was started"
        )),
        (ReleaseAdapter::S3 | ReleaseAdapter::GcpStorage, None) => {
            let found = format!("no bucket for release_adapter {}", adapter.word());
            f.fault("release_bucket", found, "write release_bucket, or set DEPLOYEX_RELEASE_BUCKET");
        }
        (ReleaseAdapter::S3 | ReleaseAdapter::GcpStorage, Some(name)) if name.contains(['/', ' ']) => {
            f.fault("release_bucket", shown(name), "allowed: the bucket's name alone");
        }
        _ => {}
    }
    ReleaseBucket {
        adapter,
        bucket: bucket.unwrap_or(default.bucket),
        account_name: f
            .read_or_variable("account_name", "DEPLOYEX_CLOUD_ENVIRONMENT", rules::path_part)
            .unwrap_or(default.account_name),
        aws_region: f.read_or_variable("aws_region", "AWS_REGION", rules::path_part),
        google_credentials: f.read_or_variable(
            "google_credentials",
            "GOOGLE_APPLICATION_CREDENTIALS",
            rules::absolute_path,
        ),
    }
}

const SECRETS_ADAPTERS: [(&str, SecretsAdapter); 4] = [
    ("aws", SecretsAdapter::Aws),
    ("gcp", SecretsAdapter::Gcp),
    ("env", SecretsAdapter::Env),
    ("file", SecretsAdapter::File),
];

fn secrets(f: &mut Fields<'_>) -> SecretsFrom {
    let adapter = f
        .read_or_variable("secrets_adapter", "DEPLOYEX_SECRETS_ADAPTER", rules::word(&SECRETS_ADAPTERS))
        .unwrap_or(SecretsAdapter::Env);
    let path = f.read_or_variable("secrets_path", "DEPLOYEX_SECRETS_PATH", rules::text);
    match (adapter, path.as_deref()) {
        (SecretsAdapter::Env, _) => {}
        (_, None) => {
            let found = format!("no path for secrets_adapter {}", adapter.word());
            f.fault("secrets_path", found, "write secrets_path, or set DEPLOYEX_SECRETS_PATH");
        }
        (SecretsAdapter::File, Some(path)) if !path.starts_with('/') => {
            f.fault("secrets_path", shown(path), "allowed: an absolute path, for secrets_adapter file");
        }
        _ => {}
    }
    SecretsFrom { adapter, path }
}

fn hosts(f: &mut Fields<'_>, flags: &Flags) -> HostPaths {
    let demo = |path: &str| flags.demo.then(|| Path::new(path).to_owned());
    HostPaths {
        var_path: f.read("var_path", rules::absolute_path).or_else(|| demo(DEMO_VAR)),
        log_path: f.read("log_path", rules::absolute_path),
        monitored_app_log_path: f
            .read("monitored_app_log_path", rules::absolute_path)
            .or_else(|| demo(DEMO_LOG)),
        otp_tls_certificates: f.read_or_variable(
            "otp_tls_certificates",
            "DEPLOYEX_OTP_TLS_CERT_PATH",
            rules::absolute_path,
        ),
    }
}

/// How long 0.x kept in memory what its console showed.
const RETENTIONS: [&str; 2] = ["metrics_retention_time_ms", "logs_retention_time_ms"];

/// Checked now, used by parts that are not in force yet.
fn later(f: &mut Fields<'_>) -> Later {
    let mut later = Later::default();
    let keep = |later: &mut Later, f: &mut Fields<'_>, key: &'static str| {
        if let Some(node) = f.node(key) {
            later.0.insert(key.to_owned(), node.to_json());
        }
    };
    f.read("release_endpoint", rules::url(&["https", "http"]));
    f.read("release_signature_key", rules::text);
    for key in RETENTIONS {
        f.read(key, rules::millis(1_000..=365 * DAY_MS));
    }
    notifications::read(f);
    let others = ["release_endpoint", "release_signature_key", "monitoring", "notifications"];
    for key in others.into_iter().chain(RETENTIONS) {
        keep(&mut later, f, key);
    }
    if let Some(Value::Array(watched)) = later.0.get_mut("monitoring") {
        watched.retain(|it| it["type"].as_str().is_none_or(|word| !monitoring::is_in_force(word)));
        if watched.is_empty() {
            later.0.remove("monitoring");
        }
    }
    later
}

/// 0.x kept what its installer needs in the same file.
fn installer_only(f: &mut Fields<'_>) {
    f.read("version", rules::text);
    f.read("otp_version", rules::text);
    f.read("os_target", rules::text);
    f.read("install_path", rules::absolute_path);
}

fn for_all(f: &mut Fields<'_>, flags: &Flags) -> ForAll {
    let timeout = || rules::millis(1_000..=30 * DAY_MS);
    // 0.4.0 had the words of the first key the other way round.
    let oldest = f.read("deploy_timeout_rollback_ms", timeout());
    ForAll {
        rollback_timeout: f.read("deploy_rollback_timeout_ms", timeout()).or(oldest),
        schedule_interval: f.read("deploy_schedule_interval_ms", rules::millis(100..=DAY_MS)),
        stable_after: flags.demo.then_some(Millis(3_000)),
    }
}

fn listeners_differ(f: &mut Fields<'_>, config: &Config) {
    let (console, agents) = (&config.console, &config.agents);
    let overlap =
        console.bind == agents.bind || console.bind.is_unspecified() || agents.bind.is_unspecified();
    if console.port == agents.port && overlap {
        f.fault(
            "agents",
            format!("port {}, which is the console's too", agents.port),
            "give agents.port and port different numbers",
        );
    }
}

/// Everybody knows the demo's password.
fn demo_stays_at_home(f: &mut Fields<'_>, config: &Config) {
    if config.demo && !config.console.bind.is_loopback() {
        let found = format!("{} together with --demo, whose password everybody knows", config.console.bind);
        f.fault("bind", found, "allowed: 127.0.0.1 or ::1; or start without --demo");
    }
}
