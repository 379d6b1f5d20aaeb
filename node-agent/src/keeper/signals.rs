//! The signals that come to a keeper: none of those that end other programs ends it.
//!
//! Where a host goes down, or a slice or scope is stopped, SIGTERM comes to a keeper and its program in the same moment. The
//! keeper goes when its program has ended: what that prints until then, and how it ends, is what it is there for.
//!
//! The signals are held back, not ignored: what is ignored stays ignored in whatever is executed, and nobody could see to
//! that without `unsafe`.

use std::io;

use nix::sys::signal::{SigSet, Signal};

/// Asked of everybody in a session, a group or a slice at once.
const UNHEARD: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// From now on, for this process, which has one thread.
pub(super) fn hold_back() -> io::Result<()> {
    let held: SigSet = UNHEARD.into_iter().collect();
    Ok(held.thread_block()?)
}

/// For a child that is about to become a program of others. What came for it meanwhile comes now.
pub(super) fn let_through() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}
