//! Stories of many nodes: batches, canaries, failures that are tolerated, nodes that are kept free, spreads.

use super::*;
use crate::rollout::Steering;
use crate::spec::{Amount, CanarySpec, DeploySpec, Millis, Promote};

impl Story {
    /// Release 1 runs everywhere, on so many nodes, and `deploy` counts from now on.
    pub(super) fn of(strategy: Strategy, nodes: u8, deploy: impl FnOnce(&mut DeploySpec)) -> Self {
        let mut story = Self::running(strategy, 1, nodes);
        deploy(&mut story.fleet.spec.as_mut().unwrap().deploy);
        story
    }

    fn label(&mut self, number: u8, zone: &str) {
        let node = self.fleet.nodes.get_mut(&node_id(number)).unwrap();
        node.labels.insert("zone".to_owned(), zone.to_owned());
    }

    pub(super) fn service(&mut self, number: u8, service: Service) {
        self.fleet.nodes.get_mut(&node_id(number)).unwrap().service = service;
        self.say(&format!("# node-{number} is {service}"));
    }

    pub(super) fn steer(&mut self, steering: Steering) {
        let said = Said { by: "ann".to_owned(), at: Time(self.now) };
        let rollout = self.fleet.rollout.take().unwrap().steered(steering, said).unwrap();
        self.fleet.rollout = Some(rollout);
        self.say(&format!("# ann says {steering:?}"));
    }

    /// A slot crashed, and had crashed that often since it was given its release.
    pub(super) fn crashed(&mut self, place: Place, crashes: u32) {
        let assigned = &self.fleet.assigned[&place];
        let mut observed = seen(SlotState::BackingOff, assigned.release.clone(), assigned.generation);
        observed.crashes_since_deploy = crashes;
        self.report(place, observed);
    }

    pub(super) fn phase(&self) -> RolloutPhase {
        let rollout = self.fleet.rollout.as_ref().or(self.fleet.last.as_ref());
        rollout.unwrap().phase
    }

    /// Plans every four seconds, while nobody does anything, for at most ten minutes.
    pub(super) fn until_it_ends(&mut self) {
        for _ in 0..150 {
            self.now += 4_000;
            self.plan();
            if self.fleet.rollout.as_ref().is_none_or(|it| it.phase == RolloutPhase::Reverting) {
                return;
            }
        }
        panic!("{}", self.text);
    }
}

pub(super) fn canary(nodes: u32, promote: Promote) -> CanarySpec {
    CanarySpec { nodes: Amount::Count(nodes), promote, soak: Millis(20_000) }
}

#[test]
fn batches_go_zone_by_zone_with_a_pause_between_them() {
    let mut story = Story::of(Strategy::StopFirst, 5, |deploy| {
        deploy.batch = Amount::Count(2);
        deploy.max_unavailable = Amount::Percent(50);
        deploy.order_by = Some("zone".to_owned());
        deploy.pause_between = Millis(10_000);
    });
    for (node, zone) in [(1, "b"), (2, "a"), (3, "b"), (4, "a")] {
        story.label(node, zone);
    }
    story.wish(2);
    story.until_calm();
    for _ in 0..2 {
        story.pass(10);
        story.until_calm();
    }
    told!(story);
}

#[test]
fn no_more_replicas_are_missing_than_may_be_however_large_the_batch() {
    let mut story = Story::of(Strategy::StopFirst, 4, |deploy| {
        deploy.batch = Amount::Percent(100);
        deploy.max_unavailable = Amount::Count(2);
    });
    story.wish(2);
    story.plan();
    story.slot_is(place(1, 1), SlotState::Ready);
    story.plan();
    told!(story);
}

#[test]
fn the_others_follow_a_canary_when_it_has_soaked() {
    let mut story =
        Story::of(Strategy::StartFirst, 3, |deploy| deploy.canary = Some(canary(1, Promote::Auto)));
    story.wish(2);
    story.until_calm();
    story.pass(19);
    story.plan();
    story.pass(1);
    story.until_calm();
    told!(story);
}

#[test]
fn the_others_wait_behind_a_canary_until_a_person_promotes_it() {
    let mut story =
        Story::of(Strategy::StartFirst, 2, |deploy| deploy.canary = Some(canary(1, Promote::Manual)));
    story.wish(2);
    story.until_calm();
    story.pass(3_600);
    story.plan();
    story.steer(Steering::Promote { batch: None });
    story.until_calm();
    assert_eq!(story.phase(), RolloutPhase::Watching);
    told!(story);
}

