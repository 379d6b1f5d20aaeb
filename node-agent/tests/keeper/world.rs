//! A slot in a temporary folder, and what one looks at from outside.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{Debug, Write};
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use node_agent::cgroup::home::Home;
use node_agent::supervisor::process::{
    Confinement, Ended, FindError, Found, Keeper, Keepers, LOG_MODE, LaunchError, LaunchSpec, SlotDir,
    Standby, UserIds, find, launch,
};
use tempfile::TempDir;

pub(crate) const KEEPER: &str = env!("CARGO_BIN_EXE_deployex-keeper");

pub(crate) struct World {
    folder: TempDir,
    pub(crate) slot: SlotDir,
    pub(crate) keepers: Keepers,
    /// Of what is launched from now on.
    pub(crate) confinement: Option<Confinement>,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let slot = SlotDir::new(folder.path().join("slot"));
        let keepers = Keepers::new(KEEPER, Home::none("this test has none"));
        Self { folder, slot, keepers, confinement: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn spec(&self, ticket: u64, program: &str, args: &[&str]) -> LaunchSpec {
        LaunchSpec {
            ticket,
            program: program.into(),
            args: args.iter().map(OsString::from).collect(),
            env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
            cwd: self.folder.path().to_owned(),
            user: None,
            stdout_log: self.path("log/stdout.log"),
            stderr_log: self.path("log/stderr.log"),
            log_mode: LOG_MODE,
        }
    }

    pub(crate) fn sh(&self, ticket: u64, script: &str) -> LaunchSpec {
        self.spec(ticket, "/bin/sh", &["-c", script])
    }

    pub(crate) async fn launch(&self, spec: &LaunchSpec) -> Result<Keeper, LaunchError> {
        // As an agent does it: each launch has a group of its own, because its keeper removes it.
        let named =
            |it: &Confinement| Confinement { name: format!("{}-{}", it.name, spec.ticket), ..it.clone() };
        let confinement = self.confinement.as_ref().map(named);
        launch(&Standby::new(self.keepers.clone()), &self.slot, spec, confinement.as_ref()).await
    }

    pub(crate) async fn run(&self, script: &str) -> Ended {
        soon("the end", self.launch(&self.sh(1, script)).await.unwrap().ended()).await
    }

    pub(crate) async fn find(&self) -> Result<Found, FindError> {
        find(&self.keepers, &self.slot).await
    }

    pub(crate) async fn find_running(&self) -> Keeper {
        match self.find().await.unwrap() {
            Found::Running(keeper) => keeper,
            other => panic!("not running: {other:?}"),
        }
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(self.path("log/stdout.log")).unwrap_or_default()
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.path("log/stderr.log")).unwrap_or_default()
    }

    /// The process that keeps this slot.
    pub(crate) fn keeper_pid(&self) -> Option<u32> {
        let slot = fs::canonicalize(self.slot.path()).unwrap();
        processes().into_iter().find(|pid| {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|it| it == slot)
                && fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|it| it == Path::new(KEEPER))
        })
    }

    pub(crate) async fn kept_by(&self) -> u32 {
        eventually("a keeper", || self.keeper_pid()).await
    }
}

impl Drop for World {
    /// A test that failed leaves nothing running; its keeper ends what the process leaves, and itself.
    fn drop(&mut self) {
        let record = fs::read_to_string(self.slot.path().join("process")).unwrap_or_default();
        let pid = record.lines().find_map(|line| line.strip_prefix("pid ")?.parse().ok());
        if let Some(pid) = pid.filter(|_| std::thread::panicking()) {
            kill(pid);
        }
    }
}

pub(crate) fn nobody() -> UserIds {
    UserIds { uid: 65534, gid: 65534, groups: Vec::new() }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Neither gone nor a zombie.
pub(crate) fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(')').map(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X'])))
        .unwrap_or(false)
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
}

pub(crate) fn kill(pid: u32) {
    signal(pid, rustix::process::Signal::KILL);
}

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(Duration::from_secs(30), future).await;
    result.unwrap_or_else(|_| panic!("no {what} within 30 s"))
}

/// The numbers below `end`, one a line, after `prefix`.
pub(crate) fn numbered(prefix: &str, end: u32) -> String {
    (0..end).fold(String::new(), |mut all, i| {
        let _ = writeln!(all, "{prefix}{i}");
        all
    })
}

/// Polls until there is something; never waits for a while that has to be long enough.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..6_000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never saw {what}")
}

pub(crate) async fn eventually_is<T: PartialEq + Debug>(want: T, mut look: impl FnMut() -> T) {
    let mut last = look();
    for _ in 0..6_000 {
        if last == want {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        last = look();
    }
    assert_eq!(last, want);
}
