//! `deployex serve`, killed and started again at will.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::apps::Application;
use proto::ids::Version;
use proto::state::RolloutPhase;
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use xtask::postgres::Database;

use super::{CommandLine, program, program_at};
use crate::database::Engine;
use crate::hosts::Host;
use crate::ports;
use crate::process::Running;
use crate::release::{Bucket, ENVIRONMENT};
use crate::wait::{Seen, eventually, within};

/// Long enough for a rollout of some slots on a busy machine.
const ROLLOUT: Duration = Duration::from_mins(3);

/// How a control plane differs from the usual one: a demo on its own SQLite.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup<'a> {
    pub engine: Engine,
    /// More lines of the configuration's top level.
    pub settings: &'a str,
    /// Not a demo: it makes a password of its own and lets a proxy stand before it.
    pub for_real: bool,
    /// A data folder that is not its alone.
    pub data_dir: Option<&'a Path>,
    /// A changed configuration is put in force by itself.
    pub auto_apply: bool,
    /// Where it runs, if not on this machine. Its console then answers that host alone.
    pub host: Option<&'a Host>,
}

#[derive(Debug)]
pub struct ControlPlane {
    running: Option<Running>,
    host: Host,
    console: u16,
    agents: u16,
    settings: String,
    is_demo: bool,
    auto_apply: bool,
    database: Option<Database>,
    data_dir: PathBuf,
    own_program: Option<PathBuf>,
    folder: TempDir,
}

impl ControlPlane {
    /// Starts one that reads the bucket; `applications` is the YAML of that list.
    pub async fn start(bucket: &Bucket, applications: &str) -> Self {
        Self::start_with(bucket, applications, Setup::default()).await
    }

    pub async fn start_with(bucket: &Bucket, applications: &str, setup: Setup<'_>) -> Self {
        let Setup { engine, settings, for_real, data_dir, auto_apply, host } = setup;
        let first = ports::free(2);
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut control_plane = Self {
            running: None,
            host: host.map_or_else(Host::this_machine, Host::clone),
            console: first,
            agents: first + 1,
            settings: settings.to_owned(),
            is_demo: !for_real,
            auto_apply,
            database: engine.create(),
            data_dir: data_dir.map_or_else(|| folder.path().join("data"), Path::to_owned),
            own_program: None,
            folder,
        };
        control_plane.configure(bucket, applications);
        control_plane.resume().await;
        control_plane
    }

    /// Writes the configuration that the next start reads, and that is looked at meanwhile.
    pub fn configure(&self, bucket: &Bucket, applications: &str) {
        fs::write(self.configuration_file(), self.configuration(bucket, applications))
            .expect("the folder is ours");
    }

    pub fn configuration_file(&self) -> PathBuf {
        self.folder.path().join("deployex.yaml")
    }

    /// A configuration of this control plane with these applications.
    pub fn configuration(&self, bucket: &Bucket, applications: &str) -> String {
        let (console, agents, bucket, more) =
            (self.console, self.agents_address(), bucket.path().display(), &self.settings);
        let (address, port) = (agents.ip(), agents.port());
        format!(
            "account_name: {ENVIRONMENT}\nhostname: localhost\nbind: 127.0.0.1\nport: {console}\n\
             agents: {{ bind: {address}, port: {port}, public: \"{agents}\" }}\n\
             release_adapter: local\nrelease_bucket: {bucket}\n{more}applications:\n{applications}"
        )
    }

    /// Starts it (again), and waits until it answers.
    pub async fn resume(&mut self) {
        let mut command = self.own_program.as_deref().map_or_else(|| program("deployex"), program_at);
        command.arg("serve").arg("--config").arg(self.configuration_file());
        command.arg("--data-dir").arg(self.data_dir());
        if self.is_demo {
            command.arg("--demo");
        }
        if self.auto_apply {
            command.arg("--auto-apply");
        }
        if let Some(database) = &self.database {
            command.arg("--database-url").arg(database.url());
            // Beside a database that lies elsewhere no key is made.
            command.env("DEPLOYEX_SECRET_KEY_BASE", "a key of the tests ".repeat(4));
        }
        let output = self.folder.path().join("output");
        let mut running = self.host.enter(|| Running::start(&mut command, &output));
        let (host, url) = (&self.host, self.url("/health"));
        eventually("the control plane", || {
            let ended =
                running.ended().map(|status| format!("it ended with {status}:\n{}", running.output()));
            let url = &url;
            async move {
                match (ended, host.get(url).await) {
                    (None, Ok(_)) => Seen::Done(()),
                    (Some(ended), _) => panic!("{ended}"),
                    (None, Err(error)) => Seen::NotYet(error),
                }
            }
        })
        .await;
        self.running = Some(running);
    }

    /// What the next start begins; `None`: what was built.
    pub fn set_program(&mut self, program: Option<PathBuf>) {
        self.own_program = program;
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        if let Some(running) = &self.running {
            running.signal(Signal::TERM);
        }
    }

    /// Whether the program that was started last is no more, killed or by itself.
    pub fn has_ended(&mut self) -> bool {
        self.running.as_mut().is_none_or(|running| running.ended().is_some())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.console)
    }

    /// Where browsers and the API's clients connect.
    pub fn console_address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.console).into()
    }

    /// Where agents dial.
    pub fn agents_address(&self) -> std::net::SocketAddr {
        (self.host.address(), self.agents).into()
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        self.running.as_ref().map(Running::output).unwrap_or_default()
    }

    /// The command line on this host.
    pub fn command_line(&self) -> CommandLine {
        CommandLine::through_socket(self.data_dir())
    }

    /// The answer of a command of the CLI, over the local socket.
    pub fn ask<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T, String> {
        self.command_line().ask(words)
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

    /// Its folder: configuration, data and output.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where its database is, for what no command of it does.
    pub fn database_url(&self) -> String {
        match &self.database {
            Some(database) => database.url().to_owned(),
            None => format!("sqlite://{}", self.data_dir().join("control-plane/deployex.db").display()),
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }
}
