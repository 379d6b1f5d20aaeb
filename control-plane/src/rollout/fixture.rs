//! Fleets for tests, and what storing a plan makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use proto::hot_upgrade::{Appup, Matcher, Package, Versions};
use proto::ids::{Digest, NodeId, ReleaseKey, RolloutId, Slot};
use proto::state::{HostLevel, Language, Liveness, RolloutPhase, Service, SlotState, Strategy, VmFigure};
use uuid::Uuid;

use super::{InForce, Plan, PreCommandsState, Progress, Rollout, Step};
use crate::clock::Time;
use crate::fleet::{
    AppFleet, Assigned, Node, Observed, ObservedLevel, ObservedNode, ObservedVm, Place, ToldRestart, Wish,
    WishedBy,
};
use crate::spec::{AppSpec, Millis};

pub(crate) fn node_id(number: u8) -> NodeId {
    NodeId(Uuid::from_u128(u128::from(number)))
}

pub(crate) fn place(node: u8, slot: u16) -> Place {
    Place { node: node_id(node), slot: Slot::new(u32::from(slot)).unwrap() }
}

/// "1.N.0".
pub(crate) fn release(number: u8) -> ReleaseKey {
    ReleaseKey { version: format!("1.{number}.0").parse().unwrap(), sha256: Digest([number; 32]) }
}

pub(crate) fn wish(number: u8, at: u64) -> Wish {
    Wish { release: release(number), pre_commands: false, by: WishedBy::Bucket, at: Time(at) }
}

/// Stable after 3 s, 40 s to become so, watched for 30 s.
pub(crate) fn spec(strategy: Strategy, replicas: u16) -> AppSpec {
    let mut spec = AppSpec::new("shop".parse().unwrap(), Language::Elixir);
    spec.replicas = NonZeroU16::new(replicas).unwrap();
    spec.rollback_timeout = Millis(40_000);
    spec.deploy.strategy = strategy;
    spec.deploy.stable_after = Millis(3_000);
    spec.deploy.watch = Millis(30_000);
    spec.deploy.pre_commands_timeout = Millis(20_000);
    spec
}

/// Without pre-commands, begun by the bucket at once.
pub(crate) fn rollout(of: u8, from: Option<u8>, phase: RolloutPhase) -> Rollout {
    Rollout {
        id: RolloutId(Uuid::nil()),
        app: "shop".parse().unwrap(),
        release: release(of),
        from: from.map(release),
        wished_at: Time(1),
        phase,
        reason: None,
        pre_commands: PreCommandsState::NotNeeded,
        progress: Progress::default(),
        by: "bucket".to_owned(),
        started_at: Time(1),
        phase_since: Time(1),
        finished_at: None,
    }
}

/// Nodes `node-1`..`node-N`, up, with nothing on them.
pub(crate) fn fleet(strategy: Strategy, replicas: u16, nodes: u8) -> AppFleet {
    AppFleet {
        app: "shop".parse().unwrap(),
        generation: 0,
        spec: Some(spec(strategy, replicas)),
        untold: None,
        wanted: None,
        in_force: None,
        ghosted: BTreeSet::new(),
        proven: BTreeSet::new(),
        rollout: None,
        last: None,
        tried: None,
        brought: None,
        predecessor: None,
        restarts: Vec::new(),
        given_up: None,
        nodes: (1..=nodes).map(|number| (node_id(number), node(number))).collect(),
        placed: BTreeMap::new(),
        assigned: BTreeMap::new(),
        packages: BTreeMap::new(),
        observed: BTreeMap::new(),
    }
}

pub(crate) fn node(number: u8) -> Node {
    let name = format!("node-{number}").parse().unwrap();
    Node {
        name,
        liveness: Liveness::Up,
        eligible: true,
        labels: BTreeMap::new(),
        service: Service::Open,
        stored: 0,
    }
}

/// A slot that has nothing to say but its state.
pub(crate) fn seen(state: SlotState, running: Option<ReleaseKey>, generation: u64) -> Observed {
    Observed {
        generation,
        state,
        running,
        pid: None,
        started_at: None,
        ready_since: None,
        staging: None,
        crash_restarts: 0,
        forced_restarts: 0,
        crashes_since_deploy: 0,
        last_exit: None,
        failed_check: None,
        next_start_at: None,
        fault: String::new(),
        pre_commands: None,
        fell_back: None,
        erlang: None,
        vm: None,
        upgrade: None,
        hot_upgrades: false,
        waiting_settings: Vec::new(),
        ports: Vec::new(),
        reported_at: Time(0),
    }
}

/// Of a release to which there is a way from every other, and back.
pub(crate) fn package(release: &ReleaseKey) -> Package {
    let version = release.version.to_string();
    let any = vec![Matcher { versions: Versions::Expression(".*".to_owned()), restarts: false }];
    let appup = Appup { to: version.clone(), up: any.clone(), down: any, fault: None };
    Package {
        erts: "13.1.5".to_owned(),
        name: "shop".to_owned(),
        libs: [("sasl", "4.2".to_owned()), ("shop", version)].map(|(lib, of)| (lib.to_owned(), of)).into(),
        appups: [("shop".to_owned(), appup)].into(),
        ..Package::default()
    }
}

