//! Where each node stands in a rollout. Pure: of the picture.

use std::collections::BTreeMap;

use proto::ids::{NodeId, NodeName};
use proto::rollouts::{RolloutBatch, RolloutNode, RolloutSlot};
use proto::state::{Liveness, NodeStage, RolloutPhase, SlotState};

use crate::api::apps::slots_on;
use crate::api::replicas;
use crate::fleet::Node;
use crate::picture::{AppPicture, Picture};
use crate::rollout::{Progress, Rollout};

/// Those that hold the application or are to hold it, in the order in which they are visited; none once it is over:
/// then it is what was kept of it that tells.
pub(super) fn of(picture: &Picture, app: &AppPicture, rollout: &Rollout) -> Vec<RolloutNode> {
    if rollout.phase.is_over() {
        return Vec::new();
    }
    let fleet = &app.fleet;
    let mut slots: BTreeMap<NodeName, Vec<RolloutSlot>> = BTreeMap::new();
    for replica in replicas::of(picture, fleet) {
        let slot = RolloutSlot {
            slot: replica.slot,
            state: replica.state,
            told: replica.assigned.as_ref() == Some(&rollout.release),
            running: replica.running,
        };
        slots.entry(replica.node).or_default().push(slot);
    }
    let label = fleet.spec.as_ref().and_then(|spec| spec.deploy.order_by.as_ref());
    let mut visited: Vec<(NodeId, &Node)> = fleet.nodes.iter().map(|(id, node)| (*id, node)).collect();
    visited.sort_by_key(|(_, node)| {
        let value = label.and_then(|label| node.labels.get(label));
        (value.is_none(), value, &node.name)
    });
    let standing = Standing { rollout, slots_wanted: |id| slots_on(fleet, id) };
    let nodes = visited.into_iter().filter_map(|(id, node)| {
        let slots = slots.remove(&node.name).unwrap_or_default();
        standing.of(id, node, slots)
    });
    nodes.collect()
}

/// The batch that is moved now, or was last.
pub(super) fn batch(rollout: &Rollout, nodes: &[RolloutNode]) -> Option<RolloutBatch> {
    let Progress { batch, promoted, .. } = &rollout.progress;
    let batch = batch.as_ref().filter(|_| rollout.phase.moves())?;
    let promoted = promoted.as_ref().filter(|it| it.batch == batch.number);
    let others_follow = nodes.iter().any(|node| node.stage == NodeStage::ToCome);
    Some(RolloutBatch {
        number: batch.number,
        canary: batch.canary,
        stable_since: batch.stable_since.map(Into::into),
        promoted_by: promoted.map(|it| it.said.by.clone()),
        may_be_promoted: promoted.is_none() && batch.stable_since.is_some() && others_follow,
    })
}

struct Standing<'a, F> {
    rollout: &'a Rollout,
    slots_wanted: F,
}

