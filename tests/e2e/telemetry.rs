//! Events of an application are counted where it asks for it: read through the API, the command line and `/metrics`, taken up
//! again by the next agent, and gone without a trace once it does not ask any more. Nothing is restarted for any of it.
//!
//! The samples have no `telemetry` in them: what stands in for it in the agent's own tests is loaded into a replica that runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use proto::configuration::{Applied, Class};
use proto::telemetry::{ReplicaTelemetry, TelemetryRow};
use tests::ports;
use tests::programs::{Agent, CommandLine, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, within};
use xtask::fixtures::Sample;

const PATIENCE: Duration = Duration::from_mins(2);
const APP: Sample = Sample::Erlang;
const WISH: &str = "    telemetry: { events: [phoenix, ecto, vm, shop.nothing.at_all] }\n";

fn application() -> String {
    format!(
        "  - name: {}\n    language: {}\n    replicas: 1\n    replica_ports: [{{ key: PORT, base: {} }}]\n    \
         deploy_schedule_interval_ms: 200\n    deploy: {{ stable_after_ms: 500, drain_ms: 0 }}\n",
        APP.name(),
        APP.language(),
        ports::free(2)
    )
}

/// Compiled where every account may read it.
fn stand_in() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node-agent/tests/dist/telemetry");
    let compiled = Command::new("erlc")
        .arg("-o")
        .arg(folder.path())
        .args(["telemetry.erl", "emits.erl"].map(|it| sources.join(it)))
        .status()
        .unwrap();
    assert!(compiled.success());
    folder
}

fn does(cli: &CommandLine, expression: &str) -> String {
    let said = cli.run(&["rpc", APP.name(), expression, "--erlang"]);
    assert_eq!(said.status, 0, "{expression}: {}{}", said.out, said.err);
    said.out.trim().to_owned()
}

async fn counted(
    cli: &CommandLine,
    what: &str,
    is_so: impl Fn(&ReplicaTelemetry) -> bool,
) -> ReplicaTelemetry {
    within(PATIENCE, what, || async {
        match cli.ask::<Vec<ReplicaTelemetry>>(&["app", "telemetry", APP.name()]) {
            Ok(replicas) => match replicas.first() {
                Some(replica) if is_so(replica) => Seen::Done(replica.clone()),
                _ => Seen::NotYet(format!("{replicas:#?}")),
            },
            Err(error) => Seen::NotYet(error),
        }
    })
    .await
}

fn requests(of: &ReplicaTelemetry) -> Option<&TelemetryRow> {
    of.rows.iter().find(|it| it.route.as_deref() == Some("/users/:id"))
}

