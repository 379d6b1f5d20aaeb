//! `monitoring`: which figures are watched and at which share they warn or restart.
//!
//! Of hosts memory and disk are in force. Atoms, processes and ports of the top level were those of DeployEx 0.x itself: they are
//! checked, and there is nothing here to watch for them.

use proto::state::VmFigure;

use crate::config::fault::Origin;
use crate::config::fields::Fields;
use crate::config::rules;
use crate::spec::Millis;
use crate::spec::monitoring::{HostMonitoring, Threshold, VmMonitoring};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    Memory,
    Disk,
    /// Of a virtual machine.
    Vm(VmFigure),
}

/// What a host or DeployEx itself can be watched for.
const OF_HOSTS: [(&str, Figure); 5] = [
    ("memory", Figure::Memory),
    ("disk", Figure::Disk),
    ("atom", Figure::Vm(VmFigure::Atom)),
    ("process", Figure::Vm(VmFigure::Process)),
    ("port", Figure::Vm(VmFigure::Port)),
];
/// What the virtual machine of a replica can be watched for.
const OF_APPLICATIONS: [(&str, Figure); 4] = [
    ("atom", Figure::Vm(VmFigure::Atom)),
    ("process", Figure::Vm(VmFigure::Process)),
    ("port", Figure::Vm(VmFigure::Port)),
    ("memory", Figure::Vm(VmFigure::Memory)),
];

/// A replica that is restarted does not empty a disk.
const NOT_FOR_DISKS: [&str; 3] = ["enable_restart", "restart_threshold_percent", "cooldown_ms"];

/// Of the top level: the limits of hosts.
pub(in crate::config) fn of_hosts(f: &mut Fields<'_>) -> HostMonitoring {
    let mut hosts = HostMonitoring::default();
    for (figure, threshold) in read(f, &OF_HOSTS) {
        match figure {
            Figure::Memory => hosts.memory = Some(threshold),
            Figure::Disk => hosts.disk = Some(threshold),
            Figure::Vm(_) => {}
        }
    }
    hosts
}

/// Whether a top-level type is in force, so that it is not among what comes later.
pub(in crate::config) fn is_in_force(word: &str) -> bool {
    OF_HOSTS.iter().any(|(known, figure)| *known == word && !matches!(figure, Figure::Vm(_)))
}

/// Of an application: the limits of its replicas.
pub(in crate::config) fn of_applications(f: &mut Fields<'_>) -> VmMonitoring {
    let mut replicas = VmMonitoring::default();
    for (figure, threshold) in read(f, &OF_APPLICATIONS) {
        if let Figure::Vm(figure) = figure {
            replicas.set(figure, threshold);
        }
    }
    replicas
}

fn read(f: &mut Fields<'_>, types: &[(&str, Figure)]) -> Vec<(Figure, Threshold)> {
    let (mut seen, mut found): (Vec<(String, Origin)>, _) = (Vec::new(), Vec::new());
    for item in f.items("monitoring", "type") {
        let Some(mut watch) = Fields::open(f.sink, item.node, item.path) else { continue };
        let figure = watch.required("type", rules::word(types));
        if let Some(name) = watch.located("type", rules::any_text) {
            if let Some((_, Origin::File { line, .. })) = seen.iter().find(|(it, _)| *it == name.value) {
                let advice = format!("a type stands once; the first is on line {line}");
                watch.fault("type", format!("{} again", name.value), advice);
            }
            seen.push((name.value, name.origin));
        }
        // What follows is checked under any type.
        let threshold = threshold(&mut watch, figure.unwrap_or(Figure::Memory));
        found.extend(figure.map(|figure| (figure, threshold)));
        watch.finish();
    }
    found
}

fn threshold(watch: &mut Fields<'_>, figure: Figure) -> Threshold {
    let warning = watch.read("warning_threshold_percent", rules::whole::<u8>(1..=100));
    if figure == Figure::Disk {
        for key in NOT_FOR_DISKS {
            if watch.has(key) {
                watch.fault(
                    key,
                    "a key that a disk has not",
                    "remove it: a full disk is warned of, and nothing is restarted for it",
                );
            }
        }
        return warning
            .map_or(Threshold::OF_DISKS, |percent| Threshold { warning: percent, ..Threshold::OF_DISKS });
    }
    let restarts = watch.read("enable_restart", rules::boolean).unwrap_or(true);
    let restart = watch.read("restart_threshold_percent", rules::whole::<u8>(1..=100));
    if restarts {
        in_order(watch, warning, restart);
    }
    let cooldown = watch.read("cooldown_ms", rules::millis(0..=86_400_000));
    Threshold {
        warning: warning.unwrap_or(Threshold::WARNING),
        restart: restarts.then_some(restart.unwrap_or(Threshold::RESTART)),
        cooldown: cooldown.unwrap_or(Millis(Threshold::COOLDOWN_MS)),
    }
}

/// Who is restarted is warned of before. `None`: not written.
fn in_order(watch: &mut Fields<'_>, warning: Option<u8>, restart: Option<u8>) {
    let or_default = |value: Option<u8>, default| match value {
        Some(value) => (value, ""),
        None => (default, ", the default"),
    };
    let (warns, by_default) = or_default(warning, Threshold::WARNING);
    let (restarts, _) = or_default(restart, Threshold::RESTART);
    if warns <= restarts {
        return;
    }
    match restart {
        Some(_) => watch.fault(
            "restart_threshold_percent",
            format!("{restarts}, below warning_threshold_percent, which is {warns}{by_default}"),
            "allowed: the percentage from which on is warned, or a higher one",
        ),
        None => watch.fault(
            "warning_threshold_percent",
            format!("{warns}, above restart_threshold_percent, which is {restarts}, the default"),
            "write a restart_threshold_percent that is at least as high, or `enable_restart: false`",
        ),
    }
}
