//! One output of the program on its way from FIFO to log file, without ever being in our own memory.
//!
//! `splice` takes bytes out of the FIFO as it puts them into the file, in one system call that a SIGKILL does not tear
//! apart; so another keeper goes on exactly there. It refuses files opened for appending, hence the offset: this is the
//! only writer. A log that cannot be written loses bytes, which are counted and told in the log, and holds up nobody.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

use super::fifo::CAPACITY;

/// From a FIFO to its log.
pub(super) struct Drain {
    pub(super) fifo: File,
    log: LogFile,
    /// Where bytes go that the log cannot take.
    null: File,
    /// In all.
    dropped: u64,
    /// Since the log last took anything, and why.
    untold: u64,
    why: i32,
}

struct LogFile {
    path: PathBuf,
    mode: u32,
    file: File,
    offset: u64,
}

/// What a step of a drain found in the FIFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Bytes,
}

impl Drain {
    pub(super) fn new(fifo: File, log: &Path, mode: u32) -> io::Result<Self> {
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        Ok(Self { fifo, log: LogFile::open(log, mode)?, null, dropped: 0, untold: 0, why: 0 })
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Moves at most one FIFO full.
    pub(super) fn step(&mut self) -> Found {
        if self.untold > 0 && self.tell_loss().is_err() {
            return self.discard();
        }
        self.log.follow_file();
        loop {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            match splice(&self.fifo, None, &self.log.file, Some(&mut self.log.offset), CAPACITY, flags) {
                Ok(0) | Err(Errno::AGAIN) => return Found::Nothing,
                Ok(_) => return Found::Bytes,
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.why = error.raw_os_error();
                    return self.discard();
                }
            }
        }
    }

    /// Moves what is there when the program has ended; no more than twice what a FIFO holds, for what the program left
    /// behind may print for ever.
    pub(super) fn finish(&mut self) {
        let mut steps = 0;
        while steps < 2 * CAPACITY / 4096 && self.step() == Found::Bytes {
            steps += 1;
        }
    }

    pub(super) fn rotate(&mut self, name: &str) -> io::Result<()> {
        self.log.rotate(name)
    }

    fn discard(&mut self) -> Found {
        match splice(&self.fifo, None, &self.null, None, CAPACITY, SpliceFlags::NONBLOCK) {
            Ok(0) | Err(_) => Found::Nothing,
            Ok(bytes) => {
                self.dropped += bytes as u64;
                self.untold += bytes as u64;
                Found::Bytes
            }
        }
    }

    fn tell_loss(&mut self) -> io::Result<()> {
        let why = io::Error::from_raw_os_error(self.why);
        let line = format!(
            "[deployex] {} bytes of output were dropped here, because the log could not be written: {why}\n",
            self.untold
        );
        self.log.append_line(&line)?;
        self.untold = 0;
        Ok(())
    }
}

