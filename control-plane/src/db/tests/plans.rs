//! What plans are made from, how they are stored, and what of them can be asked for afterwards.

use std::collections::{BTreeMap, BTreeSet};

use proto::apps::DeploymentKind;
use proto::ids::{NodeId, ReleaseKey, RestartId, RolloutId};
use proto::state::{FaultKind, Liveness, RolloutPhase, Severity, Strategy};
use uuid::Uuid;

use super::fleet::{app, configure, enrolment, events_told, join_token, key, release, told};
use crate::clock::Time;
use crate::db::tests::fixture::{TestDb, on_both_engines};
use crate::db::{
    ApplicationsDiff, AuditEntry, BucketFault, Db, ManualWish, NewApplication, NewEvent, PageRequest,
    RolloutFilter, Source, WantedFallback,
};
use crate::fleet::{AppFleet, Hot, Place, RestartWish, ToldRestart, WishedBy};
use crate::rollout::{
    Evidence, Ghost, Happening, HappeningKind, Held, InForce, Plan, PreCommandsState, Progress, RestartOver,
    Rollout, Said, Steering, Step,
};
use crate::spec::monitoring::{HostMonitoring, Threshold};
use crate::spec::{AppSpec, Millis};

on_both_engines!(
    the_snapshot_has_all_that_a_plan_is_made_from,
    a_stored_plan_comes_back_as_the_next_snapshot,
    of_two_plans_made_from_one_snapshot_one_is_stored,
    whatever_a_plan_is_made_from_makes_older_plans_stale,
    a_plan_for_a_removed_node_is_refused_whole,
    a_nodes_assignment_is_one_snapshot_with_its_generation,
    the_way_back_of_a_slot_is_told_while_its_rollout_moves_and_no_longer,
    other_settings_raise_the_nodes_that_hold_the_application_and_no_other,
    a_restart_is_told_until_it_is_over_and_what_is_given_a_release_needs_none,
    what_a_passed_limit_asks_for_is_stored_with_the_plan_that_carries_it_out,
    a_second_rollout_under_way_is_refused,
    a_rollout_that_moves_is_paused_once_and_older_plans_are_stale,
    ghosts_are_cleared_by_version_or_all,
    a_places_history_tells_what_it_ran_and_when,
    a_history_says_what_was_hot_from_where_and_how_it_went_on,
    an_application_without_nodes_labels_match_gets_none,
    fifty_plans_at_once_are_each_stored_once,
);

pub(super) async fn fleet(db: &Db, name: &str) -> AppFleet {
    let fleets = db.load_app_fleets().await.unwrap();
    fleets.into_iter().find(|fleet| fleet.app == app(name)).unwrap()
}

pub(super) fn place(node: NodeId, slot: u32) -> Place {
    Place { node, slot: proto::ids::Slot::new(slot).unwrap() }
}

pub(super) fn rollout(name: &str, key: ReleaseKey, phase: RolloutPhase, now: u64) -> Rollout {
    Rollout {
        id: RolloutId(Uuid::now_v7()),
        app: app(name),
        release: key,
        from: None,
        wished_at: Time(3),
        phase,
        reason: Some("because".to_owned()),
        pre_commands: PreCommandsState::Failed { error: "no".to_owned() },
        progress: Progress::default(),
        by: "ann".to_owned(),
        started_at: Time(now),
        phase_since: Time(now),
        finished_at: phase.is_over().then_some(Time(now)),
    }
}

pub(super) fn assign(place: Place, release: &ReleaseKey) -> Step {
    Step::Assign { place, release: release.clone(), pre_commands_run: None, begins: true, hot: None }
}

/// What of it the node is told to start anew.
async fn told_restarts(db: &Db, node: NodeId) -> Vec<Option<RestartId>> {
    db.node_assignment(node).await.unwrap().slots.values().map(|slot| slot.restart).collect()
}

fn wish(id: u128, node: Option<NodeId>) -> RestartWish {
    let id = RestartId(Uuid::from_u128(id));
    RestartWish { id, generation: 0, node, slot: None, by: "ann".to_owned(), because: None, at: Time(7) }
}

