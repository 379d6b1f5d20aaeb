//! An application's Erlang nodes, looked at.

use axum::Json;
use axum::extract::State;
use proto::checkup::Checkup;
use proto::ids::AppName;
use proto::replicas::Replica;

use super::super::{Api, replicas};
use crate::checkup::{Patient, look as examine};
use crate::error::{ApiError, ApiResult};
use crate::http::input::Path;
use crate::spec::AppSpec;

#[utoipa::path(get, path = "/api/v1/applications/{app}/doctor", tag = "applications",
    params(("app" = AppName, Path)),
    responses((status = 200, description = "What is found of its Erlang nodes and of what connects them, with what to do.", body = Checkup)))]
pub(in crate::api) async fn look(
    State(api): State<Api>,
    Path(app): Path<AppName>,
) -> ApiResult<Json<Checkup>> {
    let picture = api.picture().await?;
    let found = picture.apps.get(&app).ok_or_else(|| ApiError::not_found("application", &app))?;
    let seen: Vec<Replica> = replicas::of(&picture, &found.fleet).collect();
    let others = picture.apps.iter().filter(|(name, it)| **name != app && it.fleet.spec.is_some());
    let others: Vec<&AppSpec> = others.map(|(_, it)| &it.application.spec).collect();
    let patient =
        Patient { spec: &found.application.spec, replicas: &seen, others: &others, now: picture.at };
    Ok(Json(examine(&patient)))
}
