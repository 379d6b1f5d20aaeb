//! Stories of many nodes: batches, canaries, failures that are tolerated, nodes that are kept free, spreads.

use std::num::NonZeroU16;

use proto::state::StagingPhase;

use super::*;
use crate::fleet::ObservedStaging;
use crate::rollout::Steering;
use crate::spec::{Amount, CanarySpec, DeploySpec, Millis, PreCommandsRun, Promote};

impl Story {
    /// Release 1 runs everywhere, on so many nodes, and `deploy` counts from now on.
    fn of(strategy: Strategy, nodes: u8, deploy: impl FnOnce(&mut DeploySpec)) -> Self {
        let mut story = Self::running(strategy, 1, nodes);
        deploy(&mut story.fleet.spec.as_mut().unwrap().deploy);
        story
    }

    fn label(&mut self, number: u8, zone: &str) {
        let node = self.fleet.nodes.get_mut(&node_id(number)).unwrap();
        node.labels.insert("zone".to_owned(), zone.to_owned());
    }

    fn service(&mut self, number: u8, service: Service) {
        self.fleet.nodes.get_mut(&node_id(number)).unwrap().service = service;
        self.say(&format!("# node-{number} is {service}"));
    }

    fn steer(&mut self, steering: Steering) {
        let said = Said { by: "ann".to_owned(), at: Time(self.now) };
        let rollout = self.fleet.rollout.take().unwrap().steered(steering, said).unwrap();
        self.fleet.rollout = Some(rollout);
        self.say(&format!("# ann says {steering:?}"));
    }

    /// A slot crashed, and had crashed that often since it was given its release.
    fn crashed(&mut self, place: Place, crashes: u32) {
        let assigned = &self.fleet.assigned[&place];
        let mut observed = seen(SlotState::BackingOff, assigned.release.clone(), assigned.generation);
        observed.crashes_since_deploy = crashes;
        self.report(place, observed);
    }

    fn phase(&self) -> RolloutPhase {
        let rollout = self.fleet.rollout.as_ref().or(self.fleet.last.as_ref());
        rollout.unwrap().phase
    }

