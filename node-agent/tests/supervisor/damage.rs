//! A ledger that cannot be read: said, healed by the next assignment, and never a reason to stop or start anything twice.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proto::pb;

use super::world::{World, eventually, kill, lives};

type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 6] = [
    ("garbage", |path| fs::write(path, [0xfe; 900]).unwrap()),
    ("empty", |path| fs::write(path, "").unwrap()),
    ("truncated", |path| {
        let whole = fs::read(path).unwrap();
        fs::write(path, &whole[..whole.len() / 2]).unwrap();
    }),
    ("a folder", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
        fs::write(path.join("inside"), "").unwrap();
    }),
    ("a pipe", |path| {
        fs::remove_file(path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).unwrap();
    }),
    ("not to be read", |path| fs::set_permissions(path, Permissions::from_mode(0o0)).unwrap()),
];

/// Root reads what nobody may.
fn can_be_read(what: &str) -> bool {
    what == "not to be read" && rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn what_runs_is_taken_up_whatever_became_of_the_ledger_and_an_assignment_heals_it() {
    for file in ["assignment", "runtime", "deployed"] {
        for (what, damage) in DAMAGES {
            let world = World::new();
            let agent = world.agent().await;
            agent.assign(world.assignment(1, "0.1.0")).await;
            let before = agent.runs("0.1.0").await;
            agent.end().await;
            damage(&world.ledger(file));

            let mut agent = world.agent().await;
            let lost = agent.reports("the process taken up", |it| it.pid == before.pid).await;
            let told =
                std::iter::from_fn(|| agent.events.try_recv().ok()).find(|it| it.kind == "ledger_failed");
            if can_be_read(what) {
                assert_eq!((lost.fault.as_str(), told, agent.generation()), ("", None, 1), "{file} {what}");
            } else {
                assert!(lost.fault.contains("it was set aside"), "{file} {what}: {lost:#?}");
                assert!(told.is_some(), "{file} {what}: the fleet is told");
                assert_eq!(agent.generation(), 0, "{file} {what}: the assignment must come again");
            }
            agent.assign(world.assignment(1, "0.1.0")).await;
            let healed =
                agent.reports("that it is healed", |it| it.fault.is_empty() && it.ready_for_ms > 0).await;
            assert_eq!((healed.pid, healed.generation), (before.pid, 1), "{file} {what}");
            assert_eq!(agent.generation(), 1, "{file} {what}");
            assert_eq!(world.starts().len(), 1, "{file} {what}: nothing was started again");

            agent.assign(world.assignment(2, "0.2.0")).await;
            agent.runs("0.2.0").await;
            assert_eq!(world.living(), 1, "{file} {what}");
            agent.end().await;
        }
    }
}

#[tokio::test]
async fn what_ended_meanwhile_is_started_anew_from_what_lies_there() {
    for file in ["assignment", "runtime", "deployed"] {
        let world = World::new();
        let agent = world.agent().await;
        agent.assign(world.assignment(1, "0.1.0")).await;
        let before = agent.runs("0.1.0").await;
        agent.end().await;
        kill(before.pid);
        eventually("its end", || (!lives(before.pid)).then_some(())).await;
        fs::write(world.ledger(file), "garbage").unwrap();

        let agent = world.agent().await;
        agent.assign(world.assignment(1, "0.1.0")).await;
        let after = agent.runs("0.1.0").await;
        assert_ne!(after.pid, before.pid);
        assert_eq!(world.starts().len(), 2, "{file}");
        assert_eq!(world.living(), 1, "{file}");
        agent.end().await;
    }
}

#[tokio::test]
async fn a_slot_of_which_nothing_can_be_known_is_left_alone_said_so_and_healed() {
    let world = World::new();
    let agent = world.agent().await;
    agent.assign(world.assignment(1, "0.1.0")).await;
    let before = agent.runs("0.1.0").await;
    agent.end().await;
    // Nobody answers for the process, and nobody can be put in the keeper's place.
    world.kill_keeper().await;
    let keeper = world.path("keeper");

    let agent = world.agent_with(&keeper).await;
    let alone = agent.reports("the fault", |it| it.state() == pb::SlotState::Failed).await;
    assert!(alone.fault.contains("it is left alone: cannot start the keeper"), "{}", alone.fault);
    assert!(lives(before.pid));

    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_deployex-keeper"), &keeper).unwrap();
    agent.assign(world.assignment(2, "0.1.0")).await;
    let healed = agent.runs("0.1.0").await;
    assert_eq!((healed.pid, healed.fault.as_str()), (before.pid, ""));
    assert_eq!(world.starts().len(), 1);
    agent.end().await;
}

#[tokio::test]
async fn pre_commands_that_may_have_run_are_not_run_again_until_they_are_asked_for_again() {
    let world = World::new();
    let agent = world.agent().await;
    agent.assign(world.assignment(1, "0.1.0")).await;
    let before = agent.runs("0.1.0").await;
    agent.assign(world.with_pre_command(2, "0.2.0", "first")).await;
    eventually("the pre-command", || (world.pre_commands() == 1).then_some(())).await;
    agent.end().await;
    fs::write(world.ledger("runtime"), "garbage").unwrap();

    let agent = world.agent().await;
    agent.assign(world.with_pre_command(2, "0.2.0", "first")).await;
    let unsure = agent
        .reports("the failed run", |it| it.pre_commands.as_ref().is_some_and(|run| run.finished && !run.ok))
        .await;
    assert!(unsure.pre_commands.unwrap().error.contains("it is not known whether the pre-commands ran"));
    assert_eq!((world.pre_commands(), unsure.pid), (1, before.pid));

    world.let_pre_commands_go();
    agent.assign(world.with_pre_command(3, "0.2.0", "second")).await;
    agent.runs("0.2.0").await;
    assert_eq!(world.pre_commands(), 2);
    agent.end().await;
}

#[tokio::test]
async fn a_process_whose_record_was_lost_goes_on_after_a_later_deployment_too() {
    let world = World::new();
    let agent = world.agent().await;
    agent.assign(world.assignment(1, "0.1.0")).await;
    agent.runs("0.1.0").await;
    agent.assign(world.assignment(2, "0.2.0")).await;
    let before = agent.runs("0.2.0").await;
    agent.end().await;
    world.kill_keeper().await;
    fs::remove_file(world.ledger("process")).unwrap();

    let agent = world.agent().await;
    let after = agent.runs("0.2.0").await;
    assert_eq!(after.pid, before.pid);
    assert_eq!(world.starts().len(), 2, "nothing was started again");
    kill(before.pid);
    agent.reports("its successor", |it| it.pid != before.pid && it.pid != 0).await;
    agent.end().await;
}

#[tokio::test]
async fn what_a_newer_agent_wrote_is_neither_guessed_at_nor_lost() {
    let world = World::new();
    let agent = world.agent().await;
    agent.assign(world.assignment(1, "0.1.0")).await;
    let before = agent.runs("0.1.0").await;
    agent.end().await;
    // Each on its own: none is put out of the way for the others.
    let of_node = world.path("var/agent/assignment");
    let files = ["assignment", "runtime", "deployed"].map(|file| world.ledger(file)).into_iter();
    for file in files.chain([of_node]) {
        let written = fs::read(&file).unwrap();
        let newer = "deployex-ledger 2 0 9.9.9\nin a form that is not known yet";
        fs::write(&file, newer).unwrap();
        let refused = world.refused_agent().await;
        let said = format!("{} was written by deployex-agent 9.9.9 in form 2", file.display());
        assert!(refused.starts_with(&said) && refused.contains("begin that version again"), "{refused}");
        assert_eq!(fs::read_to_string(&file).unwrap(), newer, "it is left where it is");
        fs::write(&file, written).unwrap();
    }
    // The newer one, when it returns, goes on.
    let agent = world.agent().await;
    agent.reports("the process taken up", |it| it.pid == before.pid && it.fault.is_empty()).await;
    assert_ne!(agent.generation(), 0);
    agent.end().await;
}
