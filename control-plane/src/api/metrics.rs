//! Figures for Prometheus: of the fleet as it is now, and of what this program did since it started.

mod telemetry;
mod vms;

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, Method};
use metrics::Label;
use proto::nodes::Pressure;
use proto::problem::Code;
use proto::state::{HostLevel, Liveness, RolloutPhase, SlotState, Tone};

use super::{Api, apps, replicas};
use crate::auth::client::{Client, Peer};
use crate::auth::principal::identify;
use crate::error::{ApiError, ApiResult};
use crate::otlp::Figures;
use crate::picture::{NodePicture, Picture};
use crate::telemetry::Metrics;

#[utoipa::path(get, path = "/metrics", tag = "outside",
    responses((status = 200, description = "In Prometheus' text form. Without a token to this machine alone.",
        body = String, content_type = "text/plain")))]
pub(super) async fn show(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    client: Client,
    headers: HeaderMap,
) -> ApiResult<([(HeaderName, &'static str); 1], String)> {
    // Names of applications and hosts are nobody's business but the fleet's.
    let from_here = !client.forwarded && client.address.is_none_or(|address| address.is_loopback());
    let asked = (&Method::GET, &headers);
    if !from_here && identify(&api.db, &api.local, asked, (peer, &client), api.clock.wall()).await?.is_none()
    {
        return Err(ApiError::new(Code::NotSignedIn, "from another machine this needs a token"));
    }
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.text().await?))
}

#[async_trait::async_trait]
impl Figures for Api {
    async fn text(&self) -> ApiResult<String> {
        let (picture, api) = (self.picture().await?, self.clone());
        // Of a large fleet that takes a while, and others wait for this thread.
        let writing = tokio::task::spawn_blocking(move || {
            let fleet = of_fleet(&picture);
            vms::of(&fleet, &api, &picture);
            let mut text = fleet.render();
            text.push_str(&telemetry::of(&api, &picture));
            text.push_str(&api.metrics.render());
            text
        });
        writing.await.map_err(ApiError::internal)
    }
}

/// In a registry made anew each time, so that an application that is gone is not counted for ever.
fn of_fleet(picture: &Picture) -> Metrics {
    let fleet = Metrics::default();
    describe_fleet(&fleet);
    let set = |name: &'static str, labels: Vec<Label>, count: usize| {
        fleet.gauge(name, labels).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    };
    set("deployex_build_info", vec![Label::new("version", env!("CARGO_PKG_VERSION"))], 1);
    // Every word each time, so that a count that has gone to zero says so.
    for liveness in Liveness::ALL {
        let count = picture.nodes.values().filter(|node| node.sight.liveness == *liveness).count();
        set("deployex_nodes", vec![Label::new("liveness", liveness.word())], count);
    }
    let summaries: Vec<_> = picture.apps.values().map(|app| apps::summary(picture, app)).collect();
    for tone in Tone::ALL {
        let count = summaries.iter().filter(|app| app.tone == *tone).count();
        set("deployex_applications", vec![Label::new("tone", tone.word())], count);
    }
    let attention = summaries.iter().filter(|app| app.needs_attention).count();
    set("deployex_applications_needing_attention", Vec::new(), attention);
    for (name, app) in &picture.apps {
        let of_app = || Label::new("application", name.to_string());
        let mut states: BTreeMap<SlotState, usize> = SlotState::ALL.iter().map(|state| (*state, 0)).collect();
        for replica in replicas::of(picture, &app.fleet) {
            *states.entry(replica.state).or_default() += 1;
        }
        for (state, count) in states {
            set("deployex_replicas", vec![of_app(), Label::new("state", state.word())], count);
        }
        let wanted = usize::try_from(apps::slots_wanted(app)).unwrap_or(usize::MAX);
        set("deployex_replicas_wanted", vec![of_app()], wanted);
    }
    let phases: Vec<_> =
        picture.apps.values().filter_map(|app| Some(app.fleet.rollout.as_ref()?.phase)).collect();
    for phase in RolloutPhase::ALL.iter().filter(|phase| !phase.is_over()) {
        let count = phases.iter().filter(|it| *it == phase).count();
        set("deployex_rollouts", vec![Label::new("phase", phase.word())], count);
    }
    for node in picture.nodes.values() {
        of_host(&fleet, node);
    }
    fleet
}

