//! The API's own description, made from the handlers' types. A test holds it against the table of routes.

use axum::Json;
use proto::live::Ask;
use proto::problem::Problem;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{
    apps, configuration, events, fleet, health, history, live, logs, me, metrics, nodes, programs, releases,
    replicas, restarts, rollouts, rpc, sessions, tokens,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "DeployEx", description = "Refusals are `application/problem+json` with a stable `code`."),
    paths(
        sessions::current, sessions::sign_in, sessions::sign_out, me::show, me::change_password, tokens::list, tokens::create, tokens::revoke,
        fleet::show, apps::list, apps::show, apps::deploy::deploy, apps::deploy::pin, apps::deploy::unpin, apps::deploy::rollback, apps::scale::scale, apps::doctor::look, apps::logo::show, apps::history, releases::list, releases::check::show, releases::ghosted,
        releases::clear_all, releases::clear, replicas::list, replicas::show, replicas::history::of_replica, replicas::telemetry::show, logs::follow, rpc::evaluate, nodes::list,
        nodes::show, nodes::change::label, nodes::change::cordon, nodes::change::uncordon, nodes::change::drain, nodes::remove, nodes::join_token, restarts::application, restarts::replica, restarts::node, restarts::show, programs::show, programs::control_plane, programs::agent, configuration::show, configuration::plan, configuration::apply, configuration::versions, configuration::version, rollouts::list, rollouts::show, rollouts::pause, rollouts::resume, rollouts::promote, rollouts::abort, events::list,
        history::show, history::show_vm, live::connect, document, health::health, metrics::show,
    ),
    components(schemas(Problem, Ask)),
    modifiers(&Security),
    security(("token" = []), ("session" = []))
)]
pub(super) struct Document;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("`dpx_…`")).build();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        let cookie = ApiKeyValue::with_description(
            "deployex",
            "`__Host-deployex` under HTTPS; changes carry the header `x-deployex-csrf` as well",
        );
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "outside",
    responses((status = 200, description = "This document.", body = Object)))]
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
