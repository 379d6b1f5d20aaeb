//! A control plane with one agent, both real, in a folder of their own that goes with them: the agent and the keeper built
//! for release, as they are installed, because they are what is measured; the control plane as it is at hand.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{command, run, run_quietly};
use crate::demo::{Started, start};
use crate::{bucket, processes, workspace};

const ENVIRONMENT: &str = "bench";
const LOOK: Duration = Duration::from_millis(100);
/// Unpacking and starting some replicas on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// Builds what a fleet runs.
pub(super) fn build() -> Result<()> {
    println!("building the control plane");
    run(command("cargo").args(["build", "--quiet", "--workspace"]).current_dir(workspace::root()))?;
    build_agent()
}

/// The agent's programs, as they are installed, and the one that only benchmarks run.
pub(super) fn build_agent() -> Result<()> {
    println!("building the agent and the keeper, for release");
    let mut release = command("cargo");
    release.args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "node-agent",
        "--bins",
        "--features",
        "bench",
    ]);
    run(release.current_dir(workspace::root()))
}

/// A tarball as it goes into the bucket.
pub(super) struct Published<'a> {
    pub(super) app: &'a str,
    pub(super) version: &'a str,
    pub(super) path: PathBuf,
}

/// Dropping it ends everything of it.
pub(super) struct Fleet {
    agent: Started,
    // Its field order is the order of the ends: agent, control plane, whatever is left in the folder.
    _control_plane: Started,
    home: Home,
}

/// The folder, its ports, and the command lines of what works in it.
struct Home {
    folder: TempDir,
    console: u16,
    agents: u16,
    epmd: u16,
}

impl Fleet {
    /// Publishes the releases and starts both programs; `applications` is the YAML of that list.
    pub(super) fn start(releases: &[Published<'_>], applications: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("deployex-bench-").tempdir()?;
        // The applications' own user has to get in.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let first = free_ports(3)?;
        let home = Home { folder, console: first, agents: first + 1, epmd: first + 2 };
        fs::write(home.path().join("deployex.yaml"), home.yaml(applications))?;
        for Published { app, version, path } in releases {
            bucket::publish_file(&home.path().join("bucket"), ENVIRONMENT, app, version, path)?;
        }
        let control_plane = start(home.control_plane(), &home.path().join("deployex.log"))?;
        home.eventually("the control plane answers", || Ok(home.ask(&["status"]).is_ok()))?;
        let token = home.ask(&["node", "token"])?;
        let token = token["token"].as_str().context("the answer holds no join token")?;
        run_quietly(&mut home.enrol(token)).context("the agent could not join the control plane")?;
        let agent = start(home.agent("run"), &home.path().join("deployex-agent.log"))?;
        Ok(Self { agent, _control_plane: control_plane, home })
    }

    pub(super) fn agent_pid(&self) -> u32 {
        self.agent.child.id()
    }

    pub(super) fn path(&self) -> &Path {
        self.home.path()
    }

    /// Where the replicas' folders are.
    pub(super) fn services(&self) -> PathBuf {
        self.path().join("var/service")
    }

    pub(super) fn epmd_port(&self) -> u16 {
        self.home.epmd
    }

    /// Until every replica of the application is ready and its release has been stable.
    pub(super) fn settles(&self, app: &str) -> Result<()> {
        self.home.eventually(&format!("every replica of {app} is stable"), || {
            let application = self.application(app)?;
            let (ready, wanted) = (&application["replicas_ready"], &application["replicas_wanted"]);
            Ok(ready == wanted && *wanted != 0 && !application["in_force"].is_null())
        })
    }

    /// As [`Fleet::settles`], and until nobody watches the rollout any more: crashes then are no reason to take it back.
    pub(super) fn rests(&self, app: &str) -> Result<()> {
        self.settles(app)?;
        self.home.eventually(&format!("the rollout of {app} is over"), || {
            Ok(self.application(app)?["rollout"].is_null())
        })
    }

    /// Into the bucket, as CI would.
    pub(super) fn publish(&self, Published { app, version, path }: &Published<'_>) -> Result<()> {
        bucket::publish_file(&self.path().join("bucket"), ENVIRONMENT, app, version, path)
    }

    /// A command of the CLI, to its end.
    pub(super) fn run(&self, words: &[&str]) -> Result<()> {
        run_quietly(&mut self.home.cli(words)).map(drop)
    }

    /// Until this version is the application's.
    pub(super) fn has_in_force(&self, app: &str, version: &str) -> Result<()> {
        self.home.eventually(&format!("{version} of {app} is in force"), || {
            Ok(self.application(app)?["in_force"]["version"] == version)
        })
    }

    /// Until nothing is on its way and exactly so many slots are stable, none beside them.
    pub(super) fn stands_on(&self, app: &str, slots: usize) -> Result<()> {
        self.rests(app)?;
        self.home.eventually(&format!("{app} stands on {slots} slots"), || {
            let found = self.slots(app)?;
            Ok(found.len() == slots && found.iter().all(|it| it["state"] == "stable"))
        })
    }

    /// Of what runs in a slot.
    pub(super) fn pid(&self, app: &str, slot: u16) -> Result<u64> {
        let slots = self.slots(app)?;
        let pid = slots.iter().find(|it| it["slot"] == slot).and_then(|it| it["pid"].as_u64());
        pid.with_context(|| format!("nothing runs in slot {slot} of {app}"))
    }

    pub(super) fn slots(&self, app: &str) -> Result<Vec<Value>> {
        Ok(self.home.ask(&["app", "show", app])?["slots"].as_array().cloned().unwrap_or_default())
    }

    pub(super) fn events(&self, app: &str) -> Result<Vec<Value>> {
        Ok(self.home.ask(&["event", "list", "--app", app])?.as_array().cloned().unwrap_or_default())
    }

    /// One of the list, in few words.
    fn application(&self, app: &str) -> Result<Value> {
        let all = self.home.ask(&["app", "list"])?;
        let found = all.as_array().and_then(|all| all.iter().find(|it| it["name"] == app)).cloned();
        found.with_context(|| format!("there is no application {app}"))
    }

    /// A command of the CLI that goes on until it is stopped.
    pub(super) fn follow_logs(&self, app: &str, slot: u16) -> Result<Started> {
        let mut command = self.home.cli(&["logs", app, "--slot", &slot.to_string(), "-f"]);
        command.env("RUST_BACKTRACE", "0");
        start(command, &self.home.path().join("followed.log"))
    }
}

impl Home {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn yaml(&self, applications: &str) -> String {
        format!(
            "account_name: {ENVIRONMENT}\nhostname: localhost\nbind: 127.0.0.1\nport: {}\n\
             agents: {{ bind: 127.0.0.1, port: {}, public: \"127.0.0.1:{}\" }}\n\
             release_adapter: local\nrelease_bucket: {}\napplications:\n{applications}",
            self.console,
            self.agents,
            self.agents,
            self.path().join("bucket").display()
        )
    }

