//! What a deployment would be is said before it, and refused where it may only be a hot upgrade and cannot be one.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use proto::hot_upgrade::{Appup, HotUpgradePolicy, Matcher, Package, Versions};
use proto::ids::{Digest, ReleaseKey};
use proto::releases::{CheckedWay, ReleaseCheck};
use proto::state::{Language, Role};

use super::rollouts::moving;
use super::{Bench, Call};
use crate::clock::Time;
use crate::db::{ApplicationsDiff, NewApplication, Release, Source};
use crate::rollout::fixture::connected;
use crate::spec::AppSpec;

fn key(version: &str, byte: u8) -> ReleaseKey {
    ReleaseKey { version: version.parse().unwrap(), sha256: Digest([byte; 32]) }
}

/// Of that version, with an appup from this one.
fn package(version: &str, from: Option<&str>) -> Package {
    let exact = |from: &str| Matcher { versions: Versions::Exact(from.to_owned()), restarts: false };
    let up = from.map(exact).into_iter().collect();
    let appup = Appup { to: version.to_owned(), up, ..Appup::default() };
    let libs = [("sasl", "4.2"), ("myapp", version)];
    Package {
        erts: "13.1.5".to_owned(),
        name: "myapp".to_owned(),
        libs: libs.map(|(lib, version)| (lib.to_owned(), version.to_owned())).into(),
        appups: BTreeMap::from([("myapp".to_owned(), appup)]),
        ..Package::default()
    }
}

async fn record(bench: &Bench, key: &ReleaseKey, package: Option<Package>) {
    let release = Release {
        app: "myapp".parse().unwrap(),
        key: key.clone(),
        size: 1,
        declared_hash: None,
        pre_commands: Vec::new(),
        etag: None,
        // One after the other, also within one millisecond.
        recorded_at: Time(u64::from(key.sha256.0[0])),
        package,
    };
    bench.api.db.record_release(&release, &[]).await.unwrap();
}

async fn wish(bench: &Bench, policy: HotUpgradePolicy) {
    let mut spec = AppSpec::new("myapp".parse().unwrap(), Language::Elixir);
    spec.deploy.hot_upgrade = policy;
    let put = vec![NewApplication { spec, source: Source::Yaml, cookie: vec![1] }];
    let diff = ApplicationsDiff { put, ..ApplicationsDiff::default() };
    Box::pin(bench.api.db.put_applications(diff, bench.api.clock.now())).await.unwrap();
}

/// As [`moving`], where agents are connected to what serves.
async fn upgradable(bench: &Bench) {
    moving(bench).await;
    for seen in bench.backend.fleets.lock().unwrap()[0].observed.values_mut() {
        (seen.hot_upgrades, seen.erlang) = (true, Some(connected()));
    }
}

fn said(check: &ReleaseCheck) -> Vec<String> {
    let of = |it: &proto::releases::ReplicaCheck| {
        let because = it.because.as_ref().map(|because| format!(": {because}")).unwrap_or_default();
        format!("{}/{} {} {:?}{because}", it.node, it.slot, it.from, it.way)
    };
    check.replicas.iter().map(of).collect()
}