impl LogFile {
    fn open(path: &Path, mode: u32) -> io::Result<Self> {
        let file = match Self::open_file(path, mode) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = path.parent().unwrap_or(Path::new("."));
                DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
                Self::open_file(path, mode)?
            }
            result => result?,
        };
        let offset = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), mode, file, offset })
    }

    fn open_file(path: &Path, mode: u32) -> io::Result<File> {
        // Not blocking, for somebody may have put a FIFO there.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
            .open(path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::INVAL.into()) }
    }

    /// People truncate and delete logs under programs.
    fn follow_file(&mut self) {
        let Ok(metadata) = self.file.metadata() else { return };
        if metadata.nlink() == 0 {
            if let Ok(fresh) = Self::open(&self.path, self.mode) {
                *self = fresh;
            }
        } else if metadata.len() < self.offset {
            self.offset = metadata.len();
        }
    }

    /// Never over a file that is there. Killed between the two steps, the next keeper does the second by opening the log.
    fn rotate(&mut self, name: &str) -> io::Result<()> {
        let archive = self.path.with_file_name(name);
        renameat_with(CWD, &self.path, CWD, &archive, RenameFlags::NOREPLACE)?;
        *self = Self::open(&self.path, self.mode)?;
        Ok(())
    }

    /// Wholly or not at all.
    fn append_line(&mut self, line: &str) -> io::Result<()> {
        self.follow_file();
        let mut last = [b'\n'];
        if self.offset > 0 {
            self.file.read_exact_at(&mut last, self.offset - 1)?;
        }
        let line = if last == [b'\n'] { line.to_owned() } else { format!("\n{line}") };
        match self.file.write_all_at(line.as_bytes(), self.offset) {
            Ok(()) => {
                self.offset += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                let _ = self.file.set_len(self.offset);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::fifo::{open_reader, open_writer};
    use super::*;

    struct Fixture {
        folder: tempfile::TempDir,
        program: File,
        drain: Drain,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let reader = open_reader(&fifo).unwrap();
        let program = open_writer(&fifo).unwrap();
        let drain = Drain::new(reader, &folder.path().join("logs/a.log"), 0o600).unwrap();
        Fixture { folder, program, drain }
    }

    impl Fixture {
        fn print(&mut self, text: &str) {
            self.program.write_all(text.as_bytes()).unwrap();
            assert_eq!(self.drain.step(), Found::Bytes);
            assert_eq!(self.drain.step(), Found::Nothing);
        }

        fn log(&self, name: &str) -> String {
            std::fs::read_to_string(self.folder.path().join("logs").join(name)).unwrap()
        }
    }

    #[test]
    fn output_is_added_to_a_log_that_is_there() {
        let mut it = fixture();
        it.print("one\n");
        let reader = open_reader(&it.folder.path().join("fifo")).unwrap();
        it.drain = Drain::new(reader, &it.folder.path().join("logs/a.log"), 0o600).unwrap();
        it.print("two\n");
        assert_eq!(it.log("a.log"), "one\ntwo\n");
        let mode = std::fs::metadata(it.folder.path().join("logs/a.log")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_log_that_was_truncated_or_deleted_gets_no_hole() {
        let mut it = fixture();
        it.print("one\n");
        std::fs::write(it.folder.path().join("logs/a.log"), "").unwrap();
        it.print("two\n");
        assert_eq!(it.log("a.log"), "two\n");
        std::fs::remove_file(it.folder.path().join("logs/a.log")).unwrap();
        it.print("three\n");
        assert_eq!(it.log("a.log"), "three\n");
    }

    #[test]
    fn rotation_never_replaces_a_file() {
        let mut it = fixture();
        it.print("one\n");
        it.drain.rotate("a.log.1").unwrap();
        it.print("two\n");
        assert_eq!((it.log("a.log.1").as_str(), it.log("a.log").as_str()), ("one\n", "two\n"));
        let refused = it.drain.rotate("a.log.1").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        it.print("three\n");
        assert_eq!(it.log("a.log"), "two\nthree\n");
    }

    #[test]
    fn neither_a_link_nor_a_pipe_is_taken_for_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = open_reader(&folder.path().join("fifo")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("link")).unwrap();
        for name in ["link", "fifo"] {
            assert!(
                Drain::new(fifo.try_clone().unwrap(), &folder.path().join(name), 0o600).is_err(),
                "{name}"
            );
        }
    }

    #[test]
    fn what_a_log_cannot_take_is_counted_and_told_later() {
        let mut it = fixture();
        it.print("half a li");
        // A folder that nothing can be written to is not to be had as root, a file opened for reading is.
        let writable = std::mem::replace(
            &mut it.drain.log.file,
            File::open(it.folder.path().join("logs/a.log")).unwrap(),
        );
        it.print("lost\n");
        it.print("lost too\n");
        assert_eq!(it.drain.dropped(), 14);
        it.drain.log.file = writable;
        it.print("kept\n");
        let log = it.log("a.log");
        assert!(log.starts_with("half a li\n[deployex] 14 bytes of output were dropped"), "{log}");
        assert!(log.ends_with("\nkept\n"), "{log}");
        assert_eq!(it.drain.dropped(), 14);
    }
}
