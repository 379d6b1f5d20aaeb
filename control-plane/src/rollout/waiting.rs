//! Why a plan does not move: named reasons, each of which reads as a sentence for operators.

use std::fmt;

use proto::ids::{AppName, NodeName, ReleaseKey, Slot};
use proto::state::SlotState;

/// One thing that is waited for. `Display` is what console and command line show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Its agent has not reported since it was told.
    ToBeTakenUp {
        node: NodeName,
        slot: Slot,
    },
    /// The slot is on its way and has that long to become stable; `None`: no limit.
    ToBecomeReady {
        node: NodeName,
        slot: Slot,
        state: SlotState,
        detail: String,
        left_ms: Option<u64>,
    },
    /// The release is being brought into what runs there.
    Upgrading {
        node: NodeName,
        slot: Slot,
        step: String,
    },
    /// Nothing but a hot upgrade is allowed, and there is none to it.
    HotUpgradeRequired {
        app: AppName,
        release: ReleaseKey,
        because: String,
    },
    /// It is ready and must stay so.
    ToStayReady {
        node: NodeName,
        slot: Slot,
        left_ms: u64,
    },
    /// Replacing or withdrawing a ready slot now would leave fewer than there must be.
    ForOthersFirst {
        node: NodeName,
        slot: Slot,
        others: Vec<Slot>,
    },
    /// Too many are missing elsewhere.
    ForOthersElsewhere {
        node: NodeName,
        slot: Slot,
        may_be_missing: u64,
    },
    /// It is one too many there, and goes once one more is ready elsewhere.
    ForSuccessor {
        node: NodeName,
        slot: Slot,
    },
    /// Its node is to be emptied, and others are missing now.
    ToDrain {
        node: NodeName,
        slot: Slot,
    },
    /// Told to stop.
    ToBeEmpty {
        node: NodeName,
        slot: Slot,
    },
    PreCommands {
        node: NodeName,
        slot: Slot,
    },
    /// Each replica runs them before its start.
    OwnPreCommands {
        node: NodeName,
        slot: Slot,
    },
    /// The node that runs the pre-commands is lost and no other can.
    PreCommandsLeader {
        node: NodeName,
    },
    /// Silent; nothing is decided from it yet.
    NodeSuspect {
        node: NodeName,
    },
    NodeLost {
        node: NodeName,
    },
    /// The release failed there, which is tolerated.
    NodeFailed {
        node: NodeName,
        because: String,
    },
    /// More were lost in the middle of their move than chance explains.
    TooManyLost {
        app: AppName,
        nodes: Vec<NodeName>,
        allowed: usize,
    },
    NoNode {
        app: AppName,
        why: NoNode,
    },
    /// The canary is stable, and has to stay so.
    Soak {
        left_ms: u64,
    },
    /// The canary is stable, and a person is to say whether the others follow.
    Promotion {
        app: AppName,
        canary: Vec<NodeName>,
    },
    BetweenBatches {
        left_ms: u64,
    },
    /// A person paused it.
    Paused {
        app: AppName,
        by: String,
    },
    /// The watch after stability.
    Watch {
        version: String,
        left_ms: u64,
    },
    Ghosted {
        app: AppName,
        release: ReleaseKey,
    },
    /// A newer release is wished while one that failed is being taken back.
    BackFirst {
        wanted: ReleaseKey,
        from: ReleaseKey,
    },
    /// Its nodes cannot be told of it.
    Untold {
        because: String,
    },
    /// It has passed a limit, and was started anew for that not long ago.
    Cooldown {
        node: NodeName,
        slot: Slot,
        because: String,
        left_ms: u64,
    },
    /// The wish was tried, failed and was taken back without being ghosted.
    TakenBack {
        app: AppName,
        release: ReleaseKey,
    },
}

