//! Figures for Prometheus of the events that replicas have counted, as they were read last.
//!
//! Written here and not kept in a registry: what was counted elsewhere, in buckets too, is told as it is.

use std::fmt::Write as _;

use proto::pb;
use proto::replicas::Replica;
use proto::telemetry::BOUNDS_US;

use super::super::{Api, replicas};
use crate::fleet::Place;
use crate::picture::Picture;

const EVENTS: (&str, &str, &str) = (
    "deployex_telemetry_events_total",
    "counter",
    "Events of telemetry that a replica has counted, by event and label.",
);
const DURATION: (&str, &str, &str) =
    ("deployex_telemetry_duration_seconds", "histogram", "How long these took, where they say so.");
const VALUE: (&str, &str, &str) =
    ("deployex_telemetry_value", "gauge", "What an event measured last that does not say how long it took.");
const FAILURES: (&str, &str, &str) =
    ("deployex_telemetry_failures_total", "counter", "Events that a replica could make nothing of.");

/// Told at once: a timed row is 3 KB of text, and whoever asks for all of a large fleet would have gigabytes.
const MOST_ROWS: usize = 20_000;
const LEFT_OUT: (&str, &str, &str) = (
    "deployex_telemetry_rows_left_out",
    "gauge",
    "Rows that are not told here, because there are too many; the API has them replica by replica.",
);

/// The lines of each, in this order.
#[derive(Default)]
struct Lines {
    events: String,
    durations: String,
    values: String,
    failures: String,
    rows: usize,
    left_out: usize,
}

pub(super) fn of(api: &Api, picture: &Picture) -> String {
    let mut lines = Lines::default();
    for app in picture.apps.values() {
        // Of one that is off nothing is told any more, also while it is still remembered.
        if app.fleet.spec.as_ref().is_none_or(|it| it.telemetry.is_empty()) {
            continue;
        }
        let places: Vec<Place> = picture.places(&app.fleet).into_iter().map(|it| it.1).collect();
        for (replica, place) in replicas::of(picture, &app.fleet).zip(places) {
            if let Some(counted) = api.backend.counted(&replica.application, place) {
                lines.add(&replica, &counted.sample);
            }
        }
    }
    lines.text()
}

impl Lines {
    fn add(&mut self, replica: &Replica, sample: &pb::TelemetrySample) {
        let base = [
            ("application", replica.application.to_string()),
            ("node", replica.node.to_string()),
            ("slot", replica.slot.to_string()),
        ];
        let base: Vec<(&str, &str)> = base.iter().map(|(key, value)| (*key, value.as_str())).collect();
        if sample.fault.is_empty() {
            line(&mut self.failures, FAILURES.0, &base, &[], sample.failures);
        }
        for row in &sample.rows {
            if self.rows >= MOST_ROWS {
                self.left_out += 1;
                continue;
            }
            self.rows += 1;
            let status = format!("{}xx", row.status);
            let labels = [
                ("event", row.event.as_str()),
                ("route", row.route.as_str()),
                ("source", row.source.as_str()),
                ("status", if row.status > 0 { status.as_str() } else { "" }),
            ];
            let labels: Vec<_> = base.iter().copied().chain(labels).filter(|it| !it.1.is_empty()).collect();
            line(&mut self.events, EVENTS.0, &labels, &[], row.count);
            if !row.buckets.is_empty() {
                histogram(&mut self.durations, &labels, row);
            }
        }
        for value in &sample.values {
            let more = [("event", value.event.as_str()), ("measurement", value.measurement.as_str())];
            line(&mut self.values, VALUE.0, &base, &more, value.value);
        }
    }

    /// What there is nothing of is not even described.
    fn text(self) -> String {
        let Self { events, durations, values, failures, left_out, .. } = self;
        let left_out = if left_out > 0 { format!("{} {left_out}\n", LEFT_OUT.0) } else { String::new() };
        let described = [
            (EVENTS, events),
            (DURATION, durations),
            (VALUE, values),
            (FAILURES, failures),
            (LEFT_OUT, left_out),
        ];
        let mut text = String::new();
        for ((name, kind, means), lines) in described.into_iter().filter(|it| !it.1.is_empty()) {
            let _ = write!(text, "# HELP {name} {means}\n# TYPE {name} {kind}\n{lines}\n");
        }
        text
    }
}

/// Each bucket holds those before it as well.
fn histogram(text: &mut String, labels: &[(&str, &str)], row: &pb::TelemetryRow) {
    let name = DURATION.0;
    let mut below = 0_u64;
    let bounds = BOUNDS_US.iter().map(|it| seconds(*it)).chain(["+Inf".to_owned()]);
    for (count, bound) in row.buckets.iter().zip(bounds) {
        below = below.saturating_add(*count);
        line(text, &format!("{name}_bucket"), labels, &[("le", &bound)], below);
    }
    line(text, &format!("{name}_sum"), labels, &[], seconds(row.sum_us));
    line(text, &format!("{name}_count"), labels, &[], below);
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn seconds(us: u64) -> String {
    (us as f64 / 1_000_000.0).to_string()
}

fn line(
    text: &mut String,
    name: &str,
    labels: &[(&str, &str)],
    more: &[(&str, &str)],
    value: impl std::fmt::Display,
) {
    let label = |(key, value): &(&str, &str)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{key}=\"{value}\"")
    };
    let labels: Vec<String> = labels.iter().chain(more).map(label).collect();
    let _ = writeln!(text, "{name}{{{}}} {value}", labels.join(","));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_told_as_prometheus_wants_it() {
        let mut buckets = vec![0; BOUNDS_US.len() + 1];
        (buckets[0], buckets[2], buckets[12]) = (3, 4, 1);
        let row = pb::TelemetryRow { sum_us: 12_500_000, buckets, ..Default::default() };
        let mut text = String::new();
        histogram(&mut text, &[("route", "/a\"b\\c\nd")], &row);
        let lines: Vec<&str> = text.lines().collect();
        let of = r#"route="/a\"b\\c\nd""#;
        assert_eq!(lines[0], format!("deployex_telemetry_duration_seconds_bucket{{{of},le=\"0.001\"}} 3"));
        assert_eq!(lines[2], format!("deployex_telemetry_duration_seconds_bucket{{{of},le=\"0.01\"}} 7"));
        assert_eq!(lines[12], format!("deployex_telemetry_duration_seconds_bucket{{{of},le=\"+Inf\"}} 8"));
        assert_eq!(lines[13], format!("deployex_telemetry_duration_seconds_sum{{{of}}} 12.5"));
        assert_eq!(lines[14..], [format!("deployex_telemetry_duration_seconds_count{{{of}}} 8")]);
    }

    #[test]
    fn where_nothing_is_counted_nothing_is_said() {
        assert_eq!(Lines::default().text(), "");
    }
}
