//! What one slot was told to run, from when to when, on whose word and with what outcome.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use proto::apps::ReplicaHistoryEntry;
use proto::ids::{AppName, NodeName, RolloutId, Slot};
use proto::page::Page;
use serde::Deserialize;

use crate::api::Api;
use crate::db::{HistoryEntry, PageRequest};
use crate::error::{ApiError, ApiResult};
use crate::fleet::Place;
use crate::http::input::{Path, Query, limit, read_cursor};
use crate::rollout::Rollout;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ListQuery {
    limit: Option<u32>,
    cursor: Option<String>,
}

#[utoipa::path(get, path = "/api/v1/replicas/{node}/{app}/{slot}/history", tag = "replicas",
    params(("node" = NodeName, Path), ("app" = AppName, Path), ("slot" = Slot, Path),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "What the slot was told to run, newest first.", body = Page<ReplicaHistoryEntry>)))]
pub(in crate::api) async fn of_replica(
    State(api): State<Api>,
    Path((node, app, slot)): Path<(NodeName, AppName, Slot)>,
    Query(ListQuery { limit: asked, cursor }): Query<ListQuery>,
) -> ApiResult<Json<Page<ReplicaHistoryEntry>>> {
    api.db.application(&app).await?.ok_or_else(|| ApiError::not_found("application", &app))?;
    let found = api.db.node_by_name(&node).await?.ok_or_else(|| ApiError::not_found("node", &node))?;
    let after = cursor.as_deref().map(read_cursor).transpose()?;
    let page = PageRequest { after, limit: limit(asked)? };
    let page = api.db.place_history(&app, Place { node: found.id, slot }, page).await?;
    let ids: BTreeSet<RolloutId> = page.items.iter().filter_map(|entry| entry.rollout).collect();
    let rollouts = api.db.rollouts_named(&ids).await?;
    let items = page.items.into_iter().map(|entry| view(entry, &rollouts)).collect();
    Ok(Json(Page { items, next: page.next.map(|id| id.to_string()) }))
}

fn view(entry: HistoryEntry, rollouts: &BTreeMap<RolloutId, Rollout>) -> ReplicaHistoryEntry {
    let HistoryEntry { app: _, place: _, release, kind, rollout, since, until } = entry;
    let known = rollout.and_then(|id| rollouts.get(&id));
    ReplicaHistoryEntry {
        release,
        kind,
        started_at: since.into(),
        finished_at: until.map(Into::into),
        rollout,
        by: known.map(|it| it.by.clone()),
        outcome: known.map(|it| it.phase),
        reason: known.and_then(|it| it.reason.clone()),
    }
}

#[cfg(test)]
mod tests {
    use proto::apps::DeploymentKind;
    use proto::ids::{Digest, NodeId, ReleaseKey};
    use proto::state::RolloutPhase;

    use super::*;
    use crate::clock::Time;
    use crate::rollout::{PreCommandsState, Progress};

    #[test]
    fn an_entry_says_what_became_of_its_rollout_and_one_without_says_nothing() {
        let id = RolloutId(uuid::Uuid::nil());
        let release = ReleaseKey { version: "2.0.0".parse().unwrap(), sha256: Digest([2; 32]) };
        let rollout = Rollout {
            id,
            app: "shop".parse().unwrap(),
            release: release.clone(),
            from: None,
            wished_at: Time(1),
            phase: RolloutPhase::Failed,
            reason: Some("it does not start".to_owned()),
            pre_commands: PreCommandsState::NotNeeded,
            progress: Progress::default(),
            by: "ann".to_owned(),
            started_at: Time(1),
            phase_since: Time(1),
            finished_at: Some(Time(9)),
        };
        let entry = HistoryEntry {
            app: rollout.app.clone(),
            place: Place { node: NodeId(uuid::Uuid::nil()), slot: "1".parse().unwrap() },
            release,
            kind: DeploymentKind::Full,
            rollout: Some(id),
            since: Time(5),
            until: None,
        };
        let rollouts = BTreeMap::from([(id, rollout)]);
        let seen = view(entry.clone(), &rollouts);
        assert_eq!((seen.by.as_deref(), seen.outcome), (Some("ann"), Some(RolloutPhase::Failed)));
        assert_eq!(seen.reason.as_deref(), Some("it does not start"));
        let alone = view(HistoryEntry { rollout: None, ..entry }, &rollouts);
        assert_eq!((alone.by, alone.outcome, alone.finished_at), (None, None, None));
    }
}
