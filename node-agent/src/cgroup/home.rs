//! Where on this host the groups of replicas are made, and what the host lets us do with them.
//!
//! ```text
//!   R                       the group that the agent was started in, or the root of the hierarchy
//!   └─ deployex-1a2b3c4d    ours, named after the agent's var path: two agents on one host do not meet
//!      ├─ agent             the agent and its keepers, where R is not the root: a group that hands controllers on holds nobody
//!      └─ shop-2-17         one replica: application, slot, launch
//! ```
//! What cannot be had is never an error that keeps a replica from running: it is said, with its reason.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use proto::ids::{AppName, Slot};

use super::{Cgroup, Limits};
use crate::kernel_file;

/// Those that bound what a replica may use.
pub const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// The agent's own group below ours.
const AGENT: &str = "agent";

/// The hierarchy of cgroup v2 as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Which group is shown there: `/`, or a container's own.
    pub root: String,
    /// The folder of the group that this process is in.
    pub own: PathBuf,
}

impl Hierarchy {
    pub fn of_this_process() -> Option<Self> {
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    /// From `/proc/self/mountinfo` and `/proc/self/cgroup`.
    fn parse(mountinfo: &str, cgroup: &str) -> Option<Self> {
        let (root, mount) = mountinfo.lines().find_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let mut fields = place.split(' ').skip(3);
            let (root, mount) = (fields.next()?, fields.next()?);
            (kind.split(' ').next() == Some("cgroup2")).then_some((root, PathBuf::from(mount)))
        })?;
        let mut hierarchy = Self { own: mount.clone(), mount, root: root.to_owned() };
        hierarchy.own = hierarchy.folder(cgroup)?;
        Some(hierarchy)
    }

    /// Of the group that a `/proc/{pid}/cgroup` names. A container may see only a part of all groups; `None`: not that one.
    fn folder(&self, cgroup: &str) -> Option<PathBuf> {
        let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
        let below = path.strip_prefix(self.root.trim_end_matches('/'))?.trim_start_matches('/');
        Some(if below.is_empty() { self.mount.clone() } else { self.mount.join(below) })
    }

    /// The group of its own that this replica began in; `None`: it has none, or the process is another by now.
    pub fn group_of(&self, pid: u32, app: &AppName, slot: Slot) -> Option<Cgroup> {
        let cgroup = kernel_file::read(format!("/proc/{pid}/cgroup")).ok()?;
        let folder = self.folder(&cgroup)?;
        let name = folder.file_name()?.to_str()?;
        let launch = name.strip_prefix(&format!("{app}-{slot}-"))?;
        (launch.parse::<u64>().is_ok() && folder.is_dir()).then(|| Cgroup::at(folder))
    }
}

/// Where groups are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    base: Option<PathBuf>,
    controllers: Vec<&'static str>,
    /// Why replicas have no groups here, or why not all can be limited in theirs.
    why_not: Option<String>,
}

impl Home {
    /// A host without any; why.
    pub fn none(why_not: impl Into<String>) -> Self {
        Self { base: None, controllers: Vec::new(), why_not: Some(why_not.into()) }
    }

    /// Below the group that this process is in, which is moved out of the way where that is needed. `name` is our own there.
    pub fn settle(hierarchy: Option<&Hierarchy>, name: &str) -> Self {
        let Some(Hierarchy { mount, own, .. }) = hierarchy else {
            return Self::none("cgroup v2 is not mounted here");
        };
        // A program that began anew is where its predecessor had moved.
        let suffix = Path::new(name).join(AGENT);
        let root = if own.ends_with(&suffix) { own.ancestors().nth(2).unwrap_or(own) } else { own };
        let base = root.join(name);
        if let Err(error) = fs::create_dir_all(&base) {
            return Self::none(format!("no control group can be made below {}: {error}", root.display()));
        }
        // The root of all groups may hold processes.
        let mut moved = Ok(());
        if root != mount || root.join("cgroup.type").exists() {
            let leaf = Cgroup::at(base.join(AGENT));
            // Who may not do this for itself cannot begin a replica in another group either.
            if let Err(error) = fs::create_dir_all(leaf.path()).and_then(|()| leaf.enter()) {
                return Self::none(format!(
                    "the agent cannot be moved to {}: {error}",
                    leaf.path().display()
                ));
            }
            moved = make_way(root, &leaf);
        }
        let handed = moved.and_then(|()| {
            hand_on(root)?;
            hand_on(&base)
        });
        let offered = controllers(&base.join("cgroup.subtree_control"));
        let why_not = handed.err().or_else(|| missing(&offered, root));
        Self { base: Some(base), controllers: offered, why_not }
    }

    /// Where every keeper has a scope of systemd's: what can be limited in those.
    pub fn of_scopes(hierarchy: Option<&Hierarchy>) -> Self {
        let Some(Hierarchy { mount, .. }) = hierarchy else {
            return Self::none("cgroup v2 is not mounted here");
        };
        let controllers = controllers(&mount.join("cgroup.controllers"));
        let why_not = missing(&controllers, mount);
        Self { base: None, controllers, why_not }
    }

