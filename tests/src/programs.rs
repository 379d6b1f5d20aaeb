//! The real programs: a control plane with a configuration, data folder and ports of its own, and agents with paths and an
//! Erlang name server of their own. What they print is in files below their folder; dropping them ends everything of theirs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use proto::apps::Application;
use proto::ids::Version;
use proto::nodes::JoinToken;
use proto::state::RolloutPhase;
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use xtask::{processes, workspace};

use crate::ports;
use crate::process::Running;
use crate::release::{Bucket, ENVIRONMENT};
use crate::wait::{Seen, eventually, within};

/// Long enough for a rollout of some slots on a busy machine.
const ROLLOUT: Duration = Duration::from_mins(3);

/// `deployex serve`, and the command line that speaks to it.
#[derive(Debug)]
pub struct ControlPlane {
    folder: TempDir,
    console: u16,
    agents: u16,
    database_url: Option<String>,
    running: Option<Running>,
}

impl ControlPlane {
    /// Starts one that reads the bucket; `applications` is the YAML of that list.
    pub async fn start(bucket: &Bucket, applications: &str) -> Self {
        Self::start_with(bucket, applications, None).await
    }

    /// As [`ControlPlane::start`], with a database other than its own SQLite.
    pub async fn start_with(bucket: &Bucket, applications: &str, database_url: Option<&str>) -> Self {
        let first = ports::free(2);
        let mut control_plane = Self {
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            console: first,
            agents: first + 1,
            database_url: database_url.map(ToOwned::to_owned),
            running: None,
        };
        control_plane.configure(bucket, applications);
        control_plane.resume().await;
        control_plane
    }

    /// Writes the configuration that the next start reads.
    pub fn configure(&self, bucket: &Bucket, applications: &str) {
        let (console, agents, bucket) = (self.console, self.agents, bucket.path().display());
        let text = format!(
            "account_name: {ENVIRONMENT}\nhostname: localhost\nbind: 127.0.0.1\nport: {console}\n\
             agents: {{ bind: 127.0.0.1, port: {agents}, public: \"127.0.0.1:{agents}\" }}\n\
             release_adapter: local\nrelease_bucket: {bucket}\napplications:\n{applications}"
        );
        fs::write(self.folder.path().join("deployex.yaml"), text).expect("the folder is ours");
    }

