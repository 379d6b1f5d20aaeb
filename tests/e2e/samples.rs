//! The sample applications themselves, started by hand: if these fail, no other story can be believed.

use std::path::Path;
use std::process::Command;

use proto::archive::{Expected, Limits, inspect};
use proto::hot_upgrade::{HotUpgradePolicy, Package, Way, way};
use proto::ids::Version;
use proto::state::Language;
use tests::http::{get, serves_version};
use tests::process::Running;
use tests::wait::{Seen, eventually};
use tests::{ports, release};
use xtask::fixtures::Sample;

/// Unpacks a release and returns how it is started, as people would by hand.
async fn unpacked(sample: Sample, version: &str, folder: &Path, port: u16) -> Command {
    let tarball = release::tarball(sample, version).await;
    let unpacked = Command::new("tar").arg("-xzf").arg(&tarball.path).arg("-C").arg(folder).status().unwrap();
    assert!(unpacked.success());
    let mut command = match sample {
        Sample::Elixir | Sample::Umbrella => {
            let mut command = Command::new(folder.join("bin").join(sample.name()));
            command.arg("start").env("RELEASE_DISTRIBUTION", "sname");
            command
        }
        Sample::Erlang => {
            let mut command = Command::new(folder.join("bin/erlang_demo"));
            command.arg("foreground").env("RELX_REPLACE_OS_VARS", "true").env("RELEASE_SSL_OPTIONS", "");
            command
        }
        Sample::Gleam => {
            let mut command = Command::new("erl");
            command.arg("-pa").arg(folder.join("erlang-shipment/gleam_demo/ebin"));
            command.args(["-eval", "gleam_demo@@main:run(gleam_demo)", "-noshell", "-sname", "gleam_demo-2"]);
            command.args(["-setcookie", "samples"]);
            command
        }
    };
    command.current_dir(folder).env("PORT", port.to_string()).env("RELEASE_NODE", format!("{sample}-2"));
    command.env("RELEASE_COOKIE", "samples").env("HOME", folder);
    // An epmd of its own, which goes with the test.
    command.env("ERL_EPMD_PORT", ports::free(1).to_string()).env("ERL_EPMD_ADDRESS", "127.0.0.1");
    command
}

async fn shows_itself(sample: Sample) {
    let folder = tempfile::tempdir().unwrap();
    let port = ports::free(1);
    let mut command = unpacked(sample, "0.1.0", folder.path(), port).await;
    let epmd = Epmd::start(&command, folder.path()).await;
    let mut running = Running::start(command.env("SAMPLE_BEHAVIOUR", "priv"), &folder.path().join("output"));
    serves_version(port, "0.1.0").await;

    let page = get(&format!("http://127.0.0.1:{port}/")).await.unwrap();
    for part in [sample.name(), "<dd>0.1.0</dd>", "<dt>slot</dt><dd>2</dd>", &format!("<dd>{port}</dd>")] {
        assert!(page.contains(part), "the page lacks {part}:\n{page}");
    }
    let status = get(&format!("http://127.0.0.1:{port}/status")).await.unwrap();
    assert!(status.contains("output=alive"), "{status}");
    let written = get(&format!("http://127.0.0.1:{port}/priv")).await.unwrap();
    assert!(written.starts_with(&format!("{sample}-2@")), "{written}");

    running.signal(rustix::process::Signal::TERM);
    let status = eventually("the end after SIGTERM", || {
        std::future::ready(running.ended().map_or_else(|| Seen::NotYet("it runs".into()), Seen::Done))
    })
    .await;
    assert_eq!(status.code(), Some(0));
    drop(epmd);
}

