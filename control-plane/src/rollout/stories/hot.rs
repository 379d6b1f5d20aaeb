//! Stories of releases that are brought into what runs: where, in which order, and what follows where one cannot be.

use std::sync::Arc;

use proto::hot_upgrade::HotUpgradePolicy;
use proto::state::UpgradeState;

use super::fleets::canary;
use super::*;
use crate::fleet::ObservedUpgrade;
use crate::rollout::Steering;
use crate::rollout::fixture::package;
use crate::spec::Promote;

impl Story {
    /// With release 1 in force, agents that know of hot upgrades, and a way from every release to every other.
    pub(super) fn hot(strategy: Strategy, replicas: u16, nodes: u8, policy: HotUpgradePolicy) -> Self {
        let mut story = Self::new(strategy, replicas, nodes);
        let releases = (1..=4).map(release);
        story.fleet.packages = releases.map(|it| (it.clone(), package(&it))).collect();
        story.fleet.spec.as_mut().unwrap().deploy.hot_upgrade = policy;
        story.wish(1);
        story.until_calm();
        story.pass(31);
        story.plan();
        story.text.clear();
        story.now = 2_000_000;
        story
    }

    /// It runs on as it was.
    pub(super) fn cannot_be_upgraded(&mut self, place: Place, because: &str, of_package: bool) {
        let assigned = &self.fleet.assigned[&place];
        let hot = assigned.hot.clone().expect("it was told to be upgraded");
        let mut observed = seen(SlotState::Stable, Some(hot.from.clone()), assigned.generation);
        observed.upgrade = Some(Arc::new(ObservedUpgrade {
            attempt: hot.attempt,
            from: hot.from,
            to: assigned.release.clone().unwrap(),
            state: UpgradeState::Failed,
            done: Vec::new(),
            step: "relup".to_owned(),
            step_since: None,
            because: because.to_owned(),
            of_package,
            spoiled: false,
            at: None,
        }));
        (observed.hot_upgrades, observed.erlang) = (true, Some(connected()));
        self.say(&format!("# {} cannot be upgraded: {because}", self.name(place)));
        self.fleet.observed.insert(place, observed);
    }
}

#[test]
fn what_runs_is_upgraded_one_after_the_other_and_needs_no_spare() {
    let mut story = Story::hot(Strategy::StartFirst, 2, 2, HotUpgradePolicy::Auto);
    story.wish(2);
    story.until_calm();
    assert!(!story.text.contains("slot 3"), "{}", story.text);
    assert_eq!(story.text.matches("is hot-upgraded").count(), 4, "{}", story.text);
    told!(story);
}

#[test]
fn what_fails_by_its_package_is_tried_nowhere_else_and_goes_on_with_a_spare() {
    let mut story = Story::hot(Strategy::StartFirst, 2, 2, HotUpgradePolicy::Auto);
    story.wish(2);
    story.plan();
    story.cannot_be_upgraded(place(1, 1), "no such module", true);
    story.until_calm();
    assert_eq!(story.text.matches("is hot-upgraded").count(), 1, "{}", story.text);
    // Nobody is away: the spare comes first.
    let spare = story.text.find("slot 3 on node-1 gets").unwrap_or_else(|| panic!("{}", story.text));
    assert!(spare < story.text.find("slot 1 on node-1 gets").unwrap(), "{}", story.text);
    told!(story);
}

#[test]
fn what_was_spoiled_and_started_anew_is_told_that_it_came_in_full() {
    let mut story = Story::hot(Strategy::StopFirst, 1, 2, HotUpgradePolicy::Auto);
    story.wish(2);
    story.plan();
    let spoiled = place(1, 1);
    story.cannot_be_upgraded(spoiled, "code_change raised", true);
    let observed = story.fleet.observed.get_mut(&spoiled).unwrap();
    (observed.state, observed.running) = (SlotState::Starting, Some(release(2)));
    Arc::make_mut(observed.upgrade.as_mut().unwrap()).spoiled = true;
    story.plan();
    let told = &story.fleet.assigned[&spoiled];
    assert_eq!((told.release.as_ref(), told.hot.as_ref()), (Some(&release(2)), None));
    let generation = told.generation;
    story.until_calm();
    assert_eq!(story.fleet.assigned[&spoiled].generation, generation, "{}", story.text);
    told!(story);
}

#[test]
fn what_fails_by_its_host_is_deployed_in_full_there_alone() {
    let mut story = Story::hot(Strategy::StopFirst, 1, 3, HotUpgradePolicy::Auto);
    story.wish(2);
    story.plan();
    story.cannot_be_upgraded(place(1, 1), "the disk is full", false);
    story.until_calm();
    assert_eq!(story.text.matches("is hot-upgraded").count(), 3, "{}", story.text);
    assert_eq!(story.text.matches("slot 1 on node-1 gets 1.2.0").count(), 1, "{}", story.text);
    told!(story);
}

