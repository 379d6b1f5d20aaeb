//! Rollouts: what moves, how far it is, what it waits for.

mod nodes;
mod record;

use axum::Json;
use axum::extract::State;
use proto::ids::{AppName, NodeName, RolloutId};
use proto::page::Page;
use proto::problem::{Code, Problem};
use proto::replicas::Replica;
use proto::rollouts::{Progress, Rollout as RolloutView, RolloutPreCommands, RolloutSummary};
use proto::state::{RolloutPhase, Severity, SlotState};
use serde::Deserialize;

use super::{Api, apps, releases, replicas};
use crate::auth::principal::Principal;
use crate::db::{PageRequest, RolloutFilter};
use crate::error::{ApiError, ApiResult};
use crate::http::input::{Path, Query, limit, read_cursor};
use crate::picture::{AppPicture, Picture};
use crate::rollout::{PreCommandsState, Rollout, Said, Steering};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    app: Option<AppName>,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[utoipa::path(get, path = "/api/v1/rollouts", tag = "rollouts",
    params(("app" = Option<AppName>, Query), ("limit" = Option<u32>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "Newest first.", body = Page<RolloutSummary>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<RolloutSummary>>> {
    let page = PageRequest {
        after: query.cursor.as_deref().map(read_cursor).transpose()?,
        limit: limit(query.limit)?,
    };
    let filter = RolloutFilter { app: query.app, ..RolloutFilter::default() };
    let found = api.db.rollouts(&filter, page).await?;
    let picture = api.picture().await?;
    let items = found.items.iter().map(|it| summary(&picture, picture.apps.get(&it.app), it)).collect();
    Ok(Json(Page { items, next: found.next.map(|id| id.to_string()) }))
}

#[utoipa::path(get, path = "/api/v1/rollouts/{id}", tag = "rollouts",
    params(("id" = RolloutId, Path)),
    responses((status = 200, description = "The rollout with its slots.", body = RolloutView)))]
pub(super) async fn show(State(api): State<Api>, Path(id): Path<RolloutId>) -> ApiResult<Json<RolloutView>> {
    let picture = api.picture().await?;
    match find(&api, &picture, id).await? {
        Some(rollout) => Ok(Json(rollout)),
        None => Err(ApiError::not_found("rollout", id)),
    }
}

#[utoipa::path(post, path = "/api/v1/rollouts/{id}/pause", tag = "rollouts",
    params(("id" = RolloutId, Path)),
    responses(
        (status = 200, description = "No further slot is told its release until it is resumed.", body = RolloutView),
        (status = 409, description = "`conflict`: it does not move, or is paused.", body = Problem)))]
pub(super) async fn pause(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<RolloutId>,
) -> ApiResult<Json<RolloutView>> {
    steer(&api, &principal, id, Steering::Pause).await
}

#[utoipa::path(post, path = "/api/v1/rollouts/{id}/resume", tag = "rollouts",
    params(("id" = RolloutId, Path)),
    responses(
        (status = 200, description = "It goes on.", body = RolloutView),
        (status = 409, description = "`conflict`: it is not paused.", body = Problem)))]
pub(super) async fn resume(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<RolloutId>,
) -> ApiResult<Json<RolloutView>> {
    steer(&api, &principal, id, Steering::Resume).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PromoteQuery {
    /// Whoever promotes what they looked at names it: the next one may have been drawn meanwhile.
    batch: Option<u32>,
}

#[utoipa::path(post, path = "/api/v1/rollouts/{id}/promote", tag = "rollouts",
    params(("id" = RolloutId, Path), ("batch" = Option<u32>, Query)),
    responses(
        (status = 200, description = "It goes on behind its canary or its last batch as soon as that is stable.", body = RolloutView),
        (status = 409, description = "`conflict`: it does not move, has no batch yet, moves another batch than the one that was named, or was promoted.", body = Problem)))]
pub(super) async fn promote(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<RolloutId>,
    Query(query): Query<PromoteQuery>,
) -> ApiResult<Json<RolloutView>> {
    steer(&api, &principal, id, Steering::Promote { batch: query.batch }).await
}

#[utoipa::path(post, path = "/api/v1/rollouts/{id}/abort", tag = "rollouts",
    params(("id" = RolloutId, Path)),
    responses(
        (status = 200, description = "It goes back to where it came from; the release is not ghosted.", body = RolloutView),
        (status = 409, description = "`conflict`: it goes back already, or is over.", body = Problem)))]
pub(super) async fn abort(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<RolloutId>,
) -> ApiResult<Json<RolloutView>> {
    steer(&api, &principal, id, Steering::Abort).await
}

async fn steer(
    api: &Api,
    principal: &Principal,
    id: RolloutId,
    steering: Steering,
) -> ApiResult<Json<RolloutView>> {
    let known = api.db.rollout(id).await?.ok_or_else(|| ApiError::not_found("rollout", id))?;
    let (by, what) = (&principal.name, format!("the rollout of {} {}", known.app, known.release.version));
    let (kind, action, did) = match steering {
        Steering::Pause => ("deployment_paused", "rollout.pause", "paused"),
        Steering::Resume => ("deployment_resumed", "rollout.resume", "resumed"),
        Steering::Promote { .. } => ("deployment_promoted", "rollout.promote", "promoted"),
        Steering::Abort => ("deployment_aborted", "rollout.abort", "aborted"),
    };
    let mut event = api.asked(by, kind, Severity::Info, format!("{by} {did} {what}"));
    (event.app, event.rollout) = (Some(known.app.clone()), Some(id));
    let audit = api.audit(by, action, known.app.as_str(), &id.to_string());
    let said = Said { by: by.clone(), at: api.clock.wall() };
    let steered = api.db.steer_rollout(id, steering, said, &event, &audit).await?;
    steered.map_err(|held| ApiError::new(Code::Conflict, format!("{what} {held}")))?;
    api.backend.plan_now();
    let picture = api.picture().await?;
    find(api, &picture, id).await?.map(Json).ok_or_else(|| ApiError::not_found("rollout", id))
}

