//! One entry of `applications`: from its keys to an [`AppSpec`], with the places that later checks need to point at.

mod certificates;
mod deploy;
pub(super) mod monitoring;
mod nginx;
mod probes;
mod telemetry;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use proto::ids::{AppName, Slot};
use proto::state::{Language, Strategy};

use super::fault::{Located, Origin};
use super::fields::{Fields, Path};
use super::rules::{self, Allowed, Checked, Scalar};
use super::settings::ForAll;
use crate::spec::{AppSpec, EnvEntry, EnvValue, Later, PortBase, RunAs};

const DAY_MS: u64 = 86_400_000;

/// An application as it was read, with where its parts stand.
pub(super) struct Written {
    pub spec: AppSpec,
    pub path: Path,
    /// Where it begins.
    pub at: Origin,
    /// `None`: not written, so that the default may give way to a port.
    pub strategy: Option<Located<Strategy>>,
    /// Of each of `spec.ports`.
    pub bases: Vec<Origin>,
    pub distribution: Origin,
    pub upstream_file: Option<Origin>,
}

/// Every application of the file. One without a readable name is left out: everything is kept under it.
pub(super) fn read_all(f: &mut Fields<'_>, for_all: ForAll) -> Vec<Written> {
    let mut all: Vec<Written> = Vec::new();
    let mut first: BTreeMap<AppName, Origin> = BTreeMap::new();
    for item in f.items("applications", "name") {
        let Some(mut fields) = Fields::open(f.sink, item.node, item.path) else { continue };
        let written = read(&mut fields, for_all);
        fields.finish();
        let Some(written) = written else { continue };
        if let Some(Origin::File { line, .. }) = first.get(&written.spec.name) {
            let advice = format!("a name stands once; the first is on line {line}");
            f.sink.fault(
                written.at.clone(),
                written.path.as_str(),
                "a second application of this name",
                advice,
            );
        } else {
            first.insert(written.spec.name.clone(), written.at.clone());
        }
        all.push(written);
    }
    nginx::check(&all, f.sink);
    all
}

pub(super) const LANGUAGES: [(&str, Language); 3] =
    [("elixir", Language::Elixir), ("erlang", Language::Erlang), ("gleam", Language::Gleam)];

pub(super) fn name(scalar: Scalar<'_>) -> Checked<AppName> {
    let allowed = "1 to 64 of a-z A-Z 0-9 _ - that begin with a letter or digit";
    scalar.text.parse().map_err(|_| Allowed(allowed.to_owned()))
}

/// One slot more than the replicas is used while a release is replaced.
pub(super) fn replicas(scalar: Scalar<'_>) -> Checked<NonZeroU16> {
    let most = u64::from(Slot::MAX) - 1;
    let number = rules::whole::<u16>(1..=most)(scalar)?;
    NonZeroU16::new(number).ok_or_else(|| Allowed("at least 1".to_owned()))
}

fn read(f: &mut Fields<'_>, for_all: ForAll) -> Option<Written> {
    let name = f.required("name", name);
    let language = f.read("language", rules::word(&LANGUAGES)).unwrap_or(Language::Elixir);
    // What follows is checked under any name.
    let named = name.clone().or_else(|| "unnamed".parse().ok())?;
    let mut spec = AppSpec::new(named, language);
    spec.rollback_timeout = for_all.rollback_timeout.unwrap_or(spec.rollback_timeout);
    spec.schedule_interval = for_all.schedule_interval.unwrap_or(spec.schedule_interval);
    spec.deploy.stable_after = for_all.stable_after.unwrap_or(spec.deploy.stable_after);

    spec.replicas = f.read("replicas", replicas).unwrap_or(spec.replicas);
    spec.spread = f.read("spread", replicas);
    if spec.spread.is_some() && f.has("replicas") {
        f.fault(
            "spread",
            "spread beside replicas",
            "write one of the two: spread counts over all nodes, replicas per node",
        );
    }
    if let Some(mut nodes) = f.below("nodes") {
        spec.nodes = nodes.pairs(rules::label, rules::label);
        nodes.finish();
    }
    let (ports, bases) = ports(f).into_iter().unzip();
    spec.ports = ports;
    spec.env = env(f);
    spec.env_file = f.read("env_file", rules::absolute_path).map(|it| it.display().to_string());
    if let Some(mut run_as) = f.below("run_as") {
        let user = run_as.required("user", rules::account);
        let group = run_as.read("group", rules::account);
        spec.run_as = RunAs { user: user.unwrap_or(spec.run_as.user), group };
        run_as.finish();
    }
    let timeout = rules::millis(1_000..=30 * DAY_MS);
    spec.rollback_timeout = f.read("deploy_rollback_timeout_ms", timeout).unwrap_or(spec.rollback_timeout);
    let interval = rules::millis(100..=DAY_MS);
    spec.schedule_interval =
        f.read("deploy_schedule_interval_ms", interval).unwrap_or(spec.schedule_interval);
    let strategy = deploy::deploy(f, &mut spec.deploy);
    deploy::restart(f, &mut spec.restart);
    (spec.ready, spec.ready_probes) = probes::ready(f, &spec.ports);
    spec.live = probes::live(f, &spec.ports);
    let distribution = f.node("distribution").map_or_else(|| f.at.clone(), |it| it.at.clone());
    deploy::distribution(f, &mut spec.distribution);
    spec.cluster = deploy::cluster(f, &spec.distribution);
    deploy::limits(f, &mut spec.limits);
    let upstream_file = nginx::read(f, &mut spec);
    spec.monitoring = monitoring::of_applications(f);
    spec.telemetry = telemetry::events(f);
    checked_only(f);
    spec.later = later(f);
    name?;
    Some(Written {
        spec,
        path: f.path.clone(),
        at: f.at.clone(),
        strategy,
        bases,
        distribution,
        upstream_file,
    })
}