async fn a_restart_is_told_until_it_is_over_and_what_is_given_a_release_needs_none(it: TestDb) {
    let (one, two) = shop(&it).await;
    let before = fleet(&it.db, "shop").await;
    let steps = vec![assign(place(one, 1), &key("1", 1)), assign(place(two, 1), &key("1", 1))];
    let plan = Plan { steps, ..Plan::default() };
    it.db.store_plan(&app("shop"), before.generation, &plan, Time(6)).await.unwrap();
    let assigned = fleet(&it.db, "shop").await;

    // The later one has the smaller id, as after a clock was put back.
    let (first, second) = (wish(9, None), wish(4, Some(one)));
    it.db.ask_for_restarts(&[(app("shop"), first.clone())], &[], None).await.unwrap();
    it.db.ask_for_restarts(&[(app("shop"), second.clone())], &[], None).await.unwrap();
    let stale = it.db.store_plan(&app("shop"), assigned.generation, &Plan::default(), Time(8)).await;
    assert!(matches!(stale, Err(crate::db::DbError::Conflict { .. })), "{stale:?}");
    let asked = fleet(&it.db, "shop").await;
    assert_eq!(asked.restarts.iter().map(|wish| wish.id).collect::<Vec<_>>(), [first.id, second.id]);
    assert!(asked.restarts[0].generation < asked.restarts[1].generation);
    assert!(asked.assigned.values().all(|it| it.begun_at < asked.restarts[0].generation));

    let restart = Step::Restart { place: place(one, 1), restart: first.id, only_since: None };
    let plan = Plan { steps: vec![restart, assign(place(two, 1), &key("1", 2))], ..Plan::default() };
    let changed = it.db.store_plan(&app("shop"), asked.generation, &plan, Time(9)).await.unwrap();
    assert_eq!(changed, BTreeSet::from([one, two]));
    assert_eq!(told_restarts(&it.db, one).await, [Some(first.id)]);
    assert_eq!(told_restarts(&it.db, two).await, [None]);
    let told = fleet(&it.db, "shop").await;
    let here = &told.assigned[&place(one, 1)];
    assert_eq!((here.release.clone(), here.since), (Some(key("1", 1)), Time(6)));
    assert_eq!(here.restart, Some(ToldRestart { id: first.id, at: Time(9) }));
    assert!(told.assigned.values().all(|it| it.begun_at > asked.restarts[1].generation));

    // Where it may go on running, only what was told the same before is known to have begun.
    let stays = |place, release: &ReleaseKey| match assign(place, release) {
        Step::Assign { place, release, pre_commands_run, .. } => {
            Step::Assign { place, release, pre_commands_run, begins: false, hot: None }
        }
        other => other,
    };
    let steps = vec![stays(place(one, 1), &key("1", 1)), stays(place(two, 1), &key("1", 1))];
    let plan = Plan { steps, ..Plan::default() };
    it.db.store_plan(&app("shop"), told.generation, &plan, Time(9)).await.unwrap();
    let turned_back = fleet(&it.db, "shop").await;
    let begun_at = |fleet: &AppFleet, node| fleet.assigned[&place(node, 1)].begun_at;
    assert_eq!((begun_at(&turned_back, one), begun_at(&turned_back, two)), (begun_at(&told, one), 0));
    let told = turned_back;

    let failure = Some("web-2 was not connected".to_owned());
    let over = |id, failure| RestartOver { id, failure };
    let restarts = vec![over(first.id, None), over(second.id, failure.clone())];
    let plan = Plan { restarts, ..Plan::default() };
    it.db.store_plan(&app("shop"), told.generation, &plan, Time(10)).await.unwrap();
    assert!(fleet(&it.db, "shop").await.restarts.is_empty());
    assert_eq!(told_restarts(&it.db, one).await, [None], "an agent without memory would do it once more");
    let ended = it.db.restart(second.id).await.unwrap().unwrap();
    assert_eq!((ended.finished_at, ended.failure, ended.app), (Some(Time(10)), failure, app("shop")));
    let nowhere = it.db.ask_for_restarts(&[(app("nowhere"), wish(5, None))], &[], None).await;
    assert!(matches!(nowhere, Err(crate::db::DbError::Missing { .. })), "{nowhere:?}");
}

async fn what_a_passed_limit_asks_for_is_stored_with_the_plan_that_carries_it_out(it: TestDb) {
    let (one, _) = shop(&it).await;
    let before = fleet(&it.db, "shop").await;
    let steps = vec![assign(place(one, 1), &key("1", 1))];
    let plan = Plan { steps, ..Plan::default() };
    it.db.store_plan(&app("shop"), before.generation, &plan, Time(6)).await.unwrap();
    let assigned = fleet(&it.db, "shop").await;
    let asked = RestartWish {
        generation: assigned.generation + 1,
        slot: Some(place(one, 1).slot),
        because: Some("threshold: atoms 91 % of 1048576".to_owned()),
        ..wish(9, Some(one))
    };
    let restart = Step::Restart { place: place(one, 1), restart: asked.id, only_since: None };
    let plan = Plan { asked: Some(asked.clone()), steps: vec![restart], ..Plan::default() };
    it.db.store_plan(&app("shop"), assigned.generation, &plan, Time(9)).await.unwrap();
    let told = fleet(&it.db, "shop").await;
    assert_eq!(told.restarts, std::slice::from_ref(&asked));
    let here = &told.assigned[&place(one, 1)];
    assert_eq!(
        (here.restart, here.begun_at),
        (Some(ToldRestart { id: asked.id, at: Time(9) }), told.generation)
    );
    assert_eq!(told_restarts(&it.db, one).await, [Some(asked.id)]);
    let because = it.db.node_assignment(one).await.unwrap().slots.into_values().map(|it| it.restart_because);
    assert_eq!(because.collect::<Vec<_>>(), std::slice::from_ref(&asked.because));
    let failure = Some("its spare was not stable within 40 s".to_owned());
    let restarts = vec![RestartOver { id: asked.id, failure }];
    let plan = Plan { restarts, ..Plan::default() };
    assert_eq!(told.given_up, None);
    it.db.store_plan(&app("shop"), told.generation, &plan, Time(10)).await.unwrap();
    assert_eq!(it.db.restart(asked.id).await.unwrap().unwrap().wish, asked);
    assert_eq!(fleet(&it.db, "shop").await.given_up, Some(Time(10)), "for whoever plans next");
    // When it was is known for as long as its place was given nothing else: the cooldown survives whoever plans.
    assert_eq!(fleet(&it.db, "shop").await.assigned[&place(one, 1)].restart.map(|it| it.at), Some(Time(9)));
}

