//! A person asks for a release: recorded, or lying in the bucket; for one that is kept whatever the bucket names; or for the
//! one that was good before.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use proto::apps::{Deploy, Deployment, Unpinned};
use proto::ids::{AppName, ReleaseKey, Version};
use proto::problem::{Code, Problem};
use proto::state::{Language, RolloutPhase, Severity};
use serde::Deserialize;

use crate::api::Api;
use crate::api::releases::check;
use crate::auth::principal::Principal;
use crate::clock::Time;
use crate::db::{Application, ManualWish};
use crate::error::{ApiError, ApiResult, chain};
use crate::http::input::{Input, Path, Query};
use crate::releases::SeekError;
use crate::rollout::{Rollout, back_to};
use crate::spec::HotUpgradePolicy;

/// How long an answer waits for the rollout to begin, so that it can name it.
const BEGIN_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[utoipa::path(post, path = "/api/v1/applications/{app}/deploy", tag = "applications",
    params(("app" = AppName, Path)), request_body = Deploy,
    responses(
        (status = 202, description = "The release is wanted now, until the bucket names another; follow the rollout.",
            body = Deployment),
        (status = 409, description = "`ghosted`; `release-missing`: neither recorded nor usable in the bucket; or `not-hot`: \
            the application's `deploy.hot_upgrade` is `require`, and a replica that runs would need a full deployment.",
            body = Problem)))]
pub(in crate::api) async fn deploy(
    State(api): State<Api>,
    principal: Principal,
    Path(app): Path<AppName>,
    Input(wish): Input<Deploy>,
) -> ApiResult<(StatusCode, Json<Deployment>)> {
    ask_by_version(&api, &principal, &app, &wish, Asked::Deployment { unpins: false }).await
}

#[utoipa::path(post, path = "/api/v1/applications/{app}/pin", tag = "applications",
    params(("app" = AppName, Path)), request_body = Deploy,
    responses(
        (status = 202, description = "The release is wanted until it is unpinned, whatever the bucket names.",
            body = Deployment),
        (status = 409, description = "`ghosted`; `release-missing`: neither recorded nor usable in the bucket; or `not-hot`: \
            the application's `deploy.hot_upgrade` is `require`, and a replica that runs would need a full deployment.",
            body = Problem)))]
pub(in crate::api) async fn pin(
    State(api): State<Api>,
    principal: Principal,
    Path(app): Path<AppName>,
    Input(wish): Input<Deploy>,
) -> ApiResult<(StatusCode, Json<Deployment>)> {
    ask_by_version(&api, &principal, &app, &wish, Asked::Pin).await
}

#[utoipa::path(delete, path = "/api/v1/applications/{app}/pin", tag = "applications",
    params(("app" = AppName, Path)),
    responses(
        (status = 200, description = "What the bucket names counts again.", body = Unpinned),
        (status = 404, description = "It is not pinned.", body = Problem)))]
