//! Stories of a release that is superseded in its watch, and of what a clock that is put forward does not cut short.

use super::*;
use crate::rollout::{HappeningKind, Rollout, Steering};
use crate::spec::{Amount, CanarySpec, Millis, Promote};

impl Story {
    /// Release 2 runs everywhere and is watched, when release 3 comes, whose canary waits for a person on the first node.
    fn superseded_in_its_watch(nodes: u8) -> Self {
        let mut story = Self::in_its_watch(nodes);
        story.wish(3);
        story.until_calm();
        assert_eq!(story.phase(), RolloutPhase::Running, "{}", story.text);
        assert_eq!(story.from(), Some(release(2)));
        story
    }

    fn in_its_watch(nodes: u8) -> Self {
        let mut story = Self::of(Strategy::StopFirst, nodes, |deploy| {
            let (promote, soak) = (Promote::Manual, Millis(0));
            deploy.canary = Some(CanarySpec { nodes: Amount::Count(1), promote, soak });
        });
        story.wish(2);
        story.until_calm();
        story.steer(Steering::Promote { batch: None });
        story.until_calm();
        assert_eq!(story.phase(), RolloutPhase::Watching, "{}", story.text);
        story.pass(2);
        story
    }

    fn from(&self) -> Option<proto::ids::ReleaseKey> {
        self.fleet.rollout.as_ref().unwrap().from.clone()
    }
}

#[test]
fn a_release_that_is_superseded_in_its_watch_is_watched_on() {
    let mut story = Story::superseded_in_its_watch(3);
    story.text.clear();
    story.crashed(place(2, 1), 3);
    story.plan();
    assert_eq!(story.fleet.ghosted, [release(2)].into());
    assert_eq!((story.fleet.in_force.clone(), story.from()), (Some(release(1)), Some(release(1))));
    // What is newer goes on, and what the other left broken serves again meanwhile.
    assert_eq!(story.phase(), RolloutPhase::Running);
    let told = |story: &Story, node| story.fleet.assigned[&place(node, 1)].release.clone();
    assert_eq!(told(&story, 2), Some(release(1)), "{}", story.text);
    assert_eq!((told(&story, 1), told(&story, 3)), (Some(release(3)), Some(release(2))));
    story.all_do_as_told();
    story.until_calm();
    // It fails in its turn: all of it goes to what was good before both.
    story.crashed(place(1, 1), 1);
    story.until_it_ends();
    story.all_do_as_told();
    story.until_calm();
    assert!((1..=3).all(|node| told(&story, node) == Some(release(1))), "{}", story.text);
    told!(story);
}

#[test]
fn two_crashes_of_what_was_superseded_are_no_loop_and_neither_is_a_third_after_its_watch() {
    let mut story = Story::superseded_in_its_watch(3);
    story.crashed(place(2, 1), 2);
    story.plan();
    assert_eq!(story.from(), Some(release(2)), "{}", story.text);
    for _ in 0..10 {
        story.pass(4);
        story.plan();
    }
    story.crashed(place(2, 1), 9);
    story.plan();
    assert_eq!((story.from(), story.fleet.ghosted.len()), (Some(release(2)), 0), "{}", story.text);
    let done = story
        .happened
        .iter()
        .find(|it| it.kind == HappeningKind::DeploymentDone && it.text.contains("beneath"));
    assert_eq!(done.and_then(|it| it.release.clone()), Some(release(2)), "{}", story.text);
    // It has shown what it does: for what a host does to it later it is not ghosted.
    assert!(story.fleet.proven.contains(&release(2)), "{}", story.text);
}

/// The newer release is given up: what it came from has the rest of its watch before it.
#[test]
fn what_is_gone_back_to_is_watched_for_the_rest_of_its_watch() {
    let mut story = Story::superseded_in_its_watch(3);
    story.pass(4);
    story.plan();
    story.text.clear();
    story.steer(Steering::Abort);
    story.until_calm();
    assert_eq!((story.phase(), story.from()), (RolloutPhase::Watching, Some(release(1))), "{}", story.text);
    story.pass(12);
    story.until_calm();
    story.crashed(place(2, 1), 3);
    story.plan();
    assert_eq!(story.fleet.ghosted, [release(2)].into(), "{}", story.text);
    story.all_do_as_told();
    story.until_calm();
    let told = |story: &Story, node| story.fleet.assigned[&place(node, 1)].release.clone();
    assert!((1..=3).all(|node| told(&story, node) == Some(release(1))), "{}", story.text);
    // What was given up is wished still, and is not begun again.
    assert!(story.fleet.rollout.is_none(), "{}", story.text);
    told!(story);
}

#[test]
fn what_is_gone_back_to_and_outlives_its_watch_is_good_and_what_was_given_up_stays_so() {
    let mut story = Story::superseded_in_its_watch(3);
    story.steer(Steering::Abort);
    story.until_calm();
    assert!(!story.fleet.proven.contains(&release(2)));
    for _ in 0..14 {
        story.pass(3);
        story.until_calm();
    }
    assert!(story.fleet.proven.contains(&release(2)), "{}", story.text);
    assert!(story.fleet.rollout.is_none(), "{}", story.text);
    assert_eq!(story.fleet.in_force, Some(release(2)));
}

