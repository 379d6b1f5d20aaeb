//! Stories of slots that could not be upgraded and run on as they were: what they count as, and when they are tried again.

use std::sync::Arc;

use proto::hot_upgrade::HotUpgradePolicy;

use super::*;
use crate::spec::Amount;

impl Story {
    /// Its process, or its host, ended in the middle: what ran before is started anew.
    fn is_cut_off(&mut self, place: Place, state: SlotState) {
        self.cannot_be_upgraded(place, "its host restarted meanwhile", false);
        self.say(&format!("# {} is {state}", self.name(place)));
        self.fleet.observed.get_mut(&place).unwrap().state = state;
    }

    fn attempt(&self, place: Place) -> String {
        self.fleet.assigned[&place].hot.as_ref().expect("it is to be upgraded").attempt.clone()
    }

    fn upgrades(&self) -> usize {
        self.text.matches("is hot-upgraded").count()
    }
}

#[test]
fn what_an_outage_cut_off_is_tried_again_once_it_serves() {
    let mut story = Story::hot(Strategy::StopFirst, 1, 2, HotUpgradePolicy::Require);
    story.wish(2);
    story.plan();
    let first = story.attempt(place(1, 1));
    story.is_cut_off(place(1, 1), SlotState::Starting);
    story.plan();
    assert_eq!(story.upgrades(), 1, "{}", story.text);
    story.is_cut_off(place(1, 1), SlotState::Ready);
    story.plan();
    assert_eq!(story.attempt(place(1, 1)), format!("{first}.2"));
    story.all_do_as_told();
    story.until_calm();
    assert!(story.fleet.ghosted.is_empty() && story.upgrades() == 3, "{}", story.text);
    told!(story);
}

#[test]
fn what_is_cut_off_again_and_again_is_ghosted_with_the_reason() {
    let mut story = Story::hot(Strategy::StopFirst, 1, 2, HotUpgradePolicy::Require);
    story.wish(2);
    story.plan();
    for tries in 1..=3 {
        assert!(story.fleet.ghosted.is_empty() && story.upgrades() == tries, "{}", story.text);
        story.is_cut_off(place(1, 1), SlotState::Stable);
        story.plan();
    }
    assert!(story.fleet.ghosted.contains(&release(2)) && story.upgrades() == 3, "{}", story.text);
    assert!(story.text.contains("its host restarted meanwhile"), "{}", story.text);
}

#[test]
fn where_a_full_deployment_is_allowed_it_follows_an_outage_there_alone() {
    let mut story = Story::hot(Strategy::StopFirst, 1, 2, HotUpgradePolicy::Auto);
    story.wish(2);
    story.plan();
    story.is_cut_off(place(1, 1), SlotState::Stable);
    story.until_calm();
    assert_eq!(story.text.matches("slot 1 on node-1 gets 1.2.0").count(), 1, "{}", story.text);
    assert_eq!(story.text.matches("slot 1 on node-2 is hot-upgraded").count(), 1, "{}", story.text);
}

#[test]
fn what_could_not_be_upgraded_from_one_release_is_upgraded_from_another() {
    let mut story = Story::hot(Strategy::StopFirst, 1, 1, HotUpgradePolicy::Require);
    story.wish(2);
    story.plan();
    let first = story.attempt(place(1, 1));
    story.cannot_be_upgraded(place(1, 1), "no such module", true);
    // What a rollout before had left there, and was brought back since.
    let seen = story.fleet.observed.get_mut(&place(1, 1)).unwrap();
    Arc::make_mut(seen.upgrade.as_mut().unwrap()).from = release(3);
    let assigned = story.fleet.assigned.get_mut(&place(1, 1)).unwrap();
    (assigned.release, assigned.hot) = (Some(release(1)), None);
    story.plan();
    assert_eq!(story.attempt(place(1, 1)), format!("{first}.2"));
    assert!(story.fleet.ghosted.is_empty(), "{}", story.text);
}

#[test]
fn a_leftover_that_cannot_be_upgraded_is_no_reason_against_a_release() {
    let mut story = Story::hot(Strategy::StopFirst, 1, 1, HotUpgradePolicy::Require);
    let seen = story.fleet.observed.get_mut(&place(1, 1)).unwrap();
    seen.running = Some(release(3));
    story.fleet.assigned.get_mut(&place(1, 1)).unwrap().release = Some(release(3));
    story.wish(2);
    story.plan();
    assert!(story.text.contains("is hot-upgraded from 1.3.0 to 1.2.0"), "{}", story.text);
    story.cannot_be_upgraded(place(1, 1), "no such module", true);
    story.until_calm();
    assert!(story.fleet.ghosted.is_empty(), "{}", story.text);
    assert!(story.text.contains("slot 1 on node-1 gets 1.2.0"), "{}", story.text);
}

