//! Pre-commands of a hot upgrade: by the new release, once per rollout, before anything of what runs is touched.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tests::http::serves_version;
use xtask::fixtures::Sample;

use super::{World, pids};
use crate::pre_commands::needs;

/// Appends the version of the release that runs it.
fn writes_its_version(sample: Sample, file: &Path) -> String {
    let file = file.display();
    match sample {
        Sample::Elixir | Sample::Umbrella => format!(
            "eval Application.load(:{sample}); \
             File.write!('{file}', [Application.spec(:{sample}, :vsn), 10], [:append])"
        ),
        Sample::Erlang | Sample::Gleam => format!(
            "eval application:load({sample}), {{ok, Version}} = application:get_key({sample}, vsn), \
             ok = file:write_file(\"{file}\", [Version, 10], [append])"
        ),
    }
}

async fn run_by_the_new_release(sample: Sample) {
    let world = World::new(sample, 2, "strategy: stop_first").await;
    let notes = tempfile::tempdir().unwrap();
    fs::set_permissions(notes.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (runs, table) = (notes.path().join("runs"), notes.path().join("table"));
    let before = pids(&world.connected().await);
    let counted = [world.count(1).await, world.count(2).await];

    let commands = [writes_its_version(sample, &runs), needs(sample, &table)];
    world.bucket.publish_with(sample, "1.2.0", &commands).await;
    let ghosted = world.when("a ghost", |it| !it.ghosts.is_empty()).await;
    assert!(ghosted.ghosts[0].reason.contains("exit status 3"), "{:?}", ghosted.ghosts);
    assert_eq!(fs::read_to_string(&runs).unwrap(), "1.2.0\n");
    let stays = world.settles_on("1.1.0").await;
    assert_eq!(pids(&stays), before);
    assert!(world.told("hot_upgrade_started").is_empty(), "{:#?}", world.events());

    // What it missed is there now.
    fs::write(&table, "").unwrap();
    let said = world.control_plane.command_line().run(&["ghosted", "clear", sample.name()]);
    assert_eq!(said.status, 0, "{said:?}");
    world.deploy("1.2.0");
    let after = world.settles_on("1.2.0").await;
    assert_eq!(pids(&after), before, "{:#?}", world.events());
    assert_eq!(
        fs::read_to_string(&runs).unwrap(),
        "1.2.0\n1.2.0\n",
        "once for each rollout, not for each slot"
    );
    for slot in [1, 2] {
        serves_version(world.port + slot - 1, "1.2.0").await;
        assert_eq!(world.count(slot).await, counted[usize::from(slot) - 1] + 1);
        world.lies_still(slot).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pre_commands_are_run_once_by_the_new_release_and_touch_nothing_where_they_fail() {
    run_by_the_new_release(Sample::Elixir).await;
    run_by_the_new_release(Sample::Erlang).await;
}
