//! A person asks for what runs to be started anew: one replica at once, an application or all of a host slot by slot.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use proto::ids::{AppName, NodeId, NodeName, RestartId, Slot};
use proto::problem::{Code, Problem};
use proto::restarts::{NewRestart, Restart};
use proto::state::{Liveness, RolloutPhase, Severity};
use uuid::Uuid;

use super::Api;
use crate::auth::principal::Principal;
use crate::db;
use crate::error::{ApiError, ApiResult};
use crate::fleet::{AppFleet, Place, RestartWish};
use crate::http::input::{Input, Path};
use crate::picture::Picture;

#[utoipa::path(post, path = "/api/v1/applications/{app}/restart", tag = "applications",
    params(("app" = AppName, Path)), request_body = NewRestart,
    responses((status = 202, description = "It is under way; one named replica at once, more one by one.", body = Restart),
        (status = 409, description = "Nothing that is named runs.", body = Problem),
        (status = 503, description = "No node of it is connected.", body = Problem)))]
pub(super) async fn application(
    State(api): State<Api>,
    principal: Principal,
    Path(app): Path<AppName>,
    Input(NewRestart { node, slot }): Input<NewRestart>,
) -> ApiResult<(StatusCode, Json<Restart>)> {
    let picture = api.picture().await?;
    let node = node.map(|name| node_id(&picture, &name)).transpose()?;
    one(&api, &principal, &picture, app, node, slot).await
}

#[utoipa::path(post, path = "/api/v1/replicas/{node}/{app}/{slot}/restart", tag = "replicas",
    params(("node" = NodeName, Path), ("app" = AppName, Path), ("slot" = Slot, Path)),
    responses((status = 202, description = "It is started anew at once.", body = Restart),
        (status = 409, description = "Nothing runs there.", body = Problem),
        (status = 503, description = "Its node is not connected.", body = Problem)))]
pub(super) async fn replica(
    State(api): State<Api>,
    principal: Principal,
    Path((node, app, slot)): Path<(NodeName, AppName, Slot)>,
) -> ApiResult<(StatusCode, Json<Restart>)> {
    let picture = api.picture().await?;
    let node = node_id(&picture, &node)?;
    one(&api, &principal, &picture, app, Some(node), Some(slot)).await
}

#[utoipa::path(post, path = "/api/v1/nodes/{node}/restart", tag = "nodes",
    params(("node" = NodeName, Path)),
    responses((status = 202, description = "Every application there is started anew, each slot by slot.", body = [Restart]),
        (status = 409, description = "Nothing runs there.", body = Problem),
        (status = 503, description = "It is not connected.", body = Problem)))]
pub(super) async fn node(
    State(api): State<Api>,
    principal: Principal,
    Path(name): Path<NodeName>,
) -> ApiResult<(StatusCode, Json<Vec<Restart>>)> {
    let picture = api.picture().await?;
    let node = node_id(&picture, &name)?;
    let here = |fleet: &AppFleet| {
        fleet.assigned.iter().any(|(place, told)| place.node == node && told.release.is_some())
    };
    let apps: Vec<AppName> =
        picture.apps.iter().filter(|(_, app)| here(&app.fleet)).map(|(name, _)| name.clone()).collect();
    if apps.is_empty() {
        return Err(ApiError::new(Code::Conflict, format!("nothing is to run on {name}")));
    }
    let asked = ask(&api, &principal, &picture, &apps, Some(node), None).await?;
    Ok((StatusCode::ACCEPTED, Json(asked)))
}

#[utoipa::path(get, path = "/api/v1/restarts/{id}", tag = "applications",
    params(("id" = RestartId, Path)),
    responses((status = 200, description = "One restart and what became of it.", body = Restart)))]
pub(super) async fn show(State(api): State<Api>, Path(id): Path<RestartId>) -> ApiResult<Json<Restart>> {
    let found = api.db.restart(id).await?.ok_or_else(|| ApiError::not_found("restart", id))?;
    Ok(Json(view(&api.picture().await?, found)))
}

async fn one(
    api: &Api,
    principal: &Principal,
    picture: &Picture,
    app: AppName,
    node: Option<NodeId>,
    slot: Option<Slot>,
) -> ApiResult<(StatusCode, Json<Restart>)> {
    let known = picture.apps.get(&app).filter(|it| it.fleet.spec.is_some());
    known.ok_or_else(|| ApiError::not_found("application", &app))?;
    let mut asked = ask(api, principal, picture, std::slice::from_ref(&app), node, slot).await?;
    let asked = asked.pop().ok_or_else(|| ApiError::not_found("application", &app))?;
    Ok((StatusCode::ACCEPTED, Json(asked)))
}

