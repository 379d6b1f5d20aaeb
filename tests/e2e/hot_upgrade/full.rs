//! Full deployments between hot upgrades, and instead of one: where the policy says so, and where a package brings another ERTS.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use proto::apps::Application;
use proto::releases::CheckedWay;
use proto::state::UpgradeState;
use tests::http::serves_version;
use tests::release;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

use super::{World, pids};

/// Names below a folder of what runs, as far as they are the sample's own or versions.
fn names(world: &World, path: &str) -> Vec<String> {
    let entries = fs::read_dir(world.current(1, path)).unwrap().flatten();
    let own = format!("{}-", world.sample);
    let mut names: Vec<_> = entries
        .filter(|it| it.path().is_dir())
        .map(|it| it.file_name().to_string_lossy().into_owned())
        .filter(|it| path == "releases" || it.starts_with(&own))
        .map(|it| it.trim_start_matches(&own).to_owned())
        .collect();
    names.sort();
    names
}

/// Whether the releases in the slot, and the sample's own libraries, come to be these.
async fn has(world: &World, releases: &[&str], libraries: &[&str]) {
    eventually("what is needed and nothing else", || {
        let found = (names(world, "releases"), names(world, "lib"));
        let same = found.0 == releases && found.1 == libraries;
        async move { if same { Seen::Done(()) } else { Seen::NotYet(format!("{found:?}")) } }
    })
    .await;
    // Each module that is loaded lies where it was loaded from.
    let gone = "[F || {_, F} <- code:all_loaded(), is_list(F), not filelib:is_regular(F)]";
    let said = world.control_plane.command_line().run(&["rpc", world.sample.name(), gone, "--slot", "1"]);
    assert_eq!((said.out.trim(), said.status), ("[]", 0), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_deployments_and_hot_upgrades_follow_each_other() {
    let mut world = World::new(Sample::Erlang, 1, "strategy: stop_first").await;
    let first = pids(&world.connected().await);
    assert_eq!((world.count(1).await, world.count(1).await), (1, 2));
    world.publish("1.2.0").await;
    let hot = world.settles_on("1.2.0").await;
    assert_eq!((pids(&hot), world.count(1).await), (first.clone(), 3), "{:#?}", world.events());
    has(&world, &["1.1.0", "1.2.0"], &["1.1.0", "1.2.0"]).await;

    // There would be a way back.
    world.configure(1, "strategy: stop_first, hot_upgrade: never").await;
    world.deploy("1.1.0");
    let full = world.settles_on("1.1.0").await;
    let second = pids(&full);
    assert_ne!(second, first, "{:#?}", world.events());
    world.connected().await;
    assert_eq!(world.count(1).await, 1);
    has(&world, &["1.1.0"], &["1.1.0"]).await;

    world.configure(1, "strategy: stop_first").await;
    world.connected().await;
    world.deploy("1.2.0");
    let hot = world.settles_on("1.2.0").await;
    assert_eq!((pids(&hot), world.count(1).await), (second.clone(), 2), "{:#?}", world.events());
    has(&world, &["1.1.0", "1.2.0"], &["1.1.0", "1.2.0"]).await;

    // Code that no upgrade changed runs from the first library, which therefore stays; of its release only the `.rel`.
    world.publish("1.3.0").await;
    let hot = world.settles_on("1.3.0").await;
    assert_eq!((pids(&hot), world.count(1).await), (second.clone(), 3), "{:#?}", world.events());
    has(&world, &["1.1.0", "1.2.0", "1.3.0"], &["1.1.0", "1.2.0", "1.3.0"]).await;
    eventually("nothing to be started from", || {
        let left = fs::read_dir(world.current(1, "releases/1.1.0")).unwrap().flatten().count();
        async move { if left == 1 { Seen::Done(()) } else { Seen::NotYet(format!("{left} files")) } }
    })
    .await;
    let said = world.control_plane.command_line().run(&["restart", world.sample.name(), "--wait"]);
    assert_eq!(said.status, 0, "{}{}", said.out, said.err);
    let third = pids(&world.connected().await);
    world.deploy("1.2.0");
    let back = world.settles_on("1.2.0").await;
    assert_eq!((pids(&back), world.count(1).await), (third, 1), "{:#?}", world.events());
    has(&world, &["1.2.0", "1.3.0"], &["1.2.0", "1.3.0"]).await;

    // And once more in full, to a release that no appup knows.
    world.publish("0.2.0").await;
    world.settles_on("0.2.0").await;
    world.connected().await;
    has(&world, &["0.2.0"], &["0.2.0"]).await;
    // The control plane was begun anew in between, of which nobody is to hear.
    for kind in ["hot_upgrade_failed", "release_failed"] {
        assert_eq!(world.told(kind), Vec::<String>::new());
    }
}

/// The release, packed anew after a script of the shell was at it in its folder.
async fn repacked(sample: Sample, version: &str, script: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let tarball = release::tarball(sample, version).await;
    let script = format!("set -e; cd \"$1\"; tar -xzf \"$2\"; {script}; tar -czf - *");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, "sh"]).arg(folder.path()).arg(&tarball.path);
    let packed = shell.output().unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    packed.stdout
}

