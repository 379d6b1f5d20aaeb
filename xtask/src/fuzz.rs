//! `cargo xtask fuzz …`: lets LLVM's fuzzer look for bytes from a peer that do harm, with a seed, from what a real one sent.
//!
//! It sees which branches of the agent's own code its inputs reach, with options of the stable compiler; see
//! `instrumented.sh`. What is fuzzed, and what must hold, is in `node_agent::dist::fuzz`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::command::{command, find, run};
use crate::workspace;

/// What can be fuzzed.
#[derive(Clone, Debug, Subcommand)]
pub enum Fuzz {
    /// The Erlang distribution protocol: frames, terms, messages, the handshake and the name server's answers
    Dist {
        /// Of all targets together, in equal shares
        #[arg(long, default_value_t = 10_000_000)]
        executions: u64,
        /// The same seed and code try the same inputs
        #[arg(long, default_value_t = 1)]
        seed: u32,
        /// Only this target, all executions
        #[arg(long, value_name = "NAME")]
        target: Option<String>,
    },
}

const TARGETS: [&str; 5] = ["frames", "terms", "messages", "handshake", "epmd"];

/// Longer than any message that the targets cut short, in bytes.
const LONGEST_INPUT: usize = 4_096;

/// Builds what is fuzzed, and fuzzes it. A finding is an error.
pub fn fuzz(what: Fuzz) -> Result<()> {
    let Fuzz::Dist { executions, seed, target } = what;
    let targets = shares(executions, target.as_deref())?;
    build()?;
    let mut total = Done::default();
    for (target, share) in targets {
        println!("{target}: {share} executions");
        let done = one(target, share, seed)?;
        println!("{target}: {done}");
        total.runs += done.runs;
        total.took += done.took;
    }
    println!("\nwithout a finding: {total}, seed {seed}");
    Ok(())
}

fn shares(executions: u64, only: Option<&str>) -> Result<Vec<(&'static str, u64)>> {
    let targets: Vec<&str> = TARGETS.into_iter().filter(|it| only.is_none_or(|only| only == *it)).collect();
    if targets.is_empty() {
        bail!("{} is nothing to be fuzzed; these are: {}", only.unwrap_or_default(), TARGETS.join(", "));
    }
    let share = executions.div_ceil(targets.len() as u64);
    Ok(targets.into_iter().map(|it| (it, share)).collect())
}

fn build() -> Result<()> {
    if ["c++", "g++"].iter().all(|it| find(it).is_none()) {
        bail!("the fuzzer needs a C++ compiler: install g++ (apt-get install g++)");
    }
    println!("building what is fuzzed, optimized and with assertions");
    let mut build = command("cargo");
    build.args(["build", "--quiet", "--release", "--package", "node-agent"]);
    build.args(["--features", "fuzz", "--bin", "deployex-fuzz"]);
    for check in ["debug-assertions", "overflow-checks"] {
        build.args(["--config", &format!("profile.release.package.node-agent.{check}=true")]);
    }
    build.env("RUSTC_WORKSPACE_WRAPPER", workspace::root().join("xtask/src/fuzz/instrumented.sh"));
    run(build.current_dir(workspace::root()))
}

/// What a run of the fuzzer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Done {
    runs: u64,
    took: Duration,
    /// Branches that were reached.
    reached: u64,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} executions in {} s", self.runs, self.took.as_secs())?;
        if self.reached > 0 { write!(f, ", {} branches reached", self.reached) } else { Ok(()) }
    }
}

fn one(target: &str, executions: u64, seed: u32) -> Result<Done> {
    let folder = workspace::target().join("fuzz").join(target);
    let corpus = folder.join("corpus");
    // An earlier run's would make this one another.
    let _ = fs::remove_dir_all(&corpus);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
    let recorded = workspace::root().join("node-agent/src/dist/recorded").join(target);
    let output = fuzzer(target, executions, seed, &folder, &[&corpus, &recorded])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .context("the fuzzer could not be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let end: Vec<&str> = said.lines().rev().take(40).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        bail!("{target}: found something; the input is in {}\n{}", folder.display(), end.join("\n"));
    }
    done(&said).with_context(|| format!("{target}: the fuzzer does not say what it did:\n{said}"))
}

fn fuzzer(target: &str, executions: u64, seed: u32, folder: &Path, corpora: &[&Path]) -> Command {
    let mut fuzzer = command(workspace::release_program("deployex-fuzz"));
    fuzzer.args(corpora).arg(format!("-runs={executions}")).arg(format!("-seed={seed}"));
    fuzzer.arg(format!("-max_len={LONGEST_INPUT}")).arg("-rss_limit_mb=1024").arg("-timeout=10");
    fuzzer.arg(format!("-artifact_prefix={}/", folder.display()));
    fuzzer.arg("-ignore_remaining_args=1").arg(target);
    fuzzer
}

/// `Done 2000000 runs in 31 second(s)`, and the last `cov: 1234`.
fn done(said: &str) -> Option<Done> {
    let words = said.lines().find_map(|line| line.strip_prefix("Done "))?;
    let mut words = words.split(' ');
    let runs = words.next()?.parse().ok()?;
    let took = Duration::from_secs(words.nth(2)?.parse().ok()?);
    let reached = said.rsplit("cov: ").next()?.split(' ').next()?.parse().unwrap_or(0);
    Some(Done { runs, took, reached })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_fuzzer_did_is_told_by_its_last_words() {
        let said = "INFO: seed corpus\n#2\tINITED cov: 12 ft: 13\n#9\tDONE   cov: 99 ft: 300 corp: 4\n\
                    Done 2000000 runs in 31 second(s)\n";
        let expected = Done { runs: 2_000_000, took: Duration::from_secs(31), reached: 99 };
        assert_eq!(done(said), Some(expected));
        assert_eq!(done("==1== ERROR: libFuzzer: deadly signal\n"), None);
    }

    #[test]
    fn executions_are_shared_and_none_is_lost() {
        let all = shares(10_000_001, None).unwrap();
        assert_eq!(all.len(), TARGETS.len());
        assert!(all.iter().map(|(_, share)| share).sum::<u64>() >= 10_000_001);
        assert_eq!(shares(7, Some("terms")).unwrap(), [("terms", 7)]);
        assert!(shares(7, Some("horses")).unwrap_err().to_string().contains("frames, terms"));
    }

    #[test]
    fn each_target_has_recordings_to_start_from() {
        for target in TARGETS {
            let folder = workspace::root().join("node-agent/src/dist/recorded").join(target);
            assert!(fs::read_dir(&folder).is_ok_and(|it| it.count() > 1), "{}", folder.display());
        }
    }
}
