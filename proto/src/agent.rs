//! What both ends of the agents' wire must agree on beyond the messages themselves: protocol versions, sizes, what a node's
//! certificate says, and how the contract's words become ours.
//!
//! A message is parsed once, where it arrives; behind that point nobody meets an empty version or an unknown number.

use crate::ids::{BadName, Digest, NodeId, ReleaseKey};
use crate::pb;
use crate::state::{ExitCause, HostLevel, Language, SlotState, StagingPhase, UpgradeState};

/// The protocol versions that this build speaks.
pub const PROTOCOL: std::ops::RangeInclusive<u32> = 1..=1;

/// No message on the wire is larger. A hello with [`MAX_SLOTS`] slots fits; a release never has to.
pub const MAX_MESSAGE: usize = 4 << 20;

/// One node holds no more slots: more than a host can run, and each has a task, a folder and files.
pub const MAX_SLOTS: usize = 1_024;

/// The largest piece of a stream ([`pb::StreamChunk`]).
pub const MAX_STREAM_CHUNK: usize = 64 << 10;

/// The largest answer that is one message over a stream, in pieces ([`pb::Evaluated`]): its capped texts, and room.
pub const MAX_ANSWER: usize = 256 << 10;

/// The largest piece of a release ([`pb::ReleaseChunk`]).
pub const MAX_RELEASE_CHUNK: usize = 256 << 10;

/// Certificates begin this long before they are issued, so that a host whose clock is behind can use its own at once.
pub const BACKDATED_SECONDS: i64 = 3600;

/// The extended key usage that only nodes' certificates have: 2.25.121620083180200342121923478079217840405, an arc of our
/// own, as the contents of its DER object identifier.
pub const NODE_KEY_USAGE: &[u8] = &[
    0x69, 0x81, 0xb6, 0xff, 0x96, 0xc3, 0xd2, 0x9c, 0xa2, 0xb0, 0x9d, 0x9a, 0xc7, 0xdb, 0xbc, 0x8c, 0xad,
    0x9e, 0xe2, 0x15,
];

/// Fields of [`pb::Application`] that an agent takes up with a deployment, or with a start that somebody asked for: they belong
/// to what runs. All others it heeds at once. Where there is no more live probe, that too counts at once.
pub const WITH_A_DEPLOYMENT: [&str; 11] = [
    "language",
    "env",
    "ports",
    "env_file",
    "run_as_user",
    "run_as_group",
    "cookie",
    "distribution",
    "ready",
    "ready_probes",
    "live_probes",
];

const NODE_URI: &str = "spiffe://deployex/node/";

/// What a node's certificate carries as its subject alternative name.
pub fn node_uri(node: NodeId) -> String {
    format!("{NODE_URI}{node}")
}

/// The node that a certificate's name speaks of; `None` where it speaks of something else.
pub fn node_of_uri(uri: &str) -> Option<NodeId> {
    uri.strip_prefix(NODE_URI)?.parse().ok()
}

/// The newest version that both speak; `None`: there is none.
pub fn negotiate(ours: std::ops::RangeInclusive<u32>, theirs: std::ops::RangeInclusive<u32>) -> Option<u32> {
    let newest = *ours.end().min(theirs.end());
    (newest >= *ours.start() && newest >= *theirs.start()).then_some(newest)
}

impl TryFrom<&pb::ReleaseKey> for ReleaseKey {
    type Error = BadName;

    fn try_from(key: &pb::ReleaseKey) -> Result<Self, BadName> {
        Ok(Self { version: key.version.parse()?, sha256: Digest::try_from(&key.sha256[..])? })
    }
}

impl From<&ReleaseKey> for pb::ReleaseKey {
    fn from(key: &ReleaseKey) -> Self {
        Self { version: key.version.to_string(), sha256: key.sha256.0.to_vec().into() }
    }
}

