//! When it is the host that cannot: no file descriptor, no process, no memory, nothing to write to. What somebody has to do
//! about it is not in the system's words for it, so it is said here, and what was hindered is tried again soon: it is not at
//! fault.

use std::error::Error;
use std::fmt;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::accounts::AccountError;
use super::launch::LaunchPlanError;

/// What the host lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hindrance {
    /// This process may have no more open files.
    Files,
    /// The whole host may have no more.
    HostFiles,
    Processes,
    Memory,
    ReadOnly,
    /// In words of its own already.
    Other,
}

impl Hindrance {
    /// What is behind an error, somewhere in the chain of its causes. `None`: not the host.
    pub(super) fn behind(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(found) = Self::is(error) {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }

    fn is(error: &(dyn Error + 'static)) -> Option<Self> {
        let errno = error.downcast_ref::<io::Error>().and_then(Errno::from_io_error);
        if let Some(errno) = errno.or_else(|| error.downcast_ref::<Errno>().copied()) {
            return Self::of(errno);
        }
        // What somebody has to install or to make first.
        let missing = matches!(error.downcast_ref(), Some(LaunchPlanError::NoErlang { .. }))
            || matches!(
                error.downcast_ref(),
                Some(AccountError::NoUser { .. } | AccountError::NoGroup { .. })
            );
        missing.then_some(Self::Other)
    }

    fn of(errno: Errno) -> Option<Self> {
        match errno {
            Errno::MFILE => Some(Self::Files),
            Errno::NFILE => Some(Self::HostFiles),
            Errno::AGAIN => Some(Self::Processes),
            Errno::NOMEM => Some(Self::Memory),
            Errno::ROFS => Some(Self::ReadOnly),
            Errno::NOSPC | Errno::DQUOT | Errno::IO => Some(Self::Other),
            _ => None,
        }
    }
}

/// What to do, to be put behind the system's words; nothing where those say it.
impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files => {
                write!(f, ": this agent has no file descriptor left")?;
                if let Some(limit) = getrlimit(Resource::Nofile).current {
                    write!(f, " of {limit}")?;
                }
                write!(f, ", raise LimitNOFILE of its unit")
            }
            Self::HostFiles => write!(f, ": the host has no file descriptor left, raise fs.file-max"),
            Self::Processes => write!(
                f,
                ": no more processes may be started, raise TasksMax of the agent's unit (pids.max of its cgroup) or its \
                 user's limit (ulimit -u)"
            ),
            Self::Memory => write!(f, ": the host has no memory left"),
            Self::ReadOnly => {
                write!(
                    f,
                    ": it is mounted read-only, mount it for writing again; `dmesg` may say why it is so"
                )
            }
            Self::Other => Ok(()),
        }
    }
}

/// A connection to this host that failed for want of something of our own says nothing of who was to answer.
pub(super) fn is_ours(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::ADDRNOTAVAIL)
    )
}

#[cfg(test)]
mod tests {
    use super::super::acts::chain;
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write the ledger")]
    struct Wrapped(#[source] io::Error);

    fn of(errno: Errno) -> Wrapped {
        Wrapped(errno.into())
    }

    #[test]
    fn what_to_do_is_said_behind_what_happened() {
        for (errno, advice) in [
            (Errno::MFILE, ", raise LimitNOFILE of its unit"),
            (Errno::NFILE, ", raise fs.file-max"),
            (Errno::AGAIN, "raise TasksMax of the agent's unit"),
            (Errno::ROFS, "mount it for writing again"),
            (Errno::NOSPC, "No space left on device (os error 28)"),
            (Errno::NOENT, "No such file or directory (os error 2)"),
        ] {
            let said = chain(&of(errno));
            assert!(said.starts_with("cannot write the ledger: ") && said.contains(advice), "{said}");
        }
    }

    #[test]
    fn what_the_host_lacks_is_told_from_what_the_release_lacks() {
        assert_eq!(Hindrance::behind(&of(Errno::ROFS)), Some(Hindrance::ReadOnly));
        assert_eq!(Hindrance::behind(&of(Errno::NOENT)), None);
        let no_erlang = LaunchPlanError::NoErlang { path: "/bin".to_owned() };
        assert_eq!(Hindrance::behind(&no_erlang), Some(Hindrance::Other));
        assert_eq!(Hindrance::behind(&LaunchPlanError::Language), None);
        assert!(is_ours(&Errno::MFILE.into()) && !is_ours(&Errno::CONNREFUSED.into()));
    }
}
