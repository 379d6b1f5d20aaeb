//! How long the planner takes, alone, so that it can be measured: fleets of so many nodes in the situations that it meets.
//! Built with the feature `bench` only; no part of an installation.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use anyhow::{Context as _, ensure};
use clap::Parser;
use control_plane::clock::Time;
use control_plane::fleet::{AppFleet, Assigned, Node, Observed, Place, Wish, WishedBy};
use control_plane::rollout::{Step, plan};
use control_plane::spec::{Amount, AppSpec};
use proto::ids::{AppName, Digest, NodeId, ReleaseKey, Slot};
use proto::state::{Language, Liveness, Service, SlotState};
use uuid::Uuid;

/// Plans for fleets of each size in each situation, and says how long each plan took.
#[derive(Debug, Parser)]
struct Arguments {
    /// Nodes of a fleet; one after another.
    #[arg(long, value_delimiter = ',', required = true)]
    nodes: Vec<u32>,
    /// On each node.
    #[arg(long, default_value_t = 10)]
    replicas: u16,
    /// Plans of each fleet in each situation.
    #[arg(long, default_value_t = 20)]
    turns: usize,
}

const NOW: Time = Time(100_000_000);

/// What the planner finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Situation {
    /// Nothing is to be done: what a look at everything costs.
    Rest,
    /// A release is wished that runs nowhere yet.
    Begin,
    /// Half of the nodes run the new release, and a batch is under way.
    Halfway,
    /// All of it runs the new release, of which one slot has just crashed too often: all of it goes back.
    Revert,
    /// All of it ran the new release, which was watched still when a third one was wished: its watch goes on beneath that.
    Beneath,
    /// A spread over the nodes, of which a tenth is lost.
    Spread,
}

const SITUATIONS: [(Situation, &str); 6] = [
    (Situation::Rest, "rest"),
    (Situation::Begin, "begin"),
    (Situation::Halfway, "halfway"),
    (Situation::Revert, "revert"),
    (Situation::Beneath, "beneath"),
    (Situation::Spread, "spread"),
];

