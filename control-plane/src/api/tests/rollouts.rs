//! A rollout as the API shows it: by node and batch, and how many slots are to be there.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use proto::apps::Application;
use proto::ids::{Digest, NodeId, ReleaseKey, RolloutId};
use proto::rollouts::{Group, GroupKind, PreCommandsRan, Rollout as RolloutView, RolloutPreCommands};
use proto::state::{Liveness, NodeStage, Role, RolloutPhase, Service, SlotState};

use super::fleet::{configured, enrolled};
use super::{Bench, Call};
use crate::clock::Time;
use crate::config::Flags;
use crate::db::tests::fixture::{TestDb, on_both_engines};
use crate::fleet::{Assigned, Node, Observed, Place};
use crate::rollout::{
    Batch, Drawn, EndedNode, OwnRuns, Plan, PreCommandsState, Progress, Ran, Record, Recorded, Rollout, Runs,
    Trial, fixture,
};

on_both_engines!(what_is_kept_of_a_rollout_is_shown_while_it_moves_and_when_it_is_over);

fn key(number: u8) -> ReleaseKey {
    ReleaseKey { version: format!("{number}.0.0").parse().unwrap(), sha256: Digest([number; 32]) }
}

fn told(release: &ReleaseKey) -> Assigned {
    Assigned {
        release: Some(release.clone()),
        pre_commands_run: None,
        generation: 1,
        since: Time(1),
        begun_at: 0,
        restart: None,
        hot: None,
    }
}

fn seen(release: &ReleaseKey) -> Observed {
    let seen = fixture::seen(SlotState::Stable, Some(release.clone()), 1);
    Observed { pid: Some(7), ..seen }
}

/// One replica on each of three nodes; the first is the canary and has moved.
pub(super) async fn moving(bench: &Bench) -> [NodeId; 3] {
    configured(bench).await;
    let mut ids = Vec::new();
    for name in ["web-1", "web-2", "web-3"] {
        ids.push(enrolled(bench, name).await);
    }
    bench.backend.up.lock().unwrap().extend(&ids);
    let ids: [NodeId; 3] = ids.try_into().unwrap();
    let mut fleets = bench.backend.fleets.lock().unwrap();
    let fleet = &mut fleets[0];
    fleet.spec.as_mut().unwrap().replicas = NonZeroU16::MIN;
    fleet.in_force = Some(key(1));
    for (at, id) in ids.into_iter().enumerate() {
        let release = key(if at == 0 { 2 } else { 1 });
        let place = Place { node: id, slot: "1".parse().unwrap() };
        fleet.assigned.insert(place, told(&release));
        fleet.observed.insert(place, seen(&release));
        let node = Node {
            name: format!("web-{}", at + 1).parse().unwrap(),
            liveness: Liveness::Up,
            eligible: true,
            labels: BTreeMap::new(),
            service: Service::Open,
            stored: 1,
        };
        fleet.nodes.insert(id, node);
    }
    let nodes = [ids[0]].into();
    let canary =
        Batch { number: 1, canary: true, nodes, stable_since: Some(Time(9)), rested: Trial::default() };
    fleet.rollout = Some(Rollout {
        id: RolloutId(uuid::Uuid::nil()),
        app: "myapp".parse().unwrap(),
        release: key(2),
        from: Some(key(1)),
        wished_at: Time(1),
        phase: RolloutPhase::Running,
        reason: None,
        pre_commands: PreCommandsState::NotNeeded,
        progress: Progress { batch: Some(canary), ..Progress::default() },
        by: "bucket".to_owned(),
        started_at: Time(1),
        phase_since: Time(1),
        finished_at: None,
    });
    ids
}

