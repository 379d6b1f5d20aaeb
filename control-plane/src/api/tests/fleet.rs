//! Applications, nodes and the overview as the API shows them.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use proto::apps::{Application, Deployment, Unpinned};
use proto::archive::hostile::Builder;
use proto::ids::{Digest, ReleaseKey, RolloutId};
use proto::nodes::{JoinToken, Node, NodeRemoved, NodeSummary};
use proto::overview::Fleet;
use proto::page::Page;
use proto::state::{FaultKind, Language, Role, RolloutPhase, Tone};

use super::{Bench, Call, empty_fleet};
use crate::auth::secret::Secret;
use crate::clock::Time;
use crate::db::{
    ApplicationsDiff, BucketFault, Enrolment, NewApplication, NewCertificate, NewJoinToken, Release, Source,
};
use crate::releases::FolderSource;
use crate::rollout::{PreCommandsState, Progress, Rollout};
use crate::spec::AppSpec;

pub(super) async fn configured(bench: &Bench) {
    let spec = AppSpec::new("myapp".parse().unwrap(), Language::Elixir);
    let mut fleet = empty_fleet("myapp");
    fleet.spec = Some(spec.clone());
    bench.backend.fleets.lock().unwrap().push(fleet);
    let put = vec![NewApplication { spec, source: Source::Yaml, cookie: vec![1] }];
    let diff = ApplicationsDiff { put, ..ApplicationsDiff::default() };
    Box::pin(bench.api.db.put_applications(diff, bench.api.clock.now())).await.unwrap();
}

pub(super) async fn enrolled(bench: &Bench, name: &str) -> proto::ids::NodeId {
    let now = bench.api.clock.now();
    let hash = Secret::random("").unwrap().digest();
    let token = NewJoinToken {
        hash,
        uses: 1,
        labels: BTreeMap::new(),
        created_by: "test".to_owned(),
        created_at: now,
        expires_at: now.plus(1_000_000),
    };
    bench.api.db.add_join_token(&token, &[], None).await.unwrap();
    let enrolment = Enrolment {
        id: proto::ids::NodeId(uuid::Uuid::now_v7()),
        name: name.parse().unwrap(),
        labels: BTreeMap::new(),
        agent_version: "0.1.0".to_owned(),
        token_hash: hash,
        certificate: NewCertificate { serial: format!("serial of {name}"), not_after: now.plus(1_000_000) },
    };
    bench.api.db.enrol(&enrolment, now, &[]).await.unwrap().id
}

#[tokio::test]
async fn an_empty_fleet_says_what_to_do() {
    let bench = Bench::new().await;
    let viewer = bench.token(Role::Viewer).await;
    let fleet: Fleet = bench.send(Call::get("/api/v1/fleet").bearer(&viewer)).await.json();
    assert_eq!(fleet.headline.tone, Tone::Off);
    assert!(fleet.headline.text.contains("deployex.yaml"));
    assert_eq!(fleet.headline.environment, "test");
}

#[tokio::test]
async fn an_application_waits_for_its_first_release() {
    let bench = Bench::new().await;
    configured(&bench).await;
    let viewer = bench.token(Role::Viewer).await;
    let app: Application = bench.send(Call::get("/api/v1/applications/myapp").bearer(&viewer)).await.json();
    assert_eq!(app.summary.sentence, "waits for its first release");
    assert_eq!(app.summary.replicas_wanted, 0);
    assert_eq!(app.settings.replicas_per_node, 3);
}

