//! What `tests/simulation` needs of the planner beside `plan`: fleets, what storing a plan makes of them, reports as the board
//! reads them, and mistakes that the planner can be told to make. Nothing in a released binary.

use std::collections::BTreeMap;

use proto::hot_upgrade::Package;
use proto::ids::{BadName, NodeId, ReleaseKey};
use proto::pb;
use proto::state::Strategy;

use super::{Plan, fixture};
use crate::clock::Time;
use crate::fleet::{AppFleet, Node, Observed};

pub use super::fault::{Fault, plant};

/// Nodes `node-1`..`node-N` with nothing on them, and one application: stable after 3 s, 40 s to become so, watched for 30 s.
pub fn fleet(strategy: Strategy, replicas: u16, nodes: u8) -> AppFleet {
    let mut fleet = fixture::fleet(strategy, replicas, nodes);
    fleet.spec = Some(fixture::spec(strategy, replicas));
    fleet
}

/// `node-N`, up, open and with nothing on it.
pub fn node(number: u8) -> (NodeId, Node) {
    (fixture::node_id(number), fixture::node(number))
}

/// What the database makes of a plan; `generations` are the nodes'.
pub fn store(fleet: &mut AppFleet, plan: &Plan, generations: &mut BTreeMap<NodeId, u64>, now: Time) {
    fixture::store(fleet, plan, generations, now);
}

/// What the package of a release holds to which there is a way from every other of its runtime, and back.
pub fn package(release: &ReleaseKey) -> Package {
    fixture::package(release)
}

/// What is known of a slot once an agent has said so that talks to what runs there.
pub fn observed(report: &pb::SlotReport, now: Time) -> Result<Observed, BadName> {
    let observed = crate::agents::read_report(report, now)?;
    Ok(Observed { erlang: Some(fixture::connected()), ..observed })
}
