//! Launching: what the program gets, what is said where it cannot be launched, and how its end is told.

use std::error::Error;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use node_agent::cgroup::home::Home;
use node_agent::supervisor::process::{Found, Keepers, LaunchError, Standby, Step, launch};
use proto::state::ExitCause;

use super::world::{KEEPER, World, eventually, eventually_is, is_root, kill, lives, nobody, processes, soon};

#[tokio::test]
async fn the_way_a_process_ended_is_told_and_written_down() {
    for (script, cause) in [
        ("exit 0", ExitCause::Code(0)),
        ("exit 3", ExitCause::Code(3)),
        ("kill -KILL $$", ExitCause::Signal(9)),
        ("kill -SEGV $$", ExitCause::Signal(11)),
    ] {
        let world = World::new();
        let ended = world.run(script).await;
        assert_eq!((ended.cause, ended.dropped, ended.process.ticket), (cause, 0, 1), "{script}");
        match world.find().await.unwrap() {
            Found::Ended(found) => assert_eq!(found, ended),
            other => panic!("{script}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_environment_is_the_given_one_and_nothing_else() {
    let world = World::new();
    let mut spec = world.spec(1, "/usr/bin/env", &[]);
    spec.env = [("A".into(), "b c".into()), ("EMPTY".into(), "".into())].into();
    let mut keeper = world.launch(&spec).await.unwrap();
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Code(0));
    let mut lines: Vec<_> = world.stdout().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["A=b c", "EMPTY="]);
}

#[tokio::test]
async fn a_program_gets_arguments_folder_and_standard_files_and_is_a_group_of_its_own() {
    let world = World::new();
    fs::create_dir(world.path("work")).unwrap();
    let script = "pwd; printf '<%s>' \"$@\"; echo; umask; cut -d' ' -f5 /proc/$$/stat; wc -c
        echo tapped >/dev/stdout; echo oops >&2";
    let mut spec = world.spec(1, "/bin/sh", &["-c", script, "sh", "a b", "", "*"]);
    spec.cwd = world.path("work");
    let mut keeper = world.launch(&spec).await.unwrap();
    let pid = keeper.process().pid.to_string();
    soon("end", keeper.ended()).await;
    let folder = fs::canonicalize(world.path("work")).unwrap();
    let stdout = world.stdout();
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines, [folder.to_str().unwrap(), "<a b><><*>", "0022", &pid, "0", "tapped"]);
    assert_eq!(world.stderr(), "oops\n");
}

#[tokio::test]
async fn a_program_inherits_the_lock_of_its_slot_and_nothing_else_of_ours() {
    let world = World::new();
    let script = "cd /proc/self/fd && for fd in *; do readlink $fd; done; exec grep SigBlk /proc/self/status";
    let mut keeper = world.launch(&world.sh(1, script)).await.unwrap();
    soon("end", keeper.ended()).await;
    let stdout = world.stdout();
    let slot = fs::canonicalize(world.slot.path()).unwrap();
    let mut ours: Vec<_> = stdout.lines().filter_map(|it| Path::new(it).strip_prefix(&slot).ok()).collect();
    ours.sort();
    assert_eq!(ours, ["lock", "stderr.fifo", "stdout.fifo"].map(Path::new), "{stdout}");
    assert!(stdout.starts_with("/dev/null\n"), "{stdout}");
    assert!(!stdout.contains("socket:") && !stdout.contains(".log"), "{stdout}");
    assert!(stdout.ends_with("SigBlk:\t0000000000000000\n"), "{stdout}");
}

#[tokio::test]
async fn as_root_a_program_runs_as_its_user_and_may_use_dev_stdout() {
    assert!(is_root(), "to run something as another user needs root: sudo cargo xtask test");
    let world = World::new();
    fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec =
        world.sh(1, "id -u; id -g; id -G; grep CapEff /proc/self/status; echo tapped >/dev/stdout");
    spec.user = Some(nobody());
    spec.user.as_mut().unwrap().groups = vec![4, 65534];
    let mut keeper = world.launch(&spec).await.unwrap();
    soon("end", keeper.ended()).await;
    assert_eq!(world.stderr(), "");
    let stdout = world.stdout();
    assert_eq!(
        stdout.lines().collect::<Vec<_>>(),
        ["65534", "65534", "65534 4", "CapEff:\t0000000000000000", "tapped"]
    );
    let log = fs::metadata(world.path("log/stdout.log")).unwrap();
    assert_eq!((log.uid(), log.mode() & 0o777), (0, 0o600), "logs are not the program's");
}

#[tokio::test]
async fn what_cannot_be_executed_is_said_by_file_and_reason() {
    let world = World::new();
    fs::write(world.path("no-program"), "x").unwrap();
    let mut missing_folder = world.sh(1, "true");
    missing_folder.cwd = world.path("nowhere");
    let mut log_is_folder = world.sh(1, "true");
    log_is_folder.stderr_log = world.path("log");
    fs::create_dir(world.path("log")).unwrap();
    let no_program = world.path("no-program");
    for (spec, step, path, words) in [
        (world.spec(1, "/nowhere/demo", &[]), Step::Exec, "/nowhere/demo".into(), "No such file"),
        (
            world.spec(1, no_program.to_str().unwrap(), &[]),
            Step::Exec,
            no_program.clone(),
            "Permission denied",
        ),
        (missing_folder, Step::Cwd, world.path("nowhere"), "No such file"),
        (log_is_folder, Step::StderrLog, world.path("log"), "Is a directory"),
    ] {
        let error = world.launch(&spec).await.unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(error.source().unwrap().to_string().contains(words), "{error}: {:?}", error.source());
        assert!(matches!(error, LaunchError::Step { step: it, .. } if it == step), "{error:?}");
    }
    let error = world.launch(&world.spec(1, "demo", &[])).await.unwrap_err();
    assert!(matches!(error, LaunchError::Relative(_)), "{error:?}");
    // And the slot is as free as before.
    assert_eq!(world.run("exit 0").await.cause, ExitCause::Code(0));
}

