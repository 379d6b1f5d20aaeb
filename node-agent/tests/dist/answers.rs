//! What is asked of a node is answered, whatever becomes of it there.

use node_agent::dist::connection::{CallError, Class};
use node_agent::dist::control::Target;
use node_agent::dist::term::{Atom, Term};

use super::world::{PATIENCE, World, eval, eventually, soon, value};

#[tokio::test]
async fn a_call_is_answered() {
    let world = World::new().await;
    let connection = world.connect().await;
    let memory = connection.call("erlang", "memory", Vec::new(), PATIENCE).await.unwrap();
    let kind = |name| memory.get(name).and_then(Term::as_u64).unwrap_or_else(|| panic!("{name} in {memory}"));
    assert!(kind("total") > 1 << 20, "{memory}");
    assert_eq!(kind("total"), kind("processes") + kind("system"));
    assert_eq!(connection.peer().name, Atom::of("shop@127.0.0.1"));
}

/// Of each kind one, written by the node and read here, and the other way round.
#[tokio::test]
async fn terms_come_back_as_they_were() {
    let world = World::new().await;
    let connection = world.connect().await;
    let terms = value(
        &connection,
        "X = 3, [1, -1, 256, 1 bsl 31, -(1 bsl 62), 1 bsl 64, -(1 bsl 4000), 1.5, 'a b', 'ä', \"text\", [1, 2|c], [],
          lists:seq(1, 70000), <<>>, <<1, 2>>, <<5:3>>, {}, {a, {b}}, list_to_tuple(lists:seq(1, 300)), #{a => #{}},
          self(), make_ref(), hd(erlang:ports()), fun lists:map/2, fun(Y) -> X + Y end, alias()].",
    )
    .await;
    assert_eq!(terms.as_list().unwrap().len(), 27);
    let same =
        connection.call("erlang", "hd", vec![Term::List(vec![terms.clone()])], PATIENCE).await.unwrap();
    assert_eq!(same, terms);
    // What the node makes of it is what it made of the original: 28 bits of a hash.
    let hash = async |of| connection.call("erlang", "phash2", vec![of], PATIENCE).await.unwrap();
    let stored = "persistent_term:put(t, [1, 1 bsl 64, 'ä', <<5:3>>, self(), make_ref(), #{a => #{}}]), ok.";
    value(&connection, stored).await;
    let kept = value(&connection, "persistent_term:get(t).").await;
    assert_eq!(hash(kept).await, value(&connection, "erlang:phash2(persistent_term:get(t)).").await);
}

#[tokio::test]
async fn errors_exits_and_throws_are_told_apart() {
    let world = World::new().await;
    let connection = world.connect().await;
    for (function, class) in [("error", Class::Error), ("exit", Class::Exit), ("throw", Class::Throw)] {
        let reason = Term::Tuple(vec![Term::atom("because"), Term::from("of it")]);
        let failed = connection.call("erlang", function, vec![reason.clone()], PATIENCE).await;
        assert_eq!(failed, Err(CallError::Raised { class, reason }));
    }
    let none = connection.call("nowhere", "nothing", Vec::new(), PATIENCE).await;
    let Err(CallError::Raised { class: Class::Error, reason }) = none else { panic!("{none:?}") };
    assert!(reason.to_string().contains("undef"), "{reason}");
    let killed = eval(&connection, "exit(self(), kill).").await;
    assert_eq!(killed, Err(CallError::Ended(Term::atom("killed"))));
}

#[tokio::test]
async fn what_is_printed_is_refused_and_holds_nobody_up() {
    let world = World::new().await;
    let connection = world.connect().await;
    for size in [1, 1 << 20] {
        let text = Term::Binary(vec![b'x'; size].into());
        let printed = connection.call("io", "put_chars", vec![text], PATIENCE).await;
        // With what reason is up to the release.
        assert!(matches!(printed, Err(CallError::Raised { class: Class::Error, .. })), "{printed:?}");
    }
    assert_eq!(value(&connection, "1 + 1.").await, Term::Integer(2));
}

#[tokio::test]
async fn the_end_of_a_process_is_told_with_its_reason() {
    let world = World::new().await;
    let connection = world.connect().await;
    let process =
        value(&connection, "spawn(fun() -> register(clerk, self()), receive Why -> exit(Why) end end).")
            .await;
    let Term::Pid(pid) = process.clone() else { panic!("{process}") };
    eventually("its name", async || (value(&connection, "whereis(clerk).").await == process).then_some(()))
        .await;
    // Whoever is polled first is heard first.
    let (by_pid, by_name, _) = tokio::join!(
        biased;
        soon("its end", connection.watch(Target::Pid(pid.clone()))),
        soon("its end", connection.watch(Target::Name(Atom::of("clerk")))),
        value(&connection, "clerk ! enough."),
    );
    assert_eq!((by_pid, by_name), (Ok(Term::atom("enough")), Ok(Term::atom("enough"))));
    for gone in [Target::Pid(pid), Target::Name(Atom::of("clerk"))] {
        assert_eq!(soon("an answer", connection.watch(gone)).await, Ok(Term::atom("noproc")));
    }
}

#[tokio::test]
async fn who_stops_watching_is_no_longer_known_to_the_process() {
    let world = World::new().await;
    let connection = world.connect().await;
    let watchers = async || {
        let watchers = value(&connection, "element(2, process_info(whereis(init), monitored_by)).").await;
        watchers.as_list().unwrap().len()
    };
    {
        let watch = connection.watch(Target::Name(Atom::of("init")));
        let seen = eventually("the watch", async || (watchers().await == 1).then_some(()));
        tokio::select! {
            ended = watch => panic!("{ended:?}"),
            () = seen => {}
        }
    }
    eventually("its end", async || (watchers().await == 0).then_some(())).await;
}
