//! `cargo xtask test`: every check and suite in order, what each took, and one verdict.
//!
//! A suite that fails does not keep the others from running, so that one run tells all; one that depends on a failed one is
//! not run and says why. A suite never counts as passed without having run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::command::{command, need_space, run, run_quietly};
use crate::setup::{self, Purpose, Tool};
use crate::{fixtures, postgres, web, workspace};

mod booted;

/// How a suite ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    NotRun(String),
}

struct Suite {
    name: &'static str,
    /// Suites without which this one cannot say anything.
    needs: &'static [&'static str],
    run: fn() -> Result<Outcome>,
}

const FULL: &[Suite] = &[
    Suite { name: "set-up", needs: &[], run: || done(setup::ensure(Purpose::Test)) },
    Suite { name: "formatting", needs: &[], run: || done(formatting()) },
    Suite { name: "console bundle", needs: &["set-up"], run: || done(web::bundle()) },
    Suite { name: "lints", needs: &["set-up"], run: || done(lints()) },
    Suite { name: "programs", needs: &["set-up"], run: || done(programs()) },
    Suite { name: "sample applications", needs: &["set-up"], run: || done(fixtures::build_all(&[])) },
    Suite {
        name: "unit tests",
        needs: &["set-up"],
        run: || done(nextest("not binary(e2e) and not test(as_root)")),
    },
    Suite {
        name: "end-to-end",
        needs: &["console bundle", "programs", "sample applications"],
        run: || done(nextest("binary(e2e) and not test(as_root)")),
    },
    Suite {
        name: "tests as root",
        needs: &["console bundle", "programs", "sample applications"],
        run: as_root,
    },
    Suite { name: "network namespaces", needs: &["programs", "sample applications"], run: namespaces },
    Suite { name: "cgroup controllers", needs: &["programs"], run: cgroup_controllers },
    Suite { name: "spared by the kernel", needs: &["programs"], run: spared },
    Suite { name: "systemd", needs: &["programs"], run: systemd },
    Suite { name: "supply chain", needs: &["set-up"], run: supply_chain },
    Suite { name: "advisories", needs: &["set-up"], run: advisories },
];

const QUICK: &[Suite] = &[
    Suite { name: "formatting", needs: &[], run: || done(formatting()) },
    Suite { name: "lints", needs: &[], run: || done(lints()) },
    Suite { name: "unit tests", needs: &[], run: || done(nextest("not binary(e2e) and not test(as_root)")) },
    Suite { name: "supply chain", needs: &[], run: supply_chain },
];

pub fn run_all(quick: bool) -> Result<()> {
    need_space(&workspace::target(), 6000, "building and testing everything")?;
    let suites = if quick { QUICK } else { FULL };
    let mut rows: Vec<(&str, Outcome, Duration)> = Vec::new();
    for suite in suites {
        println!("\n== {}", suite.name);
        let started = now();
        let outcomes: BTreeMap<&str, &Outcome> =
            rows.iter().map(|(name, outcome, _)| (*name, outcome)).collect();
        let outcome = match in_the_way(suite.needs, &outcomes) {
            Some(reason) => Outcome::NotRun(reason),
            None => (suite.run)().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}"))),
        };
        match &outcome {
            Outcome::Failed(why) => println!("FAILED: {why}"),
            Outcome::NotRun(why) => println!("NOT RUN: {why}"),
            Outcome::Passed => {}
        }
        rows.push((suite.name, outcome, started.elapsed()));
    }
    println!("\n{}", table(&rows));
    let failed: Vec<&str> =
        rows.iter().filter(|(_, outcome, _)| counts_as_failure(outcome)).map(|row| row.0).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Which needed suite did not pass, if any.
fn in_the_way(needs: &[&str], outcomes: &BTreeMap<&str, &Outcome>) -> Option<String> {
    needs
        .iter()
        .find(|name| outcomes.get(**name).is_some_and(|outcome| **outcome != Outcome::Passed))
        .map(|name| format!("it needs {name}, which did not pass"))
}

fn counts_as_failure(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(_))
}

fn table(rows: &[(&str, Outcome, Duration)]) -> String {
    let mut text = String::new();
    for (name, outcome, took) in rows {
        let outcome = match outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Failed(_) => "FAILED".to_owned(),
            Outcome::NotRun(why) => format!("NOT RUN: {}", why.lines().next().unwrap_or_default()),
        };
        let _ = writeln!(text, "{name:<20} {:>6.1} min  {outcome}", took.as_secs_f64() / 60.0);
    }
    let total: Duration = rows.iter().map(|row| row.2).sum();
    let _ = write!(text, "{:<20} {:>6.1} min", "together", total.as_secs_f64() / 60.0);
    text
}

fn done(result: Result<()>) -> Result<Outcome> {
    result.map(|()| Outcome::Passed)
}

fn formatting() -> Result<()> {
    run(command("cargo").args(["fmt", "--all", "--check"]))
}

fn lints() -> Result<()> {
    // With what only a benchmark and the gallery of components are built with: nothing else would notice that they no longer
    // compile.
    let with = ["--workspace", "--all-targets", "--features", "control-plane/bench,web/gallery"];
    run(command("cargo").arg("clippy").args(with).args(["--", "-D", "warnings"]))
}

