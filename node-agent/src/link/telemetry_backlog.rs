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
    waiting: Mutex<BTreeMap<(AppName, Slot), Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    /// Since the first reading that was not sent: a newer one takes its place in the line.
    since: Time,
    read: Time,
    sample: pb::TelemetrySample,
}

impl TelemetryBacklog {
    pub fn put(&self, of: (AppName, Slot), sample: pb::TelemetrySample, read: Time) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let since = waiting.get(&of).map_or(read, |it| it.since);
        waiting.insert(of, Waiting { since, read, sample });
    }

    /// Those that wait longest first, with their ages, as many as fit.
    pub(super) fn take(&self, now: Time) -> Vec<pb::TelemetrySample> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(of) = waiting.iter().min_by_key(|(_, it)| it.since).map(|(of, _)| of.clone()) {
            let length = waiting.get(&of).map_or(0, |it| it.sample.encoded_len());
            if !taken.is_empty() && bytes + length > AT_ONCE {
                break;
            }
            bytes += length;
            let aged = |Waiting { read, sample, .. }: Waiting| {
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
        assert_eq!(backlog.take(Time(400)), [aged(1, 2, 100), aged(2, 1, 200)]);
        assert_eq!(backlog.take(Time(400)), []);
    }

    /// Each is read again before its turn has come; none is passed over for ever.
    #[test]
    fn whoever_is_read_often_keeps_its_place_in_the_line() {
        let backlog = TelemetryBacklog::default();
        let mut sent = BTreeMap::<u32, u32>::new();
        for second in 1..=100_u64 {
            for slot in 1..=10 {
                let unknown = vec!["x".repeat(400 << 10)];
                backlog.put(of(slot), pb::TelemetrySample { unknown, ..sample(slot, second) }, Time(second));
            }
            for taken in backlog.take(Time(second)) {
                *sent.entry(taken.slot).or_default() += 1;
            }
        }
        assert_eq!(sent.values().copied().collect::<Vec<_>>(), [10; 10]);
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
