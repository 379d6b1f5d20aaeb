//! What differs between two settings of an application, key by key under the YAML's own names, and when it takes effect.
//!
//! Pure. Values of `env`, and of settings that may hold tokens, are compared and never said.

use std::collections::BTreeMap;
use std::fmt;

pub use proto::configuration::{Change, Class, Side};
use proto::state::{Strategy, VmFigure};

use super::quantity;
use crate::spec::monitoring::{Threshold, VmMonitoring};
use crate::spec::{
    AppSpec, CanarySpec, DeploySpec, Distribution, DistributionTls, EnvValue, Limits, Millis, NginxSpec,
    PreCommandsRun, Probe, Promote, ReadyWhen, RestartSpec,
};

/// Every key that differs, by name.
pub fn between(before: &AppSpec, after: &AppSpec) -> Vec<Change> {
    let (mut before, after) = (sheet(before), sheet(after));
    let mut changes = Vec::new();
    for (key, entry) in after {
        let old = before.remove(&key);
        if old.as_ref().is_some_and(|it| it.value == entry.value) {
            continue;
        }
        let before = old.map_or(Side::Absent, |it| it.side());
        changes.push(Change { key, class: entry.class, before, after: entry.side() });
    }
    for (key, entry) in before {
        changes.push(Change { key, class: entry.class, before: entry.side(), after: Side::Absent });
    }
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    changes
}

/// A key's value, said or only compared.
struct Entry {
    class: Class,
    value: String,
    hidden: bool,
}

impl Entry {
    fn side(&self) -> Side {
        if self.hidden { Side::Hidden } else { Side::Value(self.value.clone()) }
    }
}

type Sheet = BTreeMap<String, Entry>;

fn put(sheet: &mut Sheet, class: Class, key: impl Into<String>, value: impl fmt::Display) {
    sheet.insert(key.into(), Entry { class, value: value.to_string(), hidden: false });
}

/// Taken apart to the last field, so that a new one cannot be forgotten here.
fn sheet(spec: &AppSpec) -> Sheet {
    let AppSpec {
        name: _,
        language,
        replicas,
        spread,
        nodes,
        ports,
        env,
        env_file,
        run_as,
        rollback_timeout,
        schedule_interval,
        deploy,
        restart,
        ready,
        ready_probes,
        live,
        distribution,
        cluster,
        limits,
        nginx,
        monitoring,
        telemetry,
        later,
    } = spec;
    let (at_once, next) = (Class::Immediate, Class::NextDeploy);
    let mut s = Sheet::new();
    put(&mut s, next, "language", language);
    match spread {
        Some(spread) => put(&mut s, at_once, "spread", spread),
        None => put(&mut s, at_once, "replicas", replicas),
    }
    for (label, value) in nodes {
        put(&mut s, at_once, format!("nodes.{label}"), value);
    }
    for port in ports {
        put(&mut s, Class::FullDeploy, format!("replica_ports[{}].base", port.key), port.base);
    }
    for entry in env {
        let (value, hidden) = match &entry.value {
            EnvValue::Plain(text) => (format!("value {text}"), true),
            EnvValue::FromSecret(name) => (format!("from_secret {name}"), false),
        };
        s.insert(format!("env[{}]", entry.key), Entry { class: next, value, hidden });
    }
    if let Some(file) = env_file {
        put(&mut s, next, "env_file", file);
    }
    put(&mut s, next, "run_as.user", &run_as.user);
    if let Some(group) = &run_as.group {
        put(&mut s, next, "run_as.group", group);
    }
    put(&mut s, at_once, "deploy_rollback_timeout_ms", rollback_timeout.0);
    put(&mut s, at_once, "deploy_schedule_interval_ms", schedule_interval.0);
    put_deploy(&mut s, deploy);
    put_restart(&mut s, restart);
    // What is asked belongs to the release that answers it, as its variables do.
    let word = match ready {
        ReadyWhen::Default => "the first port, or the process",
        ReadyWhen::Process => "process",
    };
    put(&mut s, next, "ready", listed(ready_probes).unwrap_or_else(|| word.to_owned()));
    // To switch it off works at once: it may be what keeps ending replicas.
    match listed(live) {
        Some(probes) => put(&mut s, next, "live", probes),
        None => put(&mut s, at_once, "live", "off"),
    }
    put_distribution(&mut s, distribution);
    // At once: what runs is connected, or no longer looked after, and nothing is another for it.
    put(&mut s, at_once, "cluster", cluster.word());
    put_limits(&mut s, limits);
    if let Some(nginx) = nginx {
        put_nginx(&mut s, nginx);
    }
    put_monitoring(&mut s, monitoring);
    if !telemetry.is_empty() {
        put(&mut s, at_once, "telemetry.events", telemetry.join(", "));
    }
    for (key, value) in &later.0 {
        // They may hold tokens.
        s.insert(key.clone(), Entry { class: at_once, value: value.to_string(), hidden: true });
    }
    s
}

