//! Many keys of an application changed at once while a real release runs: those that concern what runs reach it, and those that
//! belong to a deployment come with the next one, not with a crash.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use proto::apps::Application;
use proto::configuration::{Applied, Class};
use proto::state::SlotState;
use rustix::process::{Pid, Signal, kill_process};
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

const APP: &str = "erlang_demo";

fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8_lossy(&environment).into_owned();
    text.split('\0').find_map(|entry| Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

fn user(pid: u32) -> u32 {
    fs::metadata(format!("/proc/{pid}")).unwrap().uid()
}

fn pid(application: &Application) -> u32 {
    application.slots[0].pid.unwrap()
}

/// By the kernel; `None`: it is not limited here.
fn pids_max(pid: u32) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let text = fs::read_to_string(format!("/sys/fs/cgroup{group}/pids.max")).ok()?;
    Some(text.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_root_what_runs_heeds_what_concerns_it_and_the_rest_comes_with_the_next_release() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test runs a replica as the user nobody: run it as root"
    );
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (here, sick) = (folder.path().display(), folder.path().join(format!("{APP}-1")));
    let (port, dist) = (ports::free(2), ports::free(2));
    let before = format!(
        "  - name: {APP}\n    language: erlang\n    replicas: 1\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    \
         env: [{{ key: SAMPLE_SICK, value: {here} }}]\n    deploy_schedule_interval_ms: 200\n    \
         restart: {{ backoff_min_ms: 100, backoff_max_ms: 500 }}\n    \
         deploy: {{ strategy: stop_first, stable_after_ms: 500, watch_ms: 0, drain_ms: 0 }}\n"
    );
    let after = format!(
        "{before}    env_file: {here}/env\n    run_as: {{ user: nobody }}\n    \
         distribution: {{ ports: [{dist}, {}] }}\n    \
         ready: [{{ http: {{ path: /health }}, interval_ms: 200 }}]\n    \
         live: [{{ http: {{ path: /health }}, interval_ms: 200, after: 2 }}]\n    \
         limits: {{ pids_max: 4096 }}\n    \
         nginx: {{ upstream_file: {here}/upstream.conf, upstream: demo, port: PORT, reload: \"true\" }}\n",
        dist + 1
    );
    fs::write(folder.path().join("env"), "EXTRA=1\n").unwrap();
    let bucket = Bucket::new();
    bucket.publish(Sample::Erlang, "0.1.0").await;
    let control_plane = ControlPlane::start(&bucket, &before).await;
    let _agent = Agent::join(&control_plane, "web-1").await;
    let first = pid(&control_plane.settles_on(APP, "0.1.0").await);
    let user_before = user(first);

    // By the new checks it would be unready, and ended.
    fs::write(&sick, "").unwrap();
    let wanted = control_plane.folder().join("wanted.yaml");
    fs::write(&wanted, control_plane.configuration(&bucket, &after)).unwrap();
    let applied: Applied = control_plane.ask(&["apply", "--yes", "-f", wanted.to_str().unwrap()]).unwrap();
    let changes = &applied.difference.applications[0].changes;
    let at_once = changes.iter().filter(|it| it.class == Class::Immediate).count();
    assert_eq!((changes.len(), at_once), (10, 5), "{changes:?}");

    // At once: what NGINX is told of it, and what it may use.
    let upstream = eventually("the upstream file", || async {
        let text = fs::read_to_string(folder.path().join("upstream.conf")).unwrap_or_default();
        if text.contains(&format!(":{port}")) { Seen::Done(text) } else { Seen::NotYet(text) }
    })
    .await;
    assert!(!upstream.contains(" down"), "it is ready by the check that it was deployed with: {upstream}");
    let limited = |it: &Application| {
        let said = it.slots[0].fault.as_ref().is_some_and(|it| it.contains("not limited as asked for"));
        said || pids_max(first).as_deref() == Some("4096")
    };
    let now = control_plane.application_when("its limit, or why there is none", APP, limited).await;
    assert_eq!((pid(&now), now.slots[0].state), (first, SlotState::Stable));

    // A crash brings none of the rest.
    kill_process(Pid::from_raw(i32::try_from(first).unwrap()).unwrap(), Signal::KILL).unwrap();
    let again = control_plane
        .application_when("a successor", APP, |it| {
            it.slots[0].crash_restarts == 1 && it.slots[0].state == SlotState::Stable
        })
        .await;
    let second = pid(&again);
    assert_eq!((user(second), again.slots[0].forced_restarts), (user_before, 0));
    for name in ["EXTRA", "ERL_AFLAGS"] {
        assert_eq!(variable(second, name), None, "{name}");
    }

    // The next release does.
    fs::remove_file(&sick).unwrap();
    bucket.publish(Sample::Erlang, "0.2.0").await;
    let next = control_plane.settles_on(APP, "0.2.0").await;
    let third = pid(&next);
    assert_ne!(user(third), user_before);
    assert_eq!(variable(third, "EXTRA").as_deref(), Some("1"));
    let flags = variable(third, "ERL_AFLAGS").unwrap();
    assert!(flags.contains(&format!("inet_dist_listen_min {dist}")), "{flags}");
    let restarts = next.slots[0].forced_restarts;
    fs::write(&sick, "").unwrap();
    let ended = control_plane
        .application_when("an end by its live check", APP, |it| it.slots[0].forced_restarts > restarts)
        .await;
    let because = ended.slots[0].last_exit.as_ref().unwrap().because.clone().unwrap();
    assert!(because.starts_with("its live check failed"), "{because}");
    fs::remove_file(&sick).unwrap();
    control_plane.settles_on(APP, "0.2.0").await;
}
