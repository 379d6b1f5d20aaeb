//! Applications.

pub(super) mod deploy;
pub(super) mod doctor;
pub(super) mod logo;
pub(super) mod scale;
mod standing;

use axum::Json;
use axum::extract::State;
use proto::apps::{Application, ApplicationSummary, HistoryEntry, Pin, PortBase, ReleaseFault, Settings};
use proto::ids::{AppName, NodeId};
use proto::page::Page;
use proto::releases::Ghost;
use proto::replicas::ReplicaTile;
use proto::state::{RolloutPhase, Service};
use serde::Deserialize;

use self::standing::Standing;
use super::{Api, releases, replicas, rollouts};
use crate::db::{BucketFault, PageRequest, RolloutFilter};
use crate::error::{ApiError, ApiResult};
use crate::fleet::AppFleet;
use crate::http::input::{Path, Query, limit, page_of, read_cursor};
use crate::picture::{AppPicture, Picture};
use crate::rollout::back_to;
use crate::spec::AppSpec;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<u32>,
    cursor: Option<String>,
}

#[utoipa::path(get, path = "/api/v1/applications", tag = "applications",
    params(("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "By name.", body = Page<ApplicationSummary>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<ApplicationSummary>>> {
    let limit = limit(query.limit)?;
    let picture = api.picture().await?;
    let apps = picture.apps.values().map(|app| summary(&picture, app)).collect();
    page_of(apps, query.cursor.as_deref(), limit, |app: &ApplicationSummary| app.name.clone()).map(Json)
}

#[utoipa::path(get, path = "/api/v1/applications/{app}", tag = "applications",
    params(("app" = AppName, Path)),
    responses((status = 200, description = "The application with its replicas.", body = Application)))]
pub(super) async fn show(State(api): State<Api>, Path(app): Path<AppName>) -> ApiResult<Json<Application>> {
    let picture = api.picture().await?;
    let found = picture.apps.get(&app).ok_or_else(|| ApiError::not_found("application", &app))?;
    let ghosts = api.db.ghosted(Some(&app)).await?.into_iter();
    let ghosts = ghosts.map(|it| releases::ghost(&picture, it)).collect();
    Ok(Json(whole(&api, &picture, found, ghosts).await?))
}

#[utoipa::path(get, path = "/api/v1/applications/{app}/history", tag = "applications",
    params(("app" = AppName, Path), ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "What was deployed, newest first.", body = Page<HistoryEntry>)))]
