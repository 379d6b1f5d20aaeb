//! A seeded world that drives `plan`: pretended agents that take up assignments late, lose their connection or their host,
//! releases that fail in every way, wishes and configuration that change meanwhile, a control plane that restarts and
//! forgets what it saw, another one that plans from an old state. The laws hold after every plan, and once all is quiet,
//! everything comes to rest.
//!
//! `SEED=n` repeats one history and prints it; `SEED=n..m` tells how many of that many break which law, and the first of each.

mod dice;
mod faults;
mod host;
mod laws;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use proto::ids::{NodeId, RestartId, Slot};
use proto::state::{Liveness, RolloutPhase, Service, Strategy};

use self::dice::Dice;
use self::host::Host;
use self::laws::Law;
use super::draft::Draft;
use super::fault::unplanted;
use super::fixture::{fleet, node, node_id, spec, store, wish};
use super::{Plan, Said, Steering, Step, Waiting, plan};
use crate::clock::Time;
use crate::fleet::{AppFleet, Assigned, Node, Observed, Place, RestartWish};
use crate::spec::monitoring::Threshold;
use crate::spec::{Amount, AppSpec, CanarySpec, Millis, PreCommandsRun, Promote};

const HOSTILE_STEPS: u32 = 200;
const QUIET_STEPS: u32 = 3_000;

/// In the histories of these seeds replicas pass their limits; in the others they never do.
const GROWING: u64 = 1_000_000;

/// A session that ended is suspect for so long.
const SUSPECT_MS: u64 = 2_000;

/// A broken law, and where.
#[derive(Debug)]
pub(in crate::rollout) struct Broken {
    pub(in crate::rollout) law: Law,
    seed: u64,
    log: Vec<String>,
}

struct World {
    dice: Dice,
    /// Of what passes its limits; `None`: nothing does.
    growth: Option<Dice>,
    /// Real time; the control plane's clock is ahead of it by `ahead`.
    now: u64,
    ahead: u64,
    fleet: AppFleet,
    generations: BTreeMap<NodeId, u64>,
    mislabelled: BTreeSet<NodeId>,
    service: BTreeMap<NodeId, Service>,
    /// Places that were ready when a plan took them, when that was by the control plane's clock, and that were not seen ready since.
    taken: BTreeMap<Place, u64>,
    stored: BTreeMap<NodeId, u64>,
    hosts: BTreeMap<NodeId, Host>,
    wishes: u64,
    /// When each restart was asked for, in real time.
    asked: BTreeMap<RestartId, u64>,
    /// Another planner's plan, made from the fleet as it was.
    rival: Option<(u64, Plan)>,
    /// For how long its node had been connected when a slot was last told something.
    told_at: BTreeMap<Place, u64>,
    wake_at: u64,
    dirty: bool,
    log: Option<Vec<String>>,
    steps: u32,
}

impl World {
    fn new(seed: u64, logs: bool) -> Self {
        let mut dice = Dice::new(seed);
        let strategy = if dice.one_in(2) { Strategy::StartFirst } else { Strategy::StopFirst };
        let nodes = 1 + dice.pick(3);
        let mut fleet = fleet(strategy, 1 + u16::from(dice.pick(3)), nodes);
        let mut growth = (seed >= GROWING).then(|| Dice::new(!seed));
        fleet.spec = Some(watched(some_spec(&mut dice), growth.as_mut()));
        for node in fleet.nodes.values_mut() {
            in_some_zone(node, &mut dice);
        }
        let hosts = fleet.nodes.keys().map(|id| (*id, Host::new())).collect();
        Self {
            dice,
            growth,
            now: 1_000_000,
            ahead: 10_000_000,
            fleet,
            generations: BTreeMap::new(),
            mislabelled: BTreeSet::new(),
            service: BTreeMap::new(),
            taken: BTreeMap::new(),
            stored: BTreeMap::new(),
            hosts,
            wishes: 0,
            asked: BTreeMap::new(),
            rival: None,
            told_at: BTreeMap::new(),
            wake_at: 0,
            dirty: true,
            log: logs.then(Vec::new),
            steps: 0,
        }
    }

