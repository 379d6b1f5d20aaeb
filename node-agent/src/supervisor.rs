//! The agent's acting side: one task per slot, and this one, which takes assignments apart, stores them and hands them out.
//!
//! Everything that is decided about a replica is decided in `replica`. An assignment is acknowledged (its generation
//! reported) only when every slot's part of it is on the disk.

mod accounts;
mod acts;
mod assigned;
mod crash_point;
mod epmd;
mod evaluate;
mod hindrance;
mod host_watch;
pub mod launch;
pub(crate) mod ledger;
mod listeners;
mod notes;
mod otp_tls;
mod paths;
mod probe;
pub mod process;
mod shared;
mod slot;
mod traffic;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use proto::ids::{AppName, Slot};
use proto::pb;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use self::accounts::Accounts;
use self::epmd::Epmd;
use self::host_watch::Watch;
use self::ledger::{LedgerError, forms};
pub use self::paths::Paths;
use self::process::Keepers;
use self::shared::Shared;
use self::slot::{Memory, ORDERS, SlotOrder, SlotTask};
use self::traffic::Traffic;
use crate::clock;
use crate::link::{Certify, Evaluate, Observed, Standing, TelemetryBacklog, VmBacklog};
use crate::releases::{Fetch, Store};

/// An assignment that could not be stored (a full disk) is tried again after this.
const STORE_AGAIN: Duration = Duration::from_secs(5);

/// Who holds the agent's lock for longer than this is another agent.
const NOT_ALONE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A slot of an application on this host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId {
    pub app: AppName,
    pub slot: Slot,
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.slot)
    }
}

/// What the supervisor needs of its surroundings.
pub struct Settings {
    pub paths: Paths,
    /// The program that becomes the parent of each process, and where this host has room for control groups.
    pub keepers: Keepers,
    pub epmd_port: u16,
    pub timezone: Option<String>,
    /// The folder with the certificate that all Erlang nodes of the host talk TLS with.
    pub otp_tls: Option<PathBuf>,
    /// Who signs certificates for those of one application.
    pub certify: Arc<dyn Certify>,
    pub boot_id: String,
    /// Whether there is a control plane to decide what an agent alone decides otherwise.
    pub standing: watch::Receiver<Standing>,
}

pub struct Supervisor {
    shared: Arc<Shared>,
    slots: BTreeMap<SlotId, mpsc::Sender<SlotOrder>>,
    /// Of the last assignment that was stored whole.
    generation: u64,
    /// One that could not be stored yet.
    pending: Option<pb::Assignment>,
    /// When that is tried again, however many orders come until then.
    store_again: Instant,
    /// Why the newest assignment is not in force, as it was said last.
    fault: Option<String>,
    watch: Watch,
    /// Two agents on one data folder would undo each other's work.
    _only_one: File,
}