    /// The scope that a keeper is in, which is ours to divide: itself in a group of its own, beside that of its program.
    pub fn in_scope(hierarchy: Option<&Hierarchy>, keeper: u32) -> Self {
        let groups = fs::read_to_string(format!("/proc/{keeper}/cgroup")).unwrap_or_default();
        let Some(base) = hierarchy.and_then(|it| it.folder(&groups)) else {
            return Self::none("cgroup v2 is not mounted here");
        };
        let own = Cgroup::at(base.join("keeper"));
        if let Err(error) = own.create().and_then(|()| own.take_in(keeper)) {
            return Self::none(format!("{} cannot be divided: {error}", base.display()));
        }
        let handed = hand_on(&base);
        let controllers = controllers(&base.join("cgroup.subtree_control"));
        let why_not = handed.err().or_else(|| missing(&controllers, &base));
        Self { base: Some(base), controllers, why_not }
    }

    /// Of a new launch; `None`: there are none here.
    pub fn group(&self, name: &str) -> Option<Cgroup> {
        self.base.as_ref().map(|base| Cgroup::at(base.join(name)))
    }

    /// Which limits can be set.
    pub fn controllers(&self) -> &[&'static str] {
        &self.controllers
    }

    pub fn why_not(&self) -> Option<&str> {
        self.why_not.as_deref()
    }

    /// Removes the groups of replicas that ended while their keepers were dead. One that somebody is in stays.
    pub fn sweep(&self) {
        for entry in self.base.iter().filter_map(|base| fs::read_dir(base).ok()).flatten().flatten() {
            if entry.file_type().is_ok_and(|it| it.is_dir()) && entry.file_name() != AGENT {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }

    /// Leaves nothing behind where nothing runs any more.
    pub fn leave(&self) {
        if let Some(base) = &self.base {
            self.sweep();
            let _ = fs::remove_dir(base);
        }
    }
}

/// What a replica with these limits lacks on a host where its group is `group`, as a sentence; `None`: all of them hold.
pub fn unlimited(group: Option<&Cgroup>, limits: &Limits, why_not: Option<&str>) -> Option<String> {
    let everything: Vec<_> = super::files(limits)
        .into_iter()
        .filter_map(|(_, what, value)| value.is_some().then_some(what))
        .collect();
    let unmet = group.map_or(everything, |group| group.unmet(limits));
    if unmet.is_empty() {
        return None;
    }
    let why = why_not.unwrap_or("it was started before it could be; restart it");
    Some(format!("not limited as asked for ({}): {why}", unmet.join(", ")))
}

/// Whoever is ours goes to the agent's own group, because one that hands its controllers on may hold nobody.
fn make_way(root: &Path, leaf: &Cgroup) -> Result<(), String> {
    let here = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe"));
    let ours = |pid: &u32| here(pid).is_ok_and(|exe| exe.file_name() == Some("deployex-keeper".as_ref()));
    let left = || fs::read_to_string(root.join("cgroup.procs")).unwrap_or_default();
    for keeper in left().lines().filter_map(|it| it.parse().ok()).filter(ours) {
        let _ = leaf.take_in(keeper);
    }
    match left().lines().next().map(str::to_owned) {
        None => Ok(()),
        Some(pid) => {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Err(format!(
                "the control group {} holds other programs, such as {} ({pid}), and so cannot hand its controllers on; \
                 start the agent in one of its own",
                root.display(),
                name.trim()
            ))
        }
    }
}

fn missing(offered: &[&str], at: &Path) -> Option<String> {
    let missing: Vec<_> = CONTROLLERS.into_iter().filter(|it| !offered.contains(it)).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "cgroup v2 has no controller for {} at {}; is it taken by cgroup v1, or not delegated to the agent?",
            missing.join(", "),
            at.display()
        )
    })
}

/// Gives what a group has to those below it.
fn hand_on(group: &Path) -> Result<(), String> {
    let file = group.join("cgroup.subtree_control");
    for controller in controllers(&group.join("cgroup.controllers")) {
        if !controllers(&file).contains(&controller) {
            let handed = fs::OpenOptions::new()
                .append(true)
                .open(&file)
                .and_then(|mut it| io::Write::write_all(&mut it, format!("+{controller} ").as_bytes()));
            handed.map_err(|error| format!("{} does not take +{controller}: {error}", file.display()))?;
        }
    }
    Ok(())
}

