//! The runtime configuration of the new release arrives with it, whatever it holds, and is told to nobody.

use std::fs;

use node_agent::dist::term::Term;
use node_agent::hot;
use xtask::fixtures::Sample;

use super::replica::{Replica, assert_same, tree};
use crate::dist::world::value;

const RUNTIME: &str =
    "import Config\nconfig :elixir_demo, port: String.to_integer(System.fetch_env!(\"PORT\"))\n";

fn runtime(more: &str) -> String {
    format!("{RUNTIME}{more}\n")
}

#[tokio::test]
async fn what_elixir_configures_at_run_time_is_the_new_releases_and_may_hold_functions() {
    let mut replica = Replica::start_with(Sample::Elixir, "1.1.0", &[], |root| {
        let text = runtime("config :elixir_demo, greeting: \"one\", only_one: true");
        fs::write(root.join("releases/1.1.0/runtime.exs"), text).unwrap();
    })
    .await;
    let connection = replica.connect().await;
    replica.bring("1.2.0").await;
    let text = runtime(
        "two = 2\nconfig :elixir_demo, greeting: \"two\", hello: fn name -> \"hello #{name} of #{two}\" end",
    );
    fs::write(replica.incoming("releases/1.2.0/runtime.exs"), text).unwrap();
    let site = replica.site("1.1.0", "1.2.0");
    replica.install(&connection, &site).await.unwrap();
    let seen = "{ok, Hello} = application:get_env(elixir_demo, hello), {ok, Port} = application:get_env(elixir_demo, port),
        {application:get_env(elixir_demo, greeting), application:get_env(elixir_demo, only_one), Hello(<<\"x\">>), Port,
         [It || {{deployex_hot_upgrade, _}, _} = It <- persistent_term:get()]}.";
    let expected = Term::Tuple(vec![
        Term::Tuple(vec![Term::atom("ok"), Term::from("two")]),
        Term::atom("undefined"),
        Term::from("hello x of 2"),
        Term::Integer(replica.address.port().into()),
        Term::default(),
    ]);
    assert_eq!(value(&connection, seen).await, expected);
    hot::permanent(&connection, &site).await.unwrap();
    drop(connection);
    replica.start_again();
    replica.serves("1.2.0").await;
    assert_eq!(value(&replica.connect().await, seen).await, expected);
}

#[tokio::test]
async fn a_configuration_provider_that_only_the_new_release_has_is_asked() {
    let replica = Replica::start(Sample::Elixir, "1.1.0").await;
    let connection = replica.connect().await;
    replica.bring("1.2.0").await;
    let compiled = "Forms = [begin {ok, T, _} = erl_scan:string(S), {ok, F} = erl_parse:parse_form(T), F end || S <- [
        \"-module(later_provider).\", \"-export([load/2]).\",
        \"load(Config, Later) -> 'Elixir.Config.Reader':merge(Config, [{elixir_demo, [{later, later_words:of_it(Later)}]}]).\"]],
        More = [begin {ok, T, _} = erl_scan:string(S), {ok, F} = erl_parse:parse_form(T), F end || S <- [
        \"-module(later_words).\", \"-export([of_it/1]).\", \"of_it(Later) -> {words, Later}.\"]],
        {ok, _, Provider} = compile:forms(Forms), {ok, _, Words} = compile:forms(More), [Provider, Words].";
    let compiled = value(&connection, compiled).await;
    let ebin = replica.incoming("lib/elixir_demo-1.2.0/ebin");
    for (name, beam) in ["later_provider", "later_words"].iter().zip(compiled.as_list().unwrap()) {
        let Term::Binary(beam) = beam else { panic!("{beam}") };
        fs::write(ebin.join(format!("{name}.beam")), beam).unwrap();
    }
    let config = replica.incoming("releases/1.2.0/sys.config");
    let text = fs::read_to_string(&config).unwrap();
    let with = text.replace("providers => [", "providers => [{later_provider,seven},");
    assert_ne!(with, text);
    fs::write(&config, with).unwrap();
    replica.install(&connection, &replica.site("1.1.0", "1.2.0")).await.unwrap();
    let later = value(&connection, "application:get_env(elixir_demo, later).").await;
    assert_eq!(later.to_string(), "{ok,{words,seven}}");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_resolved_is_named_without_what_it_holds() {
    let replica = Replica::start(Sample::Elixir, "1.1.0").await;
    let connection = replica.connect().await;
    let before = tree(&replica.root(""));
    for (line, says) in [
        ("System.fetch_env!(\"NOWHERE\")", "NOWHERE"),
        ("%{} = \"a secret\"", "badmatch"),
        ("ElixirDemo.Nowhere.at_all(\"a secret\")", "at_all/1"),
        ("raise \"there is no licence\"", "there is no licence"),
    ] {
        replica.bring("1.2.0").await;
        fs::write(replica.incoming("releases/1.2.0/runtime.exs"), runtime(line)).unwrap();
        let site = replica.site("1.1.0", "1.2.0");
        let fault = replica.prepare(&connection, &site).await.unwrap_err();
        assert!(fault.is_of_package() && fault.to_string().contains(says), "{fault}");
        assert!(!fault.to_string().contains("secret"), "{fault}");
        hot::undo(Some(&connection), &site.root).await.unwrap();
        assert_same(&before, &tree(&replica.root("")));
    }
}

#[tokio::test]
async fn what_relx_configures_is_rendered_with_the_environment_of_the_vm() {
    let mut replica = Replica::start_with(Sample::Erlang, "1.1.0", &[("WHO", "w & m")], |_| {}).await;
    let connection = replica.connect().await;
    replica.bring("1.2.0").await;
    let template = replica.incoming("releases/1.2.0/sys.config.src");
    let text =
        "[{erlang_demo, [{port, ${PORT}},\n {who, \"${WHO}\"}, {greeting, \"${GREETING:-good day}\"}]}].\n";
    fs::write(&template, text).unwrap();
    let site = replica.site("1.1.0", "1.2.0");
    replica.install(&connection, &site).await.unwrap();
    let seen = "[application:get_env(erlang_demo, It) || It <- [who, greeting, port]].";
    let expected = format!("[{{ok,\"w & m\"}},{{ok,\"good day\"}},{{ok,{}}}]", replica.address.port());
    assert_eq!(value(&connection, seen).await.to_string(), expected);
    hot::permanent(&connection, &site).await.unwrap();
    drop(connection);
    replica.start_again();
    replica.serves("1.2.0").await;
    assert_eq!(value(&replica.connect().await, seen).await.to_string(), expected);
}

#[tokio::test]
async fn a_variable_that_the_vm_has_not_is_a_fault_before_anything_changes() {
    let replica = Replica::start(Sample::Erlang, "1.1.0").await;
    let connection = replica.connect().await;
    let before = tree(&replica.root(""));
    replica.bring("1.2.0").await;
    let template = replica.incoming("releases/1.2.0/sys.config.src");
    fs::write(&template, "[{erlang_demo, [{port, ${NOWHERE}}]}].\n").unwrap();
    let site = replica.site("1.1.0", "1.2.0");
    let fault = replica.prepare(&connection, &site).await.unwrap_err();
    assert!(fault.to_string().contains("sys.config") && !fault.is_of_package(), "{fault}");
    hot::undo(Some(&connection), &site.root).await.unwrap();
    assert_same(&before, &tree(&replica.root("")));
}