/// One application with two releases and two nodes.
pub(super) async fn shop(it: &TestDb) -> (NodeId, NodeId) {
    configure(&it.db, &["shop"]).await;
    for n in 1..=2 {
        it.db.record_release(&release("shop", key("1", n), u64::from(n)), &[]).await.unwrap();
    }
    join_token(&it.db, 1, 100).await;
    let one = it.db.enrol(&enrolment("web-1", 1), Time(5), &[]).await.unwrap().id;
    let two = it.db.enrol(&enrolment("web-2", 1), Time(5), &[]).await.unwrap().id;
    (one, two)
}

async fn the_snapshot_has_all_that_a_plan_is_made_from(it: TestDb) {
    let (one, two) = shop(&it).await;
    let empty = fleet(&it.db, "shop").await;
    assert_eq!((&empty.wanted, empty.nodes.len()), (&None, 2));
    it.db.set_bucket_wish(&app("shop"), None, &key("1", 1), Time(8), &[]).await.unwrap();
    let bucket = fleet(&it.db, "shop").await.wanted.unwrap();
    assert_eq!((bucket.release, bucket.by, bucket.at), (key("1", 1), WishedBy::Bucket, Time(8)));
    assert!(bucket.pre_commands);
    let bad = BucketFault { kind: FaultKind::Broken, text: "bad".to_owned() };
    let bad = it.db.set_bucket_fault(&app("shop"), None, Some(&bad), Time(9), &[]).await;
    assert!(bad.unwrap());
    assert_eq!(fleet(&it.db, "shop").await.wanted.unwrap().at, Time(8), "a fault is no new wish");
    let wish = ManualWish { release: key("1", 2), by: "ann".to_owned(), pinned: true, at: Time(10) };
    it.db.set_manual_wish(&app("shop"), Some(&wish), &[], None).await.unwrap();
    let person = fleet(&it.db, "shop").await;
    let wanted = person.wanted.unwrap();
    assert_eq!((wanted.release, wanted.by), (key("1", 2), WishedBy::Person("ann".to_owned())));
    assert_eq!(person.nodes.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([one, two]));
    assert!(person.nodes.values().all(|node| node.eligible && node.liveness == Liveness::Lost));
}

async fn a_rollout_that_moves_is_paused_once_and_older_plans_are_stale(it: TestDb) {
    shop(&it).await;
    let running = rollout("shop", key("1", 1), RolloutPhase::Running, 20);
    let id = running.id;
    let plan = Plan { rollouts: vec![running], ..Plan::default() };
    let before = fleet(&it.db, "shop").await.generation;
    it.db.store_plan(&app("shop"), before, &plan, Time(30)).await.unwrap();
    let before = fleet(&it.db, "shop").await;
    let event = NewEvent::new(Time(31), "deployment_paused", Severity::Info, "ann paused it");
    let audit = AuditEntry {
        at: Time(31),
        who: "ann".to_owned(),
        what: "rollout.pause".to_owned(),
        object: "shop".to_owned(),
        detail: String::new(),
    };
    let said = || Said { by: "ann".to_owned(), at: Time(31) };
    let steer = async |steering| it.db.steer_rollout(id, steering, said(), &event, &audit).await.unwrap();
    assert_eq!(steer(Steering::Resume).await, Err(Held::NotPaused));
    assert_eq!(steer(Steering::Pause).await, Ok(()));
    assert_eq!(steer(Steering::Pause).await, Err(Held::PausedAlready));
    let after = fleet(&it.db, "shop").await;
    assert_eq!(after.rollout.unwrap().progress.paused, Some(said()));
    let stale = it.db.store_plan(&app("shop"), before.generation, &Plan::default(), Time(32)).await;
    assert!(stale.unwrap_err().is_conflict());
    assert_eq!(steer(Steering::Resume).await, Ok(()));
    assert_eq!(fleet(&it.db, "shop").await.rollout.unwrap().progress.paused, None);
    assert_eq!(steer(Steering::Abort).await, Ok(()));
    let after = fleet(&it.db, "shop").await;
    assert_eq!(after.rollout.unwrap().progress.aborted, Some(said()));
    let done =
        Rollout { finished_at: Some(Time(40)), ..rollout("shop", key("1", 1), RolloutPhase::Done, 20) };
    let plan = Plan { rollouts: vec![Rollout { id, ..done }], ..Plan::default() };
    it.db.store_plan(&app("shop"), after.generation, &plan, Time(40)).await.unwrap();
    assert_eq!(steer(Steering::Pause).await, Err(Held::Over));
}

