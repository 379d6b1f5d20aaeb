//! What a person changes of a node.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use proto::ids::Digest;
use proto::nodes::{JoinToken, Node};
use proto::state::{Role, Service};
use serde_json::{Value, json};

use super::fleet::{configured, enrolled};
use super::{Bench, Call};
use crate::clock::Time;
use crate::fleet::{self, Assigned, Place};

fn patch(path: &str, body: &Value) -> Call {
    let mut call = Call::new(Method::PATCH, path).header("content-type", "application/json");
    call.body = Body::from(body.to_string());
    call
}

#[tokio::test]
async fn a_node_is_cordoned_drained_and_put_back_and_each_is_told_once() {
    let bench = Bench::new().await;
    let [viewer, operator] = [bench.token(Role::Viewer).await, bench.token(Role::Operator).await];
    enrolled(&bench, "web-1").await;
    let post = |what: &str, token: &str| {
        bench.send(Call::post(&format!("/api/v1/nodes/web-1/{what}"), &Value::Null).bearer(token))
    };
    for (what, service, said) in [
        ("cordon", Service::Cordoned, " cordoned the node web-1"),
        ("drain", Service::Draining, " began to drain the node web-1"),
        ("uncordon", Service::Open, " uncordoned the node web-1"),
    ] {
        assert_eq!(post(what, &viewer).await.code(), "not-allowed");
        let changed = post(what, &operator).await;
        assert_eq!(changed.status, StatusCode::OK, "{}", changed.text());
        assert_eq!(changed.json::<Node>().summary.service, service);
        assert!(bench.newest_event().await.ends_with(said), "{}", bench.newest_event().await);
        let again = post(what, &operator).await;
        assert_eq!((again.status, again.code()), (StatusCode::CONFLICT, "conflict".to_owned()));
    }
    let unknown = Call::post("/api/v1/nodes/web-9/drain", &Value::Null).bearer(&operator);
    assert_eq!(bench.send(unknown).await.code(), "not-found");
}

#[tokio::test]
async fn a_node_gets_the_labels_that_are_named_and_keeps_no_other() {
    let bench = Bench::new().await;
    let operator = bench.token(Role::Operator).await;
    enrolled(&bench, "web-1").await;
    let label = |labels: Value| {
        bench.send(patch("/api/v1/nodes/web-1", &json!({ "labels": labels })).bearer(&operator))
    };
    let node: Node = label(json!({ "role": "web", "zone": "a" })).await.json();
    assert_eq!(node.summary.labels.len(), 2);
    let node: Node = label(json!({ "role": "db" })).await.json();
    assert_eq!(node.summary.labels, BTreeMap::from([("role".to_owned(), "db".to_owned())]));
    let said = bench.newest_event().await;
    assert!(said.ends_with(" changed the labels of web-1: role=db, without zone"), "{said}");
    // Nothing new is nothing to be told.
    assert_eq!(label(json!({ "role": "db" })).await.status, StatusCode::OK);
    assert_eq!(bench.newest_event().await, said);
    let refused = label(json!({ "role": "two words" })).await;
    assert_eq!(refused.code(), "invalid-input");
    let problem: proto::problem::Problem = refused.json();
    assert_eq!(problem.errors[0].path, "labels");
    assert!(problem.detail.contains("1 to 63"), "{problem:?}");
}

#[tokio::test]
async fn a_join_token_carries_labels() {
    let bench = Bench::new().await;
    let admin = bench.token(Role::Admin).await;
    let make = |labels: Value| {
        bench.send(Call::post("/api/v1/join-tokens", &json!({ "labels": labels })).bearer(&admin))
    };
    let token: JoinToken = make(json!({ "role": "web" })).await.json();
    assert_eq!(token.labels, BTreeMap::from([("role".to_owned(), "web".to_owned())]));
    assert_eq!(make(json!({ "": "web" })).await.code(), "invalid-input");
}

#[tokio::test]
async fn a_node_says_what_a_drain_would_do_and_why_it_is_not_empty() {
    let bench = Bench::new().await;
    configured(&bench).await;
    let operator = bench.token(Role::Operator).await;
    let [here, there] = [enrolled(&bench, "web-1").await, enrolled(&bench, "web-2").await];
    {
        let mut fleets = bench.backend.fleets.lock().unwrap();
        for (id, name) in [(here, "web-1"), (there, "web-2")] {
            let node = fleet::Node {
                name: name.parse().unwrap(),
                liveness: proto::state::Liveness::Up,
                eligible: true,
                labels: BTreeMap::new(),
                service: Service::Open,
                stored: 0,
            };
            fleets[0].nodes.insert(id, node);
        }
        let release = proto::ids::ReleaseKey { version: "1.0.0".parse().unwrap(), sha256: Digest([1; 32]) };
        let told = Assigned {
            release: Some(release),
            pre_commands_run: None,
            generation: 1,
            since: Time(1),
            begun_at: 0,
            restart: None,
            hot: None,
        };
        fleets[0].assigned.insert(Place { node: here, slot: "1".parse().unwrap() }, told);
    }
    let path = "/api/v1/nodes/web-1";
    let node: Node = bench.send(Call::get(path).bearer(&operator)).await.json();
    assert_eq!(node.waiting, [""; 0], "nobody drains it");
    assert_eq!((node.holds[0].replicas, node.holds[0].moves), (1, false));
    bench.backend.fleets.lock().unwrap()[0].spec.as_mut().unwrap().spread = std::num::NonZeroU16::new(2);
    let drain = Call::post(&format!("{path}/drain"), &Value::Null).bearer(&operator);
    let node: Node = bench.send(drain).await.json();
    assert!(node.holds[0].moves, "web-2 may take it");
    assert_eq!(node.waiting, ["myapp: 1 replica is still there"]);
}
