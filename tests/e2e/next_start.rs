//! That what is read at a start counts after the next one: applied while the control plane runs, where it changes nothing yet,
//! and in force when it began anew. Of each key that waits, what it does is looked at from outside.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use proto::apps::Application;
use proto::configuration::{Applied, Configuration};
use serde_json::json;
use tests::ports;
use tests::programs::{Agent, ControlPlane, Setup};
use tests::release::{Bucket, ENVIRONMENT};
use tests::wait::{Seen, eventually};
use tokio::net::TcpStream;
use xtask::fixtures::Sample;

const APP: &str = "gleam_demo";
const NAME: &str = "console.example";

fn application(port: u16) -> String {
    format!(
        "  - name: {APP}\n    language: gleam\n    replicas: 1\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 200\n"
    )
}

/// A bucket that has another version, for another environment.
async fn of_environment(environment: &str, version: &str) -> Bucket {
    let bucket = Bucket::new();
    bucket.publish(Sample::Gleam, version).await;
    let current = bucket.current_path(APP);
    let moved = current.to_str().unwrap().replace(ENVIRONMENT, environment);
    fs::create_dir_all(std::path::Path::new(&moved).parent().unwrap()).unwrap();
    fs::rename(&current, moved).unwrap();
    bucket
}

async fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_start_counts_after_it_and_not_before() {
    let bucket = Bucket::new();
    bucket.publish(Sample::Gleam, "0.1.0").await;
    let applications = application(ports::free(1));
    // The demo answers no proxy.
    let setup = Setup { for_real: true, ..Setup::default() };
    let control_plane = ControlPlane::start_with(&bucket, &applications, setup).await;
    let agent = Agent::join(&control_plane, "web-1").await;
    control_plane.settles_on(APP, "0.1.0").await;

    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    fs::write(folder.path().join("a.pem"), made.cert.pem()).unwrap();
    fs::write(folder.path().join("b.pem"), made.signing_key.serialize_pem()).unwrap();
    let later = of_environment("later", "0.2.0").await;
    let (port, agents_port, here) = (ports::free(1), ports::free(1), folder.path().display());
    let wanted = format!(
        "account_name: later\nhostname: {NAME}\nbind: 127.0.0.2\nport: {port}\n\
         agents: {{ bind: 127.0.0.3, port: {agents_port}, public: \"agents.example:{agents_port}\" }}\n\
         release_adapter: local\nrelease_bucket: {}\ntrusted_proxies: [127.0.0.9/32]\n\
         tls: {{ certificate: {here}/a.pem, key: {here}/b.pem }}\napplications:\n{applications}",
        later.path().display()
    );
    let file = folder.path().join("wanted.yaml");
    fs::write(&file, wanted).unwrap();
    let applied: Applied = control_plane.ask(&["apply", "--yes", "-f", file.to_str().unwrap()]).unwrap();
    let waits: Vec<&str> = applied.awaits_restart.iter().map(|it| it.key.as_str()).collect();
    let keys = [
        "account_name",
        "agents.bind",
        "agents.port",
        "agents.public",
        "bind",
        "hostname",
        "port",
        "release_bucket",
        "tls.certificate",
        "tls.key",
        "trusted_proxies",
    ];
    assert_eq!(waits, keys);

    // Nothing of it counts yet.
    let (console, agents) = (([127, 0, 0, 2], port).into(), ([127, 0, 0, 3], agents_port).into());
    assert!(!listens(console).await && !listens(agents).await);
    assert!(listens(control_plane.console_address()).await && listens(control_plane.agents_address()).await);
    let token = |control_plane: &ControlPlane| control_plane.command_line().run(&["node", "token"]).out;
    assert!(token(&control_plane).contains(&control_plane.agents_address().to_string()));

    let asked = control_plane.command_line().run(&["restart", "--self", "--yes", "--wait"]);
    assert_eq!(asked.status, 0, "{asked:?}");
    let shown: Configuration = control_plane.ask(&["config", "show"]).unwrap();
    assert_eq!(shown.awaits_restart, [], "{shown:?}");
    assert!(listens(agents).await, "agents.bind and agents.port");
    assert!(
        !listens(control_plane.console_address()).await && !listens(control_plane.agents_address()).await
    );
    assert!(token(&control_plane).contains(&format!("agents.example:{agents_port}")), "agents.public");
    let wished = |application: &Application| {
        application.summary.wanted.as_ref().is_some_and(|it| it.version.as_str() == "0.2.0")
    };
    control_plane.application_when("what the other bucket offers that environment", APP, wished).await;

    // By its name and certificate, from a proxy that is trusted now.
    tests::http::provider();
    let client = reqwest::Client::builder()
        .no_proxy()
        .resolve(NAME, console)
        .tls_certs_only([reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()])
        .local_address("127.0.0.9".parse::<IpAddr>().unwrap())
        .build()
        .unwrap();
    let refused = client
        .post(format!("https://{NAME}:{port}/api/v1/session"))
        .header("x-forwarded-for", "203.0.113.9")
        .json(&json!({ "username": "nobody", "password": "no such word" }))
        .send()
        .await
        .unwrap();
    let status = refused.status().as_u16();
    assert_eq!(status, 401, "{}", refused.text().await.unwrap());
    eventually("whose sign-in was refused, by the proxy's word", || async {
        let output = control_plane.output();
        match output.lines().any(|it| it.contains("sign-in was refused") && it.contains("203.0.113.9")) {
            true => Seen::Done(()),
            false => Seen::NotYet(output),
        }
    })
    .await;
    drop(agent);
}
