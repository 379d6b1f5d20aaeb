//! Who asks: signing in, sessions, and tokens for programs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::TokenId;
use crate::state::Role;
use crate::timestamp::Timestamp;

/// The request header that carries [`Me::csrf_token`] with every change made under a session cookie.
pub const CSRF_HEADER: &str = "x-deployex-csrf";

/// `POST /session`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    pub username: String,
    pub password: String,
}

/// Never the password.
impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignIn({:?})", self.username)
    }
}

/// `POST /me/password`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The one in force: whoever finds a page open cannot take the account.
    pub current: String,
    /// 8 characters to 72 bytes.
    pub new: String,
}

/// Never a password.
impl fmt::Debug for ChangePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChangePassword")
    }
}

/// What came of a [`ChangePassword`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PasswordChanged {
    /// Other sign-ins of the user, which are over now.
    pub sessions_ended: u32,
}

/// Whose word a request is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Me {
    /// As in events and in the audit log: a user, `token:{name}`, `local:{user}`.
    pub name: String,
    pub role: Role,
    pub via: Via,
    /// For [`CSRF_HEADER`]; a session's alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csrf_token: Option<String>,
    /// When a session ends even if it is used all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_expires_at: Option<Timestamp>,
    /// The program's version.
    pub version: String,
    /// `serve --demo`: the console says so.
    pub demo: bool,
}

/// Never the CSRF token.
impl fmt::Debug for Me {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Me({:?}, {})", self.name, self.role)
    }
}

/// How a request proved whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// A cookie.
    Session,
    /// `Authorization: Bearer dpx_…`.
    Token,
    /// The unix socket on the same host.
    Socket,
}

/// `POST /tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for: 1 to 64 characters.
    pub name: String,
    pub role: Role,
    /// Absent: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_ms: Option<u64>,
}

/// A token of the API, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    pub id: TokenId,
    pub name: String,
    pub role: Role,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
}

/// A new token: its secret is shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedToken {
    /// `dpx_…`.
    pub secret: String,
    pub token: Token,
}

impl fmt::Debug for CreatedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CreatedToken({})", self.token.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_for_debugging_holds_no_secret() {
        let sign_in = SignIn { username: "admin".to_owned(), password: "hunter2".to_owned() };
        assert_eq!(format!("{sign_in:?}"), "SignIn(\"admin\")");
        let change = ChangePassword { current: "hunter2".to_owned(), new: "hunter3".to_owned() };
        assert_eq!(format!("{change:?}"), "ChangePassword");
    }
}
