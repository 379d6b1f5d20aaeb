//! The table of routes: method, path, who may use it, handler. What is not in it does not exist, and nothing in it can
//! forget to say who may.

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use proto::problem::Code;
use proto::state::Role;

use crate::api::Api;
use crate::auth::client::{Client, Origin, Peer};
use crate::auth::principal::{foreign_origin, identify};
use crate::error::{ApiError, ApiResult};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Also who is not signed in.
    Nobody,
    /// This role or a higher one.
    Role(Role),
}

pub const ANYONE: Needs = Needs::Nobody;
pub const VIEWER: Needs = Needs::Role(Role::Viewer);
pub const OPERATOR: Needs = Needs::Role(Role::Operator);
/// Who may reach into a running system. What more than a role that needs is asked of all such routes here.
pub const INTO_A_SYSTEM: Needs = OPERATOR;
pub const ADMIN: Needs = Needs::Role(Role::Admin);

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub needs: Needs,
}

pub struct Routes {
    api: Api,
    router: Router<Api>,
    table: Vec<Route>,
}

impl Routes {
    pub fn new(api: Api) -> Self {
        Self { api, router: Router::new(), table: Vec::new() }
    }

    #[must_use]
    pub fn get<H: Handler<T, Api>, T: 'static>(self, path: &'static str, needs: Needs, handler: H) -> Self {
        self.add((Method::GET, MethodFilter::GET), path, needs, handler)
    }

    #[must_use]
    pub fn post<H: Handler<T, Api>, T: 'static>(self, path: &'static str, needs: Needs, handler: H) -> Self {
        self.add((Method::POST, MethodFilter::POST), path, needs, handler)
    }

    #[must_use]
    pub fn patch<H: Handler<T, Api>, T: 'static>(self, path: &'static str, needs: Needs, handler: H) -> Self {
        self.add((Method::PATCH, MethodFilter::PATCH), path, needs, handler)
    }

    #[must_use]
    pub fn delete<H: Handler<T, Api>, T: 'static>(
        self,
        path: &'static str,
        needs: Needs,
        handler: H,
    ) -> Self {
        self.add((Method::DELETE, MethodFilter::DELETE), path, needs, handler)
    }

    fn add<H: Handler<T, Api>, T: 'static>(
        mut self,
        method: (Method, MethodFilter),
        path: &'static str,
        needs: Needs,
        handler: H,
    ) -> Self {
        let (method, filter) = method;
        let guard = from_fn_with_state(Guard { api: self.api.clone(), needs }, guard);
        self.router = self.router.route(path, on(filter, handler).route_layer(guard));
        self.table.push(Route { method, path, needs });
        self
    }

    pub fn into_router(self) -> Router<Api> {
        self.router
    }

    pub fn table(&self) -> &[Route] {
        &self.table
    }
}

#[derive(Clone)]
struct Guard {
    api: Api,
    needs: Needs,
}

async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> ApiResult<Response> {
    let Guard { api, needs } = guard;
    let (client, peer) = match (request.extensions().get::<Client>(), request.extensions().get::<Peer>()) {
        (Some(client), Some(peer)) => (client.clone(), *peer),
        _ => return Err(ApiError::new(Code::Internal, "the request has no client")),
    };
    match needs {
        Needs::Nobody => {
            // Signing somebody in to an account that is not theirs is a change too.
            if !request.method().is_safe() && client.origin(request.headers()) == Origin::Foreign {
                return Err(foreign_origin());
            }
        }
        Needs::Role(role) => {
            let asked = (request.method(), request.headers());
            let now = api.clock.wall();
            let principal = identify(&api.db, &api.local, asked, (peer, &client), now).await?;
            let principal = principal.ok_or_else(|| {
                ApiError::new(
                    Code::NotSignedIn,
                    "sign in, or send a token as \"Authorization: Bearer dpx_…\"",
                )
            })?;
            if principal.role < role {
                let detail = format!("this needs the role {role}; {} is {}", principal.name, principal.role);
                return Err(ApiError::new(Code::NotAllowed, detail));
            }
            request.extensions_mut().insert(principal);
        }
    }
    Ok(next.run(request).await)
}
