//! The world between planner and machines: time, hosts, and what is under way.

use std::collections::{BTreeMap, BTreeSet};

use control_plane::fleet::{AppFleet, Place};
use control_plane::rollout::Waiting;
use node_agent::replica::Event;
use proto::ids::{NodeId, ReleaseKey};
use proto::state::Strategy;

use crate::agent::Host;
use crate::dice::Dice;
use crate::laws::{self, Broken, Canary, Checked, Law};
use crate::network::Due;
use crate::seen::{Deed, Seen};
use crate::settings;

/// How long things go wrong, in milliseconds.
const HOSTILE: u64 = 60_000;
/// Everything is at rest so long after that at the latest.
const QUIET: u64 = 900_000;
/// A world that goes round in circles is one that never comes to rest.
const MOST_STEPS: u32 = 60_000;
const LEAST_STEPS: u32 = 200;

/// A fleet that came to rest.
pub(crate) struct Lived {
    pub(crate) steps: u32,
    pub(crate) seen: Seen,
    pub(crate) log: Vec<String>,
}

pub(crate) struct World {
    pub(crate) dice: Dice,
    /// Also what the hosts' own clocks show.
    pub(crate) now: u64,
    pub(crate) hostile: bool,
    /// No process ends by itself that is of a good release.
    pub(crate) gentle: bool,
    /// Once all is quiet nobody promotes, resumes or opens anything.
    pub(crate) is_left_alone: bool,
    pub(crate) hosts: Vec<Host>,
    pub(crate) pids: u32,
    /// How many commands of each run were begun, anywhere.
    pub(crate) pre_commands: BTreeMap<String, u32>,
    due: BTreeMap<(u64, u64), Due>,
    sequence: u64,
    // The control plane.
    pub(crate) is_up: bool,
    /// By how much its clock is ahead of the hosts'.
    pub(crate) ahead: u64,
    pub(crate) fleet: AppFleet,
    pub(crate) generations: BTreeMap<NodeId, u64>,
    pub(crate) stored: BTreeMap<NodeId, u64>,
    pub(crate) plans_at: Option<u64>,
    /// Places that were ready, as far as the planner knew, when they were told something last.
    pub(crate) believed_ready: BTreeSet<Place>,
    pub(crate) canary: Canary,
    /// What the last plan waits for.
    pub(crate) waiting: Vec<Waiting>,
    /// Releases to which an upgrade failed by itself somewhere.
    pub(crate) not_exchanged: BTreeSet<ReleaseKey>,
    /// Which slot was ended for which restart.
    pub(crate) restarted: BTreeSet<(usize, u16, String)>,
    pub(crate) wishes: u64,
    pub(crate) at_rest: bool,
    pub(crate) seen: Seen,
    steps: u32,
    log: Option<Vec<String>>,
}

impl World {
    pub(crate) fn of(seed: u64, logs: bool) -> Self {
        let mut dice = Dice::new(seed);
        // Small fleets show most of what there is; large ones what is left.
        let many = dice.one_in(6);
        let hosts = 1 + dice.below(if many { 6 } else { 3 });
        let hosts = u8::try_from(hosts).unwrap();
        let mut fleet = control_plane::rollout::simulation::fleet(Strategy::StopFirst, 1, hosts);
        if let Some(spec) = &mut fleet.spec {
            settings::draw(spec, &mut dice, hosts.into());
        }
        fleet.nodes.values_mut().for_each(|node| settings::label(node, &mut dice));
        let hosts = fleet.nodes.keys().map(|id| Host::new(*id)).collect();
        let (gentle, is_left_alone) = (dice.one_in(2), dice.one_in(4));
        Self {
            dice,
            now: 1_000_000,
            hostile: true,
            gentle,
            is_left_alone,
            hosts,
            pids: 0,
            pre_commands: BTreeMap::new(),
            due: BTreeMap::new(),
            sequence: 0,
            is_up: true,
            ahead: 10_000_000,
            fleet,
            generations: BTreeMap::new(),
            stored: BTreeMap::new(),
            plans_at: None,
            believed_ready: BTreeSet::new(),
            canary: Canary::default(),
            waiting: Vec::new(),
            not_exchanged: BTreeSet::new(),
            restarted: BTreeSet::new(),
            wishes: 0,
            at_rest: false,
            seen: Seen::default(),
            steps: 0,
            log: logs.then(Vec::new),
        }
    }

