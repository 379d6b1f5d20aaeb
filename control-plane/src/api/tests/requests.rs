//! What holds for every request: problem bodies, headers, bounds, pages.

use axum::http::{Method, StatusCode};
use proto::events::Event;
use proto::page::Page;
use proto::state::{Role, Severity};

use super::fleet::{configured, enrolled};
use super::{Bench, Call};
use crate::db::NewEvent;

#[tokio::test]
async fn every_refusal_is_a_problem() {
    let bench = Bench::new().await;
    let admin = bench.token(Role::Admin).await;
    let broken = || Call::post("/api/v1/tokens", &serde_json::json!("{")).bearer(&admin);
    for (call, code) in [
        (Call::get("/api/v1/nothing"), "not-found"),
        (Call::get("/api/"), "not-found"),
        (Call::new(Method::PUT, "/api/v1/fleet"), "method-not-allowed"),
        (Call::get("/api/v1/applications/..%2Fx").bearer(&admin), "not-found"),
        (Call::get("/api/v1/applications/ghost").bearer(&admin), "not-found"),
        (Call::get("/api/v1/applications?limit=0").bearer(&admin), "invalid-input"),
        (Call::get("/api/v1/applications?limitt=1").bearer(&admin), "invalid-input"),
        (Call::get("/api/v1/events?cursor=x").bearer(&admin), "invalid-input"),
        (Call::get("/api/v1/fleet").bearer("dpx_unknown"), "not-signed-in"),
        (Call::get("/api/v1/fleet").bearer("other"), "not-signed-in"),
        (broken(), "invalid-input"),
        (broken().header("content-type", "text/plain"), "unsupported-media-type"),
    ] {
        let what = format!("{call:?}");
        let answer = bench.send(call).await;
        assert_eq!(answer.code(), code, "{what}: {answer:?}");
    }
}

#[tokio::test]
async fn lists_are_cut_to_an_application_by_the_same_word_as_paths() {
    let bench = Bench::new().await;
    let viewer = bench.token(Role::Viewer).await;
    for (list, status) in
        [("replicas", StatusCode::NOT_FOUND), ("events", StatusCode::OK), ("rollouts", StatusCode::OK)]
    {
        let answer = bench.send(Call::get(&format!("/api/v1/{list}?app=ghost")).bearer(&viewer)).await;
        assert_eq!(answer.status, status, "{list}: {answer:?}");
    }
}

#[tokio::test]
async fn wrong_input_names_the_key() {
    let bench = Bench::new().await;
    let admin = bench.token(Role::Admin).await;
    let post = |body| Call::post("/api/v1/tokens", &body).bearer(&admin);
    let answer = bench.send(post(serde_json::json!({ "name": "x", "role": "king" }))).await;
    let problem: proto::problem::Problem = answer.json();
    assert_eq!(problem.errors[0].path, "role");
    assert!(problem.errors[0].message.contains("viewer"), "{problem:?}");
    let answer = bench.send(post(serde_json::json!({ "name": "", "role": "viewer" }))).await;
    assert_eq!(answer.json::<proto::problem::Problem>().errors[0].path, "name");
}

#[tokio::test]
async fn a_body_has_a_bound() {
    let bench = Bench::new().await;
    let admin = bench.token(Role::Admin).await;
    let body = serde_json::json!({ "name": "x".repeat(300 << 10), "role": "viewer" });
    let answer = bench.send(Call::post("/api/v1/tokens", &body).bearer(&admin)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, "too-large".to_owned()));
}