async fn a_stored_plan_comes_back_as_the_next_snapshot(it: TestDb) {
    let (one, two) = shop(&it).await;
    let before = fleet(&it.db, "shop").await;
    let done = rollout("shop", key("1", 2), RolloutPhase::Done, 10);
    let running = rollout("shop", key("1", 1), RolloutPhase::Running, 20);
    let ghost = Ghost {
        release: key("1", 2),
        rollout: Some(done.id),
        reason: "it crashed".to_owned(),
        evidence: Evidence { place: Some(place(one, 1)), ..Evidence::default() },
    };
    let happening = Happening {
        kind: HappeningKind::VersionGhosted,
        place: Some(place(one, 1)),
        rollout: Some(done.id),
        release: Some(key("1", 2)),
        text: "it was ghosted".to_owned(),
    };
    let run = Step::Assign {
        place: place(one, 1),
        release: key("1", 1),
        pre_commands_run: Some("run 1".to_owned()),
        begins: true,
        hot: None,
    };
    let plan = Plan {
        rollouts: vec![done.clone(), running.clone()],
        steps: vec![run, assign(place(one, 2), &key("1", 1)), Step::Withdraw { place: place(two, 1) }],
        in_force: Some(InForce::Release(key("1", 2))),
        ghosts: vec![ghost.clone()],
        events: vec![happening],
        ..Plan::default()
    };
    let nodes = it.db.store_plan(&app("shop"), before.generation, &plan, Time(30)).await.unwrap();
    assert_eq!(nodes, BTreeSet::from([one, two]));
    let after = fleet(&it.db, "shop").await;
    assert_eq!(after.generation, before.generation + 1);
    assert_eq!(after.rollout, Some(running.clone()));
    assert_eq!(after.last, Some(done.clone()));
    assert_eq!(after.in_force, Some(key("1", 2)));
    assert_eq!(after.ghosted, BTreeSet::from([key("1", 2)]));
    assert_eq!(after.proven, BTreeSet::from([key("1", 2)]));
    let assigned = &after.assigned[&place(one, 1)];
    assert_eq!((assigned.generation, assigned.since), (2, Time(30)));
    assert_eq!(assigned.pre_commands_run.as_deref(), Some("run 1"));
    assert_eq!(after.assigned[&place(two, 1)].release, None);
    assert_eq!(events_told(&it.db).await, ["it was ghosted"]);
    assert_eq!(it.db.ghosted(None).await.unwrap()[0].ghost, ghost);
    let listed = it.db.rollouts(&RolloutFilter::default(), PageRequest::newest(10)).await.unwrap();
    assert_eq!(listed.items, [running.clone(), done]);
    let under_way = RolloutFilter { app: Some(app("shop")), under_way: true };
    let listed = it.db.rollouts(&under_way, PageRequest::newest(10)).await.unwrap();
    assert_eq!(listed.items, std::slice::from_ref(&running));
    let over = Rollout { phase: RolloutPhase::Reverted, finished_at: Some(Time(40)), ..running };
    let plan = Plan {
        rollouts: vec![over.clone()],
        steps: vec![Step::Forget { place: place(two, 1) }],
        in_force: Some(InForce::Nothing),
        ..Plan::default()
    };
    let nodes = it.db.store_plan(&app("shop"), after.generation, &plan, Time(40)).await.unwrap();
    assert_eq!(nodes, BTreeSet::new(), "to forget a place changes no assignment");
    let last = fleet(&it.db, "shop").await;
    assert_eq!((last.rollout, last.last, last.in_force), (None, Some(over.clone()), None));
    assert_eq!(last.assigned.len(), 2);
    assert_eq!(it.db.rollout(over.id).await.unwrap(), Some(over));
}

