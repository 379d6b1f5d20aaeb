//! Whether a node is held: from when it was last heard, and now. Pure; nobody is asked and nothing is remembered here.

use std::time::Duration;

use proto::state::Liveness;

use crate::clock::Time;

/// How often an agent is to be heard. Small enough that a lost node is noticed within five seconds, large enough that five
/// thousand agents cost little.
pub const HEARTBEAT: Duration = Duration::from_millis(1_500);

/// One heartbeat missed, with some room for a busy host.
const SUSPECT_AFTER: u64 = 2_500;

/// Two heartbeats missed, and the third is late.
const LOST_AFTER: u64 = 4_250;

/// After its start the control plane gives every agent this long to come back, whatever it was before: agents wait up to ten
/// seconds before they dial again.
const RETURN_WITHIN: u64 = 15_000;

/// `heard`: when the node last said something to this process; `None`: it has not. `started`: when this process did.
pub fn liveness(heard: Option<Time>, started: Time, now: Time) -> Liveness {
    let Some(heard) = heard else {
        return if now.since(started) < RETURN_WITHIN { Liveness::Suspect } else { Liveness::Lost };
    };
    match now.since(heard) {
        silent if silent < SUSPECT_AFTER => Liveness::Up,
        silent if silent < LOST_AFTER => Liveness::Suspect,
        _ => Liveness::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time(1_000_000);

    #[test]
    fn a_silent_node_is_suspect_and_then_lost_within_five_seconds() {
        let at = |silent| liveness(Some(START), START, START.plus(silent));
        assert_eq!(at(0), Liveness::Up);
        assert_eq!(at(2_499), Liveness::Up);
        assert_eq!(at(2_500), Liveness::Suspect);
        assert_eq!(at(4_249), Liveness::Suspect);
        assert_eq!(at(4_250), Liveness::Lost);
    }

    #[test]
    fn one_lost_heartbeat_makes_no_node_lost() {
        let twice = u64::try_from(HEARTBEAT.as_millis()).unwrap() * 2;
        assert_ne!(liveness(Some(START), START, START.plus(twice)), Liveness::Lost);
    }

    #[test]
    fn after_a_start_nobody_is_lost_before_they_could_come_back() {
        assert_eq!(liveness(None, START, START), Liveness::Suspect);
        assert_eq!(liveness(None, START, START.plus(14_999)), Liveness::Suspect);
        assert_eq!(liveness(None, START, START.plus(15_000)), Liveness::Lost);
    }

    #[test]
    fn a_report_from_the_future_is_a_report_of_now() {
        assert_eq!(liveness(Some(START.plus(60_000)), START, START), Liveness::Up);
    }
}