/// `None`: there is none.
fn listed(probes: &[Probe]) -> Option<String> {
    let said: Vec<String> = probes.iter().map(Probe::to_string).collect();
    (!said.is_empty()).then(|| said.join(", "))
}

fn put_deploy(s: &mut Sheet, deploy: &DeploySpec) {
    let DeploySpec {
        strategy,
        stable_after,
        watch,
        stop_grace,
        pre_commands_timeout,
        drain,
        batch,
        max_unavailable,
        canary,
        order_by,
        pause_between,
        tolerate_failed_nodes,
        pre_commands_run,
        hot_upgrade,
    } = deploy;
    let strategy: &Strategy = strategy;
    put(s, Class::Immediate, "deploy.strategy", strategy);
    put(s, Class::Immediate, "deploy.batch", batch);
    put(s, Class::Immediate, "deploy.max_unavailable", max_unavailable);
    put(s, Class::Immediate, "deploy.tolerate_failed_nodes", tolerate_failed_nodes);
    let run = match pre_commands_run {
        PreCommandsRun::Once => "once",
        PreCommandsRun::EveryReplica => "every_replica",
    };
    // A rollout keeps to how it began.
    put(s, Class::NextDeploy, "deploy.pre_commands_run", run);
    put(s, Class::Immediate, "deploy.hot_upgrade", hot_upgrade.word());
    if let Some(label) = order_by {
        put(s, Class::Immediate, "deploy.order_by", label);
    }
    if let Some(CanarySpec { nodes, promote, soak }) = canary {
        let promote = match promote {
            Promote::Auto => "auto",
            Promote::Manual => "manual",
        };
        put(s, Class::Immediate, "deploy.canary.nodes", nodes);
        put(s, Class::Immediate, "deploy.canary.promote", promote);
        put(s, Class::Immediate, "deploy.canary.soak_ms", soak.0);
    }
    put_times(
        s,
        "deploy",
        &[
            ("stable_after_ms", stable_after),
            ("watch_ms", watch),
            ("stop_grace_ms", stop_grace),
            ("pre_commands_timeout_ms", pre_commands_timeout),
            ("drain_ms", drain),
            ("pause_between_ms", pause_between),
        ],
    );
}

fn put_restart(s: &mut Sheet, restart: &RestartSpec) {
    let RestartSpec { backoff_min, backoff_max, reset_after } = restart;
    put_times(
        s,
        "restart",
        &[("backoff_min_ms", backoff_min), ("backoff_max_ms", backoff_max), ("reset_after_ms", reset_after)],
    );
}

fn put_times(s: &mut Sheet, section: &str, times: &[(&str, &Millis)]) {
    for (key, time) in times {
        put(s, Class::Immediate, format!("{section}.{key}"), time.0);
    }
}

/// At once: agents set them anew for what runs.
fn put_limits(s: &mut Sheet, limits: &Limits) {
    let Limits { memory_max, cpu_percent, pids_max } = limits;
    if let Some(bytes) = memory_max {
        put(s, Class::Immediate, "limits.memory_max", quantity::size_text(*bytes));
    }
    if let Some(percent) = cpu_percent {
        put(s, Class::Immediate, "limits.cpu_max", format_args!("{percent}%"));
    }
    if let Some(pids) = pids_max {
        put(s, Class::Immediate, "limits.pids_max", pids);
    }
}

fn put_nginx(s: &mut Sheet, nginx: &NginxSpec) {
    let NginxSpec { upstream_file, upstream, port, reload } = nginx;
    let settings =
        [("upstream_file", upstream_file), ("upstream", upstream), ("port", port), ("reload", reload)];
    for (key, value) in settings {
        put(s, Class::Immediate, format!("nginx.{key}"), value);
    }
}

/// At once: nothing that runs is another one for it.
fn put_monitoring(s: &mut Sheet, monitoring: &VmMonitoring) {
    for figure in VmFigure::ALL {
        let Some(Threshold { warning, restart, cooldown }) = monitoring.of(*figure) else { continue };
        let mut put =
            |key: &str, value: u64| put(s, Class::Immediate, format!("monitoring[{figure}].{key}"), value);
        put("warning_threshold_percent", warning.into());
        if let Some(restart) = restart {
            put("restart_threshold_percent", restart.into());
            put("cooldown_ms", cooldown.0);
        }
    }
}

