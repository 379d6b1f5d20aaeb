//! Control groups of the kernel's own: who begins in one, and who ends with it. They are made by root alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of it is test code")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use node_agent::cgroup::home::{Hierarchy, Home};
use node_agent::cgroup::{Cgroup, Limits};
use node_agent::supervisor::process::{Confinement, Keepers, LaunchError, Step, cgroup_of};
use proto::state::ExitCause;

use super::world::{KEEPER, World, eventually, eventually_is, is_root, kill, lives, soon};

/// A slot whose programs have groups of their own.
struct Grouped {
    world: World,
    base: PathBuf,
}

impl Grouped {
    fn new(limits: Limits) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(is_root(), "control groups are made by root: sudo cargo xtask test");
        let hierarchy =
            Hierarchy::of_this_process().expect("cgroup v2, to which every kernel since 4.5 has the means");
        // At the root, so that this process need not move.
        let at_root = Hierarchy { own: hierarchy.mount.clone(), ..hierarchy };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("deployex-test-{}-{count}", std::process::id());
        let home = Home::settle(Some(&at_root), &name);
        let base = at_root.mount.join(&name);
        assert!(base.is_dir(), "{:?}", home.why_not());
        let mut world = World::new();
        world.keepers = Keepers::new(KEEPER, home);
        world.confinement = Some(Confinement { name: "demo-1".to_owned(), limits });
        Self { world, base }
    }

    /// Of the first launch.
    fn group(&self) -> Cgroup {
        Cgroup::at(self.base.join("demo-1-1"))
    }
}

impl Drop for Grouped {
    fn drop(&mut self) {
        let _ = Cgroup::at(&self.base).kill();
        for _ in 0..1_000 {
            self.world.keepers.home().leave();
            if !self.base.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn group_of(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned()
}

async fn pid_in(world: &World, name: &str) -> u32 {
    let path = world.path(name);
    eventually(name, || fs::read_to_string(&path).ok()?.strip_suffix('\n')?.parse().ok()).await
}

/// Leaves its group, its session and its parents behind and says who it is.
const DAEMON: &str = "setsid sh -c 'sh -c \"echo \\$\\$ >far; exec sleep 1000\" & exit' &";

#[tokio::test]
async fn as_root_a_program_begins_in_a_group_of_its_own_which_goes_with_it() {
    let grouped = Grouped::new(Limits::default());
    let world = &grouped.world;
    let mut keeper = world.launch(&world.sh(1, "cat /proc/self/cgroup; exec sleep 1000")).await.unwrap();
    let pid = keeper.process().pid;
    assert!(group_of(pid).ends_with("/demo-1-1"), "{}", group_of(pid));
    assert_eq!(cgroup_of(&world.slot, keeper.process()), Some(grouped.group()));
    assert!(!group_of(world.kept_by().await).ends_with("/demo-1-1"), "its keeper stays outside");
    let name = |it: &str| it.lines().any(|line| line.starts_with("0::") && line.ends_with("/demo-1-1"));
    eventually("its first word, said from there", || name(&world.stdout()).then_some(())).await;
    assert!(grouped.group().usage().cpu_us.is_some(), "counted without any controller");
    keeper.stop(Duration::from_secs(1_000));
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Signal(15));
    eventually_is(false, || grouped.group().path().exists()).await;
}

#[tokio::test]
async fn as_root_a_daemon_that_left_everything_ends_with_its_replica_under_a_keeper_that_took_over() {
    let grouped = Grouped::new(Limits::default());
    let world = &grouped.world;
    let script = format!("{DAEMON} while [ ! -s far ]; do sleep 0.01; done; exec sleep 1000");
    let first = world.launch(&world.sh(1, &script)).await.unwrap();
    let far = pid_in(world, "far").await;
    // With its keeper it loses the last that tied it to the replica.
    kill(world.kept_by().await);
    drop(first);
    let mut found = world.find_running().await;
    found.stop(Duration::from_secs(1_000));
    assert_eq!(soon("end", found.ended()).await.cause, ExitCause::Unknown);
    let mut next = world.launch(&world.sh(2, "exec sleep 1000")).await.unwrap();
    assert!(!lives(far), "the successor came after the last of them");
    next.kill();
    soon("end", next.ended()).await;
}

#[tokio::test]
async fn as_root_what_a_replica_left_that_ended_unseen_is_ended_by_its_group() {
    let grouped = Grouped::new(Limits::default());
    let world = &grouped.world;
    // The daemon lets go of the slot's lock, so that nothing but the group tells of it.
    let script = format!(
        "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; {DAEMON} while [ ! -s far ]; do sleep 0.01; done; exec sleep 1000"
    );
    let first = world.launch(&world.sh(1, &script)).await.unwrap();
    let far = pid_in(world, "far").await;
    kill(world.kept_by().await);
    kill(first.process().pid);
    drop(first);
    world.find().await.unwrap();
    eventually_is(None, || world.keeper_pid()).await;
    assert!(!lives(far));
}

#[tokio::test]
async fn as_root_a_kill_reaches_those_who_are_deaf_and_far_away() {
    let grouped = Grouped::new(Limits::default());
    let world = &grouped.world;
    let script = format!("trap '' TERM; {DAEMON} while :; do sleep 0.01; done");
    let mut keeper = world.launch(&world.sh(1, &script)).await.unwrap();
    let far = pid_in(world, "far").await;
    keeper.kill();
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Signal(9), "by us, not for its memory");
    eventually_is(None, || world.keeper_pid()).await;
    assert!(!lives(far));
}

#[tokio::test]
async fn as_root_what_cannot_begin_in_its_group_is_said_as_elsewhere() {
    let grouped = Grouped::new(Limits::default());
    let world = &grouped.world;
    let error = world.launch(&world.spec(1, "/nowhere/demo", &[])).await.unwrap_err();
    assert!(matches!(error, LaunchError::Step { step: Step::Exec, .. }), "{error:?}");
    let mut elsewhere = world.sh(1, "true");
    elsewhere.cwd = world.path("nowhere");
    let error = world.launch(&elsewhere).await.unwrap_err();
    assert!(matches!(error, LaunchError::Step { step: Step::Cwd, .. }), "{error:?}");
    // And the slot is as free as before.
    assert_eq!(world.run("exit 3").await.cause, ExitCause::Code(3));
}

fn adjustment(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap()
}

#[tokio::test]
async fn as_root_a_replica_is_to_the_kernel_as_any_other_whatever_its_keeper_is() {
    let grouped = Grouped::new(Limits::default());
    let world = &grouped.world;
    // Upwards everybody may, and its children begin with it.
    fs::write("/proc/self/oom_score_adj", "200").unwrap();
    let mut keeper = world.launch(&world.sh(1, "exec sleep 1000")).await.unwrap();
    assert_eq!(adjustment(keeper.process().pid), "0\n");
    keeper.kill();
    soon("end", keeper.ended()).await;
}

#[tokio::test]
async fn as_root_with_sys_resource_the_kernel_ends_a_replica_before_its_keeper() {
    let grouped = Grouped::new(Limits::default());
    let world = &grouped.world;
    let mut keeper = world.launch(&world.sh(1, "exec sleep 1000")).await.unwrap();
    assert_eq!(adjustment(world.kept_by().await), "-900\n");
    assert_eq!(adjustment(keeper.process().pid), "0\n");
    keeper.kill();
    soon("end", keeper.ended()).await;
}

/// What needs the controllers of cgroup v2, which a host may have given to version 1.
fn has_controllers() {
    let mount = Hierarchy::of_this_process().unwrap().mount;
    let offered = fs::read_to_string(Path::new(&mount).join("cgroup.controllers")).unwrap();
    for controller in ["cpu", "memory", "pids"] {
        assert!(
            offered.split_whitespace().any(|it| it == controller),
            "no {controller} here, only: {offered}"
        );
    }
}

#[tokio::test]
async fn as_root_with_controllers_a_replica_over_its_memory_limit_is_named_so() {
    has_controllers();
    let limits = Limits { memory_max: Some(64 << 20), ..Limits::default() };
    let grouped = Grouped::new(limits);
    let world = &grouped.world;
    // Swap would let it grow for as long as there is some.
    let mut keeper = world
        .launch(&world.sh(1, "while [ ! -e go ]; do sleep 0.01; done; exec tail /dev/zero"))
        .await
        .unwrap();
    assert_eq!(grouped.group().limits(), limits);
    let _ = fs::write(grouped.group().path().join("memory.swap.max"), "0");
    fs::write(world.path("go"), "").unwrap();
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::OutOfMemory(64 << 20));
}