impl<F: Fn(NodeId) -> u16> Standing<'_, F> {
    /// `None`: it is no part of the rollout.
    fn of(&self, id: NodeId, node: &Node, slots: Vec<RolloutSlot>) -> Option<RolloutNode> {
        let Self { rollout, slots_wanted } = self;
        let Progress { batch, failed, .. } = &rollout.progress;
        let in_batch = rollout.phase.moves() && batch.as_ref().is_some_and(|batch| batch.nodes.contains(&id));
        let wanted = usize::from(slots_wanted(id));
        let back = rollout.phase == RolloutPhase::Reverting;
        let told = |slot: &RolloutSlot| slot.told != back;
        let begun = slots.iter().any(told);
        if wanted == 0 && !in_batch && !begun {
            return None;
        }
        let target = if back { rollout.from.as_ref() } else { Some(&rollout.release) };
        let there = |slot: &RolloutSlot| {
            told(slot) && slot.state == SlotState::Stable && slot.running.as_ref() == target
        };
        let settled = match target {
            // A spare that is being stopped is no part of the move any more.
            Some(_) => {
                let own = || slots.iter().filter(|slot| usize::from(slot.slot.number()) <= wanted);
                own().count() >= wanted && own().all(there)
            }
            None => slots.is_empty(),
        };
        let because = failed.get(&id).filter(|_| !back).cloned();
        let stage = match node.liveness {
            _ if because.is_some() => NodeStage::Failed,
            Liveness::Lost => NodeStage::Lost,
            Liveness::Up | Liveness::Suspect if settled => NodeStage::Moved,
            Liveness::Up | Liveness::Suspect if in_batch || begun => NodeStage::Moving,
            Liveness::Up | Liveness::Suspect => NodeStage::ToCome,
        };
        let now = batch.as_ref().filter(|_| in_batch);
        let (batch, canary) = (now.map(|it| it.number), now.is_some_and(|it| it.canary));
        Some(RolloutNode { node: node.name.clone(), stage, in_batch, batch, canary, because, slots })
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::ReleaseKey;

    use super::*;
    use crate::clock::Time;
    use crate::rollout::{Batch, Promoted, Said, fixture};

    const HERE: NodeId = NodeId(uuid::Uuid::nil());

    fn key(version: &str) -> ReleaseKey {
        ReleaseKey { version: version.parse().unwrap(), sha256: proto::ids::Digest([1; 32]) }
    }

    fn rollout(phase: RolloutPhase) -> Rollout {
        Rollout { release: key("2.0.0"), from: Some(key("1.0.0")), ..fixture::rollout(2, Some(1), phase) }
    }

    fn node(liveness: Liveness) -> Node {
        Node { name: "web-1".parse().unwrap(), liveness, ..fixture::node(1) }
    }

    fn slot(state: SlotState, version: &str, told: bool) -> RolloutSlot {
        RolloutSlot { slot: "1".parse().unwrap(), state, running: Some(key(version)), told }
    }

    fn stage(rollout: &Rollout, liveness: Liveness, wanted: u16, slots: Vec<RolloutSlot>) -> NodeStage {
        let standing = Standing { rollout, slots_wanted: |_| wanted };
        standing.of(HERE, &node(liveness), slots).expect("a part of it").stage
    }

    #[test]
    fn a_node_moves_once_its_turn_has_come_and_has_moved_when_all_of_it_is_stable() {
        let mut it = rollout(RolloutPhase::Running);
        let old = slot(SlotState::Stable, "1.0.0", false);
        let fresh = slot(SlotState::Ready, "2.0.0", true);
        let stable = slot(SlotState::Stable, "2.0.0", true);
        let up = |it: &Rollout, slots: &[&RolloutSlot]| {
            stage(it, Liveness::Up, 2, slots.iter().map(|it| (*it).clone()).collect())
        };
        assert_eq!(up(&it, &[&old, &old]), NodeStage::ToCome);
        assert_eq!(up(&it, &[]), NodeStage::ToCome, "a first deployment");
        assert_eq!(up(&it, &[&stable, &old]), NodeStage::Moving);
        assert_eq!(up(&it, &[&stable, &fresh]), NodeStage::Moving);
        assert_eq!(up(&it, &[&stable]), NodeStage::Moving, "one slot is still to come");
        assert_eq!(up(&it, &[&stable, &stable]), NodeStage::Moved);
        let spare = RolloutSlot { slot: "3".parse().unwrap(), ..slot(SlotState::Stopping, "2.0.0", false) };
        assert_eq!(up(&it, &[&stable, &stable, &spare]), NodeStage::Moved, "its spare is being stopped");
        it.progress.batch = Some(Batch { number: 1, nodes: [HERE].into(), ..Batch::default() });
        assert_eq!(up(&it, &[&old, &old]), NodeStage::Moving, "it is in the batch");
    }

    #[test]
    fn a_node_that_failed_or_is_away_is_said_to_have() {
        let mut it = rollout(RolloutPhase::Running);
        let slots = vec![slot(SlotState::Stable, "1.0.0", false)];
        assert_eq!(stage(&it, Liveness::Lost, 1, slots.clone()), NodeStage::Lost);
        assert_eq!(stage(&it, Liveness::Suspect, 1, slots.clone()), NodeStage::ToCome);
        it.progress.failed.insert(HERE, "it does not start".to_owned());
        assert_eq!(stage(&it, Liveness::Lost, 1, slots), NodeStage::Failed);
    }

    #[test]
    fn on_the_way_back_the_old_release_is_where_to() {
        let mut it = rollout(RolloutPhase::Reverting);
        let (old, new) = (slot(SlotState::Stable, "1.0.0", false), slot(SlotState::Stable, "2.0.0", true));
        assert_eq!(stage(&it, Liveness::Up, 1, vec![old.clone()]), NodeStage::Moved);
        assert_eq!(stage(&it, Liveness::Up, 1, vec![new.clone()]), NodeStage::ToCome);
        assert_eq!(stage(&it, Liveness::Up, 2, vec![old, new.clone()]), NodeStage::Moving);
        it.from = None;
        assert_eq!(stage(&it, Liveness::Up, 1, vec![new]), NodeStage::ToCome);
        assert_eq!(stage(&it, Liveness::Up, 1, vec![]), NodeStage::Moved);
    }

    #[test]
    fn what_holds_nothing_and_is_to_hold_nothing_is_no_part_of_it() {
        let it = rollout(RolloutPhase::Running);
        let standing = Standing { rollout: &it, slots_wanted: |_| 0 };
        assert_eq!(standing.of(HERE, &node(Liveness::Up), vec![]), None);
    }

    #[test]
    fn a_batch_may_be_promoted_while_it_is_stable_and_others_are_to_come() {
        let mut it = rollout(RolloutPhase::Running);
        let other = |stage| RolloutNode {
            node: "web-2".parse().unwrap(),
            stage,
            in_batch: false,
            batch: None,
            canary: false,
            because: None,
            slots: vec![],
        };
        let may = |it: &Rollout, stage| batch(it, &[other(stage)]).is_some_and(|it| it.may_be_promoted);
        assert!(!may(&it, NodeStage::ToCome), "there is no batch yet");
        it.progress.batch = Some(Batch { number: 1, canary: true, ..Batch::default() });
        assert!(!may(&it, NodeStage::ToCome), "it is not stable");
        it.progress.batch.as_mut().unwrap().stable_since = Some(Time(5));
        assert!(may(&it, NodeStage::ToCome));
        assert!(!may(&it, NodeStage::Moved), "nobody waits");
        let said = Said { by: "ann".to_owned(), at: Time(9) };
        it.progress.promoted = Some(Promoted { batch: 1, said });
        assert!(!may(&it, NodeStage::ToCome));
        it.phase = RolloutPhase::Watching;
        assert_eq!(batch(&it, &[]), None);
    }
}
