//! Packages that cannot be upgraded to, each under each policy.

use proto::apps::DeploymentKind;
use proto::releases::Ghost;
use proto::state::{SlotState, UpgradeState};
use tests::http::serves_version;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

use super::{World, pids};

/// A package without a way from what runs is deployed in full, and nothing else is tried.
async fn without_a_way(sample: Sample) {
    for version in ["1.2.0-malformed", "1.2.0-stranger"] {
        let world = World::new(sample, 1, "strategy: start_first").await;
        let before = pids(&world.connected().await);
        world.publish(version).await;
        let after = world.settles_on(version).await;
        assert_ne!(pids(&after), before, "{version}");
        assert_eq!(world.told("hot_upgrade_started"), Vec::<String>::new());
        serves_version(world.port, version).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_appup_that_cannot_be_read_or_is_for_another_version_is_a_full_deployment() {
    without_a_way(Sample::Erlang).await;
    without_a_way(Sample::Elixir).await;
}

/// What fails before the install leaves the replica as it was, and the deployment goes on as a full one: with its spare.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_before_the_install_goes_on_as_a_full_deployment_and_is_tried_once() {
    let world = World::new(Sample::Elixir, 2, "strategy: start_first").await;
    let before = pids(&world.connected().await);
    world.publish("1.2.0-missing").await;
    let after = world.settles_on("1.2.0-missing").await;
    assert!(pids(&after).iter().all(|pid| !before.contains(pid)), "{:#?}", world.events());
    let failed = world.told("hot_upgrade_failed");
    assert_eq!(failed.len(), 1, "the package's fault is not tried on the other slot: {failed:?}");
    assert!(failed[0].contains("relup") && failed[0].contains("1.1.0"), "{failed:?}");
    assert_eq!(world.told("hot_upgrade_given_up").len(), 1, "{:#?}", world.events());
    // Nobody was away for it.
    assert!(after.slots.iter().all(|it| it.crash_restarts == 0 && it.forced_restarts == 0));
    // The release was not ghosted, and the next upgrade works.
    let ghosts: Vec<Ghost> = world.control_plane.ask(&["ghosted", "list", world.sample.name()]).unwrap();
    assert!(ghosts.is_empty(), "{ghosts:?}");
    for slot in [1, 2] {
        world.lies_still(slot).await;
    }
}

/// A `code_change` that raises costs one replica its state, and no other.
async fn unchangeable(sample: Sample) {
    let world = World::new(sample, 2, "strategy: start_first").await;
    world.publish("1.2.0-unchangeable").await;
    let after = world.settles_on("1.2.0-unchangeable").await;
    assert_eq!(world.told("hot_upgrade_failed").len(), 1, "{:#?}", world.events());
    let given_up = world.told("hot_upgrade_given_up");
    assert_eq!(given_up.len(), 1, "{:#?}", world.events());
    let failed: Vec<_> = after.slots.iter().filter_map(|it| it.upgrade.as_ref()).collect();
    let [failed] = failed[..] else { panic!("{failed:?}") };
    assert!(failed.spoiled && failed.step.as_deref() == Some("install"), "{failed:?}");
    assert!(failed.state == UpgradeState::Failed && failed.because.is_some(), "{failed:?}");
    // The history says so of each, and of the rollout that it was not hot.
    let kinds = |slot| world.told_to(slot).iter().map(|it| it.kind).collect::<Vec<_>>();
    assert_eq!(world.history()[0], ("1.2.0-unchangeable".to_owned(), "mixed".to_owned()));
    let (full, hot) = (DeploymentKind::Full, DeploymentKind::Hot);
    let mut both = [kinds(1), kinds(2)];
    both.sort_by_key(Vec::len);
    assert_eq!(both, [vec![full, full], vec![full, hot, full]]);
    for slot in [1, 2] {
        serves_version(world.port + slot - 1, "1.2.0-unchangeable").await;
        world.lies_still(slot).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_code_change_is_answered_with_a_full_deployment_and_not_repeated() {
    unchangeable(Sample::Erlang).await;
    unchangeable(Sample::Elixir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_hot_upgrade_is_required_nothing_else_is_done() {
    let world = World::new(Sample::Erlang, 2, "hot_upgrade: require").await;
    let before = pids(&world.connected().await);
    let name = world.sample.name();
    // Nothing begins.
    world.publish("1.2.0-stranger").await;
    eventually("the reason why nothing is deployed", || async {
        let said = world_said(&world.control_plane.command_line().run(&["app", "show", name]).out);
        if said.contains("would be a full deployment") { Seen::Done(()) } else { Seen::NotYet(said) }
    })
    .await;
    let refused = world.control_plane.command_line().run(&["deploy", name, "1.2.0-stranger"]);
    assert!(refused.status != 0 && refused.err.contains("require"), "{}{}", refused.out, refused.err);
    // One that fails before the install is ghosted, and what runs goes on.
    world.publish("1.2.0-missing").await;
    let ghosts = ghosts_of(&world, 1).await;
    assert!(ghosts[0].reason.contains("could not be hot-upgraded"), "{ghosts:?}");
    let after = world.settles_on("1.1.0").await;
    assert_eq!(pids(&after), before, "{:#?}", world.events());
    // One that fails in the middle of it costs one replica its state.
    world.publish("1.2.0-unchangeable").await;
    ghosts_of(&world, 2).await;
    let after = world
        .when("all of it back", |it| {
            let back = |slot: &proto::replicas::Replica| {
                slot.state == SlotState::Stable
                    && slot.running.as_ref().is_some_and(|it| it.version.as_str() == "1.1.0")
            };
            it.slots.len() == 2 && it.slots.iter().all(back)
        })
        .await;
    assert_eq!(pids(&after).iter().filter(|pid| before.contains(pid)).count(), 1, "{:#?}", world.events());
    // And what is good is taken all the same.
    world.connected().await;
    world.publish("1.2.0").await;
    let last = world.settles_on("1.2.0").await;
    assert_eq!(pids(&last), pids(&after), "{:#?}", world.events());
}

fn world_said(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn ghosts_of(world: &World, count: usize) -> Vec<Ghost> {
    eventually("its ghost", || async {
        match world.control_plane.ask::<Vec<Ghost>>(&["ghosted", "list", world.sample.name()]) {
            Ok(ghosts) if ghosts.len() == count => Seen::Done(ghosts),
            other => Seen::NotYet(format!("{other:?} {:#?}", world.events())),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_hot_upgrade_is_wanted_there_is_none() {
    let world = World::new(Sample::Erlang, 1, "hot_upgrade: never").await;
    let before = pids(&world.connected().await);
    world.publish("1.2.0").await;
    let after = world.settles_on("1.2.0").await;
    assert_ne!(pids(&after), before);
    assert_eq!(after.slots[0].upgrade, None);
}
