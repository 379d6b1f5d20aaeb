//! What the agents last said, in memory. Pure: every method is given the time and does no I/O.
//!
//! After a start of the control plane it is empty and fills as agents come back; nothing here needs to survive.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proto::agent::MAX_SLOTS;
use proto::ids::{AppName, BadName, NodeId, Slot};
use proto::metrics::{HostPoint, VmPoint};
use proto::pb;
use proto::state::Liveness;

use super::counted::CountedEvents;
use super::history::Histories;
use super::lease;
use super::read::{MAX_LIMITS, MAX_SIBLINGS, first_part, read_report};
use super::vm_history::{VmHistories, VmPast};
use crate::clock::Time;
use crate::fleet::{Observed, ObservedMissed, Place};

/// What a node last said of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostReport {
    pub sample: pb::HostSample,
    pub limits: Vec<pb::HostLimit>,
    pub replicas: BTreeMap<(AppName, Slot), ReplicaLoad>,
    pub at: Time,
}

/// What one replica uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReplicaLoad {
    /// 100 is one core.
    pub cpu_percent: f64,
    pub memory_bytes: u64,
    /// Processes and threads; `None`: not counted there.
    pub pids: Option<u32>,
    /// In force; `None`: none.
    pub memory_limit_bytes: Option<u64>,
}

/// A node's liveness has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turned {
    pub node: NodeId,
    pub was: Liveness,
    pub is: Liveness,
}

#[derive(Default)]
struct Entry {
    heard: Option<Time>,
    told: Option<Liveness>,
    host: Option<HostReport>,
    clock_ahead_ms: i64,
    /// When its agent's program began, by our wall clock.
    agent_started: Option<Time>,
    /// Samples of VMs that its agent threw away, since its program began.
    vm_samples_dropped: u64,
    /// Generation of the last assignment that it said, in this session, to have stored.
    stored: u64,
    slots: usize,
}

pub(super) struct Board {
    started: Time,
    nodes: HashMap<NodeId, Entry>,
    slots: BTreeMap<AppName, BTreeMap<Place, Observed>>,
    histories: Histories,
    vms: VmHistories,
    counted: CountedEvents,
    /// Rises whenever an Erlang node comes, goes or is called otherwise.
    names: u64,
}

/// Of a replica that runs.
fn node_name(seen: &Observed) -> Option<&String> {
    seen.pid.and(seen.erlang.as_ref()).map(|it| &it.name)
}

impl Board {
    pub(super) fn new(started: Time) -> Self {
        Self {
            started,
            nodes: HashMap::new(),
            slots: BTreeMap::new(),
            histories: Histories::default(),
            vms: VmHistories::default(),
            counted: CountedEvents::default(),
            names: 0,
        }
    }

    pub(super) fn liveness(&self, node: NodeId, now: Time) -> Liveness {
        lease::liveness(self.nodes.get(&node).and_then(|entry| entry.heard), self.started, now)
    }

    pub(super) fn observed(&self, app: &AppName) -> BTreeMap<Place, Observed> {
        self.slots.get(app).cloned().unwrap_or_default()
    }

    /// The Erlang nodes of an application on other hosts than that node's, as they were seen last, by name.
    pub(super) fn siblings(&self, app: &AppName, node: NodeId) -> Vec<String> {
        let places = self.slots.get(app).into_iter().flatten();
        let elsewhere = places.filter(|(place, _)| place.node != node);
        let names: BTreeSet<&String> = elsewhere.filter_map(|(_, seen)| node_name(seen)).collect();
        names.into_iter().take(MAX_SIBLINGS).cloned().collect()
    }

    /// While it is the same, so is what [`Board::siblings`] says: every agent asks each second, and mostly for nothing.
    pub(super) fn names(&self) -> u64 {
        self.names
    }

    pub(super) fn host(&self, node: NodeId) -> Option<HostReport> {
        self.nodes.get(&node)?.host.clone()
    }

    /// Its last hour, oldest first; only what came after `since`.
    pub(super) fn history(&self, node: NodeId, since: Option<Time>, now: Time) -> Vec<(Time, HostPoint)> {
        self.histories.of(node, since, now)
    }

    /// The last hour of a replica's VM, in the same way.
    pub(super) fn vm_history(&self, of: (&AppName, Place), since: Option<Time>, now: Time) -> VmPast {
        self.vms.of(of, since, now)
    }