async fn of_two_plans_made_from_one_snapshot_one_is_stored(it: TestDb) {
    let (one, two) = shop(&it).await;
    let generation = fleet(&it.db, "shop").await.generation;
    let plans =
        [one, two].map(|node| Plan { steps: vec![assign(place(node, 1), &key("1", 1))], ..Plan::default() });
    let shop = app("shop");
    let (a, b) = tokio::join!(
        it.db.store_plan(&shop, generation, &plans[0], Time(1)),
        it.db.store_plan(&shop, generation, &plans[1], Time(1)),
    );
    assert_eq!([&a, &b].iter().filter(|it| it.is_ok()).count(), 1);
    assert!(a.and(b).unwrap_err().is_conflict());
    assert_eq!(fleet(&it.db, "shop").await.assigned.len(), 1);
}

async fn whatever_a_plan_is_made_from_makes_older_plans_stale(it: TestDb) {
    let (one, _) = shop(&it).await;
    let shop = app("shop");
    let plan = Plan { steps: vec![assign(place(one, 1), &key("1", 1))], ..Plan::default() };
    let mut generation = fleet(&it.db, "shop").await.generation;
    let wish = ManualWish { release: key("1", 1), by: "ann".to_owned(), pinned: false, at: Time(7) };
    for change in 0..4 {
        match change {
            0 => drop(it.db.set_bucket_wish(&shop, None, &key("1", 1), Time(8), &[]).await.unwrap()),
            1 => it.db.set_manual_wish(&shop, Some(&wish), &[], None).await.unwrap(),
            2 => configure(&it.db, &["shop"]).await,
            _ => {
                let dropped = ApplicationsDiff { dropped: vec![shop.clone()], ..Default::default() };
                it.db.put_applications(dropped, Time(3)).await.unwrap();
            }
        }
        let stale = it.db.store_plan(&shop, generation, &plan, Time(9)).await.unwrap_err();
        assert!(stale.is_conflict(), "{change}: {stale}");
        generation = it.db.application(&shop).await.unwrap().unwrap().generation;
    }
    assert_eq!(it.db.load_app_fleets().await.unwrap(), [], "not configured, nothing to withdraw");
    it.db.store_plan(&shop, generation, &plan, Time(9)).await.unwrap();
    let left = fleet(&it.db, "shop").await;
    assert_eq!(left.spec, None);
    assert!(!left.nodes[&one].eligible);
}

async fn a_plan_for_a_removed_node_is_refused_whole(it: TestDb) {
    let (one, two) = shop(&it).await;
    it.db.remove_node(two, Time(6), &[], None).await.unwrap();
    let generation = fleet(&it.db, "shop").await.generation;
    let plan = Plan {
        rollouts: vec![rollout("shop", key("1", 1), RolloutPhase::Running, 1)],
        steps: vec![assign(place(one, 1), &key("1", 1)), assign(place(two, 1), &key("1", 1))],
        ..Plan::default()
    };
    assert!(it.db.store_plan(&app("shop"), generation, &plan, Time(9)).await.unwrap_err().is_conflict());
    let after = fleet(&it.db, "shop").await;
    assert_eq!((after.generation, after.rollout, after.assigned), (generation, None, BTreeMap::new()));
    assert_eq!(it.db.node(one).await.unwrap().unwrap().generation, 1);
}

async fn a_nodes_assignment_is_one_snapshot_with_its_generation(it: TestDb) {
    let (one, two) = shop(&it).await;
    configure(&it.db, &["other"]).await;
    it.db.record_release(&release("other", key("7", 7), 1), &[]).await.unwrap();
    for (name, key) in [("shop", key("1", 2)), ("other", key("7", 7))] {
        let generation = fleet(&it.db, name).await.generation;
        let plan = Plan {
            steps: vec![
                assign(place(one, 1), &key),
                Step::Withdraw { place: place(one, 2) },
                assign(place(two, 1), &key),
            ],
            ..Plan::default()
        };
        it.db.store_plan(&app(name), generation, &plan, Time(9)).await.unwrap();
    }
    let wanted = it.db.node_assignment(one).await.unwrap();
    assert_eq!(wanted.generation, 3);
    assert_eq!(wanted.applications.keys().map(ToString::to_string).collect::<Vec<_>>(), ["other", "shop"]);
    assert_eq!(wanted.applications[&app("shop")].cookie, b"shop");
    let slots: Vec<_> =
        wanted.slots.iter().map(|((app, slot), it)| (app.as_str(), *slot, &it.release)).collect();
    let first = place(one, 1).slot;
    let shop = release("shop", key("1", 2), 2);
    assert_eq!(slots, [("other", first, &release("other", key("7", 7), 1)), ("shop", first, &shop)]);
    it.db.remove_node(two, Time(10), &[], None).await.unwrap();
    assert!(!fleet(&it.db, "shop").await.assigned.contains_key(&place(two, 1)));
}

