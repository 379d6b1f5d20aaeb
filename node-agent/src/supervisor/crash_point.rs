//! Places at which a test may kill the agent: every ledger write and every action. Nothing in a released binary.
//!
//! With the feature `crash-points`, and in a build with debug assertions alone, `DEPLOYEX_CRASH_COUNT=FILE` gathers the names
//! of all places that are passed, a line each, and `DEPLOYEX_CRASH_AT=FILE` holds the names of those at which the process is
//! killed (SIGKILL, as nothing could be tidied up).

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
    static TOLD: OnceLock<(String, Option<String>)> = OnceLock::new();

    #[expect(clippy::disallowed_methods, reason = "how the test that enumerates them says which")]
    let variable = |name| std::env::var(name).ok();
    let at = || variable("DEPLOYEX_CRASH_AT").and_then(|file| std::fs::read_to_string(file).ok());
    let (at, count) = TOLD.get_or_init(|| (at().unwrap_or_default(), variable("DEPLOYEX_CRASH_COUNT")));
    if at.is_empty() && count.is_none() {
        return;
    }
    let name = name();
    if let Some(file) = count {
        let file = std::fs::File::options().create(true).append(true).open(file);
        let _ = file.and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()));
    }
    if at.lines().any(|it| it == name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// For a name: which variant of its enumeration a value is.
#[cfg(all(feature = "crash-points", debug_assertions))]
pub(super) fn variant(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_profile_gives_a_released_agent_crash_points() {
        let manifest = include_str!("../../../Cargo.toml");
        assert!(!manifest.contains("debug-assertions"), "a release with them could be killed from outside");
    }
}