/// The name server of Erlang nodes, started before the first node so that the node does not start one that stays.
struct Epmd(#[expect(dead_code, reason = "it ends with this")] Running);

impl Epmd {
    async fn start(node: &Command, folder: &Path) -> Self {
        let port =
            node.get_envs().find(|(name, _)| *name == "ERL_EPMD_PORT").and_then(|(_, value)| value).unwrap();
        let mut command = Command::new("epmd");
        command.env("ERL_EPMD_ADDRESS", "127.0.0.1").arg("-port").arg(port);
        let running = Running::start(&mut command, &folder.join("epmd"));
        let address = format!("127.0.0.1:{}", port.to_str().unwrap());
        eventually("epmd", || async {
            match tokio::net::TcpStream::connect(&address).await {
                Ok(_) => Seen::Done(()),
                Err(error) => Seen::NotYet(error.to_string()),
            }
        })
        .await;
        Self(running)
    }
}

#[tokio::test]
async fn the_elixir_sample_shows_itself_and_stops_when_asked() {
    shows_itself(Sample::Elixir).await;
}

#[tokio::test]
async fn the_erlang_sample_shows_itself_and_stops_when_asked() {
    shows_itself(Sample::Erlang).await;
}

#[tokio::test]
async fn the_gleam_sample_shows_itself_and_stops_when_asked() {
    shows_itself(Sample::Gleam).await;
}

#[tokio::test]
async fn a_version_whose_name_says_so_fails_to_start() {
    for sample in Sample::ALL {
        let folder = tempfile::tempdir().unwrap();
        let mut command = unpacked(sample, "0.3.0-crash", folder.path(), ports::free(1)).await;
        let _epmd = Epmd::start(&command, folder.path()).await;
        let mut running = Running::start(&mut command, &folder.path().join("output"));
        let status = eventually("the end of a version that crashes", || {
            std::future::ready(running.ended().map_or_else(|| Seen::NotYet("it runs".into()), Seen::Done))
        })
        .await;
        assert!(!status.success(), "{sample} ended with {status}:\n{}", running.output());
    }
}

async fn package(sample: Sample, language: Language, version: &str) -> (Version, Option<Package>) {
    let tarball = release::tarball(sample, version).await;
    let file = std::fs::File::open(&tarball.path).unwrap();
    let app = sample.name().parse().unwrap();
    let found = inspect(file, &Limits::default(), &Expected { app: &app, language }).unwrap();
    (version.parse().unwrap(), found.package)
}

/// What mix and Jellyfish, and relx and `rebar3_appup_plugin`, make of them is understood before anything runs.
#[tokio::test]
async fn their_packages_lead_from_one_version_to_the_other_and_back() {
    for (sample, language) in [
        (Sample::Elixir, Language::Elixir),
        (Sample::Erlang, Language::Erlang),
        (Sample::Gleam, Language::Gleam),
    ] {
        let (old, old_package) = package(sample, language, "1.1.0").await;
        let (new, new_package) = package(sample, language, "1.2.0").await;
        let (from, to) = ((&old, old_package.as_ref()), (&new, new_package.as_ref()));
        let ways = [(from, to), (to, from)].map(|(from, to)| way(from, to, language, HotUpgradePolicy::Auto));
        if language == Language::Gleam {
            assert_eq!((&old_package, &new_package), (&None, &None));
            assert!(ways.iter().all(|it| !it.is_hot()), "{ways:?}");
            continue;
        }
        assert_eq!(ways, [Way::Hot, Way::HotDown], "{sample}: {old_package:#?} {new_package:#?}");
        let package = new_package.unwrap();
        assert_eq!(package.name, sample.name());
        assert_eq!(package.libs[sample.name()], "1.2.0");
        assert_eq!(package.jellyfish.len(), usize::from(sample == Sample::Elixir));
        let stored = serde_json::to_string(&package).unwrap();
        assert!(stored.len() < 8_192, "{} bytes: {stored}", stored.len());
    }
}

/// Of an umbrella each application has an appup of its own, and one that did not change keeps what it had.
#[tokio::test]
async fn packages_of_an_umbrella_lead_on_by_the_appups_of_all_that_changed() {
    let (sample, language) = (Sample::Umbrella, Language::Elixir);
    let [first, second, third] = [
        package(sample, language, "1.1.0").await,
        package(sample, language, "1.2.0").await,
        package(sample, language, "1.3.0").await,
    ];
    let between = |one: &(Version, Option<Package>), other: &(Version, Option<Package>)| {
        way((&one.0, one.1.as_ref()), (&other.0, other.1.as_ref()), language, HotUpgradePolicy::Auto)
    };
    assert_eq!([between(&first, &second), between(&second, &third)], [Way::Hot, Way::Hot]);
    assert_eq!([between(&second, &first), between(&third, &second)], [Way::HotDown, Way::HotDown]);
    let because = between(&first, &third).because().map(ToString::to_string);
    let because = because.expect("1.3.0 knows of 1.2.0 only");
    assert!(because.contains("umbrella_tally has no appup from 1.1.0"), "{because}");
    let versions = [&second, &third].map(|it| {
        let package = it.1.as_ref().unwrap();
        assert_eq!(package.jellyfish.len(), 2, "{package:#?}");
        ["umbrella_demo", "umbrella_tally"].map(|lib| package.libs[lib].as_str())
    });
    assert_eq!(versions, [["1.2.0", "1.2.0"], ["1.2.0", "1.3.0"]]);
}
