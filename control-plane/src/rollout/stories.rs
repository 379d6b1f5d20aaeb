//! Stories of rollouts, told as a person would read them: what happened, what was planned, what is waited for.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proto::ids::{NodeId, RestartId};
use proto::replicas::ProbeList;
use proto::state::{Liveness, RolloutPhase, Service, SlotState, Strategy};

use super::fixture::{connected, fleet, node, node_id, place, release, seen, store, wish};
use super::{Happening, InForce, Plan, Recorded, Rollout, Said, Step, plan};
use crate::clock::Time;
use crate::fleet::{
    AppFleet, Assigned, Observed, ObservedCheck, ObservedExit, ObservedPreCommands, Place,
    PreCommandsOutcome, RestartWish, Wish, WishedBy,
};

/// A fleet whose agents do what the story says, and what was planned for it so far.
struct Story {
    fleet: AppFleet,
    generations: BTreeMap<NodeId, u64>,
    now: u64,
    text: String,
    records: Vec<Recorded>,
    happened: Vec<Happening>,
}

impl Story {
    fn new(strategy: Strategy, replicas: u16, nodes: u8) -> Self {
        let fleet = fleet(strategy, replicas, nodes);
        Self {
            fleet,
            generations: BTreeMap::new(),
            now: 1_000_000,
            text: String::new(),
            records: Vec::new(),
            happened: Vec::new(),
        }
    }

    /// With release 1 stable everywhere and in force.
    fn running(strategy: Strategy, replicas: u16, nodes: u8) -> Self {
        let mut story = Self::new(strategy, replicas, nodes);
        story.wish(1);
        story.until_calm();
        story.pass(31);
        story.plan();
        story.text.clear();
        story.now = 2_000_000;
        story
    }

    fn say(&mut self, what: &str) {
        writeln!(self.text, "{what}").unwrap();
    }

    fn wish(&mut self, number: u8) {
        self.fleet.wanted = Some(wish(number, self.now));
        self.say(&format!("# 1.{number}.0 is wished"));
    }

    fn restart(&mut self, node: Option<u8>, slot: Option<u16>) {
        self.now += 1_000;
        let slot = slot.map(|slot| place(1, slot).slot);
        let id = RestartId(uuid::Uuid::from_u128(u128::from(self.now)));
        let (node, by, at) = (node.map(node_id), "ann".to_owned(), Time(self.now));
        self.fleet.generation += 1;
        let generation = self.fleet.generation;
        self.fleet.restarts.push(RestartWish { id, generation, node, slot, by, because: None, at });
        self.say("# a restart is asked for");
    }

    /// Somebody plans whenever that is due, up to where something is decided, which is left to be told.
    fn pass(&mut self, seconds: u64) {
        let end = self.now + seconds * 1_000;
        while let Some(due) = plan(&self.fleet, Time(self.now)).wake_at.filter(|at| at.0 <= end) {
            let planned = plan(&self.fleet, due);
            // To have counted the time is no news.
            let (rollouts, predecessors) = (planned.rollouts.clone(), planned.predecessors.clone());
            let counted = Plan { rollouts, predecessors, ..Plan::default() };
            let silent = Plan { waiting: Vec::new(), wake_at: None, ..planned.clone() } == counted;
            let over = |it: &Rollout| it.finished_at.is_some() && it.phase != RolloutPhase::Superseded;
            if due.0 <= self.now || !silent || planned.rollouts.iter().chain(&planned.predecessors).any(over)
            {
                break;
            }
            self.now = due.0;
            store(&mut self.fleet, &planned, &mut self.generations, due);
        }
        self.now = end;
        self.say(&format!("# {seconds} s pass"));
    }

    /// Nobody plans meanwhile; or the clock is put forward, which is the same to whoever plans then.
    fn leap(&mut self, seconds: u64) {
        self.now += seconds * 1_000;
        self.say(&format!("# {seconds} s pass, in which nobody plans"));
    }

    fn node_is(&mut self, number: u8, liveness: Liveness) {
        self.fleet.nodes.get_mut(&node_id(number)).unwrap().liveness = liveness;
        self.say(&format!("# node-{number} is {liveness}"));
    }

    fn slot_is(&mut self, place: Place, state: SlotState) {
        let assigned = &self.fleet.assigned[&place];
        let mut observed = seen(state, assigned.release.clone(), assigned.generation);
        if state == SlotState::Ready {
            observed.ready_since = Some(Time(self.now));
        }
        self.report(place, observed);
    }

    fn report(&mut self, place: Place, observed: Observed) {
        self.say(&format!("# {} is {}", self.name(place), observed.state));
        self.fleet.observed.insert(place, observed);
    }

