//! The agent is a hidden node beside the replicas: each says which Erlang node it is and since when the agent is connected to it,
//! whatever its language, whoever named it, whoever has died in between, and where nodes talk TLS to each other.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use node_agent::dist::dial::DialError;
use node_agent::dist::tls::{client_config, client_config_for_any_host};
use proto::apps::Application;
use proto::replicas::{ErlangNode, Replica};
use proto::timestamp::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tests::erlang::Asked;
use tests::ports;
use tests::programs::{Agent, ControlPlane, Setup};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
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
    let ErlangNode { name, connected_since, kind, because, tls: _, mesh: _ } =
        node(&found.slots).unwrap().clone();
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

/// An application of two replicas, once the agent is connected to each.
async fn both_connected(control_plane: &ControlPlane, sample: Sample) -> Application {
    control_plane
        .application_when("a connection to both nodes", sample.name(), |it| {
            let is_connected =
                |it: &Replica| it.erlang.as_ref().is_some_and(|it| it.connected_since.is_some());
            it.slots.len() == 2 && it.slots.iter().all(is_connected)
        })
        .await
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
        let found = both_connected(&control_plane, sample).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_certificate_is_of_another_authority_is_named_with_that_reason() {
    let (host, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    shared_certificate(host.path());
    shared_certificate(own.path());
    fs::set_permissions(own.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(own.path().join("deployex.key"), fs::Permissions::from_mode(0o444)).unwrap();
    let at = |name: &str| own.path().join(name).display().to_string();
    let common = format!(
        "{{cacertfile, \"{}\"}}, {{certfile, \"{}\"}}, {{keyfile, \"{}\"}}",
        at("ca.crt"),
        at("deployex.crt"),
        at("deployex.key")
    );
    fs::write(own.path().join("own.conf"), format!("[{{server, [{common}]}}, {{client, [{common}]}}].\n"))
        .unwrap();
    let bucket = Bucket::new();
    bucket.publish(Sample::Elixir, "0.1.0").await;
    let env = format!(
        "env: [{{ key: ELIXIR_ERL_OPTIONS, value: \"-proto_dist inet_tls -ssl_dist_optfile {}\" }}]",
        at("own.conf")
    );
    let settings = format!("otp_tls_certificates: {}\n", host.path().display());
    let setup = Setup { settings: &settings, ..Setup::default() };
    let applications = application(Sample::Elixir, 1, &env);
    let control_plane = ControlPlane::start_with(&bucket, &applications, setup).await;
    let _agent = Agent::join(&control_plane, "only").await;
    let found = control_plane
        .application_when("a reason that is TLS's", Sample::Elixir.name(), |it| {
            node(&it.slots).is_some_and(|it| it.kind.as_deref() == Some("tls"))
        })
        .await;
    let because = node(&found.slots).unwrap().because.clone().unwrap();
    assert!(because.contains("invalid peer certificate"), "{because}");
}

/// A cookie that is not the one that its replica was given, and nobody connected any more.
const OTHER_COOKIE: &str = "erlang:set_cookie(node(), another), spawn(fun() -> timer:sleep(500), \
     [erlang:disconnect_node(It) || It <- nodes(hidden)] end), ok";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_cookie_is_named_with_that_reason_until_it_is_started_anew() {
    let bucket = Bucket::new();
    for sample in Sample::ALL {
        bucket.publish(sample, "0.1.0").await;
    }
    let applications: String = Sample::ALL.iter().map(|it| application(*it, 1, "")).collect();
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let _agent = Agent::join(&control_plane, "only").await;
    let cli = control_plane.command_line();
    for sample in Sample::ALL {
        let app = sample.name();
        control_plane.settles_on(app, "0.1.0").await;
        let (_, since) = connected(&control_plane, app, Timestamp(0)).await;
        let said = cli.run(&["rpc", app, "--erlang", OTHER_COOKIE]);
        assert_eq!(said.out.trim(), "ok", "{said:?}");
        let found = control_plane
            .application_when("a reason that is the cookie", app, |it| {
                node(&it.slots).is_some_and(|it| it.kind.as_deref() == Some("cookie"))
            })
            .await;
        let because = node(&found.slots).unwrap().because.clone().unwrap();
        assert!(because.contains("cookie") && !because.contains("another"), "{because}");
        let said = cli.run(&["restart", app, "--wait"]);
        assert_eq!(said.status, 0, "{said:?}");
        connected(&control_plane, app, since).await;
    }
}

/// The file of options that a replica was started with.
fn options(replica: &Replica) -> PathBuf {
    let words = words(replica);
    words.split(' ').skip_while(|it| *it != "-ssl_dist_optfile").nth(1).unwrap().into()
}

/// What a replica shows to others and trusts of them.
fn as_replica(replica: &Replica) -> Arc<ClientConfig> {
    let file = |name| fs::read(options(replica).with_file_name(name)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&file("ca.crt")).unwrap()).unwrap();
    let shown = vec![CertificateDer::from_pem_slice(&file("deployex.crt")).unwrap()];
    client_config(roots, shown, PrivateKeyDer::from_pem_slice(&file("deployex.key")).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_managed_tls_replicas_talk_to_those_of_their_application_and_to_no_other() {
    let bucket = Bucket::new();
    let mut applications = String::new();
    for sample in Sample::ALL {
        bucket.publish(sample, "0.1.0").await;
        // The same cookie everywhere: it is not what keeps them apart. And one with an address in the place of a host.
        let named = if sample == Sample::Gleam { "mode: long, host: 127.0.0.1, " } else { "" };
        let more = format!(
            "distribution: {{ {named}tls: managed }}\n    env: [{{ key: RELEASE_COOKIE, value: oats }}]"
        );
        applications.push_str(&application(sample, 2, &more));
    }
    let mut control_plane = ControlPlane::start(&bucket, &applications).await;
    let _agent = Agent::join(&control_plane, "only").await;
    let mut firsts = Vec::new();
    for sample in Sample::ALL {
        let found = both_connected(&control_plane, sample).await;
        let [one, other] = found.slots.try_into().unwrap();
        for replica in [&one, &other] {
            assert_eq!(replica.erlang.as_ref().unwrap().tls.as_deref(), Some("managed"), "{sample}");
            // For its user alone.
            let process = fs::metadata(format!("/proc/{}", replica.pid.unwrap())).unwrap();
            let folder = options(replica).parent().unwrap().to_owned();
            let mut held = vec![(folder.clone(), 0o700)];
            held.extend(fs::read_dir(folder).unwrap().map(|it| (it.unwrap().path(), 0o400)));
            assert_eq!(held.len(), 5, "{held:?}");
            for (path, mode) in held {
                let file = fs::metadata(&path).unwrap();
                assert_eq!((file.uid(), file.mode() & 0o777), (process.uid(), mode), "{}", path.display());
            }
        }
        let asked = Asked::node_of(one.pid.unwrap(), Some(as_replica(&one))).await;
        let name = &other.erlang.as_ref().unwrap().name;
        assert!(asked.connects_to(name).await, "{sample} connects to its other replica");
        firsts.push((asked, one, other));
    }

    // Another application's node is refused on either side, whatever the cookie.
    let [(elixir, of_elixir, _), (erlang, of_erlang, of_erlang_too), _] = firsts.as_slice() else {
        panic!("three samples")
    };
    for (asked, other) in [(elixir, of_erlang), (erlang, of_elixir)] {
        let name = &other.erlang.as_ref().unwrap().name;
        assert!(!asked.connects_to(name).await, "{name} is of another application");
    }
    let refused = Asked::try_node_of(of_elixir.pid.unwrap(), Some(as_replica(of_erlang))).await.err();
    assert!(matches!(refused, Some(DialError::Tls(_))), "{refused:?}");

    // What was obtained serves without the control plane, also who starts anew.
    control_plane.kill();
    let pid = of_erlang_too.pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap())).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let name = &of_erlang_too.erlang.as_ref().unwrap().name;
    eventually("the replica that was killed, among its own again", || async move {
        let is_gone = !Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).exists();
        match is_gone && erlang.connects_to(name).await {
            true => Seen::Done(()),
            false => Seen::NotYet(format!("{name} is not connected")),
        }
    })
    .await;
}