/// Of a host that was measured lately.
#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn of_host(fleet: &Metrics, node: &NodePicture) {
    let NodePicture { node, sight, .. } = node;
    let set = |name: &'static str, more: &[(&'static str, &str)], value: f64| {
        let mut labels = vec![Label::new("node", node.name.to_string())];
        labels.extend(more.iter().map(|(key, value)| Label::new(*key, (*value).to_owned())));
        fleet.gauge(name, labels).set(value);
    };
    let plain = |name: &'static str, value: f64| set(name, &[], value);
    if let Some(usage) = &sight.usage {
        plain("deployex_node_cpu_percent", usage.cpu_percent);
        plain("deployex_node_memory_used_bytes", usage.memory_used_bytes as f64);
        plain("deployex_node_memory_total_bytes", usage.memory_total_bytes as f64);
        plain("deployex_node_disk_used_bytes", usage.disk_used_bytes as f64);
        plain("deployex_node_disk_total_bytes", usage.disk_total_bytes as f64);
        plain("deployex_node_uptime_seconds", usage.uptime_ms as f64 / 1_000.0);
        for (minutes, load) in ["1", "5", "15"].into_iter().zip(usage.load) {
            set("deployex_node_load", &[("minutes", minutes)], load);
        }
    }
    if let Some(host) = &sight.host {
        for (core, percent) in host.cores_percent.iter().enumerate() {
            set("deployex_node_core_percent", &[("core", &core.to_string())], f64::from(*percent));
        }
        plain("deployex_node_memory_available_bytes", host.memory_available_bytes as f64);
        plain("deployex_node_swap_used_bytes", host.swap_used_bytes as f64);
        plain("deployex_node_swap_total_bytes", host.swap_total_bytes as f64);
        plain("deployex_node_disk_available_bytes", host.disk_available_bytes as f64);
        plain("deployex_node_disk_read_bytes_per_second", host.disk_read);
        plain("deployex_node_disk_write_bytes_per_second", host.disk_write);
        plain("deployex_node_network_received_bytes_per_second", host.network_received);
        plain("deployex_node_network_sent_bytes_per_second", host.network_sent);
        if let Some(Pressure { cpu_some, memory_some, memory_full, io_some, io_full }) = host.pressure {
            let waits = [
                ("cpu", "some", cpu_some),
                ("memory", "some", memory_some),
                ("memory", "full", memory_full),
                ("io", "some", io_some),
                ("io", "full", io_full),
            ];
            for (resource, who, percent) in waits {
                let labels = [("resource", resource), ("who", who)];
                set("deployex_node_pressure_percent", &labels, f64::from(percent));
            }
        }
    }
    // Of one that was not heard yet nobody knows, and a counter that falls to 0 began anew.
    if sight.usage.is_some() || sight.vm_samples_dropped > 0 {
        let of_node = vec![Label::new("node", node.name.to_string())];
        fleet.counter(VM_SAMPLES_DROPPED, of_node).absolute(sight.vm_samples_dropped);
    }
    for limit in &sight.limits {
        let passed = if limit.level == HostLevel::Normal { 0.0 } else { 1.0 };
        set("deployex_node_limit_passed", &[("type", &limit.kind)], passed);
    }
}

const VM_SAMPLES_DROPPED: &str = "deployex_node_vm_samples_dropped_total";

/// What each figure of the fleet means.
fn describe_fleet(metrics: &Metrics) {
    metrics.describe_gauge("deployex_build_info", "Always 1; the label is the version.");
    metrics.describe_gauge("deployex_nodes", "Nodes by whether they are heard.");
    metrics.describe_gauge("deployex_applications", "Applications by how they are.");
    metrics.describe_gauge("deployex_applications_needing_attention", "Applications that need a person.");
    metrics.describe_gauge("deployex_replicas", "Replicas by application and state.");
    metrics.describe_gauge("deployex_replicas_wanted", "Replicas that there should be, by application.");
    metrics.describe_gauge("deployex_rollouts", "Rollouts that are not over, by phase.");
    let means =
        "Samples of VMs that the node's agent threw away since it started: they waited too long to be told.";
    metrics.describe_counter(VM_SAMPLES_DROPPED, means);
    for (name, means) in OF_HOSTS.into_iter().chain(vms::MEANINGS) {
        metrics.describe_gauge(name, means);
    }
}

/// What each figure of a host means.
const OF_HOSTS: [(&str, &str); 18] = [
    ("deployex_node_cpu_percent", "Of all cores together."),
    ("deployex_node_core_percent", "Of each core."),
    ("deployex_node_load", "Processes that run or wait, over so many minutes."),
    ("deployex_node_memory_used_bytes", "What is not available."),
    ("deployex_node_memory_available_bytes", "What a program can have without swapping."),
    ("deployex_node_memory_total_bytes", "All of it."),
    ("deployex_node_swap_used_bytes", "What was swapped out."),
    ("deployex_node_swap_total_bytes", "Room to swap."),
    (
        "deployex_node_pressure_percent",
        "Of the last ten seconds: some, or all (full), that could run waited.",
    ),
    ("deployex_node_disk_used_bytes", "Of the file system with the var path."),
    ("deployex_node_disk_available_bytes", "There, to those who are not root."),
    ("deployex_node_disk_total_bytes", "There, all of it."),
    ("deployex_node_disk_read_bytes_per_second", "From all disks."),
    ("deployex_node_disk_write_bytes_per_second", "To all disks."),
    ("deployex_node_network_received_bytes_per_second", "By all interfaces but the loopback."),
    ("deployex_node_network_sent_bytes_per_second", "By all interfaces but the loopback."),
    ("deployex_node_uptime_seconds", "Since the host booted."),
    ("deployex_node_limit_passed", "1 where the host is above a limit of memory or disk."),
];

/// What each figure of this program means; they are counted where they happen.
pub(super) fn describe(metrics: &Metrics) {
    metrics.describe_gauge("deployex_live_connections", "Consoles that are connected.");
    metrics.describe_counter("deployex_sign_ins_total", "Attempts to sign in by outcome.");
    metrics.describe_counter("deployex_http_requests_total", "Requests answered.");
    metrics.describe_seconds("deployex_http_request_seconds", "How long answers took to begin.");
}
