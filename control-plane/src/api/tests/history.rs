//! The last hour of a host as the API and the console's link tell it.

use axum::http::StatusCode;
use proto::ids::NodeId;
use proto::metrics::{HostHistory, HostPoint};
use proto::nodes::{HostLimit, Node, NodeSummary};
use proto::page::Page;
use proto::state::{HostLevel, Role};
use proto::timestamp::Timestamp;

use super::fleet::enrolled;
use super::{Bench, Call};
use crate::clock::Time;

/// Heard at that moment by our own clock, and dated the same.
pub(super) fn heard(bench: &Bench, node: NodeId, at: u64) {
    let point = HostPoint { at: Timestamp(at), cpu: 12.5, ..HostPoint::default() };
    bench.backend.history.lock().unwrap().push((node, Time(at), point));
}

#[tokio::test]
async fn a_hosts_hour_is_told_whole_or_from_a_moment_on() {
    let bench = Bench::new().await;
    let viewer = bench.token(Role::Viewer).await;
    let (one, two) = (enrolled(&bench, "web-1").await, enrolled(&bench, "web-2").await);
    for at in [5_000, 10_000, 15_000] {
        heard(&bench, one, at);
    }
    heard(&bench, two, 7_000);
    let ask = async |query: &str| -> HostHistory {
        bench.send(Call::get(&format!("/api/v1/metrics-history?{query}")).bearer(&viewer)).await.json()
    };
    let at = |it: &HostHistory| it.points.iter().map(|it| it.at.0).collect::<Vec<_>>();
    let whole = ask("node=web-1").await;
    assert_eq!((at(&whole), whole.since, whole.every_ms), (vec![5_000, 10_000, 15_000], None, 5_000));
    // The same moment may be dated by a millisecond more or less the next time.
    let since = ask("node=web-1&since=1970-01-01T00:00:09.999Z").await;
    assert_eq!((at(&since), since.since), (vec![15_000], Some(Timestamp(9_999))));
    let unknown = bench.send(Call::get("/api/v1/metrics-history?node=web-3").bearer(&viewer)).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let nobody = bench.send(Call::get("/api/v1/metrics-history?node=web-1")).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_limit_that_is_passed_is_a_warning_of_its_node() {
    let bench = Bench::new().await;
    let viewer = bench.token(Role::Viewer).await;
    enrolled(&bench, "web-1").await;
    let limit = |kind: &str, level| HostLimit {
        kind: kind.to_owned(),
        percent: 91.0,
        warning_percent: 90,
        restart_percent: None,
        level,
        since: Timestamp(0),
        sentence: None,
    };
    let limits = vec![limit("memory", HostLevel::Normal), limit("disk", HostLevel::Warning)];
    limits.clone_into(&mut bench.backend.limits.lock().unwrap());
    let node: Node = bench.send(Call::get("/api/v1/nodes/web-1").bearer(&viewer)).await.json();
    assert_eq!((node.limits.as_slice(), node.summary.warnings.as_slice()), (&limits[..], &limits[1..]));
    let nodes: Page<NodeSummary> = bench.send(Call::get("/api/v1/nodes").bearer(&viewer)).await.json();
    assert_eq!(nodes.items[0].warnings, limits[1..]);
    let metrics = bench.send(Call::get("/metrics").bearer(&viewer)).await.text();
    assert!(metrics.contains(r#"deployex_node_limit_passed{node="web-1",type="disk"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"deployex_node_limit_passed{node="web-1",type="memory"} 0"#), "{metrics}");
}