fn apply(control_plane: &ControlPlane, bucket: &Bucket, applications: &str) {
    let wanted = control_plane.folder().join("wanted.yaml");
    fs::write(&wanted, control_plane.configuration(bucket, applications)).unwrap();
    let applied: Applied = control_plane.ask(&["apply", "--yes", "-f", wanted.to_str().unwrap()]).unwrap();
    let changes = &applied.difference.applications[0].changes;
    let said: Vec<_> = changes.iter().map(|it| (it.key.as_str(), it.class)).collect();
    assert_eq!(said, [("telemetry.events", Class::Immediate)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_counted_where_they_are_asked_for_and_all_of_it_goes_where_they_are_not() {
    let bucket = Bucket::new();
    bucket.publish(APP, "0.1.0").await;
    let off = application();
    let on = format!("{off}{WISH}");
    let control_plane = ControlPlane::start(&bucket, &off).await;
    let mut agent = Agent::join(&control_plane, "web-1").await;
    let cli = control_plane.command_line();
    let settled = control_plane.settles_on(APP.name(), "0.1.0").await;
    let pid = settled.slots[0].pid;
    let said = cli.run(&["app", "telemetry", APP.name()]);
    assert!(said.out.contains("telemetry.events"), "it is off: {}", said.out);

    apply(&control_plane, &bucket, &on);
    let without = counted(&cli, "why it is not counted", |it| it.fault.is_some()).await;
    assert_eq!(without.fault.as_deref(), Some("telemetry is not in this release"));
    assert_eq!(does(&cli, "erlang:module_loaded(deployex_telemetry)"), "false");

    let folder = stand_in();
    for module in ["telemetry", "emits"] {
        let load = format!("code:load_abs(\"{}\")", folder.path().join(module).display());
        assert_eq!(does(&cli, &load), format!("{{module,{module}}}"));
    }
    does(&cli, "application:set_env(kernel, ecto_repos, ['Elixir.Shop.Repo']), telemetry:start()");
    let attached = counted(&cli, "that it is counted", |it| it.since.is_some()).await;
    assert_eq!(attached.unknown, ["shop.nothing.at_all"]);
    does(&cli, "emits:requests(30, 3000), emits:queries(5, 2000), emits:poll()");
    let is_counted = |it: &ReplicaTelemetry| requests(it).is_some_and(|it| it.count == 30);
    let first = counted(&cli, "thirty requests", is_counted).await;
    let row = requests(&first).unwrap();
    let took = row.took.as_ref().unwrap();
    assert_eq!((row.status.as_deref(), took.sum_us, took.count()), (Some("2xx"), 90_000, 30));
    assert!(
        first.values.iter().any(|it| it.measurement == "total" && (it.value - 1_000.0).abs() < 0.1),
        "{first:#?}"
    );
    let table = cli.run(&["app", "telemetry", APP.name()]).out;
    assert!(
        table.contains("/users/:id 2xx") && table.contains("orders") && table.contains("3.0 ms"),
        "{table}"
    );

    let metrics = tests::http::get(&control_plane.url("/metrics")).await.unwrap();
    let of = format!("application=\"{}\",node=\"web-1\",slot=\"1\",event=", APP.name());
    let requests_of = format!("{of}\"phoenix.router_dispatch.stop\",route=\"/users/:id\",status=\"2xx\"");
    for line in [
        format!("deployex_telemetry_events_total{{{requests_of}}} 30"),
        format!("deployex_telemetry_duration_seconds_bucket{{{requests_of},le=\"0.005\"}} 30"),
        format!("deployex_telemetry_duration_seconds_sum{{{requests_of}}} 0.09"),
        format!("deployex_telemetry_events_total{{{of}\"shop.repo.query\",source=\"orders\"}} 5"),
        format!("deployex_telemetry_value{{{of}\"vm.memory\",measurement=\"total\"}} 1000"),
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line}\n{metrics}");
    }

    // The next agent takes up what is counted, and goes on.
    agent.kill();
    agent.resume();
    control_plane
        .application_when("that its node is met again", APP.name(), |it| {
            it.slots[0].erlang.as_ref().is_some_and(|it| it.connected_since.is_some())
        })
        .await;
    within(PATIENCE, "an expression", || async {
        let said = cli.run(&["rpc", APP.name(), "emits:requests(1, 3000)", "--erlang"]);
        if said.status == 0 { Seen::Done(()) } else { Seen::NotYet(said.err) }
    })
    .await;
    counted(&cli, "one more", |it| requests(it).is_some_and(|it| it.count == 31)).await;

    apply(&control_plane, &bucket, &off);
    within(PATIENCE, "the end of it", || async {
        let left = "{erlang:module_loaded(deployex_telemetry), whereis(deployex_telemetry), \
                    ets:whereis(deployex_telemetry), telemetry:list_handlers([])}";
        match does(&cli, left).as_str() {
            "{false,undefined,undefined,[]}" => Seen::Done(()),
            other => Seen::NotYet(other.to_owned()),
        }
    })
    .await;
    let metrics = tests::http::get(&control_plane.url("/metrics")).await.unwrap();
    assert!(!metrics.contains("deployex_telemetry_"), "{metrics}");
    assert_eq!(
        control_plane.application(APP.name()).unwrap().slots[0].pid,
        pid,
        "nothing was restarted for it"
    );
}
