//! Whether a program may be built without the console. Used by `build.rs`, and here only so that it is tested.

/// Said by cargo when the build ends.
const REFUSED: &str = "web/dist is missing, so this release of deployex would have no console: build it first, `cargo xtask web`";

/// While one works on the rest, a page says how to build it; what is given to others is whole.
pub(super) fn is_needed(profile: &str) -> bool {
    profile == "release"
}

/// `profile` is cargo's variable `PROFILE`.
pub(super) fn check(profile: &str, is_built: bool) -> Result<(), &'static str> {
    if is_needed(profile) && !is_built { Err(REFUSED) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_without_the_console_is_refused_with_the_command_that_builds_it() {
        assert!(check("release", false).unwrap_err().contains("cargo xtask web"));
        assert_eq!(check("release", true), Ok(()));
        assert_eq!(check("debug", false), Ok(()));
    }
}
