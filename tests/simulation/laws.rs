//! What must always hold. Each law has a name, which is what a failing fleet says. Here are those of every plan; `moves` has
//! those of rollouts, `hot` those of what is upgraded as it runs, `places` those of where replicas are, and `stops` those of what an agent ends.

mod hot;
mod moves;
mod places;
mod stops;

use std::collections::BTreeMap;

use control_plane::fleet::{AppFleet, Node, Place};
use control_plane::rollout::{InForce, Plan, Rollout, Step};
use proto::ids::{NodeId, ReleaseKey};
use proto::state::{Liveness, RolloutPhase, Service, SlotState};

pub(crate) use self::moves::Canary;

pub(crate) type Law = &'static str;

pub(crate) const ENOUGH_READY: Law = "a ready slot is replaced only while enough others are ready";
pub(crate) const ONE_DOWN: Law = "no more replicas are down by our own doing than is allowed";
pub(crate) const TWO_RELEASES: Law =
    "a slot gets what is rolled out, or what is in force, and new ones what is in force";
pub(crate) const NO_GHOST: Law = "a ghosted release is never assigned nor in force";
pub(crate) const GOOD_STAYS: Law = "a release that does nothing wrong is not ghosted for an outage";
pub(crate) const SAYS_WHY: Law = "a plan that does not move says why";
pub(crate) const ONCE: Law = "a plan that was stored leaves nothing over";
pub(crate) const ENDS: Law = "once all is quiet, every rollout ends and every slot is as it should be";
pub(crate) const ONE_PROCESS: Law = "a slot has one process, and its folders rest while it runs";
pub(crate) const NO_DOUBLE_START: Law = "nothing is started twice for one word";
pub(crate) const WHAT_LIES_THERE: Law = "what is started is what took its place";
pub(crate) const PRE_COMMANDS_ONCE: Law = "a run of pre-commands is run once, and in order";
pub(crate) const RESTARTS_ONCE: Law = "a restart that was asked for is done once in each slot";
pub(crate) const SERVES_ON: Law = "what runs goes on until what follows it is staged";
pub(crate) const UNASKED: Law = "what is stable is not ended without being asked";
pub(crate) const BATCHES: Law =
    "slots are moved on the nodes of one batch, the next after all of it is stable";
pub(crate) const CANARY: Law = "nothing is moved behind a canary before it has soaked or was promoted";
pub(crate) const PAUSE: Law = "the next batch waits for the pause after the one before it";
pub(crate) const PAUSED: Law = "while a rollout is paused no further slot is told its release";
pub(crate) const GIVEN_UP: Law =
    "a rollout that was given up goes back, and is not begun again for the same wish";
pub(crate) const TOLERATED: Law = "a release fails on no more nodes than is tolerated";
pub(crate) const LOST_ALL: Law = "what loses its nodes one after the other is held up";
pub(crate) const STABLE_IN_FORCE: Law = "a release is in force once every slot is stable on it";
pub(crate) const DRAINS: Law = "a node is emptied no faster than replicas may be missing";
pub(crate) const KEPT_AWAY: Law = "a node that is cordoned or drained is given no replica more";
pub(crate) const SUCCESSORS: Law = "a spread leaves a node once its successors elsewhere are ready";

pub(crate) const HOT_WHERE_LED: Law =
    "what runs is upgraded where it serves, from what it is, as packages lead and policy allows";
pub(crate) const HOT_ONCE: Law = "what could not be upgraded is not upgraded once more in the same rollout";
pub(crate) const HOT_IN_TURN: Law = "of a node's replicas one is upgraded at a time";
pub(crate) const REQUIRED: Law =
    "where nothing but an upgrade is allowed, nothing is begun to which there is none";
pub(crate) const WHAT_RUNS: Law = "what is said to run is what runs";

/// A law, and where it broke.
pub(crate) struct Broken {
    pub(crate) law: Law,
    pub(crate) detail: String,
    pub(crate) log: Vec<String>,
}

pub(crate) type Checked<T = ()> = Result<T, (Law, String)>;