fn put_distribution(s: &mut Sheet, distribution: &Distribution) {
    let Distribution { mode, host, ports, tls } = distribution;
    put(s, Class::NextDeploy, "distribution.mode", mode.word());
    if let Some(host) = host {
        put(s, Class::NextDeploy, "distribution.host", host);
    }
    if let Some((first, last)) = ports {
        put(s, Class::NextDeploy, "distribution.ports", format_args!("{first}..{last}"));
    }
    let tls = match tls {
        DistributionTls::Host => return,
        DistributionTls::Off => "off",
        DistributionTls::Managed => "managed",
        DistributionTls::Files => "files",
    };
    // Nodes that talk TLS and nodes that do not cannot be one cluster.
    put(s, Class::FullDeploy, "distribution.tls", tls);
}

/// Of every key, when a change of it counts. By hand: a key is promised to people under its class.
#[cfg(test)]
pub(super) const PROMISED: &str = "
cluster immediate
deploy.batch immediate
deploy.canary.nodes immediate
deploy.canary.promote immediate
deploy.canary.soak_ms immediate
deploy.drain_ms immediate
deploy.hot_upgrade immediate
deploy.max_unavailable immediate
deploy.order_by immediate
deploy.pause_between_ms immediate
deploy.pre_commands_run next_deploy
deploy.pre_commands_timeout_ms immediate
deploy.stable_after_ms immediate
deploy.stop_grace_ms immediate
deploy.strategy immediate
deploy.tolerate_failed_nodes immediate
deploy.watch_ms immediate
deploy_rollback_timeout_ms immediate
deploy_schedule_interval_ms immediate
distribution.host next_deploy
distribution.mode next_deploy
distribution.ports next_deploy
distribution.tls full_deploy
env[FOUND] next_deploy
env[TOKEN] next_deploy
env_file next_deploy
language next_deploy
limits.cpu_max immediate
limits.memory_max immediate
limits.pids_max immediate
live next_deploy
monitoring[atom].cooldown_ms immediate
monitoring[atom].restart_threshold_percent immediate
monitoring[atom].warning_threshold_percent immediate
nginx.port immediate
nginx.reload immediate
nginx.upstream immediate
nginx.upstream_file immediate
nodes.role immediate
ready next_deploy
replica_ports[PORT].base full_deploy
replicas immediate
restart.backoff_max_ms immediate
restart.backoff_min_ms immediate
restart.reset_after_ms immediate
run_as.group next_deploy
run_as.user next_deploy
telemetry.events immediate
";

#[cfg(test)]
mod tests {
    use proto::state::Language;

    use super::*;
    use crate::spec::{Amount, Ask, EnvEntry, PortBase};

    fn app() -> AppSpec {
        let mut app = AppSpec::new("myapp".parse().unwrap(), Language::Elixir);
        app.ports = vec![PortBase { key: "PORT".to_owned(), base: 4000 }];
        app.env = vec![EnvEntry { key: "TOKEN".to_owned(), value: EnvValue::Plain("s3cret".to_owned()) }];
        app
    }

    fn said(after: &AppSpec) -> Vec<String> {
        between(&app(), after).iter().map(|it| format!("{it} [{}]", it.class.word())).collect()
    }

    #[test]
    fn an_application_does_not_differ_from_itself() {
        assert_eq!(said(&app()), Vec::<String>::new());
    }

    #[test]
    fn every_changed_key_is_named_with_when_it_takes_effect() {
        let mut after = app();
        after.replicas = 5.try_into().unwrap();
        after.language = Language::Erlang;
        after.ports[0].base = 4100;
        after.nodes.insert("role".to_owned(), "web".to_owned());
        after.deploy.strategy = Strategy::StopFirst;
        after.rollback_timeout = Millis(60_000);
        after.distribution.ports = Some((9100, 9200));
        after.limits = Limits { memory_max: Some(2 << 30), cpu_percent: Some(200), pids_max: Some(4096) };
        assert_eq!(
            said(&after),
            [
                "deploy.strategy start_first → stop_first [immediate]",
                "deploy_rollback_timeout_ms 600000 → 60000 [immediate]",
                "distribution.ports 9100..9200 (was not set) [next_deploy]",
                "language elixir → erlang [next_deploy]",
                "limits.cpu_max 200% (was not set) [immediate]",
                "limits.memory_max 2GiB (was not set) [immediate]",
                "limits.pids_max 4096 (was not set) [immediate]",
                "nodes.role web (was not set) [immediate]",
                "replica_ports[PORT].base 4000 → 4100 [full_deploy]",
                "replicas 3 → 5 [immediate]",
            ]
        );
    }

