//! What is kept of a rollout, in its view: in which batch each node was, how nodes ended, what pre-commands printed. Pure.

use std::collections::BTreeMap;

use proto::ids::NodeName;
use proto::rollouts::{PreCommandsRan, Rollout, RolloutNode, RolloutPreCommands};

use crate::db::RolloutRecord;
use crate::rollout::{EndedNode, OwnRuns, Ran, Runs};

pub(super) fn complete(view: &mut Rollout, record: RolloutRecord) {
    let RolloutRecord { drawn, ran, ended } = record;
    match (&mut view.pre_commands, ran) {
        (RolloutPreCommands::Passed { ran: shown }, Some(Runs::ForAll(it))) => *shown = Some(shown_run(it)),
        (RolloutPreCommands::EveryReplica { passed: shown, ran }, Some(Runs::Own(own))) => {
            let OwnRuns { passed, some, failed: _ } = own;
            (*shown, *ran) = (passed, some.into_iter().map(shown_run).collect());
        }
        (RolloutPreCommands::Failed { error: _, ran }, Some(Runs::Own(own))) => {
            let OwnRuns { passed: _, some, failed } = own;
            // What is ghosted bears it as its evidence.
            let failed = failed.filter(|_| view.ghost.is_none());
            *ran = failed.into_iter().chain(some).map(shown_run).collect();
        }
        _ => {}
    }
    if view.summary.phase.is_over() {
        view.nodes = ended.into_iter().map(ended_node).collect();
    }
    // One that was drawn again, as after an earlier canary was lost, is in the batch that was drawn last.
    let mut batches: BTreeMap<&NodeName, (u32, bool)> = BTreeMap::new();
    for batch in &drawn {
        batches.extend(batch.nodes.iter().map(|name| (name, (batch.number, batch.canary))));
    }
    for node in &mut view.nodes {
        if let Some((number, canary)) = batches.get(&node.node) {
            (node.batch, node.canary) = (Some(*number), *canary);
        }
    }
}

fn shown_run(ran: Ran) -> PreCommandsRan {
    let Ran { node, slot, at, output } = ran;
    PreCommandsRan { node, slot, at: at.into(), output }
}

fn ended_node(ended: EndedNode) -> RolloutNode {
    let EndedNode { node, stage, because } = ended;
    RolloutNode { node, stage, in_batch: false, batch: None, canary: false, because, slots: Vec::new() }
}
