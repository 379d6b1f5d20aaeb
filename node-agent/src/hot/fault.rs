//! Why a hot upgrade cannot go on, and whether it could elsewhere.

use std::io;
use std::path::Path;

use crate::dist::connection::CallError;

/// A sentence for people, with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{said}")]
pub struct Fault {
    said: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Package,
    Here,
    Unanswered,
    Touched,
}

impl Fault {
    /// It would be so on every host.
    pub(super) fn package(said: impl Into<String>) -> Self {
        Self { said: said.into(), kind: Kind::Package }
    }

    /// It is so on this host, at this time.
    pub fn here(said: impl Into<String>) -> Self {
        Self { said: said.into(), kind: Kind::Here }
    }

    /// The node was changed in part, and nobody can say how to change that back.
    pub(super) fn touched(said: impl Into<String>) -> Self {
        Self { said: said.into(), kind: Kind::Touched }
    }

    /// Whether it would fail in the same way on every host.
    pub fn is_of_package(&self) -> bool {
        self.kind == Kind::Package
    }

    /// No answer came, in time or before the connection was lost: what was asked for may have been done, or not.
    pub fn is_unanswered(&self) -> bool {
        self.kind == Kind::Unanswered
    }

    /// What runs is not what it was, though it runs on.
    pub fn has_touched_what_runs(&self) -> bool {
        self.kind == Kind::Touched
    }

    /// For `map_err`: what was done to which path. A full disk has its own words.
    pub(super) fn io(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            let path = path.display();
            Self::here(match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    format!(
                        "no room left on the disk of {path} (No space left on device); make room there, then try again"
                    )
                }
                _ => format!("cannot {what} {path}: {error}"),
            })
        }
    }

    /// The same for the errors of `rustix`.
    pub(super) fn os(what: &str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::io(what, path)(errno.into())
    }

    /// Of a question to the node.
    pub(super) fn call(doing: &str, error: CallError) -> Self {
        match error {
            CallError::Raised { reason, .. } if says(&reason.to_string(), "undef") => Self::package(format!(
                "{doing}: the release lacks what hot upgrades need ({}); add sasl to its applications",
                reason.brief()
            )),
            CallError::Raised { reason, .. } if says(&reason.to_string(), "noproc") => {
                Self::package(format!(
                    "{doing}: the node's release handler does not run; add sasl to the release's applications"
                ))
            }
            lost @ (CallError::Lost(_) | CallError::TimedOut(_)) => {
                Self { said: format!("{doing}: {lost}"), kind: Kind::Unanswered }
            }
            other => Self::here(format!("{doing}: {other}")),
        }
    }
}

fn says(reason: &str, word: &str) -> bool {
    reason.split(|it: char| !it.is_ascii_alphanumeric() && it != '_').any(|it| it == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::connection::{Class, Lost};
    use crate::dist::term::Term;

    #[test]
    fn a_release_without_sasl_is_told_apart_from_a_lost_link() {
        let raised = |word| CallError::Raised {
            class: Class::Exit,
            reason: Term::Tuple(vec![Term::atom(word), Term::atom("x")]),
        };
        for word in ["noproc", "undef"] {
            let fault = Fault::call("unpacking", raised(word));
            assert!(fault.is_of_package() && fault.to_string().contains("sasl"), "{fault}");
        }
        let lost = Fault::call("unpacking", CallError::Lost(Lost::ClosedByPeer));
        assert!(!lost.is_of_package() && lost.is_unanswered());
        assert!(Fault::call("unpacking", CallError::TimedOut(std::time::Duration::ZERO)).is_unanswered());
    }

    #[test]
    fn a_full_disk_is_named() {
        let full = Fault::os("write", Path::new("/x"))(rustix::io::Errno::NOSPC);
        assert!(full.to_string().contains("no room left on the disk of /x"), "{full}");
        assert!(!full.is_of_package());
    }
}
