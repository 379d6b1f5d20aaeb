//! Why a release is not made to take another's place inside the running VM, in words for people.

use std::fmt;

/// What is said behind `full, because`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    Never,
    Gleam,
    /// Recorded by a version of DeployEx that did not look into packages.
    Unread {
        version: String,
    },
    /// What is wrong with a package as a whole.
    Package {
        version: String,
        fault: String,
    },
    SameVersion,
    Erts {
        brings: String,
        runs: String,
    },
    /// `kernel` and its like, which no running VM exchanges.
    Core {
        lib: String,
        from: String,
        to: String,
    },
    /// `release_handler` is part of it.
    NoSasl {
        version: String,
    },
    NoAppup {
        lib: String,
        direction: Direction,
        version: String,
        /// From, or back to, which it has one.
        has: Vec<String>,
        /// As many libs lack one beside this.
        others: usize,
    },
    BadAppup {
        lib: String,
        fault: String,
    },
    /// It lies in a lib of another version than it is for.
    OtherAppup {
        lib: String,
        of: String,
        to: String,
    },
    NewVm {
        lib: String,
    },
    Jellyfish {
        lib: String,
        from: String,
        to: String,
    },
    /// Nothing would be loaded.
    NothingNewer,
}

/// Which way an appup is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

/// More of them say nothing more.
const SHOWN: usize = 3;

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("deploy.hot_upgrade is never"),
            Self::Gleam => f.write_str("a Gleam shipment cannot be upgraded in the running VM"),
            Self::Unread { version } => {
                write!(f, "the package of {version} was recorded before packages were looked into")
            }
            Self::Package { version, fault } => write!(f, "the package of {version}: {fault}"),
            Self::SameVersion => f.write_str("it is the same version with other code"),
            Self::Erts { brings, runs } => write!(f, "it brings ERTS {brings}, what runs has {runs}"),
            Self::Core { lib, from, to } => {
                write!(f, "{lib} changes from {from} to {to}, which takes a new VM")
            }
            Self::NoSasl { version } => {
                write!(f, "{version} has no sasl, whose release_handler does the upgrade")
            }
            Self::NoAppup { lib, direction, version, has, others } => {
                let (way, their) = match direction {
                    Direction::Up => ("from", "one from"),
                    Direction::Down => ("back to", "one back to"),
                };
                write!(f, "lib {lib} has no appup {way} {version}")?;
                if !has.is_empty() {
                    let some = has.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
                    let more = if has.len() > SHOWN { ", …" } else { "" };
                    write!(f, ": it has {their} {some}{more}")?;
                }
                match others {
                    0 => Ok(()),
                    1 => f.write_str("; one more lib has none either"),
                    more => write!(f, "; {more} more libs have none either"),
                }
            }
            Self::BadAppup { lib, fault } => write!(f, "the appup of lib {lib} cannot be read: {fault}"),
            Self::OtherAppup { lib, of, to } => {
                write!(f, "the appup of lib {lib} is for {of}, and the package holds {to}")
            }
            Self::NewVm { lib } => write!(f, "the appup of lib {lib} asks for a new VM"),
            Self::Jellyfish { lib, from, to } => {
                write!(f, "jellyfish.json of lib {lib} is for {from} to {to}")
            }
            Self::NothingNewer => f.write_str("no lib has another version, so nothing would be loaded"),
        }
    }
}
