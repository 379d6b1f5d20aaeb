//! The files of a release that a hot upgrade neither brings nor takes away: all outside of its libs, its `releases` and its
//! start script, such as overlays. Where another release has others of them, it has to be deployed in full.

use std::collections::BTreeMap;

/// By path, what tells one content from another.
pub type Beside = BTreeMap<String, String>;

/// Whether a hot upgrade leaves this file of a release as it is. `path` is relative to the release's root.
pub fn is_beside(path: &str, app: &str, version: &str) -> bool {
    let Some((folder, within)) = path.split_once('/') else {
        return is_left(path);
    };
    // The start script is exchanged where it has to be; the one for Windows starts nothing here. A boot script of relx has the
    // release's version in it, and starts nothing but the kernel and stdlib, which both have in the same version.
    let is_script = folder == "bin"
        && (within == app
            || within.strip_prefix(app).and_then(|it| it.strip_prefix('-')) == Some(version)
            || [".bat", ".boot"].into_iter().any(|end| within.ends_with(end)));
    is_left(folder) && !is_script
}

/// Of the release's root. Both have the same ERTS, or there is no hot upgrade.
fn is_left(folder: &str) -> bool {
    folder != "lib" && folder != "releases" && !folder.starts_with("erts-")
}

/// The first that `to` has and `from` has not, or not so, with how many more there are. What went does no harm.
pub(super) fn differs<'t>(from: &Beside, to: &'t Beside) -> Option<(&'t str, usize)> {
    let mut others = to.iter().filter(|(path, print)| from.get(*path) != Some(print));
    others.next().map(|(path, _)| (path.as_str(), others.count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libs_releases_and_start_scripts_are_looked_after_and_nothing_else() {
        for path in [
            "lib/demo-2/ebin/demo.app",
            "releases/COOKIE",
            "erts-13/bin/erl",
            "bin/demo",
            "bin/demo-2",
            "bin/demo.bat",
            "bin/start_clean.boot",
        ] {
            assert!(!is_beside(path, "demo", "2"), "{path}");
        }
        for path in
            ["bin", "bin/migrate", "bin/demo-migrate", "bin/demo/x", "etc/demo", "README", "library/x"]
        {
            assert!(is_beside(path, "demo", "2"), "{path}");
        }
    }

    #[test]
    fn what_is_new_or_other_is_told_and_what_went_is_not() {
        let beside = |files: &[(&str, &str)]| -> Beside {
            files.iter().map(|&(path, print)| (path.to_owned(), print.to_owned())).collect()
        };
        let old = beside(&[("bin/migrate", "1"), ("bin/server", "1"), ("etc/went", "1")]);
        assert_eq!(differs(&old, &beside(&[("bin/migrate", "1"), ("bin/server", "1")])), None);
        assert_eq!(differs(&old, &beside(&[("bin/migrate", "2")])), Some(("bin/migrate", 0)));
        let more = beside(&[("a", "1"), ("bin/migrate", "1"), ("bin/server", "2")]);
        assert_eq!(differs(&old, &more), Some(("a", 1)));
    }
}
