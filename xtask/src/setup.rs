//! Brings a machine to where the demo or the tests can run: finds out what is missing, decides what to do, does it.
//!
//! [`plan`] decides and is pure; [`detect`] looks and this file acts. Without root or a sudo that asks for nothing, the one
//! command that installs what is missing is printed instead of run. Nothing is ever removed or upgraded.

use anyhow::{Context, Result, bail};

use crate::command::{command, run, run_quietly};

pub mod detect;
pub mod plan;
pub mod tools;

pub use plan::{Machine, Plan, Rights};
pub use tools::{Distribution, Purpose, Tool};

/// Installs what `purpose` needs and is not there.
pub fn ensure(purpose: Purpose) -> Result<()> {
    let mut machine = detect::machine();
    let mut plan = plan::plan(purpose, &machine);
    if plan.add_wasm_target {
        println!("adding rustup's target wasm32-unknown-unknown (for the console)");
        if let Err(error) = run_quietly(command("rustup").args(["target", "add", "wasm32-unknown-unknown"])) {
            println!("rustup could not add it; looking for the distribution's own compiler instead");
            machine.rustup_adds_targets = false;
            plan = plan::plan(purpose, &machine);
            if !plan.missing.is_empty() && plan.packages.is_empty() {
                return Err(error.context("the console needs the target wasm32-unknown-unknown"));
            }
        } else {
            machine.present.insert(Tool::WebCompiler);
            plan = plan::plan(purpose, &machine);
        }
    }
    carry_out(&plan, &machine)?;
    for tool in &plan.by_hand {
        println!("{}", tool.by_hand());
    }
    Ok(())
}

/// Says which of these tools are missing, and what brings them. Installs nothing: what only one benchmark compares with is not
/// put on a machine unasked.
pub fn require(tools: &[Tool]) -> Result<()> {
    let machine = detect::machine();
    let plan = plan::plan_for(tools, &machine);
    if !plan.missing.is_empty() {
        bail!("{}", plan.cannot(&machine));
    }
    match plan.administrators_command() {
        None => Ok(()),
        Some(line) => bail!(
            "this needs {}; run `cargo xtask setup --for bench`, or:\n\n    {line}\n",
            plan.wanted_for.join(" and ")
        ),
    }
}

fn carry_out(plan: &Plan, machine: &Machine) -> Result<()> {
    if !plan.missing.is_empty() {
        bail!("{}", plan.cannot(machine));
    }
    if let Some(line) = plan.administrators_command() {
        match machine.rights {
            Rights::None => bail!(
                "these are missing: {}. Run this once as root, then try again:\n\n    {line}\n",
                plan.wanted_for.join(", ")
            ),
            Rights::Root | Rights::Sudo => {
                println!("installing: {line}");
                as_administrator(machine.rights, &line)
                    .with_context(|| format!("could not install {}", plan.wanted_for.join(", ")))?;
            }
        }
    }
    for package in &plan.cargo_packages {
        println!("installing {package} with cargo (some minutes, once)");
        // Unoptimised: it is built in a third of the time, and what it does here is wait for other programs.
        run(command("cargo").args(["install", "--locked", "--debug", package]))
            .with_context(|| format!("could not install {package}"))?;
    }
    Ok(())
}

fn as_administrator(rights: Rights, line: &str) -> Result<()> {
    // The line that is shown is the line that is run.
    let mut shell = match rights {
        Rights::Sudo => {
            let mut sudo = command("sudo");
            sudo.args(["-n", "sh", "-ec"]);
            sudo
        }
        Rights::Root | Rights::None => {
            let mut shell = command("sh");
            shell.arg("-ec");
            shell
        }
    };
    run(shell.arg(line).env("DEBIAN_FRONTEND", "noninteractive"))
}