#[test]
fn where_nothing_else_is_allowed_what_cannot_be_upgraded_is_ghosted() {
    let mut story = Story::hot(Strategy::StartFirst, 1, 2, HotUpgradePolicy::Require);
    story.wish(2);
    story.plan();
    story.all_do_as_told();
    story.plan();
    story.cannot_be_upgraded(place(2, 1), "the disk is full", true);
    story.plan();
    story.until_calm();
    assert!(story.fleet.ghosted.contains(&release(2)), "{}", story.text);
    told!(story);
}

#[test]
fn where_nothing_else_is_allowed_a_release_without_a_way_to_it_waits() {
    let mut story = Story::hot(Strategy::StartFirst, 1, 1, HotUpgradePolicy::Require);
    story.fleet.packages.values_mut().for_each(|package| package.appups.clear());
    story.wish(2);
    assert!(!story.plan(), "{}", story.text);
    assert!(story.text.contains("has no appup") && story.text.contains("`require`"), "{}", story.text);
    // A release of an earlier agent's host is not upgraded behind its back.
    story.fleet.spec.as_mut().unwrap().deploy.hot_upgrade = HotUpgradePolicy::Auto;
    story.until_calm();
    assert!(!story.text.contains("is hot-upgraded"), "{}", story.text);
    told!(story);
}

#[test]
fn settings_that_no_upgrade_brings_are_brought_in_full_or_go_on_waiting() {
    for policy in [HotUpgradePolicy::Auto, HotUpgradePolicy::Require] {
        let mut story = Story::hot(Strategy::StopFirst, 1, 1, policy);
        let observed = story.fleet.observed.get_mut(&place(1, 1)).unwrap();
        observed.waiting_settings = vec!["env[KEY]".to_owned()];
        story.wish(2);
        if policy == HotUpgradePolicy::Auto {
            // A fresh start takes them.
            story.until_calm();
            assert!(story.text.contains("slot 1 on node-1 gets 1.2.0"), "{}", story.text);
            assert!(!story.text.contains("is hot-upgraded"), "{}", story.text);
        } else {
            // What runs is to be kept: they go on waiting.
            story.until_calm();
            assert!(story.text.contains("is hot-upgraded from 1.1.0 to 1.2.0"), "{}", story.text);
        }
    }
}

#[test]
fn an_agent_that_knows_of_no_upgrades_is_asked_for_none() {
    let mut story = Story::hot(Strategy::StartFirst, 1, 1, HotUpgradePolicy::Auto);
    let observed = story.fleet.observed.get_mut(&place(1, 1)).unwrap();
    observed.hot_upgrades = false;
    story.wish(2);
    story.plan();
    assert!(story.text.contains("slot 2 on node-1 gets 1.2.0"), "{}", story.text);

    let mut story = Story::hot(Strategy::StartFirst, 1, 1, HotUpgradePolicy::Require);
    story.fleet.observed.get_mut(&place(1, 1)).unwrap().hot_upgrades = false;
    story.wish(2);
    assert!(!story.plan(), "{}", story.text);
    assert!(story.text.contains("knows no hot upgrades; upgrade it first"), "{}", story.text);
}

#[test]
fn who_asks_for_the_release_before_gets_it_by_an_upgrade_too() {
    let mut story = Story::hot(Strategy::StartFirst, 1, 2, HotUpgradePolicy::Auto);
    story.wish(2);
    story.until_calm();
    story.fleet.wanted = Some(Wish { by: WishedBy::Person("ann".to_owned()), ..wish(1, story.now + 1) });
    story.say("# ann asks for 1.1.0");
    story.until_calm();
    assert_eq!(story.text.matches("is hot-upgraded from 1.2.0 to 1.1.0").count(), 2, "{}", story.text);
    told!(story);
}

#[test]
fn a_canary_is_upgraded_first_and_who_gives_up_gets_it_back_by_an_upgrade() {
    let mut story = Story::hot(Strategy::StartFirst, 2, 3, HotUpgradePolicy::Auto);
    story.fleet.spec.as_mut().unwrap().deploy.canary = Some(canary(1, Promote::Manual));
    story.wish(2);
    story.until_calm();
    let upgraded = |story: &Story, from: u8, to: u8| {
        story.text.matches(&format!("is hot-upgraded from 1.{from}.0 to 1.{to}.0")).count()
    };
    assert_eq!(upgraded(&story, 1, 2), 2, "{}", story.text);
    assert_eq!(story.phase(), RolloutPhase::Running, "the others wait behind it: {}", story.text);
    story.steer(Steering::Abort);
    story.until_calm();
    assert_eq!((story.phase(), upgraded(&story, 2, 1)), (RolloutPhase::Reverted, 2), "{}", story.text);
    assert!(!story.text.contains(" gets "), "nothing was started anew: {}", story.text);
    assert!(story.fleet.ghosted.is_empty());
}
