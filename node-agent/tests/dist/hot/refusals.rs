//! Packages that cannot be upgraded to while it runs: said in words, as the package's fault, and the folder is what it was.

use std::fs;
use std::io::Read as _;

use node_agent::dist::connection::Connection;
use node_agent::hot;
use xtask::fixtures::Sample;

use super::replica::{Replica, assert_same, tree};
use crate::dist::world::value;

/// What is in `new` is refused with these words, and nothing of it stays.
async fn is_refused(replica: &Replica, connection: &Connection, to: &str, words: &[&str]) {
    let (site, before) = (replica.site("1.1.0", to), tree(&replica.root("")));
    let fault = replica.prepare(connection, &site).await.unwrap_err();
    assert!(fault.is_of_package(), "{fault}");
    for word in words {
        assert!(fault.to_string().contains(word), "{word}: {fault}");
    }
    hot::undo(Some(connection), &site.root).await.unwrap();
    assert_same(&before, &tree(&replica.root("")));
}

async fn broken_appups(sample: Sample) {
    let replica = Replica::start(sample, "1.1.0").await;
    let connection = replica.connect().await;
    assert_eq!(replica.count().await, 1);
    for (to, words) in [
        ("0.4.0", &["no appup", sample.name()][..]),
        ("1.2.0-malformed", &["appup"]),
        ("1.2.0-stranger", &["1.2.0-stranger", "1.1.0"]),
        ("1.2.0-missing", &["owhere"]),
    ] {
        replica.bring(to).await;
        is_refused(&replica, &connection, to, words).await;
    }
    replica.upgrade(&connection, "1.1.0", "1.2.0").await;
    assert_eq!(replica.count().await, 2);
}

#[tokio::test]
async fn broken_appups_of_elixir_are_refused_in_words() {
    broken_appups(Sample::Elixir).await;
}

#[tokio::test]
async fn broken_appups_of_erlang_are_refused_in_words() {
    broken_appups(Sample::Erlang).await;
}

/// `{badrpc, _}` is an answer like others, and no end of whoever asked.
#[tokio::test]
async fn a_call_that_the_node_cannot_make_is_named_and_the_upgrade_can_be_repeated() {
    let replica = Replica::start(Sample::Erlang, "1.1.0").await;
    let connection = replica.connect().await;
    replica.bring("1.2.0").await;
    let folder = value(&connection, "code:lib_dir(sasl, ebin).").await.as_text().unwrap();
    let without = "true = code:del_path(sasl), code:delete(systools), code:purge(systools).";
    value(&connection, without).await;
    is_refused(&replica, &connection, "1.2.0", &["working out the way", "undef", "sasl"]).await;
    let again =
        format!("true = code:add_pathz(\"{folder}\"), {{module, It}} = code:load_file(systools), It.");
    assert_eq!(value(&connection, &again).await.to_string(), "systools");
    replica.upgrade(&connection, "1.1.0", "1.2.0").await;
}

/// OTP's answer is then a yes that looked at nothing.
#[tokio::test]
async fn a_relup_that_is_missing_is_no_pass() {
    let replica = Replica::start(Sample::Erlang, "1.1.0").await;
    let connection = replica.connect().await;
    replica.bring("1.2.0").await;
    let site = replica.site("1.1.0", "1.2.0");
    hot::lay(&site).await.unwrap();
    hot::unpack(&connection, &site).await.unwrap();
    hot::relup(&connection, &site).await.unwrap();
    fs::remove_file(replica.root("releases/1.2.0/relup")).unwrap();
    let fault = hot::check(&connection, &site).await.unwrap_err();
    assert!(fault.to_string().contains("there is no way from 1.1.0"), "{fault}");
    hot::relup(&connection, &site).await.unwrap();
    hot::check(&connection, &site).await.unwrap();
}

