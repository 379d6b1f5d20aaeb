//! Prometheus' text as requests of OTLP, a part at a time. Pure.
//!
//! Counters and histograms are cumulative from the start of this program; gauges are as they are now. Names and labels stay what
//! they are on `/metrics`, so that one question asked of either finds the same.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::exposition::{self, Line, Sample};

/// In one request: about 1 MB, and a receiver takes 4 MiB where nobody has told it otherwise.
const MOST_POINTS: usize = 5_000;

/// How the names begin of what replicas and agents count.
const COUNTED_ELSEWHERE: [&str; 2] = ["deployex_telemetry_", "deployex_node_"];

/// Between which moments it was counted, in nanoseconds since 1970.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub started: u64,
    pub now: u64,
}

/// The requests that hold everything of a text.
pub(super) struct Requests<'a> {
    lines: std::str::Lines<'a>,
    resource: Resource,
    span: Span,
    help: (String, String),
    /// The family that is being read.
    kind: Kind,
    name: String,
    /// Lines that could not be read.
    pub unread: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl<'a> Requests<'a> {
    pub(super) fn new(text: &'a str, resource: Resource, span: Span) -> Self {
        Self {
            lines: text.lines(),
            resource,
            span,
            help: Default::default(),
            kind: Kind::Gauge,
            name: String::new(),
            unread: 0,
        }
    }

    fn metric(&self) -> Metric {
        let temporality = AggregationTemporality::Cumulative.into();
        let data = match self.kind {
            Kind::Gauge => Data::Gauge(Gauge::default()),
            Kind::Counter => Data::Sum(Sum {
                data_points: vec![],
                aggregation_temporality: temporality,
                is_monotonic: true,
            }),
            Kind::Histogram => {
                Data::Histogram(Histogram { data_points: vec![], aggregation_temporality: temporality })
            }
        };
        let (of, text) = &self.help;
        let description = if *of == self.name { text.clone() } else { String::new() };
        Metric { name: self.name.clone(), description, data: Some(data), ..Metric::default() }
    }

    /// How many points it made.
    fn add(&self, metrics: &mut Vec<Metric>, sample: Sample<'_>) -> usize {
        if metrics.last().is_none_or(|it| it.name != self.name) {
            metrics.push(self.metric());
        }
        let Some(data) = metrics.last_mut().and_then(|it| it.data.as_mut()) else { return 0 };
        match data {
            Data::Gauge(it) => it.data_points.push(self.number(0, sample)),
            Data::Sum(it) => it.data_points.push(self.number(self.started(), sample)),
            Data::Histogram(it) => return self.part(&mut it.data_points, sample),
            Data::ExponentialHistogram(_) | Data::Summary(_) => {}
        }
        1
    }

    /// Since when it was counted. 0, which is nobody knows, of what others count: they begin anew on their own.
    fn started(&self) -> u64 {
        if COUNTED_ELSEWHERE.iter().any(|it| self.name.starts_with(it)) { 0 } else { self.span.started }
    }

    fn number(&self, started: u64, sample: Sample<'_>) -> NumberDataPoint {
        NumberDataPoint {
            attributes: attributes(sample.labels),
            start_time_unix_nano: started,
            time_unix_nano: self.span.now,
            value: Some(number_data_point::Value::AsDouble(sample.value)),
            ..NumberDataPoint::default()
        }
    }

    /// A bucket, the sum or the count of a histogram: those of one come one after the other.
    fn part(&self, points: &mut Vec<HistogramDataPoint>, sample: Sample<'_>) -> usize {
        let bound = sample.labels.iter().find(|(key, _)| *key == "le").map(|(_, bound)| bound.clone());
        let labels = sample.labels.into_iter().filter(|(key, _)| *key != "le").collect();
        let attributes = attributes(labels);
        let is_new = points.last().is_none_or(|it| it.attributes != attributes);
        if is_new {
            points.push(HistogramDataPoint {
                attributes,
                start_time_unix_nano: self.started(),
                time_unix_nano: self.span.now,
                ..HistogramDataPoint::default()
            });
        }
        let Some(point) = points.last_mut() else { return 0 };
        match sample.name.strip_prefix(&self.name) {
            Some("_sum") => point.sum = Some(sample.value),
            Some("_count") => point.count = whole(sample.value),
            _ => {
                // There the buckets hold what is below their bound, here what is between two.
                let below: u64 = point.bucket_counts.iter().sum();
                point.bucket_counts.push(whole(sample.value).saturating_sub(below));
                if let Some(bound) = bound.and_then(|it| it.parse::<f64>().ok()).filter(|it| it.is_finite()) {
                    point.explicit_bounds.push(bound);
                }
            }
        }
        usize::from(is_new)
    }

    /// Whether the sample belongs to what was announced, and not to something that is announced nowhere.
    fn is_of_family(&self, name: &str) -> bool {
        match self.kind {
            Kind::Histogram => {
                name.strip_prefix(&self.name).is_some_and(|it| matches!(it, "_bucket" | "_sum" | "_count"))
            }
            Kind::Counter | Kind::Gauge => name == self.name,
        }
    }
}

