//! A release of several applications, each with state and an appup of its own; and one of which only the library changes.

use proto::releases::CheckedWay;
use proto::state::UpgradeState;
use tests::wait::{equals, eventually};
use xtask::fixtures::Sample;

use super::{World, pids};

/// What runs in the slot: the versions of both applications, and what they counted, which is one more with each look.
async fn look(world: &World, slot: u16) -> ([String; 2], [u64; 2]) {
    let status = world.get(slot, "/status").await;
    let of = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {name} in {status}")).to_owned()
    };
    assert_eq!((of("unit"), of("port")), ("stones".to_owned(), (world.port + slot - 1).to_string()));
    let tally = world.get(slot, "/tally").await.trim().parse().unwrap();
    ([of("version"), of("tally")], [world.count(slot).await, tally])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_application_of_an_umbrella_changes_by_its_own_appup_and_one_alone_too() {
    let more = "    env:\n      - { key: TALLY_UNIT, value: stones }\n";
    let world = World::with(Sample::Umbrella, 2, "strategy: start_first", more).await;
    let name = world.sample.name();
    let before = pids(&world.when("both", |it| pids(it).len() == 2).await);
    let mut counted = [10, 20];
    for slot in [1, 2] {
        for _ in 1..counted[usize::from(slot) - 1] {
            look(&world, slot).await;
        }
    }
    for (from, version, main) in [("1.1.0", "1.2.0", "1.2.0"), ("1.2.0", "1.3.0", "1.2.0")] {
        // Recorded and looked at before it is deployed.
        let pinned = world.control_plane.command_line().run(&["pin", name, from]);
        assert_eq!(pinned.status, 0, "{pinned:?}");
        world.publish(version).await;
        let check = world.check(version).await;
        let ways: Vec<_> = check.replicas.iter().map(|it| (it.from.as_str(), it.way)).collect();
        assert_eq!(ways, [(from, CheckedWay::Hot); 2], "{check:#?}");
        let unpinned = world.control_plane.command_line().run(&["unpin", name]);
        assert_eq!(unpinned.status, 0, "{unpinned:?}");
        let after = world.settles_on(version).await;
        assert_eq!(pids(&after), before, "the same processes run {version}: {:#?}", world.events());
        for slot in &after.slots {
            let upgrade = slot.upgrade.as_ref().expect("an upgrade");
            assert_eq!((upgrade.state, upgrade.to.as_str()), (UpgradeState::Done, version), "{upgrade:?}");
            assert_eq!((slot.crash_restarts, slot.forced_restarts), (0, 0));
            let at = usize::from(slot.slot.number()) - 1;
            let found = look(&world, slot.slot.number()).await;
            assert_eq!(found, ([main.to_owned(), version.to_owned()], [counted[at]; 2]));
            counted[at] += 1;
        }
    }
    assert_eq!(world.told("hot_upgrade_complete").len(), 4, "{:#?}", world.events());
    let said = world.control_plane.command_line().run(&["restart", name, "--wait"]);
    assert_eq!(said.status, 0, "{}{}", said.out, said.err);
    let of_third = ["1.2.0".to_owned(), "1.3.0".to_owned()];
    for slot in [1, 2] {
        assert_eq!(look(&world, slot).await, (of_third.clone(), [1; 2]), "slot {slot}");
    }

    // Back by the library's appup.
    world.when("the borrowed slot given back", |it| it.slots.len() == 2).await;
    let before = pids(&world.connected().await);
    let check = world.check("1.2.0").await;
    assert!(check.replicas.iter().all(|it| it.way == CheckedWay::Hot), "{check:#?}");
    world.deploy("1.2.0");
    let back = world.settles_on("1.2.0").await;
    assert_eq!(pids(&back), before, "{:#?}", world.events());
    for slot in [1, 2] {
        assert_eq!(
            look(&world, slot).await,
            (["1.2.0".to_owned(), "1.2.0".to_owned()], [2; 2]),
            "slot {slot}"
        );
    }
    // What was of the first release alone goes; the application of the second is that of the third too.
    eventually("the libraries of two releases", || {
        let there = |version: &str| world.current(1, &format!("lib/{version}")).exists();
        let gone = ["umbrella_demo-1.1.0", "umbrella_tally-1.1.0"];
        let kept = ["umbrella_demo-1.2.0", "umbrella_tally-1.2.0", "umbrella_tally-1.3.0"];
        let found = (gone.map(there), kept.map(there));
        async move { equals(found, &([false; 2], [true; 3])) }
    })
    .await;
}
