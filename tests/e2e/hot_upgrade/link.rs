//! The connection to a node that breaks in the middle of its hot upgrade.

use xtask::fixtures::Sample;

use super::node::{once, states};
use super::{World, pids};

/// A process of the node cuts it as soon as the step has begun, and before it can have answered.
async fn finishes_what_was_not_answered(sample: Sample) {
    let world = World::new(sample, 1, "strategy: stop_first").await;
    let (before, mut counted) = (pids(&world.connected().await), world.count(1).await);
    let cut = "[erlang:disconnect_node(Node) || Node <- nodes(hidden)]";
    for (version, state) in [("1.2.0", "installing"), ("1.3.0", "permanent")] {
        let states = states(sample, version);
        let (_, is_so) = states.iter().find(|(it, _)| *it == state).unwrap();
        once(&world, is_so, cut);
        world.publish(version).await;
        let after = world.settles_on(version).await;
        assert_eq!(pids(&after), before, "{state}: {:#?}", world.events());
        counted += 1;
        assert_eq!(world.count(1).await, counted, "{state}");
        world.lies_still(1).await;
        world.connected().await;
    }
    assert!(world.told("hot_upgrade_failed").is_empty(), "{:#?}", world.events());
    assert_eq!(world.told("hot_upgrade_complete").len(), 2);
    let output = world.agent.output();
    assert!(output.contains("it is looked what came of it"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_answer_was_lost_with_the_connection_is_finished_with_elixir() {
    finishes_what_was_not_answered(Sample::Elixir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_answer_was_lost_with_the_connection_is_finished_with_erlang() {
    finishes_what_was_not_answered(Sample::Erlang).await;
}
