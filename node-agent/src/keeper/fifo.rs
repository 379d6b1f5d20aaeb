//! The named pipes between a program and its log files.
//!
//! They are named so that another keeper can open them again, and opened for reading and writing by everybody, so that the
//! death of any one reader neither breaks the program's output nor loses what lies in them. The agent holds them open too:
//! then nothing is lost even where keeper and program die one after the other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::pipe::fcntl_setpipe_size;

use super::procfs::{Stat, all, identity};

pub(crate) const STDOUT: &str = "stdout.fifo";
pub(crate) const STDERR: &str = "stderr.fifo";

/// What a program can print while nobody reads, without being held up: 100 ms of 10 MB/s. The system's usual limit.
pub(super) const CAPACITY: usize = 1 << 20;

/// The end that reads and never waits. Makes the FIFO where there is none.
pub(crate) fn open_reader(path: &Path) -> io::Result<File> {
    match mkfifoat(CWD, path, Mode::from_raw_mode(0o600)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let fifo = open(path, OFlags::NONBLOCK)?;
    // Only a wish: the system may grant less to one user's pipes.
    let _ = fcntl_setpipe_size(&fifo, CAPACITY);
    Ok(fifo)
}

/// The end that becomes a program's output. An open file of its own: programs change the mode of theirs as they like.
pub(super) fn open_writer(path: &Path) -> io::Result<File> {
    open(path, OFlags::empty())
}

/// Whoever has one of a slot's FIFOs for its output: its program, and what that has started. Nobody else is ever given them, and
/// keeper and agent, who have them open, do not print there. It also tells of those who have a session of their own and lost
/// their parents, as port programs of a BEAM do: their errors go where those of the machine went.
pub(crate) fn printers(slot: &Path) -> Vec<(u32, Stat)> {
    let fifos: Vec<_> = [STDOUT, STDERR].into_iter().filter_map(|name| identity(&slot.join(name))).collect();
    let prints = |pid: &u32| {
        ["1", "2"].into_iter().any(|fd| {
            identity(Path::new(&format!("/proc/{pid}/fd/{fd}"))).is_some_and(|it| fifos.contains(&it))
        })
    };
    all().filter(prints).filter_map(|pid| Some((pid, Stat::of(pid)?))).collect()
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | flags;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)?;
    if file.metadata()?.file_type().is_fifo() { Ok(file) } else { Err(rustix::io::Errno::EXIST.into()) }
}
