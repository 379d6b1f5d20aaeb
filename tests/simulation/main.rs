//! The real planner against the real replica machine: seeded fleets of a few hosts, on which agents die between ledger and
//! action, sessions break, reports come late and twice, releases fail in every way or on one host alone, and the control plane
//! is away for a while and comes back with another clock. Every setting of a deployment is drawn (`settings`), and people do
//! what people do meanwhile (`people`). The laws (`laws`) are looked at after every step, and once all is quiet, everything
//! comes to rest (`rest`) on what is wished or on the last good release, or waits for somebody and says so.
//!
//! `rollout::plan` plans and the planner's own fixture stores; `node_agent::replica` decides, reports and recovers. Between them
//! is a world in memory: processes, folders, ledgers and a network. What a database does with a plan, and a slot's task with a
//! full disk, is tested where that is.
//!
//! `SEED=n cargo nextest run --test simulation -E 'test(seed)'` repeats one fleet and prints what happened.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

mod agent;
mod control_plane;
mod dice;
mod faults;
mod laws;
mod mischief;
mod network;
mod people;
mod releases;
mod rest;
mod seen;
mod settings;
mod slot;
mod upgrade;
mod world;

use self::world::World;

/// How many fleets each of the parts goes through.
const PART: u64 = 2_500;

/// What became of the fleets of these seeds; the first that breaks a law is told whole.
fn fleets(seeds: std::ops::Range<u64>) {
    let mut steps = 0;
    let mut seen = seen::Seen::default();
    for seed in seeds.clone() {
        match World::of(seed, false).live() {
            Ok(lived) => {
                assert!(lived.steps >= 200, "seed {seed} took {} steps", lived.steps);
                steps += lived.steps;
                seen.add(&lived.seen);
            }
            Err(_) => tell(seed),
        }
    }
    // A world in which nothing goes wrong shows nothing.
    let fleets = seeds.end - seeds.start;
    let missing = seen.missing();
    let enough = fleets < PART || missing.is_empty();
    assert!(enough, "{fleets} fleets, {steps} steps, too little of {missing:?}: {seen:?}");
}

/// Prints what happens to the fleet of `seed`, and fails where a law is broken.
fn tell(seed: u64) {
    let outcome = World::of(seed, true).live();
    if let Err(broken) = outcome {
        let from = broken.log.len().saturating_sub(4_000);
        panic!(
            "{}\nbroken: {}: {}\nSEED={seed} repeats it",
            broken.log[from..].join("\n"),
            broken.law,
            broken.detail
        );
    }
}

macro_rules! parts {
    ($($name:ident: $part:expr),+ $(,)?) => {
        $(#[test] fn $name() { fleets($part * PART..($part + 1) * PART); })+
    };
}

parts! {
    the_laws_hold_in_the_first_quarter_of_fleets: 0,
    the_laws_hold_in_the_second_quarter_of_fleets: 1,
    the_laws_hold_in_the_third_quarter_of_fleets: 2,
    the_laws_hold_in_the_last_quarter_of_fleets: 3,
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how a person asks for one fleet, and reads it")]
fn the_fleet_of_the_seed_that_is_asked_for_keeps_the_laws() {
    let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) else { return };
    match World::of(seed, true).live() {
        Ok(lived) => println!("{}", lived.log.join("\n")),
        Err(_) => tell(seed),
    }
}
