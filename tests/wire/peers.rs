//! Certificates for TLS between Erlang nodes: who gets them, and what they are worth.

use std::time::Duration;

use control_plane::agents::registry::PeerAuthorities as _;
use control_plane::clock::Clock;
use node_agent::link::{Identity, LinkError};
use proto::pb;
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::fleet::{ControlPlane, app, roots};

fn request(app: &str, host: &str, key: &KeyPair) -> pb::CertifyPeerRequest {
    let csr_pem = CertificateParams::default().serialize_request(key).unwrap().pem().unwrap();
    pb::CertifyPeerRequest { app: app.to_owned(), csr_pem, host: host.to_owned(), agent: false }
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn why(answer: Result<pb::CertifyPeerResponse, LinkError>) -> String {
    answer.unwrap_err().to_string()
}

#[tokio::test]
async fn a_node_gets_certificates_for_what_it_runs_and_for_its_own_host_alone() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    let ask = async |app: &str, host: &str| agent.certify.certify(request(app, host, &key())).await;
    assert!(why(ask("shop", "web-1").await).contains("not to run that application"));
    plane.wishes.assign(1);
    assert!(why(ask("blog", "web-1").await).contains("not to run that application"));
    for other in ["web-2", "", "web-1.example.com", "*", &"w".repeat(100_000)] {
        let refused = why(ask("shop", other).await);
        assert!(refused.contains("on this node are of web-1") && refused.len() < 500, "{refused}");
    }
    let mut large = request("shop", "web-1", &key());
    large.csr_pem.push_str(&"x".repeat(20_000));
    assert!(why(agent.certify.certify(large).await).contains("broke"), "more than a request needs");
    let answer = ask("shop", "web-1").await.unwrap();
    let its = roots(&plane.db).authority(&app(), Clock::start().now()).await.unwrap();
    assert_eq!(answer.ca_pem, its.roots_pem());
}

#[tokio::test]
async fn with_a_replica_s_certificate_nobody_is_let_in_as_a_node() {
    let plane = ControlPlane::start().await;
    plane.wishes.assign(1);
    let agent = plane.agent("web-1").await;
    let key = key();
    let answer = agent.certify.certify(request("shop", "web-1", &key)).await.unwrap();
    let node = agent.node;
    let folder = agent.stop().await;
    let identity = folder.path().join("identity");
    // By its own reading it is no node's to begin with.
    std::fs::write(identity.join("node.pem"), &answer.certificate_pem).unwrap();
    std::fs::write(identity.join("node.key"), key.serialize_pem()).unwrap();
    assert!(Identity::load(&identity).unwrap_err().to_string().contains("not one of a node"));
    // Whoever shows it all the same is refused, and for its root too: what that signs for a node is worth nothing here.
    let of_application = roots(&plane.db).authority(&app(), Clock::start().now()).await.unwrap();
    let csr = request("shop", "web-1", &key).csr_pem;
    let day = Duration::from_hours(24);
    let forged = of_application.sign_node(&csr, node, Clock::start().wall(), day).unwrap().pem;
    let ca = std::fs::read(identity.join("ca.pem")).unwrap();
    for (shown, expected) in [(&answer.certificate_pem, "UnsupportedCertificate"), (&forged, "UnknownCA")] {
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
        let shown = vec![CertificateDer::from_pem_slice(shown.as_bytes()).unwrap()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let refusal = refusal(&plane, trusted, shown, key).await;
        assert!(refusal.contains(expected), "{refusal}");
    }
}

/// How a connection that shows this certificate ends.
async fn refusal(
    plane: &ControlPlane,
    trusted: RootCertStore,
    shown: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> String {
    use tokio::io::AsyncReadExt as _;
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(trusted)
        .with_client_auth_cert(shown, key)
        .unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let tcp = tokio::net::TcpStream::connect(plane.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let read = async {
        let mut tls = connector.connect(name, tcp).await?;
        tls.read_u8().await
    };
    format!("{:?}", read.await.unwrap_err())
}
