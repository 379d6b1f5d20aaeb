//! What of a hot upgrade lies in a release's folder, written down there before it is laid: so that whoever comes after can take
//! it back, without a node and without memory.
//!
//! The folder belongs to the application's user: what the journal says is checked before it is followed, and nothing that it
//! names lies outside of the folder.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::state::Language;
use serde::{Deserialize, Serialize};

use super::Fault;
use super::folder::Folder;

const RELEASES: &str = "releases";
const JOURNAL: &str = ".deployex-upgrade";
/// What lay where something was laid, below `releases`.
const ASIDE: &str = ".deployex-before";
const MOST: u64 = 16 << 20;
/// Folders within folders.
const DEPTH: usize = 32;

/// A hot upgrade that was begun and is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub from: String,
    pub to: String,
    pub app: String,
    pub language: Language,
    /// To an earlier version, by the appup of the one that runs.
    pub down: bool,
    /// The install was asked for.
    pub installing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    pub(super) pending: Pending,
    /// Paths where there was nothing.
    pub(super) laid: Vec<String>,
    /// Paths where there was something, which is set aside.
    pub(super) replaced: Vec<String>,
    /// Files that OTP or a step changes.
    pub(super) saved: Vec<Saved>,
}

/// As it was; without bytes: there was none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) path: String,
    bytes: Option<String>,
    mode: u32,
}

impl Saved {
    pub(super) fn of(root: &Folder, path: &str) -> Result<Self, Fault> {
        let (folder, name) = parent(root, path)?;
        let mode = folder.kind(name)?.map_or(0, |(_, mode)| mode);
        let bytes = folder.read(name, MOST / 4)?.map(|it| STANDARD.encode(it));
        Ok(Self { path: path.to_owned(), bytes, mode })
    }

    fn restore(&self, root: &Folder) -> Result<(), Fault> {
        let (folder, name) = parent(root, &self.path)?;
        let Some(text) = &self.bytes else { return folder.remove(name) };
        let bytes = STANDARD.decode(text).map_err(|_| unreadable(root))?;
        if folder.read(name, MOST)?.as_ref() == Some(&bytes) {
            return Ok(());
        }
        folder.put(name, &bytes, self.mode & 0o755 | 0o600, Some(folder.owner()?))
    }
}

impl Journal {
    pub(super) fn read(root: &Folder) -> Result<Option<Self>, Fault> {
        let Some(bytes) = root.enter(RELEASES)?.read(JOURNAL, MOST)? else { return Ok(None) };
        let journal: Self = serde_json::from_slice(&bytes).map_err(|_| unreadable(root))?;
        if journal.is_sound() { Ok(Some(journal)) } else { Err(unreadable(root)) }
    }

    pub(super) fn write(&self, root: &Folder) -> Result<(), Fault> {
        let bytes = serde_json::to_vec(self).map_err(|_| unreadable(root))?;
        root.enter(RELEASES)?.put(JOURNAL, &bytes, 0o600, None)
    }

    fn is_sound(&self) -> bool {
        let Pending { from, to, app, .. } = &self.pending;
        let saved = self.saved.iter().map(|it| &it.path);
        [from, to, app].into_iter().all(|it| is_name(it))
            && self.laid.iter().chain(&self.replaced).chain(saved).all(|it| is_path(it))
    }
}

/// Where it is set aside: flat, as no name has a `:` that is also a path.
pub(super) fn set_aside(root: &Folder, path: &str) -> Result<(), Fault> {
    let releases = root.enter(RELEASES)?;
    let aside = releases.make(ASIDE, 0o700, None)?;
    let (folder, name) = parent(root, path)?;
    if folder.has(name)? && !aside.has(flat(path))? {
        folder.rename(name, &aside, &flat(path))?;
    }
    Ok(())
}

fn flat(path: &str) -> String {
    path.replace('/', ":")
}