/// What it came from is rolled out anew, and given up: nothing has judged what that took the place of.
#[test]
fn what_gave_way_to_what_it_came_from_is_watched_on_where_that_is_given_up() {
    let mut story = Story::in_its_watch(3);
    story.wish(1);
    story.plan();
    assert_eq!((story.phase(), story.from()), (RolloutPhase::Running, Some(release(2))), "{}", story.text);
    story.steer(Steering::Abort);
    story.until_calm();
    assert_eq!((story.phase(), story.from()), (RolloutPhase::Watching, Some(release(1))), "{}", story.text);
    story.crashed(place(2, 1), 3);
    story.plan();
    assert_eq!(story.fleet.ghosted, [release(2)].into(), "{}", story.text);
}

/// But it is no way back from itself: what crashes while it comes is left to it.
#[test]
fn what_crashes_while_what_it_came_from_is_rolled_out_anew_is_left_to_that() {
    let mut story = Story::in_its_watch(3);
    story.wish(1);
    story.plan();
    story.crashed(place(2, 1), 3);
    story.plan();
    assert_eq!(story.from(), Some(release(2)), "{}", story.text);
    story.all_do_as_told();
    story.until_calm();
    assert_eq!(story.fleet.in_force, Some(release(1)), "{}", story.text);
}

/// Nobody planned while its time ran out, and there is a newer wish when somebody does.
#[test]
fn a_watch_that_is_over_when_the_newer_wish_comes_has_been_outlived() {
    let mut story = Story::superseded_in_its_watch(3);
    story.steer(Steering::Abort);
    story.until_calm();
    while let Some(Rollout { progress, .. }) = &story.fleet.rollout {
        if progress.watched.spent(Time(story.now + 3_000), 3_000) >= 30_000 {
            break;
        }
        story.pass(3);
        story.until_calm();
    }
    story.leap(4);
    story.wish(4);
    story.plan();
    assert!(story.fleet.proven.contains(&release(2)), "{}", story.text);
    assert_eq!((story.phase(), story.from()), (RolloutPhase::Running, Some(release(2))), "{}", story.text);
}

/// A first release has nothing before it, and is watched on all the same.
#[test]
fn a_first_release_that_is_superseded_in_its_watch_is_good_once_that_is_over() {
    let mut story = Story::new(Strategy::StopFirst, 1, 3);
    story.wish(1);
    story.until_calm();
    story.fleet.spec.as_mut().unwrap().deploy.canary =
        Some(CanarySpec { nodes: Amount::Count(1), promote: Promote::Manual, soak: Millis(0) });
    story.wish(2);
    story.until_calm();
    assert_eq!(story.from(), Some(release(1)));
    for _ in 0..14 {
        story.pass(3);
        story.until_calm();
    }
    assert!(story.fleet.proven.contains(&release(1)), "{}", story.text);
    assert_eq!((story.phase(), story.from()), (RolloutPhase::Running, Some(release(1))));
}

/// All of it was told the newer one: time that passes then shows nothing of the other.
#[test]
fn the_watch_of_what_runs_nowhere_any_more_does_not_pass() {
    let mut story = Story::of(Strategy::StopFirst, 1, |deploy| deploy.watch = Millis(20_000));
    story.wish(2);
    story.until_calm();
    story.pass(4);
    story.plan();
    story.wish(3);
    story.plan();
    story.crashed(place(1, 1), 1);
    story.until_it_ends();
    assert!(!story.fleet.proven.contains(&release(2)), "{}", story.text);
    story.all_do_as_told();
    story.until_calm();
    assert_eq!((story.phase(), story.from()), (RolloutPhase::Watching, Some(release(1))), "{}", story.text);
    assert_eq!(story.fleet.rollout.as_ref().unwrap().release, release(2));
}

/// A first release, a second and a third within one watch, and the third is given up: the second may go back to the first.
#[test]
fn what_came_from_a_first_release_goes_back_to_it() {
    let mut story = Story::new(Strategy::StopFirst, 1, 2);
    for number in 1..=3 {
        story.wish(number);
        story.until_calm();
        story.pass(2);
    }
    story.steer(Steering::Abort);
    story.until_calm();
    assert_eq!((story.phase(), story.from()), (RolloutPhase::Watching, Some(release(1))), "{}", story.text);
}

