//! An expression that somebody has evaluated: who may, what is recorded of it, and what ends it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::FutureExt as _;
use proto::evaluations::{Evaluation, LONGEST_EXPRESSION, Outcome, Spoken};
use proto::ids::{Digest, ReleaseKey};
use proto::pb;
use proto::pb::evaluated::Outcome as Said;
use proto::state::{Language, Role};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::fleet::{configured, enrolled};
use super::{Bench, Call};
use crate::clock::Time;
use crate::db::{EventFilter, NewEvent, PageRequest};
use crate::fleet::{Assigned, Place};
use crate::picture::{StreamError, UnderWay};

const PATH: &str = "/api/v1/replicas/web-1/myapp/1/rpc";

/// One replica, of which something can be asked.
async fn with_a_replica() -> Bench {
    let bench = Bench::new().await;
    configured(&bench).await;
    let node = enrolled(&bench, "web-1").await;
    bench.backend.up.lock().unwrap().push(node);
    let told = Assigned {
        release: Some(ReleaseKey { version: "1.0.0".parse().unwrap(), sha256: Digest([1; 32]) }),
        pre_commands_run: None,
        generation: 1,
        since: Time(1),
        begun_at: 0,
        restart: None,
        hot: None,
    };
    let place = Place { node, slot: "1".parse().unwrap() };
    bench.backend.fleets.lock().unwrap()[0].assigned.insert(place, told);
    bench
}

fn becomes(bench: &Bench, evaluation: Result<UnderWay, StreamError>) {
    *bench.backend.evaluation.lock().unwrap() = Some(evaluation);
}

fn value(text: &str) -> UnderWay {
    let value = pb::EvaluatedValue { text: text.to_owned(), cut: false };
    let evaluated = pb::Evaluated {
        outcome: Some(Said::Value(value)),
        language: pb::EvaluationLanguage::Elixir.into(),
        printed: "hello\n".to_owned(),
        printed_bytes: 10,
        took_ms: 7,
    };
    std::future::ready(Ok(evaluated)).boxed()
}

/// Newest first.
async fn events(bench: &Bench) -> Vec<NewEvent> {
    let page = bench.api.db.events(&EventFilter::default(), PageRequest::newest(10)).await.unwrap();
    page.items.into_iter().map(|it| it.event).collect()
}

