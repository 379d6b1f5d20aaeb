//! What somebody wants evaluated: its value, however it ends, and that nothing of it is left on the node.

#![allow(clippy::panic, reason = "all of it is test code")]

use std::time::Duration;

use node_agent::beam::AskError;
use node_agent::beam::evaluate::{Evaluation, Language, Outcome, evaluate};
use node_agent::dist::connection::{CallError, Connection, Settings};
use node_agent::dist::term::Term;
use rustix::process::Signal;

use super::world::{PATIENCE, World, eventually, value};

/// As in `looks`, and what an evaluation could leave beside that.
const TRACES: &str = "
    {erlang:system_info(atom_count), length(processes()) - 1, length(code:all_loaded()), length(ets:all()),
     lists:sort(registered()), lists:sort(nodes(hidden)), length(erlang:ports())}.";

async fn ask(on: &Connection, expression: &str) -> Evaluation {
    evaluate(on, expression, Language::Auto, PATIENCE)
        .await
        .unwrap_or_else(|error| panic!("{expression}: {error}"))
}

async fn shown(on: &Connection, expression: &str) -> (String, bool) {
    match ask(on, expression).await.outcome {
        Outcome::Value { text, cut } => (text, cut),
        other => panic!("{expression}: {other:?}"),
    }
}

async fn raised(on: &Connection, expression: &str) -> (String, String, String) {
    match ask(on, expression).await.outcome {
        Outcome::Raised { class, message, stacktrace, .. } => (class, message, stacktrace),
        other => panic!("{expression}: {other:?}"),
    }
}

#[tokio::test]
async fn an_expression_has_a_value_or_fails_and_says_how() {
    let world = World::new().await;
    let on = world.connect().await;
    for (expression, expected) in [
        ("1 + 1", "2"),
        ("1 + 1.", "2"),
        ("A = 20, B = 1, A * 2 + B. % as people write", "41"),
        ("$.", "46"),
        ("[\"grün\", <<\"ü\"/utf8>>, 'an atom']", "[\"grün\",<<\"ü\"/utf8>>,'an atom']"),
        ("io:get_line(\"who is there? \")", "eof"),
    ] {
        assert_eq!(shown(&on, expression).await, (expected.to_owned(), false), "{expression}");
    }
    for (expression, class, message) in [
        ("1 / 0", "error", "badarith"),
        ("throw({a, 1})", "throw", "{a,1}"),
        ("exit(enough)", "exit", "enough"),
        ("exit(self(), kill), receive never -> ok end", "exit", "killed"),
        ("spawn_link(fun() -> exit(other) end), receive never -> ok end", "exit", "other"),
        ("1 +", "syntax", "1: syntax error before: "),
        ("\"open", "syntax", "1: unterminated string"),
        ("A = 1. A", "syntax", "1: syntax error before: "),
    ] {
        let (is, said, _) = raised(&on, expression).await;
        assert_eq!(is, class, "{expression}: {said}");
        assert!(said.starts_with(message), "{expression}: {said}");
    }
    let (_, _, stack) = raised(&on, "lists:map(fun(It) -> hd(It) end, [a])").await;
    assert!(stack.starts_with("erlang:hd/1") && stack.contains("lists:map/2 (lists.erl:"), "{stack}");
    assert!(!stack.contains("erl_eval"), "who evaluates is no part of it: {stack}");
    let no_elixir = evaluate(&on, "1", Language::Elixir, PATIENCE).await.unwrap();
    assert_eq!(no_elixir.outcome, Outcome::NoElixir);
}

#[tokio::test]
async fn what_is_printed_is_told_and_no_more_of_anything_than_agreed() {
    let world = World::new().await;
    let on = world.connect().await;
    let printed = ask(&on, "io:format(\"~ts ~p~n\", [\"grün\", 1]), io:put_chars(<<\"x\">>), ok").await;
    assert_eq!((printed.printed.as_str(), printed.printed_bytes), ("grün 1\nx", 9));
    assert_eq!(printed.outcome, Outcome::Value { text: "ok".to_owned(), cut: false });
    let failed = ask(&on, "io:format(\"before\"), error(it)").await;
    assert_eq!(failed.printed, "before");
    let much = ask(&on, "[io:put_chars(lists:duplicate(1000, $ä)) || _ <- lists:seq(1, 1000)], ok").await;
    assert_eq!((much.printed.len(), much.printed_bytes), (64 << 10, 2_000_000));

    let (list, cut) = shown(&on, "lists:seq(1, 1000000)").await;
    assert!(cut && list.len() <= 64 << 10 && list.len() > 60 << 10, "{} bytes", list.len());
    let (binary, cut) = shown(&on, "binary:copy(<<\"x\">>, 20000000)").await;
    assert!(cut && binary.len() <= 64 << 10, "{} bytes", binary.len());
    let (_, cut) = shown(&on, "lists:seq(1, 10000)").await;
    assert!(!cut, "some 50 KB are all of it");
    let (class, message, _) = raised(&on, "error(lists:seq(1, 1000000))").await;
    assert!(class == "error" && message.len() <= 8 << 10, "{} bytes", message.len());
}

