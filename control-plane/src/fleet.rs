//! What the planner reads: one application with all that is wanted, assigned and seen of it. Plain data, no handles.
//!
//! It is loaded in one transaction (`db`) and completed with what the agents last reported (`agents`). `BTreeMap`s, so that
//! the same fleet always gives the same plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use proto::hot_upgrade::Package;
use proto::ids::{AppName, BadName, NodeId, NodeName, ReleaseKey, RestartId, RolloutId, Slot};
use proto::replicas::{ProbeList, VmLimits, check_sentence};
use proto::state::{
    ExitCause, HostLevel, Liveness, Service, SlotState, StagingPhase, UpgradeState, VmFigure,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Time;
use crate::rollout::Rollout;
use crate::spec::AppSpec;

/// A place for a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub node: NodeId,
    pub slot: Slot,
}

/// As text, `NODE-ID/SLOT`, also in JSON, where it is a key.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.slot)
    }
}

impl FromStr for Place {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let (node, slot) = text.split_once('/').unwrap_or((text, ""));
        Ok(Self { node: node.parse()?, slot: slot.parse()? })
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Everything that decides what happens next to one application.
#[derive(Clone, Debug, PartialEq)]
pub struct AppFleet {
    pub app: AppName,
    /// Raised by every plan that is stored; a plan is stored only while it is still the one that was planned from.
    pub generation: u64,
    /// `None`: the application is no longer configured; its slots are to be withdrawn.
    pub spec: Option<AppSpec>,
    /// Why nodes cannot be told of it now, a sentence: nothing is decided for it until they can.
    pub untold: Option<String>,
    /// The newest wish: `current.json`, or what a person asked for. `None`: nothing was ever released.
    pub wanted: Option<Wish>,
    /// The last release that became stable everywhere: where a failed rollout goes back to, and what new places get.
    pub in_force: Option<ReleaseKey>,
    pub ghosted: BTreeSet<ReleaseKey>,
    /// Releases that outlived the watch of an earlier rollout (one that is `Done`): never ghosted.
    pub proven: BTreeSet<ReleaseKey>,
    /// The rollout that is not over, if any.
    pub rollout: Option<Rollout>,
    /// The newest one that is over.
    pub last: Option<Rollout>,
    /// The newest one that is over of those that carried out [`AppFleet::wanted`]: what was taken back is not tried again.
    pub tried: Option<Rollout>,
    /// The newest one that is over of those that brought [`AppFleet::in_force`], and was not taken back.
    pub brought: Option<Rollout>,
    /// The rollout that gave way to the one under way while it was watched: [`Progress::predecessor`](crate::rollout::Progress).
    pub predecessor: Option<Rollout>,
    /// Restarts that were asked for and are not over, the oldest first.
    pub restarts: Vec<RestartWish>,
    /// When a restart for a passed limit was given up last: none is asked for again before a cooldown is over.
    pub given_up: Option<Time>,
    /// Nodes that may hold a replica of it (enrolled, not removed, labels match), and nodes that still hold one.
    pub nodes: BTreeMap<NodeId, Node>,
    /// How many slots a node is to hold, as it was last decided: of a spread on every node, else on those that are cordoned.
    pub placed: BTreeMap<NodeId, u16>,
    /// What was last assigned, by place. A place that is not here was never assigned, or its withdrawal was seen through.
    pub assigned: BTreeMap<Place, Assigned>,
    /// What the packages hold of the releases that a rollout may move between, where hot upgrades are not ruled out; empty
    /// where nothing moves.
    pub packages: BTreeMap<ReleaseKey, Package>,
    /// What was last reported, by place. After a start of the control plane it fills as agents come back.
    pub observed: BTreeMap<Place, Observed>,
}

/// What should be deployed, and on whose word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub release: ReleaseKey,
    /// `release` has pre-commands that a rollout of it must run.
    pub pre_commands: bool,
    pub by: WishedBy,
    /// When it was wished; it also tells one wish from the next, even where both name the same release. The same
    /// `current.json` seen again is the same wish.
    pub at: Time,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WishedBy {
    /// `current.json` in the bucket.
    Bucket,
    /// `deploy`, by that user or token: also the way to try a release again whose wish has not changed.
    Person(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: NodeName,
    pub liveness: Liveness,
    /// Labels match and it is not removed: may be given replicas. Otherwise what it holds is to be withdrawn.
    pub eligible: bool,
    pub labels: BTreeMap<String, String>,
    pub service: Service,
    /// The generation of the last assignment that its agent said, in this session, to have stored; 0: not yet heard.
    pub stored: u64,
}

impl Node {
    /// What it holds goes, no faster than replicas may be missing: it drains, or its labels match no more.
    pub fn is_to_be_emptied(&self) -> bool {
        !self.eligible || self.service == Service::Draining
    }
}

/// What a place was last told to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// `None`: withdrawn, until a report says that the slot is empty.
    pub release: Option<ReleaseKey>,
    /// Set where this slot is to run the pre-commands: the run's id.
    pub pre_commands_run: Option<String>,
    /// The node's generation with which this was said. Reports below it speak of earlier assignments.
    pub generation: u64,
    /// When it was said: deadlines count from here.
    pub since: Time,
    /// [`AppFleet::generation`] when what runs here was last begun or told to begin anew: restarts that were asked for at an
    /// earlier one are done with here. 0: nobody knows, so they are not.
    pub begun_at: u64,
    /// The last time that what runs was told to start anew; `None`: it was given a release since.
    pub restart: Option<ToldRestart>,
    /// How `release` is to come there; `None`: what ran ends before it.
    pub hot: Option<Hot>,
}

/// A release is to be brought into what runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hot {
    /// One try for each: the rollout's id, where it is of one.
    pub attempt: String,
    /// What it is an upgrade of.
    pub from: ReleaseKey,
    /// What runs is never stopped for it.
    pub required: bool,
}

