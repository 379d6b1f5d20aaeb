//! Counting the events of `telemetry` on a real node: what is counted, that it is bounded and raises nothing, and that nothing of
//! it is left once nobody asks, or nobody wants it any more.
//!
//! The library itself is not here: `telemetry/telemetry.erl` stands in for it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use node_agent::beam::telemetry::{self, BEAM, DIGEST, LEASE, Reading, Row, Turn, Wishes, remove, turn};
use node_agent::dist::connection::{Connection, Settings};
use node_agent::dist::term::Term;
use tokio::time::Instant;

use super::world::{World, eventually, value};

/// The events that the stand-in's users emit.
const ALL: [&str; 4] = ["phoenix", "ecto", "vm", "shop.orders.checkout.stop"];

fn wishes(events: &[&str]) -> Wishes {
    let events: Vec<String> = events.iter().map(|it| (*it).to_owned()).collect();
    Wishes::of(&events).unwrap()
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dist/telemetry").join(name)
}

/// With the library, or what stands in for it, and an application that has a repository.
async fn emitting() -> (World, Connection) {
    let world = World::new().await;
    let on = world.connect_booted().await;
    for name in ["telemetry", "emits"] {
        let file = source(name);
        let load = format!(
            "{{ok, M, B}} = compile:file(\"{}\", [binary, {{d, 'TEST'}}]), {{module, M}} = code:load_binary(M, \"x\", B), M.",
            file.display()
        );
        assert_eq!(value(&on, &load).await.as_atom(), Some(name));
    }
    value(&on, "telemetry:start().").await;
    value(&on, "application:set_env(kernel, ecto_repos, ['Elixir.Shop.Repo']).").await;
    (world, on)
}

async fn read(on: &Connection, wishes: &Wishes) -> Reading {
    match turn(on, wishes, LEASE).await.unwrap() {
        Turn::Told(reading) => reading,
        Turn::Without(why) => panic!("{why}"),
    }
}

fn row<'r>(reading: &'r Reading, event: &str, label: &str) -> &'r Row {
    let is_it = |it: &&Row| it.event == event && (it.route == label || it.source == label);
    reading.rows.iter().find(is_it).unwrap_or_else(|| panic!("{event} {label}: {reading:#?}"))
}

/// All that a node could have more of.
const TRACES: &str = "
    {length(processes()) - 1, length(ets:all()), erlang:module_loaded(deployex_telemetry), length(code:all_loaded()),
     lists:sort(registered()), length(telemetry:list_handlers([])), length(erlang:ports())}.";

#[tokio::test]
async fn events_are_counted_by_their_labels_and_how_long_they_took() {
    let (_world, on) = emitting().await;
    let wishes = wishes(&ALL);
    let first = read(&on, &wishes).await;
    assert!(first.rows.is_empty() && first.values.is_empty(), "{first:#?}");
    assert!(first.unknown.contains(&"shop.orders.checkout.stop".to_owned()), "nobody names it: {first:#?}");
    value(&on, "emits:requests(30, 3000), emits:requests(10, 70000), emits:queries(5, 2000), emits:poll().")
        .await;
    let reading = read(&on, &wishes).await;
    let requests = row(&reading, "phoenix.router_dispatch.stop", "/users/:id");
    assert_eq!((requests.count, requests.sum_us, requests.max_us, requests.status), (40, 790_000, 70_000, 2));
    assert_eq!(requests.buckets, [0, 30, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0]);
    let queries = row(&reading, "shop.repo.query", "orders");
    assert_eq!((queries.count, queries.sum_us, queries.max_us), (5, 10_000, 2_000));
    let memory = row(&reading, "vm.memory", "");
    assert_eq!((memory.count, memory.buckets.len()), (1, 0));
    let values: Vec<_> = reading.values.iter().filter(|it| it.event == "vm.memory").collect();
    let of = |name: &str| values.iter().find(|it| it.measurement == name).map(|it| it.value);
    assert_eq!((of("total"), of("processes"), of("atom")), (Some(1_000.0), Some(2.5), None));
    let counts = reading.values.iter().filter(|it| it.event == "vm.system_counts").count();
    assert_eq!(counts, 10, "of thirty measurements");
    assert_eq!(reading.failures, 0);

    // Named by code that was loaded since.
    value(&on, "telemetry:execute([shop, orders, checkout, stop], #{duration => 0}, #{}).").await;
    assert!(!read(&on, &wishes).await.unknown.contains(&"shop.orders.checkout.stop".to_owned()));
    value(&on, "telemetry:execute([shop, orders, checkout, stop], #{duration => 0}, #{}).").await;
    let reading = read(&on, &wishes).await;
    assert_eq!(row(&reading, "shop.orders.checkout.stop", "").count, 1, "from when it is attached");
    assert_eq!(row(&reading, "phoenix.router_dispatch.stop", "/users/:id").count, 40, "and the others go on");
}

