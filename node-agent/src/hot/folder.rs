//! A folder of a release, opened: each entry is reached from its opened parent and through no link, as the folder may belong to
//! the application's user while the agent, as root, writes into it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, fstat, linkat, mkdirat,
    openat, readlinkat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::Fault;
use crate::releases::Owner;
use crate::releases::layout::Share;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const TEMPORARY: &str = ".deployex-writing";

pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let fd = openat(CWD, path, FOLDER, Mode::empty()).map_err(Fault::os("open", path))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    pub(super) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    pub(super) fn enter(&self, name: impl AsRef<OsStr>) -> Result<Self, Fault> {
        let path = self.path(&name);
        let fd = openat(&self.fd, name.as_ref(), FOLDER, Mode::empty()).map_err(Fault::os("open", &path))?;
        Ok(Self { fd, path })
    }

    /// Down a path of plain names.
    pub(super) fn enter_all<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<Self, Fault> {
        let mut inner = self.enter(".")?;
        inner.path.clone_from(&self.path);
        for name in names {
            inner = inner.enter(name)?;
        }
        Ok(inner)
    }

    pub(super) fn make(
        &self,
        name: impl AsRef<OsStr>,
        mode: u32,
        owner: Option<Owner>,
    ) -> Result<Self, Fault> {
        let path = self.path(&name);
        match mkdirat(&self.fd, name.as_ref(), Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Fault::os("create", &path)(errno)),
        }
        let made = self.enter(name)?;
        // Set apart from making it, as the umask takes bits away.
        finish(&made.fd, &path, mode, owner)?;
        Ok(made)
    }

    /// In order.
    pub(super) fn names(&self) -> Result<Vec<std::ffi::OsString>, Fault> {
        let failed = |errno| Fault::os("read", &self.path)(errno);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// What is there, links not followed.
    pub(super) fn kind(&self, name: impl AsRef<OsStr>) -> Result<Option<(FileType, u32)>, Fault> {
        match statat(&self.fd, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((FileType::from_raw_mode(stat.st_mode), stat.st_mode & 0o7777))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Fault::os("look at", &self.path(name))(errno)),
        }
    }

    pub(super) fn has(&self, name: impl AsRef<OsStr>) -> Result<bool, Fault> {
        Ok(self.kind(name)?.is_some())
    }

    /// To be read. `None` where there is no such file.
    pub(super) fn file(&self, name: impl AsRef<OsStr>) -> Result<Option<File>, Fault> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(&self.fd, name.as_ref(), flags, Mode::empty()) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Fault::os("read", &self.path(name))(errno)),
        }
    }

    /// Where a link leads.
    pub(super) fn target(&self, name: impl AsRef<OsStr>) -> Result<std::ffi::CString, Fault> {
        readlinkat(&self.fd, name.as_ref(), Vec::new()).map_err(Fault::os("read", &self.path(name)))
    }

    /// `None` where there is no such file.
    pub(super) fn read(&self, name: impl AsRef<OsStr>, most: u64) -> Result<Option<Vec<u8>>, Fault> {
        let path = self.path(&name);
        let Some(file) = self.file(&name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map_err(Fault::io("read", &path))?;
        if bytes.len() as u64 > most {
            return Err(Fault::here(format!(
                "{} is longer than {most} bytes; it is no file of a release",
                path.display()
            )));
        }
        Ok(Some(bytes))
    }

    /// As a new file that takes the place of what is there, on the disk when this returns.
    pub(super) fn put(&self, name: &str, bytes: &[u8], mode: u32, owner: Option<Owner>) -> Result<(), Fault> {
        self.remove(TEMPORARY)?;
        let path = self.path(name);
        let written = self.create(TEMPORARY, &path).and_then(|mut file| {
            file.write_all(bytes).map_err(Fault::io("write", &path))?;
            finish(&file, &path, mode, owner)?;
            file.sync_all().map_err(Fault::io("flush", &path))
        });
        if let Err(fault) = written {
            self.remove(TEMPORARY)?;
            return Err(fault);
        }
        renameat(&self.fd, TEMPORARY, &self.fd, name).map_err(Fault::os("write", &path))?;
        self.flush()
    }

    pub(super) fn flush(&self) -> Result<(), Fault> {
        rustix::fs::fsync(&self.fd).map_err(Fault::os("flush", &self.path))
    }

    /// All that was written to its disk.
    pub(super) fn flush_disk(&self) -> Result<(), Fault> {
        rustix::fs::syncfs(&self.fd).map_err(Fault::os("flush the disk of", &self.path))
    }

    pub(super) fn rename(&self, name: &str, into: &Self, new_name: &str) -> Result<(), Fault> {
        renameat(&self.fd, name, &into.fd, new_name).map_err(Fault::os("rename", &self.path(name)))
    }

    /// Whatever it is, with all that is in it; also where there is nothing.
    pub(super) fn remove(&self, name: impl AsRef<OsStr>) -> Result<(), Fault> {
        let name = name.as_ref();
        let Some((kind, _)) = self.kind(name)? else { return Ok(()) };
        let mut flags = AtFlags::empty();
        if kind == FileType::Directory {
            let inner = self.enter(name)?;
            for name in inner.names()? {
                inner.remove(name)?;
            }
            flags = AtFlags::REMOVEDIR;
        }
        match unlinkat(&self.fd, name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Fault::os("remove", &self.path(name))(errno)),
        }
    }

    /// Lays what `from` has under this name here, where there is nothing: code as a link to the same file, the rest as copies.
    /// `path`: where it is in a release.
    pub(super) fn take(
        &self,
        from: &Self,
        name: impl AsRef<OsStr>,
        path: &str,
        owner: Option<Owner>,
    ) -> Result<(), Fault> {
        let name = name.as_ref();
        let source = from.path(name);
        let Some((kind, mode)) = from.kind(name)? else {
            return Err(Fault::here(format!(
                "{} was lost; the release is to be staged anew",
                source.display()
            )));
        };
        match kind {
            FileType::Directory => {
                let (inner, made) = (from.enter(name)?, self.make(name, mode, owner)?);
                for name in inner.names()? {
                    let path = format!("{path}/{}", name.to_string_lossy());
                    made.take(&inner, name, &path, owner)?;
                }
                Ok(())
            }
            FileType::Symlink => {
                let target = from.target(name)?;
                symlinkat(target, &self.fd, name).map_err(Fault::os("link", &self.path(name)))?;
                let Some((uid, gid)) = ids(owner) else { return Ok(()) };
                // The link itself, never what it names.
                chownat(&self.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(Fault::os("give away", &self.path(name)))
            }
            FileType::RegularFile if Share::of(path) == Share::Linked => {
                match linkat(&from.fd, name, &self.fd, name, AtFlags::empty()) {
                    // More links than the file system counts, or another one.
                    Err(Errno::XDEV | Errno::MLINK) => self.copy(from, name, mode, None),
                    linked => linked.map_err(Fault::os("link", &self.path(name))),
                }
            }
            FileType::RegularFile => self.copy(from, name, mode, owner),
            _ => Err(Fault::package(format!(
                "{} is neither a file nor a folder; publish the release without it",
                source.display()
            ))),
        }
    }

    fn copy(&self, from: &Self, name: &OsStr, mode: u32, owner: Option<Owner>) -> Result<(), Fault> {
        let (source, target) = (from.path(name), self.path(name));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = openat(&from.fd, name, flags, Mode::empty()).map_err(Fault::os("read", &source))?;
        let mut file = self.create(name, &target)?;
        io::copy(&mut File::from(opened), &mut file).map_err(Fault::io("write", &target))?;
        finish(&file, &target, mode, owner)
    }

    fn create(&self, name: impl AsRef<OsStr>, path: &Path) -> Result<File, Fault> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.fd, name.as_ref(), flags, Mode::from_raw_mode(0o600));
        file.map(File::from).map_err(Fault::os("create", path))
    }

    /// Whom it belongs to.
    pub(super) fn owner(&self) -> Result<Owner, Fault> {
        let stat = fstat(&self.fd).map_err(Fault::os("look at", &self.path))?;
        Ok(Owner { uid: stat.st_uid, gid: stat.st_gid })
    }
}

fn ids(owner: Option<Owner>) -> Option<(Option<Uid>, Option<Gid>)> {
    owner.map(|Owner { uid, gid }| (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
}

fn finish(file: impl AsFd, path: &Path, mode: u32, owner: Option<Owner>) -> Result<(), Fault> {
    if let Some((uid, gid)) = ids(owner) {
        fchown(&file, uid, gid).map_err(Fault::os("give away", path))?;
    }
    fchmod(&file, Mode::from_raw_mode(mode)).map_err(Fault::os("change the mode of", path))
}