impl Hot {
    /// What a try is called that is of no rollout.
    pub fn outside_of_any(app: &AppName, generation: u64) -> String {
        format!("{app}-{generation}")
    }

    /// Told for this rollout, on its way there or back; `None`: for none.
    pub fn is_of(&self, app: &AppName, rollout: Option<RolloutId>) -> bool {
        match rollout {
            Some(id) => self.attempt.starts_with(&id.to_string()),
            None => self.attempt.strip_prefix(app.as_str()).is_some_and(|it| it.starts_with('-')),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldRestart {
    pub id: RestartId,
    pub at: Time,
}

/// A wish that what runs of an application is started anew: on all nodes or one, all slots or one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartWish {
    pub id: RestartId,
    /// [`AppFleet::generation`] once it was stored. Each wish raises it, so it tells which came later; ids and times do not,
    /// because a clock may be put back.
    pub generation: u64,
    pub node: Option<NodeId>,
    pub slot: Option<Slot>,
    pub by: String,
    /// `None`: a person's wish. Else the limit that the replica has passed, which it is about.
    pub because: Option<String>,
    pub at: Time,
}

impl RestartWish {
    /// The one replica that it is about.
    pub fn place(&self) -> Option<Place> {
        Some(Place { node: self.node?, slot: self.slot? })
    }

    /// The one replica that a person named, and so accepted that it is away.
    pub fn named(&self) -> Option<Place> {
        self.place().filter(|_| self.because.is_none())
    }

    pub fn covers(&self, place: Place) -> bool {
        self.node.is_none_or(|node| node == place.node) && self.slot.is_none_or(|slot| slot == place.slot)
    }
}

/// What an agent last said of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Of the last assignment the slot has absorbed.
    pub generation: u64,
    pub state: SlotState,
    pub running: Option<ReleaseKey>,
    pub pid: Option<u32>,
    pub started_at: Option<Time>,
    /// Since when it has been ready without a break, by our own clock; `None`: it is not ready.
    pub ready_since: Option<Time>,
    pub staging: Option<ObservedStaging>,
    pub crash_restarts: u32,
    pub forced_restarts: u32,
    /// Exits that nobody asked for since `running` was put in place.
    pub crashes_since_deploy: u32,
    pub last_exit: Option<ObservedExit>,
    /// The last that did not pass, of the release that runs.
    pub failed_check: Option<ObservedCheck>,
    pub next_start_at: Option<Time>,
    /// Empty: nothing is wrong.
    pub fault: String,
    pub pre_commands: Option<ObservedPreCommands>,
    /// It goes back by itself, or has.
    pub fell_back: Option<ObservedFallback>,
    /// `None`: its process is no Erlang node, or its agent is of an earlier version.
    pub erlang: Option<ObservedNode>,
    /// `None`: its VM was not asked yet.
    pub vm: Option<ObservedVm>,
    /// The hot upgrade that is under way, or the last one. Shared, because observations are cloned for every plan.
    pub upgrade: Option<Arc<ObservedUpgrade>>,
    /// Its agent knows what that is.
    pub hot_upgrades: bool,
    /// What its process was started with and has changed since, as the configuration calls it: only its next start takes that.
    pub waiting_settings: Vec<String>,
    pub ports: Vec<(String, u16)>,
    pub reported_at: Time,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedStaging {
    pub release: ReleaseKey,
    pub phase: StagingPhase,
    pub error: String,
    pub fetched_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedExit {
    pub cause: ExitCause,
    pub at: Time,
    pub asked_for: bool,
    pub log_tail: String,
    /// Why its VM crashed, in its own words, and where its dump is kept on its host; empty: it wrote none.
    #[serde(default)]
    pub slogan: String,
    #[serde(default)]
    pub crash_dump: String,
    /// Why the agent ended it on its own account; empty: it did not.
    #[serde(default)]
    pub because: String,
}

/// How its agent stands with the Erlang node that a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedNode {
    pub name: String,
    /// `None`: it is not connected.
    pub connected_since: Option<Time>,
    /// Why not, in a word and as a sentence; empty: it is, or it was not tried yet.
    pub kind: String,
    pub because: String,
    /// In a word, with which certificates it talks TLS; empty: with none that the agent knows.
    pub tls: String,
    /// `None`: it is not to be connected to others, or was not asked yet.
    pub mesh: Option<ObservedMesh>,
}

/// How an Erlang node stands with its siblings: the others of its application that it is to be connected to. Shared, because
/// observations are cloned for every plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedMesh {
    pub connected: Arc<[String]>,
    pub missed: Arc<[ObservedMissed]>,
    /// On other hosts: it is connected to them, and its host cannot dial them. Since it is.
    pub unreached: Arc<[ObservedMissed]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedMissed {
    pub name: String,
    pub since: Time,
    /// Why, in a word and as a sentence; empty: nobody knows, or not yet.
    pub kind: String,
    pub because: String,
}

/// What the VM of a replica is. Empty versions: it has no such thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedVm {
    pub otp: String,
    pub erts: String,
    pub application: String,
    pub elixir: String,
    pub gleam_stdlib: String,
    pub phoenix: String,
    pub started_at: Option<Time>,
    /// `None`: it has not answered yet.
    pub limits: Option<VmLimits>,
    /// Why its figures cannot be read; empty: they can.
    pub fault: String,
    /// What of it has passed a limit and is not below it again.
    pub levels: Vec<ObservedLevel>,
    /// Where its Phoenix endpoints say that they are reached.
    pub urls: Vec<String>,
    /// Its release has a picture of it.
    pub logo: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedLevel {
    pub figure: VmFigure,
    pub level: HostLevel,
    /// When the level became this one; of memory, bytes.
    pub count: u64,
    /// Of which that is a share.
    pub limit: u64,
    pub since: Time,
}

/// A release that is brought into what runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedUpgrade {
    pub attempt: String,
    pub from: ReleaseKey,
    pub to: ReleaseKey,
    pub state: UpgradeState,
    /// Steps that are done, with their milliseconds.
    pub done: Vec<(String, u64)>,
    /// What is being done, or failed; empty: all is done.
    pub step: String,
    /// When that began; `None`: it is over.
    pub step_since: Option<Time>,
    /// Why it failed, a sentence; empty: it has not.
    pub because: String,
    /// It would fail like this on any host.
    pub of_package: bool,
    /// What ran was no longer what it had been, and was started anew.
    pub spoiled: bool,
    /// When it was over.
    pub at: Option<Time>,
}

/// A check that did not pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedCheck {
    pub list: ProbeList,
    /// As in `GET /health on port 4000`, and what came of it, as in `answered 503`.
    pub asked: String,
    pub outcome: String,
    /// The first part of what it answered, or the last of what it printed.
    pub body: String,
    pub at: Time,
    /// 0: it has passed since.
    pub in_a_row: u32,
    /// The last lines of the replica's output at that time.
    pub log_tail: String,
}

impl ObservedCheck {
    pub fn sentence(&self) -> String {
        check_sentence(&self.asked, &self.outcome, &self.body)
    }
}

/// A slot whose agent had lost us, and went back to the release before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedFallback {
    /// The id of the rollout that it was told the fallback in, as it was told.
    pub rollout: String,
    pub because: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPreCommands {
    pub run_id: String,
    pub outcome: PreCommandsOutcome,
    /// Where they passed: what they printed last. Shared, because observations are cloned for every plan.
    pub printed: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreCommandsOutcome {
    Running,
    Passed,
    /// What failed and how, and the last lines of its output.
    Failed {
        error: String,
        output: String,
    },
}
