//! The line to a keeper, line by line.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::SlotDir;
use super::silence::{self, Turn};
use crate::cgroup::home::Home;
use crate::keeper::SOCKET;
use crate::keeper::protocol::{MAX_LINE, Request, Said};

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    /// The keeper itself; `None`: it cannot be told who that is.
    keeper: Option<OwnedFd>,
    pid: Option<u32>,
    /// Where the group of its program goes.
    home: Arc<Home>,
    /// What came after the last line that was taken.
    partial: Vec<u8>,
}

impl Connection {
    /// To a keeper that is there.
    pub(super) async fn open(dir: &SlotDir) -> io::Result<Self> {
        // The path of a socket has at most 108 bytes, that of the folder may have more.
        let folder = open(dir.path(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
        let stream = UnixStream::connect(path).await?;
        let keeper = stream.peer_cred().ok().and_then(|it| pidfd(it.pid()?));
        let home = Arc::new(Home::none("it has its program already"));
        Ok(Self { stream, keeper, pid: None, home, partial: Vec::new() })
    }

    /// To a new keeper, which waits for its order.
    pub(super) fn spawn(keeper_exe: &Path, home: Arc<Home>) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        // The handle is dropped: a keeper outlives it, and the runtime takes up those that end before us.
        let child = tokio::process::Command::new(keeper_exe)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pid = child.id();
        let keeper = pid.and_then(|pid| pidfd(i32::try_from(pid).ok()?));
        Ok(Self { stream: UnixStream::from_std(ours)?, keeper, pid, home, partial: Vec::new() })
    }

    /// Of one that was started here.
    pub(super) fn pid(&self) -> Option<u32> {
        self.pid
    }

    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    /// The same, its program's group to go there.
    pub(super) fn at(self, home: Home) -> Self {
        Self { home: Arc::new(home), ..self }
    }

    /// About a keeper that says nothing.
    pub(super) fn act(&self, turn: Turn) {
        if let Some(keeper) = &self.keeper {
            silence::act(turn, keeper);
        }
    }

    /// A keeper's first and only one.
    pub(super) async fn order(&mut self, order: &[u8]) -> io::Result<()> {
        self.stream.write_all(order).await
    }

    /// The next thing it says; `None` when it is gone, or not a keeper. May be dropped at any time: what had come stays.
    pub(super) async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.partial.drain(..=end).collect();
                return Said::parse(std::str::from_utf8(&line[..end]).ok()?);
            }
            if self.partial.len() > MAX_LINE {
                return None;
            }
            self.stream.readable().await.ok()?;
            let mut chunk = [0; MAX_LINE];
            match self.stream.try_read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.partial.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }

    /// At once or not at all: a keeper reads, or it is gone.
    pub(super) fn say(&self, request: &Request) -> io::Result<()> {
        let line = format!("{request}\n");
        match self.stream.try_write(line.as_bytes())? {
            count if count == line.len() => Ok(()),
            _ => Err(ErrorKind::WriteZero.into()),
        }
    }
}

/// Of a process that is there now, because it holds the other end of a line.
fn pidfd(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}
