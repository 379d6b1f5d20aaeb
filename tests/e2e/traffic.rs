//! NGINX before three replicas, under load: what its clients notice of deployments, restarts and crashes.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proto::apps::Application;
use proto::state::SlotState;
use rustix::process::{Pid, Signal, kill_process};
use tests::nginx::Nginx;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use tests::{ports, replicas};
use xtask::fixtures::Sample;
use xtask::load::{Answer, Load};

const APP: &str = "erlang_demo";
/// Modest, because the machine builds and tests other things beside; `cargo xtask bench traffic` sends more.
const RATE: u32 = 200;

const SITE: &str = "include {folder}/upstream.conf;\n\
    log_format sent '$msec $status $upstream_addr $upstream_status';\n\
    access_log {folder}/sent.log sent;\n\
    server {\n  listen 127.0.0.1:{port} backlog=1024;\n  location / {\n    proxy_pass http://demo;\n    \
    proxy_http_version 1.1;\n    proxy_set_header Connection \"\";\n  }\n}\n";
/// As the README says: NGINX starts before the first deployment.
const FIRST: &str = "# Written by DeployEx\nupstream demo { server 127.0.0.1:1 down; }\n";

struct Site {
    nginx: Nginx,
    control_plane: ControlPlane,
    agent: Agent,
    bucket: Bucket,
    port: u16,
}

impl Site {
    async fn at_rest() -> Self {
        let bucket = Bucket::new();
        bucket.publish(Sample::Erlang, "0.1.0").await;
        let nginx = Nginx::start_reloadable(SITE, &[("upstream.conf", FIRST)]).await;
        let port = ports::free(4);
        let applications = format!(
            "  - name: {APP}\n    language: erlang\n    replicas: 3\n    \
             replica_ports: [{{ key: PORT, base: {port} }}]\n    \
             deploy_rollback_timeout_ms: 60000\n    deploy_schedule_interval_ms: 200\n    \
             nginx: {{ upstream_file: {}, upstream: demo, port: PORT, reload: \"{}\" }}\n    \
             deploy: {{ strategy: start_first, stable_after_ms: 500, stop_grace_ms: 5000, drain_ms: 500 }}\n",
            nginx.folder().join("upstream.conf").display(),
            nginx.reload()
        );
        let control_plane = ControlPlane::start(&bucket, &applications).await;
        let agent = Agent::join(&control_plane, "web-1").await;
        control_plane.settles_on(APP, "0.1.0").await;
        let site = Self { nginx, control_plane, agent, bucket, port };
        site.lists(&[0, 1, 2]).await;
        site
    }

    fn file(&self) -> PathBuf {
        self.nginx.folder().join("upstream.conf")
    }

    /// Waits until the file names exactly these replicas (0: of the first slot).
    async fn lists(&self, replicas: &[u16]) {
        let wanted: Vec<String> =
            replicas.iter().map(|it| format!("server 127.0.0.1:{};", self.port + it)).collect();
        eventually(&format!("{wanted:?} in the upstream file"), || async {
            let text = fs::read_to_string(self.file()).unwrap_or_default();
            let listed: Vec<_> = text.lines().map(str::trim).filter(|it| it.starts_with("server ")).collect();
            if listed == wanted {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{text}{}", self.agent.output()))
            }
        })
        .await;
    }

    async fn under_load(&self) -> Load {
        let load = Load::start(([127, 0, 0, 1], self.nginx.port()).into(), "/version", RATE).unwrap();
        answers(&load, 50).await;
        load
    }

    /// Stops it once what happened is over, and returns what was lost.
    async fn lost(&self, load: Load) -> (usize, Vec<Answer>) {
        let so_far = load.answered();
        answers(&load, so_far + 100).await;
        let answers = load.stop();
        let sent = answers.len();
        (sent, answers.into_iter().filter(|it| it.result.is_err()).collect())
    }

    async fn at_rest_again(&self) -> Application {
        let application = self
            .control_plane
            .application_when("three stable replicas", APP, |it| {
                it.slots.len() == 3 && it.slots.iter().all(|slot| slot.state == SlotState::Stable)
            })
            .await;
        self.lists(&[0, 1, 2]).await;
        application
    }
}

