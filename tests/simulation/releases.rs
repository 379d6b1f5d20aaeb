//! What is wrong with each release.

use proto::ids::{Digest, ReleaseKey};

/// As many as there are; 1 is good.
pub(crate) const RELEASES: u8 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Good,
    NeverReady,
    CrashesAtStart,
    CrashesLate,
    PreCommandsFail,
    CannotBeStaged,
}

/// "1.N.0".
pub(crate) fn release(number: u8) -> ReleaseKey {
    ReleaseKey { version: format!("1.{number}.0").parse().unwrap(), sha256: Digest([number; 32]) }
}

pub(crate) fn behaviour(release: &ReleaseKey) -> Behaviour {
    match release.sha256.0[0] {
        6 | 7 => Behaviour::NeverReady,
        8 => Behaviour::CrashesAtStart,
        9 => Behaviour::CrashesLate,
        10 => Behaviour::PreCommandsFail,
        11 => Behaviour::CannotBeStaged,
        _ => Behaviour::Good,
    }
}

pub(crate) fn is_good(release: &ReleaseKey) -> bool {
    behaviour(release) == Behaviour::Good
}

/// Whether a rollout of it has pre-commands to run.
pub(crate) fn has_pre_commands(release: &ReleaseKey) -> bool {
    release.sha256.0[0].is_multiple_of(2)
}

/// How many.
pub(crate) const PRE_COMMANDS: u32 = 2;