#[test]
fn a_leftover_that_serves_nobody_is_replaced() {
    let mut story = Story::hot(Strategy::StopFirst, 1, 1, HotUpgradePolicy::Require);
    let seen = story.fleet.observed.get_mut(&place(1, 1)).unwrap();
    (seen.running, seen.state) = (Some(release(3)), SlotState::BackingOff);
    story.fleet.assigned.get_mut(&place(1, 1)).unwrap().release = Some(release(3));
    story.wish(2);
    story.plan();
    assert!(story.upgrades() == 0 && story.text.contains("slot 1 on node-1 gets 1.2.0"), "{}", story.text);
}

#[test]
fn where_nothing_is_in_force_nothing_is_upgraded() {
    let mut story = Story::hot(Strategy::StopFirst, 1, 1, HotUpgradePolicy::Require);
    story.fleet.in_force = None;
    story.wish(2);
    story.plan();
    assert!(story.upgrades() == 0 && story.text.contains("slot 1 on node-1 gets 1.2.0"), "{}", story.text);
}

#[test]
fn while_a_rollout_is_paused_what_could_not_be_upgraded_is_told_what_it_runs() {
    let mut story = Story::hot(Strategy::StopFirst, 1, 2, HotUpgradePolicy::Auto);
    story.wish(2);
    story.plan();
    let said = Said { by: "ann".to_owned(), at: Time(story.now) };
    story.fleet.rollout.as_mut().unwrap().progress.paused = Some(said);
    story.say("# ann pauses it");
    story.cannot_be_upgraded(place(1, 1), "the disk is full", false);
    story.until_calm();
    assert_eq!(story.fleet.assigned[&place(1, 1)].release, Some(release(1)), "{}", story.text);
    story.fleet.rollout.as_mut().unwrap().progress.paused = None;
    story.say("# ann lets it go on");
    story.until_calm();
    assert_eq!(story.fleet.assigned[&place(1, 1)].release, Some(release(2)), "{}", story.text);
    told!(story);
}

#[test]
fn what_serves_on_as_it_was_is_not_missing() {
    let mut story = Story::hot(Strategy::StopFirst, 2, 2, HotUpgradePolicy::Auto);
    story.fleet.spec.as_mut().unwrap().deploy.batch = Amount::Count(2);
    story.wish(2);
    story.plan();
    for node in 1..=2 {
        story.cannot_be_upgraded(place(node, 1), "the disk is full", false);
    }
    story.fleet.packages.get_mut(&release(3)).unwrap().erts = "14.2".to_owned();
    story.fleet.spec.as_mut().unwrap().deploy.batch = Amount::Count(1);
    story.wish(3);
    story.until_calm();
    assert!(story.fleet.in_force == Some(release(3)), "{}", story.text);
    assert!(!story.text.contains("gets 1.1.0"), "{}", story.text);
}

#[test]
fn the_time_of_what_waits_to_be_told_anew_does_not_run_out() {
    let mut story = Story::hot(Strategy::StopFirst, 2, 1, HotUpgradePolicy::Auto);
    story.fleet.observed.get_mut(&place(1, 2)).unwrap().state = SlotState::Unready;
    story.wish(2);
    story.plan();
    let passes = |story: &mut Story, seconds: u64| {
        for _ in 0..seconds / 4 {
            story.leap(4);
            story.plan();
        }
    };
    passes(&mut story, 20);
    story.cannot_be_upgraded(place(1, 1), "the disk is full", false);
    story.plan();
    assert!(story.text.contains("slot 2 on node-1 gets 1.2.0"), "{}", story.text);
    story.slot_is(place(1, 2), SlotState::Starting);
    passes(&mut story, 32);
    assert!(story.fleet.ghosted.is_empty(), "{}", story.text);
}

#[test]
fn a_node_on_which_it_failed_catches_up_in_full_once_the_release_is_in_force() {
    let mut story = Story::hot(Strategy::StopFirst, 1, 3, HotUpgradePolicy::Require);
    story.fleet.spec.as_mut().unwrap().deploy.tolerate_failed_nodes = 1;
    story.wish(2);
    story.plan();
    story.cannot_be_upgraded(place(1, 1), "no such module", true);
    story.until_calm();
    assert_eq!(story.fleet.in_force, Some(release(2)), "{}", story.text);
    assert!(story.text.contains("slot 1 on node-1 gets 1.2.0"), "{}", story.text);
}

#[test]
fn a_rollout_that_goes_on_in_full_does_so_also_where_upgrades_are_required_meanwhile() {
    let mut story = Story::hot(Strategy::StopFirst, 1, 2, HotUpgradePolicy::Auto);
    story.wish(2);
    story.plan();
    story.cannot_be_upgraded(place(1, 1), "no such module", true);
    story.plan();
    story.fleet.spec.as_mut().unwrap().deploy.hot_upgrade = HotUpgradePolicy::Require;
    story.all_do_as_told();
    story.until_calm();
    assert_eq!(story.fleet.in_force, Some(release(2)), "{}", story.text);
    assert!(story.fleet.ghosted.is_empty() && story.upgrades() == 1, "{}", story.text);
}