fn main() -> anyhow::Result<()> {
    let Arguments { nodes, replicas, turns } = Arguments::parse();
    let mut out = std::io::stdout();
    for nodes in nodes {
        for (situation, word) in SITUATIONS {
            let mut fleet = fleet(nodes, replicas, situation)?;
            let slots = fleet.assigned.len();
            for _ in 0..turns {
                let begun = now();
                let planned = plan(&fleet, NOW);
                let micros = begun.elapsed().as_micros();
                ensure!(
                    !(planned.is_empty() && matches!(situation, Situation::Begin | Situation::Revert)),
                    "nothing was planned for {nodes} nodes, {word}"
                );
                writeln!(
                    out,
                    "planned {word} {nodes} nodes {slots} slots {} steps in {micros} us",
                    planned.steps.len()
                )?;
                // Each turn reads a fleet of its own, as each look at everything does.
                fleet.generation += 1;
            }
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is about time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn release(number: u8) -> anyhow::Result<ReleaseKey> {
    Ok(ReleaseKey { version: format!("1.{number}.0").parse()?, sha256: Digest([number; 32]) })
}

fn fleet(count: u32, replicas: u16, situation: Situation) -> anyhow::Result<AppFleet> {
    let app: AppName = "shop".parse()?;
    let (old, new) = (release(1)?, release(2)?);
    let mut spec = AppSpec::new(app.clone(), Language::Elixir);
    spec.replicas = replicas.try_into().context("no replicas")?;
    spec.deploy.batch = Amount::Percent(5);
    spec.deploy.max_unavailable = Amount::Percent(1);
    spec.deploy.order_by = Some("zone".to_owned());
    let spread = situation == Situation::Spread;
    if spread {
        // A node holds a thousand slots at most, and a spread has no more than that over all of them.
        spec.spread = 999_u16.try_into().ok();
    }
    let mut fleet = AppFleet {
        app,
        generation: 1,
        spec: Some(spec),
        untold: None,
        wanted: Some(wish(&old, Time(1))),
        in_force: Some(old.clone()),
        ghosted: BTreeSet::new(),
        proven: [old.clone()].into(),
        rollout: None,
        last: None,
        tried: None,
        brought: None,
        predecessor: None,
        restarts: Vec::new(),
        given_up: None,
        nodes: BTreeMap::new(),
        placed: BTreeMap::new(),
        assigned: BTreeMap::new(),
        packages: BTreeMap::new(),
        observed: BTreeMap::new(),
    };
    for number in 0..count {
        let id = NodeId(Uuid::from_u128(u128::from(number) << 64 | 7));
        let zone = ["a", "b", "c"][number as usize % 3];
        let lost = spread && number.is_multiple_of(10);
        let node = Node {
            name: format!("node-{number}").parse()?,
            liveness: if lost { Liveness::Lost } else { Liveness::Up },
            eligible: true,
            labels: [("zone".to_owned(), zone.to_owned())].into(),
            service: Service::Open,
            stored: 1,
        };
        fleet.nodes.insert(id, node);
        let moved = match situation {
            Situation::Halfway => number < count / 2,
            Situation::Revert | Situation::Beneath => true,
            Situation::Rest | Situation::Begin | Situation::Spread => false,
        };
        let holds = if spread { u16::from(number < 999) } else { replicas };
        for slot in 1..=holds {
            let place = Place { node: id, slot: Slot::new(slot.into())? };
            put(&mut fleet, place, if moved { &new } else { &old });
        }
        if spread && holds > 0 {
            fleet.placed.insert(id, holds);
        }
    }
    match situation {
        Situation::Rest | Situation::Spread => {}
        Situation::Begin => fleet.wanted = Some(wish(&new, Time(2))),
        Situation::Halfway => {
            fleet.wanted = Some(wish(&new, Time(2)));
            begin(&mut fleet);
        }
        Situation::Revert => {
            fleet.wanted = Some(wish(&new, Time(2)));
            begin(&mut fleet);
            settle(&mut fleet, new);
            let crashed = fleet.observed.values_mut().nth(7).context("an empty fleet")?;
            crashed.state = SlotState::BackingOff;
            crashed.crashes_since_deploy = 9;
        }
        Situation::Beneath => {
            fleet.wanted = Some(wish(&new, Time(2)));
            begin(&mut fleet);
            settle(&mut fleet, new);
            fleet.wanted = Some(wish(&release(3)?, Time(3)));
            let gave_way = plan(&fleet, NOW);
            fleet.rollout = gave_way.rollouts.last().cloned();
            let beneath = fleet.rollout.as_ref().and_then(|it| it.progress.predecessor);
            let mut rows = gave_way.predecessors.into_iter().chain(gave_way.rollouts);
            fleet.predecessor = rows.find(|it| Some(it.id) == beneath && it.progress.watch_began.is_some());
            ensure!(
                fleet
                    .predecessor
                    .as_ref()
                    .is_some_and(|it| it.progress.watched_from.len() == fleet.assigned.len()),
                "no watch goes on beneath"
            );
        }
    }
    Ok(fleet)
}

/// It is in force by now, and watched.
fn settle(fleet: &mut AppFleet, new: ReleaseKey) {
    let settled = plan(fleet, NOW);
    fleet.rollout = settled.rollouts.last().cloned();
    fleet.in_force = Some(new);
}

/// The rollout as it is once it was begun.
fn begin(fleet: &mut AppFleet) {
    let assigned = std::mem::take(&mut fleet.assigned);
    let begun = plan(fleet, Time(2));
    fleet.rollout = begun.rollouts.last().cloned();
    fleet.assigned = assigned;
    // What was planned for an empty fleet is not carried out.
    let told = begun.steps.iter().filter(|step| matches!(step, Step::Restart { .. }));
    debug_assert_eq!(told.count(), 0);
}

fn wish(release: &ReleaseKey, at: Time) -> Wish {
    Wish { release: release.clone(), pre_commands: false, by: WishedBy::Bucket, at }
}

fn put(fleet: &mut AppFleet, place: Place, release: &ReleaseKey) {
    let assigned = Assigned {
        release: Some(release.clone()),
        pre_commands_run: None,
        generation: 1,
        since: Time(1),
        begun_at: 1,
        restart: None,
        hot: None,
    };
    fleet.assigned.insert(place, assigned);
    let observed = Observed {
        generation: 1,
        state: SlotState::Stable,
        running: Some(release.clone()),
        pid: Some(1),
        started_at: Some(Time(1)),
        ready_since: Some(Time(1)),
        staging: None,
        crash_restarts: 0,
        forced_restarts: 0,
        crashes_since_deploy: 0,
        last_exit: None,
        failed_check: None,
        next_start_at: None,
        fault: String::new(),
        fell_back: None,
        erlang: None,
        vm: None,
        upgrade: None,
        hot_upgrades: false,
        waiting_settings: Vec::new(),
        pre_commands: None,
        ports: Vec::new(),
        reported_at: Time(1),
    };
    fleet.observed.insert(place, observed);
}