pub(super) fn pending(root: &Path) -> Result<Option<Pending>, Fault> {
    if !root.join(RELEASES).is_dir() {
        return Ok(None);
    }
    Ok(Journal::read(&Folder::open(root)?)?.map(|it| it.pending))
}

/// Writes down that the install is about to be asked for.
pub(super) fn installing(root: &Path) -> Result<(), Fault> {
    let root = Folder::open(root)?;
    let Some(mut journal) = Journal::read(&root)? else {
        return Err(Fault::here("nothing was laid for this hot upgrade; begin it again"));
    };
    if journal.pending.installing {
        return Ok(());
    }
    journal.pending.installing = true;
    journal.write(&root)
}

pub(super) fn settle(root: &Path) -> Result<(), Fault> {
    let releases = Folder::open(root)?.enter(RELEASES)?;
    releases.remove(ASIDE)?;
    releases.remove(JOURNAL)?;
    releases.flush()
}

/// Nothing but files; each part may have been done before.
pub(super) fn undo(root: &Path) -> Result<(), Fault> {
    if !restore(root)? {
        return Ok(());
    }
    let releases = Folder::open(root)?.enter(RELEASES)?;
    releases.remove(ASIDE)?;
    releases.remove(JOURNAL)?;
    releases.flush()
}

/// As an undo, but that it is not over yet. Whether there was one to begin.
pub(super) fn restore(root: &Path) -> Result<bool, Fault> {
    let root = Folder::open(root)?;
    let Some(journal) = Journal::read(&root)? else { return Ok(false) };
    for path in journal.laid.iter().rev() {
        match parent(&root, path) {
            Ok((folder, name)) => folder.remove(name)?,
            // Below something else that was laid, or never was.
            Err(_) if path.matches('/').count() > 1 => {}
            Err(fault) => return Err(fault),
        }
    }
    let releases = root.enter(RELEASES)?;
    if releases.has(ASIDE)? {
        let aside = releases.enter(ASIDE)?;
        for path in &journal.replaced {
            // Where nothing was set aside, or it is back already, what is there is what was there.
            if aside.has(flat(path))? {
                let (folder, name) = parent(&root, path)?;
                folder.remove(name)?;
                aside.rename(&flat(path), &folder, name)?;
            }
        }
    }
    for saved in &journal.saved {
        saved.restore(&root)?;
    }
    Ok(true)
}

/// Whether the release handler knew of the release before it was laid, by the list that it keeps: `{release, Name, Version, …`.
pub(super) fn knew(root: &Path, version: &str) -> Result<bool, Fault> {
    let text = Folder::open(root)?.enter(RELEASES)?.read("RELEASES", MOST)?.unwrap_or_default();
    let text: String = String::from_utf8_lossy(&text).split_whitespace().collect();
    let of = |release: &str| {
        let words = release.split_once(",\"").map(|(_, rest)| rest).and_then(|it| it.split_once("\",\""));
        words.is_some_and(|(_, rest)| rest.split_once('"').is_some_and(|(found, _)| found == version))
    };
    Ok(text.split("{release").skip(1).any(of))
}

/// The opened folder of an entry, and what the entry is called in it.
pub(super) fn parent<'p>(root: &Folder, path: &'p str) -> Result<(Folder, &'p str), Fault> {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    Ok((root.enter_all(folders.split('/').filter(|it| !it.is_empty()))?, name))
}

/// Of one entry of a folder.
pub(super) fn is_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && !text.contains(['/', '\0'])
}

fn is_path(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let is_ours = parts[0].starts_with(".deployex");
    // Of code and releases only some: never all of them at once.
    let is_all = parts.len() == 1 && matches!(parts[0], "lib" | "releases" | "bin");
    parts.len() <= DEPTH && !is_ours && !is_all && parts.into_iter().all(is_name)
}

