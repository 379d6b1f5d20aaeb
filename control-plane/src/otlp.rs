//! Pushes what `/metrics` shows to an OpenTelemetry receiver: OTLP over HTTP, as protobuf, every so often.
//!
//! Decides nothing about what is measured: the text that Prometheus would be given is read (`exposition`) and sent in parts
//! (`payload`), so that both always say the same. What could not be sent is not kept: counters go on from where they were, and
//! the next push shows them.

mod exposition;
mod payload;

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::payload::{Requests, Span, attribute};
use crate::clock::{Clock, Time};
use crate::config::Otlp;
use crate::error::{ApiError, chain};
use crate::telemetry::Metrics;

/// For one request, by OpenTelemetry's specification.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Before that nodes have not dialled in yet, and none of their figures would be true.
const FIRST: Duration = Duration::from_secs(20);
/// At the end of the program: all that it takes, and no longer than nodes still count as heard.
const LAST_WITHIN: Duration = Duration::from_secs(2);
/// Of an answer: it says in a few words what was refused.
const MOST_ANSWERED: usize = 64 << 10;
const EXPORTS: &str = "deployex_otlp_exports_total";

/// What is pushed, as text for Prometheus.
#[async_trait::async_trait]
pub trait Figures: Send + Sync {
    async fn text(&self) -> Result<String, ApiError>;
}

/// Why a push failed.
#[derive(Debug, thiserror::Error)]
enum PushError {
    #[error("the figures cannot be had: {0}")]
    Figures(String),
    #[error("nothing can be sent")]
    Client(#[source] reqwest::Error),
    #[error("it does not answer")]
    Sent(#[source] reqwest::Error),
    #[error("it answers {status}{}", said(text))]
    Refused { status: StatusCode, text: String },
    #[error("it refused {points} of the figures{}", said(text))]
    Partly { points: i64, text: String },
}

impl PushError {
    /// Whether the other parts would fare no better.
    fn is_of_all(&self) -> bool {
        match self {
            Self::Figures(_) | Self::Client(_) | Self::Sent(_) => true,
            Self::Refused { status, .. } => {
                status.is_server_error()
                    || status.is_redirection()
                    || matches!(status.as_u16(), 401 | 403 | 404 | 429)
            }
            Self::Partly { .. } => false,
        }
    }

    /// Without what is another each time.
    fn kind(&self) -> String {
        match self {
            Self::Figures(_) => "figures".to_owned(),
            Self::Client(_) => "client".to_owned(),
            Self::Sent(_) => "sent".to_owned(),
            Self::Refused { status, .. } => status.as_u16().to_string(),
            Self::Partly { .. } => "partly".to_owned(),
        }
    }
}

fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

pub struct Exporter<F> {
    to: Otlp,
    figures: F,
    /// Where it is counted how pushes went.
    metrics: Metrics,
    resource: Resource,
    clock: Clock,
    /// By the clock that nobody sets.
    started: Time,
    /// What kind of failure the last push was; so that the log has one line for a receiver that is away, and one when it is back.
    failed: Option<String>,
    /// Lines that could not be read the last time.
    unread: usize,
}

impl<F: Figures> Exporter<F> {
    /// `instance` tells this control plane from others that push to the same receiver.
    pub fn new(to: Otlp, instance: &str, figures: F, metrics: Metrics, clock: Clock) -> Self {
        metrics.describe_counter(EXPORTS, "Pushes of these figures to OpenTelemetry by outcome.");
        let attributes = vec![
            attribute("service.name", "deployex".to_owned()),
            attribute("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            attribute("service.instance.id", instance.to_owned()),
        ];
        let resource = Resource { attributes, ..Resource::default() };
        Self { to, figures, metrics, resource, clock, started: clock.now(), failed: None, unread: 0 }
    }

    /// Until cancelled, and once more then where that takes no time, so that what was counted last is not lost.
    pub async fn run(mut self, cancel: CancellationToken) {
        let client = reqwest::Client::builder()
            .timeout(ANSWER_WITHIN)
            .default_headers(self.to.headers.clone())
            .user_agent(concat!("deployex/", env!("CARGO_PKG_VERSION")))
            // A redirection would be followed with what lets us in.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(PushError::Client);
        let client = match client {
            Ok(client) => client,
            Err(error) => return warn!(error = chain(&error), to = %self.to, "metrics are not exported"),
        };
        info!(to = %self.to, every = ?self.to.every, "metrics are exported by OpenTelemetry");
        let mut due = interval_at(Instant::now() + FIRST.min(self.to.every), self.to.every);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let pushed = async {
                due.tick().await;
                self.push(&client).await
            };
            match cancel.run_until_cancelled(pushed).await {
                Some(outcome) => self.tell(outcome),
                None => break,
            }
        }
        if let Ok(outcome) = timeout(LAST_WITHIN, self.push(&client)).await {
            self.tell(outcome);
        }
    }

    /// All of it, also where the receiver refuses a part; the first failure is told.
    async fn push(&mut self, client: &reqwest::Client) -> Result<(), PushError> {
        let text = self.figures.text().await.map_err(|error| PushError::Figures(error.reason()))?;
        let span = Span { started: nanos(self.clock.shown(self.started)), now: nanos(self.clock.wall()) };
        let mut requests = Requests::new(&text, self.resource.clone(), span);
        let mut first = Ok(());
        for request in requests.by_ref() {
            match self.send(client, &request).await {
                Err(error) if error.is_of_all() => return first.and(Err(error)),
                outcome => first = first.and(outcome),
            }
        }
        if requests.unread > self.unread {
            warn!(
                lines = requests.unread,
                "some figures are not in the form that was expected, and were left out"
            );
        }
        self.unread = requests.unread;
        first
    }

    async fn send(
        &self,
        client: &reqwest::Client,
        request: &ExportMetricsServiceRequest,
    ) -> Result<(), PushError> {
        let request = client
            .post(self.to.url().clone())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(request.encode_to_vec());
        // The address may hold a password.
        let mut answer = request.send().await.map_err(|error| PushError::Sent(error.without_url()))?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| PushError::Sent(error.without_url()))? {
            let room = MOST_ANSWERED - body.len();
            body.extend_from_slice(&part[..part.len().min(room)]);
            if body.len() == MOST_ANSWERED {
                break;
            }
        }
        if !status.is_success() {
            return Err(PushError::Refused { status, text: words(&body) });
        }
        // What cannot be read says nothing: a success is one.
        let partly =
            ExportMetricsServiceResponse::decode(body.as_slice()).unwrap_or_default().partial_success;
        match partly {
            Some(it) if it.rejected_data_points > 0 => {
                let text = words(it.error_message.as_bytes());
                Err(PushError::Partly { points: it.rejected_data_points, text })
            }
            _ => Ok(()),
        }
    }

    fn tell(&mut self, outcome: Result<(), PushError>) {
        let word = if outcome.is_ok() { "done" } else { "failed" };
        self.metrics.counter(EXPORTS, vec![::metrics::Label::new("outcome", word)]).increment(1);
        let kind = outcome.as_ref().err().map(PushError::kind);
        if kind != self.failed {
            match &outcome {
                Err(error) => warn!(
                    error = chain(error), to = %self.to, "metrics could not be exported; trying again every {:?}", self.to.every
                ),
                Ok(()) => info!(to = %self.to, "metrics are exported again"),
            }
        }
        self.failed = kind;
    }
}

/// The beginning of an answer that is meant for people.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    plain.trim().to_owned()
}

fn nanos(time: Time) -> u64 {
    time.0.saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests;
