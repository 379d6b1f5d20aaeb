//! Whose word a request is: found out once, before any handler, from the socket, a token or a session cookie.

use std::collections::BTreeSet;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use proto::problem::Code;
use proto::state::Role;
use proto::users::{CSRF_HEADER, Via};
use uuid::Uuid;

use super::client::{Client, Origin, Peer};
use super::secret::{Secret, TOKEN_PREFIX};
use crate::clock::Time;
use crate::db::Db;
use crate::error::{ApiError, ApiResult};

/// A session ends when it was not used for so long, in milliseconds.
pub const SESSION_IDLE: u64 = 12 * 3_600_000;
/// And so long after the sign-in in any case.
pub const SESSION_ABSOLUTE: u64 = 7 * 24 * 3_600_000;
/// That something was used is written down no oftener: a page asks many times a minute.
const TOUCH_EVERY: u64 = 60_000;

/// The session cookie under HTTPS: the prefix makes browsers refuse one from elsewhere.
const COOKIE_SECURE: &str = "__Host-deployex";
const COOKIE_PLAIN: &str = "deployex";

/// The one who asks.
#[derive(Clone, Debug)]
pub struct Principal {
    /// As in events and in the audit: a user, `token:{name}`, `local:{user}`.
    pub name: String,
    pub role: Role,
    pub via: Via,
    /// Of a session alone.
    pub session: Option<SessionProof>,
}

#[derive(Clone, Debug)]
pub struct SessionProof {
    pub id: Uuid,
    pub secret: Secret,
    pub created_at: Time,
}

/// Who may speak through the local socket: uid and name.
#[derive(Clone, Debug, Default)]
pub struct LocalAdmins {
    uids: BTreeSet<u32>,
}

impl LocalAdmins {
    /// Root and the program's own user.
    pub fn of_this_process() -> Self {
        Self { uids: BTreeSet::from([0, rustix::process::geteuid().as_raw()]) }
    }

    fn principal(&self, uid: u32) -> ApiResult<Principal> {
        if !self.uids.contains(&uid) {
            let detail = format!(
                "user id {uid} may not use the local socket: root and the control plane's own user may; others use a token"
            );
            return Err(ApiError::new(Code::NotAllowed, detail));
        }
        let name = if uid == 0 { "local:root".to_owned() } else { format!("local:{}", user_name(uid)) };
        Ok(Principal { name, role: Role::Admin, via: Via::Socket, session: None })
    }
}

/// As `/etc/passwd` has it, for the audit; the number where it has not.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| uid.to_string(), str::to_owned)
}

/// Finds out who asks. `Ok(None)`: nobody in particular.
pub async fn identify(
    db: &Db,
    local: &LocalAdmins,
    request: (&Method, &HeaderMap),
    from: (Peer, &Client),
    now: Time,
) -> ApiResult<Option<Principal>> {
    let ((method, headers), (peer, client)) = (request, from);
    if let Some(token) = bearer(headers) {
        return by_token(db, token?, now).await.map(Some);
    }
    if let Some(secret) = session_cookie(headers, client.https) {
        return by_session(db, secret, method, headers, client, now).await;
    }
    match peer {
        Peer::Socket { uid } => local.principal(uid).map(Some),
        Peer::Tcp { .. } => Ok(None),
    }
}

fn bearer(headers: &HeaderMap) -> Option<ApiResult<Secret>> {
    let value = headers.get(AUTHORIZATION)?;
    let token = value.to_str().ok().and_then(|it| it.split_once(' '));
    let secret = token
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .and_then(|(_, token)| Secret::presented(token.trim()))
        .filter(|secret| secret.expose().starts_with(TOKEN_PREFIX));
    Some(secret.ok_or_else(bad_token))
}

fn bad_token() -> ApiError {
    ApiError::new(Code::NotSignedIn, "the token is unknown, revoked or expired")
}

async fn by_token(db: &Db, secret: Secret, now: Time) -> ApiResult<Principal> {
    let token = db.api_token(&secret.digest(), now).await?.ok_or_else(bad_token)?;
    if token.last_used_at.is_none_or(|at| now.since(at) >= TOUCH_EVERY) {
        db.touch_api_token(token.id, now).await?;
    }
    let name = format!("token:{}", token.name);
    Ok(Principal { name, role: token.role, via: Via::Token, session: None })
}