async fn ask(
    api: &Api,
    principal: &Principal,
    picture: &Picture,
    apps: &[AppName],
    node: Option<NodeId>,
    slot: Option<Slot>,
) -> ApiResult<Vec<Restart>> {
    // As the planner reads it: it compares.
    let at = api.clock.now();
    let (mut wishes, mut events) = (Vec::new(), Vec::new());
    for app in apps {
        let (id, by) = (RestartId(Uuid::now_v7()), principal.name.clone());
        // Its generation is given where it is stored.
        let wish = RestartWish { id, generation: 0, node, slot, by, because: None, at };
        if let Some(app) = picture.apps.get(app) {
            may_be_asked(picture, &app.fleet, &wish)?;
        }
        let text = format!("{} asked to start {} anew", principal.name, scope(picture, app, node, slot));
        let mut event = api.asked(&principal.name, "restart_requested", Severity::Info, text);
        event.app = Some(app.clone());
        event.node = node;
        event.slot = slot;
        events.push(event);
        wishes.push((app.clone(), wish));
    }
    let names = apps.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let asked = apps.iter().map(|app| scope(picture, app, node, slot)).collect::<Vec<_>>();
    let detail = asked.join(", ");
    let audit = api.audit(&principal.name, "application.restart", &names, &detail);
    api.db.ask_for_restarts(&wishes, &events, Some(&audit)).await?;
    api.backend.plan_now();
    let stored = |(app, wish)| db::Restart { app, wish, finished_at: None, failure: None };
    Ok(wishes.into_iter().map(|wish| view(picture, stored(wish))).collect())
}

/// What cannot be done is refused now rather than given up later.
fn may_be_asked(picture: &Picture, fleet: &AppFleet, wish: &RestartWish) -> ApiResult<()> {
    let told = fleet.assigned.iter().filter(|(place, told)| wish.covers(**place) && told.release.is_some());
    // A slot that is borrowed for a rollout can be named on its node, and is no part of anything wider.
    let replicas = fleet.spec.as_ref().map_or(0, |spec| spec.replicas.get());
    let stays = |place: &Place| wish.place().is_some() || place.slot.number() <= replicas;
    let places: Vec<_> = told.map(|(place, _)| *place).filter(stays).collect();
    if places.is_empty() {
        let what = scope(picture, &fleet.app, wish.node, wish.slot);
        return Err(ApiError::new(
            Code::Conflict,
            format!("{what} is to run nothing: there is nothing to start anew"),
        ));
    }
    let lost = |node: NodeId| picture.nodes.get(&node).is_none_or(|it| it.sight.liveness == Liveness::Lost);
    if places.iter().all(|place| lost(place.node)) {
        let what = scope(picture, &fleet.app, wish.node, wish.slot);
        return Err(ApiError::new(Code::NodeNotConnected, format!("{what}: no node of it is connected")));
    }
    Ok(())
}

/// "slot 2 of shop on web-1"
fn scope(picture: &Picture, app: &AppName, node: Option<NodeId>, slot: Option<Slot>) -> String {
    let slot = slot.map(|slot| format!("slot {slot} of ")).unwrap_or_default();
    let node = node.and_then(|node| picture.nodes.get(&node)).map(|node| format!(" on {}", node.node.name));
    format!("{slot}{app}{}", node.unwrap_or_default())
}

fn node_id(picture: &Picture, name: &NodeName) -> ApiResult<NodeId> {
    let node = picture.node_by_name(name).ok_or_else(|| ApiError::not_found("node", name))?;
    Ok(node.node.id)
}

fn view(picture: &Picture, restart: db::Restart) -> Restart {
    let db::Restart { app, wish, finished_at, failure } = restart;
    let of = picture.apps.get(&app);
    let waiting = match (finished_at, of) {
        (None, Some(of)) => waiting(&of.fleet, &wish, &of.waiting),
        _ => Vec::new(),
    };
    let name = |node: NodeId| of.and_then(|of| picture.name_of(node, &of.fleet));
    Restart {
        id: wish.id,
        application: app,
        node: wish.node.and_then(name),
        slot: wish.slot,
        by: wish.by,
        because: wish.because,
        requested_at: wish.at.into(),
        finished_at: finished_at.map(Into::into),
        failure,
        waiting,
    }
}

fn waiting(fleet: &AppFleet, wish: &RestartWish, planner: &[String]) -> Vec<String> {
    let moving = fleet.rollout.as_ref().filter(|it| it.phase != RolloutPhase::Watching);
    match moving.filter(|_| wish.named().is_none()) {
        Some(rollout) => vec![format!("the rollout of {} comes first", rollout.release.version)],
        None => planner.to_vec(),
    }
}
