//! What clients of an NGINX before three replicas lose, and how long they wait, while these are replaced, restarted or crash:
//! with the upstream file that an agent keeps, and beside it with a list that nobody changes.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::fleet::{self, Fleet, Published};
use super::table::{Table, verdict};
use super::{machine, now};
use crate::fixtures::{self, Sample, Tarball};
use crate::load::{Answer, Load};
use crate::setup::{Tool, require};
use proxy::Proxy;

mod proxy;

pub(super) const ABOUT: &str = "Requests lost and waited for during a rolling deployment, a rolling restart and a crash\n\n\
    Three replicas of the Erlang sample behind an NGINX of their own, twice: once with the upstream file that the agent keeps \
    (ready slots only, drained before a stop), and once with a static list of the same ports and no drain, which is what one \
    writes by hand. Requests come at a steady rate whatever becomes of them, each on a connection of its own, and none is \
    repeated by the client. Phases alternate between the two; latencies are from when a request was due.";

const APP: &str = "erlang_demo";
const REPLICAS: u16 = 3;
/// Of steady traffic before and after what happens.
const QUIET: Duration = Duration::from_secs(3);

pub(super) fn run(turns: usize, rate: u32) -> Result<()> {
    require(&[Tool::Erlang, Tool::Rebar3, Tool::Nginx, Tool::ApplicationUser])?;
    fleet::build()?;
    let subjects = [Subject::start(Upstream::Kept)?, Subject::start(Upstream::Static)?];
    let mut found: BTreeMap<(Phase, Upstream), Vec<Answers>> = BTreeMap::new();
    for turn in 0..turns {
        for phase in [Phase::Deployment, Phase::Restart, Phase::Crash] {
            // Ours first, then the peer's, then the other way round.
            let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
            for subject in order.map(|it| &subjects[it]) {
                println!("{} of {turns}: {}, {}", turn + 1, phase.name(), subject.upstream.name());
                let answers = subject.measure(phase, turn, rate)?;
                found.entry((phase, subject.upstream)).or_default().push(answers);
            }
        }
    }
    println!("\n{}", machine::describe(&std::env::temp_dir()));
    println!("{rate} requests/s, {REPLICAS} replicas, {turns} turns of each\n");
    print!("{}", table(&found));
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Deployment,
    Restart,
    Crash,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Deployment => "rolling deployment",
            Self::Restart => "rolling restart",
            Self::Crash => "crash of one replica",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Upstream {
    Kept,
    Static,
}

impl Upstream {
    fn name(self) -> &'static str {
        match self {
            Self::Kept => "DeployEx",
            Self::Static => "static list, no drain",
        }
    }
}

/// A fleet and the NGINX before it.
struct Subject {
    upstream: Upstream,
    // Before the fleet, whose replicas it sends requests to.
    proxy: Proxy,
    fleet: Fleet,
}

impl Subject {
    fn start(upstream: Upstream) -> Result<Self> {
        // Not beside those that the fleet and the proxy are about to take.
        let port = fleet::free_ports(REPLICAS + 10)? + 8;
        let ports: Vec<u16> = (port..=port + REPLICAS).collect();
        let proxy = Proxy::start(&ports)?;
        let (kept, drain) = match upstream {
            Upstream::Kept => (proxy.yaml(), ""),
            Upstream::Static => (String::new(), ", drain_ms: 0"),
        };
        let applications = format!(
            "  - name: {APP}\n    language: erlang\n    replicas: {REPLICAS}\n    \
             replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 500\n{kept}    \
             deploy: {{ strategy: start_first, stable_after_ms: 1000, watch_ms: 1000{drain} }}\n"
        );
        let first = release(0)?;
        let fleet = Fleet::start(&[published(&first)], &applications)?;
        println!("deploying {REPLICAS} replicas, {}", upstream.name());
        fleet.rests(APP)?;
        Ok(Self { upstream, proxy, fleet })
    }

    fn measure(&self, phase: Phase, turn: usize, rate: u32) -> Result<Answers> {
        self.fleet.stands_on(APP, usize::from(REPLICAS))?;
        let load = Load::start(([127, 0, 0, 1], self.proxy.port()).into(), "/version", rate)?;
        sleep(QUIET);
        let began = now();
        match phase {
            Phase::Deployment => {
                let next = release(turn + 1)?;
                self.fleet.publish(&published(&next))?;
                self.fleet.has_in_force(APP, &next.version)?;
            }
            Phase::Restart => self.fleet.run(&["restart", APP, "--wait"])?,
            Phase::Crash => {
                let pid = self.fleet.pid(APP, 1)?;
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a replica has a pid")?;
                kill_process(pid, Signal::KILL)?;
                // It is seen to be gone before it is seen to be back.
                sleep(Duration::from_secs(1));
            }
        }
        self.fleet.stands_on(APP, usize::from(REPLICAS))?;
        sleep(QUIET);
        Ok(Answers::of(&load.stop(), began))
    }
}