    fn clock(&self) -> Time {
        Time(self.now + self.ahead)
    }

    fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.log.is_some() {
            let line = format!("{:>4} {:>9} {}", self.steps, self.now, what(self));
            self.log.iter_mut().for_each(|log| log.push(line.clone()));
        }
    }

    fn run(mut self, seed: u64) -> Result<u32, Broken> {
        let outcome = self.live();
        let Self { log, steps, .. } = self;
        outcome.map(|()| steps).map_err(|law| Broken { law, seed, log: log.unwrap_or_default() })
    }

    fn live(&mut self) -> Result<(), Law> {
        self.wish_for(1);
        for _ in 0..HOSTILE_STEPS {
            self.steps += 1;
            let millis = 50 + self.dice.up_to(1_500);
            self.pass(millis);
            self.mischief();
            self.control()?;
        }
        self.calm();
        for _ in 0..QUIET_STEPS {
            self.steps += 1;
            let next = self.hosts.values().filter(|host| host.connected).filter_map(Host::next_at);
            let next =
                next.chain([self.wake_at.saturating_sub(self.ahead)]).filter(|at| *at > self.now).min();
            let millis = next.map_or(2_000, |at| (at - self.now).clamp(1, 5_000));
            self.pass(millis);
            let Some(plan) = self.control()? else { continue };
            if plan.waiting.iter().any(|it| matches!(it, Waiting::Promotion { .. })) {
                self.steer(Steering::Promote { batch: None });
            }
            if !unplanted(|| laws::unfinished(&self.fleet, &plan, self.clock())) {
                return Ok(());
            }
        }
        self.note(|world| format!("never came to rest: {:#?}", world.fleet));
        Err(laws::ENDS)
    }

    /// Time goes by: hosts work, reports and assignments arrive.
    fn pass(&mut self, millis: u64) {
        self.now += millis;
        for (id, host) in &mut self.hosts {
            host.step(self.now, &mut self.dice);
            if !host.connected {
                continue;
            }
            if host.inbox.is_some_and(|at| at <= self.now) {
                host.inbox = None;
                let mine = self
                    .fleet
                    .assigned
                    .iter()
                    .filter(|(place, it)| place.node == *id && it.release.is_some());
                let wanted: BTreeMap<Slot, &Assigned> =
                    mine.map(|(place, assigned)| (place.slot, assigned)).collect();
                let generation = self.generations.get(id).copied().unwrap_or_default();
                host.take_up(generation, &wanted, self.now, &mut self.dice);
                self.stored.insert(*id, generation);
                self.dirty = true;
            }
            while host.outbox.front().is_some_and(|(at, ..)| *at <= self.now) {
                if let Some((_, slot, observed)) = host.outbox.pop_front() {
                    let observed = Observed {
                        ready_since: observed.ready_since.map(|_| Time(self.now + self.ahead)),
                        ..observed
                    };
                    self.fleet.observed.insert(Place { node: *id, slot }, observed);
                    self.dirty = true;
                }
            }
        }
    }

    fn wish_for(&mut self, number: u8) {
        self.wishes += 1;
        let mut wish = wish(number, self.wishes);
        wish.pre_commands = number % 2 == 1;
        let ghosted = self.fleet.ghosted.contains(&wish.release);
        self.note(|_| format!("wish {} {}", wish.release.version, if ghosted { "(ghosted)" } else { "" }));
        // As the database loads it: what carried out an earlier wish is not what was tried of this one.
        self.fleet.tried = self.fleet.tried.take().filter(|it| it.carries_out(&wish));
        self.fleet.wanted = Some(wish);
        self.dirty = true;
    }

    fn mischief(&mut self) {
        let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
        let id = ids[usize::try_from(self.dice.up_to(ids.len() as u64)).unwrap_or(0)];
        match self.dice.up_to(120) {
            0..=1 => {
                let number = 1 + self.dice.pick(11);
                self.wish_for(number);
            }
            2..=4 => self.cut(id),
            5..=9 => self.connect(id),
            10..=11 => {
                if let Some(host) = self.hosts.get_mut(&id) {
                    host.crash(self.now, &mut self.dice);
                }
                self.note(|_| format!("crash on {id}"));
            }
            12 => {
                if let Some(host) = self.hosts.get_mut(&id) {
                    host.reboot(self.now);
                }
                self.note(|_| format!("reboot of {id}"));
                self.cut(id);
            }
            13 => self.change_spec(),
            14 => {
                self.note(|_| "ghosts cleared".to_owned());
                self.fleet.ghosted.clear();
                self.dirty = true;
            }
            15 => self.restart_control_plane(),
            16 => {
                self.fill_in();
                self.rival = Some((self.fleet.generation, plan(&self.fleet, self.clock())));
            }
            17 => self.rival_stores(),
            18 if self.hosts.len() < 4 => {
                let number = u8::try_from(self.hosts.len() + 1).unwrap_or(u8::MAX);
                self.note(|_| format!("node-{number} joins"));
                let mut joins = node(number);
                in_some_zone(&mut joins, &mut self.dice);
                self.fleet.nodes.insert(node_id(number), joins);
                self.hosts.insert(node_id(number), Host::new());
                self.dirty = true;
            }
            19 => {
                if !self.mislabelled.remove(&id) {
                    self.mislabelled.insert(id);
                }
                self.note(|_| format!("{id} changes its labels"));
                self.dirty = true;
            }
            20..=22 => self.ask_for_a_restart(id),
            23..=25 => self.pause_or_resume(),
            26..=28 => self.steer(Steering::Promote { batch: None }),
            29 => self.steer(Steering::Abort),
            30..=31 => {
                let service = match self.dice.pick(3) {
                    0 => Service::Cordoned,
                    1 => Service::Draining,
                    _ => Service::Open,
                };
                self.note(|_| format!("{id} is {service}"));
                self.service.insert(id, service);
                self.dirty = true;
            }
            32 => {
                if let Some(host) = self.hosts.get_mut(&id) {
                    host.poor = !host.poor;
                }
                self.note(|_| format!("{id} changes its mind about releases"));
            }
            33..=35 => {
                if let (Some(host), Some(growth)) = (self.hosts.get_mut(&id), &mut self.growth) {
                    host.grow(self.now, growth);
                    self.note(|_| format!("something on {id} passes a limit"));
                }
            }
            _ => {}
        }
    }

    fn pause_or_resume(&mut self) {
        let at = self.clock();
        let Some(rollout) = &mut self.fleet.rollout else { return };
        if !matches!(rollout.phase, RolloutPhase::Pending | RolloutPhase::Running) {
            return;
        }
        rollout.progress.paused = match rollout.progress.paused {
            Some(_) => None,
            None => Some(Said { by: "somebody".to_owned(), at }),
        };
        self.fleet.generation += 1;
        self.note(|world| {
            format!("paused: {:?}", world.fleet.rollout.as_ref().map(|it| &it.progress.paused))
        });
        self.dirty = true;
    }

    fn steer(&mut self, steering: Steering) {
        let said = Said { by: "somebody".to_owned(), at: self.clock() };
        let Some(rollout) = self.fleet.rollout.clone() else { return };
        if let Ok(rollout) = rollout.steered(steering, said) {
            self.fleet.rollout = Some(rollout);
            self.fleet.generation += 1;
            self.note(|_| format!("{steering:?}"));
            self.dirty = true;
        }
    }

    /// Of everything, of a node, of a slot wherever it is, or of one replica.
    fn ask_for_a_restart(&mut self, id: NodeId) {
        self.wishes += 1;
        let node = self.dice.one_in(2).then_some(id);
        let slot = self.dice.one_in(3).then(|| Slot::new(1 + u32::from(self.dice.pick(4))).unwrap());
        self.fleet.generation += 1;
        let wish = RestartWish {
            generation: self.fleet.generation,
            id: RestartId(uuid::Uuid::from_u128(u128::from(self.wishes))),
            node,
            slot,
            by: "somebody".to_owned(),
            because: None,
            at: self.clock(),
        };
        self.note(|_| format!("restart of {node:?} {slot:?}"));
        self.asked.insert(wish.id, self.now);
        self.fleet.restarts.push(wish);
        self.dirty = true;
    }

    fn cut(&mut self, id: NodeId) {
        if let Some(host) = self.hosts.get_mut(&id).filter(|host| host.connected) {
            host.connected = false;
            host.connected_for += self.now - host.changed_at + SUSPECT_MS;
            host.changed_at = self.now;
            host.outbox.clear();
            self.dirty = true;
            self.note(|_| format!("{id} is cut off"));
        }
    }

    fn connect(&mut self, id: NodeId) {
        let Some(host) = self.hosts.get_mut(&id).filter(|host| !host.connected) else { return };
        host.connected = true;
        host.changed_at = self.now;
        host.inbox = Some(self.now + self.dice.up_to(300));
        self.fleet.observed.retain(|place, _| place.node != id);
        for (slot, observed) in host.hello(self.now) {
            let observed = Observed {
                ready_since: observed.ready_since.map(|_| Time(self.now + self.ahead)),
                ..observed
            };
            self.fleet.observed.insert(Place { node: id, slot }, observed);
        }
        self.stored.insert(id, host.generation);
        self.dirty = true;
        self.note(|_| format!("{id} is back"));
    }

    fn change_spec(&mut self) {
        self.fleet.spec = if self.dice.one_in(8) {
            None
        } else {
            Some(watched(some_spec(&mut self.dice), self.growth.as_mut()))
        };
        self.note(|world| {
            format!(
                "configuration: {:?}",
                world.fleet.spec.as_ref().map(|it| (it.replicas, it.spread, &it.deploy))
            )
        });
        self.dirty = true;
    }

    /// It forgets what it saw, its wall clock may have been set, and agents come back to it one by one.
    fn restart_control_plane(&mut self) {
        self.ahead = match self.dice.up_to(3) {
            0 => self.ahead + 3_600_000,
            1 => self.ahead.saturating_sub(600_000),
            _ => self.ahead,
        };
        self.fleet.observed.clear();
        self.stored.clear();
        self.wake_at = 0;
        let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
        self.note(|_| "control plane restarts".to_owned());
        for id in ids {
            self.cut(id);
        }
    }

    /// Another control plane stores the plan that it made a while ago: only if nothing was stored since.
    fn rival_stores(&mut self) {
        if let Some((generation, plan)) = self.rival.take()
            && generation == self.fleet.generation
            && !plan.is_empty()
        {
            self.note(|_| "a rival's plan is stored".to_owned());
            self.put(&plan);
        }
    }

    /// The fleet as reconcile would load it.
    fn fill_in(&mut self) {
        let fleet = &mut self.fleet;
        for (id, node) in &mut fleet.nodes {
            node.liveness = match self.hosts.get(id) {
                Some(host) if host.connected => Liveness::Up,
                Some(host) if self.now - host.changed_at < SUSPECT_MS => Liveness::Suspect,
                _ => Liveness::Lost,
            };
            node.stored = self.stored.get(id).copied().unwrap_or_default();
            node.eligible = fleet.spec.is_some() && !self.mislabelled.contains(id);
            node.service = self.service.get(id).copied().unwrap_or_default();
        }
    }

    /// Plans and stores, with every law looked after; `None`: nothing calls for it.
    fn control(&mut self) -> Result<Option<Plan>, Law> {
        let now = self.clock();
        if !self.dirty && now.0 < self.wake_at && !self.steps.is_multiple_of(8) {
            return Ok(None);
        }
        self.fill_in();
        unplanted(|| {
            let draft = Draft::new(&self.fleet, now);
            // What does not come in the time that a slot has is given up.
            let patience = self.fleet.spec.as_ref().map_or(0, |spec| spec.rollback_timeout.0);
            self.taken.retain(|place, at| {
                let missing = !draft.standing(*place).is_ready() && draft.host(place.node).is_some();
                // One that was withdrawn since was given up for another; wanted again, it waits for its turn.
                let told = self.fleet.assigned.get(place).is_some_and(|it| it.release.is_some());
                let stays = told || draft.host(place.node).is_some_and(|it| it.is(Liveness::Suspect));
                missing && stays && now.0.saturating_sub(*at) < patience
            });
        });
        let planned = plan(&self.fleet, now);
        self.wake_at = planned.wake_at.map_or(u64::MAX, |at| at.0);
        self.dirty =
            self.hosts.values().any(|host| !host.connected && self.now - host.changed_at <= SUSPECT_MS);
        self.note(|_| render(&planned));
        // What a plan asks for itself it may carry out.
        let judged = match &planned.asked {
            None => Cow::Borrowed(&self.fleet),
            Some(asked) => {
                let mut fleet = self.fleet.clone();
                fleet.restarts.push(asked.clone());
                Cow::Owned(fleet)
            }
        };
        if let Some(law) = unplanted(|| {
            laws::broken(&judged, &planned, now)
                .or_else(|| laws::beyond(&judged, &planned, now, &self.taken))
                .or_else(|| self.left_running(&planned))
        })
        .or_else(|| self.unjust(&planned))
        {
            self.note(|world| {
                let draft = Draft::new(&world.fleet, now);
                let told = |(place, it): (&Place, &Assigned)| {
                    let version = it.release.as_ref().map(|it| it.version.to_string());
                    format!("{place} {version:?} {:?}", draft.standing(*place))
                };
                let told: Vec<String> = world.fleet.assigned.iter().map(told).collect();
                format!("counts {:?} told {told:#?} taken {:?}", draft.placement, world.taken)
            });
            return Err(law);
        }
        if planned.is_empty() {
            return Ok(Some(planned));
        }
        self.put(&planned);
        let again = plan(&self.fleet, now);
        self.wake_at = again.wake_at.map_or(u64::MAX, |at| at.0);
        if let Some(law) = laws::leaves_something(&again) {
            self.note(|world| {
                let draft = Draft::new(&world.fleet, now);
                let placement = &draft.placement;
                format!(
                    "again: {} {:#?} {:#?} {placement:?} {:?}",
                    render(&again),
                    world.fleet.rollout,
                    again.rollouts,
                    (&planned.placed, &again.placed)
                )
            });
            return Err(law);
        }
        Ok(Some(again))
    }

    /// Nothing runs on that ran when a restart was asked for which is complete: the hosts themselves say so.
    fn left_running(&self, plan: &Plan) -> Option<Law> {
        let complete = |wish: &&RestartWish| {
            plan.restarts.iter().any(|over| over.id == wish.id && over.failure.is_none())
        };
        let runs_on = |wish: &RestartWish| {
            let asked = self.asked.get(&wish.id).copied().unwrap_or_default();
            let about = laws::restarted_by(&self.fleet, plan, wish, self.clock());
            about.into_iter().any(|place| {
                let release = self.fleet.assigned[&place].release.as_ref();
                let host = self.hosts.get(&place.node).zip(release);
                let since = host.and_then(|(host, release)| host.runs_since(place.slot, release));
                since.is_some_and(|since| since <= asked)
            })
        };
        self.fleet.restarts.iter().filter(complete).any(runs_on).then_some(laws::RESTARTS_ALL)
    }

    /// A slot is not stable in time only if it had that time: connected, planned for, and not stable.
    fn unjust(&self, plan: &Plan) -> Option<Law> {
        let ghost = plan.ghosts.iter().find(|ghost| ghost.reason.contains("was not stable within"))?;
        let place = ghost.evidence.place?;
        let had = self.connected_for(place.node) - self.told_at.get(&place).copied().unwrap_or_default();
        let needed = self.fleet.spec.as_ref().map_or(0, |spec| spec.rollback_timeout.0);
        // Gaps in planning count as a portion each, so a little less may do.
        (had < needed / 2).then_some(laws::JUST_GHOSTS)
    }

    /// A node counts as connected for as long as it is suspect.
    fn connected_for(&self, id: NodeId) -> u64 {
        self.hosts.get(&id).map_or(0, |host| {
            host.connected_for + if host.connected { self.now - host.changed_at } else { 0 }
        })
    }

    /// What a plan takes away is missing by our own doing until it is seen ready again.
    fn remember_taken(&mut self, plan: &Plan) {
        let draft = Draft::new(&self.fleet, self.clock());
        let takes =
            plan.steps.iter().filter(|step| matches!(step, Step::Assign { .. } | Step::Restart { .. }));
        let taken: Vec<(Place, u64)> = takes
            .map(Step::place)
            .filter(|place| draft.standing(*place).is_ready())
            .map(|place| (place, self.clock().0))
            .collect();
        self.taken.extend(taken);
    }

    fn put(&mut self, plan: &Plan) {
        let now = self.clock();
        unplanted(|| self.remember_taken(plan));
        self.asked.extend(plan.asked.as_ref().map(|wish| (wish.id, self.now)));
        store(&mut self.fleet, plan, &mut self.generations, now);
        for step in &plan.steps {
            let place = step.place();
            let connected_for = self.connected_for(place.node);
            // A restart gives no more time to become stable.
            if !matches!(step, Step::Restart { .. }) {
                self.told_at.insert(place, connected_for);
            }
            let delay = self.dice.up_to(400);
            if let Some(host) = self.hosts.get_mut(&place.node).filter(|host| host.connected) {
                host.inbox = Some(self.now + delay);
            }
        }
    }

    /// Everybody comes back, save that one node may stay away for good.
    fn calm(&mut self) {
        self.note(|_| "all is quiet".to_owned());
        if let Some(rollout) = &mut self.fleet.rollout {
            rollout.progress.paused = None;
        }
        for host in self.hosts.values_mut() {
            host.poor = false;
        }
        let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
        let away = ids.len() > 1 && self.dice.one_in(3);
        for id in ids.into_iter().skip(usize::from(away)) {
            self.connect(id);
        }
        if away {
            self.cut(node_id(1));
        }
    }
}

