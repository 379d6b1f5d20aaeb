//! Who may do what: users, their sessions, API tokens, and the tokens with which nodes join.
//!
//! Secrets are known here by their hashes alone.

mod sessions;
mod tokens;
mod users;

pub use sessions::{NewSession, Session};
pub use tokens::{ApiToken, JoinToken, NewApiToken, NewJoinToken};
pub use users::User;

pub(super) use tokens::consume_join_token;
