//! `deployex-agent`: enrolled, killed and started again at will.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use proto::nodes::JoinToken;
use rustix::process::Signal;
use tempfile::TempDir;
use xtask::processes;

use super::{ControlPlane, Said, program, program_at};
use crate::hosts::Host;
use crate::ports;
use crate::process::Running;

/// Where a host's name server listens unless it is told otherwise.
const EPMD: u16 = 4369;

#[derive(Debug)]
pub struct Agent {
    running: Option<Running>,
    folder: TempDir,
    host: Host,
    epmd_port: u16,
    environment: Vec<(String, String)>,
    /// Whose it is, where that is not the test's user.
    user: Option<u32>,
    own_program: Option<PathBuf>,
}

/// How a host joins.
#[derive(Clone, Copy, Debug)]
pub struct Joining<'a> {
    /// Where it dials.
    pub address: SocketAddr,
    pub token: &'a str,
    pub name: &'a str,
    /// `key=value`
    pub labels: &'a [&'a str],
}

/// The enrolment failed: its status, and what it said.
#[derive(Debug)]
pub struct JoinError {
    pub status: ExitStatus,
    pub said: String,
}

impl Agent {
    /// Joins the control plane under this name, and runs.
    pub async fn join(control_plane: &ControlPlane, name: &str) -> Self {
        Self::join_through(control_plane, control_plane.agents_address(), name).await
    }

    /// As [`Agent::join`], dialling another address: a link that can be cut.
    pub async fn join_through(control_plane: &ControlPlane, dialled: SocketAddr, name: &str) -> Self {
        Self::join_with(control_plane, dialled, name, &[]).await
    }

    /// As [`Agent::join`], with labels (`key=value`).
    pub async fn join_labelled(control_plane: &ControlPlane, name: &str, labels: &[&str]) -> Self {
        Self::join_with(control_plane, control_plane.agents_address(), name, labels).await
    }

    async fn join_with(
        control_plane: &ControlPlane,
        dialled: SocketAddr,
        name: &str,
        labels: &[&str],
    ) -> Self {
        let mut agent = Self::enrolled(control_plane, dialled, name, labels).await;
        agent.resume();
        agent
    }

    /// Belongs to the fleet and does not run yet.
    pub async fn enrolled(
        control_plane: &ControlPlane,
        dialled: SocketAddr,
        name: &str,
        labels: &[&str],
    ) -> Self {
        let token = join_token(control_plane);
        let joining = Joining { address: dialled, token: &token, name, labels };
        let mut agent = Self::new();
        agent.enrol(joining).await.unwrap_or_else(|error| panic!("enrolment: {}", error.said));
        agent
    }

    /// As [`Agent::join_through`], on a host of its own.
    pub async fn join_on(host: Host, control_plane: &ControlPlane, dialled: SocketAddr, name: &str) -> Self {
        let mut agent = Self::on(host);
        let token = join_token(control_plane);
        let joining = Joining { address: dialled, token: &token, name, labels: &[] };
        agent.enrol(joining).await.unwrap_or_else(|error| panic!("enrolment: {}", error.said));
        agent.resume();
        agent
    }

    /// A host that belongs to nobody yet.
    pub fn new() -> Self {
        Self::on(Host::this_machine())
    }

