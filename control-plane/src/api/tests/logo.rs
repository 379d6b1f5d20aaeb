//! The picture of an application: from a replica that has one, with what keeps a browser from running it.

use axum::http::StatusCode;
use proto::state::Role;

use super::{Bench, Call, rollouts};
use crate::fleet::{ObservedVm, Place};
use crate::picture::StreamError;

const PATH: &str = "/api/v1/applications/myapp/logo";

#[tokio::test]
async fn a_logo_comes_from_a_replica_that_has_one_and_runs_nothing() {
    let bench = Bench::new().await;
    let viewer = bench.token(Role::Viewer).await;
    let [_, second, third] = rollouts::moving(&bench).await;
    let none = bench.send(Call::get(PATH).bearer(&viewer)).await;
    assert_eq!((none.status, none.code()), (StatusCode::NOT_FOUND, "not-found".to_owned()));
    for node in [second, third] {
        let mut fleets = bench.backend.fleets.lock().unwrap();
        let place = Place { node, slot: "1".parse().unwrap() };
        let seen = fleets[0].observed.get_mut(&place).unwrap();
        seen.vm = Some(ObservedVm { logo: true, ..ObservedVm::default() });
    }
    // The first does not give it, the next one does.
    *bench.backend.logo.lock().unwrap() = Some(Err(StreamError::NotConnected));
    let logo = bench.send(Call::get(PATH).bearer(&viewer)).await;
    assert_eq!((logo.status, logo.text().as_str()), (StatusCode::OK, "<svg id=\"myapp/1\"/>"));
    let header = |name: &str| logo.headers[name].to_str().unwrap().to_owned();
    assert_eq!(
        (header("content-type").as_str(), header("cache-control").as_str()),
        ("image/svg+xml", "private, max-age=3600")
    );
    let policy = header("content-security-policy");
    assert!(policy.contains("sandbox") && !policy.contains("script-src"), "{policy}");
    assert_eq!(header("x-content-type-options"), "nosniff");

    bench.backend.up.lock().unwrap().clear();
    assert_eq!(bench.send(Call::get(PATH).bearer(&viewer)).await.status, StatusCode::NOT_FOUND);
    let nobody = bench.send(Call::get(PATH)).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
}
