//! Whom the kernel ends first when a host has no memory left: a replica, which is started again, and not those that start it.
//!
//! The wish is inherited by children, so whoever begins a program that is not ours takes it back.

/// Nearly never: -1000 would be never, also where it is the agent itself that leaks.
const SPARED: &str = "-900";
const AS_ANY: &str = "0";

/// For agent and keepers. Without the right to it everything stays as it is.
pub(crate) fn spare_me() {
    let _ = set(SPARED);
}

/// For a child that is about to become a program of others. Does as little as a signal handler may.
pub(crate) fn spare_me_no_more() {
    let _ = set(AS_ANY);
}

fn set(adjustment: &str) -> rustix::io::Result<()> {
    use rustix::fs::{Mode, OFlags, open};
    let file = open("/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, adjustment.as_bytes()).map(drop)
}
