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
    /// Of one that went back: what was not back when its time was over. Absent: all of it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
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
    /// By node, in the order in which they are visited. Of a rollout that is over: as it was when it was over or turned back,
    /// without slots; empty where that was not kept.
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
    /// A batch that the others wait behind for longer. The first is 1; one that is lost is followed by another.
    Canary(u32),
    Batch(u32),
    /// Of these it is not known in which batch.
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
            Self::Canary(_) => "canary",
            Self::Batch(_) => "batch",
            Self::Moved => "moved",
            Self::Moving => "moving",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::ToCome => "to-come",
        }
    }

    /// For people.
    pub fn title(self, phase: RolloutPhase) -> String {
        let back = phase == RolloutPhase::Reverting;
        let title = match self {
            Self::Canary(1) => "Canary",
            Self::Canary(number) => return format!("Batch {number}, canary"),
            Self::Batch(number) => return format!("Batch {number}"),
            Self::Moved if back => "Back",
            Self::Moved => "Moved",
            Self::Moving if back => "Going back",
            Self::Moving => "Moving",
            Self::Failed if phase.is_over() => "Failed",
            Self::Failed => "Left behind",
            Self::Lost => "Lost",
            Self::ToCome if back => "Not yet back",
            Self::ToCome if phase.is_over() => "Never came",
            Self::ToCome => "To come",
        };
        title.to_owned()
    }
}

impl Rollout {
    /// Its nodes as they are drawn: by batch, then those of which no batch is known. What goes back goes without batches.
    pub fn groups(&self) -> Vec<Group<'_>> {
        let by_batch = self.summary.phase != RolloutPhase::Reverting;
        // They are few, and a list is less code in a browser than a map.
        let mut groups: Vec<((u32, u32), Group<'_>)> = Vec::new();
        for node in &self.nodes {
            let kind = match (node.batch.filter(|_| by_batch), node.stage) {
                (Some(number), _) if node.canary => GroupKind::Canary(number),
                (Some(number), _) => GroupKind::Batch(number),
                (None, NodeStage::Moved) => GroupKind::Moved,
                (None, NodeStage::Moving) => GroupKind::Moving,
                (None, NodeStage::Failed) => GroupKind::Failed,
                (None, NodeStage::Lost) => GroupKind::Lost,
                (None, NodeStage::ToCome) => GroupKind::ToCome,
            };
            let order = match kind {
                GroupKind::Moved => (0, 0),
                GroupKind::Canary(number) | GroupKind::Batch(number) => (1, number),
                GroupKind::Moving => (2, 0),
                GroupKind::Failed => (3, 0),
                GroupKind::Lost => (4, 0),
                GroupKind::ToCome => (5, 0),
            };
            let at = groups.iter().take_while(|(it, _)| *it < order).count();
            if groups.get(at).is_none_or(|(it, _)| *it != order) {
                groups.insert(at, (order, Group { kind, nodes: Vec::new() }));
            }
            if let Some((_, group)) = groups.get_mut(at) {
                group.nodes.push(node);
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }
}

impl Group<'_> {
    /// A batch of which every node has moved: there is nothing to see there.
    pub fn is_settled(&self) -> bool {
        let is_batch = matches!(self.kind, GroupKind::Canary(_) | GroupKind::Batch(_));
        is_batch && self.nodes.iter().all(|node| node.stage == NodeStage::Moved && !node.in_batch)
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
    EveryReplica {
        /// Of how many it is kept that they passed: counted when all run it, and when it is over.
        #[serde(default)]
        passed: u32,
        /// What some of them printed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ran: Vec<PreCommandsRan>,
    },
    Passed {
        /// Absent where it was not kept, as by an earlier version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ran: Option<PreCommandsRan>,
    },
    Failed {
        error: String,
        /// What was printed by the run that failed, unless the ghost holds it, and then by those of replicas that passed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ran: Vec<PreCommandsRan>,
    },
}

/// Who ran pre-commands, and what they printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PreCommandsRan {
    pub node: NodeName,
    pub slot: Slot,
    /// When it was heard that they passed, or failed.
    pub at: Timestamp,
    /// One after the other: a line with the command and how long it took, then the last that it printed.
    pub output: String,
}

impl RolloutPreCommands {
    /// Who ran them, where it is kept.
    pub fn ran(&self) -> &[PreCommandsRan] {
        match self {
            Self::Passed { ran: Some(ran) } => std::slice::from_ref(ran),
            Self::EveryReplica { ran, .. } | Self::Failed { ran, .. } => ran,
            _ => &[],
        }
    }
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
    /// The number of the batch in which it is or was moved; absent: it was in none, or it was not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// That batch was a canary.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
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