    pub(crate) fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.log.is_some() {
            let line = format!("{:>5} {:>9} {}", self.steps, self.now, what(self));
            self.log.iter_mut().for_each(|log| log.push(line.clone()));
        }
    }

    pub(crate) fn at(&mut self, at: u64, due: Due) {
        self.sequence += 1;
        self.due.insert((at, self.sequence), due);
    }

    /// Within so many milliseconds, after so many.
    pub(crate) fn later(&mut self, after: u64, within: u64, due: Due) {
        let at = self.now + after + self.dice.below(within);
        self.at(at, due);
    }

    pub(crate) fn live(mut self) -> Result<Lived, Broken> {
        match self.go_on() {
            Ok(()) => Ok(Lived { steps: self.steps, seen: self.seen, log: self.log.unwrap_or_default() }),
            Err((law, detail)) => Err(Broken { law, detail, log: self.log.unwrap_or_default() }),
        }
    }

    fn go_on(&mut self) -> Checked {
        self.note(Self::settings);
        self.wish_for(1);
        for host in 0..self.hosts.len() {
            self.later(1, 500, Due::Connects { host });
        }
        self.later(1, 1_000, Due::Mischief);
        let until = self.now + HOSTILE;
        while self.now < until || self.steps < LEAST_STEPS {
            self.step()?;
        }
        self.calm()?;
        let until = self.now + QUIET;
        while !self.at_rest {
            if self.now > until || self.steps > MOST_STEPS {
                let left = self.unfinished().unwrap_or_default();
                self.note(|world| format!("{:#?}", world.fleet));
                return laws::broken(laws::ENDS, left);
            }
            self.step()?;
        }
        if self.is_left_waiting() {
            self.seen.saw(Deed::LeftWaiting);
        }
        Ok(())
    }

    /// The next thing that happens anywhere.
    fn step(&mut self) -> Checked {
        self.steps += 1;
        let wakes = self.hosts.iter().enumerate().filter(|(_, host)| host.agent.is_some());
        let wakes = wakes.flat_map(|(host, it)| {
            it.slots.iter().filter_map(move |(slot, it)| Some((it.wake?, host, *slot)))
        });
        let wake = wakes.min();
        let due = self.due.first_key_value().map(|(key, _)| *key);
        match (wake, due) {
            (Some((at, host, slot)), due) if due.is_none_or(|(other, _)| at <= other) => {
                self.now = self.now.max(at);
                self.feed(host, slot, Event::Tick)
            }
            (_, Some(key)) => {
                self.now = self.now.max(key.0);
                let Some(due) = self.due.remove(&key) else { return Ok(()) };
                self.happen(due)
            }
            (_, None) => {
                self.now += 1_000;
                self.plans_within(0);
                Ok(())
            }
        }
    }

    fn happen(&mut self, due: Due) -> Checked {
        match due {
            Due::Answer { host, agent, slot, event } => self.feed_of(host, agent, slot, event),
            Due::Prepared { host, agent, slot, ticket, release } if self.hosts[host].agent == Some(agent) => {
                self.prepared(host, slot, ticket, release)
            }
            Due::Swapped { host, agent, slot, ticket, release } if self.hosts[host].agent == Some(agent) => {
                self.swapped(host, slot, ticket, &release)
            }
            Due::Cleared { host, agent, slot, ticket } if self.hosts[host].agent == Some(agent) => {
                self.cleared(host, slot, ticket)
            }
            Due::PreCommandEnds { host, slot, ticket, passed } => {
                self.pre_command_ends(host, slot, ticket, passed)
            }
            Due::ProcessEnds { host, slot, pid, cause } => self.process_ends(host, slot, pid, cause),
            Due::ProcessReady { host, slot, pid } => self.process_ready(host, slot, pid),
            Due::AgentBegins { host } => self.agent_begins(host),
            Due::Told { host, session, snapshot } if self.hosts[host].session == Some(session) => {
                self.told(host, &snapshot)
            }
            Due::Report { host, session, slot, report } if self.hosts[host].session == Some(session) => {
                self.hear(host, slot, &report);
                Ok(())
            }
            // Its agent died over it, or its session ended.
            Due::Prepared { .. }
            | Due::Swapped { .. }
            | Due::Cleared { .. }
            | Due::Told { .. }
            | Due::Report { .. } => Ok(()),
            Due::Connects { host } => self.connect(host),
            Due::ControlPlaneBegins => {
                self.control_plane_begins();
                Ok(())
            }
            Due::IsLost => {
                self.plans_within(0);
                Ok(())
            }
            Due::Plan => self.plan(),
            Due::Mischief => self.mischief(),
        }
    }

    /// The law that a fleet breaks, if any.
    pub(crate) fn broken_by(seed: u64) -> Option<Law> {
        Self::of(seed, false).live().err().map(|it| it.law)
    }
}
