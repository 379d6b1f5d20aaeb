//! `deploy`, `restart` and `distribution`: how an application is replaced, restarted and connected.

use proto::state::Strategy;

use crate::config::fault::Located;
use crate::config::fields::Fields;
use crate::config::rules;
use crate::spec::{
    CanarySpec, Cluster, DeploySpec, Distribution, DistributionMode, DistributionTls, HotUpgradePolicy,
    Limits, PreCommandsRun, Promote, RestartSpec,
};

const DAY_MS: u64 = 86_400_000;

pub(super) const STRATEGIES: [(&str, Strategy); 2] =
    [("start_first", Strategy::StartFirst), ("stop_first", Strategy::StopFirst)];

/// The strategy is also given as it was written, where it was: only an unwritten one may be changed for want of a port.
pub(super) fn deploy(f: &mut Fields<'_>, spec: &mut DeploySpec) -> Option<Located<Strategy>> {
    let mut d = f.below("deploy")?;
    let strategy = d.located("strategy", rules::word(&STRATEGIES));
    spec.strategy = strategy.as_ref().map_or(spec.strategy, |it| it.value);
    let time = |from| rules::millis(from..=DAY_MS);
    spec.stable_after = d.read("stable_after_ms", time(0)).unwrap_or(spec.stable_after);
    spec.watch = d.read("watch_ms", time(0)).unwrap_or(spec.watch);
    spec.stop_grace = d.read("stop_grace_ms", time(0)).unwrap_or(spec.stop_grace);
    spec.pre_commands_timeout =
        d.read("pre_commands_timeout_ms", time(1_000)).unwrap_or(spec.pre_commands_timeout);
    spec.drain = d.read("drain_ms", time(0)).unwrap_or(spec.drain);
    spec.batch = d.read("batch", rules::amount(1)).unwrap_or(spec.batch);
    spec.max_unavailable = d.read("max_unavailable", rules::amount(0)).unwrap_or(spec.max_unavailable);
    spec.order_by = d.read("order_by", rules::label);
    spec.pause_between = d.read("pause_between_ms", time(0)).unwrap_or(spec.pause_between);
    spec.tolerate_failed_nodes =
        d.read("tolerate_failed_nodes", rules::whole::<u32>(0..=100_000)).unwrap_or(0);
    spec.hot_upgrade = d.read("hot_upgrade", rules::word(&HOT_UPGRADES)).unwrap_or_default();
    spec.pre_commands_run = d.read("pre_commands_run", rules::word(&RUNS)).unwrap_or_default();
    spec.canary = canary(&mut d);
    d.finish();
    strategy
}

const RUNS: [(&str, PreCommandsRun); 2] =
    [("once", PreCommandsRun::Once), ("every_replica", PreCommandsRun::EveryReplica)];
const HOT_UPGRADES: [(&str, HotUpgradePolicy); 3] = [
    ("auto", HotUpgradePolicy::Auto),
    ("require", HotUpgradePolicy::Require),
    ("never", HotUpgradePolicy::Never),
];
const PROMOTES: [(&str, Promote); 2] = [("auto", Promote::Auto), ("manual", Promote::Manual)];

fn canary(d: &mut Fields<'_>) -> Option<CanarySpec> {
    let mut canary = d.below("canary")?;
    let nodes = canary.required("nodes", rules::amount(1));
    let promote = canary.read("promote", rules::word(&PROMOTES)).unwrap_or(Promote::Auto);
    let soak = canary.read("soak_ms", rules::millis(0..=7 * DAY_MS)).unwrap_or(CanarySpec::USUAL_SOAK);
    canary.finish();
    Some(CanarySpec { nodes: nodes?, promote, soak })
}

