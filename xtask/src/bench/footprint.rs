//! What it costs that the agent is there: its memory and CPU time when nothing happens, and the memory of each keeper.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::fleet::{self, Fleet, Published};
use super::procfs::{self, CpuTime};
use super::table::{Table, verdict};
use super::{machine, now, release};
use crate::command::find;
use crate::fixtures::Sample;
use crate::processes;
use crate::setup::{Tool, require};

pub(super) const ABOUT: &str = "Memory and CPU of an idle agent with its replicas, and of their keepers\n\n\
    A control plane, and an agent built for release, enrolled: it deploys the replicas of the Erlang sample in a release of \
    at least 50 MB, and one replica's log is followed once. Then it is left alone for the idle time and measured: resident \
    memory of the agent, private memory (USS) of each keeper, CPU time of the agent over as long again with its sampling \
    on. Beside it an idle `erl`, and supervisord with three idle programs where it is installed.";

const APP: &str = "erlang_demo";
const MEGABYTE: f64 = 1_000_000.0;

/// Of the agent, resident, with few replicas …
const AGENT_BAR: f64 = 15.0;
/// … these many at most …
const FEW: u16 = 3;
/// … and with more.
const BUSY_AGENT_BAR: f64 = 20.0;
/// What supervisord has beside us.
const PEERS_PROGRAMS: usize = 3;
/// Of a keeper, private.
const KEEPER_BAR: f64 = 1.0;
/// Of one core, in percent.
const CPU_BAR: f64 = 0.1;

pub(super) fn run(replicas: u16, idle: Duration) -> Result<()> {
    require(&[Tool::Erlang, Tool::Rebar3, Tool::ApplicationUser])?;
    fleet::build()?;
    let tarball = release::large(Sample::Erlang)?;
    let size = fs::metadata(&tarball.path)?.len();
    let applications = format!(
        "  - name: {APP}\n    language: erlang\n    replicas: {replicas}\n    \
         replica_ports: [{{ key: PORT, base: {} }}]\n    deploy_schedule_interval_ms: 1000\n    deploy: {{ strategy: stop_first, stable_after_ms: 3000 }}\n",
        // Not beside those that the fleet is about to take.
        fleet::free_ports(replicas + 5)? + 4
    );
    let release = Published { app: APP, version: &tarball.version, path: tarball.path };
    let fleet = Fleet::start(&[release], &applications)?;
    println!("deploying {replicas} replicas");
    fleet.settles(APP)?;
    let peers = Peers::start()?;
    let followed = fleet.follow_logs(APP, 1)?;
    sleep(Duration::from_secs(2));
    drop(followed);

    let agent = fleet.agent_pid();
    println!("leaving them alone for {} s", idle.as_secs());
    sleep(idle);
    let resident = procfs::resident(agent)?;
    let private = procfs::private(agent)?;
    println!("watching the agent's CPU time for {} s", idle.as_secs());
    let (before, since) = (CpuTime::of(agent)?, now());
    sleep(idle);
    let cpu = 100.0 * CpuTime::of(agent)?.since(&before) / since.elapsed().as_secs_f64();
    let keepers = keepers(&fleet, usize::from(replicas))?;

    println!("\n{}", machine::describe(fleet.path()));
    println!(
        "one run; release of {:.0} MB, {replicas} replicas, idle for {} s\n",
        megabytes(size),
        idle.as_secs()
    );
    print!("{}", figures(resident, private, cpu, &keepers, &peers.measure()));
    Ok(())
}

