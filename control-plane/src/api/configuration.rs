//! The configuration: what is in force, what another one would change, and putting that in force.

use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use proto::configuration::{
    Applied, ApplyConfiguration, Configuration, Origin, Plan, PlanConfiguration, Version, VersionSummary,
};
use proto::page::Page;
use proto::problem::{Code, Problem};
use proto::state::Role;
use proto::users::Via;
use serde::Deserialize;

use super::Api;
use crate::auth::principal::Principal;
use crate::config::{Config, Text};
use crate::configuration::{Asked, Wanted, summary};
use crate::db::PageRequest;
use crate::error::{ApiError, ApiResult};
use crate::http::input::{Input, Path, Query, limit, read_cursor};

/// For a configuration of any size that is read at all: written as JSON, some of its characters take two.
pub(super) fn room() -> DefaultBodyLimit {
    DefaultBodyLimit::max(3 * Config::MAX_BYTES)
}

/// What a text that is sent is called in messages.
const SENT: &str = "the configuration";

#[utoipa::path(get, path = "/api/v1/configuration", tag = "configuration",
    responses((status = 200, description = "What is in force, what the watched file would change, what waits.",
        body = Configuration)))]
pub(super) async fn show(State(api): State<Api>) -> ApiResult<Json<Configuration>> {
    Ok(Json(api.configuration.view().await?))
}

#[utoipa::path(post, path = "/api/v1/configuration/plan", tag = "configuration", request_body = PlanConfiguration,
    responses((status = 200, description = "What applying it would do, against the version in force.", body = Plan),
        (status = 422, description = "It has faults: each with line and column.", body = Problem)))]
pub(super) async fn plan(
    State(api): State<Api>,
    Input(PlanConfiguration { yaml }): Input<PlanConfiguration>,
) -> ApiResult<Json<Plan>> {
    Ok(Json(api.configuration.plan(&Text::from(yaml), SENT).await?))
}

#[utoipa::path(post, path = "/api/v1/configuration/apply", tag = "configuration", request_body = ApplyConfiguration,
    responses((status = 200, description = "It is in force, all of it.", body = Applied),
        (status = 409, description = "`conflict`: another one was put in force since `base`, or the file holds another \
            text than the one that was planned. Nothing was applied.", body = Problem),
        (status = 422, description = "It has faults: each with line and column.", body = Problem)))]
pub(super) async fn apply(
    State(api): State<Api>,
    principal: Principal,
    headers: HeaderMap,
    Input(wish): Input<ApplyConfiguration>,
) -> ApiResult<Json<Applied>> {
    let ApplyConfiguration { yaml, pending, restore, base, sha256 } = wish;
    let wanted = match (yaml, pending, restore) {
        (Some(yaml), false, None) => {
            Wanted::Text { text: Text::from(yaml), origin: origin(&principal, &headers) }
        }
        (None, true, None) => Wanted::File,
        (None, false, Some(number)) => Wanted::Version(number),
        _ => return Err(ApiError::new(Code::InvalidInput, "send one of yaml, pending and restore")),
    };
    if matches!(wanted, Wanted::File) {
        // Who has just written it means what he wrote.
        api.configuration.look().await;
    }
    let asked = Asked { by: principal.name, base, sha256, audited: true };
    Ok(Json(Box::pin(api.configuration.apply(wanted, asked)).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<u32>,
    cursor: Option<String>,
}

#[utoipa::path(get, path = "/api/v1/configuration/versions", tag = "configuration",
    params(("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "Newest first; the first is in force.", body = Page<VersionSummary>)))]
pub(super) async fn versions(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<VersionSummary>>> {
    let after = query.cursor.as_deref().map(read_cursor).transpose()?;
    let page = api.db.configurations(PageRequest { after, limit: limit(query.limit)? }).await?;
    let next = page.next.map(|number| number.to_string());
    Ok(Json(Page { items: page.items.into_iter().map(summary).collect(), next }))
}

#[utoipa::path(get, path = "/api/v1/configuration/versions/{number}", tag = "configuration",
    params(("number" = u64, Path)),
    responses((status = 200, description = "With its text: as it was written for who may apply one, else without secrets \
        and comments.", body = Version)))]
pub(super) async fn version(
    State(api): State<Api>,
    principal: Principal,
    Path(number): Path<u64>,
) -> ApiResult<Json<Version>> {
    let masked = principal.role < Role::Admin;
    let found = api.configuration.version(number, masked).await?;
    found.map(Json).ok_or_else(|| ApiError::not_found("version of the configuration", number))
}

pub(super) fn origin(principal: &Principal, headers: &HeaderMap) -> Origin {
    let program = headers.get(USER_AGENT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    match principal.via {
        Via::Session => Origin::Console,
        _ if program.starts_with("deployex/") => Origin::Cli,
        _ => Origin::Api,
    }
}
