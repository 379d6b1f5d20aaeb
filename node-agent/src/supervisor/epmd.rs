//! Erlang's port mapper: one per `ERL_EPMD_PORT`, there before the first replica, because the first node to start would
//! otherwise start one out of its own release folder and so tie it to that slot.
//!
//! It listens where the nodes of this host find it: on loopback, unless this host's own name leads elsewhere, and on every address
//! where an application is connected across hosts (`cluster: fleet`). One of ours that listens elsewhere is replaced: nodes that
//! run tell the new one of themselves within a second.
//!
//! One of somebody else that is there is used, and never ended. It runs as the application's user: the file may come out of a
//! release, and what is in a release has no more rights than the application itself.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use proto::pb;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpStream, lookup_host};
use tokio::process::Command;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::accounts::account;
use super::acts::chain;
use super::process::UserIds;
use super::{Shared, SlotId};
use crate::oom;

/// It daemonises within milliseconds.
const START_PATIENCE: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The host's own name is in its files, as a rule.
const NAME_PATIENCE: Duration = Duration::from_secs(2);
/// Nodes that run go on without it, but nobody finds them; back, it is told of them by themselves within a second.
const LOOK_AFTER: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(super) enum EpmdError {
    #[error("it could not be started a moment ago: {why}")]
    Lately { why: String },
    #[error("no epmd in the release nor on the host: {} has none", release.display())]
    None { release: PathBuf },
    #[error("epmd cannot be copied to {}", to.display())]
    Copy { to: PathBuf, source: io::Error },
    #[error("{} cannot be started", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("{} does not go into the background within {} s", program.display(), START_PATIENCE.as_secs())]
    Hangs { program: PathBuf },
    #[error("{} was started but nothing answers on port {port}", program.display())]
    Silent { program: PathBuf, port: u16 },
}

impl EpmdError {
    fn took_time(&self) -> bool {
        matches!(self, Self::Hangs { .. } | Self::Silent { .. })
    }
}

/// Where it is to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Listens {
    Everywhere,
    /// On these and loopback, which it always adds.
    On(BTreeSet<Ipv4Addr>),
}

impl Listens {
    /// What it is told of it.
    fn words(&self) -> Vec<String> {
        match self {
            Self::Everywhere => Vec::new(),
            Self::On(addresses) => {
                let addresses: Vec<_> = addresses.iter().map(Ipv4Addr::to_string).collect();
                vec!["-address".to_owned(), addresses.join(",")]
            }
        }
    }
}

/// The one on this host.
pub(super) struct Epmd {
    port: u16,
    /// Slots whose nodes are looked for from other hosts.
    fleets: std::sync::Mutex<BTreeSet<SlotId>>,
    /// What this host's own name led to when it was last found.
    own_addresses: std::sync::Mutex<Vec<IpAddr>>,
    /// The agent's folder for the program, outside of any slot and open to every user.
    keep: PathBuf,
    /// Slots start side by side: unless one goes first they all copy the program over each other and start one each.
    starting: Mutex<Option<Failure>>,
    /// When it was last seen to answer; `None`: it did not.
    seen: std::sync::Mutex<Option<Instant>>,
    look_now: Notify,
}

/// Why it could not be started last, and when.
struct Failure {
    at: Instant,
    why: String,
}

