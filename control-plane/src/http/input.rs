//! Input of a request, read into types; what cannot be read is a problem that names the key.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use bytes::Bytes;
use proto::page::{DEFAULT_LIMIT, MAX_LIMIT, Page};
use proto::problem::Code;
use serde::de::DeserializeOwned;

use crate::error::{ApiError, ApiResult};

/// The body, as JSON.
pub struct Input<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> ApiResult<Self> {
        let media = request.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
        // Also keeps out forms of other sites, which cannot send this type without asking first.
        if media.split(';').next().map(str::trim) != Some("application/json") {
            let detail = "send the body as application/json";
            return Err(ApiError::new(Code::UnsupportedMediaType, detail));
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection| {
            match rejection.status().as_u16() {
                413 => ApiError::new(Code::TooLarge, "the body is larger than is accepted"),
                _ => ApiError::new(Code::MalformedRequest, "the body could not be read"),
            }
        })?;
        let mut json = serde_json::Deserializer::from_slice(&body);
        let value: T = serde_path_to_error::deserialize(&mut json).map_err(wrong_json)?;
        json.end().map_err(|error| ApiError::new(Code::MalformedRequest, error.to_string()))?;
        Ok(Self(value))
    }
}

fn wrong_json(error: serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let (path, source) = (error.path().to_string(), error.inner());
    match source.classify() {
        serde_json::error::Category::Data => ApiError::invalid(&path, without_position(&source.to_string())),
        _ => ApiError::new(Code::MalformedRequest, format!("the body is no JSON: {source}")),
    }
}

/// Line and column say nothing of a body that a program wrote.
fn without_position(text: &str) -> String {
    text.rsplit_once(" at line ").map_or(text, |(text, _)| text).to_owned()
}

/// The part of the address after `?`.
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let read = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        let wrong = |error: axum::extract::rejection::QueryRejection| {
            let text = error.body_text();
            ApiError::invalid("query", text.rsplit_once(": ").map_or(text.as_str(), |(_, text)| text))
        };
        read.map(|it| Self(it.0)).map_err(wrong)
    }
}

/// The named parts of the address. A name that cannot exist is as unknown as one that does not.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        read.map(|it| Self(it.0)).map_err(|error| ApiError::new(Code::NotFound, error.body_text()))
    }
}

/// How many items one answer may have.
pub fn limit(asked: Option<u32>) -> ApiResult<u32> {
    match asked.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        other => Err(ApiError::invalid("limit", format!("is a number from 1 to {MAX_LIMIT}, not {other}"))),
    }
}

/// One part of a list that is in memory, in the order of its keys. The cursor is the last key of the part before.
pub fn page_of<T, K: Ord + FromStr + Display>(
    items: Vec<T>,
    cursor: Option<&str>,
    limit: u32,
    key: impl Fn(&T) -> K,
) -> ApiResult<Page<T>> {
    let after: Option<K> = cursor.map(read_cursor).transpose()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let rest = items.into_iter().skip_while(|item| after.as_ref().is_some_and(|after| key(item) <= *after));
    let mut items: Vec<T> = rest.take(limit.saturating_add(1)).collect();
    let next = (items.len() > limit).then(|| {
        items.truncate(limit);
        items.last().map(|item| key(item).to_string())
    });
    Ok(Page { items, next: next.flatten() })
}

/// Where the part before ended.
pub fn read_cursor<K: FromStr>(text: &str) -> ApiResult<K> {
    text.parse().map_err(|_| ApiError::invalid("cursor", "is not one that this list gave"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_on_one_page_and_the_last_page_says_so() {
        let items: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        for size in 1..=6 {
            let (mut seen, mut cursor) = (Vec::new(), None::<String>);
            loop {
                let page = page_of(items.clone(), cursor.as_deref(), size, Clone::clone).unwrap();
                seen.extend(page.items);
                match page.next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            assert_eq!(seen, items, "{size} at a time");
        }
    }

    #[test]
    fn a_page_is_neither_empty_nor_endless() {
        assert_eq!(limit(None).unwrap(), DEFAULT_LIMIT);
        assert_eq!(limit(Some(0)).unwrap_err().code(), Code::InvalidInput);
        assert_eq!(limit(Some(MAX_LIMIT + 1)).unwrap_err().code(), Code::InvalidInput);
    }
}