fn some_spec(dice: &mut Dice) -> AppSpec {
    let strategy = if dice.one_in(2) { Strategy::StartFirst } else { Strategy::StopFirst };
    let mut spec = spec(strategy, 1 + u16::from(dice.pick(4)));
    spec.spread = NonZeroU16::new(1 + u16::from(dice.pick(7))).filter(|_| dice.one_in(3));
    let deploy = &mut spec.deploy;
    let amount = |dice: &mut Dice, least: u8| match dice.pick(3) {
        0 => Amount::Percent(25 + 25 * dice.pick(4)),
        _ => Amount::Count(u32::from(least + dice.pick(3))),
    };
    if dice.one_in(2) {
        deploy.batch = amount(dice, 1);
    }
    if dice.one_in(3) {
        deploy.max_unavailable = amount(dice, 0);
    }
    if dice.one_in(3) {
        let promote = if dice.one_in(3) { Promote::Manual } else { Promote::Auto };
        let soak = Millis(if dice.one_in(4) { 0 } else { 8_000 });
        deploy.canary = Some(CanarySpec { nodes: amount(dice, 1), promote, soak });
    }
    deploy.order_by = dice.one_in(3).then(|| "zone".to_owned());
    deploy.pause_between = Millis(if dice.one_in(3) { 5_000 } else { 0 });
    deploy.tolerate_failed_nodes = u32::from(dice.one_in(3));
    if dice.one_in(3) {
        deploy.pre_commands_run = PreCommandsRun::EveryReplica;
    }
    spec
}