    fn on(host: Host) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        // Replicas run as a user of their own, who has to get into their folders.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("the folder is ours");
        let epmd_port = if host.has_all_ports() { EPMD } else { ports::free(1) };
        // Where several hosts are one machine, replicas find the address of theirs here.
        fs::write(folder.path().join("address"), host.address().to_string()).expect("the folder is ours");
        Self {
            running: None,
            folder,
            host,
            epmd_port,
            environment: Vec::new(),
            user: None,
            own_program: None,
        }
    }

    pub async fn enrol(&mut self, joining: Joining<'_>) -> Result<(), JoinError> {
        let Joining { address, token, name, labels } = joining;
        let mut enrol = self.command("enrol");
        enrol.arg("--control-plane").arg(format!("https://{address}"));
        enrol.args(["--token", token, "--name", name]);
        enrol.args(labels.iter().flat_map(|label| ["--label", label]));
        enrol.stdin(Stdio::null());
        let host = self.host.clone();
        let enrolling = move || host.enter(|| enrol.output().expect("the agent's program is built"));
        let output = tokio::task::spawn_blocking(enrolling).await.expect("starting it does not panic");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(JoinError { status: output.status, said }) }
    }

    /// Starts it (again).
    pub fn resume(&mut self) {
        let mut command = self.command("run");
        let output = self.folder.path().join("output");
        self.running = Some(self.host.enter(|| Running::start(&mut command, &output)));
    }

    /// All of it belongs to this user from now on, and so does the next start. Its programs too: he need not reach the workspace.
    pub fn give_to(&mut self, user: u32) {
        fs::create_dir_all(self.folder.path().join("log")).expect("the folder is ours");
        self.have_own_programs();
        let given =
            Command::new("chown").arg("-R").arg(format!("{user}:{user}")).arg(self.folder.path()).status();
        assert!(given.expect("chown can be run").success(), "only root gives folders away");
        self.user = Some(user);
    }

    /// Copies of its own are what the next start begins: others can be put in their place.
    pub fn have_own_programs(&mut self) {
        let programs = self.folder.path().join("bin");
        fs::create_dir_all(&programs).expect("the folder is ours");
        for name in ["deployex-agent", "deployex-keeper"] {
            fs::copy(xtask::workspace::program(name), programs.join(name)).expect("the program is built");
        }
        self.own_program = Some(programs.join("deployex-agent"));
    }

    /// Where that of its own lies.
    pub fn own_program(&self) -> &Path {
        self.own_program.as_deref().expect("it has programs of its own")
    }

    /// A copy of this in its place, as whoever installs it does: beside it, and renamed.
    pub fn put_program(&self, program: &Path) {
        let new = self.own_program().with_extension("new");
        fs::copy(program, &new).expect("there is room");
        fs::set_permissions(&new, Permissions::from_mode(0o755)).expect("the file is ours");
        fs::rename(&new, self.own_program()).expect("the folder is ours");
    }

    /// `deployex-agent upgrade`.
    pub async fn upgrade(&self) -> Said {
        let mut asking = program("deployex-agent");
        asking.arg("upgrade").arg("--var-path").arg(self.var_path()).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || asking.output()).await.expect("it does not panic");
        let output = output.expect("the agent's program is built");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            status: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// SIGHUP to the agent alone.
    pub fn hang_up(&self) {
        if let Some(running) = &self.running {
            running.signal(Signal::HUP);
        }
    }

    /// Runs a second agent in the first one's folder to its end: its status, and what it said.
    pub fn run_beside(&self) -> (ExitStatus, String) {
        let output = self.command("run").stdin(Stdio::null()).output().expect("the agent's program is built");
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
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

    /// How the program ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.running.as_mut().and_then(Running::ended)
    }

    /// What the next start finds in its environment beside the usual.
    pub fn set_environment(&mut self, variables: &[(&str, &str)]) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.environment = variables.iter().map(owned).collect();
    }

    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Running::pid)
    }

    /// All that is this host's lies below it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn var_path(&self) -> PathBuf {
        self.folder.path().join("var")
    }

    /// Of the name server of this host's Erlang nodes.
    pub fn epmd_port(&self) -> u16 {
        self.epmd_port
    }

    /// A replica's log.
    pub fn log(&self, app: &str, slot: u16, stream: &str) -> PathBuf {
        self.folder.path().join("log").join(app).join(format!("{app}-{slot}-{stream}.log"))
    }

    pub fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }

    fn command(&self, word: &str) -> Command {
        let mut command = self.own_program.as_deref().map_or_else(|| program("deployex-agent"), program_at);
        if let Some(name) = self.host.name() {
            // In the same process, so that it is the agent's.
            let mut named = Command::new("unshare");
            named
                .args(["--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", name])
                .arg(command.get_program());
            for (variable, _) in command.get_envs().filter(|(_, value)| value.is_none()) {
                named.env_remove(variable);
            }
            command = named;
        }
        if let Some(user) = self.user {
            command = Command::new(self.folder.path().join("bin/deployex-agent"));
            command.env_clear().uid(user).gid(user);
        }
        command.arg(word).arg("--var-path").arg(self.var_path());
        command.arg("--log-path").arg(self.folder.path().join("log"));
        command.env("ERL_EPMD_PORT", self.epmd_port.to_string());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn join_token(control_plane: &ControlPlane) -> String {
    let token = control_plane.ask::<JoinToken>(&["node", "token"]);
    token.unwrap_or_else(|error| panic!("no join token: {error}")).token
}

impl Default for Agent {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.running = None;
        processes::end_all_under(self.folder.path(), Duration::ZERO);
    }
}