impl Epmd {
    pub(super) fn new(port: u16, keep: PathBuf) -> Self {
        Self {
            port,
            fleets: std::sync::Mutex::default(),
            own_addresses: std::sync::Mutex::default(),
            keep,
            starting: Mutex::default(),
            seen: std::sync::Mutex::default(),
            look_now: Notify::new(),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Whether the node of this slot is looked for from other hosts.
    pub(super) fn opens_for(&self, id: &SlotId, from_other_hosts: bool) {
        let mut fleets = self.fleets.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = match from_other_hosts {
            true => fleets.insert(id.clone()),
            false => fleets.remove(id),
        };
        if is_new {
            self.look_now.notify_one();
        }
    }

    async fn listens(&self) -> Listens {
        if !self.fleets.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Listens::Everywhere;
        }
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let found = timeout(NAME_PATIENCE, lookup_host((name.as_str(), 0))).await;
        let found = found.ok().and_then(Result::ok).map(|all| all.map(|it| it.ip()).collect());
        let own = self.known(found);
        Listens::On(addresses(&own, |it| TcpListener::bind((it, 0)).is_ok()))
    }

    /// A resolver that does not answer for a moment says nothing of where epmd is to listen: else it would be replaced, and once
    /// more when the resolver is back.
    fn known(&self, found: Option<Vec<IpAddr>>) -> Vec<IpAddr> {
        let mut known = self.own_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = found {
            *known = found;
        }
        known.clone()
    }

    /// Ends the one that listens elsewhere than it is to, where it is ours, so that the next look starts another.
    async fn replace(&self, listens: &Listens) {
        let (keep, port) = (self.keep.join("epmd"), self.port);
        let own = tokio::task::spawn_blocking(move || own(&keep, port)).await.ok().flatten();
        let Some((pid, words)) = own else { return };
        if said_to_listen(&words) == listens.words() {
            return;
        }
        info!(port = self.port, ?listens, "epmd is replaced by one that listens elsewhere");
        let _ = kill_process(pid, Signal::TERM);
        let gone = async {
            while answers(self.port).await {
                sleep(LOOK_AGAIN).await;
            }
        };
        let _ = timeout(START_PATIENCE, gone).await;
    }

    /// For a start that waits for nothing that it need not: where it was seen a moment ago it is looked for meanwhile, and
    /// started again long before a virtual machine has come to ask for it.
    pub(super) async fn ensure_soon(&self, release: &Path, user: Option<&UserIds>) -> Result<(), EpmdError> {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_some_and(|at| at.elapsed() < 2 * LOOK_AFTER) {
            self.look_now.notify_one();
            return Ok(());
        }
        self.ensure(release, user).await
    }

    fn is_seen(&self, answers: bool) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = answers.then(Instant::now);
    }

    /// Makes sure that it answers. Where it has to be started it runs as `user`, and its program can be had out of `release`.
    pub(super) async fn ensure(&self, release: &Path, user: Option<&UserIds>) -> Result<(), EpmdError> {
        if answers(self.port).await {
            return Ok(());
        }
        let mut failed = self.starting.lock().await;
        if answers(self.port).await {
            return Ok(());
        }
        // Those who waited do not wait as long once more, each behind the other.
        if let Some(Failure { at, why }) = &*failed
            && at.elapsed() < LOOK_AFTER
        {
            return Err(EpmdError::Lately { why: why.clone() });
        }
        let started = match program(release, &self.keep) {
            Ok(program) => start(self.port, &self.listens().await, program, user).await,
            Err(error) => Err(error),
        };
        // What failed at once costs nobody time, and may go well with another's release or user.
        let slow = started.as_ref().err().filter(|error| error.took_time());
        *failed = slow.map(|error| Failure { at: Instant::now(), why: chain(error) });
        started
    }
}

/// Beside 127.0.0.1, where the agent asks and nodes tell it of themselves, the address that the host's own name leads to: there
/// Erlang asks for a node of this host. `is_here`: it is one of this host's.
fn addresses(own: &[IpAddr], is_here: impl Fn(Ipv4Addr) -> bool) -> BTreeSet<Ipv4Addr> {
    let first = own.iter().find_map(|it| match it {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    std::iter::once(Ipv4Addr::LOCALHOST).chain(first.filter(|it| is_here(*it))).collect()
}

/// The one of that program for this port, and the words that it was started with.
fn own(program: &Path, port: u16) -> Option<(Pid, Vec<String>)> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let port = port.to_string();
    processes.filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok()).find_map(|pid| {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        fs::read_link(folder.join("exe")).ok().filter(|it| it == program)?;
        let words = fs::read(folder.join("cmdline")).ok()?;
        let words: Vec<String> =
            words.split(|it| *it == 0).map(|it| String::from_utf8_lossy(it).into_owned()).collect();
        let is_of_port = words.windows(2).any(|it| it[0] == "-port" && it[1] == port);
        Some((Pid::from_raw(pid)?, words)).filter(|_| is_of_port)
    })
}