    /// What was sampled last of a replica's VM, where that is not long ago.
    pub(super) fn vm(&self, of: (&AppName, Place), now: Time) -> Option<(Time, VmPoint)> {
        self.vms.newest(of, now)
    }

    /// What the replica there has counted of its events, where that was read lately, and when.
    pub(super) fn counted(
        &self,
        of: (&AppName, Place),
        now: Time,
    ) -> Option<(Time, Arc<pb::TelemetrySample>)> {
        self.counted.of(of, now)
    }

    pub(super) fn stored(&self, node: NodeId) -> u64 {
        self.nodes.get(&node).map_or(0, |entry| entry.stored)
    }

    pub(super) fn heard_at(&self, node: NodeId) -> Option<Time> {
        self.nodes.get(&node)?.heard
    }

    /// Who was heard after `since`, and when.
    pub(super) fn heard_after(&self, since: Time) -> Vec<(NodeId, Time)> {
        let heard = self.nodes.iter().filter_map(|(node, entry)| Some((*node, entry.heard?)));
        heard.filter(|(_, at)| *at > since).collect()
    }

    pub(super) fn clock_ahead_ms(&self, node: NodeId) -> Option<i64> {
        self.nodes.get(&node).map(|entry| entry.clock_ahead_ms)
    }

    pub(super) fn agent_started(&self, node: NodeId) -> Option<Time> {
        self.nodes.get(&node)?.agent_started
    }

    pub(super) fn vm_samples_dropped(&self, node: NodeId) -> u64 {
        self.nodes.get(&node).map_or(0, |entry| entry.vm_samples_dropped)
    }

    /// A session begins: what its hello lists is all that the node holds. `wall`: to compare the node's clock with.
    pub(super) fn hello(
        &mut self,
        node: NodeId,
        hello: &pb::Hello,
        (now, wall): (Time, Time),
    ) -> Vec<BadName> {
        self.drop_slots(node);
        let entry = self.nodes.entry(node).or_default();
        entry.heard = Some(now);
        entry.slots = 0;
        entry.stored = hello.generation;
        entry.clock_ahead_ms = still(entry.clock_ahead_ms, ahead_ms(hello.clock_unix_ms, wall));
        let says = hello.started_unix_ms > 0;
        // By its own clock it has run for so long, whatever that clock shows.
        let runs_for = hello.clock_unix_ms.saturating_sub(hello.started_unix_ms);
        entry.agent_started = says.then(|| Time(wall.0.saturating_sub(runs_for)));
        hello.slots.iter().filter_map(|report| self.report(node, report, now).err()).collect()
    }

    pub(super) fn report(&mut self, node: NodeId, report: &pb::SlotReport, now: Time) -> Result<(), BadName> {
        let app: AppName = report.app.parse()?;
        let place = Place { node, slot: Slot::new(report.slot)? };
        let mut observed = read_report(report, now)?;
        let entry = self.nodes.entry(node).or_default();
        entry.heard = Some(now);
        by_our_clock(&mut observed, entry.clock_ahead_ms);
        // An agent stores an assignment before any slot of it speaks of it.
        entry.stored = entry.stored.max(observed.generation);
        let places = self.slots.entry(app).or_default();
        if !places.contains_key(&place) {
            if entry.slots >= MAX_SLOTS {
                return Ok(());
            }
            entry.slots += 1;
        }
        if places.get(&place).and_then(node_name) != node_name(&observed) {
            self.names += 1;
        }
        places.insert(place, observed);
        Ok(())
    }

    /// True: it has stored an assignment of which nothing was heard yet.
    pub(super) fn heartbeat(&mut self, node: NodeId, heartbeat: &pb::Heartbeat, now: Time) -> bool {
        let entry = self.nodes.entry(node).or_default();
        entry.heard = Some(now);
        let news = heartbeat.generation > entry.stored;
        entry.stored = entry.stored.max(heartbeat.generation);
        entry.vm_samples_dropped = heartbeat.vm_samples_dropped;
        for sample in &heartbeat.vms {
            if let Some((app, place)) = self.known(node, &sample.app, sample.slot) {
                self.vms.add((&app, place), sample, now);
            }
        }
        for sample in &heartbeat.telemetry {
            if let Some((app, place)) = self.known(node, &sample.app, sample.slot) {
                self.counted.put((&app, place), sample, now);
            }
        }
        let entry = self.nodes.entry(node).or_default();
        let Some(sample) = heartbeat.host.clone() else { return news };
        self.histories.add(node, &sample, now);
        let replicas = heartbeat.replicas.iter().take(MAX_SLOTS).filter_map(|replica| {
            let place = (replica.app.parse().ok()?, Slot::new(replica.slot).ok()?);
            let load = ReplicaLoad {
                cpu_percent: replica.cpu_percent,
                memory_bytes: replica.memory_bytes,
                pids: replica.pids,
                memory_limit_bytes: Some(replica.memory_limit_bytes).filter(|it| *it != 0),
            };
            Some((place, load))
        });
        let limits = heartbeat.limits.iter().take(MAX_LIMITS).map(|limit| pb::HostLimit {
            r#type: first_part(&limit.r#type),
            sentence: first_part(&limit.sentence),
            ..*limit
        });
        entry.host =
            Some(HostReport { limits: limits.collect(), sample, replicas: replicas.collect(), at: now });
        news
    }