pub(crate) fn broken<T>(law: Law, detail: impl Into<String>) -> Checked<T> {
    Err((law, detail.into()))
}

/// A plan, and the fleet that it was made from.
pub(crate) struct Made<'a> {
    pub(crate) fleet: &'a AppFleet,
    pub(crate) plan: &'a Plan,
    /// As the plan leaves it, where it is not over.
    rollout: Option<&'a Rollout>,
    /// As the plan leaves it.
    in_force: Option<&'a ReleaseKey>,
    /// How many slots each node is to hold.
    counts: BTreeMap<NodeId, u16>,
}

impl<'a> Made<'a> {
    fn of(fleet: &'a AppFleet, plan: &'a Plan) -> Self {
        let rollout = plan.rollouts.last().or(fleet.rollout.as_ref()).filter(|it| !it.phase.is_over());
        let in_force = match &plan.in_force {
            Some(InForce::Release(release)) => Some(release),
            Some(InForce::Nothing) => None,
            None => fleet.in_force.as_ref(),
        };
        let counts = counts(fleet, plan.placed.as_ref().unwrap_or(&fleet.placed));
        Self { fleet, plan, rollout, in_force, counts }
    }

    fn count(&self, node: NodeId) -> u16 {
        self.counts.get(&node).copied().unwrap_or(0)
    }

    /// A first deployment that failed leaves nothing to serve with.
    fn takes_all_down(&self) -> bool {
        self.in_force.is_none() && self.rollout.is_none_or(|it| it.from.is_none())
    }

    fn withdraws(&self, place: Place) -> bool {
        self.plan.steps.contains(&Step::Withdraw { place })
    }

    /// Nodes that may hold something of it, and that the planner sees.
    fn seen(&self) -> impl Iterator<Item = (NodeId, &'a Node)> {
        let fleet = self.fleet;
        let counts = self.counts.clone();
        let seen = move |id: &NodeId, node: &Node| {
            node.liveness != Liveness::Lost && node.service != Service::Draining && counts.contains_key(id)
        };
        fleet.nodes.iter().filter(move |(id, node)| seen(id, node)).map(|(id, node)| (*id, node))
    }

    fn is_seen(&self, node: NodeId) -> bool {
        self.seen().any(|(id, _)| id == node)
    }
}

/// How many slots each node is to hold; one that is to hold none is not there. `placed`: as it was decided last.
pub(crate) fn counts(fleet: &AppFleet, placed: &BTreeMap<NodeId, u16>) -> BTreeMap<NodeId, u16> {
    let Some(spec) = &fleet.spec else { return BTreeMap::new() };
    let replicas = spec.replicas.get();
    let on = |id: &NodeId, node: &Node| match (spec.spread, node.service) {
        (None, Service::Open) => replicas,
        (None, Service::Draining) => 0,
        (Some(_), _) | (None, Service::Cordoned) => placed.get(id).copied().unwrap_or(0),
    };
    let eligible = fleet.nodes.iter().filter(|(_, node)| node.eligible);
    eligible.map(|(id, node)| (*id, on(id, node))).filter(|(_, count)| *count > 0).collect()
}

/// As far as the planner knows, requests are answered there.
pub(crate) fn is_ready(fleet: &AppFleet, place: Place) -> bool {
    let (Some(assigned), Some(seen)) = (fleet.assigned.get(&place), fleet.observed.get(&place)) else {
        return false;
    };
    seen.generation >= assigned.generation
        && assigned.release.is_some()
        && seen.running == assigned.release
        && matches!(seen.state, SlotState::Ready | SlotState::Stable)
}

/// As far as the planner knows, it has been ready for long enough.
pub(crate) fn is_stable(fleet: &AppFleet, place: Place) -> bool {
    is_ready(fleet, place) && fleet.observed.get(&place).is_some_and(|it| it.state == SlotState::Stable)
}

/// How many replicas may be down by our own doing.
fn allowed_down(fleet: &AppFleet, counts: &BTreeMap<NodeId, u16>) -> u64 {
    let Some(spec) = &fleet.spec else { return u64::MAX };
    spec.deploy.may_be_missing(counts.values().map(|count| u64::from(*count)).sum())
}