#[tokio::test]
async fn what_is_waited_for_in_the_bucket_needs_nobody_and_what_is_broken_there_does() {
    let bench = Bench::new().await;
    configured(&bench).await;
    let (viewer, app) = (bench.token(Role::Viewer).await, "myapp".parse().unwrap());
    for (kind, tone, attention) in
        [(FaultKind::Waiting, Tone::Waiting, false), (FaultKind::Broken, Tone::Bad, true)]
    {
        let fault = BucketFault { kind, text: "so it is".to_owned() };
        let now = bench.api.clock.now();
        bench.api.db.set_bucket_fault(&app, None, Some(&fault), now, &[]).await.unwrap();
        let path = "/api/v1/applications/myapp";
        let shown: Application = bench.send(Call::get(path).bearer(&viewer)).await.json();
        let summary = shown.summary;
        assert_eq!((summary.tone, summary.needs_attention), (tone, attention));
        assert_eq!((summary.sentence.as_str(), shown.release_fault.unwrap().kind), ("so it is", kind));
    }
}

#[tokio::test]
async fn what_was_never_in_the_bucket_is_not_deployed() {
    let bench = Bench::new().await;
    configured(&bench).await;
    let operator = bench.token(Role::Operator).await;
    let deploy = |app: &str| {
        let path = format!("/api/v1/applications/{app}/deploy");
        Call::post(&path, &serde_json::json!({ "version": "9.9.9" })).bearer(&operator)
    };
    assert_eq!(bench.send(deploy("myapp")).await.code(), "release-missing");
    assert_eq!(bench.send(deploy("other")).await.code(), "not-found");
}

#[tokio::test]
async fn what_does_not_run_is_not_restarted() {
    let bench = Bench::new().await;
    configured(&bench).await;
    let operator = bench.token(Role::Operator).await;
    let restart = |app: &str, body: &serde_json::Value| {
        Call::post(&format!("/api/v1/applications/{app}/restart"), body).bearer(&operator)
    };
    let all = serde_json::json!({});
    assert_eq!(bench.send(restart("myapp", &all)).await.code(), "conflict");
    assert_eq!(bench.send(restart("other", &all)).await.code(), "not-found");
    let elsewhere = serde_json::json!({ "node": "nobody" });
    assert_eq!(bench.send(restart("myapp", &elsewhere)).await.code(), "not-found");
    let misspelt = serde_json::json!({ "nodes": "web-1" });
    assert_ne!(bench.send(restart("myapp", &misspelt)).await.code(), "conflict");
}

#[tokio::test]
async fn programs_are_told_to_begin_anew_where_they_can_hear_it() {
    let bench = Bench::new().await;
    let [operator, admin] = [bench.token(Role::Operator).await, bench.token(Role::Admin).await];
    let (node, nothing) = (enrolled(&bench, "web-1").await, serde_json::json!({}));
    let agent =
        |name: &str| Call::post(&format!("/api/v1/nodes/{name}/restart-agent"), &nothing).bearer(&operator);
    assert_eq!(bench.send(agent("nobody")).await.code(), "not-found");
    assert_eq!(bench.send(agent("web-1")).await.code(), "node-not-connected");
    assert!(bench.backend.told_anew.lock().unwrap().is_empty());
    bench.backend.up.lock().unwrap().push(node);
    assert_eq!(bench.send(agent("web-1")).await.status, StatusCode::ACCEPTED);
    assert_eq!(*bench.backend.told_anew.lock().unwrap(), [node]);
    assert!(bench.newest_event().await.ends_with(" asked the agent of web-1 to begin anew"));

    let own = |token: &str| Call::post("/api/v1/control-plane/restart", &nothing).bearer(token);
    assert_eq!(bench.send(own(&operator)).await.code(), "not-allowed");
    std::fs::write(bench.config.path(), "port: many\n").unwrap();
    let refused = bench.send(own(&admin)).await;
    assert_eq!(refused.code(), "conflict");
    let said = String::from_utf8(refused.body.clone()).unwrap();
    assert!(said.contains(":1:7: port: found \\\"many\\\""), "{said}");
    assert!(!bench.api.cancel.is_cancelled());
    std::fs::write(bench.config.path(), "port: 5001\n").unwrap();
    assert_eq!(bench.send(own(&admin)).await.status, StatusCode::ACCEPTED);
    assert!(bench.api.begin_anew.is_cancelled() && bench.api.cancel.is_cancelled());
}

