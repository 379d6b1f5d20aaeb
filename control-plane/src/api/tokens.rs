//! Tokens of the API.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use proto::ids::TokenId;
use proto::page::Page;
use proto::problem::Code;
use proto::state::Severity;
use proto::users::{CreatedToken, NewToken, Token};

use super::Api;
use crate::auth::principal::Principal;
use crate::auth::secret::{Secret, TOKEN_PREFIX};
use crate::db::{ApiToken, NewApiToken};
use crate::error::{ApiError, ApiResult};
use crate::http::input::{Input, Path};

const LONGEST_NAME: usize = 64;
/// Ten years: a lifetime beyond it is a slip of the finger.
const LONGEST_LIFETIME: u64 = 3_653 * 86_400_000;

#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens",
    responses((status = 200, description = "Oldest first, without their secrets.", body = Page<Token>)))]
pub(super) async fn list(State(api): State<Api>) -> ApiResult<Json<Page<Token>>> {
    let items = api.db.api_tokens().await?.into_iter().map(view).collect();
    Ok(Json(Page { items, next: None }))
}

#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = NewToken,
    responses((status = 201, description = "The token, shown this once.", body = CreatedToken)))]
pub(super) async fn create(
    State(api): State<Api>,
    principal: Principal,
    Input(NewToken { name, role, lifetime_ms }): Input<NewToken>,
) -> ApiResult<(StatusCode, Json<CreatedToken>)> {
    let fits = (1..=LONGEST_NAME).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if !fits || name.trim() != name {
        let message = format!("has 1 to {LONGEST_NAME} characters and neither begins nor ends with a space");
        return Err(ApiError::invalid("name", message));
    }
    if lifetime_ms.is_some_and(|it| !(1..=LONGEST_LIFETIME).contains(&it)) {
        return Err(ApiError::invalid("lifetime_ms", "is at least 1 and at most ten years"));
    }
    let (secret, now) = (Secret::random(TOKEN_PREFIX)?, api.clock.wall());
    let new = NewApiToken {
        name,
        hash: secret.digest(),
        role,
        created_at: now,
        expires_at: lifetime_ms.map(|lifetime| now.plus(lifetime)),
    };
    let audit = api.audit(&principal.name, "token.create", &new.name, role.word());
    let text = format!("{} made the token {} ({})", principal.name, new.name, role.word());
    let event = api.asked(&principal.name, "token_created", Severity::Info, text);
    let stored =
        api.db.add_api_token(&new, &[event], Some(&audit)).await.map_err(|error| match error.is_taken() {
            true => ApiError::new(
                Code::Conflict,
                format!("there is a token {} already: revoke it first", new.name),
            ),
            false => error.into(),
        })?;
    let created = CreatedToken { secret: secret.expose().to_owned(), token: view(stored) };
    Ok((StatusCode::CREATED, Json(created)))
}

#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens", params(("id" = TokenId, Path)),
    responses((status = 204, description = "It is good for nothing from now on.")))]
pub(super) async fn revoke(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<TokenId>,
) -> ApiResult<StatusCode> {
    let known = api.db.api_tokens().await?.into_iter().find(|token| token.id == id);
    let token = known.ok_or_else(|| ApiError::not_found("token", id))?;
    let audit = api.audit(&principal.name, "token.revoke", &token.name, &id.to_string());
    let text = format!("{} revoked the token {}", principal.name, token.name);
    let event = api.asked(&principal.name, "token_revoked", Severity::Info, text);
    api.db.revoke_api_token(id, &[event], Some(&audit)).await?;
    api.live.somebody_went();
    Ok(StatusCode::NO_CONTENT)
}

fn view(token: ApiToken) -> Token {
    let ApiToken { id, name, role, created_at, expires_at, last_used_at } = token;
    Token {
        id,
        name,
        role,
        created_at: created_at.into(),
        last_used_at: last_used_at.map(Into::into),
        expires_at: expires_at.map(Into::into),
    }
}
