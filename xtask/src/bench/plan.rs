//! How long the control plane takes to decide what happens next to an application, by the size of its fleet.

use anyhow::{Result, ensure};

use super::machine;
use super::statistics::{interval, median};
use super::table::{Table, verdict};
use crate::command::{self, command, run_quietly};
use crate::workspace;

pub(super) const ABOUT: &str = "How long the planner takes for fleets of 50 to 5,000 nodes\n\n\
    The control plane's own code, optimized, plans for one application with ten replicas on each node: at rest, where a \
    release is wished, in the middle of a rollout in batches by zone, where all of it goes back, where the \
    watch of what it comes from goes on beneath it, and for a spread of which a \
    tenth of the nodes is lost. Loading the fleet and storing the plan are not part of it. There is no peer's figure: those \
    who plan for fleets publish none.";

const NODES: [u32; 3] = [50, 500, 5_000];
const REPLICAS: u32 = 10;
/// Milliseconds, for the largest of them.
const BAR: f64 = 50.0;

pub(super) fn run(turns: usize) -> Result<()> {
    println!("building what plans, optimized");
    let mut build = command("cargo");
    build.args(["build", "--quiet", "--profile", "measured", "--package", "control-plane"]);
    build.args(["--bin", "deployex-plans", "--features", "bench"]);
    command::run(build.current_dir(workspace::root()))?;
    let nodes = NODES.map(|nodes| nodes.to_string()).join(",");
    let mut program = command(workspace::measured_program("deployex-plans"));
    program.args(["--nodes", &nodes, "--replicas", &REPLICAS.to_string(), "--turns", &turns.to_string()]);
    let said = run_quietly(&mut program)?;
    let planned: Vec<Planned> = said.lines().filter_map(said_planned).collect();
    ensure!(!planned.is_empty(), "no figures:\n{said}");
    println!("\n{}\n{turns} plans of each fleet in each situation\n", machine::describe(workspace::root()));
    print!("{}", table(&planned));
    Ok(())
}

#[derive(Clone, Debug, PartialEq)]
struct Planned {
    situation: String,
    nodes: u32,
    slots: u32,
    millis: f64,
}

/// `planned rest 50 nodes 500 slots 0 steps in 123 us`.
fn said_planned(line: &str) -> Option<Planned> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["planned", situation, nodes, "nodes", slots, "slots", _, "steps", "in", micros, "us"] = words[..]
    else {
        return None;
    };
    let micros: f64 = micros.parse().ok()?;
    Some(Planned {
        situation: situation.to_owned(),
        nodes: nodes.parse().ok()?,
        slots: slots.parse().ok()?,
        millis: micros / 1000.0,
    })
}

fn table(planned: &[Planned]) -> Table {
    let mut table = Table::new(&["", "nodes", "slots", "ms a plan", "growth", "bar", ""]);
    let mut situations: Vec<&str> = planned.iter().map(|it| it.situation.as_str()).collect();
    situations.dedup();
    let (first, last) = (NODES[0], NODES[NODES.len() - 1]);
    let mut seen = Vec::new();
    for situation in situations {
        if seen.contains(&situation) {
            continue;
        }
        seen.push(situation);
        let of = |nodes: u32| -> Vec<&Planned> {
            planned.iter().filter(|it| it.situation == situation && it.nodes == nodes).collect()
        };
        let middle = |found: &[&Planned]| median(&found.iter().map(|it| it.millis).collect::<Vec<_>>());
        for nodes in NODES {
            let found = of(nodes);
            let Some(any) = found.first() else { continue };
            let millis: Vec<f64> = found.iter().map(|it| it.millis).collect();
            let (middle_here, (low, high)) = (median(&millis), interval(&millis));
            let growth = if nodes == first {
                String::new()
            } else {
                let times = middle_here / middle(&of(first)).max(0.001);
                format!("{times:.0} × for {} × the nodes", nodes / first)
            };
            let (bar, met) = match nodes == last {
                true => (format!("≤ {BAR}"), verdict(middle_here <= BAR)),
                false => Default::default(),
            };
            table.row([
                situation.into(),
                nodes.to_string(),
                any.slots.to_string(),
                format!("{middle_here:.2} (95 %: {low:.2} to {high:.2})"),
                growth,
                bar,
                met,
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_planned_is_understood_and_the_largest_fleets_are_held_to_the_bar() {
        let line = |nodes: u32, micros: u32| {
            said_planned(&format!("planned rest {nodes} nodes 500 slots 3 steps in {micros} us")).unwrap()
        };
        assert!((line(50, 1_500).millis - 1.5).abs() < f64::EPSILON);
        assert_eq!(said_planned("building"), None);
        let text = table(&[line(50, 1_000), line(5_000, 51_000)]).to_string();
        assert!(text.contains("51 × for 100 × the nodes") && text.contains("NOT MET"), "{text}");
        let text = table(&[line(50, 1_000), line(5_000, 49_000)]).to_string();
        assert!(text.contains("  met") && !text.contains("NOT MET"), "{text}");
    }
}
