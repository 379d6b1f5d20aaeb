//! The HTTP API: every route on one screen, with who may use it. Handlers extract, ask and answer; nothing is decided here.

mod apps;
mod configuration;
mod events;
mod fleet;
mod health;
mod history;
mod live;
mod logs;
mod me;
mod metrics;
mod nodes;
mod openapi;
mod programs;
mod releases;
mod replicas;
mod restarts;
mod rollouts;
mod rpc;
mod sessions;
mod tokens;

use std::ops::Deref;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler as _;
use axum::middleware::from_fn;
use axum::response::{IntoResponse as _, Response};
use ipnet::IpNet;
use proto::state::Severity;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::assets;
use crate::auth::password::Passwords;
use crate::auth::principal::LocalAdmins;
use crate::auth::throttle::Throttle;
use crate::clock::{Clock, Time};
use crate::config::AgentsAddress;
use crate::configuration::Configuration;
use crate::db::{AuditEntry, Db, NewEvent};
use crate::error::{ApiError, ApiResult};
use crate::http::layers;
use crate::http::routes::{ADMIN, ANYONE, INTO_A_SYSTEM, OPERATOR, Routes, VIEWER};
use crate::next_start::NextStart;
use crate::picture::{Backend, Picture};
use crate::telemetry::Metrics;

pub use live::{Live, run as show_live};

/// What every handler can reach. Clones share it.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

pub struct Parts {
    pub db: Db,
    pub backend: Arc<dyn Backend>,
    pub settings: Settings,
    pub configuration: Configuration,
    pub local: LocalAdmins,
    pub clock: Clock,
    /// When this program began.
    pub started_at: Time,
    pub metrics: Metrics,
    pub passwords: Passwords,
    pub throttle: Mutex<Throttle>,
    pub live: Live,
    /// Long conversations end with it.
    pub cancel: CancellationToken,
    /// And are waited for here.
    pub tasks: TaskTracker,
    /// Cancelled before `cancel` where the program is to begin anew once it has stopped.
    pub begin_anew: CancellationToken,
    /// Asked before.
    pub next_start: NextStart,
}

/// What the API needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `{env}` of the bucket's paths.
    pub environment: String,
    pub demo: bool,
    pub console_served: bool,
    /// What gives `admin` its password anew at every start, where something does.
    pub admin_password_from: Option<&'static str>,
    pub trusted_proxies: Vec<IpNet>,
    /// What agents dial.
    pub agents_address: AgentsAddress,
}

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Api {
    pub fn new(parts: Parts) -> Self {
        metrics::describe(&parts.metrics);
        Self(Arc::new(parts))
    }

    /// All that views are made of, now.
    async fn picture(&self) -> ApiResult<Picture> {
        let (backend, environment) = (self.backend.as_ref(), &self.settings.environment);
        Ok(Picture::load(&self.db, backend, environment, self.clock.wall()).await?)
    }

    /// What everybody may read of a change that somebody asked for: stored together with it.
    fn asked(&self, by: &str, kind: &str, severity: Severity, text: String) -> NewEvent {
        let mut event = NewEvent::new(self.clock.wall(), kind, severity, text);
        event.data.insert("by".to_owned(), by.into());
        event
    }

    /// Who asks for which change: stored together with it.
    fn audit(&self, who: &str, what: &str, object: &str, detail: &str) -> AuditEntry {
        let [who, what, object, detail] = [who, what, object, detail].map(str::to_owned);
        AuditEntry { at: self.clock.wall(), who, what, object, detail }
    }
}

