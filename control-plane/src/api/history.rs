//! The last hour of a host, as points for a chart.

use axum::Json;
use axum::extract::State;
use proto::ids::{NodeId, NodeName};
use proto::metrics::{EVERY_MS, HostHistory};
use proto::timestamp::Timestamp;
use serde::Deserialize;

use super::Api;
use crate::clock::Time;
use crate::error::{ApiError, ApiResult};
use crate::http::input::Query;

/// A moment of ours differs by so much between two answers at most: two samples lie further apart.
const BLUR_MS: u64 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    node: NodeName,
    since: Option<Timestamp>,
}

#[utoipa::path(get, path = "/api/v1/metrics-history", tag = "nodes",
    params(("node" = NodeName, Query), ("since" = Option<Timestamp>, Query, description = "Only what came after it.")),
    responses((status = 200, description = "The host's figures of the last hour, oldest first.", body = HostHistory)))]
pub(super) async fn show(
    State(api): State<Api>,
    Query(HistoryQuery { node, since }): Query<HistoryQuery>,
) -> ApiResult<Json<HostHistory>> {
    let nodes = api.db.nodes().await?;
    let known = nodes.iter().find(|it| it.name == node).ok_or_else(|| ApiError::not_found("node", &node))?;
    let mut history = whole(&api, known.id, node).0;
    if let Some(since) = since {
        history.points.retain(|it| it.at.0 > since.0.saturating_add(BLUR_MS));
        history.since = Some(since);
    }
    Ok(Json(history))
}

/// All that is kept, and when the newest of it was heard by our own clock.
pub(super) fn whole(api: &Api, node: NodeId, name: NodeName) -> (HostHistory, Option<Time>) {
    let points = api.backend.host_history(node, None);
    let newest = points.last().map(|it| it.0);
    let points = points.into_iter().map(|it| it.1).collect();
    (HostHistory { node: name, since: None, every_ms: EVERY_MS, points }, newest)
}

/// What came after that; `None`: nothing.
pub(super) fn after(api: &Api, node: NodeId, name: NodeName, since: Time) -> Option<(HostHistory, Time)> {
    let points = api.backend.host_history(node, Some(since));
    let newest = points.last()?.0;
    let points = points.into_iter().map(|it| it.1).collect();
    let since = Some(api.clock.shown(since).into());
    Some((HostHistory { node: name, since, every_ms: EVERY_MS, points }, newest))
}