/// Built where it was not built before; each turn needs one that was not deployed yet.
fn release(turn: usize) -> Result<Tarball> {
    fixtures::tarball(Sample::Erlang, &format!("0.{}.0", turn + 1))
}

fn published(tarball: &Tarball) -> Published<'_> {
    Published { app: APP, version: &tarball.version, path: tarball.path.clone() }
}

/// Of one phase, or of several.
#[derive(Clone, Debug, Default)]
struct Answers {
    sent: usize,
    failed: usize,
    /// Of the answered, in milliseconds.
    took: Vec<f64>,
    /// How long it took, in seconds.
    lasted: f64,
    /// One of the failures, to know what they are.
    example: Option<String>,
}

impl Answers {
    fn of(answers: &[Answer], began: Instant) -> Self {
        let answered = answers.iter().filter(|it| it.result.is_ok());
        Self {
            sent: answers.len(),
            failed: answers.iter().filter(|it| it.result.is_err()).count(),
            took: answered.map(|it| it.took.as_secs_f64() * 1_000.0).collect(),
            lasted: (began.elapsed().saturating_sub(QUIET)).as_secs_f64(),
            example: answers.iter().find_map(|it| it.result.as_ref().err().cloned()),
        }
    }

    fn together(all: &[Self]) -> Self {
        let mut took: Vec<f64> = all.iter().flat_map(|it| it.took.iter().copied()).collect();
        took.sort_by(f64::total_cmp);
        Self {
            sent: all.iter().map(|it| it.sent).sum(),
            failed: all.iter().map(|it| it.failed).sum(),
            took,
            lasted: all.iter().map(|it| it.lasted).sum(),
            example: all.iter().find_map(|it| it.example.clone()),
        }
    }

    /// Of sorted ones: so many of a thousand took no longer.
    fn quantile(&self, thousandth: usize) -> f64 {
        let last = self.took.len().saturating_sub(1);
        self.took.get(last * thousandth / 1_000).copied().unwrap_or(f64::NAN)
    }
}

fn table(found: &BTreeMap<(Phase, Upstream), Vec<Answers>>) -> Table {
    let mut table =
        Table::new(&["", "lasted", "sent", "failed", "p50", "p99", "max", "bar", "", "for example"]);
    for ((phase, upstream), answers) in found {
        let answers = Answers::together(answers);
        // What was in flight at a replica that crashed may be lost.
        let bar = match (upstream, phase) {
            (Upstream::Kept, Phase::Deployment | Phase::Restart) => {
                ("0 failed".to_owned(), verdict(answers.failed == 0))
            }
            _ => (String::new(), String::new()),
        };
        let ms = |thousandth| format!("{:.1} ms", answers.quantile(thousandth));
        table.row([
            format!("{}, {}", phase.name(), upstream.name()),
            format!("{:.0} s", answers.lasted),
            answers.sent.to_string(),
            answers.failed.to_string(),
            ms(500),
            ms(990),
            ms(1_000),
            bar.0,
            bar.1,
            answers.example.clone().unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_stands_beside_the_peers_and_only_ours_is_held_to_the_bar() {
        let answers = |failed: usize| Answers {
            sent: 1_000,
            failed,
            took: (1..=100).rev().map(f64::from).collect(),
            lasted: 20.0,
            example: (failed > 0).then(|| "502".to_owned()),
        };
        let mut found = BTreeMap::new();
        found.insert((Phase::Deployment, Upstream::Kept), vec![answers(0), answers(1)]);
        found.insert((Phase::Deployment, Upstream::Static), vec![answers(7)]);
        found.insert((Phase::Restart, Upstream::Kept), vec![answers(0)]);
        found.insert((Phase::Crash, Upstream::Kept), vec![answers(2)]);
        let text = table(&found).to_string();
        let line = |start: &str| text.lines().find(|it| it.starts_with(start)).unwrap().to_owned();
        let ours = line("rolling deployment, DeployEx");
        assert!(ours.contains("2000  ") && ours.contains("NOT MET") && ours.ends_with("502"), "{text}");
        assert!(ours.contains("50.0 ms") && ours.contains("99.0 ms") && ours.contains("100.0 ms"), "{text}");
        assert!(!line("rolling deployment, static").contains("MET"), "{text}");
        assert!(line("rolling restart, DeployEx").contains("  met"), "{text}");
        assert!(!line("crash of one replica, DeployEx").contains("met"), "{text}");
    }
}
