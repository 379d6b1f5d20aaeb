//! The connection to a node that breaks in the middle of its hot upgrade.

use xtask::fixtures::Sample;

use super::{World, pids};

/// A process of the node cuts it as soon as the install has begun, and before it can have answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_install_whose_answer_was_lost_with_the_connection_is_finished_and_nothing_is_lost() {
    let world = World::new(Sample::Erlang, 1, "strategy: stop_first").await;
    let (before, counted) = (pids(&world.connected().await), world.count(1).await);
    let cut = "spawn(fun Look() ->
        case application:get_key(erlang_demo, vsn) of
            {ok, \"1.2.0\"} -> [erlang:disconnect_node(Node) || Node <- nodes(hidden)];
            _ -> timer:sleep(1), Look()
        end
    end), ok.";
    let said = world.control_plane.command_line().run(&["rpc", world.sample.name(), cut, "--slot", "1"]);
    assert_eq!(said.status, 0, "{said:?}");
    world.publish("1.2.0").await;
    let after = world.settles_on("1.2.0").await;
    assert_eq!(pids(&after), before, "{:#?}", world.events());
    assert_eq!(world.count(1).await, counted + 1);
    assert!(world.told("hot_upgrade_failed").is_empty(), "{:#?}", world.events());
    assert_eq!(world.told("hot_upgrade_complete").len(), 1);
    let output = world.agent.output();
    assert!(output.contains("it is looked what came of it"), "{output}");
}
