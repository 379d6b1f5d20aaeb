//! Two hosts, three applications in different languages, one control plane: each host runs what its labels call for.

use std::fs;
use std::process::Command;

use proto::archive::hostile::Builder;
use proto::replicas::Replica;
use rustix::process::{Pid, Signal, kill_process};
use tests::http::{get, serves_version};
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

/// A script in the form of a release: it needs no port, so both hosts of this one machine can run it.
const EVERYWHERE: &str = "demo";

fn applications(erlang: u16, gleam: u16) -> String {
    let deploy = "deploy_schedule_interval_ms: 100\n    deploy: { stable_after_ms: 500 }";
    format!(
        "  - name: erlang_demo\n    language: erlang\n    replicas: 2\n    nodes: {{ role: web }}\n    \
         replica_ports: [{{ key: PORT, base: {erlang} }}]\n    {deploy}\n  \
         - name: gleam_demo\n    language: gleam\n    replicas: 1\n    nodes: {{ role: work, zone: a }}\n    \
         replica_ports: [{{ key: PORT, base: {gleam} }}]\n    {deploy}\n  \
         - name: {EVERYWHERE}\n    language: elixir\n    replicas: 2\n    {deploy}\n"
    )
}

fn places(control_plane: &ControlPlane, app: &str) -> Vec<String> {
    let application = control_plane.application(app).unwrap();
    application.slots.iter().map(|it: &Replica| format!("{}/{}", it.node, it.slot)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_host_runs_the_applications_that_its_labels_call_for_with_its_own_number_of_replicas() {
    let bucket = Bucket::new();
    let (erlang, gleam) = (ports::free(3), ports::free(2));
    bucket.publish(Sample::Erlang, "0.1.0").await;
    bucket.publish(Sample::Gleam, "0.1.0").await;
    bucket.put_tarball(EVERYWHERE, "0.1.0", &Builder::elixir().gzip());
    bucket.write_current(EVERYWHERE, r#"{"version": "0.1.0", "hash": "local"}"#);
    let control_plane = ControlPlane::start(&bucket, &applications(erlang, gleam)).await;
    let web = Agent::join_labelled(&control_plane, "web-1", &["role=web"]).await;
    let work = Agent::join_labelled(&control_plane, "work-1", &["role=work", "zone=a"]).await;

    control_plane.settles_on("erlang_demo", "0.1.0").await;
    control_plane.settles_on("gleam_demo", "0.1.0").await;
    let everywhere = control_plane
        .application_when("replicas on both hosts", EVERYWHERE, |it| {
            it.summary.replicas_wanted == 4 && it.summary.replicas_ready == 4
        })
        .await;
    assert_eq!(everywhere.slots.len(), 4);
    assert_eq!(places(&control_plane, "erlang_demo"), ["web-1/1", "web-1/2"]);
    assert_eq!(places(&control_plane, "gleam_demo"), ["work-1/1"]);
    assert_eq!(places(&control_plane, EVERYWHERE), ["web-1/1", "web-1/2", "work-1/1", "work-1/2"]);
    for port in [erlang, erlang + 1, gleam] {
        serves_version(port, "0.1.0").await;
    }

    // Each host keeps its own: releases, logs, and the Erlang names of its replicas.
    for (agent, app, names) in [
        (&web, "erlang_demo", &["erlang_demo-1", "erlang_demo-2"][..]),
        (&work, "gleam_demo", &["gleam_demo-1"][..]),
    ] {
        assert!(agent.var_path().join("service").join(app).join("1/current").exists());
        assert!(agent.log(app, 1, "stdout").exists() && agent.log(EVERYWHERE, 2, "stdout").exists());
        assert_eq!(erlang_names(agent).await, names);
        kill_epmd(agent);
        // Started again for those that run; they come back to it by themselves.
        assert_eq!(erlang_names_when(agent, |it| *it == names).await, names);
    }
    assert!(!web.var_path().join("service/gleam_demo").exists());
    assert!(!work.var_path().join("service/erlang_demo").exists());
    let status = get(&format!("http://127.0.0.1:{}/status", erlang + 1)).await.unwrap();
    assert!(status.contains("node=erlang_demo-2@"), "{status}");

    // A host without the labels gets what every host gets and nothing else.
    let other = Agent::join_labelled(&control_plane, "work-2", &["role=work", "zone=b"]).await;
    control_plane
        .application_when("replicas on the third host", EVERYWHERE, |it| {
            it.summary.replicas_wanted == 6 && it.summary.replicas_ready == 6
        })
        .await;
    assert_eq!(places(&control_plane, "gleam_demo"), ["work-1/1"]);
    assert!(fs::read_dir(other.var_path().join("service")).unwrap().count() == 1);
}

fn kill_epmd(agent: &Agent) {
    let program = agent.var_path().join("epmd/epmd");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let is_it = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|it| it == program);
    let pid = processes.filter_map(|it| it.file_name().to_str()?.parse().ok()).find(is_it).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// What the host's own name server knows, once it knows anything.
async fn erlang_names(agent: &Agent) -> Vec<String> {
    erlang_names_when(agent, |names| !names.is_empty()).await
}

async fn erlang_names_when(agent: &Agent, is_so: impl Fn(&Vec<String>) -> bool) -> Vec<String> {
    eventually("Erlang's names", || async {
        let port = agent.epmd_port().to_string();
        let output = Command::new("epmd").args(["-port", &port, "-names"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut names: Vec<String> = said
            .lines()
            .filter_map(|line| Some(line.strip_prefix("name ")?.split(' ').next()?.to_owned()))
            .collect();
        names.sort();
        if is_so(&names) { Seen::Done(names) } else { Seen::NotYet(said) }
    })
    .await
}