#[tokio::test]
async fn ten_thousand_routes_take_two_hundred_rows_and_the_others_are_counted_together() {
    let (_world, on) = emitting().await;
    let wishes = wishes(&["phoenix", "ecto"]);
    read(&on, &wishes).await;
    value(&on, "emits:routes(10000), emits:queries(7, 1).").await;
    let reading = read(&on, &wishes).await;
    let of_routes: Vec<&Row> =
        reading.rows.iter().filter(|it| it.event == "phoenix.router_dispatch.stop").collect();
    assert_eq!(of_routes.len(), 201);
    assert_eq!(row(&reading, "phoenix.router_dispatch.stop", "other").count, 9_800);
    assert_eq!(of_routes.iter().map(|it| it.count).sum::<u64>(), 10_000);
    assert_eq!(row(&reading, "shop.repo.query", "other").count, 7, "there is no room for another's either");
    let size = value(&on, "ets:info(deployex_telemetry, size).").await.as_u64().unwrap();
    assert!(size < 230, "{size} entries");
    // What is known goes on being counted by itself, and all at once by as many as like.
    value(&on, "emits:at_once(8, [phoenix, router_dispatch, stop], 1000).").await;
    assert_eq!(row(&read(&on, &wishes).await, "phoenix.router_dispatch.stop", "other").count, 17_800);
}

#[tokio::test]
async fn nothing_that_is_in_an_event_makes_the_handler_fail_or_keep_much() {
    let (_world, on) = emitting().await;
    let wishes = wishes(&["phoenix"]);
    read(&on, &wishes).await;
    let emitted = value(&on, "emits:odd().").await.as_u64().unwrap();
    let reading = read(&on, &wishes).await;
    let of_it = reading.rows.iter().filter(|it| it.event == "phoenix.router_dispatch.stop");
    let counted: u64 = of_it.clone().map(|it| it.count).sum();
    assert_eq!((counted, reading.failures), (emitted - 2, 2), "what has no measurements: {reading:#?}");
    assert!(of_it.clone().all(|it| it.route.len() <= 100), "{reading:#?}");
    assert!(of_it.clone().any(|it| it.route.len() == 100), "it is cut");
    // It is attached as it was: the stand-in detaches what raises.
    value(&on, "emits:requests(1, 1).").await;
    assert_eq!(row(&read(&on, &wishes).await, "phoenix.router_dispatch.stop", "/users/:id").count, 1);
    let memory = value(&on, "ets:info(deployex_telemetry, memory).").await.as_u64().unwrap();
    assert!(memory < 20_000, "{memory} words");
}

#[tokio::test]
async fn where_nobody_asks_any_more_all_of_it_ends_by_itself() {
    let (_world, on) = emitting().await;
    let before = value(&on, "{length(processes()), length(ets:all()), telemetry:list_handlers([])}.").await;
    let wishes = wishes(&ALL);
    let lease = Duration::from_secs(3);
    for _ in 0..5 {
        assert!(matches!(turn(&on, &wishes, lease).await, Ok(Turn::Told(_))));
        tokio::time::sleep(lease / 4).await;
    }
    value(&on, "emits:requests(1, 1).").await;
    let Ok(Turn::Told(reading)) = turn(&on, &wishes, lease).await else { panic!("not told") };
    assert_eq!(reading.rows.len(), 1, "it was renewed");
    eventually("the end of it", async || {
        let now = value(&on, "{length(processes()), length(ets:all()), telemetry:list_handlers([])}.").await;
        (now == before).then_some(())
    })
    .await;
    assert_eq!(value(&on, "whereis(deployex_telemetry).").await.as_atom(), Some("undefined"));
    value(&on, "emits:requests(1, 1).").await;
    // Whoever asks again begins anew.
    assert!(read(&on, &wishes).await.rows.is_empty());
}