#[tokio::test]
async fn an_expression_is_recorded_before_it_is_evaluated_and_with_what_came_of_it() {
    let bench = with_a_replica().await;
    let operator = bench.token(Role::Operator).await;
    becomes(&bench, Ok(value("2")));
    let answer = bench.send(Call::post(PATH, &json!({ "expression": "1 +\n 1" })).bearer(&operator)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let evaluation: Evaluation = answer.json();
    assert_eq!(evaluation.outcome, Outcome::Value { value: "2".to_owned(), cut: false });
    assert_eq!((evaluation.language, evaluation.took_ms), (Some(Spoken::Elixir), 7));
    assert_eq!((evaluation.printed.as_str(), evaluation.printed_dropped), ("hello\n", 4));
    let sent = bench.backend.evaluated.lock().unwrap().remove(0);
    assert_eq!((sent.app.as_str(), sent.slot, sent.timeout_ms), ("myapp", 1, 10_000));
    assert_eq!((sent.expression.as_str(), sent.language()), ("1 +\n 1", pb::EvaluationLanguage::Auto));

    let events = events(&bench).await;
    let [finished, requested] = events.as_slice() else { panic!("{events:#?}") };
    assert_eq!(
        (requested.kind.as_str(), finished.kind.as_str()),
        ("evaluation_requested", "evaluation_finished")
    );
    assert!(requested.text.ends_with(" evaluates on slot 1 of myapp on web-1: 1 + 1"), "{}", requested.text);
    assert!(finished.text.contains("gave a value, after "), "{}", finished.text);
    for event in [requested, finished] {
        assert_eq!((event.app.as_ref().unwrap().as_str(), event.slot.unwrap().number()), ("myapp", 1));
        assert_eq!(event.data["expression"], "1 +\n 1");
        assert!(event.data["by"].as_str().unwrap().contains("operator-"));
    }
    assert_eq!(finished.data["outcome"], "value");
    let audit = bench.api.db.audit(PageRequest::newest(1)).await.unwrap().items.remove(0);
    assert_eq!((audit.what.as_str(), audit.object.as_str()), ("replica.rpc", "web-1/myapp/1"));
}

#[tokio::test]
async fn who_may_only_look_evaluates_nothing_and_what_cannot_be_is_said() {
    let bench = with_a_replica().await;
    let (viewer, operator) = (bench.token(Role::Viewer).await, bench.token(Role::Operator).await);
    let refused = bench.send(Call::post(PATH, &json!({ "expression": "1" })).bearer(&viewer)).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "not-allowed".to_owned()));
    assert!(refused.text().contains("this needs the role operator"), "{}", refused.text());
    let long = "x".repeat(LONGEST_EXPRESSION + 1);
    for (path, body, code) in [
        (PATH, json!({ "expression": " " }), "invalid-input"),
        (PATH, json!({ "expression": long }), "invalid-input"),
        (PATH, json!({ "expression": "1", "timeout_ms": 0 }), "invalid-input"),
        (PATH, json!({ "expression": "1", "timeout_ms": 300_001 }), "invalid-input"),
        (PATH, json!({ "expression": "1", "language": "cobol" }), "invalid-input"),
        ("/api/v1/replicas/web-9/myapp/1/rpc", json!({ "expression": "1" }), "not-found"),
        ("/api/v1/replicas/web-1/ghost/1/rpc", json!({ "expression": "1" }), "not-found"),
        ("/api/v1/replicas/web-1/myapp/7/rpc", json!({ "expression": "1" }), "not-found"),
    ] {
        let answer = bench.send(Call::post(path, &body).bearer(&operator)).await;
        assert_eq!(answer.code(), code, "{path}: {}", answer.text());
    }
    bench.backend.up.lock().unwrap().clear();
    let away = bench.send(Call::post(PATH, &json!({ "expression": "1" })).bearer(&operator)).await;
    assert_eq!(away.code(), "node-not-connected");
    assert!(bench.backend.evaluated.lock().unwrap().is_empty());
    assert!(events(&bench).await.is_empty(), "nothing was asked of anybody");
}

#[tokio::test]
async fn what_a_node_refuses_is_told_and_recorded() {
    let bench = with_a_replica().await;
    let operator = bench.token(Role::Operator).await;
    let why = "the agent is not connected to its Erlang node: bad cookie";
    becomes(&bench, Err(StreamError::Refused(why.to_owned())));
    let answer = bench.send(Call::post(PATH, &json!({ "expression": "1" })).bearer(&operator)).await;
    assert_eq!(answer.code(), "conflict");
    assert!(answer.text().contains(&format!("web-1: {why}")), "{}", answer.text());
    let newest = events(&bench).await.remove(0);
    assert_eq!(newest.data["outcome"], "refused");
    assert!(newest.text.contains(&format!("was not evaluated: {why}")), "{}", newest.text);
    becomes(&bench, Err(StreamError::Refused("much of a\n\u{1b}[2J".repeat(1_000))));
    bench.send(Call::post(PATH, &json!({ "expression": "1" })).bearer(&operator)).await;
    let text = events(&bench).await.remove(0).text;
    assert!(text.len() < 500 && !text.contains(char::is_control), "{text:?}");
    // An agent that went before it answered.
    becomes(&bench, Ok(std::future::ready(Err("the connection to the node broke".to_owned())).boxed()));
    let answer = bench.send(Call::post(PATH, &json!({ "expression": "1" })).bearer(&operator)).await;
    let outcome = answer.json::<Evaluation>().outcome;
    assert_eq!(outcome, Outcome::Unknown { because: "the connection to the node broke".to_owned() });
}

