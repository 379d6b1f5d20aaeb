//! What one slot was told to run, from when to when, on whose word and with what outcome.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use proto::apps::ReplicaHistoryEntry;
use proto::ids::{AppName, NodeName, RolloutId, Slot};
use proto::page::Page;
use proto::state::RolloutPhase;
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
    let HistoryEntry { app: _, place: _, release, kind, from, rollout, since, until } = entry;
    let known = rollout.and_then(|id| rollouts.get(&id));
    let (by, outcome, reason) = match known {
        Some(it) if it.release == release => (Some(it.by.clone()), Some(it.phase), it.reason.clone()),
        // What became of another release is no outcome of this one.
        Some(it) if takes_back(it) && it.from.as_ref() == Some(&release) => {
            let by = it.progress.aborted.as_ref().map_or("rollback", |said| said.by.as_str());
            let because = it.reason.as_ref().map(|because| format!(": {because}")).unwrap_or_default();
            let reason = format!("{} was taken back{because}", it.release.version);
            (Some(by.to_owned()), None, Some(reason))
        }
        // A slot that was filled with what was in force, while that moved elsewhere.
        _ => (None, None, None),
    };
    let (started_at, finished_at) = (since.into(), until.map(Into::into));
    ReplicaHistoryEntry { release, kind, from, started_at, finished_at, rollout, by, outcome, reason }
}

fn takes_back(rollout: &Rollout) -> bool {
    matches!(rollout.phase, RolloutPhase::Reverting | RolloutPhase::Reverted | RolloutPhase::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::rollout::{PreCommandsState, Progress};
    use proto::apps::DeploymentKind;
    use proto::ids::{Digest, NodeId, ReleaseKey};

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
            from: None,
            rollout: Some(id),
            since: Time(5),
            until: None,
        };
        let rollouts = BTreeMap::from([(id, rollout)]);
        let seen = view(entry.clone(), &rollouts);
        assert_eq!((seen.by.as_deref(), seen.outcome), (Some("ann"), Some(RolloutPhase::Failed)));
        assert_eq!(seen.reason.as_deref(), Some("it does not start"));
        // What was there before comes back: that is not how it ended itself.
        let good = ReleaseKey { version: "1.0.0".parse().unwrap(), sha256: Digest([1; 32]) };
        let back = HistoryEntry { release: good.clone(), ..entry.clone() };
        let mut rollouts = rollouts;
        rollouts.get_mut(&id).unwrap().from = Some(good);
        rollouts.get_mut(&id).unwrap().phase = RolloutPhase::Reverted;
        let seen = view(back.clone(), &rollouts);
        assert_eq!((seen.by.as_deref(), seen.outcome), (Some("rollback"), None));
        assert_eq!(seen.reason.as_deref(), Some("2.0.0 was taken back: it does not start"));
        // Or it is given to a host that joins while another moves.
        rollouts.get_mut(&id).unwrap().phase = RolloutPhase::Running;
        assert_eq!(view(back, &rollouts).by, None);
        let alone = view(HistoryEntry { rollout: None, ..entry }, &rollouts);
        assert_eq!((alone.by, alone.outcome, alone.finished_at), (None, None, None));
    }
}
