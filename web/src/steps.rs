//! A rollout as steps: what is done, what moves, what waits. Pure.

use proto::ids::{NodeName, ReleaseKey, Slot, Version};
use proto::rollouts::{Group, GroupKind, Rollout, RolloutNode, RolloutPreCommands, RolloutSlot};
use proto::state::{NodeStage, RolloutPhase, SlotState, Tone};

use crate::format::count;

/// So many batches of which all has moved are drawn beside those that move.
const LATELY: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Done,
    Moving,
    Waiting,
    Bad,
}

impl Progress {
    pub fn tone(self) -> Tone {
        match self {
            Self::Done => Tone::Ok,
            Self::Moving => Tone::Moving,
            Self::Waiting => Tone::Off,
            Self::Bad => Tone::Bad,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Moving => "moving",
            Self::Waiting => "waiting",
            Self::Bad => "failed",
        }
    }
}

/// Nodes that are drawn together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub kind: GroupKind,
    pub title: String,
    /// Every node of it has moved.
    pub settled: bool,
    pub nodes: Vec<NodeStep>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStep {
    pub node: NodeName,
    pub stage: NodeStage,
    /// Why it failed there.
    pub because: Option<String>,
    pub slots: Vec<SlotStep>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotStep {
    pub slot: Slot,
    pub progress: Progress,
    pub state: SlotState,
    pub version: Option<Version>,
}

impl Batch {
    /// Nobody waits for anything there.
    pub fn is_at_rest(&self) -> bool {
        self.settled || matches!(self.kind, GroupKind::Moved | GroupKind::ToCome)
    }

    /// How far it is: `1 of 2 nodes`, `12 nodes`.
    pub fn tally(&self) -> String {
        let moved = self.nodes.iter().filter(|node| node.stage == NodeStage::Moved).count();
        let all = count(self.nodes.len() as u64, "node", "nodes");
        match self.kind {
            GroupKind::Canary(_) | GroupKind::Batch(_) => format!("{moved} of {all} moved"),
            _ => all,
        }
    }
}

/// Which release the rollout now moves to; `None`: to empty slots.
pub fn target(rollout: &Rollout) -> Option<&ReleaseKey> {
    match rollout.summary.phase {
        RolloutPhase::Reverting => rollout.summary.from.as_ref(),
        _ => Some(&rollout.summary.release),
    }
}

/// In the order in which they are drawn.
pub fn batches(rollout: &Rollout) -> Vec<Batch> {
    let step = |node: &RolloutNode| NodeStep {
        node: node.node.clone(),
        stage: node.stage,
        because: node.because.clone(),
        slots: node.slots.iter().map(|it| slot_step(it, rollout)).collect(),
    };
    let batch = |group: Group<'_>| Batch {
        kind: group.kind,
        title: group.kind.title(rollout.summary.phase),
        settled: group.is_settled(),
        nodes: group.nodes.into_iter().map(step).collect(),
    };
    rollout.groups().into_iter().map(batch).collect()
}

/// Those that have moved a while ago, and the others.
pub fn fold(batches: Vec<Batch>) -> (Vec<Batch>, Vec<Batch>) {
    let settled = batches.iter().filter(|batch| batch.settled).count();
    let mut earlier = settled.saturating_sub(LATELY);
    if earlier < LATELY {
        return (Vec::new(), batches);
    }
    batches.into_iter().partition(|batch| {
        let folded = batch.settled && earlier > 0;
        earlier -= usize::from(folded);
        folded
    })
}

fn slot_step(slot: &RolloutSlot, rollout: &Rollout) -> SlotStep {
    let there = slot.running.as_ref() == target(rollout);
    let told = match rollout.summary.phase {
        RolloutPhase::Reverting => !slot.told,
        _ => slot.told,
    };
    let progress = match (slot.state, there, told) {
        (state, _, true) if state.tone() == Tone::Bad => Progress::Bad,
        (SlotState::Stable, true, true) => Progress::Done,
        (_, _, true) => Progress::Moving,
        (_, _, false) => Progress::Waiting,
    };
    let version = slot.running.as_ref().map(|it| it.version.clone());
    SlotStep { slot: slot.slot, progress, state: slot.state, version }
}