#[tokio::test]
async fn what_takes_too_much_memory_or_is_not_formatted_in_time_is_ended_and_says_so() {
    let world = World::new().await;
    let on = world.connect().await;
    for expression in ["lists:seq(1, 100000000)", "io:format(\"~w\", [lists:seq(1, 3000000)])"] {
        let (class, message, _) = raised(&on, expression).await;
        assert!(class == "exit" && message.contains("more than 256 MiB of memory"), "{message}");
    }
    // What is printed is formatted by the process that answers.
    let busy = "group_leader() ! {io_request, self(), x, {put_chars, unicode, timer, sleep, [60000]}}, ";
    let asked = async |then: &str| {
        let expression = format!("{busy}{then}");
        evaluate(&on, &expression, Language::Erlang, Duration::from_millis(300)).await.unwrap().outcome
    };
    assert_eq!(asked("receive never -> ok end").await, Outcome::TimedOut);
    assert_eq!(asked("7").await, Outcome::Value { text: "7".to_owned(), cut: false });
}

/// It cannot be ended by anything but force, and does something all the time.
const STUBBORN: &str = "register(stubborn, self()), process_flag(trap_exit, true),
    F = fun F() -> receive _ -> F() after 1 -> F() end end, io:format(\"begun\"), F()";

async fn begun(watcher: &Connection) {
    eventually("the evaluation", async || {
        let found = value(watcher, "whereis(stubborn).").await;
        matches!(found, Term::Pid(_)).then_some(())
    })
    .await;
}

async fn is_gone(watcher: &Connection) {
    eventually("the end of the evaluation", async || {
        let found = value(watcher, "whereis(stubborn).").await;
        (found.as_atom() == Some("undefined")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_evaluation_ends_with_its_time_with_whoever_waits_and_with_the_connection() {
    let world = World::new().await;
    let watcher = world.connect_as("watcher@127.0.0.1", Settings::default()).await;
    let on = world.connect().await;
    let late = evaluate(&on, STUBBORN, Language::Erlang, Duration::from_millis(300)).await.unwrap();
    assert_eq!((late.outcome, late.printed.as_str()), (Outcome::TimedOut, "begun"));
    assert_eq!(value(&watcher, "whereis(stubborn).").await, Term::atom("undefined"), "at once");

    tokio::select! {
        biased; // whoever waits goes once it is under way
        () = begun(&watcher) => {}
        ended = evaluate(&on, STUBBORN, Language::Erlang, PATIENCE) => panic!("{ended:?}"),
    }
    is_gone(&watcher).await;

    let evaluation = evaluate(&on, STUBBORN, Language::Erlang, PATIENCE);
    let lost = async {
        begun(&watcher).await;
        // As by the death of the agent: the node is told nothing.
        let us = "[erlang:disconnect_node(It) || It <- nodes(hidden), It =:= 'agent@127.0.0.1'].";
        value(&watcher, us).await;
    };
    let (ended, ()) = tokio::join!(evaluation, lost);
    assert!(matches!(ended, Err(AskError::Call(CallError::Lost(_)))), "{ended:?}");
    is_gone(&watcher).await;
}

#[tokio::test]
async fn a_node_is_after_many_evaluations_what_it_was_before_them() {
    let world = World::with(&["-mode", "embedded"]).await;
    let watcher = world.connect_booted().await;
    let on = world.connect_as("evaluating@127.0.0.1", Settings::default()).await;
    let all = async || {
        for expression in [
            "io:format(\"~p~n\", [node()]), length(processes())",
            "1 / 0",
            "1 +",
            "spawn_link(fun() -> receive never -> ok end end), ets:new(t, []), exit(enough)",
        ] {
            ask(&on, expression).await;
        }
        let patience = Duration::from_millis(50);
        let late = evaluate(&on, "timer:sleep(infinity)", Language::Auto, patience).await.unwrap();
        assert_eq!(late.outcome, Outcome::TimedOut);
    };
    value(&watcher, TRACES).await;
    all().await;
    let before = value(&watcher, TRACES).await;
    for _ in 0..20 {
        all().await;
    }
    // What watches over an evaluation goes a moment after it.
    eventually("the same as before", async || (value(&watcher, TRACES).await == before).then_some(())).await;
}

#[tokio::test]
async fn a_node_that_stands_is_given_up_and_evaluates_nothing_more_once_it_goes_on() {
    let world = World::new().await;
    let on = world.connect().await;
    // Under way when the node stops.
    let stops = async || {
        begun(&on).await;
        world.vm.signal(Signal::STOP);
    };
    // Its time would end after the look for it: it is ended by what it was told while it stood.
    tokio::select! {
        biased; // whoever waits goes once the node stands
        () = stops() => {}
        ended = evaluate(&on, STUBBORN, Language::Erlang, 5 * PATIENCE) => panic!("{ended:?}"),
    }
    world.vm.signal(Signal::CONT);
    is_gone(&on).await;

    let evaluation = evaluate(&on, STUBBORN, Language::Erlang, Duration::from_secs(1));
    let (ended, ()) = tokio::join!(evaluation, stops());
    assert!(matches!(ended, Err(AskError::Call(CallError::TimedOut(_)))), "{ended:?}");
    world.vm.signal(Signal::CONT);
    is_gone(&on).await;
}
