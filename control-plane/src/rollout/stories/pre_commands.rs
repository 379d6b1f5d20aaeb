//! Stories of pre-commands: of each replica, and of a leader that is lost while it runs them for all.

use proto::state::StagingPhase;

use super::*;
use crate::fleet::ObservedStaging;
use crate::spec::PreCommandsRun;

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

/// Nor where what is gone back to had its own when it came: they would be run against what the newer release left behind. That
/// holds for a host that was away meanwhile, too.
#[test]
fn what_is_gone_back_to_does_not_run_its_own_pre_commands_again() {
    let mut story = Story::of(Strategy::StopFirst, 3, |deploy| {
        deploy.pre_commands_run = PreCommandsRun::EveryReplica;
    });
    let wished = |story: &mut Story, number| {
        story.wish(number);
        story.fleet.wanted.as_mut().unwrap().pre_commands = true;
        story.until_calm();
    };
    let runs = |story: &Story| -> Vec<bool> {
        story.fleet.assigned.values().map(|it| it.pre_commands_run.is_some()).collect()
    };
    wished(&mut story, 2);
    story.pass(31);
    story.until_calm();
    assert_eq!(story.phase(), RolloutPhase::Done, "{}", story.text);
    wished(&mut story, 3);
    assert_eq!((story.phase(), runs(&story)), (RolloutPhase::Watching, vec![true; 3]), "{}", story.text);
    story.node_is(3, Liveness::Lost);
    story.crashed(place(1, 1), 3);
    story.until_calm();
    story.node_is(3, Liveness::Up);
    story.until_calm();
    let told = |node| story.fleet.assigned[&place(node, 1)].release.clone();
    assert!((1..=3).all(|node| told(node) == Some(release(2))), "{}", story.text);
    assert_eq!(runs(&story), [false; 3], "{}", story.text);
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

/// Its own failed, and the rollout that brought the release is not the last one any more.
#[test]
fn a_replica_whose_own_pre_commands_failed_does_not_start_without_them() {
    let mut story = Story::of(Strategy::StopFirst, 2, |deploy| {
        deploy.pre_commands_run = PreCommandsRun::EveryReplica;
    });
    let told = story.fleet.assigned.get_mut(&place(1, 1)).unwrap();
    told.pre_commands_run = Some("a-run-of-long-ago".to_owned());
    cut_off(&mut story, place(1, 1));
    let observed = story.fleet.observed.get_mut(&place(1, 1)).unwrap();
    (observed.state, observed.running) = (SlotState::Failed, None);
    assert!(!story.plan(), "{}", story.text);
    // Where one slot runs them for all, it need not.
    story.fleet.spec.as_mut().unwrap().deploy.pre_commands_run = PreCommandsRun::Once;
    assert!(story.plan(), "{}", story.text);
    assert_eq!(story.fleet.assigned[&place(1, 1)].pre_commands_run, None);
}

/// It is filled with what is in force in the same plan: a slot of the release was all that had begun on it.
#[test]
fn a_node_whose_leader_comes_back_too_late_gets_its_new_slots_at_once() {
    let mut story = Story::of(Strategy::StopFirst, 2, |_| {});
    story.wish(2);
    story.fleet.wanted.as_mut().unwrap().pre_commands = true;
    story.plan();
    story.node_is(1, Liveness::Lost);
    story.plan();
    story.fleet.spec.as_mut().unwrap().replicas = std::num::NonZeroU16::new(3).unwrap();
    story.say("# three replicas on each node");
    story.plan();
    story.node_is(1, Liveness::Up);
    cut_off(&mut story, place(1, 1));
    story.plan();
    let told = |slot| story.fleet.assigned.get(&place(1, slot)).and_then(|it| it.release.clone());
    assert_eq!([1, 2, 3].map(told), [1, 1, 1].map(|number| Some(release(number))), "{}", story.text);
}

/// A slot that runs the release already, from an earlier deployment of it, is not taken away because its pre-commands failed
/// when it was told anew.
#[test]
fn a_leader_that_comes_back_too_late_and_runs_the_release_keeps_it() {
    let mut story = Story::of(Strategy::StopFirst, 2, |_| {});
    story.wish(2);
    story.fleet.wanted.as_mut().unwrap().pre_commands = true;
    story.plan();
    story.node_is(1, Liveness::Lost);
    story.plan();
    story.node_is(1, Liveness::Up);
    cut_off(&mut story, place(1, 1));
    story.fleet.observed.get_mut(&place(1, 1)).unwrap().running = Some(release(2));
    story.plan();
    assert_eq!(story.fleet.assigned[&place(1, 1)].release, Some(release(2)), "{}", story.text);
    assert_eq!(story.fleet.ghosted, [].into(), "{}", story.text);
}

/// The restart would else be over before it has started anything.
#[test]
fn a_replica_whose_pre_commands_failed_is_not_told_otherwise_while_it_is_started_anew() {
    let mut story = Story::of(Strategy::StopFirst, 2, |_| {});
    let told = story.fleet.assigned.get_mut(&place(1, 1)).unwrap();
    told.pre_commands_run = Some("a-run-of-long-ago".to_owned());
    story.restart(None, None);
    story.plan();
    cut_off(&mut story, place(1, 1));
    story.fleet.observed.get_mut(&place(1, 1)).unwrap().state = SlotState::Stopping;
    story.plan();
    assert!(story.fleet.assigned[&place(1, 1)].pre_commands_run.is_some(), "{}", story.text);
    story.pass(41);
    story.plan();
    assert_eq!(story.fleet.assigned[&place(1, 1)].pre_commands_run, None, "{}", story.text);
}