#[tokio::test]
async fn what_is_turned_off_leaves_the_node_as_it_was() {
    let (world, on) = emitting().await;
    let next = world.connect_as("agent-2@127.0.0.1", Settings::default()).await;
    assert!(!telemetry::is_there(&on).await.unwrap());
    let before = value(&on, TRACES).await;
    read(&on, &wishes(&ALL)).await;
    value(&on, "emits:requests(1, 1).").await;
    assert!(telemetry::is_there(&on).await.unwrap());
    assert_ne!(value(&on, TRACES).await, before);
    assert!(remove(&on).await.unwrap());
    assert_eq!(value(&on, TRACES).await, before);
    assert!(remove(&on).await.unwrap(), "and once more");

    // An agent that comes back takes over what runs.
    read(&on, &wishes(&ALL)).await;
    value(&on, "emits:requests(3, 1).").await;
    assert_eq!(row(&read(&next, &wishes(&ALL)).await, "phoenix.router_dispatch.stop", "/users/:id").count, 3);
    // Other wishes begin anew.
    assert!(read(&next, &wishes(&["phoenix"])).await.rows.is_empty());
    assert!(remove(&next).await.unwrap());
    assert_eq!(value(&on, TRACES).await, before);
}

#[tokio::test]
async fn a_module_of_another_version_is_replaced() {
    let (_world, on) = emitting().await;
    let older = "{ok, T, _} = erl_scan:string(\"-module(deployex_telemetry).\"), {ok, T2, _} = erl_scan:string(\"\
                 -export([turn/4, stop/0]).\"), {ok, T3, _} = erl_scan:string(\"turn(_, _, _, _) -> other.\"), \
                 {ok, T4, _} = erl_scan:string(\"stop() -> persistent_term:put(stopped, yes), ok.\"), \
                 {ok, M, B} = compile:forms([element(2, erl_parse:parse_form(It)) || It <- [T, T2, T3, T4]]), \
                 code:load_binary(M, \"x\", B).";
    value(&on, older).await;
    read(&on, &wishes(&ALL)).await;
    assert_eq!(value(&on, "persistent_term:get(stopped).").await.as_atom(), Some("yes"));
    let digest = value(&on, "deployex_telemetry:module_info(md5).").await;
    assert_eq!(digest, Term::Binary(DIGEST.to_vec().into()));
}

#[tokio::test]
async fn a_release_without_telemetry_says_so_and_nothing_is_loaded_there() {
    let world = World::new().await;
    let on = world.connect_booted().await;
    let said = turn(&on, &wishes(&ALL), LEASE).await.unwrap();
    assert_eq!(said, Turn::Without("telemetry is not in this release".to_owned()));
    assert!(!telemetry::is_there(&on).await.unwrap());
}

#[tokio::test]
async fn where_nothing_is_wished_for_not_even_a_name_is_left() {
    let world = World::new().await;
    let on = world.connect_booted().await;
    let atoms = "erlang:system_info(atom_count).";
    value(&on, atoms).await;
    assert!(!telemetry::is_there(&on).await.unwrap());
    let before = value(&on, atoms).await;
    assert!(!telemetry::is_there(&on).await.unwrap());
    assert_eq!(value(&on, atoms).await, before);
    let of_us = "catch binary_to_existing_atom(list_to_binary([\"deployex\", \"_telemetry\"]), utf8).";
    assert!(value(&on, of_us).await.as_tuple().is_some(), "it is no atom there");
}

#[tokio::test]
async fn telemetry_that_has_not_started_is_waited_for_and_one_that_begins_anew_is_met_again() {
    let (_world, on) = emitting().await;
    let wishes = wishes(&ALL);
    read(&on, &wishes).await;
    let restart = "ets:info(telemetry_handler_table, owner) ! stop, timer:sleep(100).";
    value(&on, restart).await;
    let said = turn(&on, &wishes, LEASE).await.unwrap();
    assert_eq!(said, Turn::Without("telemetry has not been started there".to_owned()));
    value(&on, "telemetry:start().").await;
    read(&on, &wishes).await;
    value(&on, "emits:requests(2, 1).").await;
    assert_eq!(row(&read(&on, &wishes).await, "phoenix.router_dispatch.stop", "/users/:id").count, 2);
}