    /// A replica that is known, so that nobody's names fill the memory.
    fn known(&self, node: NodeId, app: &str, slot: u32) -> Option<(AppName, Place)> {
        let (app, slot): (AppName, _) = (app.parse().ok()?, Slot::new(slot).ok()?);
        let place = Place { node, slot };
        self.slots.get(&app)?.contains_key(&place).then_some((app, place))
    }

    /// A clock may be set while a session lasts. `shown`: what the node's showed at our `wall`.
    pub(super) fn clock_shown(&mut self, node: NodeId, shown: u64, wall: Time) {
        if shown > 0
            && let Some(entry) = self.nodes.get_mut(&node)
        {
            entry.clock_ahead_ms = still(entry.clock_ahead_ms, ahead_ms(shown, wall));
        }
    }

    /// A node that was removed: nothing is known of it any more.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.drop_slots(node);
        self.nodes.remove(&node);
        self.histories.forget(node);
        self.vms.forget(node);
        self.counted.forget(node);
    }

    /// Which nodes' liveness has turned since the last look.
    pub(super) fn turned(&mut self, now: Time) -> Vec<Turned> {
        let started = self.started;
        let look = |(node, entry): (&NodeId, &mut Entry)| {
            let is = lease::liveness(entry.heard, started, now);
            let was = entry.told.replace(is).unwrap_or(Liveness::Lost);
            (was != is).then_some(Turned { node: *node, was, is })
        };
        self.nodes.iter_mut().filter_map(look).collect()
    }

    fn drop_slots(&mut self, node: NodeId) {
        self.names += 1;
        self.slots.retain(|_, places| {
            places.retain(|place, _| place.node != node);
            !places.is_empty()
        });
    }
}

/// So much may be the way of the message, which differs from one to the next: a moment that an agent dates would be another
/// each time that it is told.
const NO_OTHER_CLOCK_MS: u64 = 1_000;

/// Zero where the agent shows no clock.
fn ahead_ms(shown: u64, wall: Time) -> i64 {
    let ahead = i128::from(shown) - i128::from(wall.0);
    if shown == 0 { 0 } else { i64::try_from(ahead).unwrap_or(i64::MAX) }
}

/// What goes on being believed of an agent's clock.
fn still(before: i64, now: i64) -> i64 {
    if before.abs_diff(now) < NO_OTHER_CLOCK_MS { before } else { now }
}

/// What the agent dates by a clock that is wrong.
fn by_our_clock(observed: &mut Observed, ahead_ms: i64) {
    let exit = observed.last_exit.as_mut().map(|exit| &mut exit.at);
    let mesh = observed.erlang.as_mut().and_then(|it| it.mesh.as_mut());
    if let Some(mesh) = mesh.filter(|_| ahead_ms != 0) {
        let ours = |it: &ObservedMissed| {
            let since = Time(it.since.0.saturating_add_signed(ahead_ms.saturating_neg()));
            ObservedMissed { since, ..it.clone() }
        };
        mesh.missed = mesh.missed.iter().map(ours).collect();
        mesh.unreached = mesh.unreached.iter().map(ours).collect();
    }
    let connected = observed.erlang.as_mut().and_then(|it| it.connected_since.as_mut());
    let vm = observed.vm.as_mut().into_iter();
    let vm = vm.flat_map(|it| {
        it.started_at.as_mut().into_iter().chain(it.levels.iter_mut().map(|it| &mut it.since))
    });
    for at in observed.started_at.as_mut().into_iter().chain(exit).chain(connected).chain(vm) {
        *at = Time(at.0.saturating_add_signed(ahead_ms.saturating_neg()));
    }
}

