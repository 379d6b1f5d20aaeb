//! The one place that asks what time it is.
//!
//! [`Time`] is milliseconds since 1970, so that it can be stored; within one process it advances by the monotonic clock, so
//! a wall clock that jumps moves no deadline.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    #[must_use]
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// How long `earlier` is ago; zero where it lies ahead.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// For people.
impl From<Time> for Timestamp {
    fn from(time: Time) -> Self {
        Self(time.0)
    }
}

/// Wall time at the start, carried on by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_at: Duration,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn start() -> Self {
        let started_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_at }
    }

    /// One that shows a later time, for tests.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn ahead(self, millis: u64) -> Self {
        Self { started_at: self.started_at + Duration::from_millis(millis), ..self }
    }

    pub fn now(&self) -> Time {
        let millis = (self.started_at + self.started.elapsed()).as_millis();
        Time(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}