    fn rollout(phase: RolloutPhase, nodes: Vec<RolloutNode>) -> Rollout {
        let summary = RolloutSummary {
            id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            application: "shop".parse().unwrap(),
            release: ReleaseKey { version: "2.0.0".parse().unwrap(), sha256: crate::ids::Digest([1; 32]) },
            from: None,
            phase,
            reason: None,
            by: "bucket".to_owned(),
            started_at: Timestamp(1),
            phase_since: Timestamp(1),
            finished_at: None,
            paused_by: None,
            aborted_by: None,
            left: None,
            progress: Progress::default(),
            waiting: Vec::new(),
        };
        let pre_commands = RolloutPreCommands::NotNeeded;
        Rollout { summary, pre_commands, strategy: None, batch: None, ghost: None, nodes }
    }

    fn node(name: &str, stage: NodeStage, batch: Option<u32>) -> RolloutNode {
        RolloutNode {
            node: name.parse().unwrap(),
            stage,
            in_batch: false,
            batch,
            canary: batch == Some(1),
            because: None,
            slots: Vec::new(),
        }
    }

    fn drawn(rollout: &Rollout) -> Vec<String> {
        let said = |group: Group<'_>| {
            let nodes: Vec<&str> = group.nodes.iter().map(|node| node.node.as_str()).collect();
            let settled = if group.is_settled() { " (settled)" } else { "" };
            format!("{}: {}{settled}", group.kind.title(rollout.summary.phase), nodes.join(" "))
        };
        rollout.groups().into_iter().map(said).collect()
    }

    #[test]
    fn nodes_are_drawn_by_batch_and_each_once() {
        let mut nodes = vec![
            node("a", NodeStage::Moved, Some(2)),
            node("b", NodeStage::Moving, Some(10)),
            node("c", NodeStage::Lost, Some(2)),
            node("d", NodeStage::Moved, Some(1)),
            node("e", NodeStage::Moved, Some(10)),
            node("f", NodeStage::Lost, None),
            node("g", NodeStage::ToCome, None),
            node("h", NodeStage::Failed, None),
        ];
        assert_eq!(
            drawn(&rollout(RolloutPhase::Running, nodes.clone())),
            [
                "Canary: d (settled)",
                "Batch 2: a c",
                "Batch 10: b e",
                "Left behind: h",
                "Lost: f",
                "To come: g"
            ]
        );
        assert_eq!(
            drawn(&rollout(RolloutPhase::Reverted, nodes.clone())),
            ["Canary: d (settled)", "Batch 2: a c", "Batch 10: b e", "Failed: h", "Lost: f", "Never came: g"]
        );
        assert_eq!(
            drawn(&rollout(RolloutPhase::Reverting, nodes.clone())),
            ["Back: a d e", "Going back: b", "Left behind: h", "Lost: c f", "Not yet back: g"]
        );
        for node in &mut nodes {
            node.batch = None;
        }
        assert_eq!(
            drawn(&rollout(RolloutPhase::Running, nodes)),
            ["Moved: a d e", "Moving: b", "Left behind: h", "Lost: c f", "To come: g"]
        );
    }

    #[test]
    fn the_batch_that_is_moved_now_is_not_settled_nor_is_a_second_canary_named_as_the_first() {
        let mut it = node("a", NodeStage::Moved, Some(3));
        it.in_batch = true;
        it.canary = true;
        assert_eq!(drawn(&rollout(RolloutPhase::Running, vec![it])), ["Batch 3, canary: a"]);
    }

    #[test]
    fn what_an_earlier_version_said_is_read() {
        let node: RolloutNode = serde_json::from_str(r#"{"node":"web-1","slots":[]}"#).unwrap();
        assert_eq!((node.stage, node.in_batch, node.batch), (NodeStage::ToCome, false, None));
        let passed: RolloutPreCommands = serde_json::from_str(r#"{"state":"passed"}"#).unwrap();
        assert_eq!(passed, RolloutPreCommands::Passed { ran: None });
        let own: RolloutPreCommands = serde_json::from_str(r#"{"state":"every-replica"}"#).unwrap();
        assert_eq!(own, RolloutPreCommands::EveryReplica { passed: 0, ran: Vec::new() });
    }
}