/// One that is under way comes from the picture, so that it is the same everywhere; an old one from the database.
pub(super) async fn find(api: &Api, picture: &Picture, id: RolloutId) -> ApiResult<Option<RolloutView>> {
    let shown = picture.apps.values().find_map(|app| {
        let rollout = [&app.fleet.rollout, &app.fleet.last].into_iter().flatten().find(|it| it.id == id)?;
        Some(view(picture, app, rollout))
    });
    let found = match shown {
        Some(shown) => Some(shown),
        None => api.db.rollout(id).await?.map(|rollout| past(picture, &rollout)),
    };
    let Some(mut found) = found else { return Ok(None) };
    // What moves has no evidence against it.
    if !matches!(found.summary.phase, RolloutPhase::Pending | RolloutPhase::Running) {
        let ghosts = api.db.ghosted(Some(&found.summary.application)).await?;
        found.ghost =
            ghosts.into_iter().find(|it| it.ghost.rollout == Some(id)).map(|it| releases::ghost(picture, it));
    }
    recall(api, &mut found).await?;
    Ok(Some(found))
}

/// Completes it with what is kept of it beside what is planned by.
pub(super) async fn recall(api: &Api, rollout: &mut RolloutView) -> ApiResult<()> {
    record::complete(rollout, api.db.rollout_record(rollout.summary.id).await?);
    Ok(())
}

/// One that only the database remembers.
fn past(picture: &Picture, rollout: &Rollout) -> RolloutView {
    RolloutView {
        summary: summary(picture, picture.apps.get(&rollout.app), rollout),
        pre_commands: pre_commands(&rollout.pre_commands, |_| None),
        strategy: None,
        batch: None,
        ghost: None,
        nodes: Vec::new(),
    }
}

pub(super) fn summary(picture: &Picture, app: Option<&AppPicture>, rollout: &Rollout) -> RolloutSummary {
    let current = app.filter(|app| app.fleet.rollout.as_ref().is_some_and(|it| it.id == rollout.id));
    RolloutSummary {
        id: rollout.id,
        application: rollout.app.clone(),
        release: rollout.release.clone(),
        from: rollout.from.clone(),
        phase: rollout.phase,
        reason: rollout.reason.clone(),
        by: rollout.by.clone(),
        started_at: rollout.started_at.into(),
        phase_since: rollout.phase_since.into(),
        finished_at: rollout.finished_at.map(Into::into),
        paused_by: rollout.progress.paused.as_ref().map(|it| it.by.clone()),
        aborted_by: rollout.progress.aborted.as_ref().map(|it| it.by.clone()),
        left: rollout.progress.left.clone(),
        progress: current.map(|app| progress(picture, app, rollout)).unwrap_or_default(),
        waiting: current.map(|app| app.waiting.clone()).unwrap_or_default(),
    }
}

fn progress(picture: &Picture, app: &AppPicture, rollout: &Rollout) -> Progress {
    let target = match rollout.phase {
        RolloutPhase::Reverting => rollout.from.as_ref(),
        _ => Some(&rollout.release),
    };
    let last_slot = |replica: &Replica| {
        let node = picture.node_by_name(&replica.node);
        node.map_or(0, |node| apps::slots_on(&app.fleet, node.node.id))
    };
    let there = replicas::of(picture, &app.fleet).filter(|replica| {
        replica.slot.number() <= last_slot(replica)
            && replica.state == SlotState::Stable
            && replica.running.as_ref() == target
    });
    Progress { stable: u32::try_from(there.count()).unwrap_or(u32::MAX), total: apps::slots_wanted(app) }
}

pub(super) fn view(picture: &Picture, app: &AppPicture, rollout: &Rollout) -> RolloutView {
    let nodes = nodes::of(picture, app, rollout);
    let spec = app.fleet.spec.as_ref().filter(|_| !rollout.phase.is_over());
    RolloutView {
        summary: summary(picture, Some(app), rollout),
        pre_commands: pre_commands(&rollout.pre_commands, |node| picture.name_of(node, &app.fleet)),
        strategy: spec.map(|spec| spec.deploy.sentence()),
        batch: nodes::batch(rollout, &nodes),
        ghost: None,
        nodes,
    }
}

fn pre_commands(
    state: &PreCommandsState,
    name: impl Fn(proto::ids::NodeId) -> Option<NodeName>,
) -> RolloutPreCommands {
    match state {
        PreCommandsState::NotNeeded => RolloutPreCommands::NotNeeded,
        PreCommandsState::Waiting => RolloutPreCommands::Waiting,
        PreCommandsState::RunBy { place, .. } => match name(place.node) {
            Some(node) => RolloutPreCommands::Running { node, slot: place.slot },
            None => RolloutPreCommands::Waiting,
        },
        PreCommandsState::EveryReplica => RolloutPreCommands::EveryReplica { passed: 0, ran: Vec::new() },
        PreCommandsState::Passed => RolloutPreCommands::Passed { ran: None },
        PreCommandsState::Failed { error } => {
            RolloutPreCommands::Failed { error: error.clone(), ran: Vec::new() }
        }
    }
}