/// flyctl #4952.
#[test]
fn a_stopped_canary_is_not_a_ready_one() {
    let mut story =
        Story::of(Strategy::StopFirst, 3, |deploy| deploy.canary = Some(canary(1, Promote::Auto)));
    story.wish(2);
    story.until_calm();
    // It stands still when its time is up, and its soak begins anew.
    story.pass(19);
    story.crashed(place(1, 1), 1);
    story.pass(2);
    story.plan();
    assert!(story.fleet.rollout.as_ref().unwrap().progress.batch.as_ref().unwrap().canary);
    story.slot_is(place(1, 1), SlotState::Stable);
    story.plan();
    story.pass(10);
    story.plan();
    let batch = story.fleet.rollout.as_ref().unwrap().progress.batch.clone().unwrap();
    assert!(batch.canary && batch.nodes == [node_id(1)].into());
    told!(story);
}

#[test]
fn a_canary_that_crashes_again_and_again_while_it_soaks_is_taken_back() {
    let mut story =
        Story::of(Strategy::StopFirst, 3, |deploy| deploy.canary = Some(canary(1, Promote::Manual)));
    story.wish(2);
    story.until_calm();
    for crashes in 1..=3 {
        story.crashed(place(1, 1), crashes);
        story.plan();
    }
    assert!(story.fleet.ghosted.contains(&release(2)));
    story.all_do_as_told();
    story.until_calm();
    assert_eq!(story.phase(), RolloutPhase::Reverted);
    told!(story);
}

/// Nomad #10465.
#[test]
fn an_unrecoverable_canary_ends_and_does_not_stall() {
    let mut story =
        Story::of(Strategy::StartFirst, 3, |deploy| deploy.canary = Some(canary(1, Promote::Manual)));
    story.wish(2);
    story.plan();
    story.slot_is(place(1, 2), SlotState::Starting);
    story.until_it_ends();
    assert!(story.fleet.ghosted.contains(&release(2)));
    story.all_do_as_told();
    story.until_calm();
    assert_eq!((story.phase(), &story.fleet.in_force), (RolloutPhase::Reverted, &Some(release(1))));
}

/// Nomad #10882.
#[test]
fn a_revert_is_not_canaried_again() {
    let mut story = Story::of(Strategy::StopFirst, 3, |deploy| {
        deploy.canary = Some(canary(1, Promote::Manual));
        deploy.max_unavailable = Amount::Count(3);
    });
    story.wish(2);
    story.until_calm();
    story.steer(Steering::Promote { batch: None });
    story.until_calm();
    assert_eq!(story.phase(), RolloutPhase::Watching);
    story.text.clear();
    story.crashed(place(2, 1), 3);
    story.until_calm();
    assert_eq!(story.phase(), RolloutPhase::Reverted);
    told!(story);
}

#[test]
fn what_outlived_a_watch_before_waits_behind_no_canary() {
    let mut story =
        Story::of(Strategy::StopFirst, 3, |deploy| deploy.canary = Some(canary(1, Promote::Manual)));
    story.wish(2);
    story.until_calm();
    story.steer(Steering::Promote { batch: None });
    story.until_calm();
    story.pass(31);
    story.plan();
    assert_eq!(story.phase(), RolloutPhase::Done);
    story.fleet.wanted = Some(Wish { by: WishedBy::Person("ann".to_owned()), ..wish(1, story.now) });
    story.plan();
    assert!(!story.fleet.rollout.as_ref().unwrap().progress.batch.as_ref().unwrap().canary);
    story.all_do_as_told();
    story.until_calm();
    assert_eq!((story.phase(), &story.fleet.in_force), (RolloutPhase::Watching, &Some(release(1))));
}

#[test]
fn a_canary_whose_host_is_lost_is_drawn_anew_and_a_release_that_loses_hosts_is_held_up() {
    let mut story =
        Story::of(Strategy::StopFirst, 4, |deploy| deploy.canary = Some(canary(1, Promote::Auto)));
    story.wish(2);
    for node in 1..=3 {
        story.plan();
        if node < 3 {
            story.node_is(node, Liveness::Lost);
        }
    }
    let batch = story.fleet.rollout.as_ref().unwrap().progress.batch.clone().unwrap();
    assert!(batch.canary && batch.nodes == [node_id(2)].into());
    told!(story);
}

