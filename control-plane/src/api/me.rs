//! Who one is, and one's own password.

use axum::Json;
use axum::extract::State;
use proto::problem::{Code, Problem};
use proto::state::Severity;
use proto::users::{ChangePassword, Me, PasswordChanged};

use super::{Api, sessions};
use crate::auth::client::Client;
use crate::auth::first::ADMIN;
use crate::auth::password::check_new;
use crate::auth::principal::{Principal, SESSION_ABSOLUTE};
use crate::error::{ApiError, ApiResult};
use crate::http::input::Input;

#[utoipa::path(get, path = "/api/v1/me", tag = "session",
    responses((status = 200, description = "Whose word this request is.", body = Me)))]
pub(super) async fn show(State(api): State<Api>, principal: Principal) -> Json<Me> {
    Json(view(&api, principal))
}

pub(super) fn view(api: &Api, principal: Principal) -> Me {
    let Principal { name, role, via, session } = principal;
    Me {
        name,
        role,
        via,
        csrf_token: session.as_ref().map(|session| session.secret.csrf_token()),
        session_expires_at: session.map(|session| session.created_at.plus(SESSION_ABSOLUTE).into()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        demo: api.settings.demo,
    }
}

#[utoipa::path(post, path = "/api/v1/me/password", tag = "session", request_body = ChangePassword,
    responses(
        (status = 200, description = "It is the password now; every other session of the user has ended.",
            body = PasswordChanged),
        (status = 409, description = "`conflict`: a token or the local socket has no password, \
            or the configuration gives it.", body = Problem),
        (status = 422, description = "`invalid-input`: which of the two, and why.", body = Problem),
        (status = 429, description = "`too-many-attempts`; `Retry-After` says how long to wait.", body = Problem)))]
pub(super) async fn change_password(
    State(api): State<Api>,
    client: Client,
    principal: Principal,
    Input(ChangePassword { current, new }): Input<ChangePassword>,
) -> ApiResult<Json<PasswordChanged>> {
    let session = principal.session.as_ref().ok_or_else(|| {
        ApiError::new(Code::Conflict, "only who is signed in with a password can change it here")
    })?;
    if let Some(from) = api.settings.admin_password_from.filter(|_| principal.name == ADMIN) {
        let detail = format!("the password of {ADMIN} comes from {from}, at every start: change it there");
        return Err(ApiError::new(Code::Conflict, detail));
    }
    check_new(&new).map_err(|error| ApiError::invalid("new", error.to_string()))?;
    let address = sessions::address_of(&client);
    sessions::attempt(&api, &principal.name, address)?;
    if sessions::verified(&api, &principal.name, current.clone()).await?.is_none() {
        tracing::warn!(user = principal.name, %address, "a change of a password was refused");
        return Err(ApiError::invalid("current", "is not the password in force"));
    }
    let now = api.clock.wall();
    sessions::throttle(&api).succeeded(&principal.name, address, now);
    if new == current {
        return Err(ApiError::invalid("new", "is the password in force"));
    }
    let hash = api.passwords.hash(new.into()).await?;
    let text = format!("{} changed their password", principal.name);
    let event = api.asked(&principal.name, "password_changed", Severity::Info, text);
    let audit = api.audit(&principal.name, "password.change", &principal.name, &address.to_string());
    let ended =
        api.db.set_password(&principal.name, hash.as_str(), Some(session.id), &[event], Some(&audit)).await?;
    api.live.somebody_went();
    Ok(Json(PasswordChanged { sessions_ended: u32::try_from(ended).unwrap_or(u32::MAX) }))
}
