//! Who is let in, and how those who are not are told.

use std::time::Duration;

use node_agent::link::Identity;
use proto::pb;
use proto::pb::agent_client::AgentClient;
use proto::pb::agent_message::Kind;
use proto::state::Liveness;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::fleet::{Agent, ControlPlane, enrol};
use tokio::time::Instant;

fn provider() {
    // The first test installs it; that it is there already is no fault.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// A client of somebody else's making. `with`: shows the certificate in that folder.
async fn client(plane: &ControlPlane, agent: &Agent, with: bool) -> AgentClient<Channel> {
    provider();
    let read = |name| std::fs::read(agent.identity_folder().join(name)).unwrap();
    let mut tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca.pem"))).domain_name("localhost");
    if with {
        tls = tls.identity(tonic::transport::Identity::from_pem(read("node.pem"), read("node.key")));
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", plane.address)).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    AgentClient::new(channel).max_encoding_message_size(64 << 20)
}

async fn session(client: &mut AgentClient<Channel>, hello: pb::Hello) -> tonic::Status {
    let message = pb::AgentMessage { kind: Some(Kind::Hello(hello)) };
    client.session(tokio_stream::once(message)).await.unwrap_err()
}

#[tokio::test]
async fn without_a_certificate_nothing_but_enrolment_is_answered() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    let mut client = client(&plane, &agent, false).await;
    let renew = client.renew(pb::RenewRequest::default()).await.unwrap_err();
    assert_eq!(renew.code(), Code::Unauthenticated);
    let fetch = client.fetch_release(pb::FetchReleaseRequest::default()).await.unwrap_err();
    assert_eq!(fetch.code(), Code::Unauthenticated);
    assert_eq!(session(&mut client, pb::Hello::default()).await.code(), Code::Unauthenticated);
    let enrol = client.enrol(pb::EnrolRequest::default()).await.unwrap_err();
    assert_eq!(enrol.code(), Code::InvalidArgument);
    let large = pb::EnrolRequest { token: "t".repeat(200_000), ..Default::default() };
    assert!(client.enrol(large).await.is_err());
}

#[tokio::test]
async fn a_protocol_that_we_do_not_speak_is_refused_with_what_to_upgrade() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    let mut client = client(&plane, &agent, true).await;
    let newer = pb::Hello { protocol_min: 7, protocol_max: 9, ..Default::default() };
    let status = session(&mut client, newer).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("7 to 9; upgrade the control plane"), "{}", status.message());
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_its_call_and_nothing_else() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    let mut client = client(&plane, &agent, true).await;
    let huge = pb::Hello {
        agent_version: "v".repeat(5 << 20),
        protocol_min: 1,
        protocol_max: 1,
        ..Default::default()
    };
    assert_eq!(session(&mut client, huge).await.code(), Code::OutOfRange);
    assert_eq!(plane.agents.liveness(agent.node), Liveness::Up);
}

#[tokio::test]
async fn a_certificate_of_another_fleet_is_rejected_in_words() {
    let (ours, other) = (ControlPlane::start().await, ControlPlane::start().await);
    let agent = ours.agent("web-1").await;
    let stranger = tempfile::tempdir().unwrap();
    enrol(stranger.path(), other.address, other.good_token().await, "web-1").await.unwrap();
    let folder = stranger.path().join("identity");
    // It trusts our control plane, and dials it; only its certificate is another fleet's.
    std::fs::copy(agent.identity_folder().join("ca.pem"), folder.join("ca.pem")).unwrap();
    let facts = std::fs::read_to_string(folder.join("node.json")).unwrap();
    let facts = facts.replace(&other.address.to_string(), &ours.address.to_string());
    std::fs::write(folder.join("node.json"), facts).unwrap();
    let identity = Identity::load(&folder).unwrap();
    let stranger = Agent::run(stranger, identity);
    stranger.down_because("rejected this host's certificate").await;
}

#[tokio::test]
async fn a_removed_node_is_cut_off_within_five_seconds_and_cannot_return() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    let removed = Instant::now();
    plane.remove(agent.node).await;
    agent.down_because("removed from the fleet").await;
    assert!(removed.elapsed() < Duration::from_secs(5), "{:?}", removed.elapsed());
    assert_ne!(plane.agents.liveness(agent.node), Liveness::Up);
    let mut client = client(&plane, &agent, true).await;
    let renew = client.renew(pb::RenewRequest::default()).await.unwrap_err();
    assert_eq!(renew.code(), Code::PermissionDenied);
    let hello = pb::Hello { protocol_min: 1, protocol_max: 1, ..Default::default() };
    assert_eq!(session(&mut client, hello).await.code(), Code::PermissionDenied);
}
