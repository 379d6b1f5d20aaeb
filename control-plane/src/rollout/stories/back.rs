//! Stories of going back: what is begun is brought to its end, and what is not the release's fault is not held against it.

use proto::state::StagingPhase;

use super::*;
use crate::fleet::ObservedStaging;
use crate::rollout::Steering;
use crate::spec::{Amount, PreCommandsRun};

impl Story {
    fn release_at(&self, node: u8, slot: u16) -> Option<u8> {
        let told = self.fleet.assigned.get(&place(node, slot))?.release.clone()?;
        (1..=9).find(|number| release(*number) == told)
    }

    fn phase_now(&self) -> Option<RolloutPhase> {
        self.fleet.rollout.as_ref().map(|it| it.phase)
    }

    /// Release 2 runs everywhere and is watched.
    fn watched(&mut self) {
        self.wish(2);
        self.until_calm();
        assert_eq!(self.phase_now(), Some(RolloutPhase::Watching), "{}", self.text);
        self.now += 1_000;
    }
}

/// The fix is pushed while what it fixes is taken back, and its canary needs a person: nobody is to be left on what failed.
#[test]
fn a_newer_release_waits_until_what_failed_is_taken_back_everywhere() {
    let mut story = Story::running(Strategy::StopFirst, 1, 3);
    story.watched();
    story.crashed(place(1, 1), 3);
    story.plan();
    assert_eq!(story.phase_now(), Some(RolloutPhase::Reverting));
    story.wish(3);
    story.plan();
    assert_eq!(story.phase_now(), Some(RolloutPhase::Reverting), "{}", story.text);
    let says = "waits: 1.3.0 is rolled out once all is back on 1.1.0";
    assert!(story.text.contains(says), "{}", story.text);
    while story.phase_now() == Some(RolloutPhase::Reverting) {
        assert!((1..=3).all(|node| story.release_at(node, 1) != Some(3)), "{}", story.text);
        story.all_do_as_told();
        story.plan();
    }
    // At once behind it.
    assert_eq!(story.fleet.rollout.as_ref().map(|it| it.release.clone()), Some(release(3)));
    assert!((1..=3).all(|node| story.release_at(node, 1) != Some(2)), "{}", story.text);
}

/// A first deployment that is taken down has nothing to bring back.
#[test]
fn where_there_is_nothing_to_go_back_to_the_next_release_begins_at_once() {
    let mut story = Story::new(Strategy::StopFirst, 1, 2);
    story.wish(1);
    story.plan();
    story.crashed(place(1, 1), 1);
    for _ in 0..11 {
        story.now += 4_000;
        story.plan();
    }
    assert_eq!(story.phase_now(), Some(RolloutPhase::Reverting), "{}", story.text);
    story.wish(2);
    story.plan();
    assert_eq!(story.fleet.rollout.as_ref().map(|it| it.release.clone()), Some(release(2)));
}

/// Twelve nodes of which one may be missing, each of which takes thirty of the forty seconds that a slot has.
#[test]
fn a_revert_has_the_time_that_its_slots_take_one_after_the_other() {
    let mut story = Story::running(Strategy::StopFirst, 1, 12);
    story.fleet.spec.as_mut().unwrap().deploy.max_unavailable = Amount::Count(1);
    story.watched();
    let began = story.now;
    story.crashed(place(1, 1), 3);
    story.plan();
    while story.phase_now() == Some(RolloutPhase::Reverting) {
        story.now += 30_000;
        story.all_do_as_told();
        story.plan();
    }
    assert!(story.now - began > 300_000);
    let last = story.fleet.last.clone().unwrap();
    assert_eq!((last.phase, last.progress.left), (RolloutPhase::Reverted, None), "{}", story.text);
    assert!((1..=12).all(|node| story.release_at(node, 1) == Some(1)), "{}", story.text);
}

#[test]
fn a_revert_whose_time_is_over_says_what_is_not_back() {
    let mut story = Story::running(Strategy::StopFirst, 1, 2);
    story.watched();
    story.crashed(place(1, 1), 3);
    story.plan();
    // Its old release does not start any more.
    for _ in 0..40 {
        story.now += 4_000;
        for node in 1..=2 {
            story.slot_is(place(node, 1), SlotState::Starting);
        }
        story.plan();
    }
    let last = story.fleet.last.clone().unwrap();
    assert_eq!(last.phase, RolloutPhase::Reverted, "{}", story.text);
    assert!(last.progress.left.unwrap().contains("node-1"), "{}", story.text);
    let says = "event deployment_rolled_back: back from 1.2.0 to 1.1.0, but not everywhere within its time";
    assert!(story.text.contains(says), "{}", story.text);
}

fn fetching(story: &mut Story, place: Place, error: &str) {
    let assigned = story.fleet.assigned[&place].clone();
    let staging = ObservedStaging {
        release: assigned.release.unwrap(),
        phase: StagingPhase::Fetching,
        error: error.to_owned(),
        fetched_bytes: 0,
    };
    let running = story.fleet.in_force.clone();
    let observed =
        Observed { staging: Some(staging), ..seen(SlotState::Stable, running, assigned.generation) };
    story.report(place, observed);
}

#[test]
fn a_release_that_nobody_could_fetch_is_taken_back_and_not_ghosted() {
    let mut story = Story::running(Strategy::StopFirst, 1, 2);
    story.wish(2);
    story.plan();
    for _ in 0..11 {
        fetching(&mut story, place(1, 1), "the bucket does not answer");
        story.now += 4_000;
        story.plan();
    }
    story.until_calm();
    let last = story.fleet.last.clone().unwrap();
    assert_eq!((last.phase, story.fleet.ghosted.len()), (RolloutPhase::Reverted, 0), "{}", story.text);
    let reason = last.reason.unwrap();
    assert!(reason.contains("the bucket does not answer") && reason.contains("not ghosted"), "{reason}");
    // It is for a person to say that it is worth another try.
    let says = "waits: 1.2.0 was tried and taken back; `deployex deploy shop 1.2.0` tries it again";
    assert!(story.text.contains(says), "{}", story.text);
    story.now += 1_000;
    story.wish(2);
    story.plan();
    assert_eq!(story.phase_now(), Some(RolloutPhase::Running), "{}", story.text);
}

