//! Replicas of one application are kept connected to each other as Erlang nodes, on one host or on all, and never those of two
//! applications; where they are not, `deployex app doctor` says why and what to do.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use proto::apps::Application;
use proto::checkup::{Checkup, ReplicaCheckup, Verdict};
use proto::configuration::{Applied, Class};
use proto::replicas::{Mesh, Replica};
use rustix::process::{Pid, Signal, kill_process};
use tests::erlang::Asked;
use tests::hosts::Network;
use tests::ports;
use tests::programs::{Agent, ControlPlane, Setup};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

/// The same cookie everywhere: it is not what keeps applications apart.
fn application(sample: Sample, replicas: u16, more: &str) -> String {
    let ports = ports::free(replicas + 1);
    format!(
        "  - name: {}\n    language: {}\n    replicas: {replicas}\n    replica_ports: [{{ key: PORT, base: {ports} }}]\n    \
         env: [{{ key: RELEASE_COOKIE, value: oats }}]\n    deploy_schedule_interval_ms: 200\n    {more}\n    \
         deploy: {{ stable_after_ms: 500, drain_ms: 0 }}\n",
        sample.name(),
        sample.language(),
    )
}

fn mesh(replica: &Replica) -> Option<&Mesh> {
    replica.erlang.as_ref()?.mesh.as_ref()
}

fn names(application: &Application) -> BTreeSet<String> {
    application.slots.iter().filter_map(|it| it.erlang.as_ref()).map(|it| it.name.clone()).collect()
}

/// Each of so many replicas is connected to all others.
fn is_whole(application: &Application, replicas: usize) -> bool {
    let all =
        |it: &Replica| mesh(it).is_some_and(|it| it.connected.len() + 1 == replicas && it.missed.is_empty());
    application.slots.len() == replicas && application.slots.iter().all(all)
}

async fn whole(control_plane: &ControlPlane, sample: Sample, replicas: usize) -> Application {
    let what = format!("{replicas} nodes of {sample} that are one mesh");
    control_plane.application_when(&what, sample.name(), |it| is_whole(it, replicas)).await
}

fn pids(application: &Application) -> Vec<Option<u32>> {
    application.slots.iter().map(|it| it.pid).collect()
}