    /// Every slot of a node that is up has done what it was told.
    fn all_do_as_told(&mut self) {
        for (place, assigned) in &self.fleet.assigned {
            // What cannot be upgraded waits for another word.
            let upgrade = self.fleet.observed.get(place).and_then(|seen| seen.upgrade.clone());
            if assigned.hot.as_ref().is_some_and(|hot| upgrade.is_some_and(|it| it.attempt == hot.attempt)) {
                continue;
            }
            if self.fleet.nodes[&place.node].liveness == Liveness::Up {
                let state = if assigned.release.is_some() { SlotState::Stable } else { SlotState::Empty };
                let crashes = self.fleet.observed.get(place).map_or(0, |seen| seen.crashes_since_deploy);
                let mut observed = seen(state, assigned.release.clone(), assigned.generation);
                observed.crashes_since_deploy = crashes;
                if !self.fleet.packages.is_empty() {
                    (observed.hot_upgrades, observed.erlang) = (true, Some(connected()));
                }
                self.fleet.observed.insert(*place, observed);
            }
        }
    }

    /// Plans, stores, and sees that nothing is left over. True where something was planned.
    fn plan(&mut self) -> bool {
        let planned = plan(&self.fleet, Time(self.now));
        let moved = !planned.is_empty();
        self.records.extend(planned.records.iter().cloned());
        self.happened.extend(planned.events.iter().cloned());
        store(&mut self.fleet, &planned, &mut self.generations, Time(self.now));
        let after = plan(&self.fleet, Time(self.now));
        assert!(after.is_empty(), "{after:?}");
        self.tell(&planned, &after);
        moved
    }

    /// Plans on while everybody does as told.
    fn until_calm(&mut self) {
        while self.plan() {
            self.all_do_as_told();
        }
    }

    fn name(&self, place: Place) -> String {
        format!("slot {} on {}", place.slot, self.fleet.nodes[&place.node].name)
    }

    fn tell(&mut self, planned: &Plan, after: &Plan) {
        let mut lines = Vec::new();
        for rollout in &planned.rollouts {
            let because = rollout.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            lines.push(format!("rollout of {} is {}{because}", rollout.release.version, rollout.phase));
        }
        for rollout in planned.predecessors.iter().filter(|it| it.phase != RolloutPhase::Superseded) {
            lines.push(format!("rollout of {} is {}", rollout.release.version, rollout.phase));
        }
        for step in &planned.steps {
            let name = self.name(step.place());
            lines.push(match step {
                Step::Assign { release, hot: Some(hot), .. } => {
                    format!("{name} is hot-upgraded from {} to {}", hot.from.version, release.version)
                }
                Step::Assign { release, pre_commands_run: None, .. } => {
                    format!("{name} gets {}", release.version)
                }
                Step::Assign { release, .. } => {
                    format!("{name} gets {}, and runs its pre-commands", release.version)
                }
                Step::Withdraw { .. } => format!("{name} is withdrawn"),
                Step::Forget { .. } => format!("{name} is forgotten"),
                Step::Restart { .. } => format!("{name} is started anew"),
            });
        }
        match &planned.in_force {
            Some(InForce::Release(release)) => lines.push(format!("{} is in force", release.version)),
            Some(InForce::Nothing) => lines.push("nothing is in force".to_owned()),
            None => {}
        }
        lines.extend(planned.ghosts.iter().map(|ghost| format!("{} is ghosted", ghost.release.version)));
        lines.extend(planned.events.iter().map(|it| format!("event {}: {}", it.kind.word(), it.text)));
        lines.extend(after.waiting.iter().map(|waiting| format!("waits: {waiting}")));
        for line in lines {
            writeln!(self.text, "  {line}").unwrap();
        }
    }
}

macro_rules! told {
    ($story:expr) => {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($story.text);
        })
    };
}

mod back;
mod fleets;
mod hot;
mod places;
mod pre_commands;
mod predecessors;
mod records;
mod thresholds;
mod tries;

#[test]
fn a_first_deployment_starts_every_slot_at_once_after_its_pre_commands() {
    let mut story = Story::new(Strategy::StartFirst, 2, 2);
    story.fleet.wanted = Some(Wish { pre_commands: true, ..wish(1, 1) });
    story.plan();
    let run_id = story.fleet.assigned[&place(1, 1)].pre_commands_run.clone().unwrap();
    let mut observed = seen(SlotState::Starting, Some(release(1)), 1);
    observed.pre_commands = Some(ObservedPreCommands {
        run_id,
        outcome: PreCommandsOutcome::Passed,
        printed: "$ migrate\ndone\n".into(),
    });
    story.report(place(1, 1), observed);
    story.until_calm();
    told!(story);
}