#[tokio::test]
async fn each_replica_that_runs_is_said_with_its_reason() {
    let bench = Bench::new().await;
    upgradable(&bench).await;
    let viewer = bench.token(Role::Viewer).await;
    let get = |version: &str| {
        let path = match version.contains('/') {
            true => format!("/api/v1/applications/myapp/releases/{version}"),
            false => format!("/api/v1/applications/myapp/releases/{version}/check"),
        };
        bench.send(Call::new(Method::GET, &path).bearer(&viewer))
    };
    let unknown = get("3.0.0").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(unknown.text().contains("3.0.0 of myapp is not recorded: none was recorded yet"));

    record(&bench, &key("1.0.0", 1), Some(package("1.0.0", None))).await;
    record(&bench, &key("2.0.0", 2), Some(package("2.0.0", Some("1.0.0")))).await;
    let unknown = get("3.0.0").await;
    assert!(unknown.text().contains("recorded are 2.0.0, 1.0.0"), "{}", unknown.text());
    let check: ReleaseCheck = get("2.0.0").await.json();
    assert_eq!(said(&check), ["web-1/1 2.0.0 None", "web-2/1 1.0.0 Hot", "web-3/1 1.0.0 Hot"]);
    assert_eq!(check.summary, "hot from 1.0.0 on 2 replicas; 1 replica runs it already");
    assert_eq!((check.policy, check.release), (HotUpgradePolicy::Auto, key("2.0.0", 2)));

    record(&bench, &key("3.0.0", 3), Some(package("3.0.0", Some("2.0.0")))).await;
    let check: ReleaseCheck = get("3.0.0").await.json();
    let because = "lib myapp has no appup from 1.0.0: it has one from 2.0.0";
    let full = |node: &str| format!("{node}/1 1.0.0 Full: {because}");
    assert_eq!(said(&check), ["web-1/1 2.0.0 Hot".to_owned(), full("web-2"), full("web-3")]);
    assert_eq!(check.summary, format!("hot from 2.0.0 on 1 replica; full on 2 replicas: {because}"));

    // Whatever the package is like.
    let waiting = |settings: &[&str]| {
        let mut fleets = bench.backend.fleets.lock().unwrap();
        let seen = fleets[0].observed.values_mut().find(|it| it.running == Some(key("1.0.0", 1))).unwrap();
        seen.waiting_settings = settings.iter().map(|it| (*it).to_owned()).collect();
    };
    waiting(&["env[A]", "env_file"]);
    let check: ReleaseCheck = get("2.0.0").await.json();
    let because = "web-2/1 1.0.0 Full: env[A], env_file changed since it was started, which takes a start";
    assert_eq!(said(&check), ["web-1/1 2.0.0 None", because, "web-3/1 1.0.0 Hot"]);
    wish(&bench, HotUpgradePolicy::Require).await;
    let check: ReleaseCheck = get("2.0.0").await.json();
    let hot = "web-2/1 1.0.0 Hot: env[A], env_file goes on waiting for a start";
    assert_eq!(said(&check), ["web-1/1 2.0.0 None", hot, "web-3/1 1.0.0 Hot"]);
    assert!(check.summary.contains("; env[A], env_file goes on waiting for a start"), "{}", check.summary);
    wish(&bench, HotUpgradePolicy::Auto).await;
    waiting(&[]);
    let broken = |is_connected: bool, knows: bool| {
        let mut fleets = bench.backend.fleets.lock().unwrap();
        let seen = fleets[0].observed.values_mut().find(|it| it.running == Some(key("1.0.0", 1))).unwrap();
        seen.erlang = is_connected.then(connected);
        seen.hot_upgrades = knows;
    };
    for (is_connected, knows, because) in [
        (false, true, "its agent is not connected to an Erlang node of it"),
        (true, false, "its agent knows no hot upgrades"),
    ] {
        broken(is_connected, knows);
        let check: ReleaseCheck = get("2.0.0").await.json();
        assert_eq!(said(&check)[1], format!("web-2/1 1.0.0 Full: {because}"));
    }
    broken(true, true);

    // Of two tarballs of one version the newer one, as it would be deployed; that one nobody has looked into.
    record(&bench, &key("3.0.0", 4), None).await;
    let check: ReleaseCheck = get("3.0.0").await.json();
    assert_eq!((&check.release, check.count(CheckedWay::Full)), (&key("3.0.0", 4), 3));
    let other: ReleaseCheck = get(&format!("3.0.0/check?sha256={}", key("3.0.0", 3).sha256)).await.json();
    assert_eq!((&other.release, other.count(CheckedWay::Hot)), (&key("3.0.0", 3), 1));
    wish(&bench, HotUpgradePolicy::Never).await;
    let check: ReleaseCheck = get("2.0.0").await.json();
    assert_eq!(check.count(CheckedWay::Full), 2);
    assert!(check.summary.contains("deploy.hot_upgrade is never"), "{}", check.summary);
    bench.backend.fleets.lock().unwrap()[0].observed.clear();
    let check: ReleaseCheck = get("2.0.0").await.json();
    assert_eq!((said(&check).len(), check.summary.starts_with("nothing runs")), (0, true));
}

#[tokio::test]
async fn what_may_only_be_hot_and_cannot_be_is_not_deployed() {
    let bench = Bench::new().await;
    upgradable(&bench).await;
    let operator = bench.token(Role::Operator).await;
    record(&bench, &key("1.0.0", 1), Some(package("1.0.0", None))).await;
    record(&bench, &key("2.0.0", 2), Some(package("2.0.0", Some("1.0.0")))).await;
    record(&bench, &key("3.0.0", 3), Some(package("3.0.0", Some("2.0.0")))).await;
    let ask = |what: &str, version: &str| {
        let path = format!("/api/v1/applications/myapp/{what}");
        bench.send(Call::post(&path, &serde_json::json!({ "version": version })).bearer(&operator))
    };
    wish(&bench, HotUpgradePolicy::Require).await;
    for what in ["deploy", "pin"] {
        let refused = ask(what, "3.0.0").await;
        assert_eq!((refused.status, refused.code().as_str()), (StatusCode::CONFLICT, "not-hot"));
        let text = refused.text();
        for part in
            ["require", "full on 2 replicas: lib myapp has no appup from 1.0.0", "deployex release check"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
    let app = "myapp".parse().unwrap();
    assert_eq!(bench.api.db.application(&app).await.unwrap().unwrap().manual, None);
    let taken = ask("deploy", "2.0.0").await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{}", taken.text());
    wish(&bench, HotUpgradePolicy::Auto).await;
    let taken = ask("deploy", "3.0.0").await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{}", taken.text());
}
