//! What clients of one replica lose, and how long they wait, while it takes another release without a restart: as the product
//! does it, and beside it as one does it by hand, with OTP's release handler alone.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{fleet, machine, now};
use crate::load::Load;
use crate::setup::{Tool, require};
use bare::Bare;
use deployed::{Deployed, Manner};
use seen::Seen;
use subject::Subject;

mod bare;
mod deployed;
mod figures;
mod seen;
mod subject;

pub(super) const ABOUT: &str = "Requests lost and waited for during a hot upgrade, beside the bare release handler\n\n\
    A release with a hundred acceptors and with so many processes whose state the upgrade changes (`code_change`), every request \
    asking one of these. Each turn starts it anew in its first version and brings it to the second: by the control plane and an \
    agent built for release (a hot upgrade); by an escript that calls `release_handler` from a hidden node, with the files laid \
    before; and by the control plane and the agent in full (stop and start). Requests come straight to the replica, at a steady \
    rate whatever becomes of them. The gap is the longest time between two answers, from the first step of the upgrade to its \
    last; its ratio is that of each pair.";

/// Of steady traffic before and after what happens.
const QUIET: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) fn run(pairs: usize, rate: u32, processes: u32) -> Result<()> {
    ensure!(processes > 0 && rate > 0, "there is nothing to measure without processes and requests");
    require(&[Tool::Erlang, Tool::Rebar3, Tool::ApplicationUser])?;
    fleet::build()?;
    println!("building the release, in two versions");
    let subject = Subject::build(processes)?;
    let mut turns = Turns::default();
    for pair in 1..=pairs {
        // Ours first, then the peer's, then the other way round.
        let order = if pair % 2 == 1 { [Way::Hot, Way::Bare] } else { [Way::Bare, Way::Hot] };
        for way in order.into_iter().chain([Way::Full]) {
            println!("{pair} of {pairs}: {}", way.name());
            let turn = measure(&subject, way, rate)?;
            println!("  {turn}");
            turns.of(way).push(turn);
        }
    }
    println!("\n{}", machine::describe(&std::env::temp_dir()));
    println!("{rate} requests/s, {processes} processes with a state to change, {pairs} turns of each\n");
    print!("{}", turns.table());
    println!();
    print!("{}", turns.bars());
    println!();
    print!("{}", turns.steps());
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Hot,
    Bare,
    Full,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Hot => "DeployEx, hot",
            Self::Bare => "release_handler alone",
            Self::Full => "DeployEx, in full",
        }
    }
}

#[derive(Debug, Default)]
struct Turns {
    hot: Vec<Turn>,
    bare: Vec<Turn>,
    full: Vec<Turn>,
}

impl Turns {
    fn of(&mut self, way: Way) -> &mut Vec<Turn> {
        match way {
            Way::Hot => &mut self.hot,
            Way::Bare => &mut self.bare,
            Way::Full => &mut self.full,
        }
    }
}

/// What one upgrade was seen to do.
#[derive(Clone, Debug, Default)]
struct Turn {
    seen: Seen,
    /// What the replica was busy with it, in milliseconds: all steps of an upgrade; of a full deployment, not serving.
    replica: f64,
    /// From the publication until it was over (in full: until it was answered by the new version), in milliseconds.
    published: Option<f64>,
    /// Each step with its milliseconds.
    steps: Vec<(String, f64)>,
}

/// When the upgrade began and ended, and what it said of itself.
struct Upgraded {
    began: Instant,
    ended: Instant,
    published: Option<Instant>,
    steps: Vec<(String, f64)>,
}

fn measure(subject: &Subject, way: Way, rate: u32) -> Result<Turn> {
    // Not beside those that a fleet is about to take.
    let port = fleet::free_ports(8)? + 5;
    match way {
        Way::Bare => {
            let mut bare = Bare::start(subject, port)?;
            under_load(subject, way, port, rate, || bare.upgrade())
        }
        Way::Hot => {
            let deployed = Deployed::start(subject, Manner::Hot, port)?;
            under_load(subject, way, port, rate, || deployed.upgrade(subject))
        }
        Way::Full => {
            let deployed = Deployed::start(subject, Manner::Full, port)?;
            under_load(subject, way, port, rate, || deployed.replace(subject))
        }
    }
}

fn under_load(
    subject: &Subject,
    way: Way,
    port: u16,
    rate: u32,
    upgrade: impl FnOnce() -> Result<Upgraded>,
) -> Result<Turn> {
    subject::until_serves(port, subject::FROM)?;
    let load = Load::start(([127, 0, 0, 1], port).into(), "/next", rate)?;
    sleep(QUIET);
    let quiet = (now().checked_sub(QUIET / 2).unwrap_or_else(now), now());
    let upgraded = upgrade()?;
    sleep(QUIET);
    let answers = load.stop();
    subject::until_serves(port, subject::TO)?;
    let changed = subject::changed(port)?;
    // Who was started anew has the later state already, and nothing was kept.
    let expected = if way == Way::Full { 0 } else { subject.processes };
    ensure!(changed == expected, "{changed} processes changed their state, and not {expected}");
    let rest = seen::longest_gap(&answers, quiet.0, quiet.1);
    let seen = Seen::of(&answers, upgraded.began, upgraded.ended, rest);
    let ms = |it: Duration| it.as_secs_f64() * 1_000.0;
    let served = seen::first_of(&answers, subject::TO);
    let (replica, until) = match way {
        Way::Full => (seen.gap, served.unwrap_or(upgraded.ended)),
        Way::Hot | Way::Bare => (ms(upgraded.ended - upgraded.began), upgraded.ended),
    };
    let published = upgraded.published.map(|it| ms(until.saturating_duration_since(it)));
    Ok(Turn { seen, replica, published, steps: upgraded.steps })
}
