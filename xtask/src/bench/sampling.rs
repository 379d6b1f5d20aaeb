//! What it costs an application to be sampled: a VM with many processes, with the agent beside it and without.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::fleet::{self, Fleet, Published};
use super::procfs::CpuTime;
use super::statistics::median;
use super::table::{Table, verdict};
use super::{machine, now};
use crate::command::run_quietly;
use crate::fixtures::{self, Sample};
use crate::setup::{Tool, require};

pub(super) const ABOUT: &str = "What sampling costs a VM with many processes\n\n\
    A control plane, and an agent built for release, which deploys one replica of the Erlang sample. In it so many processes \
    are started, which wait. The agent samples it every two seconds. Turns with the agent alternate with turns in which it is \
    stopped (SIGSTOP): what the CPU time of the VM, all of its threads, differs by is what being sampled costs, as a share of \
    one scheduler.";

const APP: &str = "erlang_demo";
const VERSION: &str = "0.1.0";
/// Of one scheduler, in percent.
const BAR: f64 = 1.0;
/// After the agent was let go on: its session and its connection are there again.
const CALM: Duration = Duration::from_secs(3);

pub(super) fn run(count: u32, turns: usize, each: Duration) -> Result<()> {
    require(&[Tool::Erlang, Tool::Rebar3, Tool::ApplicationUser])?;
    fleet::build()?;
    let tarball = fixtures::tarball(Sample::Erlang, VERSION)?;
    let applications = format!(
        "  - name: {APP}\n    language: erlang\n    replicas: 1\n    \
         replica_ports: [{{ key: PORT, base: {} }}]\n    ready: process\n    deploy: {{ stable_after_ms: 500 }}\n",
        // Not beside those that the fleet is about to take.
        fleet::free_ports(8)? + 4
    );
    let fleet = Fleet::start(&[Published { app: APP, version: VERSION, path: tarball.path }], &applications)?;
    fleet.settles(APP)?;
    let vm = u32::try_from(fleet.pid(APP, 1)?)?;
    println!("starting {count} processes in it");
    start_processes(&fleet, vm, count)?;
    let agent = Agent(fleet.agent_pid());

    let (mut with, mut without) = (Vec::new(), Vec::new());
    for turn in 1..=turns {
        println!("turn {turn} of {turns}: {} s with the agent, {} s without", each.as_secs(), each.as_secs());
        sleep(CALM);
        with.push(used(vm, each)?);
        agent.signal(Signal::STOP)?;
        let alone = sleep_and_use(vm, each);
        agent.signal(Signal::CONT)?;
        without.push(alone?);
    }
    println!("\n{}", machine::describe(fleet.path()));
    println!("{turns} turns of {} s each; {count} processes\n", each.as_secs());
    print!("{}", figures(&with, &without));
    Ok(())
}

fn sleep_and_use(vm: u32, each: Duration) -> Result<f64> {
    sleep(CALM);
    used(vm, each)
}

/// CPU time of all of its threads meanwhile, in percent of one scheduler.
fn used(vm: u32, each: Duration) -> Result<f64> {
    let (before, since) = (CpuTime::of(vm)?, now());
    sleep(each);
    Ok(100.0 * CpuTime::of(vm)?.since(&before) / since.elapsed().as_secs_f64())
}

fn figures(with: &[f64], without: &[f64]) -> Table {
    let mut table = Table::new(&["VM, CPU time", "figure", "bar", ""]);
    let percent = |it: f64| format!("{it:.3} % of a scheduler");
    table.row(["with the agent, median".into(), percent(median(with)), String::new(), String::new()]);
    table.row(["without, median".into(), percent(median(without)), String::new(), String::new()]);
    let differences: Vec<f64> = with.iter().zip(without).map(|(with, without)| with - without).collect();
    let cost = median(&differences);
    table.row([
        "being sampled, median of the differences".into(),
        percent(cost),
        format!("≤ {BAR} %"),
        verdict(cost <= BAR),
    ]);
    table
}

/// By the release's own script, with the environment of what runs. They belong to nobody and stay.
fn start_processes(fleet: &Fleet, vm: u32, count: u32) -> Result<()> {
    let environment =
        fs::read_to_string(format!("/proc/{vm}/environ")).context("cannot read its environment")?;
    let variables = environment.split('\0').filter_map(|it| it.split_once('='));
    let mut eval = Command::new(fleet.services().join(APP).join("1/current/bin").join(APP));
    eval.env_clear().envs(variables).arg("eval").arg(format!(
        "[spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, {count})], erlang:system_info(process_count)."
    ));
    let said = run_quietly(&mut eval)?;
    let there: u32 = said.trim().parse().with_context(|| format!("it said {said:?}"))?;
    if there < count {
        bail!("there are {there} processes, not {count}");
    }
    Ok(())
}

/// Goes on whatever happens to the measurement.
struct Agent(u32);

impl Agent {
    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.0).ok().and_then(Pid::from_raw).context("the agent has no pid")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.signal(Signal::CONT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_what_the_turns_differ_by() {
        let text = figures(&[1.5, 1.6, 9.0], &[1.4, 1.4, 8.9]).to_string();
        assert!(text.lines().last().unwrap().contains("0.100 % of a scheduler"), "{text}");
        assert!(text.ends_with("met\n") && !text.contains("NOT MET"), "{text}");
        assert!(figures(&[3.0], &[1.0]).to_string().contains("NOT MET"));
    }
}
