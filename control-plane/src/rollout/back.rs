//! Where a person's rollback goes: nobody has to name the release that was good.

use std::fmt;

use proto::ids::ReleaseKey;
use proto::state::RolloutPhase;

use super::Rollout;
use crate::fleet::AppFleet;

/// Why there is no way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoWayBack {
    /// Nothing was ever in force.
    NothingRuns,
    /// It is on its way.
    GoesBack { to: Option<ReleaseKey> },
    /// A first deployment is under way.
    First { release: ReleaseKey },
    /// No other release that was good is known, or they are all ghosted.
    NoOther { in_force: ReleaseKey },
}

impl fmt::Display for NoWayBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingRuns => f.write_str("nothing of it was ever in force"),
            Self::GoesBack { to: Some(to) } => write!(f, "it goes back to {} already", to.version),
            Self::GoesBack { to: None } => f.write_str("its first deployment is being taken down already"),
            Self::First { release } => {
                write!(f, "{} is its first deployment: there is no release before it", release.version)
            }
            Self::NoOther { in_force } => write!(
                f,
                "no release but {} was ever good, or the others are ghosted; deploy one by name",
                in_force.version
            ),
        }
    }
}

/// The release that a rollback goes to: where the rollout under way came from; else what was in force before what is.
/// `good`: releases that outlived a watch, the newest first.
pub fn back_to(fleet: &AppFleet, good: &[ReleaseKey]) -> Result<ReleaseKey, NoWayBack> {
    if let Some(rollout) = &fleet.rollout {
        return match (rollout.phase, &rollout.from) {
            (RolloutPhase::Reverting, to) => Err(NoWayBack::GoesBack { to: to.clone() }),
            (_, Some(from)) => Ok(from.clone()),
            (_, None) => Err(NoWayBack::First { release: rollout.release.clone() }),
        };
    }
    let Some(in_force) = &fleet.in_force else { return Err(NoWayBack::NothingRuns) };
    let brought = [&fleet.last, &fleet.brought].into_iter().flatten();
    let kept = |it: &&Rollout| matches!(it.phase, RolloutPhase::Done | RolloutPhase::Superseded);
    let mut brought = brought.filter(|it| it.release == *in_force).filter(kept);
    let before = brought.next().and_then(|it| it.from.as_ref());
    before
        .into_iter()
        .chain(good)
        .find(|it| *it != in_force && !fleet.ghosted.contains(it))
        .cloned()
        .ok_or_else(|| NoWayBack::NoOther { in_force: in_force.clone() })
}

#[cfg(test)]
mod tests {
    use proto::state::Strategy;

    use super::super::fixture::{fleet, release, rollout};
    use super::*;

    #[test]
    fn what_moves_goes_back_to_where_it_came_from() {
        let mut it = fleet(Strategy::StartFirst, 1, 2);
        it.in_force = Some(release(1));
        for phase in [RolloutPhase::Pending, RolloutPhase::Running, RolloutPhase::Watching] {
            it.rollout = Some(rollout(2, Some(1), phase));
            assert_eq!(back_to(&it, &[release(3)]), Ok(release(1)), "{phase}");
        }
        it.rollout = Some(rollout(2, Some(1), RolloutPhase::Reverting));
        let goes = back_to(&it, &[]).unwrap_err();
        assert_eq!(goes.to_string(), "it goes back to 1.1.0 already");
        it.rollout = Some(rollout(2, None, RolloutPhase::Running));
        assert_eq!(back_to(&it, &[]), Err(NoWayBack::First { release: release(2) }));
    }

    #[test]
    fn what_rests_goes_back_to_what_was_good_before() {
        let mut it = fleet(Strategy::StartFirst, 1, 2);
        assert_eq!(back_to(&it, &[release(1)]), Err(NoWayBack::NothingRuns));
        it.in_force = Some(release(4));
        it.last = Some(rollout(4, Some(3), RolloutPhase::Done));
        assert_eq!(back_to(&it, &[release(4), release(2)]), Ok(release(3)));
        it.ghosted.insert(release(3));
        assert_eq!(back_to(&it, &[release(4), release(3), release(2)]), Ok(release(2)));
        // The last rollout was of another release, and taken back: what counts is the one that brought what is in force.
        it.last = Some(rollout(5, Some(4), RolloutPhase::Reverted));
        it.brought = Some(rollout(4, Some(2), RolloutPhase::Done));
        assert_eq!(back_to(&it, &[release(4), release(1)]), Ok(release(2)));
        it.brought = None;
        it.last = Some(rollout(5, Some(4), RolloutPhase::Reverted));
        assert_eq!(back_to(&it, &[release(4), release(1)]), Ok(release(1)));
        assert_eq!(back_to(&it, &[release(4)]), Err(NoWayBack::NoOther { in_force: release(4) }));
    }
}
