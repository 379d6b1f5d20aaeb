//! Applications.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use proto::apps::{
    Application, ApplicationSummary, Deploy, Deployment, DeploymentKind, HistoryEntry, PortBase,
    ReleaseFault, Settings,
};
use proto::ids::{AppName, ReleaseKey, Version};
use proto::page::Page;
use proto::problem::{Code, Problem};
use proto::releases::Ghost;
use proto::replicas::ReplicaTile;
use proto::state::{FaultKind, Language, RolloutPhase, Severity, SlotState, Tone};
use serde::Deserialize;

use super::{Api, releases, replicas, rollouts};
use crate::auth::principal::Principal;
use crate::clock::Time;
use crate::db::{BucketFault, ManualWish, NewEvent, PageRequest, RolloutFilter};
use crate::error::{ApiError, ApiResult, chain};
use crate::http::input::{Input, Path, Query, limit, page_of, read_cursor};
use crate::picture::{AppPicture, Picture};
use crate::releases::SeekError;
use crate::spec::AppSpec;

/// How long an answer waits for the rollout to begin, so that it can name it.
const BEGIN_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
    let ghosts = api.db.ghosted(Some(&app)).await?.into_iter().map(releases::ghost).collect();
    Ok(Json(view(&picture, found, ghosts)))
}

#[utoipa::path(post, path = "/api/v1/applications/{app}/deploy", tag = "applications",
    params(("app" = AppName, Path)), request_body = Deploy,
    responses(
        (status = 202, description = "The release is wanted now; follow the rollout.", body = Deployment),
        (status = 409, description = "`ghosted`, or `release-missing`: neither recorded nor \
            usable in the bucket.", body = Problem)))]
