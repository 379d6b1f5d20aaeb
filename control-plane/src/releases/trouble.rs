//! Why a bucket's last word is not in force: how bad that is, and in which words it is told. Pure.

use std::fmt;

use proto::archive::Fault;
use proto::ids::{Digest, ReleaseKey, Version};
use proto::state::{FaultKind, Severity};

/// Each is told once, when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    NoDocument,
    /// There was one.
    DocumentGone {
        wish: ReleaseKey,
    },
    BadDocument {
        why: String,
    },
    NoTarball {
        version: Version,
    },
    /// As above, for longer than an upload takes.
    TarballMissing {
        version: Version,
    },
    TarballGone {
        version: Version,
    },
    Refused {
        version: Version,
        fault: Fault,
    },
    WrongHash {
        version: Version,
        written: Digest,
        found: Digest,
    },
    Republished {
        found: ReleaseKey,
    },
    Unreadable {
        why: String,
    },
    /// This program cannot read buckets of that kind.
    NoSource {
        adapter: &'static str,
    },
}

impl Trouble {
    /// The event's kind.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::NoDocument | Self::NoTarball { .. } => "release_awaited",
            Self::Republished { .. } => "release_republished",
            _ => "release_refused",
        }
    }

    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::NoDocument | Self::NoTarball { .. } => Severity::Info,
            Self::DocumentGone { .. }
            | Self::TarballMissing { .. }
            | Self::TarballGone { .. }
            | Self::Republished { .. }
            | Self::Unreadable { .. } => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// Whether it comes to an end by itself, as far as anybody can tell.
    pub(super) fn fault_kind(&self) -> FaultKind {
        match self {
            Self::NoDocument | Self::NoTarball { .. } => FaultKind::Waiting,
            _ => FaultKind::Broken,
        }
    }

    /// Something may come that nobody tells us of: look, less and less often.
    pub(super) fn is_wait(&self) -> bool {
        match self {
            Self::NoDocument
            | Self::DocumentGone { .. }
            | Self::NoTarball { .. }
            | Self::TarballMissing { .. }
            | Self::TarballGone { .. }
            | Self::Unreadable { .. }
            | Self::NoSource { .. } => true,
            Self::BadDocument { .. }
            | Self::Refused { .. }
            | Self::WrongHash { .. }
            | Self::Republished { .. } => false,
        }
    }

    /// Nothing but a change of the bucket changes what it means.
    pub(super) fn is_settled(&self) -> bool {
        // A person may ask for what was republished; what is awaited may be overdue, what is unreadable may be read.
        !matches!(self, Self::NoTarball { .. } | Self::Republished { .. } | Self::Unreadable { .. })
    }

    /// For people. `document` and `tarball` are the names in the bucket.
    pub(super) fn sentence<'a>(&'a self, app: &'a str, document: &'a str) -> impl fmt::Display + 'a {
        Sentence { trouble: self, app, document }
    }
}

struct Sentence<'a> {
    trouble: &'a Trouble,
    app: &'a str,
    document: &'a str,
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trouble, app, document } = *self;
        let tarball = |version: &Version| format!("dist/{app}/{app}-{version}.tar.gz");
        match trouble {
            Trouble::NoDocument => write!(f, "waiting for {document}"),
            Trouble::DocumentGone { wish } => {
                write!(f, "{document} is gone; {} stays, which it named last", wish.version)
            }
            Trouble::BadDocument { why } => write!(f, "{document} {why}"),
            Trouble::NoTarball { version } => write!(f, "waiting for {}", tarball(version)),
            Trouble::TarballMissing { version } => {
                write!(f, "{} is missing, although {document} names {version}: upload it", tarball(version))
            }
            Trouble::TarballGone { version } => {
                write!(f, "{} is gone: no further host can fetch it", tarball(version))
            }
            Trouble::Refused { version, fault } => write!(f, "{} was refused: {fault}", tarball(version)),
            Trouble::WrongHash { version, written, found } => {
                write!(f, "{} has the SHA-256 {found}, but {document} says {written}", tarball(version))
            }
            Trouble::Republished { found } => write!(
                f,
                "{} was republished with other content ({}); `deployex deploy {app} {}` deploys it",
                tarball(&found.version),
                found.sha256.short(),
                found.version
            ),
            Trouble::NoSource { adapter } => write!(
                f,
                "releases cannot be fetched from {adapter} by this version of DeployEx: use release_adapter local, a folder"
            ),
            Trouble::Unreadable { why } => write!(f, "the bucket cannot be read: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::archive::StreamFault;

    use super::*;

    fn key(version: &str, sha: u8) -> ReleaseKey {
        ReleaseKey { version: version.parse().unwrap(), sha256: Digest([sha; 32]) }
    }

    #[test]
    fn what_comes_by_itself_is_waited_for_and_all_else_is_for_a_person() {
        let version: Version = "1".parse().unwrap();
        let kind = |trouble: Trouble| (trouble.fault_kind(), trouble.severity());
        for waiting in [Trouble::NoDocument, Trouble::NoTarball { version: version.clone() }] {
            assert_eq!(kind(waiting), (FaultKind::Waiting, Severity::Info));
        }
        for broken in [
            Trouble::DocumentGone { wish: key("1", 1) },
            Trouble::BadDocument { why: String::new() },
            Trouble::TarballMissing { version: version.clone() },
            Trouble::TarballGone { version },
            Trouble::Republished { found: key("1", 1) },
            Trouble::Unreadable { why: String::new() },
            Trouble::NoSource { adapter: "s3" },
        ] {
            assert_eq!(broken.fault_kind(), FaultKind::Broken);
            assert_ne!(broken.severity(), Severity::Info);
        }
    }

    #[test]
    fn every_trouble_says_which_file_it_means() {
        let version: Version = "1.0".parse().unwrap();
        for trouble in [
            Trouble::NoTarball { version: version.clone() },
            Trouble::TarballGone { version: version.clone() },
            Trouble::TarballMissing { version: version.clone() },
            Trouble::Refused { version: version.clone(), fault: StreamFault::Truncated.into() },
            Trouble::Republished { found: key("1.0", 1) },
        ] {
            let text = trouble.sentence("demo", "versions/demo/prod/current.json").to_string();
            assert!(text.contains("dist/demo/demo-1.0.tar.gz"), "{text}");
        }
        for trouble in [
            Trouble::NoDocument,
            Trouble::DocumentGone { wish: key("1.0", 1) },
            Trouble::BadDocument { why: "is empty".into() },
        ] {
            let text = trouble.sentence("demo", "versions/demo/prod/current.json").to_string();
            assert!(text.contains("versions/demo/prod/current.json"), "{text}");
        }
    }
}
