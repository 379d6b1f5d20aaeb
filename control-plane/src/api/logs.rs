//! The output of one replica, from its host through the control plane, as it comes: one JSON object per line.
//!
//! What the agent sends are bytes cut anywhere; lines are put together here, each stream by itself, and a line that is too
//! long is cut, so that nothing a program prints can fill our memory. Between them, while nothing comes, an empty line says
//! that it goes on: a proxy gives up an answer of which nothing comes for a while.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use async_stream::stream;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use proto::ids::{AppName, NodeName, Slot};
use proto::pb;
use proto::problem::{Code, Problem};
use proto::replicas::{LogLine, LogStream};
use serde::Deserialize;
use tokio::time::sleep;

use super::Api;
use crate::error::{ApiError, ApiResult};
use crate::http::input::{Path, Query};
use crate::picture::{LogChunks, StreamError};

/// Longer lines are cut.
const LONGEST_LINE: usize = 64 << 10;
const DEFAULT_LINES: u32 = 100;
const MOST_LINES: u32 = 10_000;

/// NGINX gives up after 60 s where nobody says otherwise; other proxies after 30 s.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FollowQuery {
    stream: Option<LogStream>,
    lines: Option<u32>,
    follow: Option<bool>,
}

#[utoipa::path(get, path = "/api/v1/replicas/{node}/{app}/{slot}/logs", tag = "replicas",
    params(("node" = NodeName, Path), ("app" = AppName, Path), ("slot" = Slot, Path),
        ("stream" = Option<LogStream>, Query), ("lines" = Option<u32>, Query, description = "From before now."),
        ("follow" = Option<bool>, Query, description = "Go on as they come.")),
    responses(
        (status = 200, description = "One JSON object per line, and while nothing comes empty lines.", body = LogLine,
            content_type = "application/x-ndjson"),
        (status = 503, description = "`node-not-connected`.", body = Problem)))]
