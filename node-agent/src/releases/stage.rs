//! From the host's copy of a release into a slot: links where all may share, copies where the slot writes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat, fchown, ioctl_ficlone, lstat};

use super::layout::{Share, copy_mode};
use super::manifest::{self, Item, Stamp};
use super::store::{Owner, Wanted};
use super::unpack::{Home, remove_folder};
use super::{SlotFolder, StageError, otp};

/// Whether a whole copy is there; [`StageError::Damaged`] where it is no longer what was unpacked.
pub(super) fn check(home: &Home) -> Result<bool, StageError> {
    if !home.whole().try_exists().map_err(StageError::io("look at", &home.whole()))? {
        return Ok(false);
    }
    let files = home.files();
    for item in load(home)? {
        let path = files.join(item.path());
        let is_same = match &item {
            Item::Folder { .. } => true,
            Item::File { stamp, .. } => {
                lstat(&path).is_ok_and(|stat| is_file(&stat) && Stamp::from(&stat) == *stamp)
            }
            Item::Symlink { target, .. } => {
                fs::read_link(&path).is_ok_and(|there| there == Path::new(target))
            }
        };
        if !is_same {
            return Err(StageError::Damaged { path });
        }
    }
    Ok(true)
}

/// Lays it beside the slot's `new` and puts it there when it is whole and on the disk. On an error nothing of it stays.
pub(super) fn stage(
    home: &Home,
    wanted: &Wanted,
    folder: &SlotFolder,
    owner: Option<Owner>,
) -> Result<(), StageError> {
    folder.prepare()?;
    let staging = folder.staging();
    let result = lay(home, wanted, &staging, owner).and_then(|()| folder.put_new());
    if result.is_err() {
        remove_folder(&staging)?;
    }
    result
}

fn lay(home: &Home, wanted: &Wanted, staging: &Path, owner: Option<Owner>) -> Result<(), StageError> {
    let items = load(home)?;
    let mut layer = Layer { from: home.files(), to: staging.to_owned(), owner, can_clone: true };
    // Others have no business in it: configuration may hold secrets.
    layer.folder("", 0o750)?;
    for item in &items {
        match item {
            Item::Folder { path } => layer.folder(path, 0o755)?,
            Item::File { path, mode, stamp } if Share::of(path) == Share::Linked => {
                layer.link(path, *mode, stamp)?;
            }
            Item::File { path, mode, stamp } => layer.copy(path, *mode, stamp)?,
            Item::Symlink { path, target } => layer.symlink(path, target)?,
        }
    }
    if let Some(releases) = otp::missing_releases_file(&wanted.app, &items, &layer.from) {
        layer.write(otp::RELEASES, 0o644, releases.as_bytes())?;
    }
    SlotFolder::mark(staging, &wanted.key)?;
    // So that a power cut cannot leave a release that looks whole and has empty files.
    let opened = File::open(staging).map_err(StageError::io("open", staging))?;
    rustix::fs::syncfs(opened).map_err(StageError::os("flush the disk of", staging))
}

fn load(home: &Home) -> Result<Vec<Item>, StageError> {
    let path = home.manifest();
    match fs::read_to_string(&path) {
        Ok(text) => manifest::parse(&text).ok_or(StageError::Damaged { path }),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
            Err(StageError::Damaged { path })
        }
        Err(error) => Err(StageError::io("read", &path)(error)),
    }
}

fn is_file(stat: &rustix::fs::Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file()
}

struct Layer {
    from: PathBuf,
    to: PathBuf,
    owner: Option<Owner>,
    /// Until the file system says that it cannot share blocks between files.
    can_clone: bool,
}

impl Layer {
    fn folder(&self, path: &str, mode: u32) -> Result<(), StageError> {
        let to = self.to.join(path);
        fs::create_dir(&to).map_err(StageError::io("create", &to))?;
        // Set apart from making it, as the umask takes bits away.
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))
            .map_err(StageError::io("change the mode of", &to))?;
        self.give(&to)
    }

    fn link(&self, path: &str, mode: u32, stamp: &Stamp) -> Result<(), StageError> {
        let (from, to) = (self.from.join(path), self.to.join(path));
        let stat = lstat(&from).map_err(|_| StageError::Damaged { path: from.clone() })?;
        let is_same = is_file(&stat) && Stamp::from(&stat) == *stamp;
        if !is_same || stat.st_mode & 0o7777 != Share::Linked.master_mode(mode) {
            return Err(StageError::Damaged { path: from });
        }
        match fs::hard_link(&from, &to) {
            // Slots on another file system, or more links than the file system counts.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::TooManyLinks) =>
            {
                self.copy_as(path, Share::Linked.master_mode(mode), stamp, false).map(drop)
            }
            other => other.map_err(StageError::io("link", &to)),
        }
    }

    fn copy(&mut self, path: &str, mode: u32, stamp: &Stamp) -> Result<(), StageError> {
        self.can_clone = self.copy_as(path, copy_mode(mode), stamp, self.can_clone)?;
        Ok(())
    }

    /// Says whether the file system shared its blocks.
    fn copy_as(&self, path: &str, mode: u32, stamp: &Stamp, try_clone: bool) -> Result<bool, StageError> {
        let (from, to) = (self.from.join(path), self.to.join(path));
        let damaged = || StageError::Damaged { path: from.clone() };
        let mut source = match File::open(&from) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged()),
            Err(error) => return Err(StageError::io("open", &from)(error)),
        };
        let stat = rustix::fs::fstat(&source).map_err(StageError::os("look at", &from))?;
        if Stamp::from(&stat) != *stamp {
            return Err(damaged());
        }
        let mut target = create(&to)?;
        let is_cloned = try_clone && stamp.size > 0 && ioctl_ficlone(&target, &source).is_ok();
        if !is_cloned && stamp.size > 0 {
            io::copy(&mut source, &mut target).map_err(StageError::io("write", &to))?;
        }
        self.finish(&target, &to, mode)?;
        Ok(try_clone && (is_cloned || stamp.size == 0))
    }

    fn symlink(&self, path: &str, target: &str) -> Result<(), StageError> {
        let to = self.to.join(path);
        std::os::unix::fs::symlink(target, &to).map_err(StageError::io("link", &to))?;
        self.give(&to)
    }

    fn write(&self, path: &str, mode: u32, bytes: &[u8]) -> Result<(), StageError> {
        let to = self.to.join(path);
        let mut file = create(&to)?;
        io::Write::write_all(&mut file, bytes).map_err(StageError::io("write", &to))?;
        self.finish(&file, &to, mode)
    }

    fn finish(&self, file: &File, path: &Path, mode: u32) -> Result<(), StageError> {
        if let Some((uid, gid)) = self.ids() {
            fchown(file, uid, gid).map_err(StageError::os("give away", path))?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))
            .map_err(StageError::io("change the mode of", path))
    }

    /// A folder or link: the link itself, never what it names.
    fn give(&self, path: &Path) -> Result<(), StageError> {
        match self.ids() {
            Some((uid, gid)) => chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(StageError::os("give away", path)),
            None => Ok(()),
        }
    }

    fn ids(&self) -> Option<(Option<Uid>, Option<Gid>)> {
        self.owner.map(|Owner { uid, gid }| (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
    }
}

fn create(path: &Path) -> Result<File, StageError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(StageError::io("create", path))
}
