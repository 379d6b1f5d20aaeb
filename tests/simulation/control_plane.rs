//! The control plane around the planner: what it hears and forgets, what it sends, and when it plans.

use std::collections::{BTreeMap, BTreeSet};

use control_plane::clock::Time;
use control_plane::fleet::Place;
use control_plane::rollout::{InForce, Plan, Steering, Step, Waiting, has_way_back, plan, simulation};
use control_plane::spec::HotUpgradePolicy;
use node_agent::replica::{Assignment, Event, Fallback, Hot, PreCommands, Wanted};
use proto::ids::{NodeId, ReleaseKey, Slot};
use proto::pb;
use proto::state::Liveness;

use crate::agent::POLICY;
use crate::laws::{self, Checked, broken};
use crate::network::{Due, Snapshot};
use crate::releases::{PRE_COMMANDS, has_pre_commands, is_good, package};
use crate::seen::Deed;
use crate::world::World;

/// A session that ended is suspect for so long.
const SUSPECT: u64 = 2_000;

pub(crate) fn place(node: NodeId, slot: u16) -> Place {
    Place { node, slot: Slot::new(u32::from(slot)).unwrap() }
}

impl World {
    pub(crate) fn clock(&self) -> Time {
        Time(self.now + self.ahead)
    }

    pub(crate) fn plans_within(&mut self, millis: u64) {
        let at = self.now + self.dice.below(millis);
        self.plans_by(at);
    }

    fn plans_by(&mut self, at: u64) {
        let at = at.max(self.now);
        if self.plans_at.is_none_or(|earlier| at < earlier) {
            self.plans_at = Some(at);
            self.at(at, Due::Plan);
        }
    }

    /// A host's session ends, where there is one.
    pub(crate) fn cut(&mut self, host: usize) -> Checked {
        if self.hosts[host].session.take().is_none() {
            return Ok(());
        }
        self.hosts[host].cut_at = self.now;
        self.note(|_| format!("host {host} is cut off"));
        self.plans_within(200);
        self.at(self.now + SUSPECT + 1, Due::IsLost);
        self.linked(host, false)
    }

    fn linked(&mut self, host: usize, held: bool) -> Checked {
        let Some(agent) = self.hosts[host].agent else { return Ok(()) };
        for slot in self.hosts[host].slots.keys().copied().collect::<Vec<_>>() {
            self.feed_of(host, agent, slot, Event::Linked { held })?;
        }
        Ok(())
    }

    /// A new session, where one can be: all that the host holds is said anew.
    pub(crate) fn connect(&mut self, host: usize) -> Checked {
        let it = &mut self.hosts[host];
        if it.agent.is_none() || it.session.is_some() || it.cut_off_until > self.now || !self.is_up {
            return Ok(());
        }
        it.sessions += 1;
        it.session = Some(it.sessions);
        it.last_arrives = self.now;
        let (id, generation) = (it.id, it.generation);
        self.note(|_| format!("host {host} is connected"));
        self.fleet.observed.retain(|place, _| place.node != id);
        for slot in self.hosts[host].slots.keys().copied().collect::<Vec<_>>() {
            let report = self.said(host, slot);
            self.hear(host, slot, &report);
            self.slot(host, slot).reported = Some(report);
        }
        self.stored.insert(id, generation);
        self.send(host);
        self.plans_within(200);
        self.linked(host, true)
    }

    pub(crate) fn hear(&mut self, host: usize, slot: u16, report: &pb::SlotReport) {
        let id = self.hosts[host].id;
        let observed = simulation::observed(report, self.clock()).unwrap();
        let stored = self.stored.entry(id).or_default();
        *stored = (*stored).max(observed.generation);
        self.fleet.observed.insert(place(id, slot), observed);
        self.plans_within(300);
    }