async fn the_way_back_of_a_slot_is_told_while_its_rollout_moves_and_no_longer(it: TestDb) {
    let (one, two) = shop(&it).await;
    let put = |strategy| {
        let mut spec = AppSpec::new(app("shop"), proto::state::Language::Elixir);
        spec.deploy.strategy = strategy;
        spec.rollback_timeout = Millis(40_000);
        vec![NewApplication { spec, source: Source::Yaml, cookie: b"shop".to_vec() }]
    };
    let apply = async |strategy| {
        let diff = ApplicationsDiff { put: put(strategy), ..ApplicationsDiff::default() };
        it.db.put_applications(diff, Time(4)).await.unwrap();
    };
    apply(Strategy::StopFirst).await;
    let first = RolloutId(Uuid::now_v7());
    let moving =
        |phase| Rollout { id: first, from: Some(key("1", 1)), ..rollout("shop", key("1", 2), phase, 6) };
    let store = async |plan: Plan| {
        let generation = fleet(&it.db, "shop").await.generation;
        it.db.store_plan(&app("shop"), generation, &plan, Time(6)).await.unwrap();
    };
    let ways_back = async |node| {
        let wanted = it.db.node_assignment(node).await.unwrap();
        wanted.slots.into_values().map(|slot| slot.fallback).collect::<Vec<_>>()
    };
    let steps = vec![assign(place(one, 1), &key("1", 2)), assign(place(two, 1), &key("1", 1))];
    let running = Plan { rollouts: vec![moving(RolloutPhase::Running)], steps, ..Plan::default() };
    Box::pin(store(running)).await;
    let release = release("shop", key("1", 1), 1);
    let fallback = WantedFallback { release, within: Millis(40_000), rollout: first };
    assert_eq!(ways_back(one).await, [Some(fallback.clone())]);
    assert_eq!(ways_back(two).await, [None], "it runs what the others would go back to");

    // What runs until the new release is known to be good is not stopped first.
    apply(Strategy::StartFirst).await;
    assert_eq!(ways_back(one).await, [None]);
    apply(Strategy::StopFirst).await;
    assert_eq!(ways_back(one).await, [Some(fallback)]);
    let watching = Plan { rollouts: vec![moving(RolloutPhase::Watching)], ..Plan::default() };
    Box::pin(store(watching)).await;
    assert_eq!(ways_back(one).await, [None]);
}

async fn other_settings_raise_the_nodes_that_hold_the_application_and_no_other(it: TestDb) {
    let (one, two) = shop(&it).await;
    let plan = Plan { steps: vec![assign(place(one, 1), &key("1", 1))], ..Plan::default() };
    let generation = fleet(&it.db, "shop").await.generation;
    it.db.store_plan(&app("shop"), generation, &plan, Time(3)).await.unwrap();
    let generations = || async {
        let of = async |node| it.db.node(node).await.unwrap().unwrap().generation;
        (of(one).await, of(two).await)
    };
    let before = generations().await;
    let put = |grace| {
        let mut spec = AppSpec::new(app("shop"), proto::state::Language::Elixir);
        spec.deploy.stop_grace = Millis(grace);
        vec![NewApplication { spec, source: Source::Yaml, cookie: Vec::new() }]
    };
    let diff = ApplicationsDiff { put: put(123), ..ApplicationsDiff::default() };
    let told = it.db.put_applications(diff.clone(), Time(4)).await.unwrap();
    assert_eq!(told, BTreeSet::from([one]));
    assert_eq!(generations().await, (before.0 + 1, before.1));
    let sent = it.db.node_assignment(one).await.unwrap();
    assert_eq!(sent.generation, before.0 + 1);
    assert_eq!(sent.applications[&app("shop")].spec.deploy.stop_grace, Millis(123));
    // What concerns hosts is told to every one, also to those that run nothing.
    let limits =
        HostMonitoring { memory: Some(Threshold { restart: Some(80), ..Threshold::OF_DISKS }), disk: None };
    let remembered = vec![(HostMonitoring::SETTING, serde_json::to_string(&limits).unwrap())];
    let hosts = ApplicationsDiff { every_node: true, remembered, ..ApplicationsDiff::default() };
    assert_eq!(it.db.put_applications(hosts, Time(5)).await.unwrap(), BTreeSet::from([one, two]));
    assert_eq!(generations().await, (before.0 + 2, before.1 + 1));
    assert_eq!(it.db.node_assignment(two).await.unwrap().monitoring, Some(limits));
    // Nothing of it differs the second time; a secret is seen by the caller alone.
    assert!(it.db.put_applications(diff, Time(5)).await.unwrap().is_empty());
    let retold = ApplicationsDiff { retold: vec![app("shop")], ..ApplicationsDiff::default() };
    assert_eq!(it.db.put_applications(retold, Time(6)).await.unwrap(), BTreeSet::from([one]));
    it.db.remove_node(one, Time(7), &[], None).await.unwrap();
    let diff = ApplicationsDiff { put: put(456), ..ApplicationsDiff::default() };
    assert!(it.db.put_applications(diff, Time(8)).await.unwrap().is_empty());
}

