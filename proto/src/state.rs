//! The words for states that more than one wire carries: what a slot does, how a process ended, how a rollout stands.
//!
//! The gRPC contract has its own enumerations for some of them; `agent.rs` translates. What a state looks like on a
//! screen is the console's business, save that [`Tone`] says here, once, which colour family each belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum $type {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant),+
        }

        impl $type {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The one word for it, as in JSON, the command line and the console.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|it| it.word() == word)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

words! {
    /// How loudly a state speaks.
    Tone { Ok = "ok", Moving = "moving", Waiting = "waiting", Bad = "bad", Off = "off" }
}

words! {
    /// Where a figure of a host stands: below its limits, at the first, or at the one where a replica is restarted.
    HostLevel { Normal = "normal", Warning = "warning", Exceeded = "exceeded" }
}

words! {
    /// What of a virtual machine is watched for its limit.
    VmFigure { Atom = "atom", Process = "process", Port = "port", Memory = "memory" }
}

words! {
    /// What a slot does now, as its agent last said.
    SlotState {
        /// Nothing runs and nothing is wanted.
        Empty = "empty",
        /// Nothing runs yet: its release is being brought, or its turn has not come.
        Preparing = "preparing",
        /// A process was asked for, or runs and has not been ready.
        Starting = "starting",
        /// Its check passes.
        Ready = "ready",
        /// Ready for `stable_after_ms` without a break.
        Stable = "stable",
        /// Was ready; its check fails now.
        Unready = "unready",
        Stopping = "stopping",
        /// Waits for its next start after a crash.
        BackingOff = "backing-off",
        /// Cannot go on without a person or a new assignment.
        Failed = "failed",
        /// Its node is not connected: what it did last is not what it does now.
        Unknown = "unknown",
    }
}

impl SlotState {
    pub fn tone(self) -> Tone {
        match self {
            Self::Ready | Self::Stable => Tone::Ok,
            Self::Preparing | Self::Starting | Self::Stopping => Tone::Moving,
            Self::Unready | Self::Unknown => Tone::Waiting,
            Self::BackingOff | Self::Failed => Tone::Bad,
            Self::Empty => Tone::Off,
        }
    }

    /// Takes traffic.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Ready | Self::Stable)
    }
}

words! {
    /// How far a release has come into a slot's `new` folder.
    StagingPhase {
        Fetching = "fetching", Linking = "linking", PreCommands = "pre-commands", Staged = "staged", Failed = "failed",
    }
}

words! {
    /// How far a hot upgrade is.
    UpgradeState { Running = "running", Undoing = "undoing", Done = "done", Failed = "failed" }
}

words! {
    /// Whether a node is held by a session.
    Liveness {
        Up = "up",
        /// Silent for longer than one heartbeat; nothing is decided from it.
        Suspect = "suspect",
        Lost = "lost",
    }
}

words! {
    /// Whether a person keeps replicas away from a node.
    Service {
        Open = "open",
        /// It keeps what it has, which follows rollouts, and is given no replica more.
        Cordoned = "cordoned",
        /// What it has is withdrawn, little by little.
        Draining = "draining",
    }
}

#[expect(clippy::derivable_impls, reason = "the macro derives the same for all of its words")]
impl Default for Service {
    fn default() -> Self {
        Self::Open
    }
}

words! {
    /// What an application's programs are written in, which decides how they are started.
    Language { Elixir = "elixir", Erlang = "erlang", Gleam = "gleam" }
}

words! {
    /// How a new release takes over from the old one on a node.
    Strategy {
        /// On a spare slot first: never fewer ready than before, for one extra start per host.
        StartFirst = "start_first",
        /// In place, one slot at a time.
        StopFirst = "stop_first",
    }
}

words! {
    /// What it means that a bucket's last word is not in force.
    FaultKind {
        /// Something is still to come, and comes by itself.
        Waiting = "waiting",
        /// A person has to mend it.
        Broken = "broken",
    }
}

words! {
    /// How a rollout stands.
    RolloutPhase {
        /// Waits for its first step.
        Pending = "pending",
        Running = "running",
        /// Every slot is stable on the new release; a crash loop would still revert it.
        Watching = "watching",
        Reverting = "reverting",
        /// Stood its watch.
        Done = "done",
        Reverted = "reverted",
        /// A newer wish took its place.
        Superseded = "superseded",
        /// Its release failed and there was none to go back to.
        Failed = "failed",
    }
}

impl RolloutPhase {
    /// Slots are still to be told the release.
    pub fn moves(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }

    /// Nothing will be done for it any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Reverted | Self::Superseded | Self::Failed)
    }

    pub fn tone(self) -> Tone {
        match self {
            Self::Done | Self::Watching => Tone::Ok,
            Self::Running => Tone::Moving,
            Self::Pending => Tone::Waiting,
            Self::Reverting | Self::Reverted | Self::Failed => Tone::Bad,
            Self::Superseded => Tone::Off,
        }
    }
}

words! {
    /// Where a node stands in a rollout.
    NodeStage {
        /// Its turn has not come.
        ToCome = "to-come",
        Moving = "moving",
        /// All of it is stable on what the rollout moves to.
        Moved = "moved",
        /// The release failed there, which is tolerated: it stays on what it had.
        Failed = "failed",
        /// It is not connected, and catches up when it returns.
        Lost = "lost",
    }
}

#[expect(clippy::derivable_impls, reason = "the macro derives the same for all of its words")]
impl Default for NodeStage {
    fn default() -> Self {
        Self::ToCome
    }
}

impl NodeStage {
    pub fn tone(self) -> Tone {
        match self {
            Self::ToCome => Tone::Off,
            Self::Moving => Tone::Moving,
            Self::Moved => Tone::Ok,
            Self::Failed => Tone::Bad,
            Self::Lost => Tone::Waiting,
        }
    }

    /// Of a rollout that is over.
    pub fn in_the_end(self) -> &'static str {
        match self {
            Self::ToCome => "never came",
            Self::Moving => "under way",
            Self::Moved | Self::Failed | Self::Lost => self.word(),
        }
    }

    /// The end of a sentence that began with the node and `is`.
    pub fn words(self) -> &'static str {
        match self {
            Self::ToCome => "to come",
            Self::Failed => "left behind",
            Self::Moving | Self::Moved | Self::Lost => self.word(),
        }
    }
}

words! {
    /// How much an event matters.
    Severity { Info = "info", Warning = "warning", Error = "error" }
}

words! {
    /// What a person or token may do: each role may do all that the ones before it may.
    Role { Viewer = "viewer", Operator = "operator", Admin = "admin" }
}

/// How a process ended. Status 0 does not mean that anybody asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase", tag = "cause", content = "value")]
pub enum ExitCause {
    Code(i32),
    Signal(i32),
    /// Its keeper was gone when it ended, so nobody was told.
    Unknown,
    /// By the kernel, for want of memory: the limit that it went over, in bytes; 0: its host had none left.
    #[serde(rename = "out-of-memory")]
    OutOfMemory(u64),
}

/// In the largest unit that it fills, to a tenth.
fn memory(bytes: u64) -> String {
    let (unit, name) = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        .into_iter()
        .find(|it| bytes >= it.0)
        .unwrap_or((1_u64, "bytes"));
    let (bytes, unit) = (u128::from(bytes), u128::from(unit));
    let tenths = (bytes * 10 + unit / 2) / unit;
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        rest => format!("{}.{rest} {name}", tenths / 10),
    }
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(9) => f.write_str("signal 9 (SIGKILL)"),
            Self::Signal(11) => f.write_str("signal 11 (SIGSEGV)"),
            Self::Signal(15) => f.write_str("signal 15 (SIGTERM)"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown exit"),
            Self::OutOfMemory(0) => f.write_str("killed by the kernel: its host ran out of memory"),
            Self::OutOfMemory(limit) => {
                write!(f, "killed by the kernel: it went over its memory limit of {}", memory(*limit))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_json_are_the_same() {
        for state in SlotState::ALL {
            assert_eq!(serde_json::to_string(state).unwrap(), format!("\"{}\"", state.word()));
            assert_eq!(SlotState::from_word(state.word()), Some(*state));
        }
    }

    #[test]
    fn an_end_for_want_of_memory_says_whose_and_survives_its_json() {
        let said = |bytes| ExitCause::OutOfMemory(bytes).to_string();
        assert_eq!(said(2 << 30), "killed by the kernel: it went over its memory limit of 2 GiB");
        assert!(said(1_610_612_736).ends_with("limit of 1.5 GiB") && said(300 << 20).ends_with("300 MiB"));
        assert_eq!(said(0), "killed by the kernel: its host ran out of memory");
        let json = serde_json::to_string(&ExitCause::OutOfMemory(7)).unwrap();
        assert_eq!(json, r#"{"cause":"out-of-memory","value":7}"#);
        assert_eq!(serde_json::from_str::<ExitCause>(&json).unwrap(), ExitCause::OutOfMemory(7));
    }

    #[test]
    fn roles_are_ordered_by_what_they_may() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
    }
}
