//! What one entry may be, given those before it. Pure: a header and its extensions in, an [`Entry`] or a fault out.
//!
//! The law behind it: the parent of every entry is a folder of this archive, never a link, so an entry lands where its
//! path says; and a link's target stays inside by its text alone (`..` only at its front), so following any chain of them
//! stays inside too.

use std::collections::HashMap;

use super::Limits;
use super::fault::{EntryFault, Fault, LimitFault, LinkFault, LinkKind, Quoted};
use super::header::Kind;

/// One accepted entry. Paths are relative, without `.`, `..` or empty parts; `mode` has permission bits alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    Folder {
        path: &'a str,
    },
    File {
        path: &'a str,
        size: u64,
        mode: u32,
    },
    Symlink {
        path: &'a str,
        target: &'a str,
    },
    /// To a file that came before, whose mode this is.
    HardLink {
        path: &'a str,
        target: &'a str,
        mode: u32,
    },
}

/// What was said of one entry, extensions included, nothing of it believed.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) extended_size: Option<u64>,
    pub(super) sparse: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Folder,
    File { mode: u32 },
    Symlink,
}

/// The entries so far.
pub(super) struct Rules {
    limits: Limits,
    seen: HashMap<Box<str>, Seen>,
    names_bytes: usize,
    unpacked: u64,
    files: u64,
}

impl Rules {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { limits: *limits, seen: HashMap::new(), names_bytes: 0, unpacked: 0, files: 0 }
    }

    pub(super) fn seen(&self) -> &HashMap<Box<str>, Seen> {
        &self.seen
    }

    pub(super) fn unpacked(&self) -> u64 {
        self.unpacked
    }

    pub(super) fn files(&self) -> u64 {
        self.files
    }

    /// Accepts the entry or says why not. `None` is the release's own folder, said again by nearly every archiver.
    pub(super) fn admit<'a>(
        &mut self,
        said: &Said,
        path: &'a mut String,
        target: &'a mut String,
    ) -> Result<Option<Entry<'a>>, Fault> {
        *path = self.path(&said.path)?;
        let fault = |why| Fault::Entry { path: Quoted::new(path), why };
        match said.kind {
            Kind::Special(special) => return Err(fault(EntryFault::Special(special))),
            Kind::SparseFile => return Err(fault(EntryFault::Sparse)),
            _ if said.sparse => return Err(fault(EntryFault::Sparse)),
            _ => {}
        }
        if let Some(extended) = said.extended_size.filter(|&extended| extended != said.size) {
            return Err(fault(EntryFault::TwoSizes { header: said.size, extended }));
        }
        if said.kind != Kind::File && said.size > 0 {
            return Err(fault(EntryFault::DataInNonFile(said.size)));
        }
        let is_link = matches!(said.kind, Kind::Symlink | Kind::HardLink);
        if !is_link && said.mode & 0o6000 != 0 {
            return Err(fault(EntryFault::SetId));
        }
        if path.is_empty() {
            return if said.kind == Kind::Folder { Ok(None) } else { Err(fault(EntryFault::BadName)) };
        }
        let mode = said.mode & 0o777;
        match said.kind {
            Kind::Folder => {
                self.place(path, Seen::Folder)?;
                Ok(Some(Entry::Folder { path }))
            }
            Kind::Symlink => {
                *target = symlink_target(&said.link, path, &self.limits)
                    .map_err(|why| link_fault(path, LinkKind::Symbolic, &said.link, why))?;
                self.place(path, Seen::Symlink)?;
                Ok(Some(Entry::Symlink { path, target }))
            }
            Kind::HardLink => {
                let bad = |why| link_fault(path, LinkKind::Hard, &said.link, why);
                *target = hard_link_target(&said.link).map_err(bad)?;
                let Some(&Seen::File { mode }) = self.seen.get(target.as_str()) else {
                    return Err(bad(LinkFault::NoSuchFile));
                };
                self.place(path, Seen::File { mode })?;
                self.files += 1;
                Ok(Some(Entry::HardLink { path, target, mode }))
            }
            _ => {
                self.unpacked = self.unpacked.saturating_add(said.size);
                if self.unpacked > self.limits.unpacked_bytes {
                    return Err(LimitFault::UnpackedBytes(self.limits.unpacked_bytes).into());
                }
                self.place(path, Seen::File { mode })?;
                self.files += 1;
                Ok(Some(Entry::File { path, size: said.size, mode }))
            }
        }
    }

    /// The path in its one form.
    fn path(&self, said: &[u8]) -> Result<String, Fault> {
        let fault = |why| Fault::Entry { path: Quoted::bytes(said), why };
        let text = std::str::from_utf8(said).map_err(|_| fault(EntryFault::NotUtf8))?;
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(fault(EntryFault::BadName));
        }
        if text.starts_with('/') {
            return Err(fault(EntryFault::Absolute));
        }
        let mut path = String::with_capacity(text.len());
        let mut depth = 0;
        for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                return Err(fault(EntryFault::Parent));
            }
            if part.len() > MAX_NAME {
                return Err(self.too_long(text));
            }
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
            depth += 1;
        }
        if path.len() > self.limits.path_bytes {
            return Err(self.too_long(text));
        }
        if depth > self.limits.depth {
            return Err(LimitFault::Depth { path: Quoted::new(text), max: self.limits.depth }.into());
        }
        Ok(path)
    }

    fn too_long(&self, text: &str) -> Fault {
        LimitFault::Path { path: Quoted::new(text), max: self.limits.path_bytes }.into()
    }

    /// Remembers the entry and the folders that its path implies.
    fn place(&mut self, path: &str, what: Seen) -> Result<(), Fault> {
        for (at, _) in path.match_indices('/') {
            let folder = &path[..at];
            match self.seen.get(folder) {
                Some(Seen::Folder) => {}
                None => self.remember(folder, Seen::Folder)?,
                Some(Seen::File { .. } | Seen::Symlink) => {
                    let why = EntryFault::Through(Quoted::new(folder));
                    return Err(Fault::Entry { path: Quoted::new(path), why });
                }
            }
        }
        match (self.seen.get(path), what) {
            (None, _) => self.remember(path, what),
            (Some(Seen::Folder), Seen::Folder) => Ok(()),
            (Some(_), _) => Err(Fault::Entry { path: Quoted::new(path), why: EntryFault::Duplicate }),
        }
    }

    fn remember(&mut self, path: &str, what: Seen) -> Result<(), Fault> {
        if self.seen.len() >= self.limits.entries {
            return Err(LimitFault::Entries(self.limits.entries).into());
        }
        self.names_bytes += path.len();
        if self.names_bytes > self.limits.names_bytes {
            return Err(LimitFault::NamesBytes(self.limits.names_bytes).into());
        }
        self.seen.insert(path.into(), what);
        Ok(())
    }
}