impl Supervisor {
    /// Takes up every slot that the ledger knows. Replicas that run go on running.
    pub async fn start(
        settings: Settings,
        fetch: Arc<dyn Fetch>,
        notes: mpsc::Sender<pb::AgentEvent>,
        cancel: CancellationToken,
    ) -> anyhow::Result<Self> {
        let Settings { paths, keepers, epmd_port, timezone, otp_tls, certify, boot_id, standing } = settings;
        let agent = paths.agent();
        fs::create_dir_all(paths.var()).with_context(|| format!("cannot make {}", paths.var().display()))?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&agent);
        made.with_context(|| format!("cannot make {}", agent.display()))?;
        let only_one = only_one(&paths).await?;
        forms::none_is_too_new(&paths)?;
        let store = Store::open(agent.join("releases")).await?;
        let shared = Arc::new(Shared {
            epmd: Epmd::new(epmd_port, paths.epmd()),
            accounts: Accounts::default(),
            paths,
            standby: process::Standby::new(keepers),
            traffic: Traffic::new(),
            timezone,
            otp_tls,
            certify,
            boot_id,
            standing,
            store,
            flushing: Mutex::default(),
            fetch,
            observed: watch::Sender::new(Observed::default()),
            siblings: watch::Sender::default(),
            vm_samples: Arc::default(),
            telemetry: Arc::default(),
            nodes: evaluate::Nodes::default(),
            notes,
            tracker: TaskTracker::new(),
            cancel,
        });
        let (stored, watch) = node_memory(&shared);
        let mut supervisor = Self {
            shared,
            slots: BTreeMap::new(),
            generation: 0,
            pending: None,
            store_again: Instant::now(),
            fault: None,
            watch,
            _only_one: only_one,
        };
        supervisor.shared.tracker.spawn(epmd::keep_up(supervisor.shared.clone()));
        supervisor.shared.keepers().home().sweep();
        let known = supervisor.shared.paths.known_slots().context("cannot look for slots")?;
        let mut whole = true;
        for id in known {
            let memory = Memory::load(&supervisor.shared.paths.ledger(&id));
            whole &= memory.as_ref().is_ok_and(Memory::is_whole);
            supervisor.take_up(id, memory);
        }
        // Not before every slot is expected: an application of which one is not known yet is left as it is.
        supervisor.shared.tracker.spawn(traffic::keep(supervisor.shared.clone()));
        // What was set aside must be sent again: nothing is acknowledged until then.
        supervisor.generation = stored.filter(|_| whole).unwrap_or(0);
        supervisor.acknowledge();
        Ok(supervisor)
    }

    /// For the link: what is sampled of the VMs here.
    pub fn vm_samples(&self) -> Arc<VmBacklog> {
        self.shared.vm_samples.clone()
    }

    /// For the link: what the replicas here have counted of their events.
    pub fn telemetry(&self) -> Arc<TelemetryBacklog> {
        self.shared.telemetry.clone()
    }

    /// For the link: who has expressions evaluated here.
    pub fn evaluate(&self) -> Arc<dyn Evaluate> {
        Arc::new(self.shared.nodes.clone())
    }

    /// For the link: where it puts what it is told of the replicas' siblings on other hosts.
    pub fn siblings(&self) -> watch::Sender<pb::Siblings> {
        self.shared.siblings.clone()
    }

    /// For the link: what is true here, from now on.
    pub fn observed(&self) -> watch::Receiver<Observed> {
        self.shared.observed.subscribe()
    }

    /// Until cancelled. Then the slots' tasks have ended, and every replica runs on.
    pub async fn run(mut self, mut orders: mpsc::Receiver<pb::Assignment>) {
        let cancel = self.shared.cancel.clone();
        loop {
            tokio::select! {
                // Stopping comes before all; a pending assignment is retried even while orders come.
                biased;
                () = cancel.cancelled() => break,
                () = sleep_until(self.store_again), if self.pending.is_some() => {
                    if let Some(assignment) = self.pending.take() {
                        self.assign(assignment).await;
                    }
                }
                order = orders.recv() => match order {
                    Some(assignment) => self.assign(assignment).await,
                    None => break,
                },
                () = self.watch.sampled() => self.look_at_host().await,
            }
        }
        self.slots.clear();
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
        self.shared.keepers().home().leave();
    }

    async fn assign(&mut self, assignment: pb::Assignment) {
        if assignment.generation <= self.generation {
            return;
        }
        let parts = match assigned::split(&assignment) {
            Ok(parts) => self.with_withdrawn(&assignment, parts),
            Err(refusal) => {
                let fault = acts::chain(&refusal.why);
                error!(fault, generation = assignment.generation, "an assignment was refused");
                return self.not_in_force(refusal.slot.as_ref(), &format!("it was refused: {fault}")).await;
            }
        };
        if let Err((id, fault)) = self.store(&assignment, &parts) {
            let fault = acts::chain(&fault);
            error!(
                fault,
                generation = assignment.generation,
                "an assignment cannot be stored and is tried again"
            );
            self.pending = Some(assignment);
            self.store_again = Instant::now() + STORE_AGAIN;
            let fault = format!("it cannot be stored and is tried again: {fault}");
            for (id, _) in &parts {
                self.slot_is_told(id, &fault).await;
            }
            return self.not_in_force(id.as_ref(), &fault).await;
        }
        info!(generation = assignment.generation, slots = assignment.slots.len(), "assigned");
        self.generation = assignment.generation;
        self.fault = None;
        self.watch.assigned(assignment.host_monitoring.as_ref());
        self.forget_unheld();
        self.acknowledge();
        for (id, part) in parts {
            if !self.slots.contains_key(&id) {
                let memory = Memory::load(&self.shared.paths.ledger(&id));
                self.take_up(id.clone(), memory);
            }
            if let Some(slot) = self.slots.get(&id) {
                let _ = slot.send(SlotOrder::Assigned(Box::new(part))).await;
            }
        }
        self.collect(&assignment);
    }

    /// Every slot's part, then that they are all there. An error says at which slot it ended.
    fn store(
        &self,
        assignment: &pb::Assignment,
        parts: &[(SlotId, pb::Assignment)],
    ) -> Result<(), (Option<SlotId>, LedgerError)> {
        for (id, part) in parts {
            let ledger = self.shared.paths.ledger(id);
            crash_point::here(|| format!("{id} assignment: to be stored"));
            ledger
                .create()
                .and_then(|()| ledger.store_assignment(part))
                .map_err(|fault| (Some(id.clone()), fault))?;
            crash_point::here(|| format!("{id} assignment: stored"));
        }
        let summary = pb::Assignment {
            generation: assignment.generation,
            host_monitoring: assignment.host_monitoring,
            ..Default::default()
        };
        crash_point::here(|| "assignment: to be acknowledged".to_owned());
        self.shared.paths.node_ledger().store_assignment(&summary).map_err(|fault| (None, fault))?;
        crash_point::here(|| "assignment: acknowledged".to_owned());
        Ok(())
    }

    /// Tells the control plane, once for each reason, that the newest assignment is not in force.
    async fn not_in_force(&mut self, id: Option<&SlotId>, fault: &str) {
        if self.fault.as_deref() != Some(fault) {
            self.shared.note(notes::assignment_failed(id, fault, clock::unix_ms()));
            self.fault = Some(fault.to_owned());
        }
        if let Some(id) = id {
            self.slot_is_told(id, fault).await;
        }
    }

    async fn slot_is_told(&self, id: &SlotId, fault: &str) {
        let fault = format!("the newest assignment is not in force: {fault}");
        match self.slots.get(id) {
            Some(slot) => drop(slot.send(SlotOrder::Refused(fault)).await),
            None => self.shared.report_fault(id, pb::SlotState::Preparing, fault),
        }
    }

    /// Slots of which nothing but a fault was said, because they were never stored.
    fn forget_unheld(&self) {
        let held: BTreeSet<_> = self.slots.keys().map(|id| (id.app.clone(), id.slot)).collect();
        self.shared.observed.send_modify(|observed| observed.slots.retain(|id, _| held.contains(id)));
    }

    /// Slots that are here and neither in the assignment nor held are withdrawn; how to stop them, their last part says.
    fn with_withdrawn(
        &self,
        assignment: &pb::Assignment,
        mut parts: Vec<(SlotId, pb::Assignment)>,
    ) -> Vec<(SlotId, pb::Assignment)> {
        let named: BTreeSet<_> = parts.iter().map(|(id, _)| id.clone()).collect();
        let stays = |id: &SlotId| named.contains(id) || is_held(assignment, id);
        for id in self.slots.keys().filter(|id| !stays(id)) {
            let part = pb::Assignment {
                generation: assignment.generation,
                applications: self.last_part(id).applications,
                ..Default::default()
            };
            parts.push((id.clone(), part));
        }
        parts
    }

    /// What a slot was last told.
    fn last_part(&self, id: &SlotId) -> pb::Assignment {
        self.shared.paths.ledger(id).assignment().ok().flatten().unwrap_or_default()
    }

    fn take_up(&mut self, id: SlotId, memory: Result<Memory, LedgerError>) {
        let (sender, orders) = mpsc::channel(ORDERS);
        self.slots.insert(id.clone(), sender);
        self.shared.traffic.expect(&id);
        self.shared.tracker.spawn(SlotTask::run(id, self.shared.clone(), memory, orders));
    }

    fn acknowledge(&self) {
        self.shared.observed.send_modify(|observed| observed.generation = self.generation);
    }

    /// Removes from the host what nobody wants and nobody runs any more.
    fn collect(&self, assignment: &pb::Assignment) {
        let mut keep = BTreeSet::new();
        let held = self.slots.keys().filter(|id| is_held(assignment, id));
        let held: Vec<_> = held.flat_map(|id| self.last_part(id).slots).collect();
        for slot in assignment.slots.iter().chain(&held) {
            let Ok(app) = slot.app.parse::<AppName>() else { continue };
            keep.extend(assigned::releases(slot).into_iter().map(|(_, key)| (app.clone(), key.sha256)));
        }
        for ((app, _), report) in &self.shared.observed.borrow().slots {
            let running = report.running.as_ref().and_then(|it| assigned::key(it).ok());
            keep.extend(running.map(|key| (app.clone(), key.sha256)));
        }
        let shared = self.shared.clone();
        let slots: Vec<SlotId> = self.slots.keys().cloned().collect();
        self.shared.tracker.spawn(async move {
            for id in slots {
                // What a slot ran before is what it may have to go back to, where the control plane cannot be asked for it.
                let folder = shared.release_folder(&id);
                match folder.release_in(&folder.previous()).await {
                    Ok(previous) => keep.extend(previous.map(|key| (id.app, key.sha256))),
                    Err(fault) => return warn!(fault = %acts::chain(&fault), "nothing is removed"),
                }
            }
            let store = &shared.store;
            if let Err(fault) = store.collect(&keep).await {
                warn!(fault = %acts::chain(&fault), "releases that nobody needs could not be removed");
            }
        });
    }
}