/// Nomad #3836, #6864.
#[test]
fn healthy_replicas_are_not_stopped_before_their_successor_is_healthy() {
    let mut story = Story::running(Strategy::StartFirst, 2, 1);
    story.wish(2);
    story.plan();
    story.slot_is(place(1, 3), SlotState::Starting);
    story.plan();
    story.slot_is(place(1, 3), SlotState::Ready);
    story.pass(1);
    story.plan();
    story.slot_is(place(1, 3), SlotState::Stable);
    story.until_calm();
    told!(story);
}

#[test]
fn stop_first_takes_one_slot_at_a_time_and_one_node_after_the_other() {
    let mut story = Story::running(Strategy::StopFirst, 2, 2);
    story.wish(2);
    story.until_calm();
    told!(story);
}

#[test]
fn a_release_that_does_not_become_stable_is_ghosted_and_its_revert_is_not_deployed_again() {
    let mut story = Story::running(Strategy::StartFirst, 1, 1);
    story.wish(2);
    story.plan();
    let mut observed =
        seen(SlotState::BackingOff, Some(release(2)), story.fleet.assigned[&place(1, 2)].generation);
    observed.crashes_since_deploy = 4;
    observed.last_exit = Some(ObservedExit {
        cause: proto::state::ExitCause::Code(1),
        at: Time(0),
        asked_for: false,
        log_tail: "** (RuntimeError) no database".to_owned(),
        slogan: String::new(),
        crash_dump: String::new(),
        because: String::new(),
    });
    story.report(place(1, 2), observed);
    for _ in 0..10 {
        story.now += 4_000;
        let planned = plan(&story.fleet, Time(story.now));
        store(&mut story.fleet, &planned, &mut story.generations, Time(story.now));
        if let Some(ghost) = planned.ghosts.first() {
            story.say("# 40 s pass, looked at every 4 s");
            assert_eq!(ghost.evidence.last_exit.as_ref().unwrap().log_tail, "** (RuntimeError) no database");
            let after = plan(&story.fleet, Time(story.now));
            story.tell(&planned, &after);
        }
    }
    story.all_do_as_told();
    story.until_calm();
    told!(story);
}

#[test]
fn a_release_that_never_passes_its_check_is_ghosted_with_what_it_answered_last() {
    let mut story = Story::running(Strategy::StartFirst, 1, 1);
    story.wish(2);
    story.plan();
    let generation = story.fleet.assigned[&place(1, 2)].generation;
    let mut observed = seen(SlotState::Starting, Some(release(2)), generation);
    observed.failed_check = Some(ObservedCheck {
        list: ProbeList::Ready,
        asked: "GET /health on port 4001".to_owned(),
        outcome: "answered 503".to_owned(),
        body: "database\ndown".to_owned(),
        at: Time(0),
        in_a_row: 30,
        log_tail: "[error] no database".to_owned(),
    });
    story.report(place(1, 2), observed);
    let mut ghosts = Vec::new();
    for _ in 0..10 {
        story.now += 4_000;
        let planned = plan(&story.fleet, Time(story.now));
        store(&mut story.fleet, &planned, &mut story.generations, Time(story.now));
        ghosts.extend(planned.ghosts);
    }
    let [ghost] = &ghosts[..] else { panic!("{ghosts:?}") };
    let why = "(GET /health on port 4001 answered 503: \"database down\")";
    assert!(ghost.reason.ends_with(why), "{}", ghost.reason);
    assert_eq!(ghost.evidence.log_tail(), Some("[error] no database"));
}

#[test]
fn a_first_deployment_that_fails_leaves_its_slots_empty() {
    let mut story = Story::new(Strategy::StartFirst, 1, 1);
    story.fleet.wanted = Some(Wish { pre_commands: true, ..wish(1, 1) });
    story.plan();
    let run_id = story.fleet.assigned[&place(1, 1)].pre_commands_run.clone().unwrap();
    let outcome = PreCommandsOutcome::Failed {
        error: "eval Shop.migrate: exit status 1".to_owned(),
        output: String::new(),
    };
    let mut observed = seen(SlotState::Failed, None, 1);
    observed.pre_commands = Some(ObservedPreCommands { run_id, outcome, printed: "".into() });
    story.report(place(1, 1), observed);
    story.until_calm();
    told!(story);
}

/// deploy-rs #221.
#[test]
fn one_dead_host_does_not_abort_the_rest_and_catches_up() {
    let mut story = Story::running(Strategy::StopFirst, 1, 3);
    story.node_is(2, Liveness::Lost);
    story.wish(2);
    story.until_calm();
    story.node_is(2, Liveness::Up);
    story.until_calm();
    told!(story);
}

