//! Certificates that live for seconds.

use std::time::Duration;

use node_agent::link::{Identity, Standing};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::fleet::{Agent, ControlPlane, enrol, until};

fn certificate(agent: &Agent) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(agent.identity_folder().join("node.pem")).unwrap()
}

#[tokio::test]
async fn a_certificate_is_renewed_in_time_again_and_again_and_the_session_stays() {
    let plane = ControlPlane::with_certificates_for(Duration::from_secs(6)).await;
    let mut agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    // The control plane knows of the session before the agent says so.
    until("it is connected", || *agent.standing.borrow() == Standing::Connected).await;
    let mut held = certificate(&agent);
    agent.standing.mark_unchanged();
    for _ in 0..2 {
        until("the certificate is renewed", || certificate(&agent) != held).await;
        held = certificate(&agent);
    }
    assert!(!agent.standing.has_changed().unwrap());
    assert!(plane.agents.liveness(agent.node) == proto::state::Liveness::Up);
    // What was stored is whole: another agent can go on with it.
    let identity = agent.identity();
    let folder = agent.stop().await;
    let again = Agent::run(folder, identity);
    until("it is connected", || *again.standing.borrow() == Standing::Connected).await;
}

#[tokio::test]
async fn an_expired_certificate_renews_itself_and_then_connects() {
    let plane = ControlPlane::with_certificates_for(Duration::from_secs(2)).await;
    let folder = tempfile::tempdir().unwrap();
    let identity = enrol(folder.path(), plane.address, plane.good_token().await, "web-1").await.unwrap();
    let old = std::fs::read(folder.path().join("identity/node.pem")).unwrap();
    // The one thing that can only be waited for: the certificate's end.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    let agent = Agent::run(folder, identity);
    until("it is connected", || *agent.standing.borrow() == Standing::Connected).await;
    assert_ne!(std::fs::read(agent.identity_folder().join("node.pem")).unwrap(), old);
}

#[tokio::test]
async fn a_removed_node_cannot_renew() {
    let plane = ControlPlane::with_certificates_for(Duration::from_secs(4)).await;
    let folder = tempfile::tempdir().unwrap();
    let identity = enrol(folder.path(), plane.address, plane.good_token().await, "web-1").await.unwrap();
    plane.remove(identity.node).await;
    let kept = std::fs::read(folder.path().join("identity/node.pem")).unwrap();
    let agent = Agent::run(folder, identity);
    agent.down_because("removed from the fleet").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(std::fs::read(agent.identity_folder().join("node.pem")).unwrap(), kept);
    assert!(Identity::load(&agent.identity_folder()).is_ok());
}
