//! The one place that asks what time it is.
//!
//! [`Time`] is milliseconds since 1970, so that it can be stored. There are two of it, and what one gave is not compared with
//! what the other gave: [`Clock::now`] is carried on from the start by the monotonic clock, so that a wall clock that jumps
//! moves no deadline (leases, throttles, trials); [`Clock::wall`] is what others go by too (certificates, people).

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

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    /// What the wall clock showed then.
    started_at: Duration,
    /// For tests: by how much all of it shows a later time.
    ahead: Duration,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn start() -> Self {
        let started_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_at, ahead: Duration::ZERO }
    }

    /// One that shows a later time, for tests.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn ahead(self, millis: u64) -> Self {
        Self { ahead: self.ahead + Duration::from_millis(millis), ..self }
    }

    /// One that was started when the wall clock had not been set yet, for tests.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn started_in_1970(self) -> Self {
        Self { started_at: Duration::ZERO, ..self }
    }

    pub fn now(&self) -> Time {
        time(self.started_at + self.started.elapsed() + self.ahead)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn wall(&self) -> Time {
        time(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + self.ahead)
    }

    /// When that was, or will be, by the wall clock as it is set now. `at`: of [`Clock::now`].
    pub fn shown(&self, at: Time) -> Time {
        let (now, wall) = (self.now(), self.wall());
        Time(wall.0.saturating_sub(now.since(at))).plus(at.since(now))
    }
}

fn time(since_1970: Duration) -> Time {
    Time(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_after_the_start_is_followed_by_what_people_see() {
        let clock = Clock::start().started_in_1970();
        let (now, wall) = (clock.now(), clock.wall());
        assert!(now < Time(3_600_000) && wall > Time(1_700_000_000_000));
        let near = |a: Time, b: Time| a.since(b).max(b.since(a)) < 1_000;
        assert!(near(clock.shown(now), wall));
        assert!(near(clock.shown(now.plus(60_000)), wall.plus(60_000)));
        assert!(near(clock.ahead(9_000).shown(now), wall));
    }
}