pub(in crate::api) async fn unpin(
    State(api): State<Api>,
    principal: Principal,
    Path(app): Path<AppName>,
) -> ApiResult<Json<Unpinned>> {
    let known = api.db.application(&app).await?.ok_or_else(|| ApiError::not_found("application", &app))?;
    let pin = known.manual.filter(|it| it.pinned).ok_or_else(|| ApiError::not_found("pin of", &app))?;
    let by = &principal.name;
    let text = format!("{by} unpinned {app} from {}", pin.release.version);
    let mut event = api.asked(by, "unpinned", Severity::Info, text);
    event.app = Some(app.clone());
    let audit = api.audit(by, "application.unpin", app.as_str(), &pin.release.to_string());
    api.db.set_manual_wish(&app, None, &[event], Some(&audit)).await?;
    api.backend.plan_now();
    let wanted = api.db.bucket(&app).await?.and_then(|it| it.wish);
    let sentence = match &wanted {
        Some(release) => format!("The bucket decides again what {app} runs: it names {}.", release.version),
        None => format!("The bucket decides again what {app} runs; it names nothing yet."),
    };
    Ok(Json(Unpinned { application: app, wanted, sentence }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct RollbackQuery {
    /// Whoever was shown where it goes names it: that may be another release meanwhile.
    to: Option<String>,
}

#[utoipa::path(post, path = "/api/v1/applications/{app}/rollback", tag = "applications",
    params(("app" = AppName, Path), ("to" = Option<String>, Query)),
    responses(
        (status = 202, description = "The release that was good before is wanted now: a rollout that moves goes back to \
            where it came from, else what was in force before comes again.", body = Deployment),
        (status = 409, description = "`conflict`: there is none to go back to, or it is another one than the version that was named.", body = Problem)))]
pub(in crate::api) async fn rollback(
    State(api): State<Api>,
    principal: Principal,
    Path(app): Path<AppName>,
    Query(query): Query<RollbackQuery>,
) -> ApiResult<(StatusCode, Json<Deployment>)> {
    let known = configured(&api, &app).await?;
    let fleets = api.backend.fleets().await?;
    let fleet = fleets.iter().find(|it| it.app == app);
    let fleet = fleet.ok_or_else(|| ApiError::not_found("application", &app))?;
    let good = api.db.good_releases(&app).await?;
    let release = back_to(fleet, &good)
        .map_err(|why| ApiError::new(Code::Conflict, format!("{app} cannot be rolled back: {why}")))?;
    // A plus that nobody encoded is read as a blank, which no version has.
    if query.to.is_some_and(|to| to.replace(' ', "+") != release.version.as_str()) {
        let detail = format!("a rollback of {app} goes to {} by now", release.version);
        return Err(ApiError::new(Code::Conflict, detail));
    }
    // Whoever pinned it wants no other release than a person's.
    let pinned = known.manual.is_some_and(|it| it.pinned);
    ask(&api, &principal, &app, release, Asked::Rollback { pinned }).await
}

/// Why a release is wanted.
#[derive(Clone, Copy)]
enum Asked {
    Deployment { unpins: bool },
    Pin,
    Rollback { pinned: bool },
}

async fn configured(api: &Api, app: &AppName) -> ApiResult<Application> {
    let known = api.db.application(app).await?.filter(|it| it.configured);
    known.ok_or_else(|| ApiError::not_found("application", app))
}

async fn ask_by_version(
    api: &Api,
    principal: &Principal,
    app: &AppName,
    wish: &Deploy,
    asked: Asked,
) -> ApiResult<(StatusCode, Json<Deployment>)> {
    let known = configured(api, app).await?;
    let release = find_release(api, app, known.spec.language, wish).await?;
    if known.spec.deploy.hot_upgrade == HotUpgradePolicy::Require {
        check::allow(api, app, &release).await?;
    }
    let asked = match (asked, known.manual) {
        (Asked::Deployment { .. }, Some(manual)) => Asked::Deployment { unpins: manual.pinned },
        (asked, _) => asked,
    };
    ask(api, principal, app, release, asked).await
}

async fn ask(
    api: &Api,
    principal: &Principal,
    app: &AppName,
    release: ReleaseKey,
    asked: Asked,
) -> ApiResult<(StatusCode, Json<Deployment>)> {
    if let Some(ghost) = api.db.ghosted(Some(app)).await?.into_iter().find(|it| it.ghost.release == release) {
        let detail = format!(
            "{app} {release} is ghosted: {}; `deployex ghosted clear {app} {}` lets it be deployed again",
            ghost.ghost.reason, release.version
        );
        return Err(ApiError::new(Code::Ghosted, detail));
    }
    let now = api.clock.wall();
    let by = principal.name.clone();
    let (kind, action, text) = match asked {
        Asked::Deployment { unpins } => {
            let unpinned = if unpins { ", which is pinned no more: the bucket counts again" } else { "" };
            let text = format!("{by} asked for {app} {release}{unpinned}");
            ("deployment_requested", "application.deploy", text)
        }
        Asked::Pin => ("pinned", "application.pin", format!("{by} pinned {app} to {release}")),
        Asked::Rollback { .. } => {
            ("rollback_requested", "application.rollback", format!("{by} rolls {app} back to {release}"))
        }
    };
    let pinned = matches!(asked, Asked::Pin | Asked::Rollback { pinned: true });
    let mut event = api.asked(&by, kind, Severity::Info, text);
    event.app = Some(app.clone());
    let manual = ManualWish { release: release.clone(), by, pinned, at: now };
    let audit = api.audit(&principal.name, action, app.as_str(), &release.to_string());
    api.db.set_manual_wish(app, Some(&manual), &[event], Some(&audit)).await?;
    api.backend.plan_now();
    Ok((StatusCode::ACCEPTED, Json(begun(api, app.clone(), release, now).await?)))
}

/// Recorded, or found in the bucket now.
async fn find_release(api: &Api, app: &AppName, language: Language, wish: &Deploy) -> ApiResult<ReleaseKey> {
    let Deploy { version, sha256 } = wish;
    let is_it = |key: &ReleaseKey| sha256.is_none_or(|sha256| key.sha256 == sha256);
    let recorded = api.db.releases_of_version(app, version).await?;
    if let Some(release) = recorded.into_iter().find(|release| is_it(&release.key)) {
        return Ok(release.key);
    }
    let found = seek(api, app, language, version).await?;
    match is_it(&found) {
        true => Ok(found),
        false => {
            let detail = format!("{version} of {app} has the SHA-256 {} in the bucket", found.sha256);
            Err(ApiError::new(Code::ReleaseMissing, detail))
        }
    }
}

/// Reading a large tarball may take longer than a request is answered in: it goes on, and the next one finds it recorded.
async fn seek(api: &Api, app: &AppName, language: Language, version: &Version) -> ApiResult<ReleaseKey> {
    let (backend, cancel, now) = (Arc::clone(&api.backend), api.cancel.clone(), api.clock.wall());
    let (app, version) = (app.clone(), version.clone());
    let seeking = api
        .tasks
        .spawn(async move { cancel.run_until_cancelled(backend.seek(&app, language, &version, now)).await });
    let found = seeking.await.map_err(ApiError::internal)?;
    let found = found.ok_or_else(|| ApiError::new(Code::NotReady, "it is stopping"))?;
    found.map_err(|error| match error {
        SeekError::Db(error) => error.into(),
        SeekError::Missing { name } => {
            let detail = format!("{name} is not in the bucket, and was not recorded before");
            ApiError::new(Code::ReleaseMissing, detail)
        }
        error => ApiError::new(Code::ReleaseMissing, chain(&error)),
    })
}

/// Waits a moment for the rollout of a wish, so that there is something to follow.
async fn begun(
    api: &Api,
    application: AppName,
    release: ReleaseKey,
    wished_at: Time,
) -> ApiResult<Deployment> {
    let until = api.clock.now().plus(u64::try_from(BEGIN_WITHIN.as_millis()).unwrap_or(u64::MAX));
    loop {
        let fleet = api.backend.fleets().await?.into_iter().find(|it| it.app == application);
        let rollouts = fleet.iter().flat_map(|it| it.rollout.iter().chain(&it.last));
        let goes_back =
            |it: &Rollout| it.phase == RolloutPhase::Reverting && it.from.as_ref() == Some(&release);
        let begins = |it: &Rollout| it.release == release && it.wished_at >= wished_at;
        let rollout = rollouts.into_iter().find(|it| begins(it) || goes_back(it));
        let in_force = fleet.as_ref().is_some_and(|it| it.in_force.as_ref() == Some(&release));
        let over = api.clock.now() >= until;
        let sentence = match rollout {
            Some(rollout) if goes_back(rollout) => {
                format!("Rollout {} of {application} goes back to {release}.", rollout.id)
            }
            Some(rollout) => format!("Rollout {} of {application} {release} has begun.", rollout.id),
            None if in_force && over => format!("{application} {release} is in force already."),
            None if over => format!("{application} {release} is wanted; its rollout has not begun yet."),
            None => {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
        };
        let rollout = rollout.map(|it| it.id);
        return Ok(Deployment { application, release, rollout, sentence });
    }
}