    /// Starts it (again), and waits until it answers.
    pub async fn resume(&mut self) {
        let mut command = program("deployex");
        command.arg("serve").arg("--demo").arg("--config").arg(self.folder.path().join("deployex.yaml"));
        command.arg("--data-dir").arg(self.data_dir());
        if let Some(url) = &self.database_url {
            command.arg("--database-url").arg(url);
        }
        let mut running = Running::start(&mut command, &self.folder.path().join("output"));
        let url = self.url("/health");
        eventually("the control plane", || {
            let ended =
                running.ended().map(|status| format!("it ended with {status}:\n{}", running.output()));
            let url = &url;
            async move {
                match (ended, crate::http::get(url).await) {
                    (None, Ok(_)) => Seen::Done(()),
                    (Some(ended), _) => panic!("{ended}"),
                    (None, Err(error)) => Seen::NotYet(error),
                }
            }
        })
        .await;
        self.running = Some(running);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.running = None;
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.console)
    }

    /// Where agents dial.
    pub fn agents_address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.agents).into()
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        self.running.as_ref().map(Running::output).unwrap_or_default()
    }

    /// The answer of a command of the CLI, over the local socket.
    pub fn ask<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T, String> {
        let output = program("deployex")
            .args(words)
            .arg("--json")
            .arg("--data-dir")
            .arg(self.data_dir())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("deployex {} ended with {}: {said}", words.join(" "), output.status));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| {
            format!("deployex {}: {error} in {}", words.join(" "), String::from_utf8_lossy(&output.stdout))
        })
    }

    pub fn application(&self, name: &str) -> Result<Application, String> {
        self.ask(&["app", "show", name])
    }

    /// Waits until the application is at rest with this release in force and every replica ready.
    pub async fn settles_on(&self, name: &str, version: &str) -> Application {
        let version: Version = version.parse().expect("a version");
        self.application_when(&format!("{name} at rest with {version}"), name, |application| {
            let summary = &application.summary;
            summary.in_force.as_ref().is_some_and(|key| key.version == version)
                && summary.replicas_ready == summary.replicas_wanted
                && application
                    .current_rollout
                    .as_ref()
                    .is_none_or(|it| it.summary.phase == RolloutPhase::Watching)
        })
        .await
    }

    /// Waits until what is known of an application is so.
    pub async fn application_when(
        &self,
        what: &str,
        name: &str,
        is_so: impl Fn(&Application) -> bool,
    ) -> Application {
        within(ROLLOUT, what, || async {
            match self.application(name) {
                Ok(application) if is_so(&application) => Seen::Done(application),
                Ok(application) => Seen::NotYet(format!("{application:#?}")),
                Err(error) => Seen::NotYet(error),
            }
        })
        .await
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

/// `deployex-agent run`, enrolled.
#[derive(Debug)]
pub struct Agent {
    folder: TempDir,
    epmd_port: u16,
    running: Option<Running>,
}

impl Agent {
    /// Joins the control plane under this name, and runs.
    pub async fn join(control_plane: &ControlPlane, name: &str) -> Self {
        Self::join_through(control_plane, control_plane.agents_address(), name).await
    }

    /// As [`Agent::join`], dialling another address: a link that can be cut.
    pub async fn join_through(
        control_plane: &ControlPlane,
        dialled: std::net::SocketAddr,
        name: &str,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        // Replicas run as a user of their own, who has to get into their folders.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("the folder is ours");
        let mut agent = Self { folder, epmd_port: ports::free(1), running: None };
        let token: JoinToken =
            control_plane.ask(&["node", "token"]).unwrap_or_else(|error| panic!("no join token: {error}"));
        let mut enrol = agent.command("enrol");
        enrol.arg("--control-plane").arg(format!("https://{dialled}"));
        enrol.args(["--token", &token.token, "--name", name]);
        enrol.stdin(Stdio::null());
        let enrolled =
            tokio::process::Command::from(enrol).output().await.expect("the agent's program is built");
        assert!(enrolled.status.success(), "enrolment: {}", String::from_utf8_lossy(&enrolled.stderr));
        agent.resume();
        agent
    }

    /// Starts it (again).
    pub fn resume(&mut self) {
        let mut command = self.command("run");
        self.running = Some(Running::start(&mut command, &self.folder.path().join("output")));
    }

    /// SIGKILL to the agent alone: keepers and replicas go on.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// SIGTERM to the agent alone.
    pub fn terminate(&self) {
        if let Some(running) = &self.running {
            running.signal(Signal::TERM);
        }
    }

    pub fn var_path(&self) -> PathBuf {
        self.folder.path().join("var")
    }

    /// A replica's log.
    pub fn log(&self, app: &str, slot: u16, stream: &str) -> PathBuf {
        self.folder.path().join("log").join(app).join(format!("{app}-{slot}-{stream}.log"))
    }

    pub fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }

    fn command(&self, word: &str) -> Command {
        let mut command = program("deployex-agent");
        command.arg(word).arg("--var-path").arg(self.var_path());
        command.arg("--log-path").arg(self.folder.path().join("log"));
        command.env("ERL_EPMD_PORT", self.epmd_port.to_string());
        command
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.running = None;
        processes::end_all_under(self.folder.path(), Duration::ZERO);
    }
}

/// A program of the workspace, with nothing of DeployEx's from the environment.
fn program(name: &str) -> Command {
    let path: &Path = &workspace::program(name);
    assert!(path.exists(), "{} is not built: cargo build --workspace", path.display());
    let mut command = Command::new(path);
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("DEPLOYEX_")) {
            command.env_remove(variable);
        }
    }
    command
}
