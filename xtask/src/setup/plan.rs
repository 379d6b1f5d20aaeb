//! What to do so that a machine has what it needs. Pure: the machine comes in as a value, the steps go out as one.

use std::collections::BTreeSet;

use crate::setup::tools::{Distribution, Purpose, Source, Tool};

/// May packages be installed?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    Root,
    /// Through a sudo that asks for no password.
    Sudo,
    None,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Machine {
    pub distribution: Option<Distribution>,
    pub present: BTreeSet<Tool>,
    pub rights: Rights,
    /// Rustup is there and has not failed to add a target.
    pub rustup_adds_targets: bool,
}

/// The steps, in the order in which they are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub add_wasm_target: bool,
    pub packages: Vec<&'static str>,
    pub administrators_lines: Vec<&'static str>,
    pub cargo_packages: Vec<&'static str>,
    /// What the packages and lines are for, in words.
    pub wanted_for: Vec<String>,
    /// Needed by one suite only, which says so itself; mentioned, not fatal.
    pub by_hand: Vec<Tool>,
    /// Needed, absent, and nothing is known that would bring it.
    pub missing: Vec<Tool>,
}

pub fn plan(purpose: Purpose, machine: &Machine) -> Plan {
    plan_for(&purpose.needs(), machine)
}

/// As [`plan`], for these tools alone.
pub fn plan_for(tools: &[Tool], machine: &Machine) -> Plan {
    let mut plan = Plan::default();
    for &tool in tools {
        if machine.present.contains(&tool) {
            continue;
        }
        // Without root all replicas run as whoever starts the agent, so the user is of no use.
        if tool == Tool::ApplicationUser && machine.rights != Rights::Root {
            continue;
        }
        if tool == Tool::WebCompiler && machine.rustup_adds_targets {
            plan.add_wasm_target = true;
            continue;
        }
        plan.add(tool, machine.distribution);
    }
    plan
}

impl Plan {
    fn add(&mut self, tool: Tool, distribution: Option<Distribution>) {
        // What cargo and useradd bring does not depend on the distribution.
        let source = tool.source(distribution.unwrap_or(Distribution::Debian12));
        match source {
            Source::Cargo(package) => self.cargo_packages.push(package),
            Source::Administrator(line) => {
                self.administrators_lines.push(line);
                self.wanted_for.push(tool.to_string());
            }
            Source::Packages(packages) if distribution.is_some() => {
                self.packages.extend(packages);
                self.wanted_for.push(tool.to_string());
            }
            Source::ByHand if matches!(tool, Tool::Chromium | Tool::ChromeDriver) => self.by_hand.push(tool),
            Source::Packages(_) | Source::ByHand => self.missing.push(tool),
        }
    }

    /// The one command that needs an administrator, as people would type it.
    pub fn administrators_command(&self) -> Option<String> {
        let mut lines = Vec::new();
        if !self.packages.is_empty() {
            lines.push("apt-get update".to_owned());
            lines.push(format!("apt-get install -y --no-install-recommends {}", self.packages.join(" ")));
        }
        lines.extend(self.administrators_lines.iter().map(|line| (*line).to_owned()));
        (!lines.is_empty()).then(|| lines.join(" && "))
    }