/// Half of all applications are watched for their atoms.
fn watched(mut spec: AppSpec, growth: Option<&mut Dice>) -> AppSpec {
    if let Some(growth) = growth
        && growth.one_in(2)
    {
        let cooldown = Millis(if growth.one_in(4) { 0 } else { 20_000 });
        spec.monitoring.atom = Some(Threshold { warning: 75, restart: Some(90), cooldown });
    }
    spec
}

fn in_some_zone(node: &mut Node, dice: &mut Dice) {
    if !dice.one_in(4) {
        node.labels.insert("zone".to_owned(), if dice.one_in(2) { "a" } else { "b" }.to_owned());
    }
}

fn render(plan: &Plan) -> String {
    let rollouts: Vec<String> = plan
        .rollouts
        .iter()
        .map(|it| format!("{} {} {:?}", it.release.version, it.phase, it.reason))
        .collect();
    let waiting: Vec<String> = plan.waiting.iter().map(ToString::to_string).collect();
    let (over, in_force) = (&plan.restarts, &plan.in_force);
    let ghosts: Vec<&str> = plan.ghosts.iter().map(|it| it.reason.as_str()).collect();
    let beneath: Vec<String> =
        plan.predecessors.iter().map(|it| format!("{} {}", it.release.version, it.phase)).collect();
    let asked = plan.asked.as_ref().and_then(RestartWish::place);
    let said = format!("beneath {beneath:?} ghosts {ghosts:?} in force {in_force:?}");
    format!(
        "plan: {rollouts:?} {said} steps {:?} asked {asked:?} restarts {over:?} waiting {waiting:?}",
        plan.steps
    )
}