#[tokio::test]
async fn a_version_that_lies_in_the_bucket_is_deployed_although_nothing_named_it() {
    let bench = Bench::new().await;
    configured(&bench).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("dist/myapp")).unwrap();
    let tarball = Builder::elixir().file("bin/myapp", 0o755, b"").gzip();
    std::fs::write(folder.path().join("dist/myapp/myapp-2.0.0.tar.gz"), tarball).unwrap();
    std::fs::write(folder.path().join("dist/myapp/myapp-3.0.0.tar.gz"), "no tarball").unwrap();
    let source = FolderSource::new(folder.path().to_owned(), "test".to_owned());
    *bench.backend.bucket.lock().unwrap() = Some((bench.api.db.clone(), source));
    let operator = bench.token(Role::Operator).await;
    let deploy = |wish: serde_json::Value| {
        bench.send(Call::post("/api/v1/applications/myapp/deploy", &wish).bearer(&operator))
    };
    let other = serde_json::json!({ "version": "2.0.0", "sha256": "07".repeat(32) });
    assert_eq!(deploy(other).await.code(), "release-missing");
    let refused = deploy(serde_json::json!({ "version": "3.0.0" })).await;
    assert_eq!(refused.code(), "release-missing");
    assert!(refused.text().contains("dist/myapp/myapp-3.0.0.tar.gz was refused: "), "{}", refused.text());
    let missing = deploy(serde_json::json!({ "version": "9.9.9" })).await;
    assert!(missing.text().contains("dist/myapp/myapp-9.9.9.tar.gz is not in the bucket"));
    let answer = deploy(serde_json::json!({ "version": "2.0.0" })).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    let stored = bench.api.db.application(&"myapp".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(stored.manual.unwrap().release, answer.json::<Deployment>().release);
}

/// As it was read from its tarball.
async fn recorded(bench: &Bench, number: u8) -> ReleaseKey {
    let key = ReleaseKey { version: format!("1.{number}.0").parse().unwrap(), sha256: Digest([number; 32]) };
    let release = Release {
        app: "myapp".parse().unwrap(),
        key: key.clone(),
        size: 1,
        declared_hash: None,
        pre_commands: Vec::new(),
        etag: None,
        recorded_at: bench.api.clock.now(),
        package: None,
    };
    bench.api.db.record_release(&release, &[]).await.unwrap();
    key
}

#[tokio::test]
async fn what_is_pinned_stays_wanted_until_it_is_unpinned() {
    let bench = Bench::new().await;
    configured(&bench).await;
    let (old, new) = (recorded(&bench, 1).await, recorded(&bench, 2).await);
    let (operator, app) = (bench.token(Role::Operator).await, "myapp".parse().unwrap());
    let now = bench.api.clock.now();
    bench.api.db.set_bucket_wish(&app, Some("a"), &old, now, &[]).await.unwrap();
    let unpin = || Call::new(Method::DELETE, "/api/v1/applications/myapp/pin").bearer(&operator);
    assert_eq!(bench.send(unpin()).await.code(), "not-found");
    let body = serde_json::json!({ "version": "1.1.0" });
    let pinned = bench.send(Call::post("/api/v1/applications/myapp/pin", &body).bearer(&operator)).await;
    assert_eq!(pinned.status, StatusCode::ACCEPTED, "{}", pinned.text());
    assert!(bench.newest_event().await.contains(" pinned myapp to 1.1.0"));
    bench.api.db.set_bucket_wish(&app, Some("b"), &new, now, &[]).await.unwrap();
    let manual = bench.api.db.application(&app).await.unwrap().unwrap().manual.unwrap();
    assert_eq!((manual.release, manual.pinned), (old, true));
    let unpinned: Unpinned = bench.send(unpin()).await.json();
    assert_eq!(unpinned.wanted, Some(new));
    assert_eq!(bench.api.db.application(&app).await.unwrap().unwrap().manual, None);

    // Whoever deploys what was pinned is told that the pin is gone.
    let deploy = || Call::post("/api/v1/applications/myapp/deploy", &body).bearer(&operator);
    bench.send(Call::post("/api/v1/applications/myapp/pin", &body).bearer(&operator)).await;
    for says in [true, false] {
        assert_eq!(bench.send(deploy()).await.status, StatusCode::ACCEPTED);
        let event = bench.newest_event().await;
        assert_eq!(event.contains("pinned no more: the bucket counts again"), says, "{event}");
    }
}

