//! Figures for Prometheus: of the fleet as it is now, and of what this program did since it started.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, Method};
use metrics::Label;
use proto::problem::Code;
use proto::state::{Liveness, RolloutPhase, SlotState, Tone};

use super::{Api, apps, replicas};
use crate::auth::client::{Client, Peer};
use crate::auth::principal::identify;
use crate::error::{ApiError, ApiResult};
use crate::picture::Picture;
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
    let fleet = of_fleet(&api.picture().await?);
    let text = format!("{}{}", fleet.render(), api.metrics.render());
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
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
    fleet
}

/// What each figure of the fleet means.
fn describe_fleet(metrics: &Metrics) {
    metrics.describe_gauge("deployex_build_info", "Always 1; the label is the version.");
    metrics.describe_gauge("deployex_nodes", "Nodes by whether they are heard.");
    metrics.describe_gauge("deployex_applications", "Applications by how they are.");
    metrics.describe_gauge("deployex_applications_needing_attention", "Applications that need a person.");
    metrics.describe_gauge("deployex_replicas", "Replicas by application and state.");
    metrics.describe_gauge("deployex_replicas_wanted", "Replicas that there should be, by application.");
    metrics.describe_gauge("deployex_rollouts", "Rollouts that are not over, by phase.");
}

/// What each figure of this program means; they are counted where they happen.
pub(super) fn describe(metrics: &Metrics) {
    metrics.describe_gauge("deployex_live_connections", "Consoles that are connected.");
    metrics.describe_counter("deployex_sign_ins_total", "Attempts to sign in by outcome.");
    metrics.describe_counter("deployex_http_requests_total", "Requests answered.");
    metrics.describe_seconds("deployex_http_request_seconds", "How long answers took to begin.");
}