    /// What the host is to run now is on its way, where it is news.
    fn send(&mut self, host: usize) {
        let it = &self.hosts[host];
        let generation = self.generations.get(&it.id).copied().unwrap_or_default();
        let (Some(session), true) = (it.session, generation > it.generation) else { return };
        let snapshot = Snapshot { generation, slots: self.parts(it.id, generation) };
        if self.hostile && self.dice.one_in(10) {
            self.later(1, 2_000, Due::Told { host, session, snapshot: snapshot.clone() });
        }
        self.later(1, 400, Due::Told { host, session, snapshot });
    }

    fn parts(&self, node: NodeId, generation: u64) -> BTreeMap<u16, Assignment> {
        let mine = self.fleet.assigned.iter().filter(|(place, _)| place.node == node);
        let part = |(place, assigned): (&Place, &control_plane::fleet::Assigned)| {
            let release = assigned.release.clone()?;
            let under_way = |it: &&control_plane::fleet::ToldRestart| {
                self.fleet.restarts.iter().any(|wish| wish.id == it.id)
            };
            let wanted = Wanted {
                fallback: self.way_back(&release).map(Box::new),
                hot: assigned
                    .hot
                    .clone()
                    .map(|it| Box::new(Hot { attempt: it.attempt, from: it.from, required: it.required })),
                pre_commands: assigned.pre_commands_run.clone().map(|run_id| {
                    let count = if has_pre_commands(&release) { PRE_COMMANDS } else { 0 };
                    PreCommands { run_id, count }
                }),
                release,
            };
            let restart = assigned.restart.as_ref().filter(under_way).map(|it| it.id.to_string());
            Some((
                place.slot.number(),
                Assignment { generation, wanted: Some(wanted), policy: POLICY, restart },
            ))
        };
        mine.filter_map(part).collect()
    }

    fn way_back(&self, release: &ReleaseKey) -> Option<Fallback> {
        let (rollout, spec) = (self.fleet.rollout.as_ref()?, self.fleet.spec.as_ref()?);
        let has_one = has_way_back(rollout.phase, spec.deploy.strategy) && rollout.release == *release;
        let from = rollout.from.as_ref().filter(|_| has_one)?;
        let within = spec.rollback_timeout.0;
        Some(Fallback { rollout: rollout.id.to_string(), release: from.clone(), within })
    }

    /// The fleet as reconcile would load it.
    fn fill_in(&mut self) {
        for number in 0..self.hosts.len() {
            let host = &self.hosts[number];
            let Some(node) = self.fleet.nodes.get_mut(&host.id) else { continue };
            node.liveness = match host.session {
                Some(_) => Liveness::Up,
                None if host.sessions > 0 && self.now - host.cut_at < SUSPECT => Liveness::Suspect,
                None => Liveness::Lost,
            };
            node.stored = self.stored.get(&host.id).copied().unwrap_or_default();
            if node.liveness == Liveness::Lost {
                // The others do not wait for it.
                let id = host.id;
                self.believed_ready.retain(|place| place.node != id);
                self.forgive(number);
            }
        }
    }

    /// What is read of packages: of what may be moved between, while something moves.
    fn read_packages(&mut self) {
        let fleet = &mut self.fleet;
        let wanted = fleet.wanted.as_ref().map(|it| &it.release);
        let moves = fleet.rollout.is_some() || (wanted.is_some() && wanted != fleet.in_force.as_ref());
        let never = |it: &control_plane::spec::AppSpec| it.deploy.hot_upgrade == HotUpgradePolicy::Never;
        if !moves || fleet.spec.as_ref().is_none_or(never) {
            fleet.packages.clear();
            return;
        }
        let moving = fleet.rollout.iter().flat_map(|it| std::iter::once(&it.release).chain(&it.from));
        let keys: BTreeSet<&ReleaseKey> = moving.chain(wanted).chain(&fleet.in_force).collect();
        if !fleet.packages.keys().eq(keys.iter().copied()) {
            fleet.packages = keys.into_iter().map(|it| (it.clone(), package(it))).collect();
        }
    }

