//! The last hour of a host as the API and the console's link tell it.

use axum::http::StatusCode;
use proto::ids::NodeId;
use proto::metrics::{HostHistory, HostPoint, VmBound, VmBounds, VmHistory, VmPoint};
use proto::nodes::{HostLimit, Node, NodeSummary};
use proto::page::Page;
use proto::replicas::{Replica, VmLimits};
use proto::state::{HostLevel, Role};
use proto::timestamp::Timestamp;

use super::fleet::enrolled;
use super::{Bench, Call, rollouts};
use crate::clock::Time;
use crate::fleet::{ObservedNode, ObservedVm, Place};
use crate::spec::Millis;
use crate::spec::monitoring::Threshold;

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
    assert_eq!(node.vm_samples_dropped, 7);
    assert!(metrics.contains(r#"deployex_node_vm_samples_dropped_total{node="web-1"} 7"#), "{metrics}");
}

/// A replica on web-1, of whose VM a figure was heard at each of these moments.
async fn sampled(bench: &Bench, moments: &[u64]) {
    let [node, ..] = rollouts::moving(bench).await;
    let place = Place { node, slot: "1".parse().unwrap() };
    let vm = ObservedVm {
        otp: "25".to_owned(),
        elixir: "1.14.0".to_owned(),
        limits: Some(VmLimits { processes: 262_144, atoms: 1_048_576, ..VmLimits::default() }),
        ..ObservedVm::default()
    };
    let erlang = ObservedNode {
        name: "myapp-1@web-1".to_owned(),
        connected_since: Some(Time(1)),
        kind: String::new(),
        because: String::new(),
        tls: String::new(),
        mesh: None,
    };
    let mut fleets = bench.backend.fleets.lock().unwrap();
    let threshold = Threshold { warning: 75, restart: Some(90), cooldown: Millis(1) };
    let spec = fleets[0].spec.as_mut().unwrap();
    spec.monitoring.process = Some(threshold);
    // Compared with what is configured, whatever its host can hold it to.
    (spec.monitoring.memory, spec.limits.memory_max) = (Some(threshold), Some(1 << 30));
    let seen = fleets[0].observed.get_mut(&place).unwrap();
    (seen.vm, seen.erlang) = (Some(vm), Some(erlang));
    for at in moments {
        let point =
            VmPoint { at: Timestamp(*at), atoms: 9_600, schedulers: Some(12.5), ..VmPoint::default() };
        bench.backend.vms.lock().unwrap().push((fleets[0].app.clone(), place, Time(*at), point));
    }
}

#[tokio::test]
async fn the_hour_of_a_replicas_vm_is_told_whole_or_from_a_moment_on() {
    let bench = Bench::new().await;
    let viewer = bench.token(Role::Viewer).await;
    sampled(&bench, &[2_000, 4_000, 6_000]).await;
    let call = |rest: &str| Call::get(&format!("/api/v1/replicas/{rest}")).bearer(&viewer);
    let at = |it: &VmHistory| it.points.iter().map(|it| it.at.0).collect::<Vec<_>>();
    let whole: VmHistory = bench.send(call("web-1/myapp/1/metrics")).await.json();
    assert_eq!((at(&whole), whole.since, whole.every_ms), (vec![2_000, 4_000, 6_000], None, 2_000));
    let since: VmHistory =
        bench.send(call("web-1/myapp/1/metrics?since=1970-01-01T00:00:03.999Z")).await.json();
    assert_eq!((at(&since), since.since), (vec![6_000], Some(Timestamp(3_999))));
    // What may be drawn as a line across; a limit that is not known is not one of 0.
    let bound = |limit| VmBound { limit, warning_percent: None, restart_percent: None };
    let bounds = VmBounds {
        processes: Some(VmBound { warning_percent: Some(75), restart_percent: Some(90), ..bound(262_144) }),
        atoms: Some(bound(1_048_576)),
        memory: Some(VmBound { warning_percent: Some(75), restart_percent: Some(90), ..bound(1 << 30) }),
        ..VmBounds::default()
    };
    assert_eq!((whole.bounds, since.bounds), (bounds, bounds));
    // The clock was put back: what lies ahead is told from the beginning.
    let ahead: VmHistory = bench.send(call("web-1/myapp/1/metrics?since=1970-01-01T00:10:00Z")).await.json();
    assert_eq!((at(&ahead), ahead.since), (vec![2_000, 4_000, 6_000], None));
    // Nothing was heard of this one yet, and this one there is not.
    let none: VmHistory = bench.send(call("web-2/myapp/1/metrics")).await.json();
    assert_eq!(none.points, []);
    assert_eq!(bench.send(call("web-1/myapp/9/metrics")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.send(call("web-1/other/1/metrics")).await.status, StatusCode::NOT_FOUND);
    let nobody = bench.send(Call::get("/api/v1/replicas/web-1/myapp/1/metrics")).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);

    // How it is now is told of one that is asked for alone.
    let one: Replica = bench.send(call("web-1/myapp/1")).await.json();
    assert_eq!(one.vm.as_ref().unwrap().runs_on().as_deref(), Some("OTP 25, Elixir 1.14.0"));
    assert_eq!(one.vm.unwrap().now.unwrap().atoms, 9_600);
    let all: Page<Replica> = bench.send(Call::get("/api/v1/replicas").bearer(&viewer)).await.json();
    assert!(all.items.iter().any(|it| it.vm.is_some()));
    assert!(all.items.iter().all(|it| it.vm.as_ref().is_none_or(|it| it.now.is_none())));
}

#[tokio::test]
async fn the_figures_of_a_vm_carry_its_application_node_and_slot() {
    let bench = Bench::new().await;
    let viewer = bench.token(Role::Viewer).await;
    sampled(&bench, &[2_000]).await;
    let metrics = bench.send(Call::get("/metrics").bearer(&viewer)).await.text();
    let of = r#"application="myapp",node="web-1",slot="1""#;
    for line in [
        format!("deployex_vm_atoms{{{of}}} 9600"),
        format!(r#"deployex_vm_limit{{{of},kind="atoms"}} 1048576"#),
        format!(r#"deployex_vm_info{{{of},otp="25",elixir="1.14.0"}} 1"#),
        format!("deployex_vm_connected{{{of}}} 1"),
        format!("deployex_vm_scheduler_percent{{{of}}} 12.5"),
        format!(r#"deployex_vm_memory_bytes{{{of},kind="total"}} 0"#),
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line}\n{metrics}");
    }
    assert!(!metrics.contains(r#"deployex_vm_atoms{application="myapp",node="web-2""#), "{metrics}");
    // Nothing is shown without being explained.
    let shown = metrics
        .lines()
        .filter_map(|it| it.split(['{', ' ']).next().filter(|it| it.starts_with("deployex_vm")));
    for name in shown {
        assert!(metrics.contains(&format!("# HELP {name} ")), "{name}");
    }
}
