//! Stories of where replicas run: nodes that are kept free or emptied, and spreads.

use std::num::NonZeroU16;

use super::*;
use crate::rollout::Steering;
use crate::spec::Amount;

#[test]
fn a_node_that_drains_is_emptied_one_replica_after_the_other() {
    let mut story = Story::running(Strategy::StartFirst, 2, 2);
    story.service(1, Service::Draining);
    story.plan();
    story.plan();
    story.all_do_as_told();
    story.until_calm();
    assert!(story.fleet.assigned.keys().all(|place| place.node == node_id(2)));
    told!(story);
}

#[test]
fn a_cordoned_node_keeps_what_it_has_and_is_given_no_more() {
    let mut story = Story::running(Strategy::StartFirst, 1, 2);
    story.service(1, Service::Cordoned);
    story.fleet.spec.as_mut().unwrap().replicas = NonZeroU16::new(2).unwrap();
    story.say("# two replicas on each node");
    story.until_calm();
    assert!(
        !story.fleet.assigned.contains_key(&place(1, 2)) && story.fleet.assigned.contains_key(&place(2, 2))
    );
    // It follows rollouts with what it has.
    story.wish(2);
    story.until_calm();
    assert_eq!(story.fleet.assigned[&place(1, 1)].release, Some(release(2)));
    assert!(!story.fleet.assigned.contains_key(&place(1, 2)));
    told!(story);
}

#[test]
fn a_spread_moves_one_replica_to_a_new_node_and_not_before_its_successor_is_ready() {
    let mut story = Story::new(Strategy::StartFirst, 1, 2);
    story.fleet.spec.as_mut().unwrap().spread = NonZeroU16::new(4);
    story.wish(1);
    story.until_calm();
    story.pass(31);
    story.plan();
    story.text.clear();
    story.fleet.nodes.insert(node_id(3), node(3));
    story.say("# node-3 joins");
    story.until_calm();
    let on = |number: u8| {
        story
            .fleet
            .assigned
            .iter()
            .filter(|(it, told)| it.node == node_id(number) && told.release.is_some())
            .count()
    };
    assert_eq!((on(1) + on(2), on(3)), (3, 1));
    told!(story);
}

#[test]
fn a_spread_takes_over_what_a_lost_node_held() {
    let mut story = Story::new(Strategy::StartFirst, 1, 2);
    story.fleet.spec.as_mut().unwrap().spread = NonZeroU16::new(3);
    story.wish(1);
    story.until_calm();
    story.pass(31);
    story.plan();
    story.text.clear();
    story.node_is(1, Liveness::Lost);
    story.until_calm();
    story.node_is(1, Liveness::Up);
    story.until_calm();
    told!(story);
}

#[test]
fn a_node_is_emptied_of_a_spread_while_its_rollout_is_paused() {
    let mut story = Story::running(Strategy::StartFirst, 1, 2);
    story.fleet.spec.as_mut().unwrap().spread = NonZeroU16::new(2);
    story.until_calm();
    story.wish(2);
    story.plan();
    story.steer(Steering::Pause);
    story.all_do_as_told();
    story.plan();
    // The move of the first node has begun, and does not go on.
    story.service(2, Service::Draining);
    story.until_calm();
    assert!(story.fleet.assigned.keys().all(|place| place.node == node_id(1)), "{}", story.text);
}

/// The new node has hung before it could be told: what was given up for it is the one that may be missing.
#[test]
fn what_a_spread_gave_up_for_a_node_that_hangs_is_missing_to_a_rollout() {
    let mut story = Story::new(Strategy::StopFirst, 1, 2);
    let spec = story.fleet.spec.as_mut().unwrap();
    (spec.spread, spec.deploy.max_unavailable) = (NonZeroU16::new(3), Amount::Count(1));
    story.wish(1);
    story.until_calm();
    story.pass(31);
    story.plan();
    story.fleet.nodes.insert(node_id(3), node(3));
    story.node_is(3, Liveness::Suspect);
    story.until_calm();
    let told = |story: &Story, number| {
        story.fleet.assigned.values().filter(|it| it.release == Some(release(number))).count()
    };
    assert_eq!(told(&story, 1), 2, "{}", story.text);
    story.wish(2);
    story.until_calm();
    assert_eq!((told(&story, 1), told(&story, 2)), (2, 0), "{}", story.text);
    story.node_is(3, Liveness::Up);
    story.until_calm();
    assert_eq!((told(&story, 1), told(&story, 2)), (0, 3), "{}", story.text);
}

/// A vacant slot of a node whose move has begun waits for its turn, which comes when those before it are there.
#[test]
fn a_spread_that_grows_in_the_middle_of_a_rollout_does_not_hold_it_up() {
    let mut story = Story::new(Strategy::StopFirst, 1, 2);
    let spec = story.fleet.spec.as_mut().unwrap();
    (spec.spread, spec.deploy.batch) = (NonZeroU16::new(4), Amount::Count(1));
    story.wish(1);
    story.until_calm();
    story.pass(31);
    story.plan();
    story.wish(2);
    let moved = |story: &Story, node| {
        let told = |slot| story.fleet.assigned.get(&place(node, slot)).and_then(|it| it.release.clone());
        (1..=3).filter(|slot| told(*slot) == Some(release(2))).count()
    };
    while moved(&story, 1) < 2 || moved(&story, 2) < 1 {
        assert!(story.plan(), "{}", story.text);
        if moved(&story, 2) < 1 {
            story.all_do_as_told();
        }
    }
    story.fleet.spec.as_mut().unwrap().spread = NonZeroU16::new(6);
    story.all_do_as_told();
    story.until_calm();
    assert_eq!((moved(&story, 1), moved(&story, 2)), (3, 3), "{}", story.text);
}

