//! A rollout as steps: what is done, what moves, what waits. Pure.

use proto::ids::{NodeName, ReleaseKey, Slot};
use proto::rollouts::{Rollout, RolloutNode, RolloutPreCommands, RolloutSlot};
use proto::state::{RolloutPhase, SlotState, Tone};

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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStep {
    pub node: NodeName,
    pub progress: Progress,
    pub slots: Vec<SlotStep>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotStep {
    pub slot: Slot,
    pub progress: Progress,
    pub state: SlotState,
}

/// Which release the rollout now moves to; `None`: to empty slots.
pub fn target(rollout: &Rollout) -> Option<&ReleaseKey> {
    match rollout.summary.phase {
        RolloutPhase::Reverting => rollout.summary.from.as_ref(),
        _ => Some(&rollout.summary.release),
    }
}

pub fn nodes(rollout: &Rollout) -> Vec<NodeStep> {
    rollout.nodes.iter().map(|node| step(node, rollout)).collect()
}

fn step(node: &RolloutNode, rollout: &Rollout) -> NodeStep {
    let slots: Vec<SlotStep> = node.slots.iter().map(|it| slot_step(it, rollout)).collect();
    let any = |progress| slots.iter().any(|it: &SlotStep| it.progress == progress);
    let progress = match () {
        () if any(Progress::Bad) => Progress::Bad,
        () if any(Progress::Moving) => Progress::Moving,
        () if any(Progress::Waiting) && any(Progress::Done) => Progress::Moving,
        () if any(Progress::Waiting) => Progress::Waiting,
        () => Progress::Done,
    };
    NodeStep { node: node.node.clone(), progress, slots }
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
    SlotStep { slot: slot.slot, progress, state: slot.state }
}

/// The step of its own before the nodes; `None`: there are no pre-commands.
pub fn pre_commands(state: &RolloutPreCommands) -> Option<(Progress, String)> {
    match state {
        RolloutPreCommands::NotNeeded => None,
        RolloutPreCommands::Waiting => Some((Progress::Waiting, "not begun".to_owned())),
        RolloutPreCommands::Running { node, slot } => {
            Some((Progress::Moving, format!("run by slot {slot} on {node}")))
        }
        RolloutPreCommands::EveryReplica => {
            Some((Progress::Moving, "run by each replica before it starts".to_owned()))
        }
        RolloutPreCommands::Passed => Some((Progress::Done, "passed".to_owned())),
        RolloutPreCommands::Failed { error } => Some((Progress::Bad, error.clone())),
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
        rollout.nodes = vec![RolloutNode { node: "n".parse().unwrap(), slots }];
        rollout
    }

    fn progress(rollout: &Rollout) -> (Progress, Vec<Progress>) {
        let step = nodes(rollout).remove(0);
        (step.progress, step.slots.iter().map(|it| it.progress).collect())
    }

    #[test]
    fn a_slot_is_done_when_it_is_stable_on_the_release() {
        let it = rollout(
            RolloutPhase::Running,
            vec![
                slot(1, SlotState::Stable, "2.0.0", true),
                slot(2, SlotState::Ready, "2.0.0", true),
                slot(3, SlotState::Stable, "1.0.0", false),
            ],
        );
        assert_eq!(
            progress(&it),
            (Progress::Moving, vec![Progress::Done, Progress::Moving, Progress::Waiting])
        );
    }

    #[test]
    fn a_node_waits_until_a_slot_of_it_was_told_and_is_done_with_all() {
        let waits = rollout(RolloutPhase::Running, vec![slot(1, SlotState::Stable, "1.0.0", false)]);
        assert_eq!(progress(&waits).0, Progress::Waiting);
        let done = rollout(RolloutPhase::Running, vec![slot(1, SlotState::Stable, "2.0.0", true)]);
        assert_eq!(progress(&done).0, Progress::Done);
        let failing = rollout(RolloutPhase::Running, vec![slot(1, SlotState::BackingOff, "2.0.0", true)]);
        assert_eq!(progress(&failing).0, Progress::Bad);
    }

    #[test]
    fn on_the_way_back_the_old_release_is_where_to() {
        let it = rollout(
            RolloutPhase::Reverting,
            vec![slot(1, SlotState::Stable, "1.0.0", false), slot(2, SlotState::Stable, "2.0.0", true)],
        );
        assert_eq!(progress(&it), (Progress::Moving, vec![Progress::Done, Progress::Waiting]));
    }
}
