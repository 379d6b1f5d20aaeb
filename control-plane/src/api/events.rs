//! Events, newest first.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use proto::events::Event;
use proto::ids::{AppName, EventId, NodeId, NodeName, RolloutId, Slot};
use proto::page::Page;
use proto::state::Severity;
use proto::timestamp::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::Api;
use crate::clock::Time;
use crate::db::{Event as Stored, EventFilter, NewEvent, PageRequest};
use crate::error::{ApiError, ApiResult};
use crate::http::input::{Query, limit, read_cursor};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    app: Option<AppName>,
    node: Option<NodeName>,
    slot: Option<Slot>,
    rollout: Option<RolloutId>,
    kind: Option<String>,
    severity: Option<Severity>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(("app" = Option<AppName>, Query), ("node" = Option<NodeName>, Query),
        ("slot" = Option<Slot>, Query), ("rollout" = Option<RolloutId>, Query),
        ("kind" = Option<String>, Query),
        ("severity" = Option<Severity>, Query, description = "This and all above it."),
        ("since" = Option<Timestamp>, Query), ("until" = Option<Timestamp>, Query),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "Newest first.", body = Page<Event>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<Event>>> {
    let after: Option<EventId> = query.cursor.as_deref().map(read_cursor).transpose()?;
    let names = names(&api).await?;
    let id_of = |name: NodeName| {
        let found = names.iter().find(|(_, it)| **it == name).map(|(id, _)| *id);
        found.ok_or_else(|| ApiError::not_found("node", &name))
    };
    let filter = EventFilter {
        app: query.app,
        node: query.node.map(id_of).transpose()?,
        slot: query.slot,
        rollout: query.rollout,
        kind: query.kind,
        at_least: query.severity,
        since: query.since.map(|it| Time(it.0)),
        until: query.until.map(|it| Time(it.0)),
    };
    let page = api.db.events(&filter, PageRequest { after, limit: limit(query.limit)? }).await?;
    let items = page.items.into_iter().map(|event| view(event, &names)).collect();
    Ok(Json(Page { items, next: page.next.map(|id| id.to_string()) }))
}

pub(super) type Names = BTreeMap<NodeId, NodeName>;

async fn names(api: &Api) -> ApiResult<Names> {
    Ok(api.db.nodes().await?.into_iter().map(|node| (node.id, node.name)).collect())
}

pub(super) fn view(stored: Stored, names: &Names) -> Event {
    let Stored { id, event } = stored;
    let NewEvent { at, kind, severity, app, node, slot, rollout, text, data } = event;
    let mut data: BTreeMap<String, String> =
        data.into_iter().map(|(key, value)| (key, plain(value))).collect();
    Event {
        id,
        at: at.into(),
        severity,
        kind,
        text,
        application: app,
        node: node.and_then(|id| names.get(&id).cloned()),
        slot,
        rollout,
        by: data.remove("by"),
        data,
    }
}

fn plain(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
