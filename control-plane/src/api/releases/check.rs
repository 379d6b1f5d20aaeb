//! What a deployment of a recorded release would be on each replica that runs: said before anything is done, and asked by
//! those deployments that may only be hot upgrades.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use proto::hot_upgrade::{HotUpgradePolicy, Package, way};
use proto::ids::{AppName, Digest, ReleaseKey, Version};
use proto::problem::{Code, Problem};
use proto::releases::{CheckedWay, ReleaseCheck, ReplicaCheck};
use serde::Deserialize;

use super::super::Api;
use crate::error::{ApiError, ApiResult};
use crate::fleet::Observed;
use crate::http::input::{Path, Query};
use crate::picture::{AppPicture, Picture};

/// Of the versions that are named where one is not known, and of the reasons in one sentence.
const NAMED: usize = 5;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct CheckQuery {
    /// Of one version, one of several tarballs.
    sha256: Option<Digest>,
}

#[utoipa::path(get, path = "/api/v1/applications/{app}/releases/{version}/check", tag = "releases",
    params(("app" = AppName, Path), ("version" = Version, Path), ("sha256" = Option<Digest>, Query)),
    responses(
        (status = 200, description = "What its deployment would be on each replica that runs: a hot upgrade, a full \
            deployment and why, or none. Nothing is done.", body = ReleaseCheck),
        (status = 404, description = "It is not recorded; those that are are named.", body = Problem)))]
pub(in crate::api) async fn show(
    State(api): State<Api>,
    Path((app, version)): Path<(AppName, Version)>,
    Query(query): Query<CheckQuery>,
) -> ApiResult<Json<ReleaseCheck>> {
    super::known(&api, &app).await?;
    // Of several tarballs of one version the newest, as a deployment takes it.
    let is_it = |key: &ReleaseKey| query.sha256.is_none_or(|sha256| key.sha256 == sha256);
    let mut recorded = api.db.releases_of_version(&app, &version).await?.into_iter();
    match recorded.find(|release| is_it(&release.key)) {
        Some(release) => Ok(Json(of(&api, &app, &release.key).await?)),
        None => Err(unknown(&api, &app, &version).await?),
    }
}

async fn unknown(api: &Api, app: &AppName, version: &Version) -> ApiResult<ApiError> {
    let mut versions: Vec<String> =
        api.db.releases(app).await?.into_iter().map(|it| it.key.version.to_string()).collect();
    versions.dedup();
    let more = if versions.len() > NAMED { ", …" } else { "" };
    versions.truncate(NAMED);
    let there_is = match versions.is_empty() {
        true => "none was recorded yet".to_owned(),
        false => format!("recorded are {}{more}", versions.join(", ")),
    };
    let detail = format!("{version} of {app} is not recorded: {there_is}");
    Ok(ApiError::new(Code::NotFound, detail))
}

/// Of a release that is recorded.
pub(in crate::api) async fn of(api: &Api, app: &AppName, release: &ReleaseKey) -> ApiResult<ReleaseCheck> {
    let picture = api.picture().await?;
    let found = picture.apps.get(app).ok_or_else(|| ApiError::not_found("application", app))?;
    let running = found.fleet.observed.values().filter_map(|it| it.running.as_ref());
    let mut packages = BTreeMap::new();
    for key in running.chain([release]) {
        if !packages.contains_key(key) {
            let package = api.db.release(app, key).await?.and_then(|it| it.package);
            packages.insert(key.clone(), package);
        }
    }
    Ok(checked(&picture, found, release, &packages))
}