#[tokio::test]
async fn a_rollout_shows_its_nodes_by_batch_and_whether_they_wait_for_a_person() {
    let bench = Bench::new().await;
    let ids = moving(&bench).await;
    let viewer = bench.token(Role::Viewer).await;
    let show = || async {
        let path = format!("/api/v1/rollouts/{}", uuid::Uuid::nil());
        bench.send(Call::get(&path).bearer(&viewer)).await.json::<RolloutView>()
    };
    let rollout = show().await;
    let drawn: Vec<(GroupKind, usize)> =
        rollout.groups().into_iter().map(|Group { kind, nodes }| (kind, nodes.len())).collect();
    assert_eq!(drawn, [(GroupKind::Canary(1), 1), (GroupKind::ToCome, 2)]);
    assert_eq!((rollout.summary.progress.stable, rollout.summary.progress.total), (1, 3));
    assert!(rollout.batch.is_some_and(|batch| batch.canary && batch.may_be_promoted));
    assert!(rollout.strategy.is_some_and(|it| it.starts_with("start_first, one node at a time")));

    bench.backend.fleets.lock().unwrap()[0].nodes.get_mut(&ids[2]).unwrap().liveness = Liveness::Lost;
    let stages: Vec<NodeStage> = show().await.nodes.iter().map(|node| node.stage).collect();
    assert_eq!(stages, [NodeStage::Moved, NodeStage::ToCome, NodeStage::Lost]);
}

#[tokio::test]
async fn slots_are_wanted_where_they_are_placed() {
    let bench = Bench::new().await;
    let ids = moving(&bench).await;
    let viewer = bench.token(Role::Viewer).await;
    let wanted = || async {
        let path = "/api/v1/applications/myapp";
        let shown = bench.send(Call::get(path).bearer(&viewer)).await.json::<Application>();
        shown.summary.replicas_wanted
    };
    let change = |change: &dyn Fn(&mut crate::fleet::AppFleet)| {
        change(&mut bench.backend.fleets.lock().unwrap()[0]);
    };
    assert_eq!(wanted().await, 3);
    // A cordoned node keeps what it has; a second replica is for the others.
    change(&|fleet| {
        fleet.spec.as_mut().unwrap().replicas = NonZeroU16::new(2).unwrap();
        fleet.nodes.get_mut(&ids[1]).unwrap().service = Service::Cordoned;
    });
    assert_eq!(wanted().await, 5);
    change(&|fleet| fleet.nodes.get_mut(&ids[1]).unwrap().service = Service::Draining);
    assert_eq!(wanted().await, 4);
    change(&|fleet| {
        fleet.spec.as_mut().unwrap().spread = NonZeroU16::new(7);
        fleet.placed = BTreeMap::from([(ids[0], 4), (ids[2], 3)]);
    });
    assert_eq!(wanted().await, 7);
}

/// What there is to read of it: its nodes by batch and stage.
fn told_of_nodes(rollout: &RolloutView) -> Vec<String> {
    let phase = rollout.summary.phase;
    let group = |Group { kind, nodes }: Group<'_>| {
        let nodes: Vec<String> = nodes.iter().map(|it| format!("{} {}", it.node, it.stage)).collect();
        format!("{}: {}", kind.title(phase), nodes.join(", "))
    };
    rollout.groups().into_iter().map(group).collect()
}