/// What an enumeration of the wire means to us; `None` for what we do not know, as from a newer peer.
impl pb::SlotState {
    pub fn word(self) -> Option<SlotState> {
        Some(match self {
            Self::Unspecified => return None,
            Self::Empty => SlotState::Empty,
            Self::Preparing => SlotState::Preparing,
            Self::Starting => SlotState::Starting,
            Self::Ready => SlotState::Ready,
            Self::Stable => SlotState::Stable,
            Self::Unready => SlotState::Unready,
            Self::Stopping => SlotState::Stopping,
            Self::BackingOff => SlotState::BackingOff,
            Self::Failed => SlotState::Failed,
        })
    }
}

impl pb::HostLevel {
    pub fn word(self) -> Option<HostLevel> {
        Some(match self {
            Self::Unspecified => return None,
            Self::Normal => HostLevel::Normal,
            Self::Warning => HostLevel::Warning,
            Self::Exceeded => HostLevel::Exceeded,
        })
    }
}

impl From<HostLevel> for pb::HostLevel {
    fn from(level: HostLevel) -> Self {
        match level {
            HostLevel::Normal => Self::Normal,
            HostLevel::Warning => Self::Warning,
            HostLevel::Exceeded => Self::Exceeded,
        }
    }
}

impl From<SlotState> for pb::SlotState {
    fn from(state: SlotState) -> Self {
        match state {
            SlotState::Empty => Self::Empty,
            SlotState::Preparing => Self::Preparing,
            SlotState::Starting => Self::Starting,
            SlotState::Ready => Self::Ready,
            SlotState::Stable => Self::Stable,
            SlotState::Unready => Self::Unready,
            SlotState::Stopping => Self::Stopping,
            SlotState::BackingOff => Self::BackingOff,
            SlotState::Failed => Self::Failed,
            SlotState::Unknown => Self::Unspecified,
        }
    }
}

impl pb::StagingPhase {
    pub fn word(self) -> Option<StagingPhase> {
        Some(match self {
            Self::Unspecified => return None,
            Self::Fetching => StagingPhase::Fetching,
            Self::Linking => StagingPhase::Linking,
            Self::PreCommands => StagingPhase::PreCommands,
            Self::Staged => StagingPhase::Staged,
            Self::Failed => StagingPhase::Failed,
        })
    }
}

impl From<StagingPhase> for pb::StagingPhase {
    fn from(phase: StagingPhase) -> Self {
        match phase {
            StagingPhase::Fetching => Self::Fetching,
            StagingPhase::Linking => Self::Linking,
            StagingPhase::PreCommands => Self::PreCommands,
            StagingPhase::Staged => Self::Staged,
            StagingPhase::Failed => Self::Failed,
        }
    }
}

impl pb::UpgradeState {
    pub fn word(self) -> Option<UpgradeState> {
        Some(match self {
            Self::Unspecified => return None,
            Self::Running => UpgradeState::Running,
            Self::Undoing => UpgradeState::Undoing,
            Self::Done => UpgradeState::Done,
            Self::Failed => UpgradeState::Failed,
        })
    }
}

impl pb::Language {
    pub fn word(self) -> Option<Language> {
        Some(match self {
            Self::Unspecified => return None,
            Self::Elixir => Language::Elixir,
            Self::Erlang => Language::Erlang,
            Self::Gleam => Language::Gleam,
        })
    }
}

impl From<Language> for pb::Language {
    fn from(language: Language) -> Self {
        match language {
            Language::Elixir => Self::Elixir,
            Language::Erlang => Self::Erlang,
            Language::Gleam => Self::Gleam,
        }
    }
}

impl From<ExitCause> for pb::last_exit::Cause {
    fn from(cause: ExitCause) -> Self {
        match cause {
            ExitCause::Code(code) => Self::Code(code),
            ExitCause::Signal(signal) => Self::Signal(signal),
            // Who knows no more is told what ended it.
            ExitCause::OutOfMemory(_) => Self::Signal(9),
            ExitCause::Unknown => Self::Unknown(true),
        }
    }
}

