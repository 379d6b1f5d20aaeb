//! The variables of DeployEx 0.3.0 that speak of applications, laid over what the file says of them.
//!
//! Alone they declare one application that behaves as 0.3.0 did: replaced in place, ready when its process lives. Those that
//! speak of the control plane are read beside their keys (`settings`).

use proto::ids::AppName;
use proto::state::{Language, Strategy};

use super::application::{LANGUAGES, Written, name, replicas};
use super::fault::{Located, Sink, nearest, one_of};
use super::fields::{Path, read_variable};
use super::rules;
use super::settings::ForAll;
use crate::spec::{AppSpec, PortBase, ReadyWhen};

const NAME: &str = "DEPLOYEX_MONITORED_APP_NAME";
const LANG: &str = "DEPLOYEX_MONITORED_APP_LANG";
const PORT: &str = "DEPLOYEX_MONITORED_APP_PORT";
const REPLICAS: &str = "DEPLOYEX_MONITORED_REPLICAS";
const TIMEOUT: &str = "DEPLOYEX_DEPLOY_TIMEOUT_ROLLBACK_MS";
const INTERVAL: &str = "DEPLOYEX_DEPLOY_SCHEDULE_INTERVAL_MS";
const FIRST_PORT: u16 = 4000;

/// Everything of ours that a process environment may hold. Others that begin alike are misspelt, or forgotten.
const KNOWN: [&str; 25] = [
    NAME,
    LANG,
    PORT,
    REPLICAS,
    TIMEOUT,
    INTERVAL,
    "DEPLOYEX_ADMIN_HASHED_PASSWORD",
    "DEPLOYEX_CLOUD_ENVIRONMENT",
    "DEPLOYEX_CONFIG_YAML_PATH",
    "DEPLOYEX_DATABASE_URL",
    "DEPLOYEX_DATA_DIR",
    "DEPLOYEX_ERLANG_COOKIE",
    "DEPLOYEX_OTP_TLS_CERT_PATH",
    "DEPLOYEX_PHX_HOST",
    "DEPLOYEX_PHX_PORT",
    "DEPLOYEX_PHX_SERVER",
    "DEPLOYEX_RELEASE_ADAPTER",
    "DEPLOYEX_RELEASE_BUCKET",
    "DEPLOYEX_SECRETS_ADAPTER",
    "DEPLOYEX_SECRETS_PATH",
    "DEPLOYEX_SECRET_KEY_BASE",
    "DEPLOYEX_TOKEN",
    "DEPLOYEX_URL",
    "DEPLOYEX_LOG",
    "DEPLOYEX_LOG_FORMAT",
];

struct Said {
    name: Option<Located<AppName>>,
    language: Option<Located<Language>>,
    port: Option<Located<u16>>,
    replicas: Option<Located<std::num::NonZeroU16>>,
}

pub(super) fn overlay(apps: &mut Vec<Written>, for_all: ForAll, sink: &Sink<'_>) {
    let said = Said {
        name: read_variable(sink, NAME, name),
        language: read_variable(sink, LANG, rules::word(&LANGUAGES)),
        port: read_variable(sink, PORT, rules::port),
        replicas: read_variable(sink, REPLICAS, replicas),
    };
    if let Some(app) = which(apps, &said, for_all, sink) {
        app.spec.language = said.language.map_or(app.spec.language, |it| it.value);
        app.spec.replicas = said.replicas.map_or(app.spec.replicas, |it| it.value);
        if let Some(port) = said.port {
            first_port(app, port);
        }
    }
    let timeout = read_variable(sink, TIMEOUT, rules::millis(1_000..=30 * 86_400_000));
    let interval = read_variable(sink, INTERVAL, rules::millis(100..=86_400_000));
    for app in apps {
        app.spec.rollback_timeout = timeout.as_ref().map_or(app.spec.rollback_timeout, |it| it.value);
        app.spec.schedule_interval = interval.as_ref().map_or(app.spec.schedule_interval, |it| it.value);
    }
    unknown(sink);
}

/// The application that the variables speak of.
fn which<'a>(
    apps: &'a mut Vec<Written>,
    said: &Said,
    for_all: ForAll,
    sink: &Sink<'_>,
) -> Option<&'a mut Written> {
    let names: Vec<String> = apps.iter().map(|it| it.spec.name.to_string()).collect();
    match &said.name {
        Some(name) if apps.is_empty() => {
            apps.push(declared(name, for_all));
            apps.first_mut()
        }
        Some(name) => {
            if names.iter().any(|it| *it != name.value.as_str()) {
                let found = format!("{}, while the file names {}", name.value, names.join(", "));
                sink.fault(
                    name.origin.clone(),
                    "",
                    found,
                    "unset the DEPLOYEX_MONITORED_* variables; the file names the applications",
                );
                return None;
            }
            apps.first_mut()
        }
        None => {
            let first = said.language.as_ref().map(|it| &it.origin);
            let first = first.or(said.port.as_ref().map(|it| &it.origin));
            let first = first.or(said.replicas.as_ref().map(|it| &it.origin))?;
            match apps.as_mut_slice() {
                [only] => return Some(only),
                [] => sink.fault(
                    first.clone(),
                    "",
                    format!("no application that it could speak of ({NAME} is not set)"),
                    format!("set {NAME} too, or name the application in the file"),
                ),
                _ => sink.fault(
                    first.clone(),
                    "",
                    format!(
                        "{} applications in the file: {}",
                        names.len(),
                        one_of(names.iter().map(String::as_str))
                    ),
                    "unset it, and write the value under the application it is for",
                ),
            }
            None
        }
    }
}

/// As 0.3.0 ran its one application.
fn declared(name: &Located<AppName>, for_all: ForAll) -> Written {
    let mut spec = AppSpec::new(name.value.clone(), Language::Elixir);
    spec.deploy.strategy = Strategy::StopFirst;
    spec.deploy.stable_after = for_all.stable_after.unwrap_or(spec.deploy.stable_after);
    spec.rollback_timeout = for_all.rollback_timeout.unwrap_or(spec.rollback_timeout);
    spec.schedule_interval = for_all.schedule_interval.unwrap_or(spec.schedule_interval);
    spec.ready = ReadyWhen::Process;
    spec.ports = vec![PortBase { key: "PORT".to_owned(), base: FIRST_PORT }];
    let at = name.origin.clone();
    Written {
        spec,
        path: Path::default().key("applications").item(name.value.as_str()),
        strategy: None,
        bases: vec![at.clone()],
        distribution: at.clone(),
        at,
        upstream_file: None,
    }
}

fn first_port(app: &mut Written, port: Located<u16>) {
    match (app.spec.ports.first_mut(), app.bases.first_mut()) {
        (Some(first), Some(at)) => {
            first.base = port.value;
            *at = port.origin;
        }
        _ => {
            app.spec.ports.push(PortBase { key: "PORT".to_owned(), base: port.value });
            app.bases.push(port.origin);
        }
    }
}

fn unknown(sink: &Sink<'_>) {
    for name in
        sink.variables.keys().filter(|it| it.starts_with("DEPLOYEX_") && !KNOWN.contains(&it.as_str()))
    {
        let near = nearest(name, KNOWN).map_or(String::new(), |it| format!("; did you mean {it}?"));
        sink.notice(format!("the variable {name} means nothing to deployex{near}"));
    }
}