#[tokio::test]
async fn as_root_with_controllers_processes_and_cpu_are_bounded_also_while_they_run() {
    has_controllers();
    let grouped = Grouped::new(Limits { pids_max: Some(16), ..Limits::default() });
    let world = &grouped.world;
    let script = "i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done; wait";
    let mut keeper = world.launch(&world.sh(1, script)).await.unwrap();
    eventually("a refusal", || world.stderr().contains("fork").then_some(())).await;
    assert!(grouped.group().usage().pids.is_some_and(|it| it <= 16), "{:?}", grouped.group().usage());
    let changed = Limits { pids_max: Some(64), cpu_percent: Some(50), memory_max: Some(1 << 30) };
    grouped.group().limit(&changed).unwrap();
    assert_eq!(grouped.group().limits(), changed);
    keeper.kill();
    soon("end", keeper.ended()).await;
}

#[test]
fn as_root_an_agent_makes_way_in_the_group_that_it_was_started_in() {
    assert!(is_root());
    let before = Hierarchy::of_this_process().expect("cgroup v2");
    let outer = Cgroup::at(before.mount.join(format!("deployex-test-outer-{}", std::process::id())));
    outer.create().unwrap();
    let own = std::process::id().to_string();
    fs::write(outer.path().join("cgroup.procs"), &own).unwrap();
    let mut bystander = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let home = Home::settle(Hierarchy::of_this_process().as_ref(), "ours");
    let why = home.why_not().unwrap().to_owned();
    assert!(
        why.contains("holds other programs, such as sleep")
            && why.contains("start the agent in one of its own"),
        "{why}"
    );
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    // Begun anew, where its predecessor had moved, and alone.
    let home = Home::settle(Hierarchy::of_this_process().as_ref(), "ours");
    assert!(!home.why_not().is_some_and(|it| it.contains("holds other")), "{:?}", home.why_not());
    assert_eq!(Hierarchy::of_this_process().unwrap().own, outer.path().join("ours/agent"));
    assert_eq!(home.group("a-1-1").unwrap().path(), outer.path().join("ours/a-1-1"));
    fs::write(before.own.join("cgroup.procs"), &own).unwrap();
    for folder in ["ours/agent", "ours", ""] {
        fs::remove_dir(outer.path().join(folder)).unwrap();
    }
}
