//! The last hour of a host, and of a replica's VM, as points for a chart.

use axum::Json;
use axum::extract::State;
use proto::ids::{AppName, NodeId, NodeName, Slot};
use proto::metrics::{EVERY_MS, HostHistory, VmBound, VmBounds, VmHistory};
use proto::state::VmFigure;
use proto::timestamp::Timestamp;
use serde::Deserialize;

use super::Api;
use crate::agents::VmPast;
use crate::clock::Time;
use crate::error::{ApiError, ApiResult};
use crate::fleet::Place;
use crate::http::input::{Path, Query};
use crate::picture::Picture;

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
    if let Some(since) = since.filter(|it| !lies_ahead(*it, history.points.last().map(|it| it.at))) {
        history.points.retain(|it| it.at.0 > since.0.saturating_add(BLUR_MS));
        history.since = Some(since);
    }
    Ok(Json(history))
}

/// Whoever asks has points that are newer than the newest: the clock was put back, and all is told anew.
fn lies_ahead(since: Timestamp, newest: Option<Timestamp>) -> bool {
    newest.is_some_and(|it| it.0.saturating_add(BLUR_MS) < since.0)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VmQuery {
    since: Option<Timestamp>,
}

#[utoipa::path(get, path = "/api/v1/replicas/{node}/{app}/{slot}/metrics", tag = "replicas",
    params(("node" = NodeName, Path), ("app" = AppName, Path), ("slot" = Slot, Path),
        ("since" = Option<Timestamp>, Query, description = "Only what came after it.")),
    responses((status = 200, description = "The figures of a replica's VM of the last hour, oldest first.", body = VmHistory)))]
pub(super) async fn show_vm(
    State(api): State<Api>,
    Path((node, app, slot)): Path<(NodeName, AppName, Slot)>,
    Query(VmQuery { since }): Query<VmQuery>,
) -> ApiResult<Json<VmHistory>> {
    let picture = api.picture().await?;
    let missing = || ApiError::not_found("replica", format!("{slot} of {app} on {node}"));
    let place = place(&picture, (&node, &app, slot)).ok_or_else(missing)?;
    let mut history = whole_vm(&api, &picture, place, (node, app)).0;
    if let Some(since) = since.filter(|it| !lies_ahead(*it, history.points.last().map(|it| it.at))) {
        history.points.retain(|it| it.at.0 > since.0.saturating_add(BLUR_MS));
        history.since = Some(since);
    }
    Ok(Json(history))
}

/// `None`: there is no such replica.
pub(super) fn place(picture: &Picture, (node, app, slot): (&NodeName, &AppName, Slot)) -> Option<Place> {
    let places = picture.places(&picture.apps.get(app)?.fleet);
    places.into_iter().find(|(name, place)| name == node && place.slot == slot).map(|it| it.1)
}

/// As [`whole`], of a replica's VM.
pub(super) fn whole_vm(
    api: &Api,
    picture: &Picture,
    place: Place,
    names: (NodeName, AppName),
) -> (VmHistory, Option<Time>) {
    vm_since(api, picture, place, names, None)
}

/// As [`after`], of a replica's VM.
pub(super) fn after_vm(
    api: &Api,
    picture: &Picture,
    place: Place,
    names: (NodeName, AppName),
    since: Time,
) -> Option<(VmHistory, Time)> {
    let (history, newest) = vm_since(api, picture, place, names, Some(since));
    newest.map(|newest| (history, newest))
}

fn vm_since(
    api: &Api,
    picture: &Picture,
    place: Place,
    (node, application): (NodeName, AppName),
    since: Option<Time>,
) -> (VmHistory, Option<Time>) {
    let VmPast { every_ms, points } = api.backend.vm_history(&application, place, since);
    let newest = points.last().map(|it| it.0);
    let points = points.into_iter().map(|it| it.1).collect();
    let since = since.map(|it| api.clock.shown(it).into());
    let bounds = bounds(picture, &application, place);
    (VmHistory { node, application, slot: place.slot, since, every_ms, bounds, points }, newest)
}

/// As the replica's agent compares them.
fn bounds(picture: &Picture, app: &AppName, place: Place) -> VmBounds {
    let Some(fleet) = picture.apps.get(app).map(|it| &it.fleet) else { return VmBounds::default() };
    let monitoring = fleet.spec.as_ref().map(|it| it.monitoring).unwrap_or_default();
    let vm = fleet.observed.get(&place).and_then(|it| it.vm.as_ref());
    let limits = vm.and_then(|it| it.limits).unwrap_or_default();
    let bound = |limit: u64, figure: Option<VmFigure>| {
        let threshold = figure.and_then(|it| monitoring.of(it));
        let bound = VmBound {
            limit,
            warning_percent: threshold.map(|it| it.warning.into()),
            restart_percent: threshold.and_then(|it| it.restart).map(Into::into),
        };
        Some(bound).filter(|_| limit > 0)
    };
    // Of what was configured, whether or not the host can hold it to that.
    let memory = fleet.spec.as_ref().and_then(|it| it.limits.memory_max).or_else(|| {
        let usage = picture.nodes.get(&place.node).and_then(|it| it.sight.usage);
        usage.map(|it| it.memory_total_bytes).filter(|_| monitoring.memory.is_some())
    });
    VmBounds {
        processes: bound(limits.processes, Some(VmFigure::Process)),
        ports: bound(limits.ports, Some(VmFigure::Port)),
        atoms: bound(limits.atoms, Some(VmFigure::Atom)),
        ets_tables: bound(limits.ets_tables, None),
        memory: bound(memory.unwrap_or(0), Some(VmFigure::Memory)),
    }
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