    /// Plans every four seconds, while nobody does anything, for at most ten minutes.
    fn until_it_ends(&mut self) {
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

fn canary(nodes: u32, promote: Promote) -> CanarySpec {
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
    story.steer(Steering::Promote);
    story.until_calm();
    assert_eq!(story.phase(), RolloutPhase::Watching);
    told!(story);
}

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

#[test]
fn a_revert_is_not_canaried_again() {
    let mut story = Story::of(Strategy::StopFirst, 3, |deploy| {
        deploy.canary = Some(canary(1, Promote::Manual));
        deploy.max_unavailable = Amount::Count(3);
    });
    story.wish(2);
    story.until_calm();
    story.steer(Steering::Promote);
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
    story.steer(Steering::Promote);
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
fn each_replica_runs_its_own_pre_commands_where_that_is_asked_for() {
    let mut story = Story::of(Strategy::StopFirst, 2, |deploy| {
        deploy.pre_commands_run = PreCommandsRun::EveryReplica;
    });
    story.fleet.wanted = Some(Wish { pre_commands: true, ..wish(2, story.now) });
    story.until_calm();
    let runs: Vec<_> = story.fleet.assigned.values().filter_map(|it| it.pre_commands_run.clone()).collect();
    assert!(runs.len() == 2 && runs[0] != runs[1], "{runs:?}");
    // A revert runs none.
    story.crashed(place(1, 1), 3);
    story.until_calm();
    assert!(story.fleet.assigned.values().all(|it| it.pre_commands_run.is_none()));
    told!(story);
}

#[test]
fn one_replica_whose_own_pre_commands_fail_takes_the_release_back() {
    let mut story = Story::of(Strategy::StopFirst, 2, |deploy| {
        deploy.pre_commands_run = PreCommandsRun::EveryReplica;
        deploy.tolerate_failed_nodes = 1;
    });
    story.fleet.wanted = Some(Wish { pre_commands: true, ..wish(2, story.now) });
    story.plan();
    story.all_do_as_told();
    story.plan();
    let second = place(2, 1);
    let run_id = story.fleet.assigned[&second].pre_commands_run.clone().unwrap();
    let outcome =
        PreCommandsOutcome::Failed { error: "exit status 1".to_owned(), output: "no table".to_owned() };
    let mut observed = seen(SlotState::Failed, None, story.fleet.assigned[&second].generation);
    observed.pre_commands = Some(ObservedPreCommands { run_id, outcome, printed: "".into() });
    story.report(second, observed);
    story.plan();
    assert!(story.fleet.ghosted.contains(&release(2)));
    assert_eq!(story.phase(), RolloutPhase::Reverting);
}

/// A slot was told to run the pre-commands, and its host restarted meanwhile.
fn cut_off(story: &mut Story, place: Place) {
    let assigned = story.fleet.assigned[&place].clone();
    let error = "pre-command 1 of 1 was cut off by a restart of the host".to_owned();
    let outcome = PreCommandsOutcome::Failed { error: error.clone(), output: String::new() };
    let staging = ObservedStaging {
        release: assigned.release.unwrap(),
        phase: StagingPhase::Failed,
        error,
        fetched_bytes: 0,
    };
    let observed = Observed {
        staging: Some(staging),
        pre_commands: Some(ObservedPreCommands {
            run_id: assigned.pre_commands_run.unwrap(),
            outcome,
            printed: "".into(),
        }),
        ..seen(SlotState::Stable, Some(release(1)), assigned.generation)
    };
    story.report(place, observed);
}

#[test]
fn pre_commands_that_failed_in_an_earlier_rollout_are_run_anew_and_not_held_against_the_next() {
    let mut story = Story::of(Strategy::StopFirst, 2, |_| {});
    let wish = |story: &mut Story, number| {
        story.now += 1_000;
        story.wish(number);
        story.fleet.wanted.as_mut().unwrap().pre_commands = true;
        story.plan();
    };
    wish(&mut story, 2);
    // Of what it does nobody hears before another release is wished.
    wish(&mut story, 3);
    cut_off(&mut story, place(1, 1));
    wish(&mut story, 2);
    assert_eq!(story.fleet.ghosted, [].into(), "{}", story.text);
    assert_eq!(story.fleet.assigned[&place(1, 1)].release, Some(release(1)), "{}", story.text);
    // Somebody runs them for this rollout.
    story.slot_is(place(1, 1), SlotState::Stable);
    story.plan();
    let id = story.fleet.rollout.as_ref().unwrap().id.to_string();
    let runs = |it: &Assigned| it.pre_commands_run.as_ref().is_some_and(|run| run.starts_with(&id));
    assert_eq!(story.fleet.assigned.values().filter(|it| runs(it)).count(), 1, "{}", story.text);
}

#[test]
fn a_leader_that_comes_back_too_late_waits_for_its_turn_like_the_others() {
    let mut story = Story::of(Strategy::StopFirst, 2, |_| {});
    story.wish(2);
    story.fleet.wanted.as_mut().unwrap().pre_commands = true;
    story.plan();
    story.node_is(1, Liveness::Lost);
    story.plan();
    story.node_is(1, Liveness::Up);
    cut_off(&mut story, place(1, 1));
    story.plan();
    let told = |story: &Story, node| story.fleet.assigned[&place(node, 1)].release.clone();
    assert_eq!((told(&story, 1), told(&story, 2)), (Some(release(1)), Some(release(2))), "{}", story.text);

    // Who leads now is lost, too: what never passed does not count as moved.
    story.slot_is(place(1, 1), SlotState::Stable);
    story.node_is(2, Liveness::Lost);
    story.plan();
    assert_eq!(story.fleet.ghosted, [].into(), "{}", story.text);
    assert!(story.fleet.assigned[&place(1, 1)].pre_commands_run.is_some(), "{}", story.text);
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

#[test]
fn a_leader_that_comes_back_when_all_is_over_catches_up_without_them() {
    let mut story = Story::of(Strategy::StopFirst, 2, |_| {});
    story.wish(2);
    story.fleet.wanted.as_mut().unwrap().pre_commands = true;
    story.plan();
    story.node_is(1, Liveness::Lost);
    story.plan();
    let run_id = story.fleet.assigned[&place(2, 1)].pre_commands_run.clone().unwrap();
    let generation = story.fleet.assigned[&place(2, 1)].generation;
    let passed =
        Some(ObservedPreCommands { run_id, outcome: PreCommandsOutcome::Passed, printed: "".into() });
    let observed = Observed { pre_commands: passed, ..seen(SlotState::Stable, Some(release(2)), generation) };
    story.report(place(2, 1), observed);
    while story.plan() {}
    story.pass(31);
    story.plan();
    assert_eq!(story.phase(), RolloutPhase::Done, "{}", story.text);
    story.node_is(1, Liveness::Up);
    cut_off(&mut story, place(1, 1));
    let generation = story.fleet.assigned[&place(1, 1)].generation;
    story.plan();
    let told = &story.fleet.assigned[&place(1, 1)];
    assert!(told.generation > generation && told.pre_commands_run.is_none(), "{}", story.text);
    story.until_calm();
    assert_eq!(story.fleet.assigned[&place(1, 1)].release, Some(release(2)));
}