/// Of the last assignment that was stored whole, its generation; and what is watched on this host.
fn node_memory(shared: &Shared) -> (Option<u64>, Watch) {
    let ledger = shared.paths.node_ledger();
    let unread = |fault: LedgerError| {
        let fault = acts::chain(&fault);
        warn!(fault, "the node's ledger could not be read");
        fault
    };
    let stored = ledger.assignment().map_err(unread).unwrap_or_else(|fault| {
        shared.note(notes::node_ledger_failed(&fault, clock::unix_ms()));
        None
    });
    let remembered = ledger.watch().map_err(unread).ok().flatten();
    let limits = stored.as_ref().and_then(|it| it.host_monitoring.as_ref());
    let watch = Watch::new(limits, remembered, &shared.boot_id);
    (stored.map(|it| it.generation), watch)
}

/// The control plane cannot say now what that slot is to be.
fn is_held(assignment: &pb::Assignment, id: &SlotId) -> bool {
    assignment.held.iter().any(|app| app == id.app.as_str())
}

/// Held for as long as the agent runs; whose it is stands in it. A keeper that an earlier agent was just starting may hold it
/// for a moment after that agent.
async fn only_one(paths: &Paths) -> anyhow::Result<File> {
    let path = paths.agent().join("lock");
    let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = match file {
        // The lock is the kernel's: what runs here is taken up also where nothing can be written.
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => File::open(&path),
        other => other,
    };
    let mut file = file.with_context(|| format!("cannot open {}", path.display()))?;
    let give_up = Instant::now() + NOT_ALONE;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() < give_up {
            sleep(LOOK_AGAIN).await;
            continue;
        }
        let mut pid = String::new();
        let _ = (&file).take(20).read_to_string(&mut pid);
        let who = pid.trim().parse::<u32>().map_or_else(|_| String::new(), |pid| format!(" (pid {pid})"));
        anyhow::bail!(
            "another agent{who} works on {}; stop it first, or give this one a folder of its own (--var-path)",
            paths.var().display()
        );
    }
    // For people: where it cannot be written the lock holds all the same.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}
