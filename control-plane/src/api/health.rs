//! For machines that watch this one: is it well, and its figures for Prometheus.

use std::collections::BTreeMap;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, Method};
use metrics::Label;
use proto::problem::Code;
use proto::state::{Liveness, SlotState};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, replicas};
use crate::auth::client::{Client, Peer};
use crate::auth::principal::identify;
use crate::error::{ApiError, ApiResult};
use crate::picture::Picture;

#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    status: &'static str,
    version: &'static str,
}

#[utoipa::path(get, path = "/health", tag = "outside",
    responses((status = 200, description = "It runs and reaches its database.", body = Health)))]
pub(super) async fn health(State(api): State<Api>) -> ApiResult<Json<Health>> {
    if api.cancel.is_cancelled() {
        return Err(ApiError::new(Code::NotReady, "it is stopping"));
    }
    api.db
        .ping()
        .await
        .map_err(|error| ApiError::new(Code::NotReady, "the database does not answer").because(error))?;
    Ok(Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") }))
}

#[utoipa::path(get, path = "/metrics", tag = "outside",
    responses((status = 200, description = "In Prometheus' text form. Without a token to this machine alone.",
        body = String, content_type = "text/plain")))]
pub(super) async fn metrics(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    client: Client,
    headers: HeaderMap,
) -> ApiResult<([(HeaderName, &'static str); 1], String)> {
    // Names of applications and hosts are nobody's business but the fleet's.
    let from_here = !client.forwarded && client.address.is_none_or(|address| address.is_loopback());
    let asked = (&Method::GET, &headers);
    if !from_here && identify(&api.db, &api.local, asked, (peer, &client), api.clock.now()).await?.is_none() {
        return Err(ApiError::new(Code::NotSignedIn, "from another machine this needs a token"));
    }
    gauge(&api, &api.picture().await?);
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.metrics.render()))
}

/// Every label is set each time, so that a count that has gone to zero says so.
fn gauge(api: &Api, picture: &Picture) {
    for liveness in Liveness::ALL {
        let count = picture.nodes.values().filter(|node| node.sight.liveness == *liveness).count();
        set(api, "deployex_nodes", vec![Label::new("liveness", liveness.word())], count);
    }
    for (name, app) in &picture.apps {
        let mut states: BTreeMap<SlotState, usize> = SlotState::ALL.iter().map(|state| (*state, 0)).collect();
        for replica in replicas::of(picture, &app.fleet) {
            *states.entry(replica.state).or_default() += 1;
        }
        for (state, count) in states {
            let labels = vec![Label::new("application", name.to_string()), Label::new("state", state.word())];
            set(api, "deployex_replicas", labels, count);
        }
    }
    let open = picture.apps.values().filter(|app| app.fleet.rollout.is_some()).count();
    set(api, "deployex_rollouts_open", Vec::new(), open);
}

fn set(api: &Api, name: &'static str, labels: Vec<Label>, count: usize) {
    api.metrics.gauge(name, labels).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
}

/// What each figure means.
pub(super) fn describe(metrics: &crate::telemetry::Metrics) {
    metrics.describe_gauge("deployex_nodes", "Nodes by whether they are heard.");
    metrics.describe_gauge("deployex_replicas", "Replicas by application and state.");
    metrics.describe_gauge("deployex_rollouts_open", "Rollouts that are not over.");
    metrics.describe_gauge("deployex_live_connections", "Consoles that are connected.");
    metrics.describe_counter("deployex_sign_ins_total", "Attempts to sign in by outcome.");
    metrics.describe_counter("deployex_http_requests_total", "Requests answered.");
    metrics.describe_seconds("deployex_http_request_seconds", "How long answers took to begin.");
}
