//! Says when a file is opened, which is also what executing it does. The kernel tells; nothing is polled.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::{Errno, read};

pub(super) struct Watch(OwnedFd);

impl Watch {
    pub(super) fn on(file: &Path) -> Result<Self> {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&watch, file, WatchFlags::OPEN)
            .with_context(|| format!("cannot watch {}", file.display()))?;
        Ok(Self(watch))
    }

    /// What happened until now does not count.
    pub(super) fn forget(&self) -> Result<()> {
        let mut events = [MaybeUninit::<u8>::uninit(); 4096];
        loop {
            match read(&self.0, &mut events) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns at the next opening.
    pub(super) fn wait(&self, patience: Duration) -> Result<()> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::try_from(patience)?))? {
            0 => bail!("nobody started it again within {} s", patience.as_secs()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn an_execution_is_seen_and_what_was_before_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::copy("/bin/true", &program).unwrap();
        let watch = Watch::on(&program).unwrap();
        drop(std::fs::File::open(&program).unwrap());
        watch.forget().unwrap();
        assert!(watch.wait(Duration::ZERO).is_err());
        assert!(Command::new(&program).status().unwrap().success());
        watch.wait(Duration::from_secs(10)).unwrap();
    }
}