/// As [`Listens::words`].
fn said_to_listen(words: &[String]) -> Vec<String> {
    let said = words.windows(2).find(|it| it[0] == "-address");
    said.map(<[String]>::to_vec).unwrap_or_default()
}

async fn start(
    port: u16,
    listens: &Listens,
    program: PathBuf,
    user: Option<&UserIds>,
) -> Result<(), EpmdError> {
    let mut command = Command::new(&program);
    if let Some(user) = user {
        // With these the supplementary groups are given up, too.
        command.uid(user.uid).gid(user.gid);
    }
    no_longer_spared(&mut command);
    let started = command
        .arg("-daemon")
        .args(["-port", &port.to_string()])
        .args(listens.words())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .status();
    match timeout(START_PATIENCE, started).await {
        Err(_) => return Err(EpmdError::Hangs { program }),
        Ok(started) => started.map_err(|source| EpmdError::Start { program: program.clone(), source })?,
    };
    let up = async {
        while !answers(port).await {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(START_PATIENCE, up).await.map_err(|_| EpmdError::Silent { program, port })
}

#[expect(
    unsafe_code,
    reason = "a child inherits that the kernel spares the agent, and only before its execution it can say no"
)]
fn no_longer_spared(command: &mut Command) {
    // SAFETY: it opens, writes and closes one file, which a forked child may do whatever other threads held.
    unsafe {
        command.pre_exec(|| {
            oom::spare_me_no_more();
            Ok(())
        });
    }
}

/// Whether its nodes are looked for by name.
pub(super) fn is_used_by(app: &pb::Application) -> bool {
    app.distribution.as_ref().is_none_or(|it| it.mode() != pb::DistributionMode::Off)
}

/// Starts it again where it is gone while somebody runs who needs it. Until the agent stops.
pub(super) async fn keep_up(shared: Arc<Shared>) {
    // Why it could not be started: said once, not every five seconds for each replica.
    let mut said: Option<String> = None;
    // Where the one that is there was last found to listen, or not to be ours.
    let mut arranged: Option<Listens> = None;
    loop {
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => return,
            () = sleep(LOOK_AFTER) => {}
            () = shared.epmd.look_now.notified() => {}
        }
        let mut is_there = answers(shared.epmd.port).await;
        if !is_there {
            arranged = None;
        }
        let listens = shared.epmd.listens().await;
        if is_there && arranged.as_ref() != Some(&listens) {
            shared.epmd.replace(&listens).await;
            is_there = answers(shared.epmd.port).await;
            arranged = Some(listens);
        }
        shared.epmd.is_seen(is_there);
        if is_there {
            said = None;
            continue;
        }
        let running: Vec<_> = {
            let observed = shared.observed.borrow();
            let needs = |report: &pb::SlotReport| report.pid > 0 || report.state() == pb::SlotState::Starting;
            observed.slots.iter().filter(|(_, report)| needs(report)).map(|(id, _)| id.clone()).collect()
        };
        for (app, slot) in running {
            match start_for(&shared, &SlotId { app, slot }).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    let error = chain(&error);
                    if said.is_none() {
                        warn!(error, "epmd is gone and cannot be started again; it is tried again");
                    }
                    said = Some(error);
                }
            }
        }
    }
}

/// Whether it runs now: `false` where this slot has no use for it.
async fn start_for(shared: &Shared, id: &SlotId) -> Result<bool, EpmdError> {
    let Ok(Some(app)) = shared.paths.ledger(id).deployed() else { return Ok(false) };
    let (true, Ok(account)) = (is_used_by(&app), account(&app.run_as_user, &app.run_as_group)) else {
        return Ok(false);
    };
    let user = account.as_ref().map(|it| &it.ids);
    shared.epmd.ensure(&shared.release_folder(id).current(), user).await?;
    info!(port = shared.epmd.port, "epmd was gone and was started again");
    Ok(true)
}

async fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    matches!(timeout(Duration::from_secs(1), TcpStream::connect(address)).await, Ok(Ok(_)))
}

/// A copy in the agent's folder, of the host's or else of the release's own: so that it is tied to neither, and can be told
/// from the name servers of others by where it lies. The host's first, because it serves every application here.
fn program(release: &Path, keep: &Path) -> Result<PathBuf, EpmdError> {
    let copy = keep.join("epmd");
    if copy.is_file() {
        return Ok(copy);
    }
    let on_host = ["/usr/bin/epmd", "/usr/local/bin/epmd"].into_iter().map(PathBuf::from);
    let source = on_host
        .into_iter()
        .find(|it| it.is_file())
        .and_then(|it| fs::canonicalize(it).ok())
        .or_else(|| in_erts(Path::new("/usr/lib/erlang")))
        .or_else(|| in_erts(Path::new("/usr/local/lib/erlang")))
        .or_else(|| in_erts(release))
        .ok_or_else(|| EpmdError::None { release: release.to_owned() })?;
    copy_for_all(&source, &copy).map_err(|source| EpmdError::Copy { to: copy.clone(), source })?;
    Ok(copy)
}

/// Ours, and executable by whoever it is to run as. Where it comes out of a release, its place there is the application's:
/// what is no file of its own is not followed.
fn copy_for_all(source: &Path, copy: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut from = File::from(open(source, flags, Mode::empty())?);
    if !from.metadata()?.is_file() {
        return Err(io::Error::other(format!("{} is no file", source.display())));
    }
    let temporary = copy.with_extension("new");
    if let Some(folder) = copy.parent() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    let mut to = File::create(&temporary)?;
    io::copy(&mut from, &mut to)?;
    to.set_permissions(fs::Permissions::from_mode(0o755))?;
    fs::rename(&temporary, copy)
}