/// Those of ours that a file lists.
fn controllers(file: &Path) -> Vec<&'static str> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let listed = |name: &&str| text.split_ascii_whitespace().any(|it| it.trim_start_matches('+') == *name);
    CONTROLLERS.into_iter().filter(listed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 1 0:5 / /proc rw - proc proc rw\n\
        31 25 0:27 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs rw\n\
        32 31 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_place_of_a_process_is_read_from_what_the_kernel_says() {
        let place = |mounts: &str, cgroup| Hierarchy::parse(mounts, cgroup).map(|it| it.own);
        let at = |own: &str| Some(Path::new("/sys/fs/cgroup/unified").join(own));
        assert_eq!(place(MOUNTS, "4:memory:/x\n0::/\n"), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(place(MOUNTS, "0::/a/b.service\n"), at("a/b.service"));
        // A container that is shown its own part alone.
        let part = MOUNTS.replace("0:28 /", "0:28 /docker/7f");
        assert_eq!(place(&part, "0::/docker/7f/x\n"), at("x"));
        assert_eq!(place(&part, "0::/elsewhere\n"), None);
        assert_eq!(place("22 1 0:5 / /proc rw - proc proc rw\n", "0::/\n"), None);
        assert_eq!(place(MOUNTS, "4:memory:/\n"), None);
    }

    /// A root as the kernel would lay it out; files keep what is written to them.
    fn fake(controllers: &str) -> (tempfile::TempDir, Hierarchy) {
        let folder = tempfile::tempdir().unwrap();
        let mount = folder.path().to_owned();
        let lay = |at: &Path| {
            fs::create_dir_all(at).unwrap();
            fs::write(at.join("cgroup.controllers"), controllers).unwrap();
            fs::write(at.join("cgroup.subtree_control"), "").unwrap();
        };
        lay(&mount);
        lay(&mount.join("ours"));
        (folder, Hierarchy { own: mount.clone(), mount, root: "/".to_owned() })
    }

    #[test]
    fn controllers_are_handed_down_to_the_groups_of_replicas() {
        let (folder, hierarchy) = fake("cpuset cpu io memory pids\n");
        let home = Home::settle(Some(&hierarchy), "ours");
        assert_eq!((home.controllers(), home.why_not()), (&["cpu", "memory", "pids"][..], None));
        for at in ["", "ours"] {
            let handed = fs::read_to_string(folder.path().join(at).join("cgroup.subtree_control")).unwrap();
            assert_eq!(handed, "+cpu +memory +pids ");
        }
        let group = home.group("shop-1-7").unwrap();
        assert_eq!(group.path(), folder.path().join("ours/shop-1-7"));
    }

    #[test]
    fn a_host_without_controllers_has_groups_and_says_what_is_missing() {
        let (_folder, hierarchy) = fake("cpu\n");
        let home = Home::settle(Some(&hierarchy), "ours");
        assert!(home.why_not().unwrap().starts_with("cgroup v2 has no controller for memory, pids at"));
        let group = home.group("shop-1-7").unwrap();
        group.create().unwrap();
        let limits = Limits { memory_max: Some(1 << 30), ..Limits::default() };
        let said = unlimited(Some(&group), &limits, home.why_not()).unwrap();
        assert!(said.starts_with("not limited as asked for (memory): cgroup v2 has no controller"), "{said}");
        assert_eq!(unlimited(Some(&group), &Limits::default(), home.why_not()), None);
    }

    #[test]
    fn a_host_without_groups_says_why_replicas_are_not_limited() {
        let home = Home::settle(None, "ours");
        assert_eq!(home.group("shop-1-7"), None);
        let limits = Limits { pids_max: Some(16), cpu_percent: Some(50), memory_max: None };
        assert_eq!(
            unlimited(None, &limits, home.why_not()).unwrap(),
            "not limited as asked for (CPU, processes): cgroup v2 is not mounted here"
        );
    }

    #[test]
    fn what_cannot_be_written_is_said() {
        let (mount, own) = ("/proc/nowhere".into(), "/proc/nowhere".into());
        let nowhere = Hierarchy { mount, own, root: "/".to_owned() };
        let home = Home::settle(Some(&nowhere), "ours");
        assert!(home.why_not().unwrap().starts_with("no control group can be made below /proc/nowhere"));
        assert_eq!(home.group("x"), None);
    }

    #[test]
    fn an_agent_that_began_anew_finds_the_place_that_its_predecessor_made() {
        let (folder, mut hierarchy) = fake("cpu memory pids");
        hierarchy.own = folder.path().join("ours/agent");
        let home = Home::settle(Some(&hierarchy), "ours");
        assert_eq!(home.group("x").unwrap().path(), folder.path().join("ours/x"));
        assert_eq!(home.why_not(), None);
    }

    #[test]
    fn empty_groups_are_removed_and_what_somebody_is_in_stays() {
        let (folder, hierarchy) = fake("cpu memory pids");
        let home = Home::settle(Some(&hierarchy), "ours");
        let [empty, used] = ["a-1-1", "a-1-2"].map(|it| home.group(it).unwrap());
        empty.create().unwrap();
        used.create().unwrap();
        fs::write(used.path().join("somebody"), "").unwrap();
        home.sweep();
        assert!(!empty.path().exists() && used.path().exists());
        home.leave();
        assert!(folder.path().join("ours").exists());
    }
}