#[cfg(test)]
mod tests {
    use proto::state::{HostLevel, SlotState, VmFigure};

    use super::*;
    use crate::fleet::ObservedLevel;

    const START: Time = Time(1_000_000);

    fn node() -> NodeId {
        NodeId(uuid::Uuid::now_v7())
    }

    fn app() -> AppName {
        "shop".parse().unwrap()
    }

    fn report(slot: u32, state: pb::SlotState) -> pb::SlotReport {
        pb::SlotReport { app: "shop".to_owned(), slot, state: state.into(), ..Default::default() }
    }

    #[test]
    fn limits_that_were_passed_are_read_by_our_clock_and_those_of_newer_agents_left_out() {
        let (mut board, node) = (Board::new(START), node());
        let hello = pb::Hello { clock_unix_ms: START.0 + 5_000, ..Default::default() };
        board.hello(node, &hello, (START, START));
        let level = |kind: &str, level: pb::HostLevel| pb::VmLevel {
            r#type: kind.to_owned(),
            level: level.into(),
            count: 95,
            limit: 100,
            since_unix_ms: START.0 + 4_000,
        };
        let exceeded = pb::HostLevel::Exceeded;
        let mut levels = vec![level("atom", exceeded), level("port", pb::HostLevel::Normal)];
        levels.extend(vec![level("ets", exceeded); 2 * MAX_LIMITS]);
        let vm = Some(pb::Vm { levels, ..Default::default() });
        board.report(node, &pb::SlotReport { vm, ..report(1, pb::SlotState::Stable) }, START).unwrap();
        let observed = board.observed(&app()).into_values().next().unwrap();
        let (figure, level, since) = (VmFigure::Atom, HostLevel::Exceeded, Time(START.0 - 1_000));
        let expected = ObservedLevel { figure, level, count: 95, limit: 100, since };
        assert_eq!(observed.vm.unwrap().levels, [expected]);
    }

    #[test]
    fn what_a_node_has_stored_begins_with_its_hello_and_rises_with_its_reports() {
        let (mut board, node) = (Board::new(START), node());
        assert_eq!(board.stored(node), 0);
        board.hello(node, &pb::Hello { generation: 7, ..Default::default() }, (START, START));
        let at = |generation| pb::SlotReport { generation, ..report(1, pb::SlotState::Stable) };
        board.report(node, &at(9), START).unwrap();
        board.report(node, &at(8), START).unwrap();
        assert_eq!(board.stored(node), 9);
        // And with what it says now and then, as one without slots does alone.
        let beat = |generation| pb::Heartbeat { generation, ..Default::default() };
        assert_eq!([9, 11, 11].map(|it| board.heartbeat(node, &beat(it), START)), [false, true, false]);
        // One of an earlier version does not.
        assert!(!board.heartbeat(node, &beat(0), START));
        assert_eq!(board.stored(node), 11);
        board.hello(node, &pb::Hello { generation: 3, ..Default::default() }, (START, START));
        assert_eq!(board.stored(node), 3);
    }

    #[test]
    fn a_hello_replaces_all_that_was_known_of_its_node_and_of_no_other() {
        let (mut board, one, two) = (Board::new(START), node(), node());
        for node in [one, two] {
            board.report(node, &report(1, pb::SlotState::Stable), START).unwrap();
            board.report(node, &report(2, pb::SlotState::Stable), START).unwrap();
        }
        let hello = pb::Hello { slots: vec![report(2, pb::SlotState::Failed)], ..Default::default() };
        assert!(board.hello(one, &hello, (START, START)).is_empty());
        let seen = board.observed(&app());
        assert_eq!(seen.len(), 3);
        assert_eq!(seen.iter().filter(|(place, _)| place.node == one).count(), 1);
        board.forget(two);
        assert_eq!(board.observed(&app()).len(), 1);
    }

    #[test]
    fn a_turn_is_told_once() {
        let (mut board, node) = (Board::new(START), node());
        board.heartbeat(node, &pb::Heartbeat::default(), START);
        let turn = |was, is| vec![Turned { node, was, is }];
        assert_eq!(board.turned(START), turn(Liveness::Lost, Liveness::Up));
        assert_eq!(board.turned(START), []);
        assert_eq!(board.turned(START.plus(3_000)), turn(Liveness::Up, Liveness::Suspect));
        assert_eq!(board.turned(START.plus(5_000)), turn(Liveness::Suspect, Liveness::Lost));
        assert_eq!(board.turned(START.plus(60_000)), []);
    }