async fn by_session(
    db: &Db,
    secret: Secret,
    method: &Method,
    headers: &HeaderMap,
    client: &Client,
    now: Time,
) -> ApiResult<Option<Principal>> {
    let Some((session, user)) = db.session(&secret.digest(), now).await? else { return Ok(None) };
    if !method.is_safe() {
        prove_own_page(&secret, headers, client)?;
    }
    if now.since(session.last_used_at) >= TOUCH_EVERY {
        db.touch_session(session.id, now, session_end(session.created_at, now)).await?;
    }
    let proof = SessionProof { id: session.id, secret, created_at: session.created_at };
    Ok(Some(Principal { name: user.name, role: user.role, via: Via::Session, session: Some(proof) }))
}

/// When a session that is used now ends, if it is not used again.
pub fn session_end(created_at: Time, now: Time) -> Time {
    now.plus(SESSION_IDLE).min(created_at.plus(SESSION_ABSOLUTE))
}

/// A cookie comes along with whatever a browser was made to send; this does not.
fn prove_own_page(secret: &Secret, headers: &HeaderMap, client: &Client) -> ApiResult<()> {
    if client.origin(headers) == Origin::Foreign {
        return Err(foreign_origin());
    }
    match headers.get(CSRF_HEADER) {
        Some(token) if secret.is_csrf_token(token.as_bytes()) => Ok(()),
        _ => {
            let detail =
                format!("changes under a session carry the header {CSRF_HEADER} with csrf_token of GET /me");
            Err(ApiError::new(Code::CsrfMissing, detail))
        }
    }
}

pub fn foreign_origin() -> ApiError {
    ApiError::new(Code::ForeignOrigin, "the page that sent this is not one of ours")
}

fn session_cookie(headers: &HeaderMap, https: bool) -> Option<Secret> {
    let name = cookie_name(https);
    let pairs = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = pairs.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).and_then(|(_, value)| Secret::presented(value))
}

fn cookie_name(https: bool) -> &'static str {
    if https { COOKIE_SECURE } else { COOKIE_PLAIN }
}

/// `Set-Cookie` for a session; `None` takes it away.
pub fn set_cookie(secret: Option<&Secret>, https: bool) -> String {
    let (value, age) = secret.map_or(("", 0), |it| (it.expose(), SESSION_ABSOLUTE / 1_000));
    let secure = if https { "; Secure" } else { "" };
    format!("{}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}", cookie_name(https))
}

/// Only behind a guard that has put it there: see `http::routes`.
impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| ApiError::new(Code::NotSignedIn, "sign in, or send a token"))
    }
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| ApiError::new(Code::Internal, "the request has no client"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_idle_and_in_any_case() {
        assert_eq!(session_end(Time(0), Time(0)), Time(SESSION_IDLE));
        assert_eq!(session_end(Time(0), Time(SESSION_ABSOLUTE - 1)), Time(SESSION_ABSOLUTE));
    }

    #[test]
    fn the_cookie_is_out_of_reach_of_scripts_and_other_sites() {
        let secret = Secret::random("").unwrap();
        let cookie = set_cookie(Some(&secret), true);
        assert!(cookie.starts_with("__Host-deployex="), "{cookie}");
        assert!(cookie.ends_with("; HttpOnly; SameSite=Strict; Secure"), "{cookie}");
        assert!(!set_cookie(Some(&secret), false).contains("Secure"));
        assert!(set_cookie(None, false).contains("Max-Age=0"));
    }

    #[test]
    fn the_socket_is_for_root_and_our_own_user() {
        let local = LocalAdmins { uids: BTreeSet::from([0, 4711]) };
        assert_eq!(local.principal(0).unwrap().name, "local:root");
        assert_eq!(local.principal(4711).unwrap().name, "local:4711");
        assert_eq!(local.principal(33).unwrap_err().code(), Code::NotAllowed);
    }
}
