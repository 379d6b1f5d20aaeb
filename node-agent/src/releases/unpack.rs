//! A tarball becomes the host's one copy of a release: hashed, inflated, checked and written in one pass.
//!
//! It appears under its name only when it is whole, verified and on the disk. Every file is made relative to its opened
//! parent folder without following links, so that even a fault in the archive's rules could not write outside.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use proto::archive::{self, Entry, Expected, Limits, ReadError, Sink};
use proto::ids::Digest;
use rustix::fs::{AtFlags, Mode, OFlags, fchmod, fstat, linkat, mkdirat, openat, symlinkat};
use sha2::Digest as _;

use super::StageError;
use super::layout::Share;
use super::manifest::{self, Item, Stamp};

/// Where the parts of one release lie.
#[derive(Clone, Debug)]
pub(super) struct Home {
    folder: PathBuf,
    digest: Digest,
}

impl Home {
    pub(super) fn new(app_folder: PathBuf, digest: Digest) -> Self {
        Self { folder: app_folder, digest }
    }

    pub(super) fn app_folder(&self) -> &Path {
        &self.folder
    }

    /// The tarball as far as it was fetched.
    pub(super) fn partial(&self) -> PathBuf {
        self.folder.join(format!("{}.partial", self.digest))
    }

    pub(super) fn unpacking(&self) -> PathBuf {
        self.folder.join(format!("{}{UNPACKING}", self.digest))
    }

    /// The whole copy.
    pub(super) fn whole(&self) -> PathBuf {
        self.folder.join(self.digest.to_string())
    }

    pub(super) fn files(&self) -> PathBuf {
        self.whole().join(FILES)
    }

    pub(super) fn manifest(&self) -> PathBuf {
        self.whole().join(MANIFEST)
    }
}

pub(super) const UNPACKING: &str = ".unpacking";
const FILES: &str = "files";
const MANIFEST: &str = "manifest";

/// Turns the fetched tarball into the whole copy. On any error nothing stays but, where another try may use it, the tarball.
pub(super) fn unpack(home: &Home, expected: &Expected<'_>) -> Result<(), StageError> {
    let result = write_copy(home, expected);
    if let Err(error) = &result {
        remove_folder(&home.unpacking())?;
        let useless = matches!(
            error,
            StageError::WrongDigest { .. } | StageError::Archive(_) | StageError::DiskFull { .. }
        );
        if useless {
            remove_file(&home.partial())?;
        }
    }
    result
}

fn write_copy(home: &Home, expected: &Expected<'_>) -> Result<(), StageError> {
    let (tarball, folder) = (home.partial(), home.unpacking());
    let input = File::open(&tarball).map_err(StageError::io("open", &tarball))?;
    remove_folder(&folder)?;
    fs::create_dir(&folder).map_err(StageError::io("create", &folder))?;
    let files = folder.join(FILES);
    let mut writer = Writer::create(&files)?;
    let summary = match archive::read(&input, &Limits::default(), expected, &mut writer) {
        Ok(summary) => summary,
        Err(ReadError::Fault(fault)) => {
            // Whose fault it is depends on whether these are the bytes that were recorded.
            check(home.digest, digest(&tarball)?)?;
            return Err(StageError::Archive(fault));
        }
        Err(ReadError::Read(source)) => return Err(StageError::io("read", &tarball)(source)),
        Err(ReadError::Sink(error)) => return Err(error),
    };
    check(home.digest, summary.sha256)?;
    let manifest = folder.join(MANIFEST);
    fs::write(&manifest, manifest::write(&writer.items)).map_err(StageError::io("write", &manifest))?;
    // One flush for thousands of files; a flush of each would take a journal commit of each.
    rustix::fs::syncfs(&writer.root).map_err(StageError::os("flush the disk of", &folder))?;
    let whole = home.whole();
    fs::rename(&folder, &whole).map_err(StageError::io("rename to", &whole))?;
    sync_folder(home.app_folder())?;
    remove_file(&tarball)
}

fn check(expected: Digest, found: Digest) -> Result<(), StageError> {
    if expected == found { Ok(()) } else { Err(StageError::WrongDigest { expected, found }) }
}

fn digest(path: &Path) -> Result<Digest, StageError> {
    let mut hash = sha2::Sha256::new();
    let mut file = File::open(path).map_err(StageError::io("open", path))?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match io::Read::read(&mut file, &mut buffer) {
            Ok(0) => return Ok(Digest(hash.finalize().into())),
            Ok(n) => hash.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StageError::io("read", path)(error)),
        }
    }
}

pub(super) fn sync_folder(path: &Path) -> Result<(), StageError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(StageError::io("flush", path))
}