fn checked(
    picture: &Picture,
    app: &AppPicture,
    release: &ReleaseKey,
    packages: &BTreeMap<ReleaseKey, Option<Package>>,
) -> ReleaseCheck {
    let AppPicture { application, fleet, .. } = app;
    let spec = &application.spec;
    let policy = spec.deploy.hot_upgrade;
    let is_required = policy == HotUpgradePolicy::Require;
    let package = |key| packages.get(key).and_then(Option::as_ref);
    let replica = |(node, place)| {
        let seen = fleet.observed.get(&place)?;
        let from = seen.running.as_ref().filter(|_| seen.pid.is_some())?;
        let (way, because) = match from == release {
            true => (CheckedWay::None, None),
            false => {
                let (old, new) = (package(from), package(release));
                let way = way((&from.version, old), (&release.version, new), spec.language, policy);
                match (way.because(), seen.in_the_way()) {
                    (Some(because), _) => (CheckedWay::Full, Some(because.to_string())),
                    // What is only in its way for now is waited for.
                    (None, Some(_)) if is_required && seen.hot_upgrades => {
                        (CheckedWay::Hot, left_waiting(seen))
                    }
                    (None, Some(because)) => (CheckedWay::Full, Some(because)),
                    (None, None) => (CheckedWay::Hot, None),
                }
            }
        };
        Some(ReplicaCheck { node, slot: place.slot, from: from.version.clone(), way, because })
    };
    let replicas: Vec<ReplicaCheck> = picture.places(fleet).into_iter().filter_map(replica).collect();
    let (application, release) = (fleet.app.clone(), release.clone());
    ReleaseCheck { application, release, policy, summary: summary(&replicas), replicas }
}

/// What it would not bring that has changed since it was started.
fn left_waiting(seen: &Observed) -> Option<String> {
    let settings = &seen.waiting_settings;
    (!settings.is_empty()).then(|| format!("{} goes on waiting for a start", settings.join(", ")))
}

/// `hot from 1.1.0 on 6 replicas; full on 3 replicas: lib demo has no appup from 1.1.0`
fn summary(replicas: &[ReplicaCheck]) -> String {
    let count = |way| replicas.iter().filter(|it| it.way == way).count();
    let replicas_of = |count| if count == 1 { "1 replica".to_owned() } else { format!("{count} replicas") };
    let mut parts = Vec::new();
    let mut hot: BTreeMap<&Version, usize> = BTreeMap::new();
    for replica in replicas.iter().filter(|it| it.way == CheckedWay::Hot) {
        *hot.entry(&replica.from).or_default() += 1;
    }
    parts.extend(hot.into_iter().map(|(from, count)| format!("hot from {from} on {}", replicas_of(count))));
    match count(CheckedWay::Full) {
        0 => {}
        full => {
            let reasons = reasons(replicas, CheckedWay::Full).join("; ");
            parts.push(format!("full on {}: {reasons}", replicas_of(full)));
        }
    }
    parts.extend(reasons(replicas, CheckedWay::Hot));
    match count(CheckedWay::None) {
        0 => {}
        1 => parts.push("1 replica runs it already".to_owned()),
        none => parts.push(format!("{none} replicas run it already")),
    }
    match parts.is_empty() {
        true => "nothing runs that it would take the place of".to_owned(),
        false => parts.join("; "),
    }
}

/// Each once, the most frequent first.
fn reasons(replicas: &[ReplicaCheck], way: CheckedWay) -> Vec<String> {
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    for because in replicas.iter().filter(|it| it.way == way).filter_map(|it| it.because.as_deref()) {
        *counted.entry(because).or_default() += 1;
    }
    let mut counted: Vec<(&str, usize)> = counted.into_iter().collect();
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let more = counted.len().saturating_sub(NAMED);
    let mut reasons: Vec<String> =
        counted.into_iter().take(NAMED).map(|(because, _)| because.to_owned()).collect();
    if more > 0 {
        reasons.push(format!("{more} more reasons"));
    }
    reasons
}

/// Refuses what the application's settings do not allow: a full deployment where only a hot upgrade is wished.
pub(in crate::api) async fn allow(api: &Api, app: &AppName, release: &ReleaseKey) -> ApiResult<()> {
    let check = of(api, app, release).await?;
    if !check.is_refused() {
        return Ok(());
    }
    let detail = format!(
        "deploy.hot_upgrade of {app} is require, and {} would be {}; `deployex release check {app} {}` says it replica \
         by replica; with deploy.hot_upgrade auto it is deployed",
        release.version, check.summary, release.version
    );
    Err(ApiError::new(Code::NotHot, detail))
}
