//! A host in a temporary folder: an agent's supervisor without its link, a bucket in memory, and what one sees from outside.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use node_agent::cgroup::home::Home;
use node_agent::host::Sample;
use node_agent::link::{Certify, LinkError, Observed, Standing};
use node_agent::releases::{Chunks, Fetch, FetchError};
use node_agent::supervisor::process::Keepers;
use node_agent::supervisor::{Paths, Settings, Supervisor};
use proto::archive::hostile::Builder;
use proto::ids::{AppName, Digest, ReleaseKey, Slot};
use proto::pb;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const APP: &str = "demo";
const PATIENCE: Duration = Duration::from_mins(1);

/// Tarballs by digest.
#[derive(Default)]
struct Bucket(Mutex<BTreeMap<Digest, Vec<u8>>>);

#[async_trait]
impl Fetch for Bucket {
    async fn open(&self, _: &AppName, key: &ReleaseKey, offset: u64) -> Result<Chunks, FetchError> {
        let tarball = self.0.lock().unwrap().get(&key.sha256).cloned().ok_or(FetchError::Gone)?;
        let rest = Bytes::from(tarball).slice(usize::try_from(offset).unwrap()..);
        Ok(stream::iter([Ok(rest)]).boxed())
    }
}

/// Its `var` may be a small file system of its own.
pub(crate) struct World {
    root: TempDir,
    bucket: Arc<Bucket>,
    disk: Option<Disk>,
    /// Where the control groups of its replicas go.
    pub(crate) home: Home,
}

/// What of an agent the link would hold.
pub(crate) struct Agent {
    pub(crate) orders: mpsc::Sender<pb::Assignment>,
    pub(crate) events: mpsc::Receiver<pb::AgentEvent>,
    /// What is sampled of the host is in the test's hands.
    pub(crate) samples: watch::Sender<Option<Sample>>,
    pub(crate) limits: watch::Receiver<Vec<pb::HostLimit>>,
    /// Whether it has a session, which it has unless a test says otherwise.
    pub(crate) standing: watch::Sender<Standing>,
    observed: watch::Receiver<Observed>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

/// Nobody signs certificates here.
struct NoAuthority;

#[async_trait]
impl Certify for NoAuthority {
    async fn certify(&self, _: pb::CertifyPeerRequest) -> Result<pb::CertifyPeerResponse, LinkError> {
        Err(LinkError::Silent)
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        Self { root, bucket: Arc::default(), disk: None, home: Home::none("this test has none") }
    }

    pub(crate) fn on_a_small_disk() -> Self {
        let mut world = Self::new();
        world.disk = Some(Disk::mount(&world.path("var")));
        world
    }

