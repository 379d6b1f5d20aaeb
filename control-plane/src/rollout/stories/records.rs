//! What is kept of rollouts for people who look at them later.

use super::*;
use crate::rollout::{Drawn, EndedNode, OwnRuns, Record, Runs};
use crate::spec::{Amount, CanarySpec, Millis, PreCommandsRun, Promote};

impl Story {
    /// Batches as they were drawn, of the rollouts of this release.
    fn drawn(&self) -> Vec<String> {
        let batches = self.records.iter().filter_map(|it| match &it.what {
            Record::Drawn(Drawn { number, canary, nodes }) => {
                let nodes: Vec<&str> = nodes.iter().map(proto::ids::NodeName::as_str).collect();
                Some(format!("{number}{}: {}", if *canary { ", canary" } else { "" }, nodes.join(" ")))
            }
            _ => None,
        });
        batches.collect()
    }

    /// How nodes ended, a list for each rollout.
    fn ended(&self) -> Vec<Vec<String>> {
        let node = |EndedNode { node, stage, because }: &EndedNode| {
            let because = because.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
            format!("{node} {stage}{because}")
        };
        let ends = self.records.iter().filter_map(|it| match &it.what {
            Record::Ended(nodes) => Some(nodes.iter().map(node).collect()),
            _ => None,
        });
        ends.collect()
    }
}

#[test]
fn a_rollout_that_is_over_is_kept_with_its_batches_and_how_its_nodes_ended() {
    let mut story = Story::running(Strategy::StopFirst, 1, 5);
    let deploy = &mut story.fleet.spec.as_mut().unwrap().deploy;
    deploy.canary =
        Some(CanarySpec { nodes: Amount::Count(1), promote: Promote::Auto, soak: Millis(20_000) });
    deploy.batch = Amount::Count(2);
    deploy.max_unavailable = Amount::Count(2);
    story.records.clear();
    story.node_is(5, Liveness::Lost);
    story.wish(2);
    story.until_calm();
    assert_eq!(story.drawn(), ["1, canary: node-1"]);
    story.pass(20);
    story.until_calm();
    assert_eq!(story.drawn(), ["1, canary: node-1", "2: node-2 node-3", "3: node-4"]);
    assert_eq!(story.ended().len(), 0, "it is watched still");
    story.pass(31);
    story.until_calm();
    let ended = ["node-1 moved", "node-2 moved", "node-3 moved", "node-4 moved", "node-5 lost"];
    assert_eq!(story.ended(), [ended]);
}

#[test]
fn one_that_is_taken_back_is_kept_as_it_stood_when_it_turned() {
    let mut story = Story::running(Strategy::StopFirst, 1, 4);
    story.records.clear();
    story.wish(2);
    story.plan();
    story.all_do_as_told();
    story.plan();
    story.slot_is(place(2, 1), SlotState::BackingOff);
    while story.fleet.rollout.as_ref().is_some_and(|it| it.phase != RolloutPhase::Reverting) {
        story.now += 4_000;
        story.plan();
    }
    story.all_do_as_told();
    story.until_calm();
    assert_eq!(story.fleet.last.as_ref().unwrap().phase, RolloutPhase::Reverted);
    let ended = story.ended();
    let [ended] = &ended[..] else { panic!("{ended:?}") };
    assert_eq!(ended[0], "node-1 moved");
    assert!(ended[1].starts_with("node-2 failed: slot 1 on node-2 was not stable within"), "{}", ended[1]);
    assert_eq!(ended[2..], ["node-3 to-come", "node-4 to-come"]);
}

#[test]
fn one_that_gives_way_is_kept_as_it_stood_then() {
    let mut story = Story::running(Strategy::StopFirst, 1, 3);
    story.records.clear();
    story.wish(2);
    story.plan();
    story.all_do_as_told();
    story.plan();
    story.wish(3);
    story.plan();
    assert_eq!(story.ended(), [["node-1 moved", "node-2 moving", "node-3 to-come"]]);
    let first = story.records[0].rollout;
    assert!(story.records.iter().any(|it| it.rollout == first && matches!(it.what, Record::Ended(_))));
}