/// Nomad #20295.
#[test]
fn no_rollout_outlives_its_deadline() {
    for strategy in [Strategy::StartFirst, Strategy::StopFirst] {
        let mut story = Story::of(strategy, 3, |deploy| deploy.batch = Amount::Count(3));
        story.wish(2);
        story.plan();
        let began = story.now;
        story.until_it_ends();
        // 40 s for a slot to become stable, looked at every four.
        assert!(story.now - began <= 44_000, "{strategy}: {}", story.now - began);
        for _ in 0..11 {
            story.now += 4_000;
            story.plan();
        }
        assert_eq!(
            story.phase(),
            RolloutPhase::Reverted,
            "{strategy}: nobody did as told, and it ends all the same"
        );
    }
}

#[test]
fn a_node_on_which_the_release_fails_is_left_behind_where_that_is_tolerated() {
    let mut story = Story::of(Strategy::StopFirst, 3, |deploy| deploy.tolerate_failed_nodes = 1);
    story.wish(2);
    story.plan();
    story.slot_is(place(1, 1), SlotState::Starting);
    for _ in 0..11 {
        story.now += 4_000;
        story.plan();
    }
    story.text.clear();
    for node in 2..=3 {
        story.slot_is(place(node, 1), SlotState::Stable);
        story.plan();
    }
    assert_eq!((story.phase(), &story.fleet.in_force), (RolloutPhase::Watching, &Some(release(2))));
    assert!(story.fleet.ghosted.is_empty());
    told!(story);
}

#[test]
fn a_late_failure_on_many_nodes_goes_back_within_what_may_be_missing() {
    let mut story = Story::of(Strategy::StopFirst, 4, |_| {});
    story.wish(2);
    story.until_calm();
    story.text.clear();
    story.crashed(place(2, 1), 3);
    story.until_calm();
    told!(story);
}

#[test]
fn an_aborted_rollout_goes_back_and_is_not_tried_again_for_the_same_wish() {
    let mut story = Story::of(Strategy::StartFirst, 2, |_| {});
    story.wish(2);
    story.plan();
    story.all_do_as_told();
    story.plan();
    story.steer(Steering::Abort);
    story.until_calm();
    assert!(story.fleet.ghosted.is_empty());
    assert_eq!(story.phase(), RolloutPhase::Reverted);
    story.pass(3_600);
    story.plan();
    assert!(story.fleet.rollout.is_none());
    // Wished once more, it is tried once more.
    story.wish(2);
    story.plan();
    assert!(story.fleet.rollout.is_some());
    told!(story);
}

#[test]
fn an_aborted_first_deployment_is_taken_down() {
    let mut story = Story::new(Strategy::StartFirst, 2, 1);
    story.wish(1);
    story.plan();
    story.steer(Steering::Abort);
    story.until_calm();
    assert_eq!((story.phase(), story.fleet.assigned.len()), (RolloutPhase::Failed, 0));
}

#[test]
fn what_the_bucket_names_while_a_rollout_is_paused_is_paused_too_and_what_a_person_names_goes() {
    for (by, paused) in [(WishedBy::Bucket, true), (WishedBy::Person("bob".to_owned()), false)] {
        let mut story = Story::of(Strategy::StartFirst, 1, |_| {});
        story.wish(2);
        story.plan();
        story.steer(Steering::Pause);
        story.wish(3);
        story.fleet.wanted.as_mut().unwrap().by = by;
        story.plan();
        let rollout = story.fleet.rollout.as_ref().unwrap();
        assert_eq!((&rollout.release, rollout.progress.paused.is_some()), (&release(3), paused));
    }
}

#[test]
fn what_an_earlier_rollout_broke_is_mended_while_the_next_one_waits_for_a_person() {
    let mut story =
        Story::of(Strategy::StopFirst, 2, |deploy| deploy.canary = Some(canary(1, Promote::Manual)));
    story.wish(2);
    story.plan();
    story.slot_is(place(1, 1), SlotState::BackingOff);
    story.steer(Steering::Pause);
    story.wish(3);
    story.plan();
    let told = |story: &Story, node| story.fleet.assigned[&place(node, 1)].release.clone();
    assert_eq!(told(&story, 1), Some(release(1)), "{}", story.text);

    // The same behind a canary: what it waits for may be long in coming.
    story.all_do_as_told();
    story.steer(Steering::Resume);
    story.until_calm();
    assert_eq!((told(&story, 1), told(&story, 2)), (Some(release(3)), Some(release(1))), "{}", story.text);
    story.fleet.assigned.get_mut(&place(2, 1)).unwrap().release = Some(release(2));
    story.slot_is(place(2, 1), SlotState::BackingOff);
    story.plan();
    assert_eq!((told(&story, 1), told(&story, 2)), (Some(release(3)), Some(release(1))), "{}", story.text);
}