    pub(crate) fn disk(&self) -> &Disk {
        self.disk.as_ref().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// What slot 1 remembers.
    pub(crate) fn ledger(&self, name: &str) -> PathBuf {
        self.path("var/agent/slots").join(APP).join("1").join(name)
    }

    /// What runs in slot 1.
    pub(crate) fn current(&self, name: &str) -> PathBuf {
        self.path("var/service").join(APP).join("1/current").join(name)
    }

    /// How many unpacked releases the host keeps.
    pub(crate) fn releases(&self) -> usize {
        let folder = self.path("var/agent/releases").join(APP);
        fs::read_dir(folder).map_or(0, |it| it.flatten().filter(|it| it.path().is_dir()).count())
    }

    /// From now on only what is on the host can be brought.
    pub(crate) fn empty_bucket(&self) {
        self.bucket.0.lock().unwrap().clear();
    }

    pub(crate) async fn agent(&self) -> Agent {
        self.agent_in_boot(&node_agent::host::boot_id()).await
    }

    /// One that is told of this boot of the host.
    pub(crate) async fn agent_in_boot(&self, boot_id: &str) -> Agent {
        self.start(Path::new(env!("CARGO_BIN_EXE_deployex-keeper")), boot_id).await
    }

    pub(crate) async fn agent_with(&self, keeper: &Path) -> Agent {
        self.start(keeper, &node_agent::host::boot_id()).await
    }

    async fn start(&self, keeper: &Path, boot_id: &str) -> Agent {
        self.try_to_start(keeper, boot_id).await.unwrap()
    }

    /// Why there can be no other.
    pub(crate) async fn refused_agent(&self) -> String {
        let keeper = Path::new(env!("CARGO_BIN_EXE_deployex-keeper"));
        let started = self.try_to_start(keeper, &node_agent::host::boot_id()).await;
        format!("{:#}", started.map(drop).unwrap_err())
    }

    async fn try_to_start(&self, keeper: &Path, boot_id: &str) -> anyhow::Result<Agent> {
        let (standing, stands) = watch::channel(Standing::Connected);
        let settings = Settings {
            paths: Paths::new(self.path("var"), self.path("var/log")),
            keepers: Keepers::new(keeper, self.home.clone()),
            epmd_port: 1,
            timezone: None,
            otp_tls: None,
            certify: Arc::new(NoAuthority),
            boot_id: boot_id.to_owned(),
            standing: stands,
        };
        let (notes, events) = mpsc::channel(64);
        let (orders, ordered) = mpsc::channel(8);
        let cancel = CancellationToken::new();
        let fetch = Arc::clone(&self.bucket) as Arc<dyn Fetch>;
        let mut supervisor = Supervisor::start(settings, fetch, notes, cancel.clone()).await?;
        let (samples, sampled) = watch::channel(None);
        let limits = supervisor.watch_host(sampled);
        let observed = supervisor.observed();
        let tasks = TaskTracker::new();
        tasks.spawn(supervisor.run(ordered));
        tasks.close();
        Ok(Agent { orders, events, samples, limits, standing, observed, cancel, tasks })
    }

    /// An assignment of slot 1 to this version, whose program writes its pid down and sleeps.
    pub(crate) fn assignment(&self, generation: u64, version: &str) -> pb::Assignment {
        self.assignment_of(release(version), generation, version)
    }

    /// The same, of a program that listens on this port if it can, and ends if not.
    pub(crate) fn listening(&self, generation: u64, version: &str, port: u16) -> pb::Assignment {
        let mut assignment = self.assignment(generation, &format!("{version}-listens"));
        let port = pb::PortBase { key: "PORT".to_owned(), base: u32::from(port) };
        assignment.applications[0].ports = vec![port];
        assignment
    }

    /// The same for a shipment that is run by the `erl` in this folder.
    pub(crate) fn shipment(&self, generation: u64, version: &str, path: &Path) -> pb::Assignment {
        let mut assignment = self.assignment_of(Builder::gleam().gzip(), generation, version);
        let path = path.to_string_lossy().into_owned();
        assignment.applications[0].language = pb::Language::Gleam.into();
        assignment.applications[0].env.push(pb::EnvEntry { key: "PATH".to_owned(), value: path });
        assignment
    }

    fn assignment_of(&self, tarball: Vec<u8>, generation: u64, version: &str) -> pb::Assignment {
        let sha256 = Digest(Sha256::digest(&tarball).into());
        let size = tarball.len() as u64;
        self.bucket.0.lock().unwrap().insert(sha256, tarball);
        let key = pb::ReleaseKey { version: version.to_owned(), sha256: sha256.0.to_vec().into() };
        let starts = self.path("starts").to_string_lossy().into_owned();
        pb::Assignment {
            generation,
            applications: vec![pb::Application {
                name: APP.to_owned(),
                language: pb::Language::Elixir.into(),
                env: vec![pb::EnvEntry { key: "STARTS".to_owned(), value: starts }],
                run_as_user: "root".to_owned(),
                cookie: "secret".to_owned(),
                distribution: Some(pb::Distribution {
                    mode: pb::DistributionMode::Off.into(),
                    ..Default::default()
                }),
                stable_after_ms: 100,
                ..Default::default()
            }],
            slots: vec![pb::SlotAssignment {
                app: APP.to_owned(),
                slot: 1,
                release: Some(pb::Release { key: Some(key), size, pre_commands: Vec::new() }),
                ..Default::default()
            }],
            held: Vec::new(),
            host_monitoring: None,
        }
    }

    /// The same, with pre-commands that this slot is to run.
    pub(crate) fn with_pre_command(&self, generation: u64, version: &str, run_id: &str) -> pb::Assignment {
        let mut assignment = self.assignment(generation, version);
        let slot = &mut assignment.slots[0];
        slot.release.as_mut().unwrap().pre_commands = vec!["eval migrate".to_owned()];
        slot.pre_commands = Some(pb::PreCommands { run_id: run_id.to_owned() });
        assignment
    }

    /// The version and pid of every start so far.
    pub(crate) fn starts(&self) -> Vec<(String, u32)> {
        let text = fs::read_to_string(self.path("starts")).unwrap_or_default();
        text.lines()
            .map(|line| {
                let (version, pid) = line.split_once(' ').unwrap();
                (version.to_owned(), pid.parse().unwrap())
            })
            .collect()
    }

    /// The pre-commands that were begun so far. Each waits until it is let go.
    pub(crate) fn pre_commands(&self) -> usize {
        fs::read_to_string(self.path("starts.pre")).unwrap_or_default().lines().count()
    }

    pub(crate) fn let_pre_commands_go(&self) {
        fs::write(self.path("starts.go"), "").unwrap();
    }

    /// From now on, until it is dropped, nobody who comes new to it can write below `var`.
    pub(crate) fn read_only(&self) -> ReadOnly {
        ReadOnly::mount(&self.path("var"))
    }

    /// How many of the starts live.
    pub(crate) fn living(&self) -> usize {
        self.starts().iter().filter(|(_, pid)| lives(*pid)).count()
    }

    /// SIGKILL to whoever keeps slot 1, and nobody else.
    pub(crate) async fn kill_keeper(&self) {
        let slot = self.ledger("");
        let keeper = || {
            processes().into_iter().find(|pid| {
                fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|it| it == slot)
                    && fs::read_link(format!("/proc/{pid}/exe"))
                        .is_ok_and(|it| it.ends_with("deployex-keeper"))
            })
        };
        if let Some(pid) = keeper() {
            kill(pid);
        }
        eventually("the end of the keeper", || keeper().is_none().then_some(())).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (_, pid) in self.starts() {
            // Only one that is ours: another may have its number by now.
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if ["sleep", "beam.smp"].contains(&comm.trim()) {
                kill(pid);
            }
        }
    }
}

impl Agent {
    pub(crate) async fn assign(&self, assignment: pb::Assignment) {
        self.orders.send(assignment).await.unwrap();
    }

