//! `monitoring`: which figures are watched and at which share they warn or restart.
//!
//! Memory and disk of the hosts are in force; what is inside of a virtual machine is checked and not watched yet.

use crate::config::fault::Origin;
use crate::config::fields::Fields;
use crate::config::rules;
use crate::spec::Millis;
use crate::spec::monitoring::{HostMonitoring, Threshold};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    Memory,
    Disk,
    /// Atoms, processes or ports of a virtual machine.
    Inside,
}

/// What a host or DeployEx itself can be watched for.
const OF_HOSTS: [(&str, Figure); 5] = [
    ("memory", Figure::Memory),
    ("disk", Figure::Disk),
    ("atom", Figure::Inside),
    ("process", Figure::Inside),
    ("port", Figure::Inside),
];
/// What a virtual machine can be watched for: its memory has no limit to compare with.
const OF_APPLICATIONS: [(&str, Figure); 3] =
    [("atom", Figure::Inside), ("process", Figure::Inside), ("port", Figure::Inside)];

/// A replica that is restarted does not empty a disk.
const NOT_FOR_DISKS: [&str; 3] = ["enable_restart", "restart_threshold_percent", "cooldown_ms"];

/// Of the top level: the limits of hosts.
pub(in crate::config) fn of_hosts(f: &mut Fields<'_>) -> HostMonitoring {
    let mut hosts = HostMonitoring::default();
    for (figure, threshold) in read(f, &OF_HOSTS) {
        match figure {
            Figure::Memory => hosts.memory = Some(threshold),
            Figure::Disk => hosts.disk = Some(threshold),
            Figure::Inside => {}
        }
    }
    hosts
}

/// Whether a top-level type is in force, so that it is not among what comes later.
pub(in crate::config) fn is_in_force(word: &str) -> bool {
    OF_HOSTS.iter().any(|(known, figure)| *known == word && *figure != Figure::Inside)
}

/// Of an application: checked.
pub(in crate::config) fn of_applications(f: &mut Fields<'_>) {
    read(f, &OF_APPLICATIONS);
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
        if let Some(figure) = figure {
            found.push((figure, threshold(&mut watch, figure)));
        }
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
    let cooldown = watch.read("cooldown_ms", rules::millis(0..=86_400_000));
    Threshold {
        warning: warning.unwrap_or(Threshold::WARNING),
        restart: restarts.then_some(restart.unwrap_or(Threshold::RESTART)),
        cooldown: cooldown.unwrap_or(Millis(Threshold::COOLDOWN_MS)),
    }
}
