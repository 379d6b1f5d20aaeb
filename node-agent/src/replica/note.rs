//! What the machine says of itself for people to read later. Nothing is decided by it; its words are `supervisor::notes`' work.

use proto::ids::ReleaseKey;
use proto::state::ExitCause;

use super::Step;

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
    UpgradeStarted {
        from: ReleaseKey,
        to: ReleaseKey,
    },
    /// The process goes on as the new release.
    Upgraded {
        from: ReleaseKey,
        to: ReleaseKey,
        /// Milliseconds.
        took: u64,
    },
    UpgradeFailed {
        from: ReleaseKey,
        to: ReleaseKey,
        step: Step,
        because: String,
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
            | Self::UpgradeFailed { .. }
            | Self::FellBack { .. } => true,
            Self::DeploymentStarted { .. }
            | Self::Deployed { .. }
            | Self::Ready { .. }
            | Self::UpgradeStarted { .. }
            | Self::Upgraded { .. }
            | Self::Restarting { because: None, .. }
            | Self::Stopped => false,
        }
    }
}
