//! Stories of replicas that have passed a limit: one of the application at a time, wherever they are, and not again too soon.

use super::*;
use crate::rollout::HappeningKind;
use crate::rollout::fixture::above_its_limit;
use crate::spec::Millis;
use crate::spec::monitoring::Threshold;

impl Story {
    /// Release 1 runs everywhere; from 90 % on a replica is started anew for its atoms, and not again for a minute.
    fn watched_for_atoms(strategy: Strategy, replicas: u16, nodes: u8) -> Self {
        let mut story = Self::running(strategy, replicas, nodes);
        let threshold = Threshold { warning: 75, restart: Some(90), cooldown: Millis(60_000) };
        story.fleet.spec.as_mut().unwrap().monitoring.atom = Some(threshold);
        story
    }

    fn exceeds(&mut self, place: Place) {
        self.say(&format!("# {} is above its limit", self.name(place)));
        self.fleet.observed.get_mut(&place).unwrap().vm = Some(above_its_limit(Time(self.now)));
    }

    fn started_anew(&self) -> Vec<Place> {
        let told = self.fleet.assigned.iter().filter(|(_, told)| told.restart.is_some());
        told.map(|(place, _)| *place).collect()
    }
}

#[test]
fn of_replicas_above_their_limits_one_is_started_anew_at_a_time_wherever_they_are() {
    let mut story = Story::watched_for_atoms(Strategy::StopFirst, 1, 3);
    let all = [1, 2, 3].map(|node| place(node, 1));
    for place in all {
        story.exceeds(place);
    }
    story.plan();
    assert_eq!(story.started_anew(), [all[0]]);
    story.slot_is(all[0], SlotState::Starting);
    story.pass(30);
    story.plan();
    assert_eq!(story.started_anew(), [all[0]], "the next waits until it is stable");
    story.slot_is(all[0], SlotState::Stable);
    story.plan();
    story.slot_is(all[1], SlotState::Stable);
    story.plan();
    story.slot_is(all[2], SlotState::Stable);
    story.plan();
    assert_eq!(story.started_anew(), all);
    assert!(story.fleet.restarts.is_empty() && story.fleet.ghosted.is_empty());
    told!(story);
}

#[test]
fn what_is_above_its_limit_again_rests_for_the_cooldown_and_says_so() {
    let mut story = Story::watched_for_atoms(Strategy::StopFirst, 1, 1);
    let only = place(1, 1);
    for _ in 0..2 {
        story.exceeds(only);
        story.plan();
        story.slot_is(only, SlotState::Stable);
        story.plan();
        story.exceeds(only);
        story.pass(59);
        assert!(!story.plan(), "{}", story.text);
        story.pass(1);
    }
    told!(story);
}

#[test]
fn a_spare_takes_the_place_of_what_is_started_anew_for_its_limit() {
    let mut story = Story::watched_for_atoms(Strategy::StartFirst, 1, 1);
    story.exceeds(place(1, 1));
    story.plan();
    assert_eq!(story.started_anew(), [], "nobody else is ready");
    story.slot_is(place(1, 2), SlotState::Stable);
    story.plan();
    assert_eq!(story.started_anew(), [place(1, 1)]);
    story.all_do_as_told();
    story.until_calm();
    assert!(story.fleet.restarts.is_empty());
    told!(story);
}

#[test]
fn what_is_below_its_limit_again_before_its_turn_is_left_alone() {
    let mut story = Story::watched_for_atoms(Strategy::StartFirst, 1, 1);
    story.exceeds(place(1, 1));
    story.plan();
    story.all_do_as_told();
    story.until_calm();
    assert_eq!(story.started_anew(), []);
    assert!(story.fleet.restarts.is_empty());
    told!(story);
}

#[test]
fn while_a_rollout_moves_or_a_node_is_silent_nothing_is_started_anew_for_its_limit() {
    let mut story = Story::watched_for_atoms(Strategy::StopFirst, 1, 2);
    story.wish(2);
    story.plan();
    story.exceeds(place(2, 1));
    assert!(!story.plan());
    story.slot_is(place(1, 1), SlotState::Stable);
    story.until_calm();
    story.node_is(2, Liveness::Suspect);
    story.exceeds(place(2, 1));
    story.plan();
    story.node_is(2, Liveness::Lost);
    story.plan();
    assert_eq!(story.started_anew(), []);
    // Also while its release is watched: that is no crash.
    story.node_is(2, Liveness::Up);
    story.plan();
    assert_eq!(story.started_anew(), [place(2, 1)]);
    story.until_calm();
    story.pass(31);
    story.plan();
    assert!(story.fleet.ghosted.is_empty() && story.fleet.in_force == Some(release(2)));
}

#[test]
fn whoever_no_longer_asks_for_restarts_gets_none() {
    let mut story = Story::watched_for_atoms(Strategy::StopFirst, 1, 1);
    story.fleet.spec.as_mut().unwrap().monitoring.atom.as_mut().unwrap().restart = None;
    story.exceeds(place(1, 1));
    assert!(!story.plan());
    story.fleet.spec.as_mut().unwrap().monitoring.atom = None;
    assert!(!story.plan());
}

/// It may be away at any moment itself, and where it stays so, a restart would be asked for and given up again for ever.
#[test]
fn nothing_is_started_anew_for_a_limit_while_another_replica_is_not_stable() {
    let mut story = Story::watched_for_atoms(Strategy::StopFirst, 1, 3);
    story.slot_is(place(3, 1), SlotState::Starting);
    story.exceeds(place(1, 1));
    story.plan();
    for _ in 0..3 {
        story.pass(45);
        story.plan();
    }
    assert_eq!((story.started_anew(), story.fleet.restarts.len()), (vec![], 0), "{}", story.text);
    story.slot_is(place(3, 1), SlotState::Stable);
    story.plan();
    assert_eq!(story.started_anew(), [place(1, 1)], "{}", story.text);
}

/// Its spare does not come up: what is given up is not asked for again at once, and said to wait.
#[test]
fn a_restart_for_a_limit_that_was_given_up_is_not_asked_for_again_before_the_cooldown() {
    let mut story = Story::watched_for_atoms(Strategy::StartFirst, 1, 1);
    let timeout = story.fleet.spec.as_ref().unwrap().rollback_timeout.0;
    story.fleet.spec.as_mut().unwrap().monitoring.atom.as_mut().unwrap().cooldown = Millis(10 * timeout);
    story.exceeds(place(1, 1));
    story.plan();
    story.slot_is(place(1, 2), SlotState::Starting);
    for _ in 0..30 {
        story.pass(timeout / 10_000);
        story.plan();
    }
    let asked = story.happened.iter().filter(|it| it.kind == HappeningKind::RestartRequested).count();
    assert_eq!((asked, story.started_anew()), (1, vec![]), "{}", story.text);
    assert!(story.fleet.restarts.is_empty() && story.text.contains("event restart_failed"), "{}", story.text);
    story.all_do_as_told();
    story.exceeds(place(1, 1));
    for _ in 0..10 {
        story.pass(timeout / 1_000);
        story.plan();
    }
    let asked = story.happened.iter().filter(|it| it.kind == HappeningKind::RestartRequested).count();
    assert_eq!(asked, 2, "{}", story.text);
}
