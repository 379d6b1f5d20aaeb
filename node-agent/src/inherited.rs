//! Children of the program that this one took the place of: keepers that the runtime of that one would have taken up.
//!
//! A process that begins another program keeps its children, and nobody else may wait for them. They are taken note of before
//! there is any child of this program, so that no end is taken from the runtime.

use std::io;

use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::keeper::procfs;

pub(crate) struct Inherited {
    children: Vec<Pid>,
    /// From before the children were listed, so that none can end unheard.
    ended: Signal,
}

impl Inherited {
    /// To be called before anything is started.
    pub(crate) fn take() -> io::Result<Self> {
        let ended = signal(SignalKind::child())?;
        let children = procfs::children(std::process::id());
        let pid = |it: u32| i32::try_from(it).ok().and_then(Pid::from_raw);
        Ok(Self { children: children.into_iter().filter_map(pid).collect(), ended })
    }

    /// Until all have ended, or this program does.
    pub(crate) async fn reap(mut self, cancel: CancellationToken) {
        loop {
            self.children.retain(|child| matches!(waitpid(Some(*child), WaitOptions::NOHANG), Ok(None)));
            if self.children.is_empty() {
                return;
            }
            tokio::select! {
                biased; // a program that stops leaves the rest to whoever comes next
                () = cancel.cancelled() => return,
                _ = self.ended.recv() => {}
            }
        }
    }
}