/// `/api/v1/…`
fn v1(api: &Api) -> Routes {
    Routes::new(api.clone())
        .get("/session", ANYONE, sessions::current)
        .post("/session", ANYONE, sessions::sign_in)
        .delete("/session", VIEWER, sessions::sign_out)
        .get("/me", VIEWER, me::show)
        .post("/me/password", VIEWER, me::change_password)
        .get("/tokens", ADMIN, tokens::list)
        .post("/tokens", ADMIN, tokens::create)
        .delete("/tokens/{id}", ADMIN, tokens::revoke)
        .get("/fleet", VIEWER, fleet::show)
        .get("/applications", VIEWER, apps::list)
        .get("/applications/{app}", VIEWER, apps::show)
        .post("/applications/{app}/deploy", OPERATOR, apps::deploy::deploy)
        .post("/applications/{app}/rollback", OPERATOR, apps::deploy::rollback)
        .post("/applications/{app}/pin", OPERATOR, apps::deploy::pin)
        .delete("/applications/{app}/pin", OPERATOR, apps::deploy::unpin)
        .post("/applications/{app}/scale", OPERATOR, apps::scale::scale)
        .post("/applications/{app}/restart", OPERATOR, restarts::application)
        .get("/applications/{app}/doctor", VIEWER, apps::doctor::look)
        .get("/applications/{app}/logo", VIEWER, apps::logo::show)
        .get("/applications/{app}/history", VIEWER, apps::history)
        .get("/applications/{app}/releases", VIEWER, releases::list)
        .get("/applications/{app}/releases/{version}/check", VIEWER, releases::check::show)
        .get("/applications/{app}/ghosted", VIEWER, releases::ghosted)
        .delete("/applications/{app}/ghosted", OPERATOR, releases::clear_all)
        .delete("/applications/{app}/ghosted/{version}", OPERATOR, releases::clear)
        .get("/replicas", VIEWER, replicas::list)
        .get("/replicas/{node}/{app}/{slot}", VIEWER, replicas::show)
        .get("/replicas/{node}/{app}/{slot}/history", VIEWER, replicas::history::of_replica)
        .get("/replicas/{node}/{app}/{slot}/telemetry", VIEWER, replicas::telemetry::show)
        .post("/replicas/{node}/{app}/{slot}/restart", OPERATOR, restarts::replica)
        .get("/replicas/{node}/{app}/{slot}/logs", VIEWER, logs::follow)
        .post("/replicas/{node}/{app}/{slot}/rpc", INTO_A_SYSTEM, rpc::evaluate)
        .get("/nodes", VIEWER, nodes::list)
        .get("/nodes/{node}", VIEWER, nodes::show)
        .patch("/nodes/{node}", OPERATOR, nodes::change::label)
        .delete("/nodes/{node}", ADMIN, nodes::remove)
        .post("/nodes/{node}/cordon", OPERATOR, nodes::change::cordon)
        .post("/nodes/{node}/uncordon", OPERATOR, nodes::change::uncordon)
        .post("/nodes/{node}/drain", OPERATOR, nodes::change::drain)
        .post("/nodes/{node}/restart", OPERATOR, restarts::node)
        .post("/nodes/{node}/restart-agent", OPERATOR, programs::agent)
        .get("/control-plane", VIEWER, programs::show)
        .post("/control-plane/restart", ADMIN, programs::control_plane)
        .get("/restarts/{id}", VIEWER, restarts::show)
        .get("/configuration", VIEWER, configuration::show)
        .post("/configuration/plan", OPERATOR, configuration::plan.layer(configuration::room()))
        .post("/configuration/apply", ADMIN, configuration::apply.layer(configuration::room()))
        .get("/configuration/versions", VIEWER, configuration::versions)
        .get("/configuration/versions/{number}", VIEWER, configuration::version)
        .post("/join-tokens", ADMIN, nodes::join_token)
        .get("/rollouts", VIEWER, rollouts::list)
        .get("/rollouts/{id}", VIEWER, rollouts::show)
        .post("/rollouts/{id}/pause", OPERATOR, rollouts::pause)
        .post("/rollouts/{id}/resume", OPERATOR, rollouts::resume)
        .post("/rollouts/{id}/promote", OPERATOR, rollouts::promote)
        .post("/rollouts/{id}/abort", OPERATOR, rollouts::abort)
        .get("/events", VIEWER, events::list)
        .get("/metrics-history", VIEWER, history::show)
        .get("/replicas/{node}/{app}/{slot}/metrics", VIEWER, history::show_vm)
        .get("/live", VIEWER, live::connect)
        .get("/openapi.json", ANYONE, openapi::document)
}

/// Outside of the API.
fn outside(api: &Api) -> Routes {
    Routes::new(api.clone()).get("/health", ANYONE, health::health).get("/metrics", ANYONE, metrics::show)
}

pub fn router(api: &Api) -> Router {
    let routes = Router::new()
        .nest("/api/v1", v1(api).into_router())
        .merge(outside(api).into_router())
        .route_layer(from_fn(layers::remember_route))
        .fallback(unrouted)
        .with_state(api.clone());
    layers::around(routes, api)
}

/// What no route answers is the console's, save under `/api`, where it is a mistake.
async fn unrouted(State(api): State<Api>, request: Request) -> Response {
    let path = request.uri().path();
    if !api.settings.console_served || path == "/api" || path.starts_with("/api/") {
        return ApiError::not_found("address", path).into_response();
    }
    assets::serve(request.method(), request.uri(), request.headers())
}

#[cfg(test)]
mod tests;