fn in_erts(root: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(root).ok()?.flatten();
    folders
        .filter(|it| it.file_name().to_string_lossy().starts_with("erts-"))
        .map(|it| it.path().join("bin/epmd"))
        .find(|it| it.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn whatever_is_started_lies_in_the_agents_folder() {
        let folder = tempfile::tempdir().unwrap();
        let keep = folder.path().join("keep");
        // No release of its own has one, as with Gleam: the host's is copied.
        assert_eq!(program(&folder.path().join("shipment"), &keep).unwrap(), keep.join("epmd"));
        assert!(keep.join("epmd").is_file());
    }

    #[test]
    fn what_a_release_puts_in_its_place_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (link, copy) = (folder.path().join("link"), folder.path().join("keep/epmd"));
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(copy_for_all(&link, &copy).is_err() && !copy.exists());
    }

    #[test]
    fn it_listens_on_loopback_and_where_the_hosts_own_name_leads_to() {
        let of = |own: &[&str], here: bool| {
            let own: Vec<IpAddr> = own.iter().map(|it| it.parse().unwrap()).collect();
            Listens::On(addresses(&own, |_| here)).words().join(" ")
        };
        assert_eq!(of(&[], true), "-address 127.0.0.1");
        assert_eq!(of(&["127.0.0.1"], true), "-address 127.0.0.1");
        // As Debian names its hosts.
        assert_eq!(of(&["::1", "127.0.1.1"], true), "-address 127.0.0.1,127.0.1.1");
        assert_eq!(of(&["10.0.0.7", "10.0.0.8"], true), "-address 10.0.0.7,127.0.0.1");
        assert_eq!(of(&["192.0.2.1"], false), "-address 127.0.0.1", "it would not even start");
        assert_eq!(Listens::Everywhere.words(), [""; 0]);
    }

    #[test]
    fn a_resolver_that_is_away_changes_nothing_of_where_it_listens() {
        let epmd = Epmd::new(free_port(), PathBuf::new());
        assert!(epmd.known(None).is_empty());
        let found: Vec<IpAddr> = vec![Ipv4Addr::new(10, 0, 0, 7).into()];
        assert_eq!(epmd.known(Some(found.clone())), found);
        assert_eq!(epmd.known(None), found);
    }

    #[tokio::test]
    async fn one_of_ours_that_listens_elsewhere_is_replaced_once_a_fleet_asks_for_it() {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let epmd = Epmd::new(port, folder.path().to_owned());
        epmd.ensure(folder.path(), None).await.unwrap();
        let words = || own(&folder.path().join("epmd"), port).map(|(_, words)| said_to_listen(&words));
        assert_eq!(words(), Some(epmd.listens().await.words()));
        epmd.replace(&epmd.listens().await).await;
        assert!(answers(port).await, "it listens where it is to");
        let id = SlotId { app: "shop".parse().unwrap(), slot: "1".parse().unwrap() };
        epmd.opens_for(&id, true);
        epmd.replace(&epmd.listens().await).await;
        assert!(!answers(port).await);
        epmd.ensure(folder.path(), None).await.unwrap();
        assert_eq!(words(), Some(Vec::new()));
        let (pid, _) = own(&folder.path().join("epmd"), port).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    #[tokio::test]
    async fn one_that_does_not_go_into_the_background_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        script(&folder.path().join("epmd"), "#!/bin/sh\nexec sleep 1000\n");
        // Nothing listens on the lowest port.
        let epmd = Epmd::new(1, folder.path().to_owned());
        let error = epmd.ensure(folder.path(), None).await.unwrap_err();
        assert!(matches!(error, EpmdError::Hangs { .. }), "{error}");
    }

    #[tokio::test]
    async fn slots_that_start_side_by_side_start_it_once() {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let seen = folder.path().join("seen");
        let text = format!("#!/bin/sh\necho once >>{}\nexec epmd \"$@\"\n", seen.display());
        // The environment is empty: what a shell takes for PATH then has Debian's epmd.
        script(&folder.path().join("epmd"), &text);
        let epmd = Epmd::new(port, folder.path().to_owned());
        let (one, other) = tokio::join!(epmd.ensure(folder.path(), None), epmd.ensure(folder.path(), None));
        let stopped = Command::new("epmd").args(["-port", &port.to_string(), "-kill"]).output().await;
        assert!(one.is_ok() && other.is_ok() && stopped.unwrap().status.success(), "{one:?} {other:?}");
        assert_eq!(fs::read_to_string(seen).unwrap(), "once\n");
    }

    #[tokio::test]
    async fn only_a_failure_that_took_time_spares_the_next_slot_its_own() {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let epmd = Epmd::new(port, folder.path().to_owned());
        script(&folder.path().join("epmd"), "no program");
        fs::set_permissions(folder.path().join("epmd"), fs::Permissions::from_mode(0o644)).unwrap();
        for _ in 0..2 {
            let error = epmd.ensure(folder.path(), None).await.unwrap_err();
            assert!(matches!(error, EpmdError::Start { .. }), "{error}");
        }
        script(&folder.path().join("epmd"), "#!/bin/sh\nexit 1\n");
        let error = epmd.ensure(folder.path(), None).await.unwrap_err();
        assert!(matches!(error, EpmdError::Silent { .. }), "{error}");
        let error = epmd.ensure(folder.path(), None).await.unwrap_err();
        assert!(matches!(error, EpmdError::Lately { .. }), "{error}");
    }

    fn free_port() -> u16 {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn as_root_it_runs_as_the_applications_user() {
        assert!(rustix::process::geteuid().is_root(), "to be another user needs root: sudo cargo xtask test");
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let seen = folder.path().join("seen");
        let text = format!("#!/bin/sh\necho $(id -u) $(id -G) >{}\n", seen.display());
        script(&folder.path().join("epmd"), &text);
        let user = UserIds { uid: 65534, gid: 65534, groups: vec![4] };
        let epmd = Epmd::new(1, folder.path().to_owned());
        let error = epmd.ensure(folder.path(), Some(&user)).await.unwrap_err();
        assert!(matches!(error, EpmdError::Silent { .. }), "{error}");
        assert_eq!(fs::read_to_string(seen).unwrap(), "65534 65534\n");
    }
}