/// Its node's move has begun, and is paused: nobody waits for what is broken there.
#[test]
fn a_broken_spare_of_an_earlier_rollout_goes_while_the_next_one_is_paused() {
    let mut story = Story::of(Strategy::StartFirst, 2, |_| {});
    story.wish(3);
    story.plan();
    story.steer(Steering::Pause);
    story.all_do_as_told();
    story.plan();
    let told = |story: &Story, slot| story.fleet.assigned[&place(1, slot)].release.clone();
    assert_eq!((told(&story, 1), told(&story, 2)), (Some(release(1)), Some(release(3))), "{}", story.text);
    for (slot, of) in [(1, 3), (2, 2)] {
        story.fleet.assigned.get_mut(&place(1, slot)).unwrap().release = Some(release(of));
    }
    story.slot_is(place(1, 1), SlotState::Stable);
    story.slot_is(place(1, 2), SlotState::BackingOff);
    story.plan();
    assert_eq!((told(&story, 1), told(&story, 2)), (Some(release(3)), None), "{}", story.text);
    story.until_calm();
    assert!(story.fleet.rollout.as_ref().unwrap().progress.paused.is_some(), "{}", story.text);
}

/// Where no node may run it, there is no trial: what was withdrawn in the middle of one has all of its time when it is told anew.
#[test]
fn a_slot_that_was_withdrawn_in_its_trial_has_all_of_its_time_once_it_is_told_anew() {
    let mut story = Story::new(Strategy::StartFirst, 1, 1);
    story.wish(2);
    story.plan();
    story.slot_is(place(1, 1), SlotState::Starting);
    story.pass(30);
    let eligible = |story: &mut Story, is: bool| {
        story.fleet.nodes.get_mut(&node_id(1)).unwrap().eligible = is;
        story.say(&format!("# node-1 may run it: {is}"));
    };
    eligible(&mut story, false);
    story.until_calm();
    assert!(story.fleet.assigned.is_empty(), "{}", story.text);
    eligible(&mut story, true);
    story.plan();
    story.slot_is(place(1, 1), SlotState::Starting);
    story.pass(30);
    story.plan();
    assert_eq!((story.phase(), story.fleet.ghosted.len()), (RolloutPhase::Running, 0), "{}", story.text);
    story.pass(11);
    story.plan();
    assert!(story.fleet.ghosted.contains(&release(2)), "{}", story.text);
}

/// Its other slot runs what is rolled out now, from long ago: that is no move that would mend the broken one.
#[test]
fn what_another_rollout_broke_on_a_node_that_ran_the_release_before_holds_nobody_up() {
    let mut story = Story::running(Strategy::StopFirst, 2, 2);
    story.node_is(1, Liveness::Lost);
    story.wish(2);
    story.until_calm();
    story.pass(31);
    story.until_calm();
    assert_eq!(story.phase(), RolloutPhase::Done, "{}", story.text);
    story.node_is(1, Liveness::Up);
    story.now += 1_000;
    story.wish(3);
    story.plan();
    story.slot_is(place(1, 1), SlotState::Starting);
    story.node_is(1, Liveness::Lost);
    story.now += 1_000;
    story.wish(1);
    story.plan();
    story.all_do_as_told();
    story.node_is(1, Liveness::Up);
    let told = |story: &Story, node, slot| story.fleet.assigned[&place(node, slot)].release.clone();
    let on_node_1 = [1, 2].map(|slot| told(&story, 1, slot));
    assert_eq!(on_node_1, [Some(release(3)), Some(release(1))], "{}", story.text);
    story.plan();
    assert_eq!(told(&story, 1, 1), Some(release(2)), "{}", story.text);
    story.all_do_as_told();
    story.until_calm();
    let all = [(1, 1), (1, 2), (2, 1), (2, 2)].map(|(node, slot)| told(&story, node, slot));
    assert_eq!(
        (story.phase(), all),
        (RolloutPhase::Watching, [1; 4].map(|it| Some(release(it)))),
        "{}",
        story.text
    );
}

/// Its restart is what is missing, whatever the clock says of when it was asked for.
#[test]
fn a_replica_that_is_started_anew_is_missing_also_where_the_clock_was_put_back() {
    let mut story = Story::running(Strategy::StopFirst, 1, 2);
    story.restart(Some(2), Some(1));
    story.plan();
    story.slot_is(place(2, 1), SlotState::Starting);
    story.now -= 600_000;
    story.say("# the clock is put back");
    story.wish(2);
    story.plan();
    let told = |node| story.fleet.assigned[&place(node, 1)].release.clone();
    assert_eq!((told(1), told(2)), (Some(release(1)), Some(release(2))), "{}", story.text);
}
