//! What a replica has counted of its application's events.

use axum::Json;
use axum::extract::State;
use proto::ids::{AppName, NodeName, Slot};
use proto::pb;
use proto::telemetry::{ReplicaTelemetry, TelemetryRow, TelemetryValue, Took};

use crate::agents::Counted;
use crate::api::{Api, history};
use crate::error::{ApiError, ApiResult};
use crate::http::input::Path;

#[utoipa::path(get, path = "/api/v1/replicas/{node}/{app}/{slot}/telemetry", tag = "replicas",
    params(("node" = NodeName, Path), ("app" = AppName, Path), ("slot" = Slot, Path)),
    responses((status = 200, description = "The events that `telemetry.events` of the application asks for, as they were counted when they were read last.",
        body = ReplicaTelemetry)))]
pub(in crate::api) async fn show(
    State(api): State<Api>,
    Path((node, application, slot)): Path<(NodeName, AppName, Slot)>,
) -> ApiResult<Json<ReplicaTelemetry>> {
    let picture = api.picture().await?;
    let missing = || ApiError::not_found("replica", format!("{slot} of {application} on {node}"));
    let place = history::place(&picture, (&node, &application, slot)).ok_or_else(missing)?;
    let spec = picture.apps.get(&application).and_then(|it| it.fleet.spec.as_ref());
    let events = spec.map(|it| it.telemetry.clone()).unwrap_or_default();
    let counted = match events.is_empty() {
        true => None,
        false => api.backend.counted(&application, place),
    };
    Ok(Json(view((node, application, slot), events, counted)))
}

fn view(
    (node, application, slot): (NodeName, AppName, Slot),
    events: Vec<String>,
    counted: Option<Counted>,
) -> ReplicaTelemetry {
    let read_at = counted.as_ref().map(|it| it.read_at.into());
    let since = counted.as_ref().filter(|it| it.sample.fault.is_empty()).map(|it| it.since.into());
    let sample = counted.map(|it| pb::TelemetrySample::clone(&it.sample)).unwrap_or_default();
    ReplicaTelemetry {
        node,
        application,
        slot,
        events,
        read_at,
        since,
        fault: some(sample.fault),
        unknown: sample.unknown,
        failures: sample.failures,
        rows: sample.rows.into_iter().map(row).collect(),
        values: sample.values.into_iter().map(value).collect(),
    }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|it| !it.is_empty())
}

fn row(row: pb::TelemetryRow) -> TelemetryRow {
    let pb::TelemetryRow { event, route, source, status, count, per_second, sum_us, max_us, buckets } = row;
    TelemetryRow {
        event,
        route: some(route),
        source: some(source),
        status: (status > 0).then(|| format!("{status}xx")),
        count,
        per_second,
        took: (!buckets.is_empty()).then_some(Took { sum_us, max_us, buckets }),
    }
}

fn value(value: pb::TelemetryValue) -> TelemetryValue {
    let pb::TelemetryValue { event, measurement, value } = value;
    TelemetryValue { event, measurement, value }
}
