//! Outages of the host after a hot upgrade and in the middle of one.

use std::fs;

use proto::state::{SlotState, UpgradeState};
use tests::http::serves_version;
use tests::outage::cut_power;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

use super::deaths::{died, dies_at, place};
use super::{World, pids};

/// The upgraded folder itself is what the next boot starts.
async fn after_an_upgrade(sample: Sample, replicas: u16) {
    let more = "    env:\n      - { key: TALLY_UNIT, value: stones }\n";
    let mut world = World::with(sample, replicas, "strategy: start_first", more).await;
    for _ in 0..3 {
        world.count(1).await;
    }
    world.publish("1.2.0").await;
    let before = pids(&world.settles_on("1.2.0").await);
    for slot in 1..=replicas {
        is_on_the_disk(&world, slot).await;
    }
    cut_power(&mut world.agent);
    world.agent.resume();
    let after = world
        .when("all up again", |it| {
            it.slots.len() == usize::from(replicas)
                && it.slots.iter().all(|it| {
                    it.state == SlotState::Stable && it.pid.is_some_and(|pid| !before.contains(&pid))
                })
        })
        .await;
    assert_eq!(after.summary.in_force.map(|it| it.version.to_string()).as_deref(), Some("1.2.0"));
    assert!(after.slots.iter().all(|it| it.crash_restarts == 0), "{:#?}", after.slots);
    for slot in 1..=replicas {
        serves_version(world.port + slot - 1, "1.2.0").await;
        let status = world.get(slot, "/status").await;
        assert!(status.contains(&format!("port={}", world.port + slot - 1)), "{status}");
        assert!(sample != Sample::Umbrella || status.contains("unit=stones"), "{status}");
        assert_eq!(world.count(slot).await, 1);
        assert!(world.current(slot, "releases/1.1.0").exists(), "it was laid anew");
    }
}

/// All that the upgrade laid.
async fn is_on_the_disk(world: &World, slot: u16) {
    let mark = world.current(slot, ".deployex-release");
    eventually("a release that outlives a power cut", || {
        let text = fs::read_to_string(&mark).unwrap();
        async move { if text.lines().count() == 1 { Seen::Done(()) } else { Seen::NotYet(text) } }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_every_replica_is_what_it_was_upgraded_to() {
    after_an_upgrade(Sample::Umbrella, 2).await;
    after_an_upgrade(Sample::Erlang, 1).await;
}

/// One of two replicas was in the middle of it, and what had been in force was on the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_in_the_middle_of_an_upgrade_ends_with_the_release_that_is_wanted_and_is_told() {
    let mut world = World::new(Sample::Erlang, 2, "strategy: start_first").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("place");
    for (nth, (version, step)) in [("1.2.0", "install"), ("1.3.0", "permanent")].into_iter().enumerate() {
        let place = place(world.sample, version, step, "done");
        dies_at(&mut world, &file, &place);
        let before = pids(&world.connected().await);
        for slot in [1, 2] {
            is_on_the_disk(&world, slot).await;
        }
        world.publish(version).await;
        died(&mut world, &place).await;
        cut_power(&mut world.agent);
        world.agent.set_environment(&[]);
        world.agent.resume();
        world.settles_on(version).await;
        let after = world.when("the borrowed slot given back", |it| it.slots.len() == 2).await;
        assert!(pids(&after).iter().all(|pid| !before.contains(pid)), "{place}");
        for slot in [1, 2] {
            serves_version(world.port + slot - 1, version).await;
            world.lies_still(slot).await;
        }
        // It came back as something else, which is told, and held neither against the release nor against its package.
        let [cut_off, later] = [0, 1].map(|at| after.slots[at].upgrade.clone().expect("an upgrade"));
        assert_eq!((cut_off.state, cut_off.step.as_deref()), (UpgradeState::Failed, Some(step)), "{place}");
        assert!(cut_off.because.is_some_and(|it| it.contains("host restarted")) && !cut_off.spoiled);
        assert_eq!((later.state, later.to.as_str()), (UpgradeState::Done, version), "{place}");
        let failed = world.told("hot_upgrade_failed");
        assert_eq!(failed.len(), nth + 1, "{place}: {failed:?}");
        assert_eq!(world.told("hot_upgrade_given_up"), Vec::<String>::new());
        assert!(after.ghosts.is_empty() && after.slots.iter().all(|it| it.crash_restarts == 0), "{after:#?}");
    }
}