/// The laws of a plan, told from what it was made from.
pub(crate) fn planned(fleet: &AppFleet, plan: &Plan, canary: &Canary) -> Checked {
    let made = Made::of(fleet, plan);
    for step in &plan.steps {
        if let Step::Assign { place, release, .. } = step {
            made.may_give(*place, release)?;
            made.may_move(*place, release)?;
            made.may_place(*place)?;
            made.may_upgrade(step)?;
        }
        made.leaves_enough(step)?;
    }
    let ghosted_now = |it: &ReleaseKey| plan.ghosts.iter().any(|ghost| ghost.release == *it);
    if let Some(bad) = made.in_force.filter(|it| fleet.ghosted.contains(it) || ghosted_now(it)) {
        return broken(NO_GHOST, format!("{bad} is in force"));
    }
    made.moves(canary)?;
    made.begins_as_required()?;
    made.places()
}

impl Made<'_> {
    fn may_give(&self, place: Place, release: &ReleaseKey) -> Checked {
        let ghosted_now = self.plan.ghosts.iter().any(|ghost| ghost.release == *release);
        if self.fleet.ghosted.contains(release) || ghosted_now {
            return broken(NO_GHOST, format!("{release} at {place}"));
        }
        let moving = self.rollout.filter(|it| it.phase != RolloutPhase::Reverting);
        let back = self.rollout.and_then(|it| it.from.as_ref());
        let may_be_given = self.in_force == Some(release)
            || moving.is_some_and(|it| it.release == *release)
            || back == Some(release);
        let is_new = self.fleet.assigned.keys().all(|other| other.node != place.node);
        if !may_be_given || is_new && self.in_force.is_some_and(|it| it != release) {
            return broken(TWO_RELEASES, format!("{release} at {place}"));
        }
        Ok(())
    }

    fn leaves_enough(&self, step: &Step) -> Checked {
        let Self { fleet, plan, .. } = self;
        // What is upgraded goes on serving.
        if matches!(step, Step::Assign { hot: Some(_), .. }) {
            return Ok(());
        }
        let place = step.place();
        let count = self.count(place.node);
        let goes = matches!(step, Step::Withdraw { .. } | Step::Forget { .. })
            && (place.slot.number() > count || self.takes_all_down());
        let stepped = |other: &Place| plan.steps.iter().any(|step| step.place() == *other);
        let others = fleet.assigned.keys().filter(|it| it.node == place.node && **it != place);
        let serves = |it: &Place| {
            let state = fleet.observed.get(it).map(|it| it.state);
            let is_up = matches!(state, Some(SlotState::Ready | SlotState::Stable));
            is_ready(fleet, *it) || (is_up && hot::is_left_as_it_was(fleet, *it))
        };
        let ready = others.filter(|it| !stepped(it) && serves(it)).count() as u64;
        let needed = u64::from(count).saturating_sub(allowed_down(fleet, &self.counts));
        if is_ready(fleet, place) && !goes && ready < needed {
            return broken(ENOUGH_READY, format!("{step:?} with {ready} others ready of {needed}"));
        }
        Ok(())
    }
}

/// `plan` adds nothing to the fleet: whoever looks at it is told why.
pub(crate) fn says_why(fleet: &AppFleet, plan: &Plan) -> Checked {
    if !plan.waiting.is_empty() {
        return Ok(());
    }
    let unsettled = fleet.assigned.iter().find(|(place, assigned)| {
        let node = fleet.nodes.get(&place.node).filter(|it| it.liveness == Liveness::Up);
        let drains = node.is_some_and(|it| it.service == Service::Draining);
        node.is_some() && (assigned.release.is_none() || drains || !is_stable(fleet, **place))
    });
    match (&fleet.rollout, unsettled) {
        (None, None) => Ok(()),
        (rollout, unsettled) => {
            broken(SAYS_WHY, format!("{:?}, {unsettled:?}", rollout.as_ref().map(|it| it.phase)))
        }
    }
}
