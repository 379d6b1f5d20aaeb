//! `monitoring`: which figures are watched and at which share they warn or restart. Watching is not in force yet.

use crate::config::fault::Origin;
use crate::config::fields::Fields;
use crate::config::rules;

/// What a host or DeployEx itself can be watched for.
pub(in crate::config) const OF_HOSTS: [(&str, &str); 4] =
    [("memory", "memory"), ("atom", "atom"), ("process", "process"), ("port", "port")];
/// What a virtual machine can be watched for: its memory has no limit to compare with.
pub(in crate::config) const OF_APPLICATIONS: [(&str, &str); 3] =
    [("atom", "atom"), ("process", "process"), ("port", "port")];

pub(in crate::config) fn read(f: &mut Fields<'_>, types: &[(&str, &str)]) {
    let mut seen: Vec<(String, Origin)> = Vec::new();
    for item in f.items("monitoring", "type") {
        let Some(mut watch) = Fields::open(f.sink, item.node, item.path) else { continue };
        watch.required("type", rules::word(types));
        if let Some(name) = watch.located("type", rules::any_text) {
            if let Some((_, Origin::File { line, .. })) = seen.iter().find(|(it, _)| *it == name.value) {
                let advice = format!("a type stands once; the first is on line {line}");
                watch.fault("type", format!("{} again", name.value), advice);
            }
            seen.push((name.value, name.origin));
        }
        watch.read("enable_restart", rules::boolean);
        watch.read("warning_threshold_percent", rules::whole::<u8>(1..=100));
        watch.read("restart_threshold_percent", rules::whole::<u8>(1..=100));
        watch.read("cooldown_ms", rules::millis(0..=86_400_000));
        watch.finish();
    }
}
