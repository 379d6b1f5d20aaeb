//! Looking at a node: its figures are true, and it is afterwards what it was before.

use node_agent::beam::web::Endpoint;
use node_agent::beam::{about, vitals, web};
use node_agent::dist::connection::Settings;
use node_agent::dist::term::Term;

use super::world::{PATIENCE, World, value};

/// What a look could leave behind: atoms, processes, modules, tables, monitors of our node, names, and flags that cost all.
const TRACES: &str = "
    {erlang:system_info(atom_count), length(processes()) - 1, length(code:all_loaded()), length(ets:all()),
     lists:sort(registered()), lists:sort(nodes(hidden)),
     erlang:statistics(scheduler_wall_time), erlang:system_flag(scheduler_wall_time, false)}.";

#[tokio::test]
async fn a_node_is_after_a_thousand_looks_what_it_was_before_them() {
    // As a release has it: all of its code from the beginning.
    let world = World::with(&["-mode", "embedded"]).await;
    let watcher = world.connect_as("watcher@127.0.0.1", Settings::default()).await;
    let looking = world.connect().await;
    value(&watcher, TRACES).await;
    about::look(&looking, "kernel").await.unwrap();
    vitals::look(&looking).await.unwrap();
    let before = value(&watcher, TRACES).await;
    for _ in 0..100 {
        about::look(&looking, "an_application_that_this_node_never_heard_of").await.unwrap();
        for _ in 0..9 {
            vitals::look(&looking).await.unwrap();
        }
    }
    assert_eq!(value(&watcher, TRACES).await, before);
}

#[tokio::test]
async fn what_is_told_is_what_the_node_has() {
    let world = World::with(&["+P", "134217", "+Q", "2048"]).await;
    let connection = world.connect().await;
    let more = "[spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, 5000)],
        erlang:system_info(process_count).";
    let count = value(&connection, more).await.as_u64().unwrap();
    let now = vitals::look(&connection).await.unwrap();
    assert!(now.processes.abs_diff(count) < 10 && count > 5_000, "{now:?}");
    assert_eq!(now.memory.total, now.memory.processes + now.memory.system);
    let schedulers = value(&connection, "erlang:system_info(schedulers_online).").await.as_u64().unwrap();
    assert!(now.run_queues.len() as u64 >= schedulers, "{now:?}");

    let about = about::look(&connection, "kernel").await.unwrap();
    let text = |it: Term| it.as_text().unwrap();
    assert_eq!(about.otp, text(value(&connection, "erlang:system_info(otp_release).").await));
    assert_eq!(about.erts, text(value(&connection, "erlang:system_info(version).").await));
    let kernel = value(&connection, "{ok, Vsn} = application:get_key(kernel, vsn), Vsn.").await;
    assert_eq!((about.application.as_str(), about.elixir.as_str()), (text(kernel).as_str(), ""));
    let limits = value(
        &connection,
        "[erlang:system_info(It) || It <- [process_limit, port_limit, atom_limit, ets_limit]].",
    )
    .await;
    let told = [about.process_limit, about.port_limit, about.atom_limit, about.ets_limit];
    assert_eq!(limits.as_list().unwrap().iter().filter_map(Term::as_u64).collect::<Vec<_>>(), told);
    let up = value(&connection, "element(1, erlang:statistics(wall_clock)).").await.as_u64().unwrap();
    assert!(up >= about.up_ms && about.up_ms + PATIENCE.as_secs() * 1_000 > up, "{about:?}, {up} ms");

    // What has been done only grows.
    let later = vitals::look(&connection).await.unwrap();
    assert!(later.reductions > now.reductions && later.output >= now.output, "{later:?}");
}

/// What `mix phx.new` leaves in a release, as far as it is looked at: an application that uses `phoenix`, and its endpoint.
const SHOP: &str = "
    Form = fun(Text) ->
        {ok, Tokens, _} = erl_scan:string(Text),
        {ok, It} = erl_parse:parse_form(Tokens),
        It
    end,
    Compile = fun(Name, Body, More) ->
        Functions = [Form(\"url() -> \" ++ Body ++ \".\") | lists:map(Form, More)],
        Exports = [{url, 0} | [{struct_url, 0} || More =/= []] ++ [{static_path, 1} || More =/= []]],
        Forms = [{attribute, 1, module, Name}, {attribute, 1, export, Exports} | Functions],
        {ok, Name, Code} = compile:forms(Forms),
        {module, Name} = code:load_binary(Name, \"none\", Code)
    end,
    Phoenix = [\"struct_url() -> ok.\", \"static_path(Path) -> Path.\"],
    Load = fun(Name, Uses, Modules) ->
        ok = application:load({application, Name, [{vsn, \"1\"}, {applications, Uses}, {modules, Modules}]})
    end,
    Load(phoenix, [kernel], []),
    Load(shop, [kernel], []),
    Compile('Elixir.ShopWeb.Endpoint', \"<<\\\"https://shop.example.com\\\">>\", Phoenix),
    Compile('Elixir.ShopWeb.Admin.Endpoint', \"error(not_started)\", Phoenix),
    Compile('Elixir.ShopWeb.Payments.Endpoint', \"<<\\\"https://pay.example.com\\\">>\", []),
    Compile('Elixir.ShopWeb.Odd.Endpoint', \"<<\\\"javascript:alert(1)\\\">>\", Phoenix),
    Compile('Elixir.ShopWeb.Endpoint.Other', \"<<\\\"https://other.example.com\\\">>\", Phoenix),
    Compile('Elixir.ShopWeb.Late.Endpoint', \"timer:sleep(60000)\", Phoenix),
    Load(shop_web, [kernel, phoenix], ['Elixir.ShopWeb.Endpoint', 'Elixir.ShopWeb.Admin.Endpoint',
        'Elixir.ShopWeb.Payments.Endpoint', 'Elixir.ShopWeb.Odd.Endpoint', 'Elixir.ShopWeb.Endpoint.Other', 'Elixir.ShopWeb.Missing.Endpoint']),
    Load(late_web, [kernel, phoenix], []),
    Load(plain_web, [kernel], ['Elixir.ShopWeb.Endpoint']),
    ok.";

#[tokio::test]
async fn where_phoenix_says_that_it_is_reached_is_told_and_nothing_is_left_behind() {
    let world = World::new().await;
    let connection = world.connect().await;
    assert_eq!(web::look(&connection).await.unwrap(), []);
    value(&connection, SHOP).await;
    let watcher = world.connect_as("watcher@127.0.0.1", Settings::default()).await;
    web::look(&connection).await.unwrap();
    value(&watcher, TRACES).await;
    let before = value(&watcher, TRACES).await;
    let shop = Endpoint { application: "shop_web".to_owned(), url: "https://shop.example.com".to_owned() };
    for _ in 0..20 {
        assert_eq!(web::look(&connection).await.unwrap(), std::slice::from_ref(&shop));
    }
    assert_eq!(value(&watcher, TRACES).await, before);
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_hides_no_other() {
    let world = World::new().await;
    let connection = world.connect().await;
    value(&connection, SHOP).await;
    let late = "ok = application:unload(late_web), ok = application:load({application, late_web,
        [{vsn, \"1\"}, {applications, [phoenix]}, {modules, ['Elixir.ShopWeb.Late.Endpoint']}]}).";
    value(&connection, late).await;
    let begun = tokio::time::Instant::now();
    let found = web::look(&connection).await.unwrap();
    assert_eq!(found.iter().map(|it| it.url.as_str()).collect::<Vec<_>>(), ["https://shop.example.com"]);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}
