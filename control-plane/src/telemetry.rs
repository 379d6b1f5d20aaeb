//! Logs and metrics of the control plane itself.
//!
//! Metrics are kept in a registry that is passed to whoever counts something; nothing is global, so two servers in one
//! process (as in tests) do not count each other's requests.

use std::io::IsTerminal as _;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// Sends logs to standard error from here on. `filter` as `info,control_plane::agents=debug`.
pub fn start_logging(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|source| LoggingError::Filter { filter: filter.to_owned(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(LoggingError::Started)
}

#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error(
        "{filter:?} is no filter for logs; one looks like \"info\" or \"info,control_plane::agents=debug\""
    )]
    Filter {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("cannot start logging")]
    Started(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Upper bounds of the buckets of everything measured in seconds.
const SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The registry behind `/metrics`. Clones share it.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

impl Default for Metrics {
    fn default() -> Self {
        let builder = PrometheusBuilder::new();
        // Only an empty list of buckets is refused.
        let builder = builder
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
            .unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        Self { recorder: Arc::new(recorder), handle }
    }
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

impl Metrics {
    /// Says what a metric means, for its `HELP` line.
    pub fn describe_counter(&self, name: &'static str, text: &'static str) {
        self.recorder.describe_counter(KeyName::from(name), None, text.into());
    }

    pub fn describe_gauge(&self, name: &'static str, text: &'static str) {
        self.recorder.describe_gauge(KeyName::from(name), None, text.into());
    }

    pub fn describe_seconds(&self, name: &'static str, text: &'static str) {
        self.recorder.describe_histogram(KeyName::from(name), Some(Unit::Seconds), text.into());
    }

    pub fn counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        self.recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
    }

    pub fn gauge(&self, name: &'static str, labels: Vec<Label>) -> Gauge {
        self.recorder.register_gauge(&Key::from_parts(name, labels), &METADATA)
    }

    pub fn seconds(&self, name: &'static str, labels: Vec<Label>) -> Histogram {
        self.recorder.register_histogram(&Key::from_parts(name, labels), &METADATA)
    }

    /// In Prometheus' text form.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_rendered() {
        let (metrics, other) = (Metrics::default(), Metrics::default());
        metrics.describe_counter("things_total", "Things.");
        metrics.counter("things_total", vec![Label::new("kind", "good")]).increment(2);
        metrics.seconds("work_seconds", Vec::new()).record(0.2);
        let text = metrics.render();
        assert!(text.contains("# HELP things_total Things."), "{text}");
        assert!(text.contains("things_total{kind=\"good\"} 2"), "{text}");
        assert!(text.contains("work_seconds_bucket{le=\"0.25\"} 1"), "{text}");
        assert!(!other.render().contains("things_total"));
    }
}