    #[test]
    fn a_clock_that_is_set_while_the_node_is_connected_is_noticed() {
        let (mut board, node) = (Board::new(START), node());
        let hello = pb::Hello { clock_unix_ms: START.0, ..Default::default() };
        board.hello(node, &hello, (START, START));
        assert_eq!(board.clock_ahead_ms(node), Some(0));
        let later = START.plus(1_000);
        board.clock_shown(node, later.0 + 3_600_000, later);
        assert_eq!(board.clock_ahead_ms(node), Some(3_600_000));
        let exit = pb::LastExit { at_unix_ms: later.0 + 3_600_000, ..Default::default() };
        let ended = pb::SlotReport { last_exit: Some(exit), ..report(1, pb::SlotState::Stable) };
        board.report(node, &ended, later).unwrap();
        let seen = board.observed(&app()).into_values().next().unwrap();
        assert_eq!(seen.last_exit.unwrap().at, later, "by our clock");
        // Heartbeats take their time, each another one: what an agent has dated stays where it was.
        board.clock_shown(node, later.0 + 3_599_400, later);
        assert_eq!(board.clock_ahead_ms(node), Some(3_600_000), "the same clock");
        board.clock_shown(node, 0, later);
        assert_eq!(board.clock_ahead_ms(node), Some(3_600_000), "it did not say");
    }

    #[test]
    fn who_was_heard_since_a_moment_is_known_with_when_and_what_it_lost() {
        let (mut board, silent, heard) = (Board::new(START), node(), node());
        board.heartbeat(silent, &pb::Heartbeat::default(), START);
        let heartbeat = pb::Heartbeat { vm_samples_dropped: 3, ..Default::default() };
        board.heartbeat(heard, &heartbeat, START.plus(7));
        assert_eq!((board.vm_samples_dropped(silent), board.vm_samples_dropped(heard)), (0, 3));
        assert_eq!(board.heard_after(START), [(heard, START.plus(7))]);
        assert_eq!(board.heard_after(START.plus(7)), []);
    }

    #[test]
    fn who_asks_for_siblings_looks_only_where_a_name_has_changed() {
        let (mut board, here, there) = (Board::new(START), node(), node());
        let named = |name: &str, state| pb::SlotReport {
            pid: 7,
            erlang: Some(pb::ErlangNode { name: name.to_owned(), ..Default::default() }),
            ..report(1, state)
        };
        board.report(there, &named("shop@there", pb::SlotState::Starting), START).unwrap();
        let before = board.names();
        board.report(there, &named("shop@there", pb::SlotState::Stable), START).unwrap();
        assert_eq!((board.names(), board.siblings(&app(), here)), (before, vec!["shop@there".to_owned()]));
        assert!(board.siblings(&app(), there).is_empty());
        board.report(there, &named("other@there", pb::SlotState::Stable), START).unwrap();
        assert!(board.names() > before && board.siblings(&app(), here) == ["other@there"]);
        let before = board.names();
        board.report(there, &report(1, pb::SlotState::BackingOff), START).unwrap();
        assert!(board.names() > before && board.siblings(&app(), here).is_empty());
    }

    #[test]
    fn a_malformed_report_changes_nothing() {
        let (mut board, node) = (Board::new(START), node());
        board.report(node, &report(1, pb::SlotState::Stable), START).unwrap();
        let bad = pb::SlotReport { app: "../shop".to_owned(), slot: 1, ..Default::default() };
        assert!(board.report(node, &bad, START).is_err());
        assert!(board.report(node, &report(0, pb::SlotState::Stable), START).is_err());
        let key = pb::ReleaseKey { version: "1".to_owned(), sha256: vec![1; 31].into() };
        let bad = pb::SlotReport { running: Some(key), ..report(1, pb::SlotState::Failed) };
        assert!(board.report(node, &bad, START).is_err());
        assert_eq!(board.observed(&app()).values().next().unwrap().state, SlotState::Stable);
    }

    #[test]
    fn one_node_cannot_fill_the_memory() {
        let (mut board, node) = (Board::new(START), node());
        for number in 0..5_000_u32 {
            let report = pb::SlotReport {
                app: format!("app{}", number / 1000),
                slot: number % 1000 + 1,
                ..Default::default()
            };
            board.report(node, &report, START).unwrap();
        }
        assert_eq!(board.slots.values().map(BTreeMap::len).sum::<usize>(), MAX_SLOTS);
    }
}