#[test]
fn what_pre_commands_printed_is_kept_once_with_who_ran_them() {
    let mut story = Story::new(Strategy::StopFirst, 1, 2);
    story.fleet.wanted = Some(Wish { pre_commands: true, ..wish(1, 1) });
    story.plan();
    let run_id = story.fleet.assigned[&place(1, 1)].pre_commands_run.clone().unwrap();
    let mut observed = seen(SlotState::Starting, Some(release(1)), 1);
    let outcome = PreCommandsOutcome::Passed;
    observed.pre_commands =
        Some(ObservedPreCommands { run_id, outcome, printed: "$ migrate\ndone\n".into() });
    story.report(place(1, 1), observed);
    story.until_calm();
    let ran: Vec<_> = story.records.iter().filter(|it| matches!(it.what, Record::Ran(_))).collect();
    let [recorded] = &ran[..] else { panic!("{ran:?}") };
    let Record::Ran(Runs::ForAll(ran)) = &recorded.what else { panic!("{recorded:?}") };
    assert_eq!(
        (ran.node.as_str(), ran.slot.number(), ran.output.as_str()),
        ("node-1", 1, "$ migrate\ndone\n")
    );
}

impl Story {
    /// Release 2 is wished, with pre-commands that each replica runs for itself.
    fn of_own_pre_commands(nodes: u8) -> Self {
        let mut story = Self::of(Strategy::StopFirst, nodes, |deploy| {
            deploy.pre_commands_run = PreCommandsRun::EveryReplica;
            deploy.watch = Millis(60_000);
        });
        story.records.clear();
        story.fleet.wanted = Some(Wish { pre_commands: true, ..wish(2, story.now) });
        story.plan();
        story
    }

    /// All that was told, own pre-commands too.
    fn all_ran_their_own(&mut self) {
        self.all_do_as_told();
        for (place, observed) in &mut self.fleet.observed {
            let run = self.fleet.assigned.get(place).and_then(|it| it.pre_commands_run.clone());
            let (outcome, printed) = (PreCommandsOutcome::Passed, format!("$ migrate\non {}\n", place.slot));
            observed.pre_commands =
                run.map(|run_id| ObservedPreCommands { run_id, outcome, printed: printed.into() });
        }
        self.plan();
    }

    fn own_runs(&self) -> Vec<&OwnRuns> {
        let own = |it| match it {
            &Recorded { what: Record::Ran(Runs::Own(ref own)), .. } => Some(own),
            _ => None,
        };
        self.records.iter().filter_map(own).collect()
    }
}

/// And of no more than ten of them.
#[test]
fn what_some_replicas_own_pre_commands_printed_is_kept_and_how_many_passed() {
    let mut story = Story::of_own_pre_commands(12);
    while story.phase() != RolloutPhase::Watching {
        story.all_ran_their_own();
    }
    let ran = story.own_runs();
    let [own] = ran[..] else { panic!("{ran:?}") };
    assert_eq!((own.passed, own.some.len(), own.some[0].output.as_str()), (12, 10, "$ migrate\non 1\n"));

    // One of which no run is told when it is over has run them all the same.
    story.fleet.observed.get_mut(&place(3, 1)).unwrap().pre_commands = None;
    story.pass(61);
    story.plan();
    assert_eq!(story.phase(), RolloutPhase::Done, "{}", story.text);
    assert_eq!(story.own_runs().len(), 1, "{:?}", story.own_runs());
}

/// Also of a release that outlived a watch, which no ghost bears evidence of.
#[test]
fn where_one_replicas_own_pre_commands_fail_it_is_kept_what_it_printed_and_what_the_others_did() {
    let mut story = Story::of_own_pre_commands(3);
    story.fleet.proven.insert(release(2));
    let failing = place(2, 1);
    while story.fleet.assigned[&failing].pre_commands_run.is_none() {
        story.all_ran_their_own();
    }
    let assigned = story.fleet.assigned[&failing].clone();
    let outcome = PreCommandsOutcome::Failed { error: "exit 1".to_owned(), output: "no table".to_owned() };
    let mut observed = seen(SlotState::Failed, None, assigned.generation);
    let run_id = assigned.pre_commands_run.unwrap();
    observed.pre_commands = Some(ObservedPreCommands { run_id, outcome, printed: "".into() });
    story.report(failing, observed);
    story.plan();
    assert_eq!((story.phase(), story.fleet.ghosted.len()), (RolloutPhase::Reverting, 0), "{}", story.text);
    let kept = story.own_runs();
    let Some(OwnRuns { passed: 1, some, failed: Some(failed) }) = kept.last() else { panic!("{kept:?}") };
    assert_eq!((failed.node.as_str(), failed.output.as_str()), ("node-2", "no table"));
    assert_eq!((some[0].node.as_str(), some.len()), ("node-1", 1));
}
