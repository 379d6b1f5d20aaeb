//! Releases of more than one application: a library is upgraded beside the application, each by its own appup, and another comes
//! new.

use std::fs;
use std::path::Path;
use std::process::Command;

use node_agent::hot;
use xtask::fixtures::Sample;

use super::replica::{Replica, assert_same, tree};
use crate::dist::world::value;

/// Counts words: a number in 1.0.0, a tuple in 2.0.0.
fn words(version: &str) -> [(&'static str, String); 2] {
    let (first, next, change) = if version == "1.0.0" {
        ("0", "N + 1", "{ok, N}")
    } else {
        ("{words, 0}", "{words, element(2, N) + 1}", "{ok, {words, N}}")
    };
    let keeper = format!(
        "-module(words). -behaviour(gen_server). -vsn(\"{version}\").
         -export([start_link/0, init/1, handle_call/3, handle_cast/2, code_change/3]).
         start_link() -> gen_server:start_link({{local, words}}, words, [], []).
         init([]) -> {{ok, {first}}}.
         handle_call(next, _, N) -> {{reply, {next}, {next}}}.
         handle_cast(_, N) -> {{noreply, N}}.
         code_change(_, N, _) -> {change}."
    );
    let supervisor = "-module(words_sup). -behaviour(supervisor). -behaviour(application).
         -export([start/2, stop/1, init/1]).
         start(_, _) -> supervisor:start_link(words_sup, []).
         stop(_) -> ok.
         init([]) -> {ok, {#{}, [#{id => words, start => {words, start_link, []}}]}}.";
    [("words", keeper), ("words_sup", supervisor.to_owned())]
}

/// Into the library folder of a release, and into what says what it is made of.
fn add(root: &Path, release: &str, library: &str, version: &str, modules: &[(&str, String)], start: &str) {
    let ebin = root.join(format!("lib/{library}-{version}/ebin"));
    fs::create_dir_all(&ebin).unwrap();
    for (module, text) in modules {
        let source = ebin.join(format!("{module}.erl"));
        fs::write(&source, text).unwrap();
        let compiled = Command::new("erlc").arg("+debug_info").arg("-o").arg(&ebin).arg(&source).status();
        assert!(compiled.unwrap().success(), "{module}");
        fs::remove_file(source).unwrap();
    }
    let names: Vec<_> = modules.iter().map(|it| it.0).collect();
    let description = format!(
        "{{application, {library}, [{{description, \"\"}}, {{vsn, \"{version}\"}}, {{modules, [{}]}}, {{registered, []}}, \
         {{applications, [kernel, stdlib]}}{start}]}}.",
        names.join(",")
    );
    fs::write(ebin.join(format!("{library}.app")), description).unwrap();
    for (file, entry) in [
        (format!("releases/{release}/erlang_demo.rel"), format!("{{{library},\"{version}\"}},")),
        (
            "releases/RELEASES".to_owned(),
            format!("{{{library},\"{version}\",\"./lib/{library}-{version}\"}},"),
        ),
    ] {
        let file = root.join(file);
        let text = fs::read_to_string(&file).unwrap();
        let with = text.replacen("{sasl,", &format!("{entry}{{sasl,"), 1);
        assert_ne!(text, with);
        fs::write(file, with).unwrap();
    }
}

const MOD: &str = ", {mod, {words_sup, []}}";

#[tokio::test]
async fn libraries_are_upgraded_beside_the_application_and_new_ones_are_started() {
    let replica = Replica::start_with(Sample::Erlang, "1.1.0", &[], |root| {
        add(root, "1.1.0", "words", "1.0.0", &words("1.0.0"), MOD);
    })
    .await;
    let connection = replica.connect().await;
    // As a boot script would that knows it.
    let ebin = replica.root("lib/words-1.0.0/ebin");
    let start = format!(
        "true = code:add_pathz(\"{}\"), [{{module, It}} = code:load_file(It) || It <- [words, words_sup]],
         {{ok, [words]}} = application:ensure_all_started(words, permanent), gen_server:call(words, next).",
        ebin.display()
    );
    assert_eq!(value(&connection, &start).await.as_u64(), Some(1));

    let bring = async || {
        replica.bring("1.2.0").await;
        let root = replica.incoming("");
        add(&root, "1.2.0", "words", "2.0.0", &words("2.0.0"), MOD);
        let later = "-module(later). -export([word/0]). word() -> later.".to_owned();
        add(&root, "1.2.0", "later", "1.0.0", &[("later", later)], "");
    };
    bring().await;
    let (site, before) = (replica.site("1.1.0", "1.2.0"), tree(&replica.root("")));
    let fault = hot::lay(&site).await.unwrap_err();
    assert!(fault.is_of_package() && fault.to_string().contains("no appup for words"), "{fault}");

    let appup = "{\"2.0.0\", [{\"1.0.0\", [{update, words, {advanced, []}}]}], [{\"1.0.0\", []}]}.";
    fs::write(replica.incoming("lib/words-2.0.0/ebin/words.appup"), appup).unwrap();
    replica.prepare(&connection, &site).await.unwrap();
    hot::undo(Some(&connection), &site.root).await.unwrap();
    assert_same(&before, &tree(&replica.root("")));
    replica.install(&connection, &site).await.unwrap();
    replica.serves("1.2.0").await;
    let next = value(&connection, "{gen_server:call(words, next), later:word()}.").await;
    assert_eq!(next.to_string(), "{{words,2},later}");
    let running = "lists:keymember(later, 1, application:which_applications()).";
    assert_eq!(value(&connection, running).await.to_string(), "true");
    let paths = "[filename:basename(filename:dirname(It)) || It <- code:get_path(), string:find(It, \"words\") =/= nomatch].";
    assert_eq!(value(&connection, paths).await.to_string(), "[\"words-2.0.0\"]");
}
