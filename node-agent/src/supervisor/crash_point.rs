//! Places at which a test may kill the agent: every ledger write and every action. Nothing in a released binary.
//!
//! With the feature `crash-points`, in a build with debug assertions alone, `DEPLOYEX_CRASH_AT=NAME` kills the process
//! (SIGKILL, as nothing could be tidied up) at the first place of that name, and `DEPLOYEX_CRASH_COUNT=FILE` gathers the names
//! of all that were passed, a line each.

#[cfg(not(all(feature = "crash-points", debug_assertions)))]
pub(super) fn here(_: impl FnOnce() -> String) {}

#[cfg(not(all(feature = "crash-points", debug_assertions)))]
pub(super) const fn variant(_: &impl std::fmt::Debug) -> String {
    String::new()
}

#[cfg(all(feature = "crash-points", debug_assertions))]
pub(super) fn here(name: impl FnOnce() -> String) {
    use std::io::Write as _;
    use std::sync::OnceLock;
    static TOLD: OnceLock<(Option<String>, Option<String>)> = OnceLock::new();

    #[expect(clippy::disallowed_methods, reason = "how the test that enumerates them says which")]
    let told = || (std::env::var("DEPLOYEX_CRASH_AT").ok(), std::env::var("DEPLOYEX_CRASH_COUNT").ok());
    let (at, count) = TOLD.get_or_init(told);
    if at.is_none() && count.is_none() {
        return;
    }
    let name = name();
    if let Some(file) = count {
        let file = std::fs::File::options().create(true).append(true).open(file);
        let _ = file.and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()));
    }
    if at.as_ref() == Some(&name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// For a name: which variant of its enumeration a value is.
#[cfg(all(feature = "crash-points", debug_assertions))]
pub(super) fn variant(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
}
