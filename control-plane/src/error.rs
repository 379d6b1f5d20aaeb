//! How the API refuses: every refusal becomes one [`ApiError`], and every [`ApiError`] one problem body.
//!
//! What is said to the client and what is logged are two things: a cause is logged with the request's id and never sent.
//! The codes themselves stand in [`proto::problem`].

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use proto::problem::{self, Code, FieldError, Problem};

use crate::auth::password::PasswordError;
use crate::auth::secret::NoRandom;
use crate::db::DbError;

pub type ApiResult<T> = Result<T, ApiError>;

/// A refusal.
#[derive(Debug)]
pub struct ApiError {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    retry_after_seconds: Option<u64>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// Left in a response for the layer that knows the request's id and writes the log.
#[derive(Clone)]
pub struct Refusal {
    pub problem: Problem,
    pub cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl ApiError {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after_seconds: None, cause: None }
    }

    /// There is no `what` of that name.
    pub fn not_found(what: &str, name: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("there is no {what} {name}"))
    }

    /// One key of the input is wrong.
    pub fn invalid(path: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let error = FieldError { path: path.to_owned(), message: message.clone() };
        Self { errors: vec![error], ..Self::new(Code::InvalidInput, format!("{path}: {message}")) }
    }

    /// Something failed that the client can do nothing about.
    pub fn internal(cause: impl Error + Send + Sync + 'static) -> Self {
        let detail = "The cause is in the control plane's log, under the id in \"instance\".";
        Self::new(Code::Internal, detail).because(cause)
    }

    /// What is wrong where.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    #[must_use]
    pub fn because(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    #[must_use]
    pub fn retry_after_millis(mut self, millis: u64) -> Self {
        self.retry_after_seconds = Some(millis.div_ceil(1_000).max(1));
        self
    }

    pub fn code(&self) -> Code {
        self.code
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// For our own log: what led to it, where that is not for the client.
    pub fn reason(&self) -> String {
        self.cause.as_ref().map_or_else(|| self.detail.clone(), |it| chain(it.as_ref()))
    }
}

impl From<NoRandom> for ApiError {
    fn from(error: NoRandom) -> Self {
        Self::internal(error)
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match &error {
            DbError::Missing { what, .. } => Self::new(Code::NotFound, format!("there is no {what}")),
            DbError::Conflict { .. } | DbError::Taken { .. } => Self::new(Code::Conflict, error.to_string()),
            _ => Self::internal(error),
        }
    }
}

/// Of a password that somebody sent.
impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::TooLong(_) | PasswordError::TooShort | PasswordError::Nul => {
                Self::invalid("password", error.to_string())
            }
            PasswordError::Busy => Self::new(Code::TooBusy, error.to_string()).retry_after_millis(5_000),
            PasswordError::BadHash | PasswordError::Failed => Self::internal(error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { code, detail, errors, retry_after_seconds, cause } = self;
        let problem = Problem { errors, ..Problem::new(code, detail) };
        let mut response = problem_response(&problem);
        if let Some(seconds) = retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(Refusal { problem, cause });
        response
    }
}

/// The body and status of a problem.
pub fn problem_response(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(problem)).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
    response
}

/// An error and what led to it, in one line: `cannot store a token: disk full`.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_kept_for_the_log_and_not_said() {
        let response = ApiError::internal(std::io::Error::other("/secret/path")).into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let refusal = response.extensions().get::<Refusal>().unwrap();
        assert!(!serde_json::to_string(&refusal.problem).unwrap().contains("/secret/path"));
        assert_eq!(chain(refusal.cause.as_ref().unwrap()), "/secret/path");
    }

    #[test]
    fn wrong_input_names_its_key() {
        let response = ApiError::invalid("version", "is missing").into_response();
        assert_eq!(response.status().as_u16(), 422);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let problem = &response.extensions().get::<Refusal>().unwrap().problem;
        assert_eq!(problem.errors[0].path, "version");
    }

    #[test]
    fn who_must_wait_is_told_how_long_in_whole_seconds() {
        let response = ApiError::new(Code::TooManyAttempts, "wait").retry_after_millis(1_001).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "2");
    }
}
