//! What runs on an agent's host, as the kernel says it and as the samples wrote it down themselves: the agent is not asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use proto::ids::Slot;
use rustix::process::Pid;
use xtask::processes;

/// Between two looks for what must not be: shorter than any virtual machine lives.
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

/// A virtual machine or its keeper, and the slot that it is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub app: String,
    pub slot: Slot,
    /// A pre-command of the slot, beside what the slot runs.
    pub is_pre_command: bool,
}

/// The processes of an agent's host, without the agent.
#[derive(Debug, Default)]
pub struct OnHost {
    pub machines: BTreeMap<Place, Vec<u32>>,
    pub keepers: BTreeMap<Place, Vec<u32>>,
    /// Helpers of virtual machines, which end with them.
    pub helpers: Vec<u32>,
    /// Those of them that outlived their machine: its keeper was to end them.
    pub orphans: Vec<u32>,
    /// Neither of these, nor the name server: who they are.
    pub strangers: Vec<String>,
}

impl OnHost {
    /// Of everything that works below the agent's folder, except for the agent itself.
    pub fn of(folder: &Path, agent: Option<u32>) -> Self {
        let mut found = Self::default();
        for pid in processes::under(folder).into_iter().map(Pid::as_raw_nonzero) {
            let pid = pid.get().unsigned_abs();
            if Some(pid) != agent {
                found.add(folder, pid);
            }
        }
        found
    }

    /// One machine and one keeper in each of these slots (application, number), and nobody anywhere else.
    pub fn holds_one_each<'a>(&self, slots: impl IntoIterator<Item = (&'a str, u16)>) -> bool {
        let place = |(app, slot): (&str, u16)| Place {
            app: app.to_owned(),
            slot: Slot::new(u32::from(slot)).expect("a slot's number"),
            is_pre_command: false,
        };
        let wanted: BTreeSet<_> = slots.into_iter().map(place).collect();
        let is_so = |it: &BTreeMap<Place, Vec<u32>>| {
            it.keys().eq(wanted.iter()) && it.values().all(|pids| pids.len() == 1)
        };
        is_so(&self.machines) && is_so(&self.keepers) && self.strangers.is_empty() && self.orphans.is_empty()
    }

    fn add(&mut self, folder: &Path, pid: u32) {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        // One that ended meanwhile has no program any more.
        let Ok(program) = fs::read_link(proc.join("exe")) else { return };
        let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = name.trim_end_matches(" (deleted)");
        match name {
            "beam.smp" if is_helper(&proc) => self.helpers.push(pid),
            "beam.smp" => {
                if let Some(place) = place_of_machine(folder, &proc) {
                    self.machines.entry(place).or_default().push(pid);
                }
            }
            "deployex-keeper" => {
                if let Some(place) = place_of_keeper(folder, &proc) {
                    self.keepers.entry(place).or_default().push(pid);
                }
            }
            "erl_child_setup" | "inet_gethost" => {
                self.helpers.push(pid);
                if is_orphan(&proc) {
                    self.orphans.push(pid);
                }
            }
            "epmd" => {}
            _ => {
                let words = fs::read(proc.join("cmdline")).unwrap_or_default();
                self.strangers.push(format!("{pid} {}", String::from_utf8_lossy(&words).replace('\0', " ")));
            }
        }
    }
}

/// Its parent is neither a machine nor another helper. One whose parent ends just now is not told of: it may end with it.
fn is_orphan(proc: &Path) -> bool {
    let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
    let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)).unwrap_or_default();
    let Ok(program) = fs::read_link(format!("/proc/{parent}/exe")) else { return false };
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let of_a_machine = ["beam.smp", "erl_child_setup", "inet_gethost"];
    !of_a_machine.contains(&name.trim_end_matches(" (deleted)"))
}