/// Why there is no node for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoNode {
    /// None may run it.
    NotEnrolled,
    NotConnected,
    /// They are all cordoned or drained.
    KeptAway,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ToBeTakenUp { node, slot } => {
                write!(f, "slot {slot} on {node} has not yet taken up what it was told")
            }
            Self::ToBecomeReady { node, slot, state, detail, left_ms } => {
                write!(f, "slot {slot} on {node} {}", doing(*state))?;
                if !detail.is_empty() {
                    write!(f, " ({detail})")?;
                }
                match left_ms {
                    Some(left) => write!(f, "; it has {} left to become stable", span(*left)),
                    None => Ok(()),
                }
            }
            Self::Upgrading { node, slot, step } => {
                write!(f, "slot {slot} on {node} is being hot-upgraded, and is at the step {step}")
            }
            Self::HotUpgradeRequired { app, release, because } => write!(
                f,
                "{0} would be a full deployment, because {because}, and deploy.hot_upgrade is `require`; `deployex release \
                 check {app} {0}` says where",
                release.version
            ),
            Self::ToStayReady { node, slot, left_ms } => {
                write!(f, "slot {slot} on {node} must stay ready for {} more", span(*left_ms))
            }
            Self::ForOthersFirst { node, slot, others } => {
                write!(f, "slot {slot} on {node} stays as it is until {} ready", slots(others))
            }
            Self::ForOthersElsewhere { node, slot, may_be_missing: 0 } => {
                write!(
                    f,
                    "slot {slot} on {node} stays as it is: no replica of the application may be missing"
                )
            }
            Self::ForOthersElsewhere { node, slot, may_be_missing } => write!(
                f,
                "slot {slot} on {node} stays as it is: {may_be_missing} of the application may be missing at a time, and are"
            ),
            Self::ForSuccessor { node, slot } => {
                write!(f, "slot {slot} on {node} stays until one more replica is ready elsewhere")
            }
            Self::ToDrain { node, slot } => {
                write!(f, "slot {slot} on {node} is to be withdrawn once the others are there")
            }
            Self::ToBeEmpty { node, slot } => write!(f, "slot {slot} on {node} is being stopped"),
            Self::PreCommands { node, slot } => {
                write!(f, "slot {slot} on {node} runs the pre-commands; the others wait for them")
            }
            Self::OwnPreCommands { node, slot } => write!(f, "slot {slot} on {node} runs its pre-commands"),
            Self::PreCommandsLeader { node } => write!(
                f,
                "{node} was running the pre-commands and is lost; no other node is connected that could"
            ),
            Self::NodeSuspect { node } => write!(f, "{node} has been silent for a moment"),
            Self::NodeLost { node } => write!(f, "{node} is lost; it catches up when it returns"),
            Self::NodeFailed { node, because } => write!(f, "{node} is left behind: {because}"),
            Self::TooManyLost { app, nodes, allowed } => write!(
                f,
                "{} were lost while they were moved, and more than {allowed} stop the rest: it goes on when they are back \
                 or removed, or taken back with `deployex rollout abort {app}`",
                names(nodes)
            ),
            Self::NoNode { app, why: NoNode::NotEnrolled } => {
                write!(f, "no enrolled node may run {app}: enrol one, or change the labels it asks for")
            }
            Self::NoNode { app, why: NoNode::NotConnected } => {
                write!(f, "none of the nodes that may run {app} is connected")
            }
            Self::NoNode { app, why: NoNode::KeptAway } => {
                write!(
                    f,
                    "all nodes that may run {app} are cordoned or drained; `deployex node uncordon` opens one"
                )
            }
            Self::Soak { left_ms } => write!(f, "the canary must stay stable for {} more", span(*left_ms)),
            Self::Promotion { app, canary } => write!(
                f,
                "the canary on {} is stable; `deployex rollout promote {app}` lets the others follow, `deployex rollout abort \
                 {app}` takes it back",
                names(canary)
            ),
            Self::BetweenBatches { left_ms } => {
                write!(f, "the next batch begins in {}", span(*left_ms))
            }
            Self::Paused { app, by } => {
                write!(
                    f,
                    "{by} paused it: no further slot is told the release until `deployex rollout resume {app}`"
                )
            }
            Self::Watch { version, left_ms } => {
                write!(f, "{version} is stable and is watched for {} more", span(*left_ms))
            }
            Self::Ghosted { app, release } => write!(
                f,
                "{0} failed before and is not deployed again; `deployex ghosted clear {app} {0}` allows it",
                release.version
            ),
            Self::BackFirst { wanted, from } => {
                write!(f, "{} is rolled out once all is back on {}", wanted.version, from.version)
            }
            Self::Untold { because } => {
                write!(f, "{because}; until it can, what runs stays as it is and nothing new is deployed")
            }
            Self::Cooldown { node, slot, because, left_ms } => write!(
                f,
                "slot {slot} on {node} has passed a limit ({because}) and was started anew not long ago; once more in {} at the \
                 earliest",
                span(*left_ms)
            ),
            Self::TakenBack { app, release } => write!(
                f,
                "{0} was tried and taken back; `deployex deploy {app} {0}` tries it again",
                release.version
            ),
        }
    }
}

fn names(nodes: &[NodeName]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn doing(state: SlotState) -> &'static str {
    match state {
        SlotState::Empty => "has nothing to run yet",
        SlotState::Preparing => "is preparing",
        SlotState::Starting => "is starting",
        SlotState::Ready | SlotState::Stable => "is ready",
        SlotState::Unready => "runs and is not ready",
        SlotState::Stopping => "is stopping what ran there",
        SlotState::BackingOff => "crashed and waits for its next start",
        SlotState::Failed => "cannot go on",
        SlotState::Unknown => "has not reported",
    }
}

fn slots(slots: &[Slot]) -> String {
    let mut numbers: Vec<String> = slots.iter().map(Slot::to_string).collect();
    match (numbers.pop(), numbers.len()) {
        (None, _) => "the others are".to_owned(),
        (Some(only), 0) => format!("slot {only} is"),
        (Some(last), _) => format!("slots {} and {last} are", numbers.join(", ")),
    }
}

/// A duration as people say it, rounded up: what is left is never "0 s".
pub(super) fn span(millis: u64) -> String {
    let seconds = millis.div_ceil(1_000).max(1);
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, 0) => format!("{m} min"),
        (0, m, _) if m >= 5 => format!("{} min", m + 1),
        (0, m, s) => format!("{m} min {s} s"),
        (h, 0, _) => format!("{h} h"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_as_people_say_them() {
        let cases = [
            (0, "1 s"),
            (17_100, "18 s"),
            (60_000, "1 min"),
            (61_000, "1 min 1 s"),
            (599_000, "10 min"),
            (3_600_000, "1 h"),
            (5_400_000, "1 h 30 min"),
        ];
        for (millis, text) in cases {
            assert_eq!(span(millis), text);
        }
    }

    #[test]
    fn a_slot_that_must_stay_ready_says_for_how_long() {
        let waiting = Waiting::ToStayReady {
            node: "node-3".parse().unwrap(),
            slot: "2".parse().unwrap(),
            left_ms: 18_000,
        };
        assert_eq!(waiting.to_string(), "slot 2 on node-3 must stay ready for 18 s more");
    }
}