#[tokio::test]
async fn an_event_costs_its_emitter_little_also_while_the_owner_stands() {
    let (_world, on) = emitting().await;
    let cost = async |event: &str| {
        let call = format!("lists:min([emits:cost({event}, 50000) || _ <- lists:seq(1, 5)]).");
        value(&on, &call).await.as_u64().unwrap()
    };
    let events = ["[phoenix, router_dispatch, stop]", "[shop, repo, query]", "[vm, memory]"];
    let mut bare = Vec::new();
    for event in events {
        bare.push(cost(event).await);
    }
    let at_once = "emits:at_once(4, [phoenix, router_dispatch, stop], 50000).";
    println!("four processes at once: {} ns each without a handler", value(&on, at_once).await);
    let wishes = wishes(&ALL);
    read(&on, &wishes).await;
    let mut running = Vec::new();
    for (event, bare) in events.into_iter().zip(bare) {
        let counted = cost(event).await;
        println!("{event}: {bare} ns without a handler, {counted} ns with it");
        running.push(counted);
    }
    println!("four processes at once: {} ns each with it", value(&on, at_once).await);
    value(&on, "erlang:suspend_process(whereis(deployex_telemetry)), emits:requests(1, 1).").await;
    let held =
        "spawn(fun() -> erlang:suspend_process(whereis(deployex_telemetry)), receive never -> ok end end).";
    value(&on, held).await;
    for (event, running) in events.into_iter().zip(running) {
        let standing = cost(event).await;
        println!("{event}: {standing} ns while the owner stands");
        assert!(standing < 5 * running + 20_000, "{event}: {standing} ns, {running} ns before");
    }
    let began = Instant::now();
    read(&on, &wishes).await;
    println!("a reading: {:?}", began.elapsed());
    assert!(remove(&on).await.unwrap(), "also of an owner that stands");
    assert_eq!(value(&on, "ets:whereis(deployex_telemetry).").await.as_atom(), Some("undefined"));
}

/// What the agent carries is what stands in the source. Compilers differ: of the release that it was compiled with alone.
#[test]
fn the_compiled_module_is_that_of_its_source() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/beam/telemetry");
    let out = tempfile::tempdir().unwrap();
    let compiled = Command::new("erlc")
        .args(["+deterministic", "-Werror", "-o"])
        .arg(out.path())
        .arg("deployex_telemetry.erl")
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stdout));
    let told = Command::new("erl")
        .args(["-noshell", "-eval"])
        .arg(
            "[{ok, {_, Mine}}, {ok, {_, Its}}] = [beam_lib:md5(It) || It <- init:get_plain_arguments()],
             {ok, {_, [{compile_info, Info}]}} = beam_lib:chunks(lists:last(init:get_plain_arguments()), [compile_info]),
             Hex = fun(Bytes) -> [io_lib:format(\"~2.16.0b\", [It]) || <<It>> <= Bytes] end,
             io:format(\"~s ~s ~s ~s\", [Hex(Mine), Hex(Its), proplists:get_value(version, Info),
                 erlang:system_info(otp_release)]), halt().",
        )
        .arg("-extra")
        .arg(out.path().join("deployex_telemetry.beam"))
        .arg(folder.join("deployex_telemetry.beam"))
        .output()
        .unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let [mine, its, compiler, otp] = told.split(' ').collect::<Vec<_>>()[..] else { panic!("{told}") };
    let carried = DIGEST.map(|it| format!("{it:02x}")).concat();
    assert_eq!(its, carried, "DIGEST is of the module that is carried");
    assert!(compiler.starts_with("8.2"), "to be compiled with OTP 25, and not with compiler {compiler}");
    if otp == "25" {
        assert_eq!(mine, its, "compile it again: erlc +deterministic deployex_telemetry.erl, and set DIGEST");
        assert_eq!(std::fs::read(out.path().join("deployex_telemetry.beam")).unwrap(), BEAM);
    }
}