/// Of one part of a path, on every file system that hosts a release.
const MAX_NAME: usize = 255;

fn link_fault(path: &str, kind: LinkKind, target: &[u8], why: LinkFault) -> Fault {
    Fault::Entry {
        path: Quoted::new(path),
        why: EntryFault::Link { kind, target: Quoted::bytes(target), why },
    }
}

fn link_text(said: &[u8]) -> Result<&str, LinkFault> {
    let text = std::str::from_utf8(said).map_err(|_| LinkFault::BadName)?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(LinkFault::BadName);
    }
    if text.starts_with('/') { Err(LinkFault::Absolute) } else { Ok(text) }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// Relative to the link's own folder. `..` may stand at the front alone: there it climbs real folders, while after a name it
/// would climb from wherever that name leads.
fn symlink_target(said: &[u8], path: &str, limits: &Limits) -> Result<String, LinkFault> {
    let text = link_text(said)?;
    if text.len() > limits.path_bytes {
        return Err(LinkFault::BadName);
    }
    let ups = parts(text).take_while(|part| *part == "..").count();
    if parts(text).skip(ups).any(|part| part == "..") {
        return Err(LinkFault::Winding);
    }
    if ups > path.matches('/').count() {
        return Err(LinkFault::Outside);
    }
    Ok(text.to_owned())
}

/// Relative to the release.
fn hard_link_target(said: &[u8]) -> Result<String, LinkFault> {
    let text = link_text(said)?;
    if parts(text).any(|part| part == "..") {
        return Err(LinkFault::Outside);
    }
    Ok(parts(text).collect::<Vec<_>>().join("/"))
}