/// The picture of an application, in bytes.
pub const LARGEST_LOGO: usize = 128 << 10;

/// Which pictures are taken: the ending of the file's name, and what it is.
pub const LOGO_TYPES: [(&str, &str); 3] =
    [("svg", "image/svg+xml"), ("png", "image/png"), ("ico", "image/x-icon")];

/// What a stream for [`pb::ReadLogo`] carries, whole.
impl pb::Logo {
    pub fn to_bytes(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(self)
    }

    /// `None`: it is no such thing, or no picture that is taken.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let logo: Self = prost::Message::decode(bytes).ok()?;
        let is_taken = LOGO_TYPES.iter().any(|(_, it)| *it == logo.media_type);
        (is_taken && logo.data.len() <= LARGEST_LOGO).then_some(logo)
    }
}

/// What a stream for [`pb::Evaluate`] carries, whole.
impl pb::Evaluated {
    pub fn to_bytes(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(self)
    }

    /// `None`: it is no such thing.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        prost::Message::decode(bytes).ok()
    }
}

impl pb::LastExit {
    /// One that ended in this way, and nothing else said of it.
    pub fn of(cause: ExitCause) -> Self {
        let (out_of_memory, memory_limit_bytes) = match cause {
            ExitCause::OutOfMemory(limit) => (true, limit),
            ExitCause::Code(_) | ExitCause::Signal(_) | ExitCause::Unknown => (false, 0),
        };
        Self { cause: Some(cause.into()), out_of_memory, memory_limit_bytes, ..Self::default() }
    }
}

impl From<&pb::LastExit> for ExitCause {
    fn from(exit: &pb::LastExit) -> Self {
        match &exit.cause {
            _ if exit.out_of_memory => Self::OutOfMemory(exit.memory_limit_bytes),
            Some(pb::last_exit::Cause::Code(code)) => Self::Code(*code),
            Some(pb::last_exit::Cause::Signal(signal)) => Self::Signal(*signal),
            Some(pb::last_exit::Cause::Unknown(_)) | None => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_settle_on_the_newest_version_that_both_speak() {
        assert_eq!(negotiate(1..=3, 2..=5), Some(3));
        assert_eq!(negotiate(2..=5, 1..=3), Some(3));
        assert_eq!(negotiate(1..=1, 1..=1), Some(1));
        assert_eq!(negotiate(1..=1, 2..=3), None);
        assert_eq!(negotiate(4..=5, 1..=3), None);
    }

    #[test]
    fn a_node_is_known_by_the_name_in_its_certificate_only() {
        let node: NodeId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        assert_eq!(node_of_uri(&node_uri(node)), Some(node));
        for other in ["spiffe://deployex/app/myapp", "spiffe://deployex/node/", "https://deployex/node/x", ""]
        {
            assert_eq!(node_of_uri(other), None);
        }
    }

    #[test]
    fn words_survive_the_wire() {
        for state in SlotState::ALL.iter().filter(|state| **state != SlotState::Unknown) {
            assert_eq!(pb::SlotState::from(*state).word(), Some(*state));
        }
        for phase in StagingPhase::ALL {
            assert_eq!(pb::StagingPhase::from(*phase).word(), Some(*phase));
        }
        for level in HostLevel::ALL {
            assert_eq!(pb::HostLevel::from(*level).word(), Some(*level));
        }
        for language in Language::ALL {
            assert_eq!(pb::Language::from(*language).word(), Some(*language));
        }
        let of_memory = [ExitCause::OutOfMemory(0), ExitCause::OutOfMemory(2 << 30)];
        for cause in
            [ExitCause::Code(3), ExitCause::Signal(9), ExitCause::Unknown].into_iter().chain(of_memory)
        {
            assert_eq!(ExitCause::from(&pb::LastExit::of(cause)), cause);
        }
    }
}