fn unreadable(root: &Folder) -> Fault {
    let path = root.path(RELEASES).join(JOURNAL);
    Fault::here(format!(
        "{} cannot be read, so what a hot upgrade left there is not known; deploy the release in full",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn journal() -> Journal {
        let [from, to, app] = ["0.1.0", "0.2.0", "demo"].map(str::to_owned);
        let pending = Pending { from, to, app, language: Language::Elixir, down: false, installing: false };
        let laid = vec!["lib/demo-0.2.0".to_owned(), "lib/old-1/ebin/old.appup".to_owned()];
        Journal { pending, laid, replaced: vec!["releases/0.2.0".to_owned()], saved: Vec::new() }
    }

    #[test]
    fn what_was_laid_goes_and_what_was_set_aside_comes_back_however_often_it_is_undone() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for folder in ["lib/demo-0.2.0/ebin", "lib/old-1/ebin", "releases/0.2.0", "bin"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        fs::write(path("lib/old-1/ebin/old.appup"), "laid").unwrap();
        fs::write(path("releases/0.2.0/relup"), "before").unwrap();
        fs::write(path("releases/RELEASES"), "before").unwrap();
        let folder = Folder::open(root.path()).unwrap();
        let mut written = journal();
        written.saved =
            ["releases/RELEASES", "releases/none"].map(|it| Saved::of(&folder, it).unwrap()).into();
        written.write(&folder).unwrap();
        set_aside(&folder, "releases/0.2.0").unwrap();
        assert!(!path("releases/0.2.0").exists());
        for file in ["releases/RELEASES", "releases/none"] {
            fs::write(path(file), "after").unwrap();
        }
        assert_eq!(pending(root.path()).unwrap(), Some(written.pending.clone()));
        for _ in 0..2 {
            undo(root.path()).unwrap();
            // As one whose agent was killed before the journal was removed.
            written.write(&folder).unwrap();
        }
        undo(root.path()).unwrap();
        assert_eq!(pending(root.path()).unwrap(), None);
        assert_eq!(fs::read_to_string(path("releases/0.2.0/relup")).unwrap(), "before");
        assert_eq!(fs::read_to_string(path("releases/RELEASES")).unwrap(), "before");
        let left = |folder: &str| fs::read_dir(path(folder)).unwrap().count();
        assert_eq!((left("releases"), left("lib"), left("lib/old-1/ebin")), (2, 1, 0));
    }

    #[test]
    fn what_the_release_handler_knew_is_read_from_its_list() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("releases")).unwrap();
        assert!(!knew(root.path(), "1.1.0").unwrap());
        let list = r#"%% coding: utf-8
[{release,"demo","1.2.0","13.1.5",[{kernel,"8.5.3","/lib/kernel-8.5.3"},{demo,"1.3.0","/lib"}],permanent},
 {release,"a name of its own",
          "1.1.0","13.1.5",[],old}]."#;
        fs::write(root.path().join("releases/RELEASES"), list).unwrap();
        for (version, is) in
            [("1.1.0", true), ("1.2.0", true), ("1.3.0", false), ("13.1.5", false), ("demo", false)]
        {
            assert_eq!(knew(root.path(), version).unwrap(), is, "{version}");
        }
    }

    #[test]
    fn a_journal_that_leads_out_of_the_folder_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("releases")).unwrap();
        let folder = Folder::open(root.path()).unwrap();
        for path in [
            "../x",
            "lib/../../x",
            "/etc/passwd",
            "lib",
            "releases",
            "lib//x",
            ".deployex-release",
            "etc/..",
            &"a/".repeat(32),
        ] {
            for laid in [true, false] {
                let mut bad = journal();
                if laid {
                    bad.laid.push(path.to_owned());
                } else {
                    bad.replaced.push(path.to_owned());
                }
                bad.write(&folder).unwrap();
                let fault = undo(root.path()).unwrap_err();
                assert!(fault.to_string().contains("cannot be read"), "{path}: {fault}");
            }
        }
        let mut bad = journal();
        bad.pending.to = "../..".to_owned();
        bad.write(&folder).unwrap();
        assert!(pending(root.path()).is_err());
    }
}
