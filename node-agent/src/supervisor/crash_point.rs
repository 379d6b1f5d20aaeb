//! Places at which a test may kill the agent: every ledger write and every action. Nothing in a released binary.
//!
//! With the feature `crash-points`, `DEPLOYEX_CRASH_AT=n` kills the process (SIGKILL, as nothing could be tidied up) at the
//! n-th place it passes, and `DEPLOYEX_CRASH_COUNT=file` writes down how many were passed.

#[cfg(not(feature = "crash-points"))]
pub(crate) const fn here() {}

#[cfg(feature = "crash-points")]
pub(crate) fn here() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let passed = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    #[expect(clippy::disallowed_methods, reason = "how the test that enumerates them says which")]
    let (at, count) = (std::env::var("DEPLOYEX_CRASH_AT"), std::env::var("DEPLOYEX_CRASH_COUNT"));
    if let Ok(file) = count {
        let _ = std::fs::write(file, passed.to_string());
    }
    if at.is_ok_and(|at| at.parse() == Ok(passed)) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