fn figures(resident: u64, private: u64, cpu: f64, keepers: &[u64], peers: &[(String, u64)]) -> Table {
    let mut table = Table::new(&["", "figure", "bar", ""]);
    let agent = megabytes(resident);
    let agent_bar = if keepers.len() <= usize::from(FEW) { AGENT_BAR } else { BUSY_AGENT_BAR };
    table.row([
        "agent, resident".into(),
        format!("{agent:.1} MB"),
        format!("≤ {agent_bar} MB"),
        verdict(agent <= agent_bar),
    ]);
    table.row([
        "agent, private".into(),
        format!("{:.1} MB", megabytes(private)),
        String::new(),
        String::new(),
    ]);
    for (nth, keeper) in keepers.iter().enumerate() {
        let keeper = megabytes(*keeper);
        let bar = format!("≤ {KEEPER_BAR} MB");
        table.row([
            format!("keeper {}, private", nth + 1),
            format!("{keeper:.2} MB"),
            bar,
            verdict(keeper <= KEEPER_BAR),
        ]);
    }
    table.row([
        "agent, CPU while idle".into(),
        format!("{cpu:.3} % of a core"),
        format!("≤ {CPU_BAR} %"),
        verdict(cpu <= CPU_BAR),
    ]);
    for (name, bytes) in peers {
        table.row([name.clone(), format!("{:.1} MB", megabytes(*bytes)), String::new(), String::new()]);
    }
    table
}

/// The private memory of each replica's keeper.
fn keepers(fleet: &Fleet, replicas: usize) -> Result<Vec<u64>> {
    let ours = processes::under(fleet.path());
    let pids = ours.iter().filter_map(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
    // One that waits for a replica to keep has no child.
    let keepers = pids.filter(|pid| {
        procfs::program(*pid).is_some_and(|it| it == "deployex-keeper") && !procfs::children(*pid).is_empty()
    });
    let private = keepers.map(procfs::private).collect::<Result<Vec<_>>>()?;
    if private.len() != replicas {
        bail!("there are {} keepers with a process, not {replicas}", private.len());
    }
    Ok(private)
}

#[expect(clippy::cast_precision_loss, reason = "memory of one process")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / MEGABYTE
}

/// What others take, idle as well.
struct Peers {
    children: Vec<(&'static str, Child)>,
    folder: TempDir,
}

impl Peers {
    fn start() -> Result<Self> {
        let mut peers = Self { children: Vec::new(), folder: tempfile::tempdir()? };
        let mut erl = Command::new("erl");
        erl.arg("-noshell");
        peers.add("an idle `erl`, resident", erl)?;
        match find("supervisord") {
            Some(supervisord) => {
                let folder = peers.folder.path();
                let configuration = folder.join("supervisord.conf");
                fs::write(&configuration, supervisord_conf(folder))?;
                let mut command = Command::new(supervisord);
                command.arg("--nodaemon").arg("--configuration").arg(configuration);
                peers.add("supervisord with three programs, resident", command)?;
            }
            None => println!("supervisord is not installed, so it is not beside us here"),
        }
        Ok(peers)
    }

    fn add(&mut self, name: &'static str, mut command: Command) -> Result<()> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        self.children.push((name, child));
        Ok(())
    }

    fn measure(&self) -> Vec<(String, u64)> {
        let resident = |child: &Child| procfs::resident(child.id()).ok();
        self.children
            .iter()
            .filter_map(|(name, child)| Some(((*name).to_owned(), resident(child)?)))
            .collect()
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            // SIGTERM, so that supervisord ends its programs.
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
            let _ = child.wait();
        }
    }
}

fn supervisord_conf(folder: &Path) -> String {
    let folder = folder.display();
    let mut text =
        format!("[supervisord]\nlogfile={folder}/log\npidfile={folder}/pid\nchildlogdir={folder}\n");
    for n in 1..=PEERS_PROGRAMS {
        let _ = write!(text, "[program:p{n}]\ncommand=sleep 1000000\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_stands_beside_its_bar() {
        let table = figures(14_000_000, 9_000_000, 0.2, &[300_000, 1_200_000], &[("erl".into(), 33_000_000)]);
        let text = table.to_string();
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        assert!(
            line("agent, resident").contains("14.0 MB") && line("agent, resident").ends_with("  met"),
            "{text}"
        );
        assert!(line("keeper 1").ends_with("  met") && line("keeper 2").ends_with("NOT MET"), "{text}");
        assert!(line("agent, CPU").ends_with("NOT MET"), "{text}");
        assert!(line("erl").ends_with("33.0 MB"), "{text}");
    }
}
