//! Scopes of the systemd that runs this host. Named so that `cargo xtask test` runs them where there is one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of it is test code")]

use std::fs;
use std::process::Command;

use node_agent::cgroup::Limits;
use node_agent::supervisor::process::{Confinement, Keepers, cgroup_of};
use node_agent::systemd::Systemd;
use proto::state::ExitCause;

use super::world::{KEEPER, World, eventually, eventually_is, is_root, kill, lives, soon};

fn world() -> World {
    assert!(is_root(), "scopes are made by root");
    let systemd = Systemd::of_this_host(0).expect("systemd as the first process");
    let mut world = World::new();
    world.keepers = Keepers::in_scopes(KEEPER, systemd);
    world.confinement = Some(Confinement { name: "demo-1".to_owned(), limits: Limits::default() });
    world
}

fn group_of(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned()
}

fn scope_of(pid: u32) -> String {
    let group = group_of(pid);
    let scope = group.strip_prefix("/deployex.slice/").and_then(|it| it.split('/').next());
    scope.unwrap_or_else(|| panic!("in no scope of ours: {group}")).to_owned()
}

fn property(unit: &str, name: &str) -> String {
    let said = Command::new("systemctl").args(["show", unit, "--value", "-p", name]).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn as_root_with_systemd_a_replica_and_its_keeper_are_in_a_scope_that_goes_with_them() {
    let world = world();
    let mut keeper = world.launch(&world.sh(1, "exec sleep 1000")).await.unwrap();
    let (kept_by, pid) = (world.kept_by().await, keeper.process().pid);
    assert_eq!(world.keepers.unscoped(pid), None);
    let elsewhere = world.keepers.unscoped(std::process::id()).unwrap();
    assert!(elsewhere.starts_with("its keeper has no scope of its own"), "{elsewhere}");
    let scope = scope_of(kept_by);
    assert_eq!(
        (scope_of(pid), group_of(kept_by)),
        (scope.clone(), format!("/deployex.slice/{scope}/keeper"))
    );
    assert!(group_of(pid).ends_with("/demo-1-1"), "{}", group_of(pid));
    assert_ne!(group_of(std::process::id()), group_of(kept_by), "not where the agent is");
    for (name, value) in [("Slice", "deployex.slice"), ("Delegate", "yes"), ("TasksMax", "infinity")] {
        assert_eq!(property(&scope, name), value, "{name}");
    }
    assert!(matches!(property(&scope, "OOMPolicy").as_str(), "continue" | ""));
    keeper.kill();
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Signal(9));
    eventually("the end of the scope", || (property(&scope, "ActiveState") != "active").then_some(())).await;
    eventually_is(false, || fs::exists(format!("/sys/fs/cgroup/deployex.slice/{scope}")).unwrap()).await;
}

#[tokio::test]
async fn as_root_with_systemd_what_a_killed_keeper_leaves_is_reached_by_its_group_in_the_old_scope() {
    let world = world();
    let script = "setsid sh -c 'sh -c \"echo \\$\\$ >far; exec sleep 1000\" & exit' &
        while [ ! -s far ]; do sleep 0.01; done; exec sleep 1000";
    let first = world.launch(&world.sh(1, script)).await.unwrap();
    let process = *first.process();
    let far: u32 =
        eventually("far", || fs::read_to_string(world.path("far")).ok()?.strip_suffix('\n')?.parse().ok())
            .await;
    let old = scope_of(world.kept_by().await);
    kill(world.kept_by().await);
    drop(first);
    let mut found = world.find_running().await;
    assert_eq!(*found.process(), process);
    assert_ne!(scope_of(world.kept_by().await), old, "the next keeper has one of its own");
    assert!(cgroup_of(&world.slot, &process).unwrap().path().to_str().unwrap().contains(&old));
    found.kill();
    soon("end", found.ended()).await;
    eventually_is(None, || world.keeper_pid()).await;
    assert!(!lives(far));
}

#[tokio::test]
async fn as_root_with_systemd_stopping_or_killing_the_unit_of_the_agent_touches_neither_keeper_nor_replica() {
    for how in [&["stop"][..], &["kill", "--signal=KILL"]] {
        let world = world();
        // This process is the agent, in a unit of its own for as long as it launches.
        let (own, before) = (std::process::id(), group_of(std::process::id()));
        let unit = format!("agent-of-{own}-{}.scope", how[0]);
        Systemd::of_this_host(0).unwrap().scope(&unit, own).unwrap();
        let mut bystander = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut keeper = world.launch(&world.sh(1, "exec sleep 1000")).await.unwrap();
        fs::write(format!("/sys/fs/cgroup{before}/cgroup.procs"), own.to_string()).unwrap();
        assert!(group_of(bystander.id()).ends_with(&unit));
        assert!(Command::new("systemctl").args(how).arg(&unit).status().unwrap().success());
        assert!(!bystander.wait().unwrap().success(), "all that is in the unit was ended");
        assert!(lives(world.kept_by().await) && lives(keeper.process().pid));
        keeper.stop(std::time::Duration::from_secs(1_000));
        assert_eq!(
            soon("end", keeper.ended()).await.cause,
            ExitCause::Signal(15),
            "and its keeper still tells of its end"
        );
    }
}

/// The text of a unit as README gives it.
fn unit_of_readme(name: &str) -> &'static str {
    let readme = include_str!("../../../README.md");
    let from = readme.find(&format!("# /etc/systemd/system/{name}\n")).unwrap();
    readme[from..].split("```").next().unwrap()
}

#[test]
fn the_unit_that_readme_gives_the_agent_restarts_it_for_ever_and_spares_what_it_started() {
    let unit = unit_of_readme("deployex-agent.service");
    for line in [
        "StartLimitIntervalSec=0",
        "Restart=always",
        "OOMPolicy=continue",
        "KillMode=process",
        "TasksMax=infinity",
    ] {
        assert!(unit.lines().any(|it| it == line), "{line} in\n{unit}");
    }
}

#[test]
fn as_root_with_systemd_the_units_of_readme_hold_no_word_that_systemd_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["deployex.service", "deployex-agent.service"] {
        let path = folder.path().join(name);
        let text = unit_of_readme(name);
        let begins = text.lines().find(|it| it.starts_with("ExecStart=")).unwrap();
        // The programs lie elsewhere here.
        fs::write(&path, text.replace(begins, "ExecStart=/bin/true")).unwrap();
        let said = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
        assert!(said.status.success() && said.stderr.is_empty(), "{name}: {said:?}");
    }
}
