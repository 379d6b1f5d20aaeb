//! Releases of an application, and its ghosts.

pub(super) mod check;

use axum::Json;
use axum::extract::State;
use proto::ids::{AppName, Version};
use proto::page::Page;
use proto::releases::{Ghost, GhostsCleared, Release};
use proto::state::Severity;
use serde::Deserialize;

use super::{Api, replicas};
use crate::auth::principal::Principal;
use crate::db::Ghosted;
use crate::error::{ApiError, ApiResult};
use crate::http::input::{Path, Query, limit, page_of};
use crate::picture::Picture;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<u32>,
    cursor: Option<String>,
}

#[utoipa::path(get, path = "/api/v1/applications/{app}/releases", tag = "releases",
    params(("app" = AppName, Path), ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "Newest first.", body = Page<Release>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Path(app): Path<AppName>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<Release>>> {
    let limit = limit(query.limit)?;
    let application = known(&api, &app).await?;
    let wanted = match application.manual {
        Some(manual) => Some(manual.release),
        None => api.db.bucket(&app).await?.and_then(|bucket| bucket.wish),
    };
    let picture = api.picture().await?;
    let ghosts = api.db.ghosted(Some(&app)).await?.into_iter().map(|it| ghost(&picture, it));
    let ghosts: Vec<Ghost> = ghosts.collect();
    let view = |stored: crate::db::Release| Release {
        in_force: application.in_force.as_ref() == Some(&stored.key),
        wanted: wanted.as_ref() == Some(&stored.key),
        ghosted: ghosts.iter().find(|ghost| ghost.key == stored.key).cloned(),
        key: stored.key,
        size: stored.size,
        pre_commands: stored.pre_commands,
        recorded_at: stored.recorded_at.into(),
    };
    let mut releases: Vec<Release> = api.db.releases(&app).await?.into_iter().map(view).collect();
    releases.sort_by_cached_key(newest_first);
    page_of(releases, query.cursor.as_deref(), limit, newest_first).map(Json)
}

/// Counted down from the end of time, so that the order of text is newest first.
fn newest_first(release: &Release) -> String {
    format!("{:020}-{}", u64::MAX - release.recorded_at.0, release.key.sha256)
}

#[utoipa::path(get, path = "/api/v1/applications/{app}/ghosted", tag = "releases",
    params(("app" = AppName, Path)),
    responses((status = 200, description = "Releases that are not deployed again.", body = Page<Ghost>)))]
pub(super) async fn ghosted(
    State(api): State<Api>,
    Path(app): Path<AppName>,
) -> ApiResult<Json<Page<Ghost>>> {
    known(&api, &app).await?;
    let picture = api.picture().await?;
    let items = api.db.ghosted(Some(&app)).await?.into_iter().map(|it| ghost(&picture, it)).collect();
    Ok(Json(Page { items, next: None }))
}

#[utoipa::path(delete, path = "/api/v1/applications/{app}/ghosted", tag = "releases",
    params(("app" = AppName, Path)),
    responses((status = 200, description = "All may be deployed again.", body = GhostsCleared)))]
pub(super) async fn clear_all(
    State(api): State<Api>,
    principal: Principal,
    Path(app): Path<AppName>,
) -> ApiResult<Json<GhostsCleared>> {
    clear_some(&api, &principal, &app, None).await.map(Json)
}

#[utoipa::path(delete, path = "/api/v1/applications/{app}/ghosted/{version}", tag = "releases",
    params(("app" = AppName, Path), ("version" = Version, Path)),
    responses((status = 200, description = "It may be deployed again.", body = GhostsCleared)))]
pub(super) async fn clear(
    State(api): State<Api>,
    principal: Principal,
    Path((app, version)): Path<(AppName, Version)>,
) -> ApiResult<Json<GhostsCleared>> {
    let cleared = clear_some(&api, &principal, &app, Some(&version)).await?;
    match cleared.cleared.is_empty() {
        true => Err(ApiError::not_found("ghosted release", format!("{version} of {app}"))),
        false => Ok(Json(cleared)),
    }
}

async fn clear_some(
    api: &Api,
    principal: &Principal,
    app: &AppName,
    version: Option<&Version>,
) -> ApiResult<GhostsCleared> {
    known(api, app).await?;
    let what = version.map_or("every release", Version::as_str);
    let text = format!("{} lets {what} of {app} be deployed again", principal.name);
    let mut event = api.asked(&principal.name, "ghosted_cleared", Severity::Info, text);
    event.app = Some(app.clone());
    let audit = api.audit(&principal.name, "ghosted.clear", app.as_str(), what);
    let cleared = api.db.clear_ghosted(app, version, &[event], Some(&audit)).await?;
    if !cleared.is_empty() {
        api.backend.plan_now();
    }
    Ok(GhostsCleared { cleared })
}

async fn known(api: &Api, app: &AppName) -> ApiResult<crate::db::Application> {
    api.db.application(app).await?.ok_or_else(|| ApiError::not_found("application", app))
}

pub(super) fn ghost(picture: &Picture, stored: Ghosted) -> Ghost {
    let Ghosted { app: _, ghost: crate::rollout::Ghost { release, rollout: _, reason, evidence }, at } =
        stored;
    let log_tail = evidence.log_tail().map(str::to_owned);
    // A node that was removed since has no name any more.
    let node = evidence.place.and_then(|place| picture.nodes.get(&place.node));
    Ghost {
        key: release,
        at: at.into(),
        reason,
        node: node.map(|it| it.node.name.clone()),
        slot: evidence.place.map(|place| place.slot),
        failed_check: evidence.failed_check.map(replicas::check),
        last_exit: evidence.last_exit.map(replicas::exit),
        fault: Some(evidence.fault).filter(|it| !it.is_empty()),
        log_tail,
    }
}