/// None that was recorded is forgotten, so that more than the last ten can be held to.
#[tokio::test]
async fn the_oldest_of_twelve_releases_may_be_pinned() {
    let bench = Bench::new().await;
    configured(&bench).await;
    let operator = bench.token(Role::Operator).await;
    let oldest = recorded(&bench, 1).await;
    for number in 2..=12 {
        recorded(&bench, number).await;
    }
    let body = serde_json::json!({ "version": oldest.version.to_string() });
    let pinned = bench.send(Call::post("/api/v1/applications/myapp/pin", &body).bearer(&operator)).await;
    assert_eq!(pinned.status, StatusCode::ACCEPTED, "{}", pinned.text());
    let manual = bench.api.db.application(&"myapp".parse().unwrap()).await.unwrap().unwrap().manual.unwrap();
    assert_eq!((manual.release, manual.pinned), (oldest, true));
}

/// Kamal #1658.
#[tokio::test]
async fn a_rollback_needs_no_version_and_says_where_there_is_no_way_back() {
    let bench = Bench::new().await;
    configured(&bench).await;
    let (old, new) = (recorded(&bench, 1).await, recorded(&bench, 2).await);
    let (operator, app) = (bench.token(Role::Operator).await, "myapp".parse().unwrap());
    let rollback = || {
        let path = "/api/v1/applications/myapp/rollback";
        bench.send(Call::post(path, &serde_json::Value::Null).bearer(&operator))
    };
    let refused = rollback().await;
    assert_eq!(refused.code(), "conflict");
    assert!(refused.text().contains("myapp cannot be rolled back: nothing of it was ever in force"));
    bench.backend.fleets.lock().unwrap()[0].in_force = Some(new.clone());
    assert!(rollback().await.text().contains("no release but 1.2.0 was ever good"));
    let last = Rollout {
        id: RolloutId(uuid::Uuid::nil()),
        app: "myapp".parse().unwrap(),
        release: new,
        from: Some(old.clone()),
        wished_at: Time(1),
        phase: RolloutPhase::Done,
        reason: None,
        pre_commands: PreCommandsState::NotNeeded,
        progress: Progress::default(),
        by: "bucket".to_owned(),
        started_at: Time(1),
        phase_since: Time(1),
        finished_at: Some(Time(2)),
    };
    bench.backend.fleets.lock().unwrap()[0].last = Some(last);
    // Whoever was shown another release is told; nothing is done.
    let path = "/api/v1/applications/myapp/rollback?to=1.9.0%2Bb";
    let refused = bench.send(Call::post(path, &serde_json::Value::Null).bearer(&operator)).await;
    assert_eq!(refused.code(), "conflict");
    assert!(refused.text().contains("a rollback of myapp goes to 1.1.0 by now"), "{}", refused.text());
    assert!(bench.api.db.application(&app).await.unwrap().unwrap().manual.is_none());
    let answer = rollback().await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    assert_eq!(answer.json::<Deployment>().release, old);
    let manual = bench.api.db.application(&app).await.unwrap().unwrap().manual.unwrap();
    assert_eq!((manual.release, manual.pinned), (old, false));
}

