//! What each replica has counted of its application's events, as it was read last, in memory. Pure.
//!
//! A row takes some 300 bytes, so all of them together never more than 120 MB ([`MOST_ROWS`]): a replica for which there is no
//! room is told of without any.

use std::collections::HashMap;
use std::sync::Arc;

use proto::ids::{AppName, NodeId};
use proto::pb;
use proto::telemetry::BOUNDS_US;

use crate::clock::Time;
use crate::fleet::Place;

/// Of one replica: more than an agent sends.
const ROWS: usize = 300;
const VALUES: usize = 700;
const UNKNOWN: usize = 64;
/// Of all replicas, values included.
const MOST_ROWS: usize = 400_000;
/// An event's name, or a label.
const MAX_TEXT: usize = 256;
const MAX_FAULT: usize = 1_024;
/// What was read before this is not how it is now: four readings.
const LATELY_MS: u64 = 45_000;
const SWEEP_MS: u64 = 60_000;

/// As it was read last, dated for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    pub read_at: Time,
    /// Where there is no fault.
    pub since: Time,
    pub sample: Arc<pb::TelemetrySample>,
}

#[derive(Default)]
pub(super) struct CountedEvents {
    replicas: HashMap<(AppName, Place), Held>,
    rows: usize,
    swept: Time,
}

struct Held {
    read: Time,
    sample: Arc<pb::TelemetrySample>,
}

impl Held {
    fn rows(&self) -> usize {
        self.sample.rows.len() + self.sample.values.len()
    }
}

impl CountedEvents {
    /// `now`: when the heartbeat that carried it was heard.
    pub(super) fn put(&mut self, (app, place): (&AppName, Place), sample: &pb::TelemetrySample, now: Time) {
        self.sweep(now);
        let read = Time(now.0.saturating_sub(sample.age_ms.into()));
        let key = (app.clone(), place);
        if let Some(before) = self.replicas.remove(&key) {
            self.rows -= before.rows();
        }
        let mut sample = within_bounds(sample);
        if self.rows + sample.rows.len() + sample.values.len() > MOST_ROWS {
            sample = pb::TelemetrySample {
                fault: "the control plane has no room for what this replica counts".to_owned(),
                rows: Vec::new(),
                values: Vec::new(),
                ..sample
            };
        }
        let held = Held { read, sample: Arc::new(sample) };
        self.rows += held.rows();
        self.replicas.insert(key, held);
    }

    /// Where that is not long ago.
    pub(super) fn of(
        &self,
        (app, place): (&AppName, Place),
        now: Time,
    ) -> Option<(Time, Arc<pb::TelemetrySample>)> {
        let held = self.replicas.get(&(app.clone(), place))?;
        (now.since(held.read) <= LATELY_MS).then(|| (held.read, Arc::clone(&held.sample)))
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.retain(|place, _| place.node != node);
    }

    fn sweep(&mut self, now: Time) {
        if now.since(self.swept) >= SWEEP_MS {
            self.swept = now;
            self.retain(|_, held| now.since(held.read) <= LATELY_MS);
        }
    }

    fn retain(&mut self, stays: impl Fn(&Place, &Held) -> bool) {
        self.replicas.retain(|(_, place), held| stays(place, held));
        self.rows = self.replicas.values().map(Held::rows).sum();
    }
}

fn within_bounds(sample: &pb::TelemetrySample) -> pb::TelemetrySample {
    let text = |it: &str| first(it, MAX_TEXT);
    let row = |it: &pb::TelemetryRow| pb::TelemetryRow {
        event: text(&it.event),
        route: text(&it.route),
        source: text(&it.source),
        per_second: finite(it.per_second),
        buckets: Some(&it.buckets).filter(|it| it.len() == BOUNDS_US.len() + 1).cloned().unwrap_or_default(),
        ..*it
    };
    let value = |it: &pb::TelemetryValue| pb::TelemetryValue {
        event: text(&it.event),
        measurement: text(&it.measurement),
        value: finite(it.value),
    };
    pb::TelemetrySample {
        app: String::new(),
        fault: first(&sample.fault, MAX_FAULT),
        unknown: sample.unknown.iter().take(UNKNOWN).map(|it| text(it)).collect(),
        rows: sample.rows.iter().take(ROWS).map(row).collect(),
        values: sample.values.iter().take(VALUES).map(value).collect(),
        ..*sample
    }
}

fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}

/// As many bytes, on one line.
fn first(text: &str, most: usize) -> String {
    let mut left = most;
    let fits = |it: &char| {
        left = left.saturating_sub(it.len_utf8());
        left > 0
    };
    text.chars().filter(|it| !it.is_control()).take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use proto::ids::Slot;

    use super::*;

    fn app() -> AppName {
        "shop".parse().unwrap()
    }

    fn place(node: u128) -> Place {
        Place { node: NodeId(uuid::Uuid::from_u128(node)), slot: Slot::new(1).unwrap() }
    }

    fn sample(rows: usize) -> pb::TelemetrySample {
        let row = pb::TelemetryRow { event: "shop.stop".to_owned(), count: 3, ..Default::default() };
        pb::TelemetrySample { rows: vec![row; rows], age_ms: 1_000, ..Default::default() }
    }

    #[test]
    fn the_newest_counts_for_as_long_as_it_is_how_it_is_now() {
        let mut all = CountedEvents::default();
        all.put((&app(), place(1)), &sample(2), Time(10_000));
        all.put((&app(), place(1)), &sample(1), Time(20_000));
        let (read, newest) = all.of((&app(), place(1)), Time(20_000)).unwrap();
        assert_eq!((read, newest.rows.len(), all.rows), (Time(19_000), 1, 1));
        assert!(all.of((&app(), place(1)), Time(19_001 + LATELY_MS)).is_none());
        assert!(all.of((&app(), place(2)), Time(20_000)).is_none());
        all.put((&app(), place(2)), &sample(1), Time(20_000 + 2 * SWEEP_MS));
        assert_eq!((all.replicas.len(), all.rows), (1, 1), "what is old takes no room");
        all.forget(place(2).node);
        assert_eq!((all.replicas.len(), all.rows), (0, 0));
    }

    #[test]
    fn an_agent_of_somebody_elses_fills_no_memory_and_says_nothing_that_is_no_number() {
        let long = "x".repeat(5_000);
        let odd = pb::TelemetryRow {
            route: long.clone(),
            per_second: f64::NAN,
            buckets: vec![1; 7],
            ..Default::default()
        };
        let value =
            pb::TelemetryValue { measurement: "a\nb".to_owned(), value: f64::INFINITY, ..Default::default() };
        let sent = pb::TelemetrySample {
            fault: long,
            rows: vec![odd; 9_000],
            values: vec![value; 9_000],
            ..Default::default()
        };
        let kept = within_bounds(&sent);
        assert_eq!((kept.rows.len(), kept.values.len()), (ROWS, VALUES));
        assert!(kept.fault.len() <= MAX_FAULT && kept.rows[0].route.len() <= MAX_TEXT);
        assert!(kept.rows[0].buckets.is_empty() && kept.rows[0].per_second == 0.0);
        assert_eq!((kept.values[0].measurement.as_str(), kept.values[0].value), ("ab", 0.0));
        let mut all = CountedEvents::default();
        for node in 0..2_000 {
            all.put((&app(), place(node)), &sent, Time(1_000));
        }
        assert!(all.rows <= MOST_ROWS, "{}", all.rows);
        let last = all.of((&app(), place(1_999)), Time(1_000)).unwrap().1;
        assert!(last.rows.is_empty() && last.fault.contains("no room"), "{}", last.fault);
    }
}
