//! Lays entries into a slot's folder, each relative to its opened parent and through no link: the folder may belong to the
//! application's user already while the agent, as root, still writes into it. It also spares the kernel thousands of walks
//! down the same path: one replica more costs system calls and little else, so each is counted.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, fstat, ioctl_ficlone, linkat, mkdirat,
    openat, statat, symlinkat,
};
use rustix::io::Errno;

use super::is_file;
use crate::releases::StageError;
use crate::releases::layout::{Share, copy_mode};
use crate::releases::manifest::Stamp;
use crate::releases::store::Owner;

/// Most files fit whole.
const BUFFER: usize = 128 << 10;

pub(super) struct Layer {
    from: Root,
    to: Root,
    owner: Option<Owner>,
    /// Until the file system says that it cannot share blocks between files.
    can_clone: bool,
    /// Down to the folder of the last entry: the next one mostly lies in it too, or beside it. An archive's depth has a limit.
    opened: Vec<Folder>,
    buffer: Vec<u8>,
}

struct Root {
    path: PathBuf,
    folder: OwnedFd,
}

/// One folder on both sides.
struct Folder {
    name: String,
    from: OwnedFd,
    to: OwnedFd,
}

impl Layer {
    /// Makes the folder `to`. Others have no business in it: configuration may hold secrets.
    pub(super) fn create(from: &Path, to: &Path, owner: Option<Owner>) -> Result<Self, StageError> {
        mkdirat(CWD, to, Mode::from_raw_mode(0o700)).map_err(StageError::os("create", to))?;
        let from = Root { folder: open_source(CWD, from, || from.to_owned())?, path: from.to_owned() };
        let to = Root::open(to)?;
        let layer = Self { from, to, owner, can_clone: true, opened: Vec::new(), buffer: vec![0; BUFFER] };
        layer.finish(&layer.to.folder, "", 0o750)?;
        Ok(layer)
    }

    /// Its parent is there.
    pub(super) fn folder(&mut self, path: &str, mode: u32) -> Result<(), StageError> {
        let name = self.enter_parent(path)?;
        mkdirat(self.to(), name, Mode::from_raw_mode(0o700)).map_err(self.to.failed("create", path))?;
        self.enter(path)?;
        // Set apart from making it, as the umask takes bits away.
        self.finish(self.to(), path, mode)
    }

    pub(super) fn link(&mut self, path: &str, mode: u32, stamp: &Stamp) -> Result<(), StageError> {
        let name = self.enter_parent(path)?;
        let damaged = || StageError::Damaged { path: self.from.path.join(path) };
        let stat = statat(self.from(), name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| damaged())?;
        let is_same = is_file(&stat) && Stamp::from(&stat) == *stamp;
        if !is_same || stat.st_mode & 0o7777 != Share::Linked.master_mode(mode) {
            return Err(damaged());
        }
        match linkat(self.from(), name, self.to(), name, AtFlags::empty()) {
            // Slots on another file system, or more links than the file system counts.
            Err(Errno::XDEV | Errno::MLINK) => {
                self.copy_as(path, Share::Linked.master_mode(mode), stamp, false).map(drop)
            }
            other => other.map_err(self.to.failed("link", path)),
        }
    }

    pub(super) fn copy(&mut self, path: &str, mode: u32, stamp: &Stamp) -> Result<(), StageError> {
        self.can_clone = self.copy_as(path, copy_mode(mode), stamp, self.can_clone)?;
        Ok(())
    }

