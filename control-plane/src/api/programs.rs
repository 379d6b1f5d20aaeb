//! The programs themselves, restarted without touching a replica: the control plane, and the agent of a node.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use proto::ids::NodeName;
use proto::problem::{Code, Problem};
use proto::programs::{ControlPlane, ProgramRestart};
use proto::state::{Liveness, Severity};

use super::Api;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult, chain};
use crate::http::input::Path;
use crate::next_start::{NextStart, Unfit};

#[utoipa::path(get, path = "/api/v1/control-plane", tag = "outside",
    responses((status = 200, description = "Which control plane this is, and since when it runs.", body = ControlPlane)))]
pub(super) async fn show(State(api): State<Api>) -> Json<ControlPlane> {
    Json(ControlPlane { version: env!("CARGO_PKG_VERSION").to_owned(), started_at: api.started_at.into() })
}

#[utoipa::path(post, path = "/api/v1/control-plane/restart", tag = "outside",
    responses((status = 202, description = "It stops in order and begins anew; no replica is touched.", body = ProgramRestart),
        (status = 409, description = "It would not come back: what is wrong with its program or its configuration.", body = Problem)))]
pub(super) async fn control_plane(
    State(api): State<Api>,
    principal: Principal,
) -> ApiResult<(StatusCode, Json<ProgramRestart>)> {
    would_come_back(&api).await?.map_err(|unfit| unfit_to_start(&unfit))?;
    let text = format!("{} asked the control plane to begin anew", principal.name);
    let event = api.asked(&principal.name, "control_plane_restart_requested", Severity::Info, text);
    let audit = api.audit(&principal.name, "control-plane.restart", "", "");
    api.db.record_request(event, &audit).await?;
    let requested_at = api.clock.wall().into();
    // This answer is still given: whoever serves it waits for the requests that are under way.
    api.begin_anew.cancel();
    api.cancel.cancel();
    Ok((StatusCode::ACCEPTED, Json(ProgramRestart { requested_at })))
}

/// As the program that lies there by now, and with the configuration that would count: the file's, or what was applied since.
async fn would_come_back(api: &Api) -> ApiResult<Result<(), Unfit>> {
    let needs = api.db.needs().await?;
    if let Err(unfit) = api.next_start.program_fits(needs.as_deref()).await {
        return Ok(Err(unfit));
    }
    let next = api.next_start.clone();
    let read = tokio::task::spawn_blocking(move || next.read()).await.map_err(ApiError::internal)?;
    let config = match read {
        Ok((file, secrets)) => api.configuration.at_next_start(file, &secrets).await.map_err(Unfit::from),
        Err(unfit) => Err(unfit),
    };
    let config = match config {
        Ok(config) => config,
        Err(unfit) => return Ok(Err(unfit)),
    };
    tokio::task::spawn_blocking(move || NextStart::listens(&config)).await.map_err(ApiError::internal)
}

/// Nothing was stopped: whoever asked mends it and asks again.
fn unfit_to_start(unfit: &Unfit) -> ApiError {
    let why = format!("the control plane would not come back, so it goes on as it is: {}", chain(unfit));
    ApiError::new(Code::Conflict, why)
}

#[utoipa::path(post, path = "/api/v1/nodes/{node}/restart-agent", tag = "nodes", params(("node" = NodeName, Path)),
    responses((status = 202, description = "It was told to begin anew; its replicas go on running.", body = ProgramRestart),
        (status = 503, description = "It is not connected.", body = Problem)))]
pub(super) async fn agent(
    State(api): State<Api>,
    principal: Principal,
    Path(name): Path<NodeName>,
) -> ApiResult<(StatusCode, Json<ProgramRestart>)> {
    let picture = api.picture().await?;
    let node = picture.node_by_name(&name).ok_or_else(|| ApiError::not_found("node", &name))?;
    let away =
        || ApiError::new(Code::NodeNotConnected, format!("{name} is not connected: its agent hears nothing"));
    if node.sight.liveness == Liveness::Lost {
        return Err(away());
    }
    let text = format!("{} asked the agent of {name} to begin anew", principal.name);
    let mut event = api.asked(&principal.name, "agent_restart_requested", Severity::Info, text);
    event.node = Some(node.node.id);
    let audit = api.audit(&principal.name, "node.restart-agent", name.as_str(), "");
    api.db.record_request(event, &audit).await?;
    let requested_at = api.clock.wall().into();
    if !api.backend.restart_agent(node.node.id) {
        return Err(away());
    }
    Ok((StatusCode::ACCEPTED, Json(ProgramRestart { requested_at })))
}