#[tokio::test]
async fn a_replica_in_gleam_is_spoken_to_in_erlang() {
    let bench = with_a_replica().await;
    bench.backend.fleets.lock().unwrap()[0].spec.as_mut().unwrap().language = Language::Gleam;
    let operator = bench.token(Role::Operator).await;
    for (body, spoken) in [
        (json!({ "expression": "1" }), pb::EvaluationLanguage::Erlang),
        (json!({ "expression": "1", "language": "elixir" }), pb::EvaluationLanguage::Elixir),
    ] {
        becomes(&bench, Ok(value("1")));
        bench.send(Call::post(PATH, &body).bearer(&operator)).await;
        assert_eq!(bench.backend.evaluated.lock().unwrap().remove(0).language(), spoken);
    }
}

#[tokio::test]
async fn when_whoever_asked_goes_it_is_given_up_and_that_is_recorded() {
    let bench = with_a_replica().await;
    let operator = bench.token(Role::Operator).await;
    let (dropped, begun) = (CancellationToken::new(), CancellationToken::new());
    let (held, begins) = (dropped.clone().drop_guard(), begun.clone());
    let endless: UnderWay = async move {
        let _held = held;
        begins.cancel();
        std::future::pending().await
    }
    .boxed();
    becomes(&bench, Ok(endless));
    let body: Value = json!({ "expression": "receive after infinity -> ok end", "timeout_ms": 300_000 });
    let call = bench.send(Call::post(PATH, &body).bearer(&operator));
    tokio::select! {
        biased; // whoever asked goes once it is under way
        () = begun.cancelled() => {}
        answer = call => panic!("{answer:?}"),
    }
    tokio::time::timeout(Duration::from_secs(10), dropped.cancelled()).await.unwrap();
    bench.api.tasks.close();
    tokio::time::timeout(Duration::from_secs(10), bench.api.tasks.wait()).await.unwrap();
    let newest = events(&bench).await.remove(0);
    assert_eq!(newest.data["outcome"], "unknown");
    assert!(newest.text.contains("whoever asked has gone"), "{}", newest.text);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_an_empty_one() {
    let bench = with_a_replica().await;
    let operator = bench.token(Role::Operator).await;
    let broken: UnderWay = async { panic!("as by a fault in the program") }.boxed();
    becomes(&bench, Ok(broken));
    let answer = bench.respond(Call::post(PATH, &json!({ "expression": "1" })).bearer(&operator)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(axum::body::to_bytes(answer.into_body(), 1 << 10).await.is_err());
}

#[tokio::test]
async fn whenever_whoever_asked_goes_no_request_stays_without_its_end() {
    let bench = with_a_replica().await;
    let operator = bench.token(Role::Operator).await;
    let body = json!({ "expression": "1" });
    // Whether it was answered before it was left, at the step after so many.
    let asked_for = async |mut steps: usize| {
        becomes(&bench, Ok(value("1")));
        let mut call = pin!(bench.send(Call::post(PATH, &body).bearer(&operator)));
        poll_fn(|context| match steps.checked_sub(1) {
            None => Poll::Ready(false),
            Some(left) => {
                steps = left;
                call.as_mut().poll(context).map(|_| true)
            }
        })
        .await
    };
    let mut steps = 0;
    while !asked_for(steps).await {
        steps += 1;
        assert!(steps < 50, "it is never answered");
    }
    bench.api.tasks.close();
    tokio::time::timeout(Duration::from_secs(10), bench.api.tasks.wait()).await.unwrap();
    let page = bench.api.db.events(&EventFilter::default(), PageRequest::newest(200)).await.unwrap();
    let of = |kind: &str| page.items.iter().filter(|it| it.event.kind == kind).count();
    assert!(of("evaluation_requested") > 0);
    assert_eq!(of("evaluation_requested"), of("evaluation_finished"), "left at each of {steps} steps");
}