pub(super) async fn deploy(
    State(api): State<Api>,
    principal: Principal,
    Path(app): Path<AppName>,
    Input(wish): Input<Deploy>,
) -> ApiResult<(StatusCode, Json<Deployment>)> {
    let known = api.db.application(&app).await?.filter(|it| it.configured);
    let known = known.ok_or_else(|| ApiError::not_found("application", &app))?;
    let release = find_release(&api, &app, known.spec.language, &wish).await?;
    if let Some(ghost) = api.db.ghosted(Some(&app)).await?.into_iter().find(|it| it.ghost.release == release)
    {
        let detail = format!(
            "{app} {release} is ghosted: {}; `deployex ghosted clear {app} {}` lets it be deployed again",
            ghost.ghost.reason, release.version
        );
        return Err(ApiError::new(Code::Ghosted, detail));
    }
    let now = api.clock.now();
    let by = principal.name.clone();
    let text = format!("{by} asked for {app} {release}");
    let mut event = NewEvent::new(now, "deployment_requested", Severity::Info, text);
    event.app = Some(app.clone());
    event.data.insert("by".to_owned(), by.clone().into());
    let manual = ManualWish { release: release.clone(), by, pinned: false, at: now };
    api.db.set_manual_wish(&app, Some(&manual), &[event]).await?;
    api.audit(&principal, "application.deploy", app.as_str(), &release.to_string()).await?;
    api.backend.plan_now();
    Ok((StatusCode::ACCEPTED, Json(begun(&api, app, release, now).await?)))
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
    let (backend, cancel, now) = (Arc::clone(&api.backend), api.cancel.clone(), api.clock.now());
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
        let rollout = rollouts.into_iter().find(|it| it.release == release && it.wished_at >= wished_at);
        let in_force = fleet.as_ref().is_some_and(|it| it.in_force.as_ref() == Some(&release));
        let over = api.clock.now() >= until;
        let sentence = match rollout {
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
    let entry = |rollout: crate::rollout::Rollout| HistoryEntry {
        rollout: rollout.id,
        release: rollout.release,
        from: rollout.from,
        kind: DeploymentKind::Full,
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
    let in_force_since = [&fleet.rollout, &fleet.last].into_iter().flatten().find_map(|rollout| {
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
pub(super) fn view(picture: &Picture, app: &AppPicture, ghosts: Vec<Ghost>) -> Application {
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

/// Slots 1..N on every node that may hold them; none where nothing was ever released.
pub(super) fn slots_wanted(app: &AppPicture) -> u32 {
    let AppPicture { fleet, .. } = app;
    let Some(spec) = &fleet.spec else { return 0 };
    if fleet.in_force.is_none() && fleet.rollout.is_none() {
        return 0;
    }
    let nodes = fleet.nodes.values().filter(|node| node.eligible).count();
    u32::try_from(nodes).unwrap_or(u32::MAX).saturating_mul(u32::from(spec.replicas.get()))
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

/// What is said of an application in one line: the first thing that a person would want to know.
struct Standing<'a> {
    app: &'a AppPicture,
    tiles: &'a [ReplicaTile],
    wanted: u32,
    ready: u32,
}

impl Standing<'_> {
    /// Colour, sentence, and whether a person has to look.
    fn said(&self) -> (Tone, String, bool) {
        let AppPicture { fleet, bucket, waiting, .. } = self.app;
        let rollout = self.rollout();
        let failing = self.tiles.iter().find(|tile| tile.state.tone() == Tone::Bad);
        let fault = |kind| bucket.as_ref()?.fault.as_ref().filter(|fault| fault.kind == kind);
        if let Some(fault) = fault(FaultKind::Broken) {
            return (Tone::Bad, fault.text.clone(), true);
        }
        if let Some(said) = rollout {
            return said;
        }
        if fleet.spec.is_none() {
            return (
                Tone::Off,
                "is no longer configured; its replicas are being withdrawn".to_owned(),
                false,
            );
        }
        if let Some(tile) = failing {
            let ReplicaTile { node, slot, state, .. } = tile;
            return (Tone::Bad, format!("slot {slot} on {node} is {state}"), true);
        }
        let ghosted = fleet.wanted.as_ref().filter(|wish| fleet.ghosted.contains(&wish.release));
        if let Some(wish) = ghosted {
            let stays = match &fleet.in_force {
                Some(release) => format!("{} stays in force", release.version),
                None => "nothing runs".to_owned(),
            };
            return (Tone::Waiting, format!("{} is ghosted; {stays}", wish.release.version), true);
        }
        if let Some(fault) = fault(FaultKind::Waiting) {
            return (Tone::Waiting, fault.text.clone(), false);
        }
        match (&fleet.wanted, waiting.first()) {
            (None, _) => (Tone::Off, "waits for its first release".to_owned(), false),
            (Some(_), Some(waiting)) => (Tone::Waiting, waiting.clone(), false),
            (Some(_), None) => self.replicas(),
        }
    }

    fn replicas(&self) -> (Tone, String, bool) {
        let Self { wanted, ready, .. } = self;
        let unknown = self.tiles.iter().filter(|tile| tile.state == SlotState::Unknown).count();
        match (unknown, wanted) {
            (0, 0) => (Tone::Waiting, "no node may run it yet".to_owned(), false),
            (0, wanted) if ready >= wanted => {
                (Tone::Ok, format!("{ready} of {wanted} replicas are ready"), false)
            }
            (0, wanted) => (Tone::Moving, format!("{ready} of {wanted} replicas are ready"), false),
            (unknown, _) => {
                (Tone::Waiting, format!("{unknown} replicas are on nodes that are not connected"), true)
            }
        }
    }

    fn rollout(&self) -> Option<(Tone, String, bool)> {
        let AppPicture { fleet, waiting, .. } = self.app;
        let rollout = fleet.rollout.as_ref()?;
        let version = &rollout.release.version;
        let why = waiting.first().map(|waiting| format!("; {waiting}")).unwrap_or_default();
        let reason = rollout.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        match rollout.phase {
            RolloutPhase::Pending | RolloutPhase::Running => {
                Some((Tone::Moving, format!("is moving to {version}{why}"), false))
            }
            RolloutPhase::Reverting => {
                let back = match &rollout.from {
                    Some(from) => format!("is going back to {}", from.version),
                    None => "is being stopped".to_owned(),
                };
                Some((Tone::Bad, format!("{version} failed and {back}{reason}"), true))
            }
            // Watched, it runs as any other; what happens to its replicas is what counts.
            RolloutPhase::Watching
            | RolloutPhase::Done
            | RolloutPhase::Reverted
            | RolloutPhase::Superseded
            | RolloutPhase::Failed => None,
        }
    }
}
