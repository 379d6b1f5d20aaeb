//! From the host's copy of a release into a slot: links where all may share, copies where the slot writes.

use std::fs;
use std::io;

use super::layout::Share;
use super::manifest::{self, Item};
use super::store::{Owner, Wanted};
use super::unpack::{Home, remove_folder};
use super::{SlotFolder, StageError, machine, otp};
use layer::Layer;

mod layer;

/// Whether a copy that was whole is there. Each of its files is looked at when it is taken.
pub(super) fn is_there(home: &Home) -> Result<bool, StageError> {
    let manifest = home.manifest();
    manifest.try_exists().map_err(StageError::io("look at", &manifest))
}

/// Lays it beside the slot's `new` and puts it there when it is whole. It is not waited for the disk: [`SlotFolder::flush`].
/// On an error nothing of it stays; [`StageError::Damaged`] where the host's copy is no longer what was unpacked.
pub(super) fn stage(
    home: &Home,
    wanted: &Wanted,
    folder: &SlotFolder,
    owner: Option<Owner>,
) -> Result<(), StageError> {
    folder.prepare()?;
    let staging = folder.staging();
    let result = lay(home, wanted, folder, owner).and_then(|()| folder.put_new());
    if result.is_err() {
        remove_folder(&staging)?;
    }
    result
}

fn lay(home: &Home, wanted: &Wanted, folder: &SlotFolder, owner: Option<Owner>) -> Result<(), StageError> {
    let items = load(home)?;
    let files = home.files();
    machine::check(wanted, &items, &files)?;
    let staging = folder.staging();
    let mut layer = Layer::create(&files, &staging, owner)?;
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
    if let Some(releases) = otp::missing_releases_file(&wanted.app, &items, &files) {
        layer.write(otp::RELEASES, 0o644, releases.as_bytes())?;
    }
    folder.mark(&staging, &wanted.key)
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