#[tokio::test]
async fn browsers_are_told_what_they_may_do() {
    let bench = Bench::new().await;
    for path in ["/", "/health", "/api/v1/openapi.json", "/api/v1/nothing"] {
        let answer = bench.send(Call::get(path)).await;
        let csp = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(csp.contains("script-src 'self' 'wasm-unsafe-eval';"), "{csp}");
        assert!(csp.contains("frame-ancestors 'none'"), "{csp}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        assert!(answer.headers.contains_key("x-request-id"));
    }
    let answer = bench.send(Call::get("/api/v1/openapi.json")).await;
    assert_eq!(answer.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn figures_are_for_this_machine_or_a_token() {
    let bench = Bench::new().await;
    let viewer = bench.token(Role::Viewer).await;
    assert_eq!(bench.send(Call::get("/metrics")).await.code(), "not-signed-in");
    assert_eq!(bench.send(Call::get("/metrics").bearer(&viewer)).await.status, StatusCode::OK);
    let answer = bench.send(Call::get("/metrics").from("127.0.0.1")).await;
    assert!(answer.text().contains("deployex_nodes{liveness=\"lost\"} 0"), "{}", answer.text());
    assert!(answer.text().contains("route=\"/metrics\""), "{}", answer.text());
    let proxied = Call::get("/metrics").from("127.0.0.1").header("x-forwarded-for", "127.0.0.1");
    assert_eq!(bench.send(proxied).await.code(), "not-signed-in");
}

#[tokio::test]
async fn events_come_newest_first_and_page_by_page() {
    let bench = Bench::new().await;
    let viewer = bench.token(Role::Viewer).await;
    let events: Vec<NewEvent> = (0..7)
        .map(|n| NewEvent::new(bench.api.clock.now(), "test", Severity::Info, format!("event {n}")))
        .collect();
    bench.api.db.record_events(&events).await.unwrap();
    let (mut texts, mut path) = (Vec::new(), "/api/v1/events?limit=3".to_owned());
    loop {
        let page: Page<Event> = bench.send(Call::get(&path).bearer(&viewer)).await.json();
        assert!(page.items.len() <= 3);
        texts.extend(page.items.into_iter().map(|event| event.text));
        match page.next {
            Some(next) => path = format!("/api/v1/events?limit=3&cursor={next}"),
            None => break,
        }
    }
    let expected: Vec<String> = (0..7).rev().map(|n| format!("event {n}")).collect();
    assert_eq!(texts, expected);
}

#[tokio::test]
async fn the_figures_tell_how_the_fleet_is() {
    let bench = Bench::new().await;
    configured(&bench).await;
    enrolled(&bench, "web-1").await;
    let text = bench.send(Call::get("/metrics").from("127.0.0.1")).await.text();
    let version = env!("CARGO_PKG_VERSION");
    for line in [
        &*format!("deployex_build_info{{version=\"{version}\"}} 1"),
        "deployex_applications{tone=\"off\"} 1",
        "deployex_applications{tone=\"bad\"} 0",
        "deployex_applications_needing_attention 0",
        "deployex_nodes{liveness=\"lost\"} 1",
        "deployex_nodes{liveness=\"up\"} 0",
        "deployex_replicas{application=\"myapp\",state=\"stable\"} 0",
        "deployex_replicas_wanted{application=\"myapp\"} 0",
        "deployex_rollouts{phase=\"running\"} 0",
        "deployex_rollouts{phase=\"watching\"} 0",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
    let names = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
        lines.map(name).collect::<std::collections::BTreeSet<_>>()
    };
    let again = bench.send(Call::get("/metrics").from("127.0.0.1")).await.text();
    for name in ["deployex_http_requests_total", "deployex_http_request_seconds_count"] {
        assert!(names(&again).contains(name), "{name}");
    }
    for name in names(&again) {
        let base =
            ["_count", "_sum", "_bucket"].iter().fold(name.as_str(), |it, end| it.trim_end_matches(end));
        assert!(again.contains(&format!("# HELP {base} ")), "{base} is not explained");
    }
    // One that is no longer there is no longer counted.
    bench.backend.fleets.lock().unwrap().clear();
    let gone = bench.send(Call::get("/metrics").from("127.0.0.1")).await.text();
    assert!(!gone.contains("application=\"myapp\""), "{gone}");
}

#[tokio::test]
async fn it_is_well_while_its_database_answers_and_until_it_stops() {
    let bench = Bench::new().await;
    let health = || bench.send(Call::get("/health"));
    let well: serde_json::Value = health().await.json();
    assert_eq!(well, serde_json::json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }));
    bench.api.db.close().await.unwrap();
    let deaf = health().await;
    assert_eq!((deaf.status.as_u16(), deaf.code()), (503, "not-ready".to_owned()));
    bench.api.cancel.cancel();
    let stopping = health().await;
    assert!(stopping.text().contains("stopping"), "{}", stopping.text());
}
