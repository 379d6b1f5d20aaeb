//! The signals that come to a keeper: none of those that end other programs ends it, and of children that ended it hears by a
//! descriptor.
//!
//! Where a host goes down, or a slice or scope is stopped, SIGTERM comes to a keeper and its program in the same moment. The
//! keeper goes when its program has ended: what that prints until then, and how it ends, is what it is there for.
//!
//! The signals are held back, not ignored: what is ignored stays ignored in whatever is executed, and nobody could see to
//! that without `unsafe`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Asked of everybody in a session, a group or a slice at once.
const UNHEARD: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

pub(super) struct Signals {
    children: SignalFd,
}

impl Signals {
    /// From now on, for this process, which has one thread.
    pub(super) fn hold_back() -> io::Result<Self> {
        UNHEARD.into_iter().chain([Signal::SIGCHLD]).collect::<SigSet>().thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self { children: SignalFd::with_flags(&Signal::SIGCHLD.into(), flags)? })
    }

    /// Readable once a child has ended since [`Self::hear`].
    pub(super) fn of_children(&self) -> BorrowedFd<'_> {
        self.children.as_fd()
    }

    /// To be called before the children are taken up. However many have ended, there is one signal.
    pub(super) fn hear(&self) {
        let _ = self.children.read_signal();
    }
}

/// For a child that is about to become a program of others. What came for it meanwhile comes now.
pub(super) fn let_through() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}