/// One history; the steps that it took.
pub(in crate::rollout) fn history(seed: u64, logs: bool) -> Result<u32, Broken> {
    World::new(seed, logs).run(seed)
}

fn histories(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Err(Broken { law, seed, .. }) = history(seed, false) {
            let log = history(seed, true).err().map(|broken| broken.log.join("\n")).unwrap_or_default();
            panic!("{log}\nbroken: {law}\nSEED={seed} repeats it");
        }
    }
}

/// Ten thousand histories, in parts that can run side by side.
macro_rules! histories {
    ($($name:ident: $seeds:expr),+ $(,)?) => {
        $(#[test] fn $name() { histories($seeds); })+
    };
}

histories! {
    the_laws_hold_in_the_first_quarter_of_histories: 0..2_500,
    the_laws_hold_in_the_second_quarter_of_histories: 2_500..5_000,
    the_laws_hold_in_the_third_quarter_of_histories: 5_000..7_500,
    the_laws_hold_in_the_last_quarter_of_histories: 7_500..10_000,
    the_laws_hold_where_limits_are_passed: GROWING..GROWING + 2_500,
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the seeds to repeat are the reader's to give")]
fn the_histories_of_the_seeds_that_are_asked_for_keep_the_laws() {
    let Ok(asked) = std::env::var("SEED") else { return };
    let number = |text: &str| text.parse::<u64>().unwrap();
    let Some((from, to)) = asked.split_once("..") else {
        return histories(number(&asked)..number(&asked) + 1);
    };
    let mut broken: BTreeMap<Law, Vec<u64>> = BTreeMap::new();
    for seed in number(from)..number(to) {
        if let Err(Broken { law, seed, .. }) = history(seed, false) {
            broken.entry(law).or_default().push(seed);
        }
    }
    assert!(broken.is_empty(), "broken, and by which seeds: {broken:#?}");
}