pub(super) fn restart(f: &mut Fields<'_>, spec: &mut RestartSpec) {
    let Some(mut r) = f.below("restart") else { return };
    let time = || rules::millis(1..=DAY_MS);
    spec.backoff_min = r.read("backoff_min_ms", time()).unwrap_or(spec.backoff_min);
    spec.backoff_max = r.read("backoff_max_ms", time()).unwrap_or(spec.backoff_max);
    spec.reset_after = r.read("reset_after_ms", time()).unwrap_or(spec.reset_after);
    if spec.backoff_min > spec.backoff_max {
        let found =
            format!("{} ms, which is below backoff_min_ms ({})", spec.backoff_max.0, spec.backoff_min.0);
        r.fault("backoff_max_ms", found, "give it at least the value of backoff_min_ms");
    }
    r.finish();
}

const MODES: [(&str, DistributionMode); 3] =
    [("short", DistributionMode::Short), ("long", DistributionMode::Long), ("off", DistributionMode::Off)];

const TLS: [(&str, DistributionTls); 3] =
    [("off", DistributionTls::Off), ("managed", DistributionTls::Managed), ("files", DistributionTls::Files)];

pub(super) fn distribution(f: &mut Fields<'_>, spec: &mut Distribution) {
    let Some(mut d) = f.below("distribution") else { return };
    spec.mode = d.read("mode", rules::word(&MODES)).unwrap_or(spec.mode);
    spec.host = d.read("host", rules::host);
    spec.tls = d.read("tls", rules::word(&TLS)).unwrap_or(spec.tls);
    let dotted = spec.host.as_deref().map(|it| it.contains('.') || it.contains(':'));
    match (spec.mode, dotted) {
        (DistributionMode::Short, Some(true)) => {
            let found = "a name with dots, which Erlang refuses for mode short";
            d.fault("host", found, "write its first part alone, or mode: long");
        }
        (DistributionMode::Long, Some(false)) => {
            let found = "a name without dots, which Erlang refuses for mode long";
            d.fault("host", found, "write the full name or an address, or mode: short");
        }
        _ => {}
    }
    spec.ports = dist_ports(&mut d);
    d.finish();
}

fn dist_ports(d: &mut Fields<'_>) -> Option<(u16, u16)> {
    let ports = d.values("ports", rules::port)?;
    match ports.as_slice() {
        [first, last] if first.value <= last.value => Some((first.value, last.value)),
        [first, last] => {
            let found = format!("{} before {}", first.value, last.value);
            d.fault("ports", found, "write the lower port first");
            None
        }
        other => {
            let found = format!("{} ports", other.len());
            d.fault("ports", found, "allowed: [first, last], such as [9100, 9200]");
            None
        }
    }
}

const CLUSTERS: [(&str, Cluster); 3] =
    [("off", Cluster::Off), ("node", Cluster::Node), ("fleet", Cluster::Fleet)];

/// Where replicas are no nodes, `node` asks for what happens anyway; a fleet that is to be connected does not.
pub(super) fn cluster(f: &mut Fields<'_>, distribution: &Distribution) -> Cluster {
    let said = f.read("cluster", rules::word(&CLUSTERS)).unwrap_or_default();
    if said == Cluster::Fleet && distribution.mode == DistributionMode::Off {
        let found = "fleet beside distribution.mode off, with which its replicas are no Erlang nodes";
        f.fault("cluster", found, "write cluster: off, or distribution.mode: short or long");
    }
    said
}

pub(super) fn limits(f: &mut Fields<'_>, limits: &mut Limits) {
    let Some(mut l) = f.below("limits") else { return };
    limits.memory_max = l.read("memory_max", rules::size);
    limits.cpu_percent = l.read("cpu_max", rules::cpu);
    limits.pids_max = l.read("pids_max", rules::whole::<u32>(16..=4_194_304));
    l.finish();
}

pub(super) fn logs(f: &mut Fields<'_>) {
    let Some(mut l) = f.below("logs") else { return };
    l.read("rotate_bytes", rules::size);
    l.read("max_age", rules::duration(60_000..=3_650 * DAY_MS, false));
    l.read("max_bytes", rules::size);
    l.finish();
}
