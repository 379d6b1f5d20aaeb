//! The moments at which the VMs of a host are looked at: the same for all of them and for whatever looks, because waking up
//! costs an idle agent more than a look.

use std::time::Duration;

use tokio::time::sleep;

use crate::clock::{self, Time};

/// At once, and from then on at each moment that all share.
pub(super) struct Turns {
    every: Duration,
    /// When the last one was.
    last: Option<Time>,
}

impl Turns {
    pub(super) fn every(every: Duration) -> Self {
        Self { every, last: None }
    }

    /// Those that passed in the meantime are left out.
    pub(super) async fn next(&mut self) {
        if let Some(last) = self.last {
            sleep(pause(self.every, last, clock::now())).await;
        }
        self.last = Some(clock::now());
    }
}

/// Until the next moment that is at least half the time after the last one: figures of less are no rates.
fn pause(every: Duration, last: Time, now: Time) -> Duration {
    let every = u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1);
    let rest = every - now.0 % every;
    let is_soon = now.since(last).saturating_add(rest) < every.div_ceil(2);
    Duration::from_millis(if is_soon { rest + every } else { rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_begins_when_ends_at_the_same_moments() {
        let every = Duration::from_secs(2);
        for now in (10_000..20_000).chain([0, u64::MAX]) {
            let pause = u64::try_from(pause(every, Time(now), Time(now)).as_millis()).unwrap();
            assert!((1_000..3_000).contains(&pause), "at {now}: {pause}");
            assert_eq!((u128::from(now) + u128::from(pause)) % 2_000, 0, "at {now}: {pause}");
        }
    }

    #[test]
    fn a_look_that_takes_long_leaves_out_no_moment_that_it_did_not_miss() {
        let every = Duration::from_secs(2);
        let after =
            |took: u64| u64::try_from(pause(every, Time(4_000), Time(4_000 + took)).as_millis()).unwrap();
        assert_eq!([0, 1, 1_500, 1_999, 2_000, 2_001].map(after), [2_000, 1_999, 500, 1, 2_000, 1_999]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_is_at_once() {
        let begun = tokio::time::Instant::now();
        let mut turns = Turns::every(Duration::from_secs(2));
        turns.next().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        turns.next().await;
        assert!(begun.elapsed() >= Duration::from_secs(1));
    }
}
