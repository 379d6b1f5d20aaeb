//! Rollouts: the move of an application to a release, how far it is and what it waits for.

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, NodeName, ReleaseKey, RolloutId, Slot};
use crate::releases::Ghost;
use crate::state::{NodeStage, RolloutPhase, SlotState};
use crate::timestamp::Timestamp;

/// A rollout in lists and in the overview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutSummary {
    pub id: RolloutId,
    pub application: AppName,
    pub release: ReleaseKey,
    /// Where it goes back to; absent: a first deployment.
    pub from: Option<ReleaseKey>,
    pub phase: RolloutPhase,
    /// Why it is in this phase, where that needs saying.
    pub reason: Option<String>,
    /// A user, a token, or `bucket`.
    pub by: String,
    pub started_at: Timestamp,
    /// When the present phase began.
    pub phase_since: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// Who paused it: no further slot is told the release until it is resumed. Absent: it goes on.
    #[serde(default)]
    pub paused_by: Option<String>,
    /// Who gave it up: it goes back to where it came from, or has. Absent: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted_by: Option<String>,
    pub progress: Progress,
    /// What it waits for, a sentence each; empty: it does not wait.
    pub waiting: Vec<String>,
}

/// Slots that run what the rollout now moves to, of all that are to. Of a rollout that is over: as it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    pub stable: u32,
    pub total: u32,
}

/// A rollout with each of its slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rollout {
    #[serde(flatten)]
    pub summary: RolloutSummary,
    pub pre_commands: RolloutPreCommands,
    /// How it is to move, as a sentence; absent once it is over, or its application is no longer configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// The nodes that are moved now, or were last; absent: there are none yet, or it does not move any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<RolloutBatch>,
    /// Its release as it was ghosted for this rollout, with the evidence; absent: it was not, or was cleared since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ghost: Option<Ghost>,
    /// By node, in the order in which they are visited; empty once the rollout is over.
    pub nodes: Vec<RolloutNode>,
}

/// Nodes that are moved side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutBatch {
    /// The first is 1.
    pub number: u32,
    /// The others wait behind it for longer.
    pub canary: bool,
    /// Since when all of it is stable; absent: it is not.
    pub stable_since: Option<Timestamp>,
    /// Who let the rollout go on behind it.
    pub promoted_by: Option<String>,
    /// All of it is stable and others wait behind it: they follow at once when it is promoted.
    pub may_be_promoted: bool,
}

/// Nodes that are drawn together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    pub kind: GroupKind,
    pub nodes: Vec<&'a RolloutNode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    Canary,
    /// The one that is moved now, or was last.
    Batch(u32),
    Moved,
    /// Outside of the batch: their move began earlier.
    Moving,
    Failed,
    Lost,
    ToCome,
}

impl GroupKind {
    /// For programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Batch(_) => "batch",
            Self::Moved => "moved",
            Self::Moving => "moving",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::ToCome => "to-come",
        }
    }

    /// For people. `back`: the rollout goes back.
    pub fn title(self, back: bool) -> String {
        let title = match self {
            Self::Canary => "Canary",
            Self::Batch(number) => return format!("Batch {number}"),
            Self::Moved if back => "Back",
            Self::Moved => "Moved",
            Self::Moving if back => "Going back",
            Self::Moving => "Moving",
            Self::Failed => "Left behind",
            Self::Lost => "Lost",
            Self::ToCome if back => "Not yet back",
            Self::ToCome => "To come",
        };
        title.to_owned()
    }
}

