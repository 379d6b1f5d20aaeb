//! Events of `telemetry` that a replica's VM counts where its application asks for it.

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, NodeName, Slot};
use crate::timestamp::Timestamp;

/// Upper bounds of the buckets in which durations are counted, in microseconds; the last bucket has none.
pub const BOUNDS_US: [u64; 12] = [
    1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// `GET /replicas/{node}/{app}/{slot}/telemetry`: what was read last. All counts grow from when they began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplicaTelemetry {
    pub node: NodeName,
    pub application: AppName,
    pub slot: Slot,
    /// What `telemetry.events` of the application asks for; empty: it is off.
    pub events: Vec<String>,
    /// When it was read; absent: not lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at: Option<Timestamp>,
    /// Since when it is counted; absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why nothing is counted; absent: it is, or was not read lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Of `events`, what no code of the replica names.
    pub unknown: Vec<String>,
    /// Events that the handler could make nothing of.
    pub failures: u64,
    /// By event and label.
    pub rows: Vec<TelemetryRow>,
    pub values: Vec<TelemetryValue>,
}

/// One event with its labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TelemetryRow {
    pub event: String,
    /// Of Phoenix: the route, or the live view; `other`: of all that found no room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Of Ecto: the table; `other` as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// "2xx".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    pub count: u64,
    /// Between the last two readings.
    pub per_second: f64,
    /// Absent: the event does not say how long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<Took>,
}

/// How long events took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Took {
    pub sum_us: u64,
    pub max_us: u64,
    /// How many took at most 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000 and 10000 ms and more than the bound before, and
    /// how many took longer.
    pub buckets: Vec<u64>,
}

/// What an event that does not say how long it took measured last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TelemetryValue {
    pub event: String,
    pub measurement: String,
    pub value: f64,
}

impl Took {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// In microseconds.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn mean_us(&self) -> f64 {
        self.sum_us as f64 / self.count().max(1) as f64
    }

    /// Below which so many percent were, in microseconds: within its bucket as if all of it were filled evenly, and never more
    /// than the longest.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn percentile_us(&self, percent: f64) -> f64 {
        let most = self.max_us as f64;
        let rank = self.count() as f64 * percent / 100.0;
        let (mut below, mut lower) = (0.0, 0.0);
        for (count, upper) in self.buckets.iter().zip(BOUNDS_US) {
            let (count, upper) = (*count as f64, upper as f64);
            if count > 0.0 && below + count >= rank {
                return (lower + (upper - lower) * (rank - below) / count).min(most);
            }
            (below, lower) = (below + count, upper);
        }
        most
    }

    pub fn absorb(&mut self, other: &Self) {
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            self.buckets
                .iter_mut()
                .zip(&other.buckets)
                .for_each(|(all, more)| *all = all.saturating_add(*more));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(max_us: u64, filled: &[(usize, u64)]) -> Took {
        let mut buckets = vec![0; BOUNDS_US.len() + 1];
        for (at, count) in filled {
            buckets[*at] = *count;
        }
        Took { sum_us: 0, max_us, buckets }
    }

    #[test]
    fn a_percentile_lies_within_its_bucket_and_below_the_longest() {
        let close = |took: &Took, percent: f64, us: f64| {
            let is = took.percentile_us(percent);
            assert!((is - us).abs() < 0.5, "{is} instead of {us}");
        };
        close(&took(900, &[(0, 100)]), 95.0, 900.0);
        close(&took(4_900, &[(0, 50), (1, 50)]), 95.0, 4_600.0);
        close(&took(4_900, &[(0, 50), (1, 50)]), 50.0, 1_000.0);
        close(&took(60_000_000, &[(0, 10), (12, 90)]), 95.0, 60_000_000.0);
        close(&took(0, &[]), 95.0, 0.0);
    }

    #[test]
    fn what_several_replicas_counted_is_added() {
        let mut all = Took::default();
        for max_us in [700, 900] {
            all.absorb(&Took { sum_us: 1_000, ..took(max_us, &[(0, 2)]) });
        }
        assert_eq!((all.sum_us, all.max_us, all.count()), (2_000, 900, 4));
        assert!((all.mean_us() - 500.0).abs() < f64::EPSILON);
    }
}
