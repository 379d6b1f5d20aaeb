//! The picture by which an application shows itself, out of the release of one of its replicas.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use bytes::Bytes;
use proto::agent::LOGO_TYPES;
use proto::ids::AppName;
use proto::pb;
use proto::problem::{Code, Problem};
use proto::state::Liveness;
use tokio::time::{Instant, timeout_at};

use super::super::{Api, replicas};
use crate::error::{ApiError, ApiResult};
use crate::fleet::Place;
use crate::http::input::Path;
use crate::picture::StreamError;

/// A drawing may hold scripts and addresses: as a page of its own it may do nothing.
const NOTHING: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'",
);
/// In the browser that asked, so that a page that is looked at all day asks rarely.
const AN_HOUR: HeaderValue = HeaderValue::from_static("private, max-age=3600");
/// For all that are asked: who waits is a page.
const WITHIN: Duration = Duration::from_secs(10);
/// Replicas that are asked, one after the other, where one does not answer.
const ASKED: usize = 3;

#[utoipa::path(get, path = "/api/v1/applications/{app}/logo", tag = "applications",
    params(("app" = AppName, Path)),
    responses(
        (status = 200, description = "`priv/static/images/logo.svg`, or another like it, of the release that runs.",
            body = Vec<u8>, content_type = "image/svg+xml"),
        (status = 404, description = "No release that runs has one.", body = Problem),
        (status = 503, description = "No replica's node answers.", body = Problem)))]
pub(in crate::api) async fn show(
    State(api): State<Api>,
    Path(app): Path<AppName>,
) -> ApiResult<([(HeaderName, HeaderValue); 3], Bytes)> {
    let picture = api.picture().await?;
    let known = picture.apps.get(&app).ok_or_else(|| ApiError::not_found("application", &app))?;
    let with_logo =
        replicas::of(&picture, &known.fleet).filter(|it| it.vm.as_ref().is_some_and(|vm| vm.logo));
    let nodes = with_logo.filter_map(|it| {
        let node = picture.node_by_name(&it.node)?;
        (node.sight.liveness != Liveness::Lost).then_some(Place { node: node.node.id, slot: it.slot })
    });
    let until = Instant::now() + WITHIN;
    let mut refused = ApiError::not_found("logo", format!("of {app}"));
    for place in nodes.take(ASKED) {
        let what = pb::ReadLogo { app: app.to_string(), slot: u32::from(place.slot.number()) };
        let Ok(read) = timeout_at(until, api.backend.read_logo(place.node, what)).await else {
            return Err(ApiError::new(Code::TimedOut, "no replica gave its logo in time"));
        };
        match read {
            Ok(logo) => {
                let known = LOGO_TYPES.iter().find(|(_, it)| *it == logo.media_type);
                let media_type = known.map_or("application/octet-stream", |(_, it)| it);
                let headers = [
                    (CONTENT_TYPE, HeaderValue::from_static(media_type)),
                    (CONTENT_SECURITY_POLICY, NOTHING),
                    (CACHE_CONTROL, AN_HOUR),
                ];
                return Ok((headers, logo.data));
            }
            Err(error) => {
                let code = match error {
                    StreamError::NotConnected => Code::NodeNotConnected,
                    StreamError::TimedOut => Code::TimedOut,
                    StreamError::TooMany => return Err(ApiError::new(Code::TooBusy, error.to_string())),
                    StreamError::Refused(_) => Code::NotFound,
                };
                refused = ApiError::new(code, error.to_string());
            }
        }
    }
    Err(refused)
}
