//! The agent is a hidden node beside the replicas: each says which Erlang node it is and since when the agent is connected to it,
//! whatever its language, whoever named it, whoever has died in between, and where nodes talk TLS to each other.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use node_agent::dist::tls::client_config_for_any_host;
use proto::replicas::{ErlangNode, Replica};
use proto::timestamp::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore};
use tests::erlang::Asked;
use tests::ports;
use tests::programs::{Agent, ControlPlane, Setup};
use tests::release::Bucket;
use xtask::fixtures::Sample;

/// Where a release names its node itself, that counts.
const OWN_NAME: &str =
    "env: [{ key: RELEASE_DISTRIBUTION, value: name }, { key: RELEASE_NODE, value: shop@127.0.0.1 }]";

fn application(sample: Sample, replicas: u16, more: &str) -> String {
    format!(
        "  - name: {}\n    language: {}\n    replicas: {replicas}\n    replica_ports: [{{ key: PORT, base: {} }}]\n    \
         deploy_schedule_interval_ms: 200\n    {more}\n    deploy: {{ stable_after_ms: 500, drain_ms: 0 }}\n",
        sample.name(),
        sample.language(),
        ports::free(replicas + 1)
    )
}

fn node(slots: &[Replica]) -> Option<&ErlangNode> {
    slots.first()?.erlang.as_ref()
}

/// The node's name, and since when it is connected.
async fn connected(control_plane: &ControlPlane, app: &str, after: Timestamp) -> (String, Timestamp) {
    let found = control_plane
        .application_when("a connection to the node", app, |it| {
            let since = node(&it.slots).and_then(|it| it.connected_since);
            since.is_some_and(|it| it > after)
        })
        .await;
    let ErlangNode { name, connected_since, kind, because, tls: _ } = node(&found.slots).unwrap().clone();
    assert_eq!((kind, because), (None, None), "it is connected");
    (name, connected_since.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_three_languages_are_nodes_to_which_the_agent_is_connected_again_after_each_death() {
    let bucket = Bucket::new();
    let mut applications = String::new();
    for sample in Sample::ALL {
        bucket.publish(sample, "0.1.0").await;
        applications.push_str(&application(sample, 1, if sample == Sample::Elixir { OWN_NAME } else { "" }));
    }
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let mut agent = Agent::join(&control_plane, "only").await;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let short = host.split('.').next().unwrap();
    let mut since = Vec::new();
    for sample in Sample::ALL {
        let (name, at) = connected(&control_plane, sample.name(), Timestamp(0)).await;
        let expected = match sample {
            Sample::Elixir => "shop@127.0.0.1".to_owned(),
            _ => format!("{}-1@{short}", sample.name()),
        };
        assert_eq!(name, expected);
        since.push((sample, at));
    }

    // Of an agent that is away nobody knows how it stands; the next one connects to what runs on.
    agent.kill();
    agent.resume();
    for (sample, at) in &mut since {
        *at = connected(&control_plane, sample.name(), *at).await.1;
    }

    let (sample, at) = since[1];
    let before = control_plane.application(sample.name()).unwrap();
    let pid = before.slots[0].pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap())).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let (_, again) = connected(&control_plane, sample.name(), at).await;
    assert!(again > at);
    for (other, at) in since.iter().filter(|(it, _)| *it != sample) {
        let same = connected(&control_plane, other.name(), Timestamp(0)).await.1;
        assert_eq!(same, *at, "{other} is connected as before");
    }
}

/// One for all nodes of a host, as 0.x had it: of no host's name. And the same for who asks a node something.
fn shared_certificate(folder: &Path) -> Arc<ClientConfig> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["deployex".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
    fs::write(folder.join("deployex.crt"), certificate.pem()).unwrap();
    // Readable by its owner alone, who is none that a replica runs as.
    let path = folder.join("deployex.key");
    fs::write(&path, key.serialize_pem()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    client_config_for_any_host(roots, vec![certificate.der().clone()], key).unwrap()
}

/// What the process of a replica was started with.
fn words(replica: &Replica) -> String {
    let words = fs::read(format!("/proc/{}/cmdline", replica.pid.unwrap())).unwrap();
    String::from_utf8_lossy(&words).replace('\0', " ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_three_languages_talk_tls_with_the_certificate_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let ours = shared_certificate(folder.path());
    let bucket = Bucket::new();
    let mut applications = String::new();
    for sample in Sample::ALL {
        bucket.publish(sample, "0.1.0").await;
        applications.push_str(&application(sample, 2, ""));
    }
    let settings = format!("otp_tls_certificates: {}\n", folder.path().display());
    let setup = Setup { settings: &settings, ..Setup::default() };
    let control_plane = ControlPlane::start_with(&bucket, &applications, setup).await;
    let _agent = Agent::join(&control_plane, "only").await;
    for sample in Sample::ALL {
        let found = control_plane
            .application_when("a connection to both nodes", sample.name(), |it| {
                let is_connected =
                    |it: &Replica| it.erlang.as_ref().is_some_and(|it| it.connected_since.is_some());
                it.slots.len() == 2 && it.slots.iter().all(is_connected)
            })
            .await;
        let [one, other] = found.slots.as_slice() else { panic!("{sample} has two slots") };
        for replica in [one, other] {
            assert!(words(replica).contains("-proto_dist inet_tls"), "{sample}: {}", words(replica));
            // Its name is not verified, which is said.
            assert_eq!(replica.erlang.as_ref().unwrap().tls.as_deref(), Some("shared"), "{sample}");
        }
        let other = &other.erlang.as_ref().unwrap().name;
        let asked = Asked::node_of(one.pid.unwrap(), Some(ours.clone())).await;
        assert!(asked.connects_to(other).await, "{sample} connects to its other replica");
        let said = control_plane.command_line().run(&["app", "show", sample.name()]).out;
        let in_a_line: Vec<_> = said.split_whitespace().collect();
        assert!(in_a_line.join(" ").contains("the name in it is not"), "{said}");
    }
}
