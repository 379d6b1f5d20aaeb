//! A host whose disk is full when a release is to be laid beside the one that runs.

use proto::state::UpgradeState;
use tests::http::serves_version;
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use xtask::disk::SmallDisk;
use xtask::fixtures::Sample;

use super::deaths::{died, dies_at, place};
use super::{World, pids};

/// What runs goes on as it was, the reason is named, and the same release can be taken once there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_root_a_disk_that_is_full_while_files_are_laid_costs_nothing_and_is_said() {
    let (sample, port, bucket) = (Sample::Erlang, ports::free(2), Bucket::new());
    bucket.publish(sample, "1.1.0").await;
    let applications =
        World::applications(sample, (port, 1), "strategy: stop_first, hot_upgrade: require", "");
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let mut agent = Agent::enrolled(&control_plane, control_plane.agents_address(), "only", &[]).await;
    let disk = SmallDisk::mount(&agent.var_path().join("service"), 200).unwrap();
    agent.resume();
    let mut world = World { sample, bucket, control_plane, agent, port }.begun().await;
    let (before, counted) = (pids(&world.connected().await), world.count(1).await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("place");
    let place = place(sample, "1.2.0", "lay", "to be done");
    dies_at(&mut world, &file, &place);
    world.publish("1.2.0").await;
    died(&mut world, &place).await;
    disk.fill(64 << 10).unwrap();
    world.agent.set_environment(&[]);
    world.agent.resume();
    // Each try of a slot is told; the third ends the rollout where it may only be hot.
    let refused = world.when("the end of it", |it| it.ghosts.len() == 1).await;
    assert!(refused.ghosts[0].reason.contains("no room left on the disk"), "{:#?}", refused.ghosts);
    let upgrade = refused.slots[0].upgrade.as_ref().unwrap();
    assert_eq!((upgrade.step.as_deref(), upgrade.spoiled), (Some("lay"), false), "{upgrade:?}");
    assert_eq!(upgrade.state, UpgradeState::Failed);
    assert_eq!(world.told("hot_upgrade_failed").len(), 3, "{:#?}", world.events());
    assert_eq!((pids(&refused), world.count(1).await), (before.clone(), counted + 1));
    serves_version(port, "1.1.0").await;
    // With room it is what it was.
    disk.clear().unwrap();
    let name = sample.name();
    for words in [&["ghosted", "clear", name, "1.2.0"][..], &["deploy", name, "1.2.0"]] {
        let said = world.control_plane.command_line().run(words);
        assert_eq!(said.status, 0, "{said:?}");
    }
    let after = world.settles_on("1.2.0").await;
    assert_eq!(pids(&after), before, "{:#?}", world.events());
    assert_eq!(world.count(1).await, counted + 2);
    assert!(after.ghosts.is_empty(), "{:#?}", after.ghosts);
    serves_version(port, "1.2.0").await;
    world.lies_still(1).await;
}
