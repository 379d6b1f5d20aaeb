//! A rollout as the API shows it: by node and batch, and how many slots are to be there.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use proto::apps::Application;
use proto::ids::{Digest, NodeId, ReleaseKey, RolloutId};
use proto::rollouts::{Group, GroupKind, Rollout as RolloutView};
use proto::state::{Liveness, NodeStage, Role, RolloutPhase, Service, SlotState};

use super::fleet::{configured, enrolled};
use super::{Bench, Call};
use crate::clock::Time;
use crate::fleet::{Assigned, Node, Observed, Place};
use crate::rollout::{Batch, PreCommandsState, Progress, Rollout, fixture};

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
    }
}

fn seen(release: &ReleaseKey) -> Observed {
    let seen = fixture::seen(SlotState::Stable, Some(release.clone()), 1);
    Observed { pid: Some(7), ..seen }
}

/// One replica on each of three nodes; the first is the canary and has moved.
async fn moving(bench: &Bench) -> [NodeId; 3] {
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
    let canary = Batch { number: 1, canary: true, nodes: [ids[0]].into(), stable_since: Some(Time(9)) };
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
    assert_eq!(drawn, [(GroupKind::Canary, 1), (GroupKind::ToCome, 2)]);
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