/// What it held is the others' now, of which one has moved already.
#[test]
fn a_node_that_is_lost_in_the_middle_of_its_move_does_not_hold_up_a_spread() {
    let mut story = Story::new(Strategy::StopFirst, 1, 3);
    let spec = story.fleet.spec.as_mut().unwrap();
    (spec.spread, spec.deploy.batch) = (NonZeroU16::new(6), Amount::Count(1));
    story.wish(1);
    story.until_calm();
    story.pass(31);
    story.plan();
    story.wish(2);
    let on_two = |story: &Story| {
        let moved = |slot| story.fleet.assigned[&place(2, slot)].release == Some(release(2));
        (1..=2).any(moved)
    };
    while !on_two(&story) {
        assert!(story.plan(), "{}", story.text);
        if !on_two(&story) {
            story.all_do_as_told();
        }
    }
    story.node_is(3, Liveness::Lost);
    story.all_do_as_told();
    story.until_calm();
    assert_eq!(story.phase(), RolloutPhase::Watching, "{}", story.text);
}

/// The spare slot that was on its way out is needed once more: until it has taken up what it was told, it is the one that is
/// missing, and planning again finds nothing to withdraw beside it.
#[test]
fn a_slot_that_is_given_back_what_it_was_about_to_lose_is_still_the_one_that_may_be_missing() {
    let mut story = Story::new(Strategy::StartFirst, 1, 2);
    story.fleet.spec.as_mut().unwrap().spread = NonZeroU16::new(4);
    story.wish(1);
    story.until_calm();
    story.pass(31);
    story.plan();
    story.wish(2);
    let spare = place(2, 3);
    let goes = |story: &Story| story.fleet.assigned.get(&spare).is_some_and(|it| it.release.is_none());
    while !goes(&story) {
        assert!(story.plan(), "{}", story.text);
        if !goes(&story) {
            story.all_do_as_told();
        }
    }
    story.service(2, Service::Cordoned);
    story.service(1, Service::Draining);
    story.now += 1_000;
    story.wish(3);
    story.plan();
    let told = |place| story.fleet.assigned.get(&place).and_then(|it| it.release.clone());
    assert_eq!(told(spare), Some(release(3)), "{}", story.text);
    assert_eq!(
        [1, 2].map(|slot| told(place(1, slot))),
        [Some(release(2)), Some(release(2))],
        "{}",
        story.text
    );
}

/// It was told to start another release: while it does, nobody else is taken from a node that drains.
#[test]
fn what_a_rollout_has_taken_counts_where_nobody_can_take_over_what_drains() {
    let mut story = Story::new(Strategy::StopFirst, 1, 2);
    let spec = story.fleet.spec.as_mut().unwrap();
    (spec.spread, spec.deploy.max_unavailable) = (NonZeroU16::new(4), Amount::Count(1));
    story.wish(1);
    story.until_calm();
    story.pass(31);
    story.plan();
    story.service(2, Service::Cordoned);
    story.wish(2);
    story.plan();
    let told = |story: &Story, place| story.fleet.assigned.get(&place).and_then(|it| it.release.clone());
    let on_two =
        |story: &Story| (1..=2).filter(|slot| told(story, place(2, *slot)) == Some(release(2))).count();
    while on_two(&story) == 0 {
        story.all_do_as_told();
        assert!(story.plan(), "{}", story.text);
    }
    let taken = (1..=2).map(|slot| place(2, slot)).find(|it| told(&story, *it) == Some(release(2))).unwrap();
    story.slot_is(taken, SlotState::Starting);
    story.service(1, Service::Draining);
    story.plan();
    let held = (1..=2).filter(|slot| told(&story, place(1, *slot)).is_some()).count();
    assert_eq!(held, 2, "{}", story.text);
    // It is no reason to wait for ever.
    story.slot_is(taken, SlotState::Stable);
    story.until_calm();
    assert!((1..=2).all(|slot| told(&story, place(1, slot)).is_none()), "{}", story.text);
}

/// It is told its new slot as soon as it is heard of again, and is one short until then.
#[test]
fn what_a_suspect_node_is_to_get_is_missing_to_a_rollout() {
    let mut story = Story::running(Strategy::StopFirst, 1, 2);
    story.node_is(1, Liveness::Suspect);
    story.fleet.spec.as_mut().unwrap().replicas = NonZeroU16::new(2).unwrap();
    story.say("# two replicas on each node");
    story.until_calm();
    story.wish(2);
    story.until_calm();
    let told = |story: &Story, number| {
        story.fleet.assigned.values().filter(|it| it.release == Some(release(number))).count()
    };
    assert_eq!((told(&story, 1), told(&story, 2)), (3, 0), "{}", story.text);
    story.node_is(1, Liveness::Up);
    story.until_calm();
    assert_eq!((told(&story, 1), told(&story, 2)), (0, 4), "{}", story.text);
}