pub(super) async fn follow(
    State(api): State<Api>,
    Path((node, app, slot)): Path<(NodeName, AppName, Slot)>,
    Query(query): Query<FollowQuery>,
) -> ApiResult<([(HeaderName, &'static str); 1], Body)> {
    let lines = query.lines.unwrap_or(DEFAULT_LINES);
    if lines > MOST_LINES {
        return Err(ApiError::invalid("lines", format!("is at most {MOST_LINES}")));
    }
    let id = api.db.node_by_name(&node).await?.ok_or_else(|| ApiError::not_found("node", &node))?.id;
    let wanted = match query.stream.unwrap_or(LogStream::Both) {
        LogStream::Both => pb::LogStream::Both,
        LogStream::Stdout => pb::LogStream::Stdout,
        LogStream::Stderr => pb::LogStream::Stderr,
    };
    let what = pb::FollowLog {
        app: app.to_string(),
        slot: u32::from(slot.number()),
        stream: wanted.into(),
        last_lines: lines,
        follow: query.follow.unwrap_or(false),
    };
    let chunks = api.backend.follow_log(id, what).await.map_err(|error| refused(&node, error))?;
    // Held while the stream lives: a stop waits until whoever reads has been told.
    let (cancel, token) = (api.cancel.clone(), api.tasks.token());
    let lines = told(chunks, async move {
        cancel.cancelled().await;
        token
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines.map(Ok::<_, Infallible>))))
}

/// What is said of a log, until it ends or everything stops; what that gives is held until it was said.
fn told<T: Send>(
    mut chunks: LogChunks,
    stopped: impl Future<Output = T> + Send,
) -> impl Stream<Item = Bytes> + Send {
    stream! {
        let mut lines = Lines::default();
        let mut stopped = pin!(stopped);
        loop {
            let chunk = tokio::select! {
                biased; // why: a log that never pauses must still end
                _held = &mut stopped => {
                    yield ended("the control plane is stopping");
                    return;
                }
                chunk = chunks.next() => chunk,
                () = sleep(SIGN_OF_LIFE) => {
                    yield Bytes::from_static(b"\n");
                    continue;
                }
            };
            match chunk {
                Some(Ok(chunk)) if chunk.error.is_empty() => {
                    let stream = if chunk.log_stream() == pb::LogStream::Stderr { LogStream::Stderr } else { LogStream::Stdout };
                    for line in lines.take(stream, &chunk.data) {
                        yield encoded(&line);
                    }
                }
                Some(Ok(chunk)) => {
                    yield ended(&chunk.error);
                    return;
                }
                Some(Err(error)) => {
                    yield ended(&error.to_string());
                    return;
                }
                None => break,
            }
        }
        for line in lines.rest() {
            yield encoded(&line);
        }
    }
}

fn refused(node: &NodeName, error: StreamError) -> ApiError {
    let detail = format!("{node}: {error}");
    match error {
        StreamError::NotConnected => ApiError::new(Code::NodeNotConnected, detail),
        StreamError::TimedOut => ApiError::new(Code::TimedOut, detail),
        StreamError::TooMany => ApiError::new(Code::TooBusy, detail),
        StreamError::Refused(_) => ApiError::new(Code::Conflict, detail),
    }
}

fn encoded(line: &LogLine) -> Bytes {
    // A line is text and a word: it always has a JSON form.
    let mut json = serde_json::to_vec(line).unwrap_or_default();
    json.push(b'\n');
    json.into()
}

fn ended(reason: &str) -> Bytes {
    encoded(&LogLine::Ended { reason: reason.to_owned() })
}

/// Puts lines together from chunks.
#[derive(Default)]
struct Lines {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Lines {
    fn take(&mut self, stream: LogStream, mut data: &[u8]) -> Vec<LogLine> {
        let pending = if stream == LogStream::Stderr { &mut self.stderr } else { &mut self.stdout };
        let mut lines = Vec::new();
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            grow(pending, &data[..end]);
            lines.push(line(stream, pending));
            pending.clear();
            data = &data[end + 1..];
        }
        grow(pending, data);
        lines
    }

    /// What the streams ended with, without an end of line.
    fn rest(self) -> impl Iterator<Item = LogLine> {
        let streams = [(LogStream::Stdout, self.stdout), (LogStream::Stderr, self.stderr)];
        streams.into_iter().filter(|(_, rest)| !rest.is_empty()).map(|(stream, rest)| line(stream, &rest))
    }
}

fn grow(pending: &mut Vec<u8>, data: &[u8]) {
    let room = LONGEST_LINE.saturating_sub(pending.len());
    pending.extend_from_slice(&data[..data.len().min(room)]);
}

fn line(stream: LogStream, bytes: &[u8]) -> LogLine {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    LogLine::Line { stream, text: String::from_utf8_lossy(bytes).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: Vec<LogLine>) -> Vec<String> {
        lines
            .into_iter()
            .map(|line| match line {
                LogLine::Line { text, .. } => text,
                LogLine::Ended { reason } => reason,
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_is_quiet_gives_a_sign_of_life_and_is_heard_when_it_speaks() {
        let (speak, spoken) = tokio::sync::mpsc::channel(1);
        let chunks = tokio_stream::wrappers::ReceiverStream::new(spoken).boxed();
        let mut told = pin!(told(chunks, std::future::pending::<()>()));
        for _ in 0..3 {
            let begun = tokio::time::Instant::now();
            assert_eq!(told.next().await.unwrap(), "\n");
            assert_eq!(begun.elapsed(), SIGN_OF_LIFE);
        }
        speak.send(Ok(pb::StreamChunk { data: "at last\n".into(), ..Default::default() })).await.unwrap();
        let line: LogLine = serde_json::from_slice(&told.next().await.unwrap()).unwrap();
        assert_eq!(texts(vec![line]), ["at last"]);
        drop(speak);
        assert_eq!(told.next().await, None);
    }

    #[test]
    fn lines_are_whole_wherever_the_chunks_were_cut() {
        let text = "grüß\nsecond\r\n\nlast";
        for cut in 0..text.len() {
            let mut lines = Lines::default();
            let mut found = lines.take(LogStream::Stdout, &text.as_bytes()[..cut]);
            found.extend(lines.take(LogStream::Stdout, &text.as_bytes()[cut..]));
            found.extend(lines.rest());
            assert_eq!(texts(found), ["grüß", "second", "", "last"], "cut at {cut}");
        }
    }

    #[test]
    fn the_two_streams_do_not_mix_within_a_line() {
        let mut lines = Lines::default();
        assert!(lines.take(LogStream::Stdout, b"out").is_empty());
        assert_eq!(texts(lines.take(LogStream::Stderr, b"err\n")), ["err"]);
        assert_eq!(texts(lines.take(LogStream::Stdout, b"put\n")), ["output"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut lines = Lines::default();
        for _ in 0..1_000 {
            assert!(lines.take(LogStream::Stdout, &[b'x'; 1_024]).is_empty());
        }
        let line = texts(lines.take(LogStream::Stdout, b"\n"));
        assert_eq!(line[0].len(), LONGEST_LINE);
    }
}
