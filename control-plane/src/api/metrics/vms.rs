//! Figures for Prometheus of the replicas' VMs, as they were sampled last.

use metrics::Label;
use proto::metrics::VmPoint;
use proto::replicas::Replica;

use super::super::{Api, replicas};
use crate::fleet::Place;
use crate::picture::Picture;
use crate::telemetry::Metrics;

/// What each figure of a VM means.
pub(super) const MEANINGS: [(&str, &str); 16] = [
    ("deployex_vm_info", "Always 1; the labels are the versions of what the replica runs on."),
    ("deployex_vm_connected", "1 where the agent is connected to the replica's Erlang node."),
    ("deployex_vm_uptime_seconds", "Since the VM started."),
    ("deployex_vm_memory_bytes", "What the VM has allocated: total, and parts of it by kind."),
    ("deployex_vm_processes", "Processes that there are."),
    ("deployex_vm_ports", "Ports that there are."),
    ("deployex_vm_atoms", "Atoms that there are."),
    ("deployex_vm_ets_tables", "ETS tables that there are."),
    ("deployex_vm_limit", "How many of that kind there may be."),
    (
        "deployex_vm_run_queue",
        "Processes and ports that are ready to run and wait: in all queues, and in the longest.",
    ),
    (
        "deployex_vm_scheduler_percent",
        "How busy its schedulers are by the kernel's count, busy waiting included.",
    ),
    ("deployex_vm_reductions_per_second", "Work done by its processes."),
    ("deployex_vm_collections_per_second", "Garbage collections."),
    ("deployex_vm_reclaimed_bytes_per_second", "What they freed."),
    ("deployex_vm_input_bytes_per_second", "Received through its ports."),
    ("deployex_vm_output_bytes_per_second", "Sent through its ports."),
];

pub(super) fn of(fleet: &Metrics, api: &Api, picture: &Picture) {
    for app in picture.apps.values() {
        let places: Vec<Place> = picture.places(&app.fleet).into_iter().map(|it| it.1).collect();
        for (replica, place) in replicas::of(picture, &app.fleet).zip(places) {
            let point = api.backend.vm(&replica.application, place);
            one(fleet, &replica, point.as_ref(), picture.at.0);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn one(fleet: &Metrics, replica: &Replica, point: Option<&VmPoint>, now_unix_ms: u64) {
    let set = |name: &'static str, more: &[(&'static str, &str)], value: f64| {
        let labels = [
            ("application", replica.application.to_string()),
            ("node", replica.node.to_string()),
            ("slot", replica.slot.to_string()),
        ];
        let more = more.iter().map(|(key, value)| (*key, (*value).to_owned()));
        fleet
            .gauge(name, labels.into_iter().chain(more).map(|(key, value)| Label::new(key, value)).collect())
            .set(value);
    };
    if let Some(node) = &replica.erlang {
        set("deployex_vm_connected", &[], if node.connected_since.is_some() { 1.0 } else { 0.0 });
    }
    if let Some(vm) = &replica.vm {
        let versions = [
            ("otp", &vm.otp),
            ("erts", &vm.erts),
            ("elixir", &vm.elixir),
            ("gleam_stdlib", &vm.gleam_stdlib),
            ("phoenix", &vm.phoenix),
            ("version", &vm.application),
        ];
        let versions: Vec<_> = versions.iter().filter_map(|(key, it)| Some((*key, it.as_deref()?))).collect();
        set("deployex_vm_info", &versions, 1.0);
        if let Some(started) = vm.started_at {
            set("deployex_vm_uptime_seconds", &[], now_unix_ms.saturating_sub(started.0) as f64 / 1_000.0);
        }
        if let Some(limits) = vm.limits {
            let kinds = [
                ("processes", limits.processes),
                ("ports", limits.ports),
                ("atoms", limits.atoms),
                ("ets_tables", limits.ets_tables),
            ];
            for (kind, limit) in kinds {
                set("deployex_vm_limit", &[("kind", kind)], limit as f64);
            }
        }
    }
    let Some(point) = point else { return };
    let memory = [
        ("total", point.memory),
        ("processes", point.memory_processes),
        ("atom", point.memory_atom),
        ("binary", point.memory_binary),
        ("code", point.memory_code),
        ("ets", point.memory_ets),
    ];
    for (kind, bytes) in memory {
        set("deployex_vm_memory_bytes", &[("kind", kind)], bytes as f64);
    }
    set("deployex_vm_processes", &[], point.processes.into());
    set("deployex_vm_ports", &[], point.ports.into());
    set("deployex_vm_atoms", &[], point.atoms.into());
    set("deployex_vm_ets_tables", &[], point.ets_tables.into());
    set("deployex_vm_run_queue", &[("which", "all")], point.run_queue.into());
    set("deployex_vm_run_queue", &[("which", "longest")], point.longest_run_queue.into());
    if let Some(percent) = point.schedulers {
        set("deployex_vm_scheduler_percent", &[], percent.into());
    }
    set("deployex_vm_reductions_per_second", &[], point.reductions.into());
    set("deployex_vm_collections_per_second", &[], point.collections.into());
    set("deployex_vm_reclaimed_bytes_per_second", &[], point.reclaimed.into());
    set("deployex_vm_input_bytes_per_second", &[], point.input.into());
    set("deployex_vm_output_bytes_per_second", &[], point.output.into());
}
