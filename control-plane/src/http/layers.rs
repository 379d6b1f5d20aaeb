//! What holds for every request: its id, who sent it, headers that browsers obey, problem bodies, the log and the count.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use metrics::Label;
use proto::problem::{Code, Problem};
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use crate::api::Api;
use crate::auth::client::{Client, Peer};
use crate::error::{ApiError, ApiResult, Refusal, chain, problem_response};

/// Larger than anything that the API reads.
const MAX_BODY: usize = 256 << 10;
/// To answer in. Streams answer at once and then take as long as they take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Scripts only from here; styles also inline, which charts and terminals need to place things.
const CSP: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'none'";
/// A year.
const HSTS: &str = "max-age=31536000";

/// Around all routes. The first one added is the innermost.
pub fn around(router: Router, api: &Api) -> Router {
    router
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(in_time))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(api.clone(), from_whom))
        .layer(from_fn_with_state(api.clone(), observe))
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("there was no answer within {} seconds", ANSWER_WITHIN.as_secs());
            ApiError::new(Code::TimedOut, detail).into_response()
        }
    }
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    ApiError::new(Code::Internal, "a fault in the program; its log says where").into_response()
}

/// Finds out who the client is; in the demo, also that it is on this machine and came by no proxy.
async fn from_whom(State(api): State<Api>, mut request: Request, next: Next) -> ApiResult<Response> {
    let peer = request.extensions().get::<Peer>().copied();
    let peer = peer.ok_or_else(|| ApiError::new(Code::Internal, "the connection has no peer"))?;
    let uri_host = request.uri().authority().map(axum::http::uri::Authority::as_str);
    let client = Client::of(peer, request.headers(), uri_host, &api.settings.trusted_proxies);
    if api.settings.demo {
        only_from_here(peer, &client)?;
    }
    let https = client.https;
    request.extensions_mut().insert(client);
    let mut response = next.run(request).await;
    if https {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
    }
    Ok(response)
}

/// The demo's password is known to everybody, so nobody but this machine may reach it, whatever leads here.
fn only_from_here(peer: Peer, client: &Client) -> ApiResult<()> {
    if matches!(peer, Peer::Socket { .. }) {
        return Ok(());
    }
    if client.forwarded || client.address.is_none_or(|address| !address.is_loopback()) {
        let detail =
            "the demo answers this machine alone and no proxy: start `deployex serve` without --demo";
        return Err(ApiError::new(Code::NotAllowed, detail));
    }
    match client.host_is_loopback() {
        true => Ok(()),
        false => Err(ApiError::new(Code::WrongHost, "the demo is served as localhost or 127.0.0.1 alone")),
    }
}

async fn observe(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let started = api.clock.now();
    let id = Uuid::now_v7().to_string();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let of_api = path.starts_with("/api/");
    request.headers_mut().remove(REQUEST_ID);
    let (route, response) = routed(request, next).await;
    let mut response = with_problem(response, &id, of_api);
    secure(response.headers_mut(), &id, of_api);
    let (status, millis) = (response.status(), api.clock.now().since(started));
    tracing::debug!(%method, path, status = status.as_u16(), millis, id, "answered");
    let labels = vec![
        Label::new("method", method.to_string()),
        Label::new("route", route),
        Label::new("status", status.as_str().to_owned()),
    ];
    let seconds = Duration::from_millis(millis).as_secs_f64();
    api.metrics.seconds("deployex_http_request_seconds", labels[..2].to_vec()).record(seconds);
    api.metrics.counter("deployex_http_requests_total", labels).increment(1);
    response
}

/// The route's own path, so that what is counted is bounded by the table and not by what people ask for.
async fn routed(request: Request, next: Next) -> (String, Response) {
    let response = next.run(request).await;
    let route = response.extensions().get::<MatchedPath>().map(|it| it.as_str().to_owned());
    (route.unwrap_or_else(|| "other".to_owned()), response)
}

/// Leaves the route's path where [`routed`] finds it: outside of the router it is not known.
pub async fn remember_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

/// Every refusal of the API is a problem with this request's id, also those that the framework makes.
fn with_problem(mut response: Response, id: &str, of_api: bool) -> Response {
    let refusal = match response.extensions_mut().remove::<Refusal>() {
        Some(refusal) => refusal,
        None => match unexplained(response.status()).filter(|_| of_api) {
            Some(code) => Refusal { problem: Problem::new(code, code.title()), cause: None },
            None => return response,
        },
    };
    let Refusal { mut problem, cause } = refusal;
    id.clone_into(&mut problem.instance);
    if let Some(cause) = &cause {
        tracing::error!(id, code = %problem.code, cause = chain(cause.as_ref()), "a request failed");
    }
    let (mut parts, _) = response.into_parts();
    let problem = problem_response(&problem);
    parts.headers.extend(problem.headers().clone());
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    parts.status = problem.status();
    Response::from_parts(parts, problem.into_body())
}

fn unexplained(status: StatusCode) -> Option<Code> {
    match status {
        StatusCode::NOT_FOUND => Some(Code::NotFound),
        StatusCode::METHOD_NOT_ALLOWED => Some(Code::MethodNotAllowed),
        StatusCode::PAYLOAD_TOO_LARGE => Some(Code::TooLarge),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Some(Code::UnsupportedMediaType),
        status if status.is_client_error() => Some(Code::MalformedRequest),
        status if status.is_server_error() => Some(Code::Internal),
        _ => None,
    }
}

fn secure(headers: &mut HeaderMap, id: &str, of_api: bool) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Unless the answer knows better what it is.
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(const { HeaderValue::from_static(CSP) });
    if of_api {
        headers.entry(CACHE_CONTROL).or_insert(const { HeaderValue::from_static("no-store") });
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
}