impl Rollout {
    /// Its nodes as they are drawn: a canary first, then those that moved, those that move, and those to come. In which batch a
    /// node was moved earlier is not known.
    pub fn groups(&self) -> Vec<Group<'_>> {
        let now = self.batch.as_ref().map(|batch| match batch.canary {
            true => GroupKind::Canary,
            false => GroupKind::Batch(batch.number),
        });
        let kind = |node: &RolloutNode| match (now, node.stage) {
            (Some(now), _) if node.in_batch => now,
            (_, NodeStage::Moved) => GroupKind::Moved,
            (_, NodeStage::Moving) => GroupKind::Moving,
            (_, NodeStage::Failed) => GroupKind::Failed,
            (_, NodeStage::Lost) => GroupKind::Lost,
            (_, NodeStage::ToCome) => GroupKind::ToCome,
        };
        let mut order = vec![GroupKind::Moved, GroupKind::Moving];
        match now {
            Some(GroupKind::Canary) => order.insert(0, GroupKind::Canary),
            Some(batch) => order.insert(1, batch),
            None => {}
        }
        order.extend([GroupKind::Failed, GroupKind::Lost, GroupKind::ToCome]);
        let group = |wanted: GroupKind| Group {
            kind: wanted,
            nodes: self.nodes.iter().filter(|node| kind(node) == wanted).collect(),
        };
        order.into_iter().map(group).filter(|group| !group.nodes.is_empty()).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum RolloutPreCommands {
    NotNeeded,
    Waiting,
    Running {
        node: NodeName,
        slot: Slot,
    },
    /// Each slot runs its own before it starts the release.
    EveryReplica,
    Passed,
    Failed {
        error: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutNode {
    pub node: NodeName,
    #[serde(default)]
    pub stage: NodeStage,
    /// It belongs to the rollout's `batch`.
    #[serde(default)]
    pub in_batch: bool,
    /// Why the release failed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    pub slots: Vec<RolloutSlot>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutSlot {
    pub slot: Slot,
    pub state: SlotState,
    pub running: Option<ReleaseKey>,
    /// It was told to run the rollout's release.
    pub told: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(batch: Option<RolloutBatch>, nodes: &[(&str, NodeStage, bool)]) -> Rollout {
        let summary = RolloutSummary {
            id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            application: "shop".parse().unwrap(),
            release: ReleaseKey { version: "2.0.0".parse().unwrap(), sha256: crate::ids::Digest([1; 32]) },
            from: None,
            phase: RolloutPhase::Running,
            reason: None,
            by: "bucket".to_owned(),
            started_at: Timestamp(1),
            phase_since: Timestamp(1),
            finished_at: None,
            paused_by: None,
            aborted_by: None,
            progress: Progress::default(),
            waiting: Vec::new(),
        };
        let node = |(name, stage, in_batch): &(&str, NodeStage, bool)| RolloutNode {
            node: name.parse().unwrap(),
            stage: *stage,
            in_batch: *in_batch,
            because: None,
            slots: Vec::new(),
        };
        let nodes = nodes.iter().map(node).collect();
        let pre_commands = RolloutPreCommands::NotNeeded;
        Rollout { summary, pre_commands, strategy: None, batch, ghost: None, nodes }
    }

    fn drawn(rollout: &Rollout) -> Vec<String> {
        let said = |group: Group<'_>| {
            let nodes: Vec<&str> = group.nodes.iter().map(|node| node.node.as_str()).collect();
            format!("{}: {}", group.kind.title(false), nodes.join(" "))
        };
        rollout.groups().into_iter().map(said).collect()
    }

    #[test]
    fn nodes_are_drawn_by_batch_and_each_once() {
        let batch = |number, canary| {
            Some(RolloutBatch {
                number,
                canary,
                stable_since: None,
                promoted_by: None,
                may_be_promoted: false,
            })
        };
        let nodes = [
            ("a", NodeStage::Moved, false),
            ("b", NodeStage::Moving, true),
            ("c", NodeStage::Lost, true),
            ("d", NodeStage::Lost, false),
            ("e", NodeStage::ToCome, false),
        ];
        assert_eq!(
            drawn(&rollout(batch(1, true), &nodes)),
            ["Canary: b c", "Moved: a", "Lost: d", "To come: e"]
        );
        assert_eq!(
            drawn(&rollout(batch(2, false), &nodes)),
            ["Moved: a", "Batch 2: b c", "Lost: d", "To come: e"]
        );
        assert_eq!(drawn(&rollout(None, &nodes)), ["Moved: a", "Moving: b", "Lost: c d", "To come: e"]);
    }

    #[test]
    fn what_an_earlier_version_said_of_a_node_is_read() {
        let node: RolloutNode = serde_json::from_str(r#"{"node":"web-1","slots":[]}"#).unwrap();
        assert_eq!((node.stage, node.in_batch), (NodeStage::ToCome, false));
    }
}