pub(super) async fn history(
    State(api): State<Api>,
    Path(app): Path<AppName>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<HistoryEntry>>> {
    api.db.application(&app).await?.ok_or_else(|| ApiError::not_found("application", &app))?;
    let after = query.cursor.as_deref().map(read_cursor).transpose()?;
    let page = PageRequest { after, limit: limit(query.limit)? };
    let filter = RolloutFilter { app: Some(app), ..RolloutFilter::default() };
    let page = api.db.rollouts(&filter, page).await?;
    let kinds = api.db.deployment_kinds(&page.items).await?;
    let entry = |rollout: crate::rollout::Rollout| HistoryEntry {
        kind: kinds.get(&rollout.id).copied(),
        rollout: rollout.id,
        release: rollout.release,
        from: rollout.from,
        by: rollout.by,
        started_at: rollout.started_at.into(),
        finished_at: rollout.finished_at.map(Into::into),
        outcome: rollout.phase,
        reason: rollout.reason,
    };
    let next = page.next.map(|id| id.to_string());
    Ok(Json(Page { items: page.items.into_iter().map(entry).collect(), next }))
}

/// The application as lists show it.
pub(super) fn summary(picture: &Picture, app: &AppPicture) -> ApplicationSummary {
    let AppPicture { application, fleet, .. } = app;
    let spec = &application.spec;
    let tiles: Vec<ReplicaTile> = replicas::of(picture, fleet).map(|replica| tile(&replica)).collect();
    let wanted = slots_wanted(app);
    let ready = tiles.iter().filter(|tile| tile.state.is_ready()).count();
    let state = Standing { app, tiles: &tiles, wanted, ready: u32::try_from(ready).unwrap_or(u32::MAX) };
    let (tone, sentence, needs_attention) = state.said();
    let in_force_since =
        [&fleet.rollout, &fleet.last, &fleet.brought].into_iter().flatten().find_map(|rollout| {
            let of_it = fleet.in_force.as_ref() == Some(&rollout.release);
            let stable = matches!(rollout.phase, RolloutPhase::Watching | RolloutPhase::Done);
            (of_it && stable).then(|| rollout.finished_at.unwrap_or(rollout.phase_since).into())
        });
    ApplicationSummary {
        name: spec.name.clone(),
        language: spec.language,
        tone,
        sentence,
        needs_attention,
        in_force: fleet.in_force.clone(),
        in_force_since,
        wanted: fleet.wanted.as_ref().map(|wish| wish.release.clone()),
        replicas_wanted: wanted,
        replicas_ready: state.ready,
        rollout: fleet.rollout.as_ref().map(|rollout| rollout.id),
        ghosted: u32::try_from(fleet.ghosted.len()).unwrap_or(u32::MAX),
        replicas: tiles,
    }
}

/// The application as its page shows it.
pub(super) async fn whole(
    api: &Api,
    picture: &Picture,
    app: &AppPicture,
    ghosts: Vec<Ghost>,
) -> ApiResult<Application> {
    let mut application = view(picture, app, ghosts);
    if let Some(rollout) = &mut application.current_rollout {
        rollouts::recall(api, rollout).await?;
    }
    Ok(application)
}

fn view(picture: &Picture, app: &AppPicture, ghosts: Vec<Ghost>) -> Application {
    let fault = app.bucket.as_ref().and_then(|bucket| {
        let BucketFault { kind, text } = bucket.fault.clone()?;
        Some(ReleaseFault { kind, text, since: bucket.since.into() })
    });
    Application {
        summary: summary(picture, app),
        settings: settings(&app.application.spec),
        release_fault: fault,
        slots: replicas::of(picture, &app.fleet).collect(),
        current_rollout: app.fleet.rollout.as_ref().map(|rollout| rollouts::view(picture, app, rollout)),
        ghosts,
        pinned: app.application.manual.as_ref().filter(|it| it.pinned).map(|it| Pin {
            release: it.release.clone(),
            by: it.by.clone(),
            at: it.at.into(),
        }),
        rolls_back_to: back_to(&app.fleet, &[]).ok(),
    }
}

fn tile(replica: &proto::replicas::Replica) -> ReplicaTile {
    ReplicaTile {
        node: replica.node.clone(),
        slot: replica.slot,
        state: replica.state,
        version: replica.running.as_ref().map(|key| key.version.clone()),
    }
}

/// All slots that are to be there; none where nothing was ever released.
pub(super) fn slots_wanted(app: &AppPicture) -> u32 {
    let AppPicture { fleet, .. } = app;
    if fleet.in_force.is_none() && fleet.rollout.is_none() {
        return 0;
    }
    fleet.nodes.keys().fold(0, |sum: u32, node| sum.saturating_add(slots_on(fleet, *node).into()))
}

/// Slots 1..N of a node are to be there: of a spread as it was dealt out last.
pub(super) fn slots_on(fleet: &AppFleet, node: NodeId) -> u16 {
    let Some(spec) = &fleet.spec else { return 0 };
    let Some(found) = fleet.nodes.get(&node).filter(|node| node.eligible) else { return 0 };
    if spec.spread.is_some() {
        return fleet.placed.get(&node).copied().unwrap_or(0);
    }
    let replicas = spec.replicas.get();
    match found.service {
        Service::Open => replicas,
        Service::Cordoned => {
            let told =
                fleet.assigned.iter().filter(|(place, told)| place.node == node && told.release.is_some());
            told.map(|(place, _)| place.slot.number()).filter(|slot| *slot <= replicas).max().unwrap_or(0)
        }
        Service::Draining => 0,
    }
}

fn settings(spec: &AppSpec) -> Settings {
    let run_as = match &spec.run_as.group {
        Some(group) => format!("{}:{group}", spec.run_as.user),
        None => spec.run_as.user.clone(),
    };
    Settings {
        replicas_per_node: spec.replicas.get(),
        strategy: spec.deploy.strategy,
        stable_after_ms: spec.deploy.stable_after.0,
        rollback_timeout_ms: spec.rollback_timeout.0,
        ports: spec.ports.iter().map(|port| PortBase { key: port.key.clone(), base: port.base }).collect(),
        run_as,
        nodes: spec.nodes.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        env_keys: spec.env.iter().map(|entry| entry.key.clone()).collect(),
    }
}
