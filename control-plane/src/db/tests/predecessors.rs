//! Rollouts that gave way, or were taken back, and matter still to the one under way.

use std::collections::BTreeSet;

use proto::state::RolloutPhase;

use super::fleet::{app, key};
use super::plans::{assign, fleet, place, rollout, shop};
use crate::clock::Time;
use crate::db::ManualWish;
use crate::db::tests::fixture::{TestDb, on_both_engines};
use crate::rollout::{InForce, Plan, Progress, Rollout, Trial};

on_both_engines!(
    what_gave_way_in_its_watch_is_loaded_beneath_its_successor_and_taken_up_again,
    a_rollout_that_is_wished_again_is_that_wishs_own,
    what_carried_out_the_present_wish_is_loaded_however_old_it_is,
    whoever_holds_the_application_is_told_once_that_the_way_back_is_another_one,
    what_brought_the_release_in_force_is_loaded_however_old_it_is,
);

async fn store(it: &TestDb, plan: Plan) {
    let generation = fleet(&it.db, "shop").await.generation;
    Box::pin(it.db.store_plan(&app("shop"), generation, &plan, Time(40))).await.unwrap();
}

async fn what_gave_way_in_its_watch_is_loaded_beneath_its_successor_and_taken_up_again(it: TestDb) {
    shop(&it).await;
    let watched = Trial { spent_ms: 7, counting_since: Some(Time(30)) };
    let progress = Progress { watched, watch_began: Some(Time(20)), ..Progress::default() };
    let gave_way = Rollout { progress, ..rollout("shop", key("1", 1), RolloutPhase::Superseded, 10) };
    let progress = Progress { predecessor: Some(gave_way.id), ..Progress::default() };
    let newer = Rollout { progress, ..rollout("shop", key("1", 2), RolloutPhase::Running, 20) };
    let (rollouts, predecessors) = (vec![newer.clone()], vec![gave_way.clone()]);
    store(&it, Plan { rollouts, predecessors, ..Plan::default() }).await;
    let after = fleet(&it.db, "shop").await;
    assert_eq!((after.rollout, after.predecessor), (Some(newer.clone()), Some(gave_way.clone())));
    let back = Rollout { phase: RolloutPhase::Reverted, finished_at: Some(Time(40)), ..newer };
    let again = Rollout { phase: RolloutPhase::Watching, finished_at: None, ..gave_way };
    store(&it, Plan { rollouts: vec![back.clone(), again.clone()], ..Plan::default() }).await;
    let after = fleet(&it.db, "shop").await;
    assert_eq!((after.rollout, after.predecessor, after.last), (Some(again), None, Some(back)));
}

/// Or the planner would find it wished anew at every look, and write it each time.
async fn a_rollout_that_is_wished_again_is_that_wishs_own(it: TestDb) {
    shop(&it).await;
    let running = rollout("shop", key("1", 1), RolloutPhase::Running, 20);
    store(&it, Plan { rollouts: vec![running.clone()], ..Plan::default() }).await;
    let wished_again = Rollout { wished_at: Time(30), ..running };
    store(&it, Plan { rollouts: vec![wished_again.clone()], ..Plan::default() }).await;
    assert_eq!(fleet(&it.db, "shop").await.rollout, Some(wished_again));
}

async fn what_carried_out_the_present_wish_is_loaded_however_old_it_is(it: TestDb) {
    shop(&it).await;
    let tried = rollout("shop", key("1", 1), RolloutPhase::Reverted, 10);
    let newer = rollout("shop", key("1", 2), RolloutPhase::Done, 20);
    store(&it, Plan { rollouts: vec![tried.clone(), newer.clone()], ..Plan::default() }).await;
    let wish = |at| ManualWish { release: key("1", 1), by: "ann".to_owned(), pinned: false, at: Time(at) };
    it.db.set_manual_wish(&app("shop"), Some(&wish(3)), &[], None).await.unwrap();
    let after = fleet(&it.db, "shop").await;
    assert_eq!((after.tried, after.last), (Some(tried), Some(newer)));
    // The same release is wished once more: nobody has tried that.
    it.db.set_manual_wish(&app("shop"), Some(&wish(4)), &[], None).await.unwrap();
    assert_eq!(fleet(&it.db, "shop").await.tried, None);
}

async fn what_brought_the_release_in_force_is_loaded_however_old_it_is(it: TestDb) {
    shop(&it).await;
    let brought = rollout("shop", key("1", 1), RolloutPhase::Done, 10);
    let again = rollout("shop", key("1", 1), RolloutPhase::Reverted, 15);
    let newer = rollout("shop", key("1", 2), RolloutPhase::Reverted, 20);
    let rollouts = vec![brought.clone(), again, newer.clone()];
    let in_force = Some(InForce::Release(key("1", 1)));
    store(&it, Plan { rollouts, in_force, ..Plan::default() }).await;
    let after = fleet(&it.db, "shop").await;
    assert_eq!((after.brought, after.last), (Some(brought), Some(newer)));
}

async fn whoever_holds_the_application_is_told_once_that_the_way_back_is_another_one(it: TestDb) {
    let (one, two) = shop(&it).await;
    let steps = vec![assign(place(one, 1), &key("1", 2)), assign(place(two, 1), &key("1", 1))];
    store(&it, Plan { steps, ..Plan::default() }).await;
    let generations = async || {
        let one = it.db.node_assignment(one).await.unwrap().generation;
        (one, it.db.node_assignment(two).await.unwrap().generation)
    };
    let before = generations().await;
    let generation = fleet(&it.db, "shop").await.generation;
    let steps = vec![assign(place(one, 1), &key("1", 1))];
    let plan = Plan { steps, way_back_changed: true, ..Plan::default() };
    let told = it.db.store_plan(&app("shop"), generation, &plan, Time(50)).await.unwrap();
    assert_eq!(told, BTreeSet::from([one, two]));
    assert_eq!(generations().await, (before.0 + 1, before.1 + 1));
}