fn ports(f: &mut Fields<'_>) -> Vec<(PortBase, Origin)> {
    let mut ports: Vec<(PortBase, Origin)> = Vec::new();
    // 0.4 to 0.6 knew one port.
    if let Some(base) = f.located("initial_port", rules::port) {
        if f.has("replica_ports") {
            f.fault("initial_port", "initial_port beside replica_ports", "keep replica_ports alone");
        } else {
            ports.push((PortBase { key: "PORT".to_owned(), base: base.value }, base.origin));
        }
    }
    for item in f.items("replica_ports", "key") {
        let Some(mut port) = Fields::open(f.sink, item.node, item.path) else { continue };
        let key = port.required("key", rules::variable_name);
        let base = port.required("base", rules::port);
        if let Some(key) = key.as_ref().filter(|key| ports.iter().any(|(it, _)| it.key == **key)) {
            port.fault("key", format!("a second port {key}"), "each key stands once; give it another name");
        }
        if let (Some(key), Some(base), Some(node)) = (key, base, port.node("base")) {
            ports.push((PortBase { key, base }, node.at.clone()));
        }
        port.finish();
    }
    ports
}

fn env(f: &mut Fields<'_>) -> Vec<EnvEntry> {
    let mut env: Vec<EnvEntry> = Vec::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for item in f.items("env", "key") {
        let Some(mut entry) = Fields::open(f.sink, item.node, item.path) else { continue };
        let key = entry.required("key", rules::variable_name);
        let from_secret = entry.read("from_secret", rules::secret_reference);
        let value = entry.secret("value", rules::any_text);
        if let Some(key) = key.as_ref().filter(|key| !seen.insert((*key).clone())) {
            entry.fault("key", format!("{key} again"), "each variable stands once");
        }
        let value = match (value, from_secret) {
            (Some(_), Some(_)) => {
                entry.fault("from_secret", "from_secret beside value", "write one of the two");
                None
            }
            (None, Some(name)) => Some(EnvValue::FromSecret(name)),
            (Some(text), None) => Some(EnvValue::Plain(text)),
            // `value:` with nothing behind it was an empty variable in 0.x, and is one here.
            (None, None) if entry.names("value") => Some(EnvValue::Plain(String::new())),
            (None, None) => {
                if !entry.names("from_secret") {
                    entry.fault("value", "no value", "write `value: …` or `from_secret: NAME/KEY` here");
                }
                None
            }
        };
        entry.finish();
        if let (Some(key), Some(value)) = (key, value) {
            env.push(EnvEntry { key, value });
        }
    }
    env
}

/// Keys whose parts are not in force yet.
fn checked_only(f: &mut Fields<'_>) {
    f.read("shell_user", rules::account);
    deploy::logs(f);
    certificates::read(f);
}

const LATER: [&str; 3] = ["shell_user", "logs", "certificates"];

fn later(f: &mut Fields<'_>) -> Later {
    let mut later = Later::default();
    for key in LATER {
        let Some(node) = f.node(key) else { continue };
        later.0.insert(key.to_owned(), node.to_json());
    }
    later
}
