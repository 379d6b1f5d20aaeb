//! What the machine says of itself for people to read later. Nothing is decided by it; its words are `supervisor::notes`' work.

use proto::ids::ReleaseKey;
use proto::state::ExitCause;

/// Something worth remembering, for the fleet's list of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    DeploymentStarted {
        release: ReleaseKey,
    },
    Deployed {
        release: ReleaseKey,
    },
    Ready {
        release: Option<ReleaseKey>,
    },
    Crashed {
        cause: ExitCause,
        restarts: u32,
    },
    /// `because`: this agent's own reason; `None`: somebody asked for it.
    Restarting {
        restarts: u32,
        because: Option<String>,
    },
    Stopped,
    CannotPrepare {
        release: ReleaseKey,
        error: String,
    },
    PreCommandFailed {
        release: ReleaseKey,
        error: String,
    },
    CannotStart {
        error: String,
    },
    /// Back to that release, on this agent's own account.
    FellBack {
        from: ReleaseKey,
        to: ReleaseKey,
        because: String,
    },
}

impl Note {
    /// Something went wrong that nobody asked for.
    pub fn is_bad(&self) -> bool {
        match self {
            Self::Crashed { .. }
            | Self::CannotPrepare { .. }
            | Self::PreCommandFailed { .. }
            | Self::Restarting { because: Some(_), .. }
            | Self::CannotStart { .. }
            | Self::FellBack { .. } => true,
            Self::DeploymentStarted { .. }
            | Self::Deployed { .. }
            | Self::Ready { .. }
            | Self::Restarting { because: None, .. }
            | Self::Stopped => false,
        }
    }
}