    /// Says whether the file system shared its blocks.
    fn copy_as(&mut self, path: &str, mode: u32, stamp: &Stamp, try_clone: bool) -> Result<bool, StageError> {
        let name = self.enter_parent(path)?;
        let damaged = || StageError::Damaged { path: self.from.path.join(path) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut source = match openat(self.from(), name, flags, Mode::empty()) {
            Ok(source) => File::from(source),
            Err(Errno::NOENT | Errno::LOOP) => return Err(damaged()),
            Err(errno) => return Err(self.from.failed("open", path)(errno)),
        };
        let stat = fstat(&source).map_err(self.from.failed("look at", path))?;
        if Stamp::from(&stat) != *stamp {
            return Err(damaged());
        }
        let mut target = self.create_file(name, path)?;
        let is_cloned = try_clone && stamp.size > 0 && ioctl_ficlone(&target, &source).is_ok();
        if !is_cloned {
            let copied = pass_on(&mut source, &mut target, stamp.size, &mut self.buffer);
            copied.map_err(|error| self.to.failed_io("write", path)(error))?;
        }
        self.finish(&target, path, mode)?;
        Ok(try_clone && (is_cloned || stamp.size == 0))
    }

    pub(super) fn symlink(&mut self, path: &str, target: &str) -> Result<(), StageError> {
        let name = self.enter_parent(path)?;
        symlinkat(target, self.to(), name).map_err(self.to.failed("link", path))?;
        let Some((uid, gid)) = self.ids() else { return Ok(()) };
        // The link itself, never what it names.
        chownat(self.to(), name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.to.failed("give away", path))
    }

    pub(super) fn write(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<(), StageError> {
        let name = self.enter_parent(path)?;
        let mut file = self.create_file(name, path)?;
        file.write_all(bytes).map_err(|error| self.to.failed_io("write", path)(error))?;
        self.finish(&file, path, mode)
    }

    fn create_file(&self, name: &str, path: &str) -> Result<File, StageError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(self.to(), name, flags, Mode::from_raw_mode(0o600));
        file.map(File::from).map_err(self.to.failed("create", path))
    }

    /// Opens the entry's folder on both sides, and says what the entry is called in it.
    fn enter_parent<'p>(&mut self, path: &'p str) -> Result<&'p str, StageError> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.enter(folder)?;
        Ok(name)
    }

    fn enter(&mut self, folder: &str) -> Result<(), StageError> {
        let parts = || folder.split('/').filter(|part| !part.is_empty());
        let common =
            self.opened.iter().zip(parts()).take_while(|(opened, part)| opened.name == *part).count();
        self.opened.truncate(common);
        for part in parts().skip(common) {
            let from = open_source(self.from(), Path::new(part), || self.from.path.join(folder))?;
            let to =
                openat(self.to(), part, FOLDER, Mode::empty()).map_err(self.to.failed("open", folder))?;
            self.opened.push(Folder { name: part.to_owned(), from, to });
        }
        Ok(())
    }

    /// The last entry's folder in the host's copy.
    fn from(&self) -> &OwnedFd {
        self.opened.last().map_or(&self.from.folder, |it| &it.from)
    }

    /// The last entry's folder in the slot.
    fn to(&self) -> &OwnedFd {
        self.opened.last().map_or(&self.to.folder, |it| &it.to)
    }

    fn finish(&self, file: impl AsFd, path: &str, mode: u32) -> Result<(), StageError> {
        if let Some((uid, gid)) = self.ids() {
            fchown(&file, uid, gid).map_err(self.to.failed("give away", path))?;
        }
        fchmod(&file, Mode::from_raw_mode(mode)).map_err(self.to.failed("change the mode of", path))
    }

    fn ids(&self) -> Option<(Option<Uid>, Option<Gid>)> {
        self.owner.map(|Owner { uid, gid }| (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
    }
}

impl Root {
    fn open(path: &Path) -> Result<Self, StageError> {
        let folder = openat(CWD, path, FOLDER, Mode::empty()).map_err(StageError::os("open", path))?;
        Ok(Self { path: path.to_owned(), folder })
    }

    fn failed(&self, what: &'static str, path: &str) -> impl FnOnce(Errno) -> StageError {
        move |errno| StageError::os(what, &self.path.join(path))(errno)
    }

    fn failed_io(&self, what: &'static str, path: &str) -> impl FnOnce(io::Error) -> StageError {
        move |error| StageError::io(what, &self.path.join(path))(error)
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A folder of the host's copy; what lies in it can be taken, and nothing else be done to it.
fn open_source(at: impl AsFd, name: &Path, path: impl FnOnce() -> PathBuf) -> Result<OwnedFd, StageError> {
    match openat(at, name, FOLDER | OFlags::PATH, Mode::empty()) {
        Ok(folder) => Ok(folder),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Err(StageError::Damaged { path: path() }),
        Err(errno) => Err(StageError::os("open", &path())(errno)),
    }
}

/// So many bytes. Two calls for most files, where asking the kernel to copy takes more.
fn pass_on(source: &mut File, target: &mut File, size: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut left = size;
    while left > 0 {
        let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = match source.read(&mut buffer[..wanted]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        target.write_all(&buffer[..count])?;
        left -= count as u64;
    }
    Ok(())
}
