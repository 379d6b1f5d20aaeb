//! The demo's folder, configuration, ports and command lines. Pure but for [`Layout::create`].

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::command;
use crate::fixtures::Sample;
use crate::workspace;

pub(super) const CONSOLE_PORT: u16 = 5001;
pub(super) const AGENTS_PORT: u16 = 5002;
/// The demo's own Erlang name server, so that a developer's other nodes never meet it.
const EPMD_PORT: u16 = 5003;
const FIRST_SAMPLE_PORT: u16 = 5010;
const REPLICAS: u16 = 2;
/// Erlang's distribution listens on every interface by itself; nobody else's machine has to do with a demo.
const ON_LOOPBACK: &str = "-kernel inet_dist_use_interface {127,0,0,1}";
pub(super) const ENVIRONMENT: &str = "local";

pub(super) struct Layout {
    root: PathBuf,
    pub(super) bucket: PathBuf,
}

/// Every port that has to be free, and what for.
pub(super) fn ports() -> Vec<(u16, String)> {
    let mut ports = vec![
        (CONSOLE_PORT, "the console".to_owned()),
        (AGENTS_PORT, "the agent's connection".to_owned()),
        (EPMD_PORT, "the name server of Erlang nodes".to_owned()),
    ];
    for sample in Sample::ALL {
        // One more than replicas: a rollout borrows a slot.
        ports.extend((0..=REPLICAS).map(|slot| (sample_port(sample) + slot, sample.name().to_owned())));
    }
    ports
}

fn sample_port(sample: Sample) -> u16 {
    FIRST_SAMPLE_PORT
        + match sample {
            Sample::Elixir => 0,
            Sample::Erlang => 10,
            Sample::Gleam => 20,
            Sample::Umbrella => 30,
        }
}

/// The version after the one that a `current.json` names: the middle number one higher.
pub(super) fn next_version(current_json: &str) -> Option<String> {
    let (_, after) = current_json.split_once("\"version\"")?;
    let version = after.split('"').nth(1)?;
    let mut numbers = version.split(['.', '-']);
    let major: u32 = numbers.next()?.parse().ok()?;
    let minor: u32 = numbers.next()?.parse().ok()?;
    Some(format!("{major}.{}.0", minor + 1))
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), bucket: root.join("bucket") }
    }

    pub(super) fn create(&self) -> Result<()> {
        for folder in [&self.bucket, &self.data(), &self.logs()] {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(self.configuration(), self.yaml()).context("cannot write the demo's deployex.yaml")
    }

    fn yaml(&self) -> String {
        let mut text = format!(
            "# Written by `cargo xtask demo`.\naccount_name: {ENVIRONMENT}\nhostname: localhost\nport: {CONSOLE_PORT}\n\
             agents: {{ bind: 127.0.0.1, port: {AGENTS_PORT}, public: \"127.0.0.1:{AGENTS_PORT}\" }}\n\
             release_adapter: local\nrelease_bucket: \"{}\"\napplications:\n",
            self.bucket.display()
        );
        for sample in Sample::ALL {
            let _ = write!(
                text,
                "  - name: {sample}\n    language: {}\n    replicas: {REPLICAS}\n    \
                 replica_ports: [{{ key: PORT, base: {} }}]\n    \
                 env: [{{ key: ERL_AFLAGS, value: \"{ON_LOOPBACK}\" }}]\n    deploy_schedule_interval_ms: 1000\n    \
                 deploy_rollback_timeout_ms: 60000\n    \
                 deploy: {{ strategy: start_first, stable_after_ms: 3000, watch_ms: 60000 }}\n",
                sample.language(),
                sample_port(sample)
            );
        }
        text
    }

    pub(super) fn configuration(&self) -> PathBuf {
        self.root.join("deployex.yaml")
    }

    fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    fn var(&self) -> PathBuf {
        self.root.join("var")
    }

    pub(super) fn log(&self, program: &str) -> PathBuf {
        self.logs().join(format!("{program}.log"))
    }

    pub(super) fn is_enrolled(&self) -> bool {
        self.var().join("agent/identity/node.json").exists()
    }

    pub(super) fn control_plane(&self) -> Command {
        let mut serve = command(workspace::program("deployex"));
        serve.args(["serve", "--demo", "--config"]).arg(self.configuration());
        serve.arg("--data-dir").arg(self.data());
        serve
    }

    /// A command of the CLI, to be typed.
    pub(super) fn example(&self) -> String {
        format!("{} --data-dir {} status", workspace::program("deployex").display(), self.data().display())
    }

    /// Of the programs and of what they run.
    pub(super) fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    /// A command of the CLI, answered as JSON.
    pub(super) fn ask(&self, words: &[&str]) -> Command {
        let mut ask = command(workspace::program("deployex"));
        ask.args(words).arg("--json").arg("--data-dir").arg(self.data());
        ask.env_remove("DEPLOYEX_URL").env_remove("DEPLOYEX_TOKEN");
        ask
    }

    pub(super) fn enrol(&self, token: &str) -> Command {
        let mut enrol = self.agents_command("enrol");
        enrol.arg("--control-plane").arg(format!("https://127.0.0.1:{AGENTS_PORT}"));
        enrol.args(["--token", token, "--name", "demo"]);
        enrol
    }

    pub(super) fn agent(&self) -> Command {
        self.agents_command("run")
    }

    fn agents_command(&self, word: &str) -> Command {
        let mut agent = command(workspace::program("deployex-agent"));
        agent.arg(word).arg("--var-path").arg(self.var()).arg("--log-path").arg(self.logs());
        agent.env("ERL_EPMD_PORT", EPMD_PORT.to_string());
        agent
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_wanted_twice() {
        let ports: Vec<u16> = ports().into_iter().map(|(port, _)| port).collect();
        assert_eq!(ports.len(), ports.iter().collect::<BTreeSet<_>>().len());
    }

    #[test]
    fn the_next_version_raises_the_middle_number() {
        assert_eq!(next_version("{\"version\": \"0.1.0\", \"hash\": \"\"}").as_deref(), Some("0.2.0"));
        assert_eq!(next_version("{\"version\":\"1.9.3-crash\"}").as_deref(), Some("1.10.0"));
        assert_eq!(next_version("{}"), None);
    }

    #[test]
    fn every_sample_is_in_the_configuration_with_its_language() {
        let yaml = Layout::new(Path::new("/tmp/demo")).yaml();
        for sample in Sample::ALL {
            assert!(yaml.contains(&format!("  - name: {sample}\n    language: {}\n", sample.language())));
        }
    }
}