async fn a_second_rollout_under_way_is_refused(it: TestDb) {
    shop(&it).await;
    let generation = fleet(&it.db, "shop").await.generation;
    let plan = |n| Plan {
        rollouts: vec![rollout("shop", key("1", n), RolloutPhase::Running, 1)],
        ..Plan::default()
    };
    it.db.store_plan(&app("shop"), generation, &plan(1), Time(9)).await.unwrap();
    let second = it.db.store_plan(&app("shop"), generation + 1, &plan(2), Time(9)).await.unwrap_err();
    assert!(second.is_taken(), "{second}");
    assert_eq!(fleet(&it.db, "shop").await.generation, generation + 1);
}

async fn ghosts_are_cleared_by_version_or_all(it: TestDb) {
    shop(&it).await;
    let shop = app("shop");
    for (n, version) in [(1, "1"), (2, "1"), (3, "3")] {
        let release = key(version, n);
        let evidence = Evidence::default();
        let ghost = Ghost { release, rollout: None, reason: "why".to_owned(), evidence };
        let generation = fleet(&it.db, "shop").await.generation;
        let plan = Plan { ghosts: vec![ghost], ..Plan::default() };
        it.db.store_plan(&shop, generation, &plan, Time(u64::from(n))).await.unwrap();
    }
    let stale = fleet(&it.db, "shop").await.generation;
    let version = "1".parse().unwrap();
    let cleared = it.db.clear_ghosted(&shop, Some(&version), &told("cleared"), None).await.unwrap();
    assert_eq!(cleared, [key("1", 1), key("1", 2)]);
    assert_eq!(fleet(&it.db, "shop").await.generation, stale + 1);
    assert_eq!(it.db.clear_ghosted(&shop, Some(&version), &told("none"), None).await.unwrap(), []);
    assert_eq!(it.db.ghosted(Some(&shop)).await.unwrap().len(), 1);
    assert_eq!(it.db.clear_ghosted(&shop, None, &[], None).await.unwrap(), [key("3", 3)]);
    assert_eq!(events_told(&it.db).await, ["cleared"]);
    let nobody = it.db.clear_ghosted(&app("nobody"), None, &[], None).await.unwrap_err();
    assert!(nobody.is_missing());
}

async fn a_places_history_tells_what_it_ran_and_when(it: TestDb) {
    let (one, _) = shop(&it).await;
    let shop = app("shop");
    let it_runs = place(one, 1);
    let rollout = rollout("shop", key("1", 1), RolloutPhase::Running, 10);
    let plans = [
        Plan {
            rollouts: vec![rollout.clone()],
            steps: vec![assign(it_runs, &key("1", 1))],
            ..Plan::default()
        },
        // Told again, with pre-commands: still the same release.
        Plan {
            steps: vec![Step::Assign {
                place: it_runs,
                release: key("1", 1),
                pre_commands_run: Some("1".to_owned()),
                begins: false,
                hot: None,
            }],
            ..Plan::default()
        },
        Plan { steps: vec![assign(it_runs, &key("1", 2))], ..Plan::default() },
        Plan { steps: vec![Step::Withdraw { place: it_runs }], ..Plan::default() },
    ];
    for (at, plan) in plans.iter().enumerate() {
        let generation = fleet(&it.db, "shop").await.generation;
        it.db.store_plan(&shop, generation, plan, Time(at as u64)).await.unwrap();
    }
    let history = it.db.place_history(&shop, it_runs, PageRequest::newest(10)).await.unwrap().items;
    let told: Vec<_> =
        history.iter().map(|it| (it.release.clone(), it.since, it.until, it.rollout)).collect();
    let id = Some(rollout.id);
    assert_eq!(told, [(key("1", 2), Time(2), Some(Time(3)), id), (key("1", 1), Time(0), Some(Time(2)), id)]);
    let page = it.db.place_history(&shop, it_runs, PageRequest::newest(1)).await.unwrap();
    let rest = PageRequest { after: page.next, limit: 1 };
    assert_eq!(it.db.place_history(&shop, it_runs, rest).await.unwrap().items, history[1..]);
}