    fn control_plane(&self) -> Command {
        let mut serve = clean(workspace::program("deployex"));
        serve.args(["serve", "--demo", "--config"]).arg(self.path().join("deployex.yaml"));
        serve.arg("--data-dir").arg(self.path().join("data"));
        serve
    }

    fn cli(&self, words: &[&str]) -> Command {
        let mut cli = clean(workspace::program("deployex"));
        cli.args(words).arg("--data-dir").arg(self.path().join("data"));
        cli
    }

    fn ask(&self, words: &[&str]) -> Result<Value> {
        let text = run_quietly(self.cli(words).arg("--json"))?;
        serde_json::from_str(&text).with_context(|| format!("deployex {} answers no JSON", words.join(" ")))
    }

    fn enrol(&self, token: &str) -> Command {
        let mut enrol = self.agent("enrol");
        enrol.arg("--control-plane").arg(format!("https://127.0.0.1:{}", self.agents));
        enrol.args(["--token", token, "--name", "bench"]);
        enrol
    }

    fn agent(&self, word: &str) -> Command {
        let mut agent = clean(workspace::release_program("deployex-agent"));
        agent.arg(word).arg("--var-path").arg(self.path().join("var"));
        agent.arg("--log-path").arg(self.path().join("log"));
        agent.env("ERL_EPMD_PORT", self.epmd.to_string());
        agent
    }

    fn eventually(&self, what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
        for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
            if is_so()? {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        let log = |name| fs::read_to_string(self.path().join(name)).unwrap_or_default();
        bail!(
            "waited {} s in vain until {what}\n{}{}",
            PATIENCE.as_secs(),
            log("deployex.log"),
            log("deployex-agent.log")
        )
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        processes::end_all_under(self.folder.path(), Duration::ZERO);
    }
}

/// With nothing of DeployEx's from the environment.
fn clean(program: PathBuf) -> Command {
    let mut command = command(program);
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("DEPLOYEX_")) {
            command.env_remove(variable);
        }
    }
    command
}

/// The first of so many consecutive ports that nobody listens on, below the range from which the kernel takes the ports of
/// outgoing connections.
pub(super) fn free_ports(count: u16) -> Result<u16> {
    const FIRST: u16 = 20_000;
    const LAST: u16 = 32_000;
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    // Elsewhere in each process, so that two at the same time seldom meet.
    let spread = u16::try_from(std::process::id() * 97 % u32::from(LAST - FIRST)).unwrap_or_default();
    let candidates = (FIRST + spread..LAST - count).chain(FIRST..FIRST + spread);
    let mut candidates = candidates.filter(|first| (*first..first + count).all(is_free));
    candidates
        .next()
        .with_context(|| format!("no {count} consecutive ports are free between {FIRST} and {LAST}"))
}
