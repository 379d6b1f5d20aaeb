//! Signing in and out.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::PoisonError;

use axum::extract::State;
use axum::http::header::{SET_COOKIE, USER_AGENT};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use axum::{Extension, Json};
use proto::problem::{Code, Problem};
use proto::users::{Me, SignIn, Via};

use super::{Api, me};
use crate::auth::client::{Client, Peer};
use crate::auth::password::{PasswordHash, check_presented};
use crate::auth::principal::{Principal, SessionProof, identify, session_end, set_cookie};
use crate::auth::secret::Secret;
use crate::auth::throttle::Wait;
use crate::db::{NewSession, User};
use crate::error::{ApiError, ApiResult};
use crate::http::input::Input;

/// Longer is nobody's name.
const LONGEST_NAME: usize = 64;
const LONGEST_USER_AGENT: usize = 200;

type WithCookie = AppendHeaders<[(axum::http::HeaderName, String); 1]>;

#[utoipa::path(post, path = "/api/v1/session", tag = "session", request_body = SignIn,
    responses(
        (status = 200, description = "Signed in: the cookie carries the session.", body = Me),
        (status = 401, description = "`wrong-credentials`.", body = Problem),
        (status = 429, description = "`too-many-attempts`; `Retry-After` says how long to wait.", body = Problem)))]
pub(super) async fn sign_in(
    State(api): State<Api>,
    client: Client,
    headers: HeaderMap,
    Input(SignIn { username, password }): Input<SignIn>,
) -> ApiResult<(WithCookie, Json<Me>)> {
    check_presented(&password)?;
    let address = address_of(&client);
    if username.is_empty() || username.chars().count() > LONGEST_NAME {
        return Err(wrong_credentials());
    }
    attempt(&api, &username, address)?;
    let user = verified(&api, &username, password).await?;
    let Some(user) = user else {
        count(&api, "refused");
        tracing::warn!(username, %address, "a sign-in was refused");
        return Err(wrong_credentials());
    };
    let now = api.clock.wall();
    throttle(&api).succeeded(&username, address, api.clock.now());
    count(&api, "accepted");
    let secret = Secret::random("")?;
    let agent = headers.get(USER_AGENT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let new = NewSession {
        hash: secret.digest(),
        user: user.name.clone(),
        created_at: now,
        expires_at: session_end(now, now),
        address: address.to_string(),
        user_agent: agent.chars().take(LONGEST_USER_AGENT).collect(),
    };
    let audit = api.audit(&user.name, "session.create", &user.name, &new.address);
    let session = api.db.add_session(&new, Some(&audit)).await?;
    let proof = SessionProof { id: session.id, secret, created_at: now };
    let cookie = set_cookie(Some(&proof.secret), client.https);
    let principal = Principal { name: user.name, role: user.role, via: Via::Session, session: Some(proof) };
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), Json(me::view(&api, principal))))
}

/// What attempts are counted under; the local socket is this machine.
pub(super) fn address_of(client: &Client) -> IpAddr {
    client.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

pub(super) async fn verified(api: &Api, username: &str, password: String) -> ApiResult<Option<User>> {
    let user = api.db.user(username).await?;
    let hash = user.as_ref().map(|user| PasswordHash::parse(&user.password_hash)).transpose()?;
    let right = api.passwords.verify(password.into(), hash).await?;
    Ok(user.filter(|_| right))
}

pub(super) fn attempt(api: &Api, username: &str, address: IpAddr) -> ApiResult<()> {
    throttle(api).attempt(username, address, api.clock.now()).map_err(|Wait(millis)| {
        count(api, "throttled");
        let detail = format!("try again in {} seconds", millis.div_ceil(1_000));
        ApiError::new(Code::TooManyAttempts, detail).retry_after_millis(millis)
    })
}

pub(super) fn throttle(api: &Api) -> std::sync::MutexGuard<'_, crate::auth::throttle::Throttle> {
    api.throttle.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(api: &Api, outcome: &'static str) {
    api.metrics
        .counter("deployex_sign_ins_total", vec![metrics::Label::new("outcome", outcome)])
        .increment(1);
}

/// The same for an unknown user and for a wrong password.
fn wrong_credentials() -> ApiError {
    ApiError::new(Code::WrongCredentials, "the user name or the password is wrong")
}

#[utoipa::path(get, path = "/api/v1/session", tag = "session",
    responses(
        (status = 200, description = "Who is signed in.", body = Me),
        (status = 204, description = "Nobody is: what a console asks first is no refusal.")))]
pub(super) async fn current(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    client: Client,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let asked = (&Method::GET, &headers);
    let principal = identify(&api.db, &api.local, asked, (peer, &client), api.clock.wall()).await?;
    Ok(match principal {
        Some(principal) => Json(me::view(&api, principal)).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

#[utoipa::path(delete, path = "/api/v1/session", tag = "session",
    responses((status = 204, description = "Signed out.")))]
pub(super) async fn sign_out(
    State(api): State<Api>,
    client: Client,
    principal: Principal,
) -> ApiResult<(StatusCode, WithCookie)> {
    let session = principal.session.as_ref();
    let session =
        session.ok_or_else(|| ApiError::new(Code::Conflict, "this request has no session to end"))?;
    let audit = api.audit(&principal.name, "session.end", &principal.name, "");
    api.db.end_session(session.id, Some(&audit)).await?;
    api.live.somebody_went();
    let cookie = set_cookie(None, client.https);
    Ok((StatusCode::NO_CONTENT, AppendHeaders([(SET_COOKIE, cookie)])))
}