#[tokio::test]
async fn a_keeper_that_is_not_installed_is_named() {
    let world = World::new();
    let nowhere = Standby::new(Keepers::new("/nowhere/deployex-keeper", Home::none("none")));
    nowhere.stand_by().await;
    let error = launch(&nowhere, &world.slot, &world.sh(1, "true"), None).await;
    assert!(error.unwrap_err().to_string().contains("/nowhere/deployex-keeper"));
}

#[tokio::test]
async fn a_slot_is_held_by_one_process_only() {
    let world = World::new();
    let mut first = world.launch(&world.sh(1, "exec sleep 1000")).await.unwrap();
    let second = world.launch(&world.sh(2, "exec sleep 1000")).await;
    match second.unwrap_err() {
        LaunchError::Held { ticket, pid } => assert_eq!((ticket, pid), (1, first.process().pid)),
        other => panic!("{other:?}"),
    }
    // Also where its keeper is gone.
    kill(world.kept_by().await);
    let third = world.launch(&world.sh(3, "exec sleep 1000")).await;
    assert!(matches!(third.unwrap_err(), LaunchError::Held { ticket: 1, .. }));
    assert!(lives(first.process().pid));
    first.kill();
    soon("end", first.ended()).await;
}

#[tokio::test]
async fn a_successor_is_launched_as_soon_as_the_end_is_told() {
    let world = World::new();
    for ticket in 1..20 {
        let mut keeper = world.launch(&world.sh(ticket, "exec sleep 1000")).await.unwrap();
        kill(keeper.process().pid);
        let ended = soon("end", keeper.ended()).await;
        assert_eq!((ended.process.ticket, ended.cause), (ticket, ExitCause::Signal(9)));
    }
}

#[tokio::test]
async fn a_deep_slot_folder_is_no_hindrance() {
    let mut world = World::new();
    let deep = world.path(&["x".repeat(100), "y".repeat(100), "z".repeat(100)].join("/"));
    world.slot = node_agent::supervisor::process::SlotDir::new(deep);
    let mut keeper = world.launch(&world.sh(1, "exec sleep 1000")).await.unwrap();
    let found = world.find_running().await;
    assert_eq!(found.process(), keeper.process());
    found.kill();
    assert_eq!(soon("end", keeper.ended()).await.cause, ExitCause::Signal(9));
}

#[tokio::test]
async fn keepers_are_small_and_leave_the_session_of_the_agent() {
    // Three, as on a host that is used: what they share is no one's own.
    let worlds = [World::new(), World::new(), World::new()];
    let mut keepers = Vec::new();
    for world in &worlds {
        let script = "while :; do echo line; sleep 0.01; done";
        keepers.push(world.launch(&world.sh(1, script)).await.unwrap());
        eventually("output", || (world.stdout().len() > 100).then_some(())).await;
    }
    for world in &worlds {
        let pid = world.kept_by().await;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert_eq!(
            stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3),
            Some(pid.to_string().as_str())
        );
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let private: u64 = smaps
            .lines()
            .filter(|line| line.starts_with("Private_Clean:") || line.starts_with("Private_Dirty:"))
            .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
            .sum();
        println!("private memory of a keeper: {private} kB");
        assert!(private < 1024, "{private} kB\n{smaps}");
    }
    for keeper in &mut keepers {
        keeper.kill();
        soon("end", keeper.ended()).await;
    }
}

/// Keepers started from this file by this process.
fn started_from(program: &Path) -> Vec<u32> {
    let own = std::process::id().to_string();
    let is_ours = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        let exe = fs::read_link(format!("/proc/{pid}/exe"));
        parent == Some(own.as_str()) && exe.is_ok_and(|it| it == program) && lives(*pid)
    };
    processes().into_iter().filter(is_ours).collect()
}

#[tokio::test]
async fn a_keeper_that_waits_takes_the_next_launch_and_a_dead_one_is_not_missed() {
    let world = World::new();
    // From a file of its own, so that nobody else's keepers are taken for it.
    let program = world.path("its-keeper");
    fs::hard_link(KEEPER, &program).or_else(|_| fs::copy(KEEPER, &program).map(drop)).unwrap();
    let waiting = || started_from(&program);
    let standby = Standby::new(Keepers::new(&program, Home::none("none")));
    standby.stand_by().await;
    standby.stand_by().await;
    let before = eventually("a keeper that waits", || Some(waiting()).filter(|it| !it.is_empty())).await;
    assert_eq!(before.len(), 1, "one is enough");
    let mut first = launch(&standby, &world.slot, &world.sh(1, "exec sleep 1000"), None).await.unwrap();
    let keeps = fs::read_link(format!("/proc/{}/cwd", before[0])).unwrap();
    assert_eq!(keeps, fs::canonicalize(world.slot.path()).unwrap(), "the one that waited keeps it");
    first.kill();
    soon("the end", first.ended()).await;

    standby.stand_by().await;
    for pid in eventually("the next one", || Some(waiting()).filter(|it| !it.is_empty())).await {
        kill(pid);
    }
    eventually_is(Vec::new(), waiting).await;
    let mut second = launch(&standby, &world.slot, &world.sh(2, "exit 3"), None).await.unwrap();
    assert_eq!(soon("the end", second.ended()).await.cause, ExitCause::Code(3));

    standby.stand_by().await;
    drop(standby);
    eventually_is(Vec::new(), waiting).await;
}