/// The release handler takes up the new settings before it begins, and does not put all of them back.
#[tokio::test]
async fn an_install_that_is_given_up_before_its_point_of_no_return_leaves_nothing_as_it_was() {
    let replica = Replica::start(Sample::Erlang, "1.1.0").await;
    let connection = replica.connect().await;
    replica.bring("1.2.0").await;
    let site = replica.site("1.1.0", "1.2.0");
    replica.prepare(&connection, &site).await.unwrap();
    fs::remove_file(replica.root("lib/erlang_demo-1.2.0/ebin/erlang_demo_page.beam")).unwrap();
    let fault = hot::install(&connection, &site).await.unwrap_err();
    assert!(fault.has_touched_what_runs() && !fault.is_of_package(), "{fault}");
    let standing = hot::standing(&connection, &site).await.unwrap();
    assert_eq!(standing.current, "1.1.0", "it runs on");
}

#[tokio::test]
async fn what_takes_a_restart_of_the_emulator_is_refused() {
    let replica = Replica::start(Sample::Erlang, "1.1.0").await;
    let connection = replica.connect().await;
    replica.bring("1.2.0").await;
    let description = replica.incoming("releases/1.2.0/erlang_demo.rel");
    let text = fs::read_to_string(&description).unwrap();
    let erts = text.split("{erts,\"").nth(1).unwrap().split('"').next().unwrap();
    fs::write(&description, text.replace(&format!("{{erts,\"{erts}\"}}"), "{erts,\"99.1\"}")).unwrap();
    is_refused(&replica, &connection, "1.2.0", &["ERTS 99.1", erts]).await;

    replica.bring("1.2.0").await;
    let appup = replica.incoming("lib/erlang_demo-1.2.0/priv/appup/erlang_demo.appup");
    fs::write(&appup, "{\"1.2.0\", [{\"1.1.0\", [restart_new_emulator]}], [{\"1.1.0\", []}]}.").unwrap();
    is_refused(&replica, &connection, "1.2.0", &["restarts the emulator"]).await;
    assert_eq!(replica.get("/version").await.unwrap().trim(), "1.1.0");
}

#[tokio::test]
async fn other_code_under_the_same_version_is_refused_and_other_debug_information_is_not() {
    let replica = Replica::start(Sample::Erlang, "1.1.0").await;
    let connection = replica.connect().await;
    replica.bring("1.2.0").await;
    let library = fs::read_dir(replica.incoming("lib")).unwrap().flatten().map(|it| it.path());
    let sasl = library
        .into_iter()
        .find(|it| it.file_name().unwrap().to_string_lossy().starts_with("sasl-"))
        .unwrap();
    let module = sasl.join("ebin/alarm_handler.beam");
    // Stripped and gzipped, as relx does.
    let mut original = Vec::new();
    flate2::read::GzDecoder::new(&*fs::read(&module).unwrap()).read_to_end(&mut original).unwrap();
    let mut changed = original.clone();
    let at = changed.windows(4).position(|it| it == b"Code").unwrap() + 40;
    changed[at] ^= 1;
    // They are links to the host's copy.
    fs::remove_file(&module).unwrap();
    fs::write(&module, changed).unwrap();
    let name = sasl.file_name().unwrap().to_string_lossy().into_owned();
    is_refused(&replica, &connection, "1.2.0", &[&name, "alarm_handler", "other code"]).await;

    let mut described = original;
    described.extend(b"Docs\0\0\0\x04text");
    let length = u32::try_from(described.len() - 8).unwrap().to_be_bytes();
    described[4..8].copy_from_slice(&length);
    fs::write(&module, described).unwrap();
    let site = replica.site("1.1.0", "1.2.0");
    replica.install(&connection, &site).await.unwrap();
    replica.serves("1.2.0").await;
}

#[tokio::test]
async fn a_node_that_runs_from_elsewhere_is_left_alone() {
    let replica = Replica::start(Sample::Erlang, "1.1.0").await;
    let other = Replica::start(Sample::Erlang, "1.1.0").await;
    replica.bring("1.2.0").await;
    let site = replica.site("1.1.0", "1.2.0");
    hot::lay(&site).await.unwrap();
    let fault = hot::unpack(&other.connect().await, &site).await.unwrap_err();
    assert!(fault.to_string().contains("runs from") && !fault.is_of_package(), "{fault}");
}
