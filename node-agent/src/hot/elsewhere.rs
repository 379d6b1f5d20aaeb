//! What a release brings beside its libraries and its `releases/VERSION`: overlays, scripts. A hot upgrade lays none of it, and a
//! restart would go on with the old ones, so it has to be what is there already.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader};

use proto::hot_upgrade::is_beside;
use rustix::fs::FileType;

use super::folder::Folder;
use super::{Fault, Site};

/// Folders within folders.
const DEPTH: usize = 32;

pub(super) fn is_the_same(site: &Site, root: &Folder, incoming: &Folder) -> Result<(), Fault> {
    for name in incoming.names()? {
        let text = name.to_string_lossy();
        // Words of our own.
        if text.starts_with(".deployex") {
            continue;
        }
        compare(site, (incoming, root), &name, &text, 0)?;
    }
    Ok(())
}

fn compare(
    site: &Site,
    (incoming, root): (&Folder, &Folder),
    name: &OsStr,
    path: &str,
    depth: usize,
) -> Result<(), Fault> {
    let other = || {
        Fault::package(format!(
            "{path} is new or changed in {}, and outside of lib and releases, where no hot upgrade brings anything; \
             deploy the release in full",
            site.to
        ))
    };
    if !is_beside(path, &site.app, &site.to) {
        return Ok(());
    }
    let Some((new, _)) = incoming.kind(name)? else { return Ok(()) };
    let old = root.kind(name)?.map(|(kind, _)| kind);
    if depth > DEPTH || old != Some(new) {
        return Err(other());
    }
    match new {
        FileType::Directory => {
            let (incoming, root) = (incoming.enter(name)?, root.enter(name)?);
            for inner in incoming.names()? {
                let path = format!("{path}/{}", inner.to_string_lossy());
                compare(site, (&incoming, &root), &inner, &path, depth + 1)?;
            }
            Ok(())
        }
        FileType::RegularFile if !is_same_file(incoming, root, name)? => Err(other()),
        FileType::Symlink if incoming.target(name)? != root.target(name)? => Err(other()),
        _ => Ok(()),
    }
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
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use proto::state::Language;

    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn what_is_not_laid_has_to_be_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (root, incoming) = (folder.path().join("current"), folder.path().join("new"));
        let [app, from, to] = ["demo", "1", "2"].map(str::to_owned);
        let (language, owner) = (Language::Elixir, None);
        let site = Site { root: root.clone(), incoming: incoming.clone(), app, language, from, to, owner };
        for (path, old, new) in [
            ("bin/demo", "a", "b"),
            ("bin/migrate", "same", "same"),
            ("lib/demo-2/ebin/demo.app", "", "new"),
            ("releases/COOKIE", "a", "b"),
            ("etc/a/b.exs", "same", "same"),
        ] {
            put(&root, path, old);
            put(&incoming, path, new);
        }
        put(&incoming, "bin/demo-2", "its own");
        put(&root, "bin/went", "no matter");
        let look = || {
            let open = |path: &Path| Folder::open(path).unwrap();
            is_the_same(&site, &open(&root), &open(&incoming))
        };
        look().unwrap();
        let long = "same".repeat(10_000);
        put(&root, "etc/long", &long);
        put(&incoming, "etc/long", &long);
        let last = format!("{}SAME", &long[4..]);
        for (path, text) in [
            ("bin/migrate", "other"),
            ("etc/a/b.exs", "othe"),
            ("etc/c.exs", ""),
            ("etc/long", &last),
            ("new/x", ""),
        ] {
            let before = fs::read(incoming.join(path)).ok();
            put(&incoming, path, text);
            let fault = look().unwrap_err();
            let said = fault.to_string();
            let names = said.split_once(" is new").unwrap().0;
            assert!(fault.is_of_package() && path.starts_with(names), "{said}");
            match before {
                Some(before) => fs::write(incoming.join(path), before).unwrap(),
                None => fs::remove_file(incoming.join(path)).unwrap(),
            }
        }
        fs::remove_dir(incoming.join("new")).unwrap();
        for (root, target) in [(&root, "bin/migrate"), (&incoming, "bin/demo")] {
            symlink(target, root.join("link")).unwrap();
        }
        assert!(look().unwrap_err().to_string().starts_with("link is new"));
        fs::remove_file(incoming.join("link")).unwrap();
        look().unwrap();
    }
}
