//! For machines that watch this one: is it well?

use axum::Json;
use axum::extract::State;
use proto::problem::Code;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use crate::error::{ApiError, ApiResult};

#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    status: &'static str,
    version: &'static str,
}

#[utoipa::path(get, path = "/health", tag = "outside",
    responses((status = 200, description = "It runs and reaches its database.", body = Health)))]
pub(super) async fn health(State(api): State<Api>) -> ApiResult<Json<Health>> {
    if api.cancel.is_cancelled() {
        return Err(ApiError::new(Code::NotReady, "it is stopping"));
    }
    api.db
        .ping()
        .await
        .map_err(|error| ApiError::new(Code::NotReady, "the database does not answer").because(error))?;
    Ok(Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") }))
}