#[test]
fn a_way_back_that_crashes_on_the_way_back_leads_further_back() {
    let mut story = Story::superseded_in_its_watch(2);
    story.steer(Steering::Abort);
    story.plan();
    assert_eq!(story.phase(), RolloutPhase::Reverting, "{}", story.text);
    story.crashed(place(1, 1), 3);
    story.plan();
    assert_eq!(story.fleet.ghosted, [release(2)].into(), "{}", story.text);
    story.all_do_as_told();
    story.until_calm();
    let last = story.fleet.last.clone().unwrap();
    assert_eq!((last.phase, last.from), (RolloutPhase::Reverted, Some(release(1))), "{}", story.text);
    let told = |node| story.fleet.assigned[&place(node, 1)].release.clone();
    assert!((1..=2).all(|node| told(node) == Some(release(1))), "{}", story.text);
}

/// What outlived a watch before is not ghosted, and is gone back from all the same.
#[test]
fn what_was_good_before_is_not_ghosted_when_it_is_superseded_and_crashes() {
    let mut story = Story::superseded_in_its_watch(3);
    story.fleet.proven.insert(release(2));
    story.crashed(place(2, 1), 3);
    story.plan();
    assert_eq!((story.from(), story.fleet.ghosted.len()), (Some(release(1)), 0), "{}", story.text);
}

/// An hour in which nobody looked: what crashed in it is looked at before the watch is counted as over.
#[test]
fn what_was_superseded_and_crashed_while_nobody_planned_is_seen_afterwards() {
    let mut story = Story::superseded_in_its_watch(3);
    story.leap(3_600);
    story.crashed(place(2, 1), 9);
    story.plan();
    assert_eq!(story.fleet.ghosted, [release(2)].into(), "{}", story.text);
    assert_eq!(story.from(), Some(release(1)));
}

/// Whoever goes back to the release before by publishing it anew rolls that out: it is no way back from itself.
#[test]
fn what_is_rolled_out_again_in_the_watch_of_its_successor_is_no_way_back_from_itself() {
    let mut story = Story::of(Strategy::StopFirst, 3, |_| {});
    story.fleet.proven.clear();
    story.wish(2);
    story.until_calm();
    story.crashed(place(2, 1), 2);
    story.pass(2);
    story.wish(1);
    story.plan();
    story.crashed(place(2, 1), 9);
    story.plan();
    assert_eq!((story.from(), story.fleet.in_force.clone()), (Some(release(2)), Some(release(2))));
}

/// Three releases within one watch: the second was never judged, and is no way back.
#[test]
fn the_way_back_of_a_chain_is_what_was_good_before_all_of_it() {
    let mut story = Story::of(Strategy::StopFirst, 3, |_| {});
    for number in 2..=3 {
        story.wish(number);
        story.until_calm();
        assert_eq!(story.phase(), RolloutPhase::Watching, "{}", story.text);
        story.pass(2);
    }
    story.wish(4);
    story.plan();
    assert_eq!(story.from(), Some(release(3)));
    story.crashed(place(3, 1), 3);
    story.plan();
    assert_eq!((story.from(), story.fleet.in_force.clone()), (Some(release(1)), Some(release(1))));
}

#[test]
fn a_clock_that_is_put_forward_cuts_neither_a_pause_short_nor_a_soak_nor_a_watch() {
    let mut story = Story::of(Strategy::StopFirst, 3, |deploy| {
        let (promote, soak) = (Promote::Auto, Millis(20_000));
        deploy.canary = Some(CanarySpec { nodes: Amount::Count(1), promote, soak });
        deploy.batch = Amount::Count(1);
        deploy.pause_between = Millis(20_000);
    });
    let moved = |story: &Story| {
        let told = |node| story.fleet.assigned[&place(node, 1)].release == Some(release(2));
        (1..=3).filter(|node| told(*node)).count()
    };
    story.wish(2);
    story.until_calm();
    for expected in 1..=3 {
        assert_eq!(moved(&story), expected, "{}", story.text);
        story.leap(3_600);
        story.until_calm();
        assert_eq!(moved(&story), expected, "{}", story.text);
        for _ in 0..10 {
            story.pass(2);
            story.until_calm();
        }
    }
    assert_eq!(story.phase(), RolloutPhase::Watching, "{}", story.text);
    for _ in 0..14 {
        story.pass(3);
        story.plan();
    }
    assert_eq!(story.phase(), RolloutPhase::Done, "{}", story.text);
}

/// 1, 2 and 1 once more, each in the watch of the one before it: 2 was not judged, and is a better way back than what crashes.
#[test]
fn a_release_that_is_rolled_out_once_more_is_no_way_back_from_itself() {
    let mut story = Story::new(Strategy::StopFirst, 1, 2);
    for number in [1, 2, 1] {
        story.now += 1_000;
        story.wish(number);
        story.until_calm();
        assert_eq!(story.phase(), RolloutPhase::Watching, "{}", story.text);
    }
    story.now += 1_000;
    story.wish(3);
    story.plan();
    story.crashed(place(2, 1), 3);
    story.plan();
    let in_force = story.fleet.in_force.clone();
    assert_eq!(
        (story.fleet.ghosted.clone(), in_force),
        ([release(1)].into(), Some(release(2))),
        "{}",
        story.text
    );
}