/// With the status that the command ended with.
fn doctor(control_plane: &ControlPlane, sample: Sample) -> (i32, Checkup) {
    let said = control_plane.command_line().run(&["app", "doctor", sample.name(), "--json"]);
    let checkup = serde_json::from_str(&said.out);
    (said.status, checkup.unwrap_or_else(|error| panic!("{error}: {said:?}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_one_host_are_one_mesh_that_heals_and_ends_where_the_application_does() {
    let bucket = Bucket::new();
    for sample in [Sample::Elixir, Sample::Erlang] {
        bucket.publish(sample, "0.1.0").await;
    }
    let before = [application(Sample::Erlang, 3, ""), application(Sample::Elixir, 2, "cluster: off")];
    let control_plane = ControlPlane::start(&bucket, &before.concat()).await;
    let _agent = Agent::join(&control_plane, "only").await;
    let erlang = whole(&control_plane, Sample::Erlang, 3).await;
    let shown = control_plane.command_line().run(&["app", "show", Sample::Erlang.name()]).out;
    assert!(shown.contains("each connected to all its siblings"), "{shown}");

    // As a network splits. All that a node sees are the others of its own application.
    let first = Asked::node_of(erlang.slots[0].pid.unwrap(), None).await;
    let others =
        |it: &Application, own: &str| names(it).into_iter().filter(|it| it != own).collect::<Vec<_>>();
    let own = erlang.slots[0].erlang.as_ref().unwrap().name.clone();
    for name in others(&erlang, &own) {
        first.parts_from(&name).await;
    }
    eventually("a mesh that has healed", || async {
        let seen = first.sees().await;
        match seen == others(&erlang, &own) {
            true => Seen::Done(()),
            false => Seen::NotYet(format!("{seen:?}")),
        }
    })
    .await;
    let healed = whole(&control_plane, Sample::Erlang, 3).await;
    assert_eq!(pids(&healed), pids(&erlang), "nothing was restarted for it");
    let (status, checkup) = doctor(&control_plane, Sample::Erlang);
    assert!(status == 0 && checkup.well && checkup.replicas.len() == 3, "{checkup:#?}");

    // Off: it was looked at all the time and connected to nobody; then to its own, at once and without a restart.
    let settled = control_plane.settles_on(Sample::Elixir.name(), "0.1.0").await;
    assert!(settled.slots.iter().all(|it| mesh(it).is_none()), "{settled:#?}");
    let one = Asked::node_of(settled.slots[0].pid.unwrap(), None).await;
    assert_eq!(one.sees().await, [""; 0]);
    let wanted = control_plane.folder().join("wanted.yaml");
    let after = before.concat().replace("cluster: off", "cluster: node");
    fs::write(&wanted, control_plane.configuration(&bucket, &after)).unwrap();
    let applied: Applied = control_plane.ask(&["apply", "--yes", "-f", wanted.to_str().unwrap()]).unwrap();
    let changes = &applied.difference.applications[0].changes;
    assert_eq!(
        changes.iter().map(|it| (it.key.as_str(), it.class)).collect::<Vec<_>>(),
        [("cluster", Class::Immediate)]
    );
    let elixir = whole(&control_plane, Sample::Elixir, 2).await;
    assert_eq!(pids(&elixir), pids(&settled));
    let own = elixir.slots[0].erlang.as_ref().unwrap().name.clone();
    assert_eq!(one.sees().await, others(&elixir, &own), "and to no other application");
}

mod as_root_with_namespaces {
    use super::*;

    const HOSTS: [&str; 2] = ["host-a", "host-b"];

    /// The second application's nodes do not find each other, because nobody knows the hosts in their names. The first has them
    /// in a file of its own.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn replicas_of_a_fleet_are_one_mesh_across_hosts_and_who_cannot_be_found_is_named() {
        let mut network = Network::of_named_hosts(&HOSTS);
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let known = folder.path().join("inetrc");
        let lines = HOSTS.iter().zip(0..).map(|(name, number)| {
            let address = network.host(number).address().to_string().replace('.', ",");
            format!("{{host, {{{address}}}, [\"{name}\"]}}.\n")
        });
        fs::write(&known, lines.collect::<String>() + "{lookup, [file, native]}.\n").unwrap();
        let bucket = Bucket::new();
        for sample in [Sample::Erlang, Sample::Gleam] {
            bucket.publish(sample, "0.1.0").await;
        }
        let finds = format!("env: [{{ key: ERL_INETRC, value: {} }}, ", known.display());
        let fleet = "cluster: fleet\n    ready: [process]";
        let applications = application(Sample::Erlang, 1, fleet).replace("env: [", &finds)
            + &application(Sample::Gleam, 1, fleet);
        let setup = Setup { host: Some(network.control_plane()), ..Setup::default() };
        let control_plane = ControlPlane::start_with(&bucket, &applications, setup).await;
        let _agents = network.join(&control_plane, &["web-1", "web-2"]).await;

        let found = whole(&control_plane, Sample::Erlang, 2).await;
        let expected: Vec<String> =
            HOSTS.iter().map(|host| format!("{}-1@{host}", Sample::Erlang.name())).collect();
        assert_eq!(names(&found).into_iter().collect::<Vec<_>>(), expected);
        // One that dies and is back is met again.
        let pid = found.slots[0].pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap())).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        let is_back = |it: &Application| it.slots[0].pid != found.slots[0].pid && is_whole(it, 2);
        control_plane
            .application_when("a mesh with the one that is back", Sample::Erlang.name(), is_back)
            .await;
        let (status, checkup) = doctor(&control_plane, Sample::Erlang);
        assert!(status == 0 && checkup.well, "{checkup:#?}");

        let split = |it: &Application| {
            let is_alone = |it: &Replica| {
                let missed = mesh(it).map(|it| it.missed.as_slice()).unwrap_or_default();
                missed.len() == 1 && missed[0].kind.as_deref() == Some("unresolved")
            };
            it.slots.len() == 2 && it.slots.iter().all(is_alone)
        };
        control_plane.application_when("why two nodes do not connect", Sample::Gleam.name(), split).await;
        let is_wrong = |it: &ReplicaCheckup| it.findings.iter().any(|it| it.verdict == Verdict::Wrong);
        let (_, checkup) = eventually("that it lasts", || async {
            match doctor(&control_plane, Sample::Gleam) {
                (1, checkup) if checkup.replicas.iter().all(is_wrong) => Seen::Done((1, checkup)),
                (status, checkup) => Seen::NotYet(format!("{status}: {checkup:#?}")),
            }
        })
        .await;
        let wrong: Vec<_> = checkup.all().filter(|it| it.verdict == Verdict::Wrong).collect();
        assert_eq!(wrong.len(), 2, "{checkup:#?}");
        for (finding, host) in wrong.into_iter().zip(["host-b", "host-a"]) {
            assert!(finding.sentence.contains(&format!("cannot resolve \"{host}\"")), "{finding:?}");
            assert!(finding.advice.as_deref().unwrap().contains("/etc/hosts"), "{finding:?}");
        }
        let said = control_plane.command_line().run(&["app", "doctor", Sample::Gleam.name()]);
        assert!(said.status == 1 && said.out.contains("to do: make that name known"), "{said:?}");
    }
}