/// Also where there is none.
pub(super) fn remove_folder(path: &Path) -> Result<(), StageError> {
    absent_is_fine(fs::remove_dir_all(path)).map_err(StageError::io("remove", path))
}

pub(super) fn remove_file(path: &Path) -> Result<(), StageError> {
    absent_is_fine(fs::remove_file(path)).map_err(StageError::io("remove", path))
}

pub(super) fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes entries below one folder.
struct Writer {
    path: PathBuf,
    root: OwnedFd,
    /// The folder of the last entry: the next one mostly lies in it too.
    parent: (String, OwnedFd),
    open: Option<Writing>,
    items: Vec<Item>,
}

struct Writing {
    path: String,
    mode: u32,
    file: File,
}

impl Writer {
    fn create(path: &Path) -> Result<Self, StageError> {
        fs::create_dir(path).map_err(StageError::io("create", path))?;
        let folder = || File::open(path).map(OwnedFd::from).map_err(StageError::io("open", path));
        Ok(Self {
            path: path.to_owned(),
            root: folder()?,
            parent: (String::new(), folder()?),
            open: None,
            items: Vec::new(),
        })
    }

    fn failed(&self, what: &'static str, path: &str) -> impl FnOnce(rustix::io::Errno) -> StageError {
        let path = self.path.join(path);
        move |errno| StageError::os(what, &path)(errno)
    }

    /// Opens the folder, made where it is not there yet, one part after another and through no link.
    fn folder(&mut self, path: &str) -> Result<(), StageError> {
        if self.parent.0 == path {
            return Ok(());
        }
        let mut folder = self.root.try_clone().map_err(StageError::io("open", &self.path))?;
        let mut done = 0;
        for part in path.split('/') {
            let until = done + part.len();
            match mkdirat(&folder, part, Mode::from_raw_mode(0o700)) {
                Ok(()) => self.items.push(Item::Folder { path: path[..until].to_owned() }),
                Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(self.failed("create", &path[..until])(errno)),
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder =
                openat(&folder, part, flags, Mode::empty()).map_err(self.failed("open", &path[..until]))?;
            done = until + 1;
        }
        self.parent = (path.to_owned(), folder);
        Ok(())
    }

    /// The opened folder of the entry, and its name there.
    fn parent<'p>(&mut self, path: &'p str) -> Result<&'p str, StageError> {
        if let Some((folder, name)) = path.rsplit_once('/') {
            self.folder(folder)?;
            Ok(name)
        } else {
            self.parent = (String::new(), self.root.try_clone().map_err(StageError::io("open", &self.path))?);
            Ok(path)
        }
    }

    fn record(&mut self, path: &str, mode: u32, file: impl AsFd) -> Result<(), StageError> {
        let stat = fstat(file).map_err(self.failed("look at", path))?;
        self.items.push(Item::File { path: path.to_owned(), mode, stamp: Stamp::from(&stat) });
        Ok(())
    }

    fn hard_link(&mut self, path: &str, target: &str, mode: u32) -> Result<(), StageError> {
        let source_name = self.parent(target)?;
        let source = self.parent.1.try_clone().map_err(StageError::io("open", &self.path))?;
        let name = self.parent(path)?;
        linkat(&source, source_name, &self.parent.1, name, AtFlags::empty())
            .map_err(self.failed("link", path))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.parent.1, name, flags, Mode::empty()).map_err(self.failed("open", path))?;
        self.record(path, mode, file)
    }
}

impl Sink for Writer {
    type Error = StageError;

    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), StageError> {
        match *entry {
            Entry::Folder { path } => self.folder(path),
            Entry::File { path, mode, .. } => {
                let name = self.parent(path)?;
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(&self.parent.1, name, flags, Mode::from_raw_mode(0o600))
                    .map_err(self.failed("create", path))?;
                self.open = Some(Writing { path: path.to_owned(), mode, file: file.into() });
                Ok(())
            }
            Entry::Symlink { path, target } => {
                let name = self.parent(path)?;
                symlinkat(target, &self.parent.1, name).map_err(self.failed("link", path))?;
                self.items.push(Item::Symlink { path: path.to_owned(), target: target.to_owned() });
                Ok(())
            }
            Entry::HardLink { path, target, mode } => self.hard_link(path, target, mode),
        }
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), StageError> {
        match &mut self.open {
            Some(writing) => writing
                .file
                .write_all(bytes)
                .map_err(|error| StageError::io("write", &self.path.join(&writing.path))(error)),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), StageError> {
        let Some(Writing { path, mode, file }) = self.open.take() else { return Ok(()) };
        let master = Mode::from_raw_mode(Share::of(&path).master_mode(mode));
        if master.bits() != 0o600 {
            fchmod(&file, master).map_err(self.failed("change the mode of", &path))?;
        }
        self.record(&path, mode, &file)
    }
}