async fn what_is_kept_of_a_rollout_is_shown_while_it_moves_and_when_it_is_over(it: TestDb) {
    let bench = Bench::on(it, Flags::default(), |_| ()).await;
    moving(&bench).await;
    let viewer = bench.token(Role::Viewer).await;
    let app: proto::ids::AppName = "myapp".parse().unwrap();
    let id = RolloutId(uuid::Uuid::nil());
    let path = format!("/api/v1/rollouts/{id}");
    let show = || async { bench.send(Call::get(&path).bearer(&viewer)).await.json::<RolloutView>() };
    let names = |names: &[&str]| names.iter().map(|it| it.parse().unwrap()).collect::<Vec<_>>();
    let recorded = |what| Recorded { rollout: id, what };
    let drawn = |number, canary, nodes: &[&str]| {
        recorded(Record::Drawn(Drawn { number, canary, nodes: names(nodes) }))
    };

    let mut rollout = bench.backend.fleets.lock().unwrap()[0].rollout.clone().unwrap();
    rollout.pre_commands = PreCommandsState::Passed;
    // The canary was lost and drawn anew; a NUL is a letter that one engine takes in no text.
    let output = "$ eval Shop.migrate() (took 1.2 s)\n\u{1b}[31mdone\0\n".to_owned();
    let ran_by = |node: &str, output: &str| Ran {
        node: node.parse().unwrap(),
        slot: "2".parse().unwrap(),
        at: Time(7),
        output: output.to_owned(),
    };
    let ran = ran_by("gone", &output);
    let records = vec![
        drawn(1, true, &["web-1"]),
        drawn(2, true, &["web-1"]),
        drawn(3, false, &["web-2"]),
        recorded(Record::Ran(Runs::ForAll(ran.clone()))),
    ];
    let plan = Plan { rollouts: vec![rollout.clone()], records, ..Plan::default() };
    let generation = bench.api.db.load_app_fleets().await.unwrap()[0].generation;
    bench.api.db.store_plan(&app, generation, &plan, Time(9)).await.unwrap();
    bench.backend.fleets.lock().unwrap()[0].rollout = Some(rollout.clone());
    let moves = show().await;
    let expected = ["Batch 2, canary: web-1 moved", "Batch 3: web-2 to-come", "To come: web-3 to-come"];
    assert_eq!(told_of_nodes(&moves), expected);
    let RolloutPreCommands::Passed { ran: Some(PreCommandsRan { node, slot, at, output: shown }) } =
        &moves.pre_commands
    else {
        panic!("{:?}", moves.pre_commands)
    };
    assert_eq!((node.as_str(), slot.number(), at.0, shown), ("gone", 2, 7, &output));
    let shown =
        bench.send(Call::get("/api/v1/applications/myapp").bearer(&viewer)).await.json::<Application>();
    assert_eq!(told_of_nodes(&shown.current_rollout.unwrap()), expected);

    rollout.phase = RolloutPhase::Reverted;
    rollout.finished_at = Some(Time(20));
    let because = Some("slot 1 on web-2 was not stable within 10 min".to_owned());
    let ended = |name: &str, stage, because| EndedNode { node: name.parse().unwrap(), stage, because };
    let ended = vec![
        ended("web-1", NodeStage::Moved, None),
        ended("web-2", NodeStage::Failed, because.clone()),
        ended("web-3", NodeStage::ToCome, None),
    ];
    let records = vec![recorded(Record::Ended(ended))];
    let plan = Plan { rollouts: vec![rollout.clone()], records, ..Plan::default() };
    bench.api.db.store_plan(&app, generation + 1, &plan, Time(20)).await.unwrap();
    bench.backend.fleets.lock().unwrap()[0].rollout = None;
    let over = show().await;
    let expected = ["Batch 2, canary: web-1 moved", "Batch 3: web-2 failed", "Never came: web-3 to-come"];
    assert_eq!(told_of_nodes(&over), expected);
    assert_eq!(over.nodes[1].because, because);
    assert_eq!(over.pre_commands, moves.pre_commands, "kept beside it");

    // Had each run its own: what some of them printed, and how many passed.
    rollout.pre_commands = PreCommandsState::EveryReplica;
    let own = OwnRuns { passed: 12, some: vec![ran.clone()], failed: None };
    let records = vec![recorded(Record::Ran(Runs::Own(own)))];
    let plan = Plan { rollouts: vec![rollout.clone()], records, ..Plan::default() };
    bench.api.db.store_plan(&app, generation + 2, &plan, Time(21)).await.unwrap();
    let RolloutPreCommands::EveryReplica { passed: 12, ran } = show().await.pre_commands else {
        panic!("{:?}", show().await.pre_commands)
    };
    assert_eq!(ran.iter().map(|it| &it.output).collect::<Vec<_>>(), [&output]);

    // Where one failed: its words first, where no ghost holds them.
    rollout.pre_commands = PreCommandsState::Failed { error: "exit status 3".to_owned() };
    let failed = Some(Ran { output: "no table\n".to_owned(), ..ran_by("web-2", &output) });
    let own = OwnRuns { passed: 1, some: vec![ran_by("web-1", &output)], failed };
    let records = vec![recorded(Record::Ran(Runs::Own(own)))];
    let plan = Plan { rollouts: vec![rollout], records, ..Plan::default() };
    bench.api.db.store_plan(&app, generation + 3, &plan, Time(22)).await.unwrap();
    let RolloutPreCommands::Failed { error: _, ran } = show().await.pre_commands else {
        panic!("{:?}", show().await.pre_commands)
    };
    let told: Vec<_> = ran.iter().map(|it| (it.node.as_str(), it.output.as_str())).collect();
    assert_eq!(told, [("web-2", "no table\n"), ("web-1", output.as_str())]);
}