async fn answers(load: &Load, count: usize) {
    eventually(&format!("{count} answers"), || async {
        let answered = load.answered();
        if answered >= count { Seen::Done(()) } else { Seen::NotYet(answered.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_deployment_and_a_rolling_restart_lose_no_request() {
    let site = Site::at_rest().await;
    let load = site.under_load().await;
    site.bucket.publish(Sample::Erlang, "0.2.0").await;
    site.control_plane.settles_on(APP, "0.2.0").await;
    site.at_rest_again().await;
    let (sent, lost) = site.lost(load).await;
    assert!(lost.is_empty(), "{} of {sent}: {lost:#?}\n{}", lost.len(), site.nginx.log());

    let before = site.at_rest_again().await;
    let load = site.under_load().await;
    let said = site.control_plane.command_line().run(&["restart", APP, "--wait"]);
    assert_eq!(said.status, 0, "{said:?}");
    let after = site.at_rest_again().await;
    let (sent, lost) = site.lost(load).await;
    assert!(lost.is_empty(), "{} of {sent}: {lost:#?}\n{}", lost.len(), site.nginx.log());
    for (before, after) in before.slots.iter().zip(&after.slots) {
        assert!(before.pid != after.pid && after.crash_restarts == 0, "{after:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "what was in flight at that moment is a question of real time")]
async fn a_crash_loses_only_what_was_in_flight() {
    let site = Site::at_rest().await;
    let victim = site.at_rest_again().await.slots[1].pid.unwrap();
    let load = site.under_load().await;
    let killed = Instant::now();
    kill_process(Pid::from_raw(i32::try_from(victim).unwrap()).unwrap(), Signal::KILL).unwrap();
    let gone = || {
        !replicas::OnHost::of(site.agent.folder(), None).machines.values().flatten().any(|it| *it == victim)
    };
    eventually("the end of the replica", || async {
        if gone() { Seen::Done(()) } else { Seen::NotYet("it is there".to_owned()) }
    })
    .await;
    let gone = Instant::now();
    site.control_plane
        .application_when("the crash", APP, |it| it.slots.iter().any(|slot| slot.crash_restarts == 1))
        .await;
    site.at_rest_again().await;
    let (sent, lost) = site.lost(load).await;
    let in_flight = |it: &Answer| it.due <= gone && it.due + it.took >= killed;
    let others: Vec<_> = lost.iter().filter(|it| !in_flight(it)).collect();
    assert!(others.is_empty(), "{} of {sent}: {others:#?}\n{}", others.len(), site.nginx.log());
    assert!(gone - killed < Duration::from_secs(30), "in flight is what was sent at one moment");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_begins_anew_touches_no_file_and_what_nginx_refuses_is_put_back_and_said() {
    let mut site = Site::at_rest().await;
    let before = fs::metadata(site.file()).unwrap().modified().unwrap();
    let load = site.under_load().await;
    for _ in 0..2 {
        site.agent.kill();
        site.agent.resume();
        site.control_plane.settles_on(APP, "0.1.0").await;
    }
    site.at_rest_again().await;
    let (_, lost) = site.lost(load).await;
    assert!(lost.is_empty(), "{lost:#?}");
    assert_eq!(fs::metadata(site.file()).unwrap().modified().unwrap(), before, "it was written anew");

    // Somebody edits NGINX's configuration and makes a mistake, and a replica is to be sent no more requests.
    let configuration = site.nginx.folder().join("nginx.conf");
    let good = fs::read_to_string(&configuration).unwrap();
    fs::write(&configuration, good.replace("http {", "http {\n  no_such_directive on;")).unwrap();
    let file = fs::read_to_string(site.file()).unwrap();
    let restart = site.control_plane.command_line().run(&["restart", APP, "--node", "web-1", "--slot", "2"]);
    assert_eq!(restart.status, 0, "{restart:?}");
    let said = |it: &Application| {
        it.slots.iter().all(|slot| slot.fault.as_ref().is_some_and(|it| it.contains("no_such_directive")))
    };
    site.control_plane.application_when("NGINX's own words at each slot", APP, said).await;
    let events = site.control_plane.command_line().run(&["event", "list", "--json"]);
    assert!(events.out.contains("the upstream file is not in force"), "{events:?}");
    eventually("the last good file in its place", || async {
        let text = fs::read_to_string(site.file()).unwrap();
        if text == file { Seen::Done(()) } else { Seen::NotYet(text) }
    })
    .await;

    fs::write(&configuration, good).unwrap();
    site.control_plane
        .application_when("the restart, and nothing wrong any more", APP, |it| {
            it.slots.iter().all(|it| it.fault.is_none()) && it.slots[1].forced_restarts == 1
        })
        .await;
    site.at_rest_again().await;
}