impl Iterator for Requests<'_> {
    type Item = ExportMetricsServiceRequest;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut metrics, mut points) = (Vec::new(), 0);
        while let Some(line) = self.lines.next() {
            match exposition::read(line) {
                Ok(None) => {}
                Ok(Some(Line::Help { name, text })) => self.help = (name.to_owned(), text),
                Ok(Some(Line::Type { name, kind })) => {
                    self.name = name.to_owned();
                    self.kind = match kind {
                        "counter" => Kind::Counter,
                        "histogram" => Kind::Histogram,
                        _ => Kind::Gauge,
                    };
                }
                Ok(Some(Line::Sample(sample))) if self.is_of_family(sample.name) => {
                    // The last line of a histogram; whatever follows begins a point, or something that is one.
                    let is_whole = self.kind != Kind::Histogram || sample.name.ends_with("_count");
                    points += self.add(&mut metrics, sample);
                    if points >= MOST_POINTS && is_whole {
                        break;
                    }
                }
                Ok(Some(Line::Sample(_))) | Err(_) => self.unread += 1,
            }
        }
        (!metrics.is_empty()).then(|| ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(InstrumentationScope {
                        name: "deployex".to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    metrics,
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        })
    }
}

pub(super) fn attribute(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn attributes(labels: Vec<(&str, String)>) -> Vec<KeyValue> {
    labels.into_iter().map(|(key, value)| attribute(key, value)).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it saturates, and counts are whole"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use metrics::Label;

    use super::*;
    use crate::telemetry::Metrics;

    const SPAN: Span = Span { started: 1, now: 9 };

    fn metrics_of(text: &str) -> Vec<Metric> {
        let mut requests = Requests::new(text, Resource::default(), SPAN);
        let metrics = requests.by_ref().flat_map(|it| it.resource_metrics).flat_map(|it| it.scope_metrics);
        let metrics = metrics.flat_map(|it| it.metrics).collect();
        assert_eq!(requests.unread, 0, "{text}");
        metrics
    }

    #[test]
    fn each_kind_stays_what_it_is() {
        let metrics = Metrics::default();
        metrics.describe_counter("things_total", "Things.");
        metrics.counter("things_total", vec![Label::new("kind", "good")]).increment(2);
        metrics.gauge("level", Vec::new()).set(-1.5);
        let work = metrics.seconds("work_seconds", vec![Label::new("of", "day")]);
        for took in [0.002, 0.2, 0.2, 60.0] {
            work.record(took);
        }
        let mut found = metrics_of(&metrics.render());
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let [level, things, work] = found.as_slice() else { panic!("{found:?}") };

        let Some(Data::Gauge(gauge)) = &level.data else { panic!("{level:?}") };
        assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(-1.5)));
        assert_eq!((gauge.data_points[0].start_time_unix_nano, gauge.data_points[0].time_unix_nano), (0, 9));

        assert_eq!(things.description, "Things.");
        let Some(Data::Sum(sum)) = &things.data else { panic!("{things:?}") };
        assert!(sum.is_monotonic);
        assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
        assert_eq!(sum.data_points[0].attributes, [attribute("kind", "good".to_owned())]);
        assert_eq!(sum.data_points[0].start_time_unix_nano, 1);

        let Some(Data::Histogram(histogram)) = &work.data else { panic!("{work:?}") };
        let [point] = histogram.data_points.as_slice() else { panic!("{histogram:?}") };
        assert_eq!(point.attributes, [attribute("of", "day".to_owned())]);
        assert_eq!((point.count, point.sum), (4, Some(60.402)));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), 4);
        let at = |bound: f64| point.explicit_bounds.iter().position(|it| (it - bound).abs() < 1e-9).unwrap();
        assert_eq!((point.bucket_counts[at(0.005)], point.bucket_counts[at(0.25)]), (1, 2));
        assert_eq!(point.bucket_counts.last(), Some(&1));
    }

    #[test]
    fn what_others_count_does_not_begin_with_this_program() {
        for (name, started) in [("deployex_telemetry_events_total", 0), ("deployex_otlp_exports_total", 1)] {
            let found = metrics_of(&format!("# TYPE {name} counter\n{name} 5\n"));
            let [Metric { data: Some(Data::Sum(sum)), .. }] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!(sum.data_points[0].start_time_unix_nano, started, "{name}");
        }
    }

    #[test]
    fn two_histograms_of_a_family_are_two_points() {
        let metrics = Metrics::default();
        for of in ["day", "night"] {
            metrics.seconds("work_seconds", vec![Label::new("of", of)]).record(0.2);
        }
        let found = metrics_of(&metrics.render());
        let [Metric { data: Some(Data::Histogram(it)), .. }] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(it.data_points.iter().map(|it| it.count).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn a_large_text_is_sent_in_parts_and_nothing_is_lost() {
        let metrics = Metrics::default();
        for number in 0..12_000_u32 {
            metrics.gauge("g", vec![Label::new("n", number.to_string())]).set(1.0);
        }
        let text = metrics.render();
        let requests: Vec<_> = Requests::new(&text, Resource::default(), SPAN).collect();
        let points =
            |it: &ExportMetricsServiceRequest| match &it.resource_metrics[0].scope_metrics[0].metrics[..] {
                [Metric { name, data: Some(Data::Gauge(it)), .. }] if name == "g" => it.data_points.len(),
                other => panic!("{other:?}"),
            };
        assert_eq!(requests.iter().map(points).collect::<Vec<_>>(), [5_000, 5_000, 2_000]);
        for request in &requests {
            assert!(prost::Message::encoded_len(request) < 2 << 20);
        }
    }

    #[test]
    fn what_cannot_be_read_is_counted() {
        let mut requests =
            Requests::new("what is this\n# TYPE a gauge\na 1\nb 2\n", Resource::default(), SPAN);
        assert_eq!(requests.by_ref().count(), 1);
        assert_eq!(requests.unread, 2);
    }
}