/// Nomad #10881.
#[test]
fn a_late_failure_reverts_without_a_second_outage() {
    let mut story = Story::running(Strategy::StartFirst, 2, 1);
    story.wish(2);
    story.until_calm();
    story.text.clear();
    let mut observed =
        seen(SlotState::BackingOff, Some(release(2)), story.fleet.assigned[&place(1, 1)].generation);
    observed.crashes_since_deploy = 3;
    story.report(place(1, 1), observed);
    story.until_calm();
    told!(story);
}

/// One command restarts a whole application: Nomad #698.
#[test]
fn a_rolling_restart_borrows_the_spare_and_goes_slot_by_slot() {
    let mut story = Story::running(Strategy::StartFirst, 2, 2);
    story.restart(Some(1), None);
    story.until_calm();
    assert!(story.fleet.restarts.is_empty());
    told!(story);
}

#[test]
fn a_rolling_restart_stops_at_a_slot_that_does_not_come_back() {
    let mut story = Story::running(Strategy::StopFirst, 1, 2);
    story.restart(None, None);
    story.plan();
    let generation = story.fleet.assigned[&place(1, 1)].generation;
    let observed = seen(SlotState::BackingOff, Some(release(1)), generation);
    story.report(place(1, 1), observed);
    story.plan();
    story.pass(41);
    story.plan();
    assert!(story.fleet.restarts.is_empty() && story.fleet.ghosted.is_empty());
    told!(story);
}

#[test]
fn a_named_replica_is_restarted_while_a_rollout_moves_and_a_rolling_restart_waits_for_it() {
    let mut story = Story::running(Strategy::StopFirst, 2, 1);
    story.wish(2);
    story.plan();
    story.restart(None, None);
    story.restart(Some(1), Some(2));
    story.plan();
    story.all_do_as_told();
    story.until_calm();
    told!(story);
}

#[test]
fn a_host_that_joins_and_cannot_run_the_first_release_takes_it_from_no_other() {
    let mut story = Story::new(Strategy::StartFirst, 1, 2);
    story.wish(1);
    story.until_calm();
    story.text.clear();
    let (id, joined) = (node_id(3), node(3));
    story.fleet.nodes.insert(id, joined);
    story.plan();
    let mut observed =
        seen(SlotState::BackingOff, Some(release(1)), story.fleet.assigned[&place(3, 1)].generation);
    observed.crashes_since_deploy = 7;
    story.report(place(3, 1), observed);
    story.plan();
    story.pass(31);
    story.plan();
    assert!(story.fleet.ghosted.is_empty() && story.fleet.in_force == Some(release(1)));
    told!(story);
}

#[test]
fn what_a_lost_node_said_last_is_no_reason_to_take_a_first_release_down() {
    let mut story = Story::new(Strategy::StartFirst, 1, 2);
    story.wish(1);
    story.until_calm();
    let mut observed =
        seen(SlotState::BackingOff, Some(release(1)), story.fleet.assigned[&place(1, 1)].generation);
    observed.crashes_since_deploy = 3;
    story.report(place(1, 1), observed);
    for (node, liveness) in [(1, Liveness::Lost), (2, Liveness::Lost)] {
        story.node_is(node, liveness);
        story.plan();
    }
    story.node_is(1, Liveness::Up);
    story.plan();
    assert!(story.fleet.ghosted.is_empty() && story.fleet.in_force == Some(release(1)));
}

#[test]
fn a_slot_that_was_given_and_withdrawn_before_its_agent_heard_of_either_is_forgotten() {
    let mut story = Story::running(Strategy::StopFirst, 1, 1);
    let spare = place(1, 2);
    story.fleet.observed.insert(spare, seen(SlotState::Empty, None, 1));
    let withdrawn = Assigned {
        release: None,
        pre_commands_run: None,
        generation: 9,
        since: Time(story.now),
        begun_at: 0,
        restart: None,
        hot: None,
    };
    story.fleet.assigned.insert(spare, withdrawn);
    story.fleet.nodes.get_mut(&node_id(1)).unwrap().stored = 8;
    story.plan();
    assert!(story.fleet.assigned.contains_key(&spare), "the agent has yet to hear of it");
    story.fleet.nodes.get_mut(&node_id(1)).unwrap().stored = 9;
    story.plan();
    assert!(!story.fleet.assigned.contains_key(&spare));
}

