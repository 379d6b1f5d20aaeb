//! What replicas have counted of their events and was not sent yet: the newest of each, because it holds all before it. While the
//! control plane is away nothing grows.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prost::Message as _;
use proto::ids::{AppName, Slot};
use proto::pb;

use crate::clock::Time;

/// In one heartbeat, in bytes: an eighth of what a message may have. A full reading is some 60 KB.
const AT_ONCE: usize = 512 << 10;

#[derive(Debug, Default)]
pub struct TelemetryBacklog {
    /// Each with when it was read.
    waiting: Mutex<BTreeMap<(AppName, Slot), (Time, pb::TelemetrySample)>>,
}

impl TelemetryBacklog {
    pub fn put(&self, of: (AppName, Slot), sample: pb::TelemetrySample, read: Time) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(of, (read, sample));
    }

    /// The oldest first, with their ages, as many as fit.
    pub(super) fn take(&self, now: Time) -> Vec<pb::TelemetrySample> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(of) = waiting.iter().min_by_key(|(_, (read, _))| *read).map(|(of, _)| of.clone()) {
            let length = waiting.get(&of).map_or(0, |(_, sample)| sample.encoded_len());
            if !taken.is_empty() && bytes + length > AT_ONCE {
                break;
            }
            bytes += length;
            let aged = |(read, sample): (Time, pb::TelemetrySample)| {
                let age_ms = u32::try_from(now.since(read)).unwrap_or(u32::MAX);
                pb::TelemetrySample { age_ms, ..sample }
            };
            taken.extend(waiting.remove(&of).map(aged));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(slot: u32) -> (AppName, Slot) {
        ("shop".parse().unwrap(), Slot::new(slot).unwrap())
    }

    fn sample(slot: u32, failures: u64) -> pb::TelemetrySample {
        pb::TelemetrySample { slot, failures, ..Default::default() }
    }

    #[test]
    fn the_newest_of_each_goes_once_with_its_age() {
        let backlog = TelemetryBacklog::default();
        backlog.put(of(1), sample(1, 1), Time(100));
        backlog.put(of(2), sample(2, 1), Time(200));
        backlog.put(of(1), sample(1, 2), Time(300));
        let aged = |slot, failures, age_ms| pb::TelemetrySample { age_ms, ..sample(slot, failures) };
        assert_eq!(backlog.take(Time(400)), [aged(2, 1, 200), aged(1, 2, 100)]);
        assert_eq!(backlog.take(Time(400)), []);
    }

    #[test]
    fn no_heartbeat_is_large_and_all_come_in_their_turn() {
        let backlog = TelemetryBacklog::default();
        let unknown = vec!["x".repeat(100 << 10)];
        for slot in 1..=12 {
            let sample = pb::TelemetrySample { unknown: unknown.clone(), ..sample(slot, 0) };
            backlog.put(of(slot), sample, Time(u64::from(slot)));
        }
        let slots = |taken: Vec<pb::TelemetrySample>| taken.iter().map(|it| it.slot).collect::<Vec<_>>();
        assert_eq!(slots(backlog.take(Time(20))), [1, 2, 3, 4, 5]);
        assert_eq!(slots(backlog.take(Time(20))), [6, 7, 8, 9, 10]);
        // One that is too large by itself is sent all the same.
        backlog.put(
            of(11),
            pb::TelemetrySample { unknown: vec!["x".repeat(1 << 20)], ..sample(11, 0) },
            Time(1),
        );
        assert_eq!(slots(backlog.take(Time(20))), [11]);
        assert_eq!(slots(backlog.take(Time(20))), [12]);
    }
}