async fn publish_repacked(world: &World, version: &str, script: &str) {
    let name = world.sample.name();
    world.bucket.put_tarball(name, version, &repacked(world.sample, version, script).await);
    world.bucket.write_current(name, &format!(r#"{{"version": "{version}", "hash": "ci"}}"#));
}

/// Overlays come with it, as with a full deployment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_beside_the_code_come_with_a_hot_upgrade_too() {
    let world = World::new(Sample::Elixir, 1, "strategy: stop_first, hot_upgrade: require").await;
    let before = pids(&world.connected().await);
    for version in ["1.2.0", "1.3.0"] {
        let script = format!(
            "echo {version} > VERSION; mkdir -p etc/a; echo {version} > etc/a/b; ln -s etc/a link; \
                              echo migrate > bin/migrate; chmod 755 bin/migrate"
        );
        publish_repacked(&world, version, &script).await;
        assert_eq!(pids(&world.settles_on(version).await), before, "{:#?}", world.events());
        for file in ["VERSION", "etc/a/b", "link/b"] {
            assert_eq!(fs::read_to_string(world.current(1, file)).unwrap().trim(), version, "{file}");
        }
        let mode = fs::metadata(world.current(1, "bin/migrate")).unwrap().permissions().mode();
        assert_eq!(mode & 0o100, 0o100);
        world.lies_still(1).await;
    }
    assert_eq!(world.told("hot_upgrade_complete").len(), 2);
}

/// What a person changed counts from the next deployment on, also where that could have been hot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_waits_for_the_next_deployment_makes_it_a_full_one() {
    let unit = |it: &str| format!("    env:\n      - {{ key: TALLY_UNIT, value: {it} }}\n");
    let mut world = World::with(Sample::Umbrella, 1, "strategy: stop_first", &unit("stones")).await;
    let name = world.sample.name();
    let first = pids(&world.connected().await);
    world.configure_with(1, "strategy: stop_first, hot_upgrade: require", &unit("sheep")).await;
    let waits = |it: &Application| it.slots[0].waiting_settings == ["env[TALLY_UNIT]"];
    world.when("what waits for a start", waits).await;
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = words(&world.control_plane.command_line().run(&["app", "show", name]).out);
    let because = "changed since it was started: env[TALLY_UNIT]";
    assert!(shown.contains(because) && !shown.contains("sheep"), "{shown}");
    // What runs is to be kept where it may be nothing but hot.
    world.publish("1.2.0").await;
    assert_eq!(pids(&world.settles_on("1.2.0").await), first, "{:#?}", world.events());
    world.when("what goes on waiting", waits).await;
    assert!(world.get(1, "/status").await.contains("unit=stones"));

    // Where it need not be hot, it is not.
    world.configure_with(1, "strategy: stop_first", &unit("sheep")).await;
    world.when("what waits for a start", waits).await;
    world.connected().await;
    world.publish("1.3.0").await;
    let after = world.settles_on("1.3.0").await;
    assert_ne!(pids(&after), first, "{:#?}", world.events());
    assert!(world.get(1, "/status").await.contains("unit=sheep"));
    world.when("nothing that waits", |it| it.slots[0].waiting_settings.is_empty()).await;
    // One may be told twice, of a control plane that was killed before it had said that it has it.
    let hot = world.told("hot_upgrade_complete");
    assert!(!hot.is_empty() && hot.iter().all(|it| it.contains("to 1.2.0")), "{hot:?}");
    assert_eq!(world.told("hot_upgrade_failed"), Vec::<String>::new());
}

/// The same release, built for an ERTS that is called otherwise.
fn with_another_erts(erts: &str) -> String {
    format!(
        "old=$(echo erts-*); mv \"$old\" \"erts-{erts}\"; \
         grep -rIl --fixed-strings \"${{old#erts-}}\" . | xargs sed -i \"s/${{old#erts-}}/{erts}/g\""
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_for_another_erts_is_a_full_deployment_and_says_so() {
    let mut world = World::new(Sample::Elixir, 1, "strategy: stop_first, hot_upgrade: require").await;
    let name = world.sample.name();
    let before = pids(&world.connected().await);
    publish_repacked(&world, "1.2.0", &with_another_erts("99.1")).await;
    let erts = fs::read_dir(world.current(1, "")).unwrap().flatten();
    let erts: Vec<_> = erts.filter_map(|it| it.file_name().into_string().ok()).collect();
    let erts = erts.iter().find_map(|it| it.strip_prefix("erts-")).unwrap();
    let because = format!("it brings ERTS 99.1, what runs has {erts}");

    // Where it may only be hot, it is refused in these words, and what runs goes on.
    let said = eventually("the refusal", || async {
        let said = world.control_plane.command_line().run(&["release", "check", name, "1.2.0"]);
        if said.out.contains("1.2.0") { Seen::Done(said) } else { Seen::NotYet(format!("{said:?}")) }
    })
    .await;
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.status == 1 && words(&said.out).contains(&because), "{said:?}");
    let refused = world.control_plane.command_line().run(&["deploy", name, "1.2.0"]);
    assert!(refused.status != 0 && words(&refused.err).contains(&because), "{refused:?}");
    assert_eq!(pids(&world.settles_on("1.1.0").await), before);

    // Where it may be full, it is, and nothing hot is tried.
    world.configure(1, "strategy: stop_first").await;
    let after = world.settles_on("1.2.0").await;
    assert_ne!(pids(&after), before);
    serves_version(world.port, "1.2.0").await;
    let program = fs::read_link(format!("/proc/{}/exe", pids(&after)[0])).unwrap();
    assert!(program.ancestors().any(|it| it.ends_with(Path::new("erts-99.1"))), "{}", program.display());
    assert_eq!(world.told("hot_upgrade_started"), Vec::<String>::new());
    assert!(after.slots[0].upgrade.as_ref().is_none_or(|it| it.state != UpgradeState::Done), "{after:#?}");
    let check = world.check("1.1.0").await;
    let [replica] = &check.replicas[..] else { panic!("{check:#?}") };
    assert_eq!(replica.way, CheckedWay::Full);
    assert_eq!(replica.because.as_deref(), Some(&*format!("it brings ERTS {erts}, what runs has 99.1")));
}
