//! How long to wait before dialling again. Pure: chance comes in as a number.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);

/// Low enough that after any outage every agent has dialled again within ten seconds.
const MOST: Duration = Duration::from_secs(8);

/// Full jitter: anywhere between nothing and a bound that doubles, so that thousands of agents never come at once.
/// `failures`: in a row before this wait. `chance`: 0 to 1.
pub(super) fn wait(failures: u32, chance: f64) -> Duration {
    let bound = FIRST.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(MOST);
    bound.mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_retry_is_fast_and_none_waits_longer_than_the_bound() {
        assert_eq!(wait(0, 1.0), FIRST);
        assert_eq!(wait(1, 0.5), FIRST);
        assert_eq!(wait(3, 0.0), Duration::ZERO);
        for failures in [6, 100, u32::MAX] {
            assert_eq!(wait(failures, 1.0), MOST);
        }
    }
}