/// Its agent talks to it.
pub(crate) fn connected() -> ObservedNode {
    ObservedNode {
        name: "shop-1@host".to_owned(),
        connected_since: Some(Time(1)),
        kind: String::new(),
        because: String::new(),
        tls: String::new(),
        mesh: None,
    }
}

/// Of a replica that is to be restarted for its atoms, where its application's `monitoring` says so.
pub(crate) fn above_its_limit(since: Time) -> ObservedVm {
    let (figure, level) = (VmFigure::Atom, HostLevel::Exceeded);
    let levels = vec![ObservedLevel { figure, level, count: 950, limit: 1_000, since }];
    ObservedVm { levels, ..ObservedVm::default() }
}

/// What the database makes of a plan; `generations` are the nodes'.
pub(crate) fn store(fleet: &mut AppFleet, plan: &Plan, generations: &mut BTreeMap<NodeId, u64>, now: Time) {
    fleet.generation += 1;
    let told = plan.steps.iter().filter(|step| !matches!(step, Step::Forget { .. }));
    for node in told.map(|step| step.place().node).collect::<BTreeSet<_>>() {
        *generations.entry(node).or_default() += 1;
    }
    let begun_at = fleet.generation;
    for step in &plan.steps {
        let generation = generations.get(&step.place().node).copied().unwrap_or_default();
        let assigned = |release, pre_commands_run, begun_at| Assigned {
            release,
            pre_commands_run,
            generation,
            since: now,
            begun_at,
            restart: None,
            hot: None,
        };
        match step {
            Step::Assign { place, release, pre_commands_run, begins, hot } => {
                let same = |it: &&Assigned| hot.is_some() || it.release.as_ref() == Some(release);
                let before = fleet.assigned.get(place).filter(same);
                let kept = before.map_or(0, |it| it.begun_at);
                let begun_at = if *begins { begun_at } else { kept };
                let told = assigned(Some(release.clone()), pre_commands_run.clone(), begun_at);
                let told = Assigned { hot: hot.clone(), ..told };
                fleet.assigned.insert(*place, told);
            }
            Step::Withdraw { place } => {
                fleet.assigned.insert(*place, assigned(None, None, begun_at));
            }
            Step::Forget { place } => {
                fleet.assigned.remove(place);
            }
            Step::Restart { place, restart, only_since } => {
                if let Some(assigned) = fleet.assigned.get_mut(place) {
                    assigned.restart = Some(ToldRestart { id: *restart, at: now });
                    assigned.begun_at = only_since.unwrap_or(begun_at);
                    assigned.generation = generation;
                }
            }
        }
    }
    for rollout in plan.rollouts.iter().chain(&plan.predecessors).filter(|it| it.finished_at.is_some()) {
        if rollout.phase == RolloutPhase::Done {
            fleet.proven.insert(rollout.release.clone());
        }
        let in_force = match &plan.in_force {
            Some(InForce::Release(release)) => Some(release),
            Some(InForce::Nothing) => None,
            None => fleet.in_force.as_ref(),
        };
        let stays = matches!(rollout.phase, RolloutPhase::Done | RolloutPhase::Superseded);
        if stays && in_force == Some(&rollout.release) {
            fleet.brought = Some(rollout.clone());
        }
        if fleet.last.as_ref().is_none_or(|last| last.id <= rollout.id) {
            fleet.last = Some(rollout.clone());
        }
        if fleet.wanted.as_ref().is_some_and(|wish| rollout.carries_out(wish)) {
            fleet.tried = Some(rollout.clone());
        }
        if fleet.rollout.as_ref().is_some_and(|it| it.id == rollout.id) {
            fleet.rollout = None;
        }
    }
    if let Some(rollout) = plan.rollouts.iter().find(|it| it.finished_at.is_none()) {
        fleet.rollout = Some(rollout.clone());
    }
    let before = fleet.rollout.as_ref().and_then(|it| it.progress.predecessor);
    let rows = || plan.predecessors.iter().rev().chain(plan.rollouts.iter().rev()).chain(&fleet.predecessor);
    fleet.predecessor = before.and_then(|id| rows().find(|it| it.id == id).cloned());
    match &plan.in_force {
        Some(InForce::Release(release)) => fleet.in_force = Some(release.clone()),
        Some(InForce::Nothing) => fleet.in_force = None,
        None => {}
    }
    if let Some(placed) = &plan.placed {
        fleet.placed.clone_from(placed);
    }
    fleet.restarts.extend(plan.asked.clone());
    let failed = |wish: &crate::fleet::RestartWish| {
        plan.restarts.iter().any(|over| over.id == wish.id && over.failure.is_some())
    };
    if fleet.restarts.iter().any(|wish| wish.because.is_some() && failed(wish)) {
        fleet.given_up = Some(now);
    }
    fleet.restarts.retain(|wish| plan.restarts.iter().all(|over| over.id != wish.id));
    fleet.ghosted.extend(plan.ghosts.iter().map(|ghost| ghost.release.clone()));
}
