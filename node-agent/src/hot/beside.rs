//! What a release brings beside its libraries and its `releases`: overlays, scripts, settings. A hot upgrade lays what is new or
//! changed of it, as a full deployment would; what went stays, and does no harm.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader};

use rustix::fs::FileType;

use super::folder::Folder;
use super::{Fault, Site};

/// Folders within folders.
const DEPTH: usize = 30;
/// A release has some dozen of such files, and each is written down before it is laid.
const MOST: usize = 10_000;

/// Paths of files, links and whole folders that `incoming` has and `root` has not, or not so.
pub(super) fn changed(site: &Site, root: &Folder, incoming: &Folder) -> Result<Vec<String>, Fault> {
    let mut paths = Vec::new();
    for name in incoming.names()? {
        let text = named(&name)?;
        // Words of our own.
        if !text.starts_with(".deployex") {
            compare(site, (incoming, root), text, text, &mut paths)?;
        }
    }
    Ok(paths)
}

fn named(name: &OsStr) -> Result<&str, Fault> {
    name.to_str().ok_or_else(|| {
        Fault::package(format!("{} is no name in UTF-8, of which none is laid", name.to_string_lossy()))
    })
}

/// Whether it is looked after elsewhere, or has nothing to do with what runs. `path` is relative to the release's root.
fn is_elsewhere(path: &str, site: &Site) -> bool {
    let top = path.split('/').next().unwrap_or_default();
    // Both have the same ERTS, or there is no hot upgrade.
    if matches!(top, "lib" | "releases") || top.starts_with("erts-") {
        return true;
    }
    // The start script is exchanged where it has to be; the one for Windows starts nothing here.
    let Some(name) = path.strip_prefix("bin/") else { return false };
    let version = name.strip_prefix(site.app.as_str()).and_then(|it| it.strip_prefix('-'));
    name == site.app || version == Some(&site.to) || name.strip_suffix(".bat") == Some(&site.app)
}

fn compare(
    site: &Site,
    (incoming, root): (&Folder, &Folder),
    name: &str,
    path: &str,
    paths: &mut Vec<String>,
) -> Result<(), Fault> {
    if is_elsewhere(path, site) {
        return Ok(());
    }
    let Some((new, mode)) = incoming.kind(name)? else { return Ok(()) };
    let is_same = match root.kind(name)? {
        Some((old, old_mode)) if old == new => match new {
            FileType::Directory if path.matches('/').count() < DEPTH => {
                let (incoming, root) = (incoming.enter(name)?, root.enter(name)?);
                for inner in incoming.names()? {
                    let inner = named(&inner)?;
                    compare(site, (&incoming, &root), inner, &format!("{path}/{inner}"), paths)?;
                }
                true
            }
            FileType::RegularFile => {
                mode & 0o111 == old_mode & 0o111 && is_same_file(incoming, root, name.as_ref())?
            }
            FileType::Symlink => incoming.target(name)? == root.target(name)?,
            _ => false,
        },
        _ => false,
    };
    if !is_same {
        paths.push(path.to_owned());
    }
    if paths.len() > MOST {
        return Err(Fault::package(format!(
            "more than {MOST} files outside of lib and releases are new or changed in {}; deploy it in full",
            site.to
        )));
    }
    Ok(())
}

/// In pieces: an overlay may be as large as a release.
fn is_same_file(one: &Folder, other: &Folder, name: &OsStr) -> Result<bool, Fault> {
    let (Some(ours), Some(theirs)) = (one.file(name)?, other.file(name)?) else { return Ok(false) };
    let length = |file: &File, folder: &Folder| {
        file.metadata().map(|it| it.len()).map_err(Fault::io("look at", &folder.path(name)))
    };
    if length(&ours, one)? != length(&theirs, other)? {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (BufReader::new(ours), BufReader::new(theirs));
    loop {
        let here = ours.fill_buf().map_err(Fault::io("read", &one.path(name)))?;
        let there = theirs.fill_buf().map_err(Fault::io("read", &other.path(name)))?;
        let both = here.len().min(there.len());
        if both == 0 {
            return Ok(here.len() == there.len());
        }
        if here[..both] != there[..both] {
            return Ok(false);
        }
        ours.consume(both);
        theirs.consume(both);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use proto::state::Language;

    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn what_is_new_or_changed_is_found_and_nothing_that_is_looked_after_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let (root, incoming) = (folder.path().join("current"), folder.path().join("new"));
        let [app, from, to] = ["demo", "1", "2"].map(str::to_owned);
        let (language, owner) = (Language::Elixir, None);
        let site = Site { root: root.clone(), incoming: incoming.clone(), app, language, from, to, owner };
        let long = "same".repeat(10_000);
        for (path, old, new) in [
            ("bin/demo", "a", "b"),
            ("bin/demo.bat", "a", "b"),
            ("bin/migrate", "same", "same"),
            ("erts-13/bin/erl", "a", "b"),
            ("lib/demo-2/ebin/demo.app", "", "new"),
            ("releases/COOKIE", "a", "b"),
            ("etc/a/b.exs", "same", "same"),
            ("etc/long", &long, &long),
        ] {
            put(&root, path, old);
            put(&incoming, path, new);
        }
        put(&incoming, "bin/demo-2", "its own");
        put(&incoming, ".deployex-release", "ours");
        put(&root, "bin/went", "no matter");
        let look = || {
            let open = |path: &Path| Folder::open(path).unwrap();
            let mut paths = changed(&site, &open(&root), &open(&incoming)).unwrap();
            paths.sort();
            paths
        };
        assert_eq!(look(), Vec::<String>::new());
        put(&incoming, "bin/migrate", "other");
        put(&incoming, "bin/demo-migrate", "new");
        put(&incoming, "etc/a/b.exs", "othe");
        put(&incoming, "etc/long", &format!("{}SAME", &long[4..]));
        put(&incoming, "new/x/y", "");
        put(&incoming, "VERSION", "2");
        for (root, target) in [(&root, "bin/migrate"), (&incoming, "bin/demo")] {
            symlink(target, root.join("link")).unwrap();
            put(root, "etc/run", "same");
        }
        fs::set_permissions(incoming.join("etc/run"), fs::Permissions::from_mode(0o755)).unwrap();
        let all = [
            "VERSION",
            "bin/demo-migrate",
            "bin/migrate",
            "etc/a/b.exs",
            "etc/long",
            "etc/run",
            "link",
            "new",
        ];
        assert_eq!(look(), all);
    }
}
