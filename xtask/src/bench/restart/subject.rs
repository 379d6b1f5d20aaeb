//! One supervisor with one replica that is killed again and again. All are watched in the same way.

use std::fs::{self, File, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::executable;
use super::program::Program;
use super::watch::Watch;
use crate::bench::fleet::Fleet;
use crate::bench::{now, procfs};
use crate::command::command;
use crate::processes;

/// For the successor: supervisord takes up to two seconds.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);
/// After a start, before the next replica of anybody is killed.
pub(in crate::bench) const CALM: Duration = Duration::from_millis(250);
/// runit and supervisord hold back what ran for less than a second, and we what was ready for less than we were told.
pub(in crate::bench) const AGE: Duration = Duration::from_millis(1_100);

pub(super) struct Subject {
    name: &'static str,
    supervisor: Supervisor,
    watch: Watch,
    port: Option<u16>,
    ready_since: Instant,
}

enum Supervisor {
    /// Whose replicas are children of keepers, all below this folder.
    Ours(PathBuf),
    Peer(Child),
}

impl Subject {
    pub(super) fn ours(program: &Program<'_>, fleet: &Fleet) -> Result<Self> {
        let app = program.published.app;
        let release = fleet.path().join("var/service").join(app).join("1/current");
        let supervisor = Supervisor::Ours(fleet.services());
        Self::watched("DeployEx", supervisor, &executable(&release, app), program.port)
    }

    pub(super) fn runit(program: &Program<'_>, fleet: &Fleet, folder: &Path) -> Result<Self> {
        let start = executable(&folder.join("release"), program.published.app);
        let run = folder.join("run");
        match program.port {
            // Where no argument is needed, no shell is.
            None => std::os::unix::fs::symlink(&start, &run)?,
            Some(_) => {
                fs::write(&run, format!("#!/bin/sh\nexec {} {}\n", start.display(), program.argument))?;
                fs::set_permissions(&run, Permissions::from_mode(0o755))?;
            }
        }
        let mut runsv = command("runsv");
        runsv.arg(folder);
        let port = program.port.map(|port| port + 1);
        let supervisor = started(runsv, "runit", port, fleet, folder)?;
        Self::watched("runit", supervisor, &start, port)
    }

    pub(super) fn supervisord(program: &Program<'_>, fleet: &Fleet, folder: &Path) -> Result<Self> {
        let start = executable(&folder.join("release"), program.published.app);
        let configuration = folder.join("supervisord.conf");
        let shown = folder.display();
        let text = format!(
            "[supervisord]\nnodaemon=true\nlogfile={shown}/log\npidfile={shown}/pid\nchildlogdir={shown}\n\
             [program:p]\ncommand={} {}\nautorestart=true\n",
            start.display(),
            program.argument
        );
        fs::write(&configuration, text)?;
        let mut supervisord = command("supervisord");
        supervisord.arg("--configuration").arg(configuration);
        let port = program.port.map(|port| port + 2);
        let supervisor = started(supervisord, "supervisord", port, fleet, folder)?;
        Self::watched("supervisord", supervisor, &start, port)
    }

    fn watched(name: &'static str, supervisor: Supervisor, file: &Path, port: Option<u16>) -> Result<Self> {
        let mut subject = Self { name, supervisor, watch: Watch::on(file)?, port, ready_since: now() };
        subject.until_ready(None)?;
        Ok(subject)
    }

    /// Kills the replica, and says after how many milliseconds its successor was executed. Returns when that is ready.
    pub(super) fn kill(&mut self) -> Result<f64> {
        sleep(AGE.saturating_sub(self.ready_since.elapsed()));
        let replica = self.replica().with_context(|| format!("{} has no replica", self.name))?;
        self.watch.forget()?;
        let since = now();
        kill(replica, Signal::KILL)?;
        self.watch.wait(PATIENCE).with_context(|| self.name)?;
        let took = since.elapsed().as_secs_f64() * 1000.0;
        self.until_ready(Some(replica))?;
        sleep(CALM);
        Ok(took)
    }

    fn until_ready(&mut self, before: Option<u32>) -> Result<()> {
        let since = now();
        while since.elapsed() < PATIENCE {
            let is_there = self.replica().is_some_and(|it| Some(it) != before);
            if is_there && self.port.is_none_or(|port| TcpStream::connect(("127.0.0.1", port)).is_ok()) {
                self.ready_since = now();
                return Ok(());
            }
            sleep(LOOK);
        }
        bail!("the replica of {} was not ready within {} s", self.name, PATIENCE.as_secs())
    }

    fn replica(&self) -> Option<u32> {
        match &self.supervisor {
            Supervisor::Peer(child) => procfs::children(child.id()).into_iter().next(),
            Supervisor::Ours(folder) => our_replica(folder),
        }
    }
}

/// The one replica that keepers have below this folder.
pub(in crate::bench) fn our_replica(folder: &Path) -> Option<u32> {
    let below = processes::under(folder).into_iter();
    let pids = below.filter_map(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
    let is_kept =
        |pid: &u32| procfs::parent(*pid).and_then(procfs::program).is_some_and(|it| it == "deployex-keeper");
    // What a keeper has just forked is not the replica yet.
    let is_replica = |pid: &u32| procfs::program(*pid).is_some_and(|it| it != "deployex-keeper");
    pids.filter(|pid| is_kept(pid) && is_replica(pid)).min()
}

pub(in crate::bench) fn kill_hard(pid: u32) -> Result<()> {
    kill(pid, Signal::KILL)
}

/// With what the release needs from its environment; its output goes where nobody has to read it.
fn started(
    mut supervisor: Command,
    name: &'static str,
    port: Option<u16>,
    fleet: &Fleet,
    folder: &Path,
) -> Result<Supervisor> {
    let output = File::create(folder.join("output"))?;
    supervisor.env("HOME", folder).env("ERL_EPMD_PORT", fleet.epmd_port().to_string());
    supervisor.env("RELX_REPLACE_OS_VARS", "true").env("RELEASE_SSL_OPTIONS", "");
    supervisor.env("RELEASE_NODE", format!("bench-{name}")).env("RELEASE_COOKIE", "bench");
    if let Some(port) = port {
        supervisor.env("PORT", port.to_string());
    }
    supervisor.stdout(output.try_clone()?).stderr(output);
    Ok(Supervisor::Peer(supervisor.spawn().with_context(|| format!("cannot start {name}"))?))
}

fn kill(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process has a positive number")?;
    kill_process(pid, signal).with_context(|| format!("cannot signal process {}", pid.as_raw_nonzero()))
}

impl Drop for Subject {
    fn drop(&mut self) {
        let Supervisor::Peer(child) = &mut self.supervisor else { return };
        // SIGTERM: both then end their programs.
        let _ = kill(child.id(), Signal::TERM);
        let _ = child.wait();
    }
}