#[test]
fn the_leader_of_the_pre_commands_is_replaced_only_when_it_is_lost_unfinished() {
    let mut story = Story::running(Strategy::StopFirst, 1, 2);
    story.fleet.wanted = Some(Wish { pre_commands: true, ..wish(2, 7) });
    story.plan();
    story.node_is(1, Liveness::Suspect);
    story.plan();
    story.node_is(1, Liveness::Lost);
    story.plan();
    told!(story);
}

#[test]
fn an_outage_ghosts_nothing() {
    let mut story = Story::running(Strategy::StopFirst, 1, 1);
    story.wish(2);
    story.plan();
    story.node_is(1, Liveness::Lost);
    story.plan();
    story.pass(100_000);
    story.plan();
    story.node_is(1, Liveness::Up);
    story.plan();
    told!(story);
}

#[test]
fn a_slot_that_is_stable_now_and_then_does_not_hold_up_a_rollout_for_ever() {
    let mut story = Story::running(Strategy::StopFirst, 1, 2);
    story.wish(2);
    story.plan();
    for _ in 0..40 {
        story.slot_is(place(1, 1), SlotState::Unready);
        for _ in 0..2 {
            let planned = plan(&story.fleet, Time(story.now));
            store(&mut story.fleet, &planned, &mut story.generations, Time(story.now));
            if !planned.ghosts.is_empty() {
                return;
            }
            story.now += 2_000;
        }
        story.slot_is(place(1, 1), SlotState::Ready);
    }
    panic!("it goes on: {}", story.text);
}

#[test]
fn a_wish_that_is_taken_back_goes_back_without_a_ghost() {
    let mut story = Story::running(Strategy::StartFirst, 1, 1);
    story.wish(2);
    story.plan();
    story.all_do_as_told();
    story.plan();
    story.wish(1);
    story.until_calm();
    told!(story);
}

#[test]
fn a_release_in_its_watch_goes_back_to_where_it_came_from_when_a_person_asks_for_that() {
    let mut story = Story::running(Strategy::StartFirst, 1, 1);
    story.wish(2);
    story.until_calm();
    story.wish(1);
    story.fleet.wanted.as_mut().unwrap().by = WishedBy::Person("ann".to_owned());
    story.until_calm();
    told!(story);
}

#[test]
fn a_rollout_that_is_paused_moves_no_further_slot_until_it_is_resumed() {
    let mut story = Story::running(Strategy::StopFirst, 2, 1);
    story.wish(2);
    story.plan();
    story.all_do_as_told();
    let by = "ann".to_owned();
    story.fleet.rollout.as_mut().unwrap().progress.paused = Some(Said { by, at: Time(story.now) });
    story.say("# ann pauses it");
    for _ in 0..3 {
        story.pass(31);
        story.all_do_as_told();
        story.plan();
    }
    story.fleet.rollout.as_mut().unwrap().progress.paused = None;
    story.say("# it is resumed");
    story.until_calm();
    told!(story);
}

#[test]
fn a_newer_wish_takes_the_place_of_one_under_way() {
    let mut story = Story::running(Strategy::StartFirst, 1, 1);
    story.wish(2);
    story.plan();
    story.wish(3);
    story.until_calm();
    told!(story);
}

#[test]
fn a_release_that_outlived_its_watch_is_taken_back_and_not_ghosted() {
    let mut story = Story::running(Strategy::StopFirst, 1, 1);
    story.wish(2);
    story.until_calm();
    story.pass(31);
    story.plan();
    story.text.clear();
    story.fleet.wanted = Some(Wish { by: WishedBy::Person("ada".to_owned()), ..wish(1, 9) });
    story.plan();
    let generation = story.fleet.assigned[&place(1, 1)].generation;
    let mut observed = seen(SlotState::Failed, None, generation);
    observed.staging = Some(crate::fleet::ObservedStaging {
        release: release(1),
        phase: proto::state::StagingPhase::Failed,
        error: "no space left on the device".to_owned(),
        fetched_bytes: 0,
    });
    story.report(place(1, 1), observed);
    story.until_calm();
    told!(story);
}

#[test]
fn more_and_fewer_replicas_and_none_at_all() {
    let mut story = Story::running(Strategy::StartFirst, 1, 1);
    story.say("# 3 replicas");
    story.fleet.spec.as_mut().unwrap().replicas = 3.try_into().unwrap();
    story.until_calm();
    story.say("# 1 replica");
    story.fleet.spec.as_mut().unwrap().replicas = 1.try_into().unwrap();
    story.until_calm();
    story.say("# no longer configured");
    story.fleet.spec = None;
    story.fleet.nodes.values_mut().for_each(|node| node.eligible = false);
    story.until_calm();
    told!(story);
}
