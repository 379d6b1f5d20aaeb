//! What is wrong with each release, and with the hot upgrades that lead to it.

use control_plane::rollout::simulation;
use node_agent::replica::Step;
use proto::hot_upgrade::Package;
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

/// What becomes of a hot upgrade from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrading {
    Works,
    /// On any host.
    Fails {
        at: Step,
    },
    /// The virtual machine does not outlive it.
    EndsTheMachine {
        at: Step,
    },
}

/// Between some it is not to be had, between others it fails: before it changes anything, at the install, or by the end of what
/// runs.
pub(crate) fn upgrading(from: &ReleaseKey, to: &ReleaseKey) -> Upgrading {
    let odd = !from.sha256.0[0].is_multiple_of(2);
    match to.sha256.0[0] {
        _ if !leads(from, to) => Upgrading::Fails { at: Step::Relup },
        4 if odd => Upgrading::Fails { at: Step::Check },
        5 if odd => Upgrading::Fails { at: Step::Install },
        12 if odd => Upgrading::EndsTheMachine { at: Step::Install },
        _ => Upgrading::Works,
    }
}

/// Whether the packages say that there is a way.
pub(crate) fn leads(from: &ReleaseKey, to: &ReleaseKey) -> bool {
    from != to && has_other_runtime(from) == has_other_runtime(to)
}

fn has_other_runtime(release: &ReleaseKey) -> bool {
    release.sha256.0[0] == 3
}

pub(crate) fn package(release: &ReleaseKey) -> Package {
    let package = simulation::package(release);
    if has_other_runtime(release) { Package { erts: "14.2".to_owned(), ..package } } else { package }
}
