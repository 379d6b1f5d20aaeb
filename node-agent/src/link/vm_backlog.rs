//! Samples of replicas that wait for the next heartbeat: never more than a few minutes' worth. Where the control plane is away
//! for longer the oldest go first, and how many went is told.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use proto::pb;

use crate::clock::Time;

/// Five minutes of ten replicas, some 150 bytes each.
const MOST: usize = 1_500;
/// In one heartbeat: a fortieth of what a message may have.
const AT_ONCE: usize = 512;

#[derive(Debug, Default)]
pub struct VmBacklog {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Each with when it was taken, oldest first.
    waiting: VecDeque<(Time, pb::VmSample)>,
    dropped: u64,
}

impl VmBacklog {
    pub fn push(&self, sample: pb::VmSample, taken: Time) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.waiting.len() >= MOST {
            inner.waiting.pop_front();
            inner.dropped += 1;
        }
        inner.waiting.push_back((taken, sample));
    }

    /// The oldest, with their ages, and how many were dropped so far.
    pub(super) fn take(&self, now: Time) -> (Vec<pb::VmSample>, u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let count = inner.waiting.len().min(AT_ONCE);
        let aged = |(taken, sample): (Time, pb::VmSample)| {
            let age_ms = u32::try_from(now.since(taken)).unwrap_or(u32::MAX);
            pb::VmSample { age_ms, ..sample }
        };
        (inner.waiting.drain(..count).map(aged).collect(), inner.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(slot: u32) -> pb::VmSample {
        pb::VmSample { slot, ..Default::default() }
    }

    #[test]
    fn what_waits_goes_in_its_order_with_its_age_and_once() {
        let backlog = VmBacklog::default();
        backlog.push(sample(1), Time(100));
        backlog.push(sample(2), Time(300));
        let aged = |slot, age_ms| pb::VmSample { age_ms, ..sample(slot) };
        assert_eq!(backlog.take(Time(400)), (vec![aged(1, 300), aged(2, 100)], 0));
        assert_eq!(backlog.take(Time(400)), (Vec::new(), 0));
    }

    #[test]
    fn the_oldest_is_dropped_and_counted_and_no_heartbeat_is_large() {
        let backlog = VmBacklog::default();
        let more = u32::try_from(MOST).unwrap() + 10;
        for slot in 0..more {
            backlog.push(sample(slot), Time(0));
        }
        let (first, dropped) = backlog.take(Time(0));
        assert_eq!((first.len(), first[0].slot, dropped), (AT_ONCE, 10, 10));
        let rest: usize =
            std::iter::repeat_with(|| backlog.take(Time(0)).0.len()).take_while(|it| *it > 0).sum();
        assert_eq!(rest, MOST - AT_ONCE);
    }
}
