//! What is kept of a rollout for people to read: what its pre-commands printed, who was in which batch, how its nodes ended.
//!
//! Written once, as it happens, and never read by the planner: it is not a part of [`Rollout`], which is cloned and compared
//! with every plan, and of thousands of nodes it would be what costs most there.

use std::sync::Arc;

use proto::ids::{NodeName, RolloutId, Slot};
use proto::state::{Liveness, NodeStage};
use serde::{Deserialize, Serialize};

use super::draft::{Draft, Host};
use super::place::Standing;
use super::told::Bearer;
use super::{PreCommandsState, Rollout};
use crate::clock::Time;
use crate::fleet::Place;

/// One thing to be kept of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub rollout: RolloutId,
    pub what: Record,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Ran(Runs),
    Drawn(Drawn),
    /// How its nodes stood when it turned back, or else when it was over.
    Ended(Vec<EndedNode>),
}

/// A run of pre-commands that ended. Nodes bear their names here, because they may be gone when it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    pub node: NodeName,
    pub slot: Slot,
    /// When it was heard of.
    pub at: Time,
    /// Of each its line and the last of what it printed; empty: an agent before told nothing of it.
    pub output: String,
}

/// What pre-commands have printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Runs {
    ForAll(Ran),
    Own(OwnRuns),
}

/// Where each replica runs its own, or where a run failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnRuns {
    /// Of how many replicas it was heard that they passed: the most that were there at once.
    pub passed: u32,
    /// Of the first of those: all alike, they are to show what was done, not to fill a database.
    pub some: Vec<Ran>,
    /// The run that failed, for which the rollout turned back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Ran>,
}

/// Of so many replicas it is kept what their own pre-commands printed.
const MOST_OWN_RUNS: usize = 10;

/// A batch as it was drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The first is 1.
    pub number: u32,
    pub canary: bool,
    pub nodes: Vec<NodeName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedNode {
    pub node: NodeName,
    pub stage: NodeStage,
    /// Why the release failed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

impl Draft<'_> {
    fn record(&mut self, rollout: &Rollout, what: Record) {
        self.plan.records.push(Recorded { rollout: rollout.id, what });
    }

    pub(super) fn record_run(&mut self, rollout: &Rollout, place: Place, output: &Arc<str>) {
        let Some(node) = self.fleet.nodes.get(&place.node).map(|node| node.name.clone()) else { return };
        let ran = Ran { node, slot: place.slot, at: self.now, output: output.to_string() };
        self.record(rollout, Record::Ran(Runs::ForAll(ran)));
    }

    /// Those of its own that each replica has run by now, where it was told of no more before: who is lost or goes away
    /// later has run them all the same.
    pub(super) fn record_own_runs(&mut self, rollout: &mut Rollout) {
        let own = self.own_runs(rollout);
        if own.passed > rollout.progress.own_runs_kept {
            rollout.progress.own_runs_kept = own.passed;
            self.record(rollout, Record::Ran(Runs::Own(own)));
        }
    }

    /// With those that passed elsewhere.
    pub(super) fn record_failed_run(&mut self, rollout: &Rollout, place: Place, output: &str) {
        let Some(node) = self.fleet.nodes.get(&place.node).map(|node| node.name.clone()) else { return };
        let mut own = self.own_runs(rollout);
        own.failed = Some(Ran { node, slot: place.slot, at: self.now, output: output.to_owned() });
        self.record(rollout, Record::Ran(Runs::Own(own)));
    }

    fn own_runs(&self, rollout: &Rollout) -> OwnRuns {
        let mut own = OwnRuns::default();
        if rollout.pre_commands != PreCommandsState::EveryReplica {
            return own;
        }
        for Bearer { place, host, assigned, .. } in self.bearers(&rollout.release) {
            let run_id = assigned.and_then(|it| it.pre_commands_run.as_ref()).filter(|it| rollout.began(it));
            let Some(printed) = run_id.and_then(|run_id| self.run_passed(place, run_id)) else { continue };
            own.passed += 1;
            if own.some.len() < MOST_OWN_RUNS {
                let (node, output) = (host.node.name.clone(), printed.to_string());
                own.some.push(Ran { node, slot: place.slot, at: self.now, output });
            }
        }
        own
    }

    pub(super) fn record_batch(&mut self, rollout: &Rollout) {
        let Some(batch) = &rollout.progress.batch else { return };
        let nodes = self.names(&batch.nodes);
        self.record(rollout, Record::Drawn(Drawn { number: batch.number, canary: batch.canary, nodes }));
    }

    /// `failed`: where it failed, and why, if that is what ends it.
    pub(super) fn record_end(&mut self, rollout: &mut Rollout, failed: Option<(Place, &str)>) {
        let ended = |host: &Host<'_>| {
            let tolerated = rollout.progress.failed.get(&host.id).map(String::as_str);
            let here = failed.filter(|(place, _)| place.node == host.id).map(|(_, because)| because);
            let because = tolerated.or(here).map(str::to_owned);
            let stage = if because.is_some() { NodeStage::Failed } else { self.stage(rollout, *host) };
            EndedNode { node: host.node.name.clone(), stage, because }
        };
        let nodes: Vec<EndedNode> = self.hosts().iter().map(ended).collect();
        self.record_own_runs(rollout);
        self.record(rollout, Record::Ended(nodes));
    }

    fn stage(&self, rollout: &Rollout, host: Host<'_>) -> NodeStage {
        if host.is(Liveness::Lost) {
            return NodeStage::Lost;
        }
        let slots = self.slots_of(host, &rollout.release);
        let in_batch = rollout.progress.batch.as_ref().is_some_and(|batch| batch.nodes.contains(&host.id));
        if slots.has_moved() && slots.wanted().all(|view| view.standing == Standing::Stable) {
            NodeStage::Moved
        } else if slots.has_begun() || in_batch {
            NodeStage::Moving
        } else {
            NodeStage::ToCome
        }
    }
}