    /// Plans and stores, with every law looked after.
    pub(crate) fn plan(&mut self) -> Checked {
        // Others were due later, or were waited for in vain.
        if self.plans_at.is_none_or(|at| at > self.now) {
            return Ok(());
        }
        self.plans_at = None;
        if !self.is_up {
            return Ok(());
        }
        self.fill_in();
        self.read_packages();
        let now = self.clock();
        let planned = plan(&self.fleet, now);
        self.note(|_| render(&planned));
        self.canary.look(&self.fleet, &planned, self.now);
        laws::planned(&self.fleet, &planned, &self.canary)?;
        // What a host that restarts cuts off is not begun anew, and fails its rollout.
        let by_itself = planned.ghosts.iter().filter(|it| !it.reason.starts_with("its pre-commands failed"));
        // Good it may be: where nothing but an upgrade is allowed, one to which an upgrade fails is taken back.
        let by_itself = by_itself.filter(|it| {
            !it.reason.contains("could not be hot-upgraded") || !self.not_exchanged.contains(&it.release)
        });
        if let (true, Some(ghost)) = (self.gentle, by_itself.into_iter().find(|it| is_good(&it.release))) {
            return broken(laws::GOOD_STAYS, ghost.reason.clone());
        }
        let mut last = planned;
        if !last.is_empty() {
            self.put(&last);
            self.read_packages();
            let again = plan(&self.fleet, now);
            if !again.is_empty() {
                return broken(laws::ONCE, render(&again));
            }
            self.canary.look(&self.fleet, &again, self.now);
            last = again;
        }
        if let Some(at) = last.wake_at {
            // A planner that waits for what has been would keep its time from passing.
            self.plans_by(at.0.saturating_sub(self.ahead).max(self.now + 1));
        }
        laws::says_why(&self.fleet, &last)?;
        self.waiting = last.waiting;
        self.heed_what_waits();
        self.at_rest = !self.hostile && self.unfinished().is_none();
        Ok(())
    }

    /// Whoever cares for the fleet once all is quiet.
    fn heed_what_waits(&mut self) {
        if self.waiting.iter().any(|it| matches!(it, Waiting::BetweenBatches { .. })) {
            self.seen.saw(Deed::PausedBetween);
        }
        let cares = !self.hostile && !self.is_left_alone;
        if cares && self.waiting.iter().any(|it| matches!(it, Waiting::Promotion { .. })) {
            self.steer(Steering::Promote { batch: None });
        }
    }

    fn put(&mut self, plan: &Plan) {
        self.saw_plan(plan);
        // Where nothing is in force, all is moved at once; also from now on, because what was is taken back.
        let in_force = self.fleet.in_force.is_some() && plan.in_force != Some(InForce::Nothing);
        for step in &plan.steps {
            let place = step.place();
            let goes_on = matches!(step, Step::Assign { hot: Some(_), .. });
            if in_force && laws::is_ready(&self.fleet, place) && !goes_on {
                self.believed_ready.insert(place);
            } else {
                self.believed_ready.remove(&place);
            }
        }
        let now = self.clock();
        simulation::store(&mut self.fleet, plan, &mut self.generations, now);
        let told = plan.steps.iter().filter(|step| !matches!(step, Step::Forget { .. }));
        let nodes: BTreeSet<NodeId> = told.map(|step| step.place().node).collect();
        for host in 0..self.hosts.len() {
            if nodes.contains(&self.hosts[host].id) {
                self.send(host);
            }
        }
    }
}

fn render(plan: &Plan) -> String {
    let rollouts: Vec<String> = plan
        .rollouts
        .iter()
        .map(|it| format!("{} {} {:?}", it.release.version, it.phase, it.reason))
        .collect();
    let waiting: Vec<String> = plan.waiting.iter().map(ToString::to_string).collect();
    format!("plan: {rollouts:?} steps {:?} waiting {waiting:?}", plan.steps)
}