    pub(crate) fn generation(&self) -> u64 {
        self.observed.borrow().generation
    }

    pub(crate) fn report(&self) -> pb::SlotReport {
        let place = (APP.parse().unwrap(), Slot::new(1).unwrap());
        self.observed.borrow().slots.get(&place).cloned().unwrap_or_default()
    }

    /// Waits until what is said of slot 1 is so.
    pub(crate) async fn reports(
        &self,
        what: &str,
        is_so: impl Fn(&pb::SlotReport) -> bool,
    ) -> pb::SlotReport {
        let begun = tokio::time::Instant::now();
        loop {
            let report = self.report();
            if is_so(&report) {
                return report;
            }
            assert!(begun.elapsed() < PATIENCE, "waited for {what}; last seen: {report:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until this version is stable in slot 1.
    pub(crate) async fn runs(&self, version: &str) -> pb::SlotReport {
        self.reports(version, |it| {
            it.state() == pb::SlotState::Stable && it.running.as_ref().is_some_and(|it| it.version == version)
        })
        .await
    }

    /// As an end of the agent: what it supervises goes on.
    pub(crate) async fn end(self) {
        self.cancel.cancel();
        self.tasks.wait().await;
    }
}

/// A file system of four megabytes.
pub(crate) struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test mounts a small file system of its own: run it as root"
        );
        fs::create_dir(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(at).status();
        assert!(mounted.unwrap().success(), "a tmpfs cannot be mounted here");
        Self(at.to_owned())
    }

    /// To the last byte.
    pub(crate) fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.0.join("ballast")).unwrap();
        for size in [65_536, 4_096, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    pub(crate) fn make_room(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a keeper may be about to go from it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A read-only view of a folder, in its place.
pub(crate) struct ReadOnly(PathBuf);

impl ReadOnly {
    fn mount(at: &Path) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test mounts a folder of its own: run it as root");
        let mount = |words: &[&str]| Command::new("mount").args(words).arg(at).status().unwrap().success();
        let folder = at.to_string_lossy();
        assert!(
            mount(&["--bind", &folder]) && mount(&["-o", "remount,bind,ro"]),
            "a folder cannot be mounted"
        );
        Self(at.to_owned())
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn release(version: &str) -> Vec<u8> {
    // One that is told where serves what it is told there.
    let serves = format!("if [ -n \"$SERVES\" ]; then {}; fi\n", super::health::SERVE);
    // A version named so leaves somebody behind who does not go when asked.
    let lingers = if version.ends_with("-lingers") { "(trap '' TERM; sleep 1000) &" } else { "" };
    // And one named so says something.
    let talks = if version.ends_with("-talks") { format!("echo {version} talks;") } else { String::new() };
    let listens = if version.ends_with("-listens") {
        // The shell becomes the virtual machine: what was written down is its pid.
        "exec erl -noshell -eval '{ok, L} = gen_tcp:listen(list_to_integer(os:getenv(\"PORT\")), [{reuseaddr, true}]), \
         Serve = fun Next() -> {ok, S} = gen_tcp:accept(L), gen_tcp:close(S), Next() end, Serve().'\n"
    } else {
        ""
    };
    let script = format!(
        "#!/bin/sh\n\
         if [ \"$1\" = start ]; then echo {version} $$ >> \"$STARTS\"; {talks} {lingers}\n{serves}{listens}exec sleep 1000; fi\n\
         echo \"$@\" >> \"$STARTS.pre\"\n\
         until [ -e \"$STARTS.go\" ]; do sleep 0.02; done\n"
    );
    Builder::new()
        .folder("bin/")
        .file("bin/demo", 0o755, script.as_bytes())
        .folder("lib/")
        .folder("releases/")
        .gzip()
}

pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = tokio::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub(crate) fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    let _ = kill_process(pid, Signal::KILL);
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
