//! Another number of replicas, without anybody sending a configuration: it is written into the one in force, as a new version.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use proto::apps::Scale;
use proto::configuration::Applied;
use proto::ids::AppName;
use proto::problem::Problem;

use crate::api::Api;
use crate::api::configuration::origin;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::http::input::{Input, Path};

#[utoipa::path(post, path = "/api/v1/applications/{app}/scale", tag = "applications",
    params(("app" = AppName, Path)), request_body = Scale,
    responses(
        (status = 200, description = "The number stands in a new version of the configuration, which is in force: in \
            `spread` where the application has that, else in `replicas`.", body = Applied),
        (status = 409, description = "`conflict`: the configuration in force does not name it or cannot be changed in that \
            one place, or another one was put in force meanwhile. Nothing was changed.", body = Problem),
        (status = 422, description = "More than there can be.", body = Problem)))]
pub(in crate::api) async fn scale(
    State(api): State<Api>,
    principal: Principal,
    headers: HeaderMap,
    Path(app): Path<AppName>,
    Input(Scale { count }): Input<Scale>,
) -> ApiResult<Json<Applied>> {
    api.db.application(&app).await?.ok_or_else(|| ApiError::not_found("application", &app))?;
    let origin = origin(&principal, &headers);
    Ok(Json(Box::pin(api.configuration.scale(&app, count, principal.name, origin)).await?))
}