#[tokio::test]
async fn a_join_token_comes_with_the_command_to_type() {
    let bench = Bench::new().await;
    let admin = bench.token(Role::Admin).await;
    let answer = bench.send(Call::post("/api/v1/join-tokens", &serde_json::json!({})).bearer(&admin)).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let token: JoinToken = answer.json();
    let (secret, fingerprint) = token.token.strip_prefix("dpxj_").unwrap().split_once('.').unwrap();
    assert_eq!((secret.len(), fingerprint), (43, "ca".repeat(32).as_str()));
    assert!(token.command.contains("--control-plane https://deployex.example.com:5002 --token dpxj_"));
    assert_eq!(token.note, None);
    let none = serde_json::json!({ "uses": 0 });
    let answer = bench.send(Call::post("/api/v1/join-tokens", &none).bearer(&admin)).await;
    assert_eq!(answer.code(), "invalid-input");
}

#[tokio::test]
async fn an_address_that_nobody_configured_is_said_to_be_a_guess() {
    let bench = Bench::with(|settings| settings.agents_address.is_guess = true).await;
    let admin = bench.token(Role::Admin).await;
    let token: JoinToken =
        bench.send(Call::post("/api/v1/join-tokens", &serde_json::json!({})).bearer(&admin)).await.json();
    assert!(token.note.unwrap().starts_with("deployex.example.com is this machine's own name"));
}

#[tokio::test]
async fn a_node_says_when_it_was_heard_before_the_start_and_when_its_certificate_ends() {
    let bench = Bench::new().await;
    let id = enrolled(&bench, "web-1").await;
    bench.api.db.touch_nodes(&[(id, Time(1_234_000))]).await.unwrap();
    let viewer = bench.token(Role::Viewer).await;
    let node: Node = bench.send(Call::get("/api/v1/nodes/web-1").bearer(&viewer)).await.json();
    assert_eq!(node.summary.heard_at, Some(Time(1_234_000).into()));
    let left = node.certificate_expires_at.unwrap().0 - node.enrolled_at.0;
    assert_eq!(left, 1_000_000);
}

#[tokio::test]
async fn a_removed_node_is_cut_and_gone() {
    let bench = Bench::new().await;
    let id = enrolled(&bench, "web-1").await;
    let admin = bench.token(Role::Admin).await;
    let remove = || Call::new(Method::DELETE, "/api/v1/nodes/web-1").bearer(&admin);
    let removed: NodeRemoved = bench.send(remove()).await.json();
    assert_eq!(removed.replicas_left, 0);
    assert_eq!(*bench.backend.cut.lock().unwrap(), [id]);
    assert_eq!(bench.send(remove()).await.code(), "not-found");
    let events = bench.send(Call::get("/api/v1/events").bearer(&admin)).await;
    assert!(events.text().contains("node_removed"), "{}", events.text());
}

#[tokio::test]
async fn lists_are_in_the_order_of_the_numbers_in_their_names() {
    let bench = Bench::new().await;
    let names = ["node-1", "node-2", "node-9", "node-10", "node-11"];
    for name in names.iter().rev() {
        enrolled(&bench, name).await;
    }
    let viewer = bench.token(Role::Viewer).await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/nodes?limit=2{cursor}");
        let page: Page<NodeSummary> = bench.send(Call::get(&path).bearer(&viewer)).await.json();
        seen.extend(page.items.into_iter().map(|node| node.name.to_string()));
        match page.next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, names);
    let fleet: Fleet = bench.send(Call::get("/api/v1/fleet").bearer(&viewer)).await.json();
    let of_fleet: Vec<String> = fleet.nodes.iter().map(|node| node.name.to_string()).collect();
    assert_eq!(of_fleet, names);
    let bad = bench.send(Call::get("/api/v1/nodes?cursor=..%2Fx").bearer(&viewer)).await;
    assert_eq!(bad.code(), "invalid-input");
}

#[tokio::test]
async fn the_log_of_a_node_that_is_away_cannot_be_read() {
    let bench = Bench::new().await;
    enrolled(&bench, "web-1").await;
    let viewer = bench.token(Role::Viewer).await;
    let logs = Call::get("/api/v1/replicas/web-1/myapp/1/logs?follow=true").bearer(&viewer);
    let answer = bench.send(logs).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "node-not-connected".to_owned()));
}