async fn a_history_says_what_was_hot_from_where_and_how_it_went_on(it: TestDb) {
    let (one, _) = shop(&it).await;
    it.db.record_release(&release("shop", key("2", 2), 1), &[]).await.unwrap();
    let shop = app("shop");
    let (first, second) = (place(one, 1), place(one, 2));
    let hot = |place, to: &ReleaseKey, rollout: &Rollout| {
        let mut step = assign(place, to);
        if let Step::Assign { hot, begins, .. } = &mut step {
            let attempt = rollout.id.to_string();
            (*hot, *begins) = (Some(Hot { attempt, from: key("1", 1), required: false }), false);
        }
        step
    };
    let begin = rollout("shop", key("1", 1), RolloutPhase::Done, 10);
    let next = rollout("shop", key("2", 2), RolloutPhase::Running, 11);
    let both = |release: &ReleaseKey| vec![assign(first, release), assign(second, release)];
    let plans = [
        Plan { rollouts: vec![begin.clone()], steps: both(&key("1", 1)), ..Plan::default() },
        Plan {
            rollouts: vec![next.clone()],
            steps: vec![hot(first, &key("2", 2), &next)],
            ..Plan::default()
        },
        Plan {
            rollouts: vec![next.clone()],
            steps: vec![hot(second, &key("2", 2), &next)],
            ..Plan::default()
        },
        // Told again while it is under way: no other entry.
        Plan {
            rollouts: vec![next.clone()],
            steps: vec![hot(second, &key("2", 2), &next)],
            ..Plan::default()
        },
        // It could not be there.
        Plan { rollouts: vec![next.clone()], steps: vec![assign(second, &key("2", 2))], ..Plan::default() },
        // Back: that is no part of how the release came.
        Plan { rollouts: vec![next.clone()], steps: vec![assign(first, &key("1", 1))], ..Plan::default() },
    ];
    let both_rollouts = [begin, next];
    let mut kinds = Vec::new();
    for (at, plan) in plans.iter().enumerate() {
        let generation = fleet(&it.db, "shop").await.generation;
        it.db.store_plan(&shop, generation, plan, Time(at as u64)).await.unwrap();
        let found = it.db.deployment_kinds(&both_rollouts).await.unwrap();
        kinds.push(both_rollouts.each_ref().map(|it| found.get(&it.id).copied()));
    }
    let (full, is_hot) = (Some(DeploymentKind::Full), Some(DeploymentKind::Hot));
    let mixed = Some(DeploymentKind::Mixed);
    assert_eq!(
        kinds,
        [[full, None], [full, is_hot], [full, is_hot], [full, is_hot], [full, mixed], [full, mixed]]
    );
    let told = async |place| {
        let history = it.db.place_history(&shop, place, PageRequest::newest(10)).await.unwrap().items;
        history.into_iter().map(|it| (it.release, it.kind, it.from)).collect::<Vec<_>>()
    };
    let (one, two) = (key("1", 1), key("2", 2));
    let begun = (one.clone(), DeploymentKind::Full, None);
    let upgraded = (two.clone(), DeploymentKind::Hot, Some(one.clone()));
    let back = (one.clone(), DeploymentKind::Full, Some(two.clone()));
    assert_eq!(told(first).await, [back, upgraded.clone(), begun.clone()]);
    let went_on = (two, DeploymentKind::Full, Some(one));
    assert_eq!(told(second).await, [went_on, upgraded, begun]);
}

async fn an_application_without_nodes_labels_match_gets_none(it: TestDb) {
    let (one, _) = shop(&it).await;
    let mut spec = AppSpec::new(app("picky"), proto::state::Language::Gleam);
    spec.nodes = BTreeMap::from([("role".to_owned(), "db".to_owned())]);
    let put = vec![NewApplication { spec, source: Source::Yaml, cookie: Vec::new() }];
    it.db.put_applications(ApplicationsDiff { put, ..Default::default() }, Time(1)).await.unwrap();
    assert_eq!(fleet(&it.db, "picky").await.nodes, BTreeMap::new());
    it.db.record_release(&release("picky", key("1", 1), 1), &[]).await.unwrap();
    let plan = Plan { steps: vec![assign(place(one, 1), &key("1", 1))], ..Plan::default() };
    let generation = fleet(&it.db, "picky").await.generation;
    it.db.store_plan(&app("picky"), generation, &plan, Time(1)).await.unwrap();
    let held = fleet(&it.db, "picky").await.nodes;
    assert_eq!(held.iter().map(|(id, node)| (*id, node.eligible)).collect::<Vec<_>>(), [(one, false)]);
}

async fn fifty_plans_at_once_are_each_stored_once(it: TestDb) {
    let (one, two) = shop(&it).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..50 {
        let db = it.db.clone();
        tasks.spawn(async move {
            loop {
                let generation = fleet(&db, "shop").await.generation;
                let steps = [one, two].map(|node| assign(place(node, n + 1), &key("1", 1))).to_vec();
                let plan = Plan { steps, ..Plan::default() };
                match db.store_plan(&app("shop"), generation, &plan, Time(9)).await {
                    Ok(_) => break,
                    Err(error) => assert!(error.is_conflict(), "{error:?}"),
                }
            }
        });
    }
    tasks.join_all().await;
    let after = fleet(&it.db, "shop").await;
    assert_eq!(after.assigned.len(), 100);
    assert_eq!(it.db.node(one).await.unwrap().unwrap().generation, 51);
    let generations: BTreeSet<_> =
        after.assigned.iter().filter(|(place, _)| place.node == two).map(|(_, it)| it.generation).collect();
    assert_eq!(generations, (2..=51).collect());
}