/// Nothing is begun anew on a node whose first slot shows that the release does not run there.
#[test]
fn a_node_on_which_the_release_fails_keeps_what_still_serves_there() {
    let mut story = Story::running(Strategy::StopFirst, 3, 3);
    let deploy = &mut story.fleet.spec.as_mut().unwrap().deploy;
    (deploy.tolerate_failed_nodes, deploy.max_unavailable) = (1, Amount::Count(3));
    deploy.batch = Amount::Count(1);
    story.fleet.nodes.get_mut(&node_id(1)).unwrap().liveness = Liveness::Lost;
    story.wish(2);
    story.until_calm();
    assert_eq!(story.phase_now(), Some(RolloutPhase::Watching), "{}", story.text);
    // It comes back in the watch, and the release does not run there: neither then nor later does it lose all it has.
    story.node_is(1, Liveness::Up);
    for _ in 0..30 {
        story.plan();
        for slot in 1..=3 {
            if story.release_at(1, slot) == Some(2) {
                story.crashed(place(1, slot), 9);
            }
        }
        story.now += 4_000;
    }
    let moved = (1..=3).filter(|slot| story.release_at(1, *slot) == Some(2)).count();
    assert_eq!(moved, 1, "{}", story.text);
    assert_eq!(story.fleet.ghosted.len(), 0, "{}", story.text);
    assert!(story.text.contains("event deployment_failed_on_node: 1.2.0 failed"), "{}", story.text);
}

#[test]
fn a_host_that_comes_late_runs_its_own_pre_commands_too() {
    let mut story = Story::running(Strategy::StopFirst, 1, 2);
    story.fleet.spec.as_mut().unwrap().deploy.pre_commands_run = PreCommandsRun::EveryReplica;
    story.node_is(2, Liveness::Lost);
    story.wish(2);
    story.fleet.wanted.as_mut().unwrap().pre_commands = true;
    story.until_calm();
    let run = |story: &Story, node| story.fleet.assigned[&place(node, 1)].pre_commands_run.clone();
    let (first, rollout) = (run(&story, 1).unwrap(), story.fleet.rollout.as_ref().unwrap().id.to_string());
    assert!(first.starts_with(&rollout));
    story.node_is(2, Liveness::Up);
    story.until_calm();
    assert_eq!(story.release_at(2, 1), Some(2));
    let second = run(&story, 2).unwrap();
    assert!(second.starts_with(&rollout) && second != first, "{second}");
}

/// Also while a newer release is under way, and after that was given up.
#[test]
fn a_host_that_joins_after_a_newer_release_was_given_up_runs_its_own_pre_commands_too() {
    let mut story = Story::running(Strategy::StopFirst, 1, 2);
    story.fleet.spec.as_mut().unwrap().deploy.pre_commands_run = PreCommandsRun::EveryReplica;
    story.wish(2);
    story.fleet.wanted.as_mut().unwrap().pre_commands = true;
    story.until_calm();
    let brought = story.fleet.rollout.as_ref().unwrap().id.to_string();
    for _ in 0..12 {
        story.pass(3);
        story.until_calm();
    }
    assert_eq!(story.phase(), RolloutPhase::Done, "{}", story.text);
    story.wish(3);
    story.plan();
    story.steer(Steering::Pause);
    story.all_do_as_told();
    let run = |story: &Story, node| story.fleet.assigned[&place(node, 1)].pre_commands_run.clone();
    story.fleet.nodes.insert(node_id(3), node(3));
    story.plan();
    assert_eq!(story.release_at(3, 1), Some(2), "{}", story.text);
    assert!(run(&story, 3).is_some_and(|run| run.starts_with(&brought)), "{}", story.text);
    story.all_do_as_told();
    story.steer(Steering::Abort);
    story.until_calm();
    assert_eq!(story.phase(), RolloutPhase::Reverted, "{}", story.text);
    story.fleet.nodes.insert(node_id(4), node(4));
    story.plan();
    assert_eq!(story.release_at(4, 1), Some(2), "{}", story.text);
    assert!(run(&story, 4).is_some_and(|run| run.starts_with(&brought)), "{}", story.text);
}

/// A run is done once, and what was told something else meanwhile runs them again before it starts the release again.
#[test]
fn a_replica_that_is_given_the_release_again_runs_its_own_pre_commands_again() {
    let mut story = Story::running(Strategy::StopFirst, 1, 2);
    story.fleet.spec.as_mut().unwrap().deploy.pre_commands_run = PreCommandsRun::EveryReplica;
    story.wish(2);
    story.fleet.wanted.as_mut().unwrap().pre_commands = true;
    story.until_calm();
    let run = |story: &Story| story.fleet.assigned[&place(2, 1)].pre_commands_run.clone().unwrap();
    let first = run(&story);
    story.fleet.nodes.get_mut(&node_id(2)).unwrap().service = Service::Draining;
    story.until_calm();
    assert_eq!(story.release_at(2, 1), None, "{}", story.text);
    story.fleet.nodes.get_mut(&node_id(2)).unwrap().service = Service::Open;
    story.until_calm();
    assert_eq!(story.release_at(2, 1), Some(2), "{}", story.text);
    assert_ne!(run(&story), first);
}