/// Start scripts ask short-lived machines in the replica's process group, and a machine's first child is a copy of it.
fn is_helper(proc: &Path) -> bool {
    let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
    let Some((before, after)) = stat.rsplit_once(") ") else { return true };
    let mut after = after.split(' ').skip(1);
    let (parent, group) = (after.next().unwrap_or_default(), after.next());
    let parents_program = fs::read_link(format!("/proc/{parent}/exe")).unwrap_or_default();
    before.split(' ').next() != group || parents_program.ends_with("beam.smp")
}

/// By its `TMPDIR`, which is the slot's in every language.
fn place_of_machine(folder: &Path, proc: &Path) -> Option<Place> {
    let environment = fs::read(proc.join("environ")).ok()?;
    let tmp = environment.split(|byte| *byte == 0).find_map(|it| it.strip_prefix(b"TMPDIR="))?;
    let below = Path::new(std::str::from_utf8(tmp).ok()?).strip_prefix(folder.join("var/service")).ok()?;
    let mut place = place(below)?;
    // What a slot runs was started out of `current`, whatever that is called by now; a release that is still `new` has only
    // pre-commands.
    let program = fs::read_link(proc.join("exe")).ok()?;
    place.is_pre_command = program.iter().any(|it| it == "new");
    Some(place)
}

/// By its working folder.
fn place_of_keeper(folder: &Path, proc: &Path) -> Option<Place> {
    let works_in = fs::read_link(proc.join("cwd")).ok()?;
    place(works_in.strip_prefix(folder.join("var/agent/slots")).ok()?)
}

fn place(below: &Path) -> Option<Place> {
    let mut parts = below.iter().map(|part| part.to_string_lossy());
    let (app, slot) = (parts.next()?.into_owned(), parts.next()?.parse().ok()?);
    Some(Place { app, slot, is_pre_command: parts.next().is_some_and(|it| it == "pre") })
}

/// One start, as the sample with the behaviour `record` wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub node: String,
    pub version: String,
    pub pid: u32,
}

/// Every start so far, in order.
pub fn recorded(file: &Path) -> Vec<Start> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let start = |line: &str| {
        let mut words = line.split(' ');
        let node = words.next()?.split('@').next()?.to_owned();
        Some(Start { node, version: words.next()?.to_owned(), pid: words.next()?.parse().ok()? })
    };
    text.lines().map(|line| start(line).unwrap_or_else(|| panic!("{line:?} is no start"))).collect()
}

/// The versions that each node was started with, in order.
pub fn versions(starts: &[Start]) -> BTreeMap<String, Vec<String>> {
    let mut versions = BTreeMap::<_, Vec<_>>::new();
    for start in starts {
        versions.entry(start.node.clone()).or_default().push(start.version.clone());
    }
    versions
}

/// Looks all the time whether two virtual machines are in one slot.
#[derive(Debug)]
pub struct Lookout {
    over: Arc<AtomicBool>,
    looking: Option<JoinHandle<Option<String>>>,
}

impl Lookout {
    pub fn over(folder: &Path) -> Self {
        let (folder, over) = (folder.to_owned(), Arc::new(AtomicBool::new(false)));
        let until = Arc::clone(&over);
        let look = move || {
            while !until.load(Ordering::Relaxed) {
                let found = OnHost::of(&folder, None);
                let twice = found.machines.iter().find(|(_, pids)| pids.len() > 1);
                if let Some((place, pids)) = twice {
                    let stat = |pid| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                    let stats: Vec<_> = pids.iter().map(stat).collect();
                    return Some(format!("{place:?} had {pids:?} at once: {stats:#?}"));
                }
                std::thread::sleep(BETWEEN_LOOKS);
            }
            None
        };
        Self { over, looking: Some(std::thread::spawn(look)) }
    }

    /// What was seen that must not be.
    pub fn seen(mut self) -> Option<String> {
        self.over.store(true, Ordering::Relaxed);
        self.looking.take()?.join().expect("looking does not panic")
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
