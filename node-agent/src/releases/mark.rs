//! The file in a release's folder that says which release it is, and whether the disk is known to hold all of it.
//!
//! ```text
//!  written into .staging  ──▶  VERSION SHA256\n boot ID\n  ── flushed, then cut ──▶  VERSION SHA256\n
//! ```
//! Nothing is flushed while a release is laid into a slot, because a busy disk makes that take seconds. Until it was, a power
//! cut may leave files empty that look whole, and no file shows it: so in any other boot of the host than the one that it
//! names, an unflushed folder holds no release. Flushed is the mark alone that was cut to its first line, which is one change
//! of the file's length: done or not done after a power cut, and harmless to a folder that is being moved or removed meanwhile.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use proto::ids::ReleaseKey;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::StageError;
use super::unpack::remove_file;

/// It moves with the folder, so it is true however a swap ended.
const NAME: &str = ".deployex-release";
/// Longer ones are not ours.
const MAX_BYTES: u64 = 4 << 10;

struct Mark {
    key: ReleaseKey,
    /// The boot of the host in which it was laid and not flushed yet.
    unflushed_in: Option<String>,
}

/// Into a folder that is being made.
pub(super) fn write(folder: &Path, key: &ReleaseKey, boot: &str) -> Result<(), StageError> {
    let path = folder.join(NAME);
    // An archive that has this name in it must not choose what is written to.
    remove_file(&path)?;
    let text = format!("{}boot {boot}\n", first_line(key));
    let file = File::create_new(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(StageError::io("write", &path))
}

/// In the place of the one that is there: at no moment is there none.
pub(super) fn replace(folder: &Path, key: &ReleaseKey, boot: &str) -> Result<(), StageError> {
    let (path, beside) = (folder.join(NAME), folder.join(format!("{NAME}.new")));
    remove_file(&beside)?;
    let text = format!("{}boot {boot}\n", first_line(key));
    let file = File::create_new(&beside);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(StageError::io("write", &beside))?;
    std::fs::rename(&beside, &path).map_err(StageError::io("rename to", &path))
}

/// The release that lies in the folder; `None` where there is none, none that we put there, or none that is known to be whole.
pub(super) fn read(folder: &Path, boot: &str) -> Result<Option<ReleaseKey>, StageError> {
    let mark = open(folder, OFlags::RDONLY)?.map(|(_, mark)| mark);
    let whole = mark.filter(|it| it.unflushed_in.as_ref().is_none_or(|laid_in| laid_in == boot));
    Ok(whole.map(|it| it.key))
}

/// Brings what lies in the folder to the disk, where that was not done before. Takes as long as the disk does, and bears that
/// the folder is moved or removed meanwhile. What an earlier boot left unflushed stays so.
pub(super) fn flush(folder: &Path, boot: &str) -> Result<(), StageError> {
    let Some((file, mark)) = open(folder, OFlags::RDWR)? else { return Ok(()) };
    if mark.unflushed_in.as_deref() != Some(boot) {
        return Ok(());
    }
    rustix::fs::syncfs(&file).map_err(StageError::os("flush the disk of", folder))?;
    let cut = file.set_len(first_line(&mark.key).len() as u64).and_then(|()| file.sync_all());
    cut.map_err(StageError::io("write", &folder.join(NAME)))
}

/// The folder is the application's: what it put in the place of the mark is neither followed nor waited for.
fn open(folder: &Path, access: OFlags) -> Result<Option<(File, Mark)>, StageError> {
    let path = folder.join(NAME);
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(CWD, &path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR) => return Ok(None),
        Err(errno) => return Err(StageError::os("open", &path)(errno)),
    };
    let failed = || StageError::io("read", &path);
    if !file.metadata().map_err(failed())?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    (&file).take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed())?;
    Ok(std::str::from_utf8(&bytes).ok().and_then(parse).map(|mark| (file, mark)))
}

fn first_line(key: &ReleaseKey) -> String {
    format!("{} {}\n", key.version, key.sha256)
}

fn parse(text: &str) -> Option<Mark> {
    let (release, rest) = text.split_once('\n')?;
    let (version, sha256) = release.split_once(' ')?;
    let key = ReleaseKey { version: version.parse().ok()?, sha256: sha256.parse().ok()? };
    let unflushed_in = match rest {
        "" => None,
        rest => Some(rest.strip_prefix("boot ")?.strip_suffix('\n')?.to_owned()),
    };
    Some(Mark { key, unflushed_in })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proto::ids::Digest;

    use super::*;

    fn key() -> ReleaseKey {
        ReleaseKey { version: "0.1.0".parse().unwrap(), sha256: Digest([7; 32]) }
    }

    fn marked() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &key(), "this").unwrap();
        folder
    }

    #[test]
    fn a_release_that_was_not_flushed_is_there_in_the_boot_that_laid_it_and_in_no_other() {
        let folder = marked();
        assert_eq!(read(folder.path(), "this").unwrap(), Some(key()));
        assert_eq!(read(folder.path(), "another").unwrap(), None);
        // Whoever comes after a power cut cannot make whole what is not.
        flush(folder.path(), "another").unwrap();
        assert_eq!(read(folder.path(), "another").unwrap(), None);
    }

    #[test]
    fn a_release_that_was_flushed_is_there_in_every_boot() {
        let folder = marked();
        for _ in 0..2 {
            flush(folder.path(), "this").unwrap();
            assert_eq!(read(folder.path(), "another").unwrap(), Some(key()));
        }
        let text = fs::read_to_string(folder.path().join(NAME)).unwrap();
        assert_eq!(text, first_line(&key()), "as agents wrote it that flushed before");
    }

    #[test]
    fn whatever_a_power_cut_makes_of_a_mark_that_was_not_flushed_it_is_never_taken_for_flushed() {
        let folder = marked();
        let path = folder.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        let cut = first_line(&key()).len();
        for length in (0..whole.len()).filter(|length| *length != cut) {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read(folder.path(), "another").unwrap(), None, "{length} bytes");
            // The end of the last block is emptied before the file's length is changed.
            fs::write(&path, [&whole[..length], &vec![0; whole.len() - length]].concat()).unwrap();
            assert_eq!(read(folder.path(), "another").unwrap(), None, "zeros from {length}");
        }
        fs::write(&path, [&whole[..cut], &vec![0; whole.len() - cut]].concat()).unwrap();
        assert_eq!(read(folder.path(), "another").unwrap(), None);
    }

    #[test]
    fn what_an_application_puts_in_its_place_is_no_mark_and_is_left_alone() {
        let folder = marked();
        let path = folder.path().join(NAME);
        let other = folder.path().join("other");
        fs::rename(&path, &other).unwrap();
        let before = fs::read(&other).unwrap();
        let is_no_mark = |what: &str| {
            assert_eq!(read(folder.path(), "this").unwrap(), None, "{what}");
            flush(folder.path(), "this").unwrap();
        };
        is_no_mark("nothing");
        std::os::unix::fs::symlink(&other, &path).unwrap();
        is_no_mark("a link");
        assert_eq!(fs::read(&other).unwrap(), before);
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(CWD, &path, Mode::RUSR).unwrap();
        is_no_mark("a pipe");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        is_no_mark("a folder");
    }

    #[test]
    fn a_folder_that_goes_while_it_is_flushed_is_no_error() {
        let folder = marked();
        let (file, _) = open(folder.path(), OFlags::RDWR).unwrap().unwrap();
        fs::remove_dir_all(folder.path()).unwrap();
        file.set_len(3).unwrap();
        flush(folder.path(), "this").unwrap();
    }
}
