//! The one place that asks what time it is, for the agent and for its keepers.
//!
//! [`Time`] counts from the boot of the host, also through suspend, so that an agent that was restarted goes on where its
//! predecessor was, and a wall clock that jumps moves no deadline. Wall time is for people and certificates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Milliseconds since the host booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    #[must_use]
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// How long `earlier` is ago, in milliseconds; zero where it lies ahead.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// How long it is until then, from `now`; zero where it has passed.
    pub fn wait_from(self, now: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(now.0))
    }
}

pub fn now() -> Time {
    Time(millis(ClockId::Boottime))
}

/// Milliseconds of the clock that `poll` waits by, for a keeper's deadlines. It stands still while the host sleeps.
pub(crate) fn monotonic_ms() -> u64 {
    millis(ClockId::Monotonic)
}

fn millis(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let millis = u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(millis)
}

/// When a process began, milliseconds since 1970 by the clock that files have their times from, as it is now. `start_ticks`: as
/// `/proc/PID/stat` counts them, since the boot.
pub(crate) fn unix_ms_of_ticks(start_ticks: u64) -> u64 {
    let began = start_ticks.saturating_mul(1_000) / rustix::param::clock_ticks_per_second().max(1);
    wall_ms().saturating_sub(now().0.saturating_sub(began))
}

/// Milliseconds since 1970 by the wall clock, for people.
pub fn unix_ms() -> u64 {
    wall_ms().saturating_add_signed(put_forward_ms())
}

#[expect(clippy::disallowed_methods, reason = "this is the place")]
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(not(all(feature = "crash-points", debug_assertions)))]
const fn put_forward_ms() -> i64 {
    0
}

/// For a test, which cannot set the clock of the host it runs on: by how much this program's wall clock is, as the file says
/// now that `DEPLOYEX_CLOCK_AHEAD` names. Nothing in a released binary, as with the crash points.
#[cfg(all(feature = "crash-points", debug_assertions))]
fn put_forward_ms() -> i64 {
    use std::sync::OnceLock;
    static FILE: OnceLock<Option<String>> = OnceLock::new();

    #[expect(clippy::disallowed_methods, reason = "how the test that sets the clock says where")]
    let file = FILE.get_or_init(|| std::env::var("DEPLOYEX_CLOCK_AHEAD").ok());
    let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|it| it.trim().parse().ok()).unwrap_or_default()
}