    /// Why this machine cannot be set up by us, and what a person does about it.
    pub fn cannot(&self, machine: &Machine) -> String {
        let what: Vec<String> = self.missing.iter().map(|tool| tool.by_hand()).collect();
        let why = match machine.distribution {
            Some(_) => "these cannot be installed from here",
            None => {
                "this distribution's package names are not known (Debian 12, Debian 13 and Ubuntu 24.04 are)"
            }
        };
        format!("{why}:\n  {}", what.join("\n  "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(distribution: Distribution) -> Machine {
        Machine {
            distribution: Some(distribution),
            present: [Tool::Git].into(),
            rights: Rights::Root,
            rustup_adds_targets: true,
        }
    }

    #[test]
    fn a_fresh_machine_of_each_distribution_can_be_set_up_for_the_demo() {
        for distribution in [Distribution::Debian12, Distribution::Debian13, Distribution::Ubuntu2404] {
            let plan = plan(Purpose::Demo, &fresh(distribution));
            assert!(plan.missing.is_empty() && plan.by_hand.is_empty(), "{distribution:?}: {plan:?}");
            assert!(plan.add_wasm_target);
            assert_eq!(
                plan.packages,
                ["gcc", "libc6-dev", "erlang-base", "erlang-ssl", "erlang-runtime-tools", "elixir", "rebar3"],
            );
            assert!(plan.cargo_packages.is_empty(), "the demo runs no test");
        }
    }

    #[test]
    fn the_tests_need_a_browser_from_packages_on_debian() {
        for distribution in [Distribution::Debian12, Distribution::Debian13] {
            let plan = plan(Purpose::Test, &fresh(distribution));
            for package in ["postgresql", "nginx", "iproute2", "chromium", "chromium-driver"] {
                assert!(plan.packages.contains(&package), "{distribution:?} lacks {package}");
            }
            assert_eq!(plan.cargo_packages, ["cargo-nextest", "cargo-deny"]);
            assert!(plan.by_hand.is_empty());
        }
    }

    #[test]
    fn on_ubuntu_the_browser_is_a_snap_and_is_only_mentioned() {
        let plan = plan(Purpose::Test, &fresh(Distribution::Ubuntu2404));
        assert_eq!(plan.by_hand, [Tool::Chromium, Tool::ChromeDriver]);
        assert!(plan.missing.is_empty());
        assert!(plan.packages.contains(&"postgresql"));
        assert!(Tool::Chromium.by_hand().contains("sudo snap install chromium"));
    }

    #[test]
    fn only_the_benchmarks_install_other_supervisors() {
        let machine = fresh(Distribution::Debian12);
        assert!(!plan(Purpose::Test, &machine).packages.contains(&"runit"));
        assert!(plan(Purpose::Bench, &machine).packages.contains(&"runit"));
    }

    #[test]
    fn where_rustup_cannot_add_the_target_debian_brings_a_compiler_and_ubuntu_says_what_to_do() {
        let offline = |distribution| Machine { rustup_adds_targets: false, ..fresh(distribution) };
        let debian = plan(Purpose::Demo, &offline(Distribution::Debian12));
        assert!(debian.packages.contains(&"rustc-web") && debian.packages.contains(&"rust-web-src"));
        let machine = offline(Distribution::Ubuntu2404);
        let ubuntu = plan(Purpose::Demo, &machine);
        assert_eq!(ubuntu.missing, [Tool::WebCompiler]);
        assert!(ubuntu.cannot(&machine).contains("rustup target add wasm32-unknown-unknown"));
    }

    #[test]
    fn a_machine_that_has_everything_is_left_alone() {
        let machine = Machine {
            present: Purpose::Bench.needs().into_iter().collect(),
            ..fresh(Distribution::Debian13)
        };
        let plan = plan(Purpose::Bench, &machine);
        assert_eq!(plan, Plan::default());
        assert_eq!(plan.administrators_command(), None);
    }

    #[test]
    fn one_command_does_all_that_needs_an_administrator() {
        let line = plan(Purpose::Demo, &fresh(Distribution::Debian12)).administrators_command().unwrap();
        assert!(
            line.starts_with("apt-get update && apt-get install -y --no-install-recommends gcc"),
            "{line}"
        );
        assert!(line.contains("useradd --system"), "{line}");
    }

    /// Runs `.cargo/linker` as somebody without rights on a machine without a compiler would, below that command.
    fn linker_says(command: &str) -> String {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let programs = tempfile::tempdir().unwrap();
        for program in ["sh", "tr", "sed", "grep", "flock", "apt-get"] {
            symlink(crate::command::find(program).unwrap(), programs.path().join(program)).unwrap();
        }
        let id = programs.path().join("id");
        std::fs::write(&id, "#!/bin/sh\necho 1000\n").unwrap();
        std::fs::set_permissions(&id, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut shell = crate::command::command("sh");
        // The words behind the script are what the linker sees as the command line of its parent.
        shell.args(["-c", ".cargo/linker; exit 1", "cargo"]).args(command.split(' '));
        let output =
            shell.current_dir(crate::workspace::root()).env("PATH", programs.path()).output().unwrap();
        String::from_utf8(output.stderr).unwrap().lines().last().unwrap().trim().to_owned()
    }

    #[test]
    fn whoever_has_no_compiler_and_no_rights_is_told_all_that_the_command_needs_at_once() {
        let here = std::fs::read_to_string("/etc/os-release").unwrap();
        let here = Distribution::from_os_release(&here).expect("one whose package names are known");
        let machine = Machine { rights: Rights::None, ..fresh(here) };
        for (command, purpose) in [("xtask demo", Purpose::Demo), ("xtask test", Purpose::Test)] {
            let line = plan(purpose, &machine).administrators_command().unwrap();
            assert_eq!(linker_says(command), line);
        }
    }

    #[test]
    fn an_ordinary_user_gets_no_user_for_applications() {
        let machine = Machine { rights: Rights::None, ..fresh(Distribution::Debian12) };
        assert!(plan(Purpose::Demo, &machine).administrators_lines.is_empty());
    }

    #[test]
    fn an_unknown_distribution_is_told_what_to_install() {
        let machine = Machine { distribution: None, ..fresh(Distribution::Debian12) };
        let plan = plan(Purpose::Demo, &machine);
        assert!(plan.packages.is_empty());
        let text = plan.cannot(&machine);
        assert!(text.contains("install rebar3 (rebar3)") && text.contains("Debian 12"), "{text}");
    }

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let read = Distribution::from_os_release;
        assert_eq!(read("ID=debian\nVERSION_ID=\"12\"\n"), Some(Distribution::Debian12));
        assert_eq!(read("NAME=x\nID=debian\nVERSION_ID=13"), Some(Distribution::Debian13));
        assert_eq!(read("VERSION_ID=\"24.04\"\nID=ubuntu\nID_LIKE=debian"), Some(Distribution::Ubuntu2404));
        assert_eq!(read("ID=fedora\nVERSION_ID=43"), None);
        assert_eq!(read(""), None);
    }
}