/// The end-to-end tests start the real programs. With all targets of the whole workspace: building one package, or none of the
/// tests, would resolve other features (tests stop the clock of tokio) and build most of the tree a second time.
fn programs() -> Result<()> {
    run(command("cargo").args(["build", "--workspace", "--all-targets"]))
}

/// All tests share one database server, in which each makes a database of its own.
fn nextest(filter: &str) -> Result<()> {
    let database = postgres::Server::start()?;
    run(command("cargo")
        .args(["nextest", "run", "--workspace", "--no-tests=fail", "-E", filter])
        .env(postgres::SHARED, database.url("postgres")))
}

/// Those that change the user or mount a small disk. Their names begin with it.
fn as_root() -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        let reason =
            "they change the user and mount small disks: sudo -E env \"PATH=$PATH\" cargo xtask test";
        return Ok(Outcome::NotRun(reason.into()));
    }
    // What needs more than root has a suite of its own.
    let needs_more = "test(with_controllers) or test(with_sys_resource) or test(with_systemd) or \
                      test(with_namespaces)";
    done(nextest(&format!("test(as_root) and not ({needs_more})")))
}

/// Hosts that have nothing in common but a cable. Their stories are also told over loopback addresses, which needs nothing.
fn namespaces() -> Result<Outcome> {
    match booted::missing_for_namespaces() {
        Some(why) => Ok(Outcome::NotRun(format!("{why}; their stories were told over loopback addresses"))),
        None => done(nextest("test(with_namespaces)")),
    }
}

/// Limits that the kernel enforces.
fn cgroup_controllers() -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Outcome::NotRun("control groups are made by root".into()));
    }
    match booted::missing_controllers() {
        Some(why) => Ok(Outcome::NotRun(why)),
        None => done(nextest("test(with_controllers)")),
    }
}

/// A root without this right, as in most containers, may not ask the kernel to end others first.
fn spared() -> Result<Outcome> {
    match booted::may_be_spared() {
        false => {
            Ok(Outcome::NotRun("the right CAP_SYS_RESOURCE, to lower oom_score_adj, is not ours".into()))
        }
        true => done(nextest("test(with_sys_resource)")),
    }
}

/// Scopes of systemd's: of the one that runs this host, else of one that is started in a container of its own.
fn systemd() -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Outcome::NotRun("scopes are made by root".into()));
    }
    if Path::new("/run/systemd/system").is_dir() {
        return done(nextest("test(with_systemd)"));
    }
    match booted::what_is_missing() {
        Some(why) => Ok(Outcome::NotRun(format!("systemd is not the first process of this host, and {why}"))),
        None => Ok(match booted::run("node-agent::keeper", "with_systemd")? {
            None => Outcome::Passed,
            Some(why) => Outcome::NotRun(format!("systemd is not the first process of this host, and {why}")),
        }),
    }
}

fn supply_chain() -> Result<Outcome> {
    if !setup::detect::is_present(Tool::CargoDeny) {
        return Ok(Outcome::NotRun("cargo-deny is not installed: cargo xtask setup".into()));
    }
    done(run(command("cargo").args(["deny", "--workspace", "check", "bans", "licenses", "sources"])))
}

/// The database of advisories comes from the network, which a builder may not have; then this says so.
fn advisories() -> Result<Outcome> {
    if !setup::detect::is_present(Tool::CargoDeny) {
        return Ok(Outcome::NotRun("cargo-deny is not installed: cargo xtask setup".into()));
    }
    let fetched = run_quietly(command("cargo").args(["deny", "fetch", "db"]));
    match fetched {
        Ok(_) => done(run(command("cargo").args(["deny", "check", "--disable-fetch", "advisories"]))),
        Err(_) => Ok(Outcome::NotRun("the database of advisories cannot be fetched from here".into())),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a suite took is said to people and decides nothing")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_whose_needs_failed_is_not_run_and_says_which() {
        let failed = Outcome::Failed("no".into());
        let outcomes = BTreeMap::from([("programs", &failed), ("set-up", &Outcome::Passed)]);
        assert_eq!(
            in_the_way(&["set-up", "programs"], &outcomes).as_deref(),
            Some("it needs programs, which did not pass")
        );
        assert_eq!(in_the_way(&["set-up"], &outcomes), None);
    }

    #[test]
    fn every_need_is_a_suite_that_comes_earlier() {
        for suites in [FULL, QUICK] {
            for (at, suite) in suites.iter().enumerate() {
                for need in suite.needs {
                    assert!(
                        suites[..at].iter().any(|earlier| earlier.name == *need),
                        "{} needs {need}",
                        suite.name
                    );
                }
            }
        }
    }

    #[test]
    fn the_table_shows_minutes_and_why_something_did_not_run() {
        let rows = [
            ("lints", Outcome::Passed, Duration::from_secs(90)),
            ("advisories", Outcome::NotRun("no network\nmore".into()), Duration::ZERO),
        ];
        assert_eq!(
            table(&rows),
            "lints                   1.5 min  passed\n\
             advisories              0.0 min  NOT RUN: no network\n\
             together                1.5 min"
        );
    }
}