    #[test]
    fn every_key_has_the_class_that_is_promised() {
        let probe = Probe { ask: Ask::Process, interval: None, timeout: Millis(1), after: 1 };
        let mut all = app();
        let found = EnvValue::FromSecret("prod/FOUND".to_owned());
        all.env.push(EnvEntry { key: "FOUND".to_owned(), value: found });
        all.nodes.insert("role".to_owned(), "web".to_owned());
        all.env_file = Some("/etc/myapp.env".to_owned());
        all.run_as.group = Some("web".to_owned());
        all.live = vec![probe];
        all.distribution.host = Some("10.0.0.7".to_owned());
        all.distribution.ports = Some((9100, 9200));
        all.distribution.tls = DistributionTls::Managed;
        all.limits = Limits { memory_max: Some(1), cpu_percent: Some(1), pids_max: Some(1) };
        all.nginx = Some(NginxSpec {
            upstream_file: "/etc/nginx/conf.d/myapp.conf".to_owned(),
            upstream: "myapp".to_owned(),
            port: "PORT".to_owned(),
            reload: NginxSpec::USUAL_RELOAD.to_owned(),
        });
        let atoms = Threshold { warning: 75, restart: Some(90), cooldown: Millis(300_000) };
        all.monitoring.set(VmFigure::Atom, atoms);
        all.telemetry = vec!["phoenix".to_owned()];
        let soak = CanarySpec::USUAL_SOAK;
        all.deploy.canary = Some(CanarySpec { nodes: Amount::Count(1), promote: Promote::Auto, soak });
        all.deploy.order_by = Some("zone".to_owned());
        let spread = AppSpec { spread: Some(std::num::NonZeroU16::MIN), ..all.clone() };
        assert_eq!(sheet(&spread).get("spread").map(|it| it.class), Some(Class::Immediate));
        let said: Vec<String> =
            sheet(&all).iter().map(|(key, entry)| format!("{key} {}", entry.class)).collect();
        assert_eq!(said, PROMISED.trim().lines().collect::<Vec<_>>());
    }

    #[test]
    fn probes_count_from_the_next_deployment_and_liveness_ends_at_once() {
        let probe = |ask| Probe { ask, interval: Some(Millis(1_000)), timeout: Millis(2_000), after: 2 };
        let health = Ask::Http { port: None, path: "/health".to_owned(), expect: 200 };
        let mut after = app();
        after.ready_probes = vec![probe(health), probe(Ask::Process)];
        after.live = vec![probe(Ask::Tcp { port: Some("PORT".to_owned()) })];
        assert_eq!(
            said(&after),
            [
                "live off → tcp on PORT every 1000 ms within 2000 ms after 2 [next_deploy]",
                "ready the first port, or the process → http /health on the first port expecting 200 every 1000 ms \
                 within 2000 ms after 2, process [next_deploy]",
            ]
        );
        let mut off = after.clone();
        off.live.clear();
        let ends: Vec<_> = between(&after, &off).into_iter().map(|it| (it.key, it.class)).collect();
        assert_eq!(ends, [("live".to_owned(), Class::Immediate)]);
    }

    #[test]
    fn what_concerns_the_traffic_takes_effect_at_once() {
        let mut after = app();
        after.deploy.drain = Millis(0);
        after.nginx = Some(NginxSpec {
            upstream_file: "/etc/nginx/conf.d/myapp.conf".to_owned(),
            upstream: "myapp".to_owned(),
            port: "PORT".to_owned(),
            reload: NginxSpec::USUAL_RELOAD.to_owned(),
        });
        assert_eq!(
            said(&after),
            [
                "deploy.drain_ms 5000 → 0 [immediate]",
                "nginx.port PORT (was not set) [immediate]",
                "nginx.reload nginx -s reload (was not set) [immediate]",
                "nginx.upstream myapp (was not set) [immediate]",
                "nginx.upstream_file /etc/nginx/conf.d/myapp.conf (was not set) [immediate]",
            ]
        );
    }

    #[test]
    fn what_a_variable_holds_is_never_said() {
        let mut after = app();
        after.env[0].value = EnvValue::Plain("0ther".to_owned());
        assert_eq!(said(&after), ["env[TOKEN] changed [next_deploy]"]);
        after.env[0].value = EnvValue::FromSecret("prod/TOKEN".to_owned());
        assert_eq!(said(&after), ["env[TOKEN] changed [next_deploy]"]);
        after.env.clear();
        assert_eq!(said(&after), ["env[TOKEN] removed [next_deploy]"]);
        let mut before = app();
        before.env.clear();
        let added: Vec<String> = between(&before, &app()).iter().map(ToString::to_string).collect();
        assert_eq!(added, ["env[TOKEN] added"]);
    }

    #[test]
    fn settings_for_later_are_named_without_their_values() {
        let mut after = app();
        after.later.0.insert("certificates".to_owned(), serde_json::json!([{ "api_token": "s3cret" }]));
        assert_eq!(said(&after), ["certificates added [immediate]"]);
    }
}