/// The step of its own before the nodes; `None`: there are no pre-commands.
pub fn pre_commands(state: &RolloutPreCommands) -> Option<(Progress, String)> {
    match state {
        RolloutPreCommands::NotNeeded => None,
        RolloutPreCommands::Waiting => Some((Progress::Waiting, "not begun".to_owned())),
        RolloutPreCommands::Running { node, slot } => {
            Some((Progress::Moving, format!("run by slot {slot} on {node}")))
        }
        RolloutPreCommands::EveryReplica { .. } => {
            Some((Progress::Moving, "run by each replica before it starts".to_owned()))
        }
        RolloutPreCommands::Passed { ran } => {
            let by = ran.as_ref().map(|it| format!(", run by slot {} on {}", it.slot, it.node));
            Some((Progress::Done, format!("passed{}", by.unwrap_or_default())))
        }
        RolloutPreCommands::Failed { error, .. } => Some((Progress::Bad, error.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn slot(number: u32, state: SlotState, version: &str, told: bool) -> RolloutSlot {
        RolloutSlot { slot: Slot::new(number).unwrap(), state, running: Some(sample::key(version)), told }
    }

    fn rollout(phase: RolloutPhase, slots: Vec<RolloutSlot>) -> Rollout {
        let mut rollout = sample::rollout("a", "2.0.0", "1.0.0");
        rollout.summary.phase = phase;
        rollout.nodes = vec![sample::rollout_node("n", NodeStage::Moving, slots)];
        rollout
    }

    fn progress(rollout: &Rollout) -> Vec<Progress> {
        batches(rollout).remove(0).nodes.remove(0).slots.iter().map(|it| it.progress).collect()
    }

    #[test]
    fn a_slot_is_done_when_it_is_stable_on_the_release() {
        let it = rollout(
            RolloutPhase::Running,
            vec![
                slot(1, SlotState::Stable, "2.0.0", true),
                slot(2, SlotState::Ready, "2.0.0", true),
                slot(3, SlotState::Stable, "1.0.0", false),
                slot(4, SlotState::BackingOff, "2.0.0", true),
            ],
        );
        assert_eq!(progress(&it), [Progress::Done, Progress::Moving, Progress::Waiting, Progress::Bad]);
    }

    #[test]
    fn on_the_way_back_the_old_release_is_where_to() {
        let it = rollout(
            RolloutPhase::Reverting,
            vec![slot(1, SlotState::Stable, "1.0.0", false), slot(2, SlotState::Stable, "2.0.0", true)],
        );
        assert_eq!(progress(&it), [Progress::Done, Progress::Waiting]);
        assert_eq!(batches(&it)[0].title, "Going back");
    }

    #[test]
    fn a_batch_says_how_far_it_is() {
        let mut it = rollout(RolloutPhase::Running, vec![]);
        assert_eq!(batches(&it)[0].tally(), "1 node");
        it.batch = Some(sample::batch(1, true));
        let in_batch = |node| RolloutNode { in_batch: true, batch: Some(1), canary: true, ..node };
        it.nodes[0] = in_batch(it.nodes[0].clone());
        it.nodes.push(in_batch(sample::rollout_node("m", NodeStage::Moved, vec![])));
        let canary = batches(&it).remove(0);
        assert_eq!((canary.title.as_str(), canary.tally().as_str()), ("Canary", "1 of 2 nodes moved"));
        assert!(!canary.is_at_rest());
    }

    #[test]
    fn batches_that_moved_a_while_ago_are_folded_where_there_are_many() {
        let folded = |settled: u32| {
            let mut it = rollout(RolloutPhase::Running, vec![]);
            let node = |number: u32| {
                let node = sample::rollout_node(&format!("n{number}"), NodeStage::Moved, vec![]);
                RolloutNode { batch: Some(number), in_batch: number > settled, ..node }
            };
            it.nodes = (1..=settled + 1).map(node).collect();
            let (earlier, shown) = fold(batches(&it));
            let titles: Vec<String> = shown.into_iter().map(|it| it.title).collect();
            (earlier.len(), titles)
        };
        assert_eq!(folded(0), (0, vec!["Batch 1".to_owned()]));
        assert_eq!(folded(5).0, 0);
        let (earlier, shown) = folded(39);
        assert_eq!((earlier, shown.join(" ")), (36, "Batch 37 Batch 38 Batch 39 Batch 40".to_owned()));
    }
}
