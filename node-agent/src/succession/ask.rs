//! Asking the agent that runs to make room for the program that lies in its place, and waiting for how it goes.

use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::Stage;
use crate::supervisor::Paths;

/// Looking at the new program takes ten seconds where it hangs; what ends may wait for a disk.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// One that ends is begun again by systemd within a second.
const AWAY: Duration = Duration::from_secs(5);

/// What happened, in words. An error: this agent goes on as it is, or it is not known.
pub(crate) async fn ask(paths: &Paths) -> anyhow::Result<String> {
    let pid = holder(paths)?.with_context(|| {
        format!("no agent works on {}; begin it: what lies there by then is what runs", paths.var().display())
    })?;
    if !hears_hangup(pid) {
        bail!(
            "the agent that runs (pid {pid}) is of a version that ends when it is asked: restart it instead, as in \
             `systemctl restart deployex-agent`; no replica is touched by that"
        );
    }
    let ledger = paths.node_ledger();
    let last = || anyhow::Ok(ledger.handover()?);
    let before = last()?.map_or(0, |it| it.number);
    let number =
        i32::try_from(pid).ok().and_then(Pid::from_raw).context("the agent's lock names no process")?;
    kill_process(number, Signal::HUP).with_context(|| format!("cannot ask the agent (pid {pid})"))?;
    let give_up = Instant::now() + PATIENCE;
    let mut seen = Instant::now();
    loop {
        match last()?.filter(|it| it.number > before) {
            Some(it) if matches!(it.stage, Stage::Done | Stage::Same) => return Ok(it.text),
            Some(it) if matches!(it.stage, Stage::Failed | Stage::Refused) => bail!("{}", it.text),
            _ => {}
        }
        if holder(paths)?.is_some() {
            seen = Instant::now();
        }
        if seen.elapsed() > AWAY {
            bail!("the agent has ended and is not begun again; its log says why, and its replicas go on");
        }
        if Instant::now() > give_up {
            bail!("the agent (pid {pid}) was asked and has not said what came of it; its log may");
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Who holds the agent's lock.
fn holder(paths: &Paths) -> anyhow::Result<Option<u32>> {
    let path = paths.agent().join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
    };
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return Ok(None);
    }
    let mut pid = String::new();
    (&file).take(20).read_to_string(&mut pid).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(pid.trim().parse().ok())
}

/// Whoever does not would be ended by it.
fn hears_hangup(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|it| it.strip_prefix("SigCgt:"));
    let hangup = 1_u64 << (Signal::HUP.as_raw() - 1);
    caught.and_then(|it| u64::from_str_radix(it.trim(), 16).ok()).is_some_and(|it| it & hangup != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_is_asked_where_no_agent_works_and_none_that_would_end() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().to_owned(), folder.path().to_owned());
        let why = ask(&paths).await.unwrap_err().to_string();
        assert!(why.starts_with("no agent works on"), "{why}");
        std::fs::create_dir(paths.agent()).unwrap();
        let mut deaf = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let lock = paths.agent().join("lock");
        std::fs::write(&lock, format!("{}\n", deaf.id())).unwrap();
        assert!(ask(&paths).await.unwrap_err().to_string().starts_with("no agent works on"));
        let held = File::open(&lock).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        let why = ask(&paths).await.unwrap_err().to_string();
        assert!(why.contains("restart it instead"), "{why}");
        assert!(deaf.try_wait().unwrap().is_none(), "it was left alone");
        deaf.kill().unwrap();
        deaf.wait().unwrap();
    }
}
