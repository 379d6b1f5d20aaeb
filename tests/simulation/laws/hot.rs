//! Laws of what is brought to another release as it runs.

use control_plane::fleet::{AppFleet, Observed, ObservedUpgrade, Place};
use control_plane::rollout::Step;
use control_plane::spec::HotUpgradePolicy;
use node_agent::replica::Process;
use proto::state::{RolloutPhase, SlotState, UpgradeState};

use super::{Checked, HOT_IN_TURN, HOT_ONCE, HOT_WHERE_LED, Made, REQUIRED, WHAT_RUNS, broken, is_ready};
use crate::releases::leads;
use crate::world::World;

/// It could not be upgraded, and waits for another word.
pub(super) fn is_left_as_it_was(fleet: &AppFleet, place: Place) -> bool {
    let hot = fleet.assigned.get(&place).and_then(|it| it.hot.as_ref());
    let upgrade = fleet.observed.get(&place).and_then(|it| it.upgrade.as_ref());
    let failed = upgrade.filter(|it| it.state == UpgradeState::Failed);
    failed
        .zip(hot)
        .is_some_and(|(failed, hot)| failed.attempt == hot.attempt && (!failed.spoiled || hot.required))
}

fn policy(fleet: &AppFleet) -> HotUpgradePolicy {
    fleet.spec.as_ref().map(|spec| spec.deploy.hot_upgrade).unwrap_or_default()
}

fn serves(seen: &Observed) -> bool {
    matches!(seen.state, SlotState::Ready | SlotState::Stable)
}

impl Made<'_> {
    pub(super) fn may_upgrade(&self, step: &Step) -> Checked {
        let fleet = self.fleet;
        let Step::Assign { place, release, hot: Some(hot), .. } = step else { return Ok(()) };
        let seen = fleet.observed.get(place);
        let is_it = seen.is_some_and(|it| it.running.as_ref() == Some(&hot.from));
        // Where nothing else is allowed it is tried whatever is there, to fail with a reason.
        let allowed = hot.required || leads(&hot.from, release) && seen.is_some_and(serves);
        if policy(fleet) == HotUpgradePolicy::Never || !is_it || !allowed {
            return broken(HOT_WHERE_LED, format!("{step:?} at {seen:?}"));
        }
        let upgrade = seen.and_then(|it| it.upgrade.as_ref());
        // What had nothing to do with the upgrade may be over by the next try.
        let of = |attempt: &str| attempt.split('.').next().map(str::to_owned);
        let known = |it: &ObservedUpgrade| {
            let same = it.from == hot.from && it.to == *release && of(&it.attempt) == of(&hot.attempt);
            it.attempt == hot.attempt || (same && (it.of_package || it.spoiled))
        };
        let again = upgrade.is_some_and(|it| it.state == UpgradeState::Failed && known(it));
        let given_up = self.rollout.filter(|it| it.phase != RolloutPhase::Reverting);
        let given_up = given_up.is_some_and(|it| it.progress.hot_given_up.is_some());
        if again || given_up {
            return broken(HOT_ONCE, format!("{step:?} after {upgrade:?}"));
        }
        // What was told something of late serves nobody as far as is known.
        let knows_that_it_serves = |place: &Place| {
            let told = fleet.assigned.get(place).map_or(0, |it| it.generation);
            fleet.observed.get(place).is_some_and(|it| serves(it) && it.generation >= told)
        };
        let beside = |other: &Place| other.node == place.node && other != place;
        let now = self.plan.steps.iter().find(|it| {
            let hot = matches!(it, Step::Assign { hot: Some(_), .. });
            hot && beside(&it.place()) && knows_that_it_serves(&it.place())
        });
        let before = fleet.assigned.iter().find(|(it, told)| {
            let same = told.hot.is_some() && told.release.as_ref() == Some(release);
            let stepped = self.plan.steps.iter().any(|step| step.place() == **it);
            beside(it) && same && !stepped && !is_ready(fleet, **it) && !is_left_as_it_was(fleet, **it)
        });
        if knows_that_it_serves(place) && (now.is_some() || before.is_some()) {
            return broken(HOT_IN_TURN, format!("{step:?} beside {now:?} and {before:?}"));
        }
        Ok(())
    }

    pub(super) fn begins_as_required(&self) -> Checked {
        let before = self.fleet.rollout.as_ref();
        let began = self.rollout.filter(|it| before.is_none_or(|old| old.id != it.id));
        let Some((rollout, from)) = began.and_then(|it| Some((it, it.from.as_ref()?))) else {
            return Ok(());
        };
        if policy(self.fleet) == HotUpgradePolicy::Require && !leads(from, &rollout.release) {
            return broken(REQUIRED, format!("{} over {from}", rollout.release));
        }
        Ok(())
    }
}

impl World {
    /// Where no upgrade is under way, and what runs is not about to end because one failed.
    pub(crate) fn says_what_runs(&mut self, host: usize, slot: u16) -> Checked {
        let it = self.slot(host, slot);
        let (Some(alive), Process::Up { ticket, .. }) = (&it.alive, &it.replica.process) else {
            return Ok(());
        };
        let condemned = it.replica.condemned.as_ref().is_some_and(|(of, _)| of == ticket);
        if alive.ticket != *ticket || it.replica.upgrade.is_some() || condemned {
            return Ok(());
        }
        match it.replica.current.as_ref().map(|it| &it.release) {
            Some(said) if *said != alive.release => {
                broken(WHAT_RUNS, format!("{alive:?} on host {host} is said to be {said}"))
            }
            _ => Ok(()),
        }
    }
}
