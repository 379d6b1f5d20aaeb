//! How long an application whose VM crashed is not served: from the SIGKILL of the replica until its successor answers on its
//! port, beside what nobody can be faster than: the start of the same release alone.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::fleet::{self, Fleet, Published};
use super::restart::program::Program;
use super::restart::subject::{AGE, CALM, kill_hard, our_replica};
use super::statistics::{interval, median};
use super::table::{Table, verdict};
use super::{machine, now, procfs};
use crate::command::{command, run_quietly};
use crate::fixtures::{self, Sample};
use crate::setup::{Tool, require};

pub(super) const ABOUT: &str = "From the SIGKILL of a replica until its application answers again, beside a bare start\n\n\
    The Erlang sample's release under an agent built for release with its control plane: a replica is killed, and its port is \
    asked every millisecond until the successor has answered a request. In turns with it the same release is started by \
    `bin/APP foreground` alone, from its execution until it answers. Every crash is the first after a stable time. The ratio \
    is that of each pair.";

/// Times the bare start.
const BAR: f64 = 1.05;
const LOOK: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(pairs: usize) -> Result<()> {
    require(&[Tool::Erlang, Tool::Rebar3, Tool::ApplicationUser])?;
    fleet::build()?;
    let tarball = fixtures::tarball(Sample::Erlang, "0.1.0")?;
    let published = Published { app: tarball.sample.name(), version: "0.1.0", path: tarball.path };
    let program = Program::beam(&published)?;
    let port = program.port.context("a release of the sample has a port")?;
    let fleet = Fleet::start(std::slice::from_ref(program.published), &program.application(1))?;
    fleet.rests(published.app)?;
    let bare = Bare::unpack(&program, &fleet, port + 1)?;
    println!("killing it and starting it alone, {pairs} times each");
    let (mut ours, mut alone) = (Vec::new(), Vec::new());
    // The first pair warms the caches.
    for pair in 0..=pairs {
        let turns = if pair % 2 == 0 {
            let crash = crash(&fleet, port)?;
            (crash, bare.start()?)
        } else {
            let start = bare.start()?;
            (crash(&fleet, port)?, start)
        };
        if pair > 0 {
            ours.push(turns.0);
            alone.push(turns.1);
        }
    }
    println!("\n{}", machine::describe(&std::env::temp_dir()));
    println!("until a request is answered; {pairs} alternating pairs\n");
    print!("{}", figures(&ours, &alone));
    Ok(())
}

fn figures(ours: &[f64], alone: &[f64]) -> Table {
    let ratios: Vec<f64> = ours.iter().zip(alone).map(|(ours, alone)| ours / alone).collect();
    let (low, high) = interval(&ratios);
    let middle = median(&ratios);
    let mut table = Table::new(&["", "median", "ratio", "bar", ""]);
    table.row([
        "crash to answer, DeployEx".to_owned(),
        format!("{:.0} ms", median(ours)),
        format!("{middle:.3} (95 %: {low:.3} to {high:.3})"),
        format!("≤ {BAR}"),
        verdict(middle <= BAR),
    ]);
    let bare = format!("{:.0} ms", median(alone));
    table.row(["bare start to answer".to_owned(), bare, String::new(), String::new(), String::new()]);
    table
}

/// In milliseconds, from the SIGKILL of the replica to the first answer of its successor.
fn crash(fleet: &Fleet, port: u16) -> Result<f64> {
    sleep(AGE + CALM);
    let replica = our_replica(&fleet.services()).context("there is no replica to kill")?;
    let since = now();
    kill_hard(replica)?;
    // The port is the dead one's for as long as the kernel takes to end it.
    while procfs::program(replica).is_some() && since.elapsed() < PATIENCE {
        sleep(LOOK);
    }
    until_answered(port, since)
}

fn until_answered(port: u16, since: Instant) -> Result<f64> {
    while since.elapsed() < PATIENCE {
        if answers(port) {
            return Ok(since.elapsed().as_secs_f64() * 1000.0);
        }
        sleep(LOOK);
    }
    bail!("nothing answered on port {port} within {} s", PATIENCE.as_secs())
}

fn answers(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        stream.read(&mut [0; 16])
    };
    ask().is_ok_and(|count| count > 0)
}

/// The same release without anybody around it.
struct Bare<'a> {
    app: &'a str,
    argument: &'static str,
    folder: PathBuf,
    port: u16,
    epmd: u16,
}

impl<'a> Bare<'a> {
    fn unpack(program: &Program<'a>, fleet: &Fleet, port: u16) -> Result<Self> {
        let folder = fleet.path().join("bare");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        run_quietly(command("tar").arg("-xzf").arg(&program.published.path).arg("-C").arg(&folder))?;
        let (app, argument) = (program.published.app, program.argument);
        Ok(Self { app, argument, folder, port, epmd: fleet.epmd_port() })
    }

    /// In milliseconds, from the execution to the first answer.
    fn start(&self) -> Result<f64> {
        let since = now();
        let mut child = self.spawn(&self.folder)?;
        let took = until_answered(self.port, since);
        kill_hard(child.id())?;
        child.wait()?;
        sleep(CALM);
        took
    }

    fn spawn(&self, folder: &Path) -> Result<Child> {
        let mut start = command(folder.join("bin").join(self.app));
        start.arg(self.argument).env("HOME", folder).env("PORT", self.port.to_string());
        start.env("ERL_EPMD_PORT", self.epmd.to_string());
        start.env("RELX_REPLACE_OS_VARS", "true").env("RELEASE_SSL_OPTIONS", "");
        start.env("RELEASE_NODE", "bench-bare").env("RELEASE_COOKIE", "bench");
        start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        start.spawn().context("cannot start the release")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_is_held_to_the_bar() {
        let alone: Vec<f64> = (0..20).map(|it| 500.0 + f64::from(it)).collect();
        let table = |times: f64| {
            let ours: Vec<f64> = alone.iter().map(|it| it * times).collect();
            figures(&ours, &alone).to_string()
        };
        assert!(table(1.04).contains("1.040 (95 %: 1.040 to 1.040)") && table(1.04).contains("  met"));
        assert!(table(1.06).contains("NOT MET"), "{}", table(1.06));
    }
}
