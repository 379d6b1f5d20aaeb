//! The contract's six calls. Each reads its request, asks, and answers; `gate` has let it in before.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use proto::agent::MAX_RELEASE_CHUNK;
use proto::ids::{AppName, NodeId, NodeName, ReleaseKey};
use proto::pb;
use proto::pb::agent_server::Agent;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Hub;
use super::gate::Caller;
use super::pki::PkiError;
use super::registry::{Applicant, JoinRefused, RelayError, ReleaseBytes};
use super::session::Session;
use crate::spec::label;

const MAX_LABEL: usize = 256;

/// Some hundred bytes, with any key.
const MAX_CSR: usize = 16 << 10;

/// The first chunk of a stream names it, and is sent with the call.
const STREAM_ID_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Calls {
    pub(super) hub: Arc<Hub>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Agent for Calls {
    async fn enrol(&self, request: Request<pb::EnrolRequest>) -> Result<Response<pb::EnrolResponse>, Status> {
        let request = request.into_inner();
        let (hub, now) = (&self.hub, self.hub.clock.wall());
        let name: NodeName =
            request.node_name.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
        let node = NodeId(uuid::Uuid::now_v7());
        // Signed before the token is asked for, so that a use is only ever spent on a certificate that exists.
        let certificate =
            hub.authority.sign_node(&request.csr_pem, node, now, hub.certificate_life).map_err(unsigned)?;
        let certificate_pem = certificate.pem.clone();
        let applicant = Applicant {
            token: Sha256::digest(request.token.as_bytes()).into(),
            node,
            name,
            labels: labels(request.labels)?,
            agent_version: request.agent_version.chars().take(64).collect(),
            certificate,
        };
        let name = hub.registry.join(applicant, now).await.map_err(refused)?;
        tracing::info!(%node, %name, "a node has joined");
        hub.changed();
        Ok(Response::new(pb::EnrolResponse {
            node_id: node.to_string(),
            node_name: name.to_string(),
            certificate_pem,
            ca_pem: hub.authority.roots_pem().to_owned(),
            host: Some(hub.host_settings.clone()),
        }))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewResponse>, Status> {
        let node = caller(&request)?;
        let (hub, now) = (&self.hub, self.hub.clock.wall());
        let csr = request.into_inner().csr_pem;
        let certificate = hub.authority.sign_node(&csr, node, now, hub.certificate_life).map_err(unsigned)?;
        hub.registry.renewed(node, &certificate, now).await.map_err(|error| {
            tracing::error!(%node, error = &*error, "cannot record a renewed certificate");
            Status::unavailable("the control plane cannot write to its database")
        })?;
        tracing::info!(%node, "a node's certificate was renewed");
        Ok(Response::new(pb::RenewResponse {
            certificate_pem: certificate.pem,
            ca_pem: hub.authority.roots_pem().to_owned(),
        }))
    }

    type SessionStream = ReceiverStream<Result<pb::ControlMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = caller(&request)?;
        let (session, outgoing) = Session::open(Arc::clone(&self.hub), node, request.into_inner()).await?;
        self.hub.wake(node);
        self.hub.tasks.spawn(session.run());
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    type StreamStream = ReceiverStream<Result<pb::StreamChunk, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<pb::StreamChunk>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let node = caller(&request)?;
        let mut chunks = request.into_inner();
        let id = match timeout(STREAM_ID_TIMEOUT, chunks.message()).await {
            Ok(Ok(Some(first))) => first.stream_id,
            Ok(Ok(None)) => return Err(Status::invalid_argument("a stream begins with its id")),
            Ok(Err(status)) => return Err(status),
            Err(_) => return Err(Status::deadline_exceeded("no stream id came")),
        };
        // One message at a time goes down: there is nothing to say yet but the end.
        let (reading, answers) = mpsc::channel(1);
        self.hub
            .streams
            .join(node, &id, (chunks, reading))
            .ok_or_else(|| Status::not_found("nobody waits for this stream"))?;
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    type FetchReleaseStream = Answers<pb::ReleaseChunk>;

    async fn fetch_release(
        &self,
        request: Request<pb::FetchReleaseRequest>,
    ) -> Result<Response<Self::FetchReleaseStream>, Status> {
        let node = caller(&request)?;
        let request = request.into_inner();
        let bad = |error| Status::invalid_argument(format!("{error}"));
        let app: AppName = request.app.parse().map_err(bad)?;
        let key = request.key.ok_or_else(|| Status::invalid_argument("which release is not said"))?;
        let key = ReleaseKey::try_from(&key).map_err(bad)?;
        self.hub.must_run(node, &app, &key).await?;
        let bytes = self.hub.releases.open(&app, &key, request.offset).await.map_err(unreadable)?;
        Ok(Response::new(relay(bytes)))
    }

    async fn certify_peer(
        &self,
        request: Request<pb::CertifyPeerRequest>,
    ) -> Result<Response<pb::CertifyPeerResponse>, Status> {
        let node = caller(&request)?;
        let (hub, now) = (&self.hub, self.hub.clock.wall());
        let pb::CertifyPeerRequest { app, csr_pem, host, agent } = request.into_inner();
        let app: AppName = app.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
        if csr_pem.len() > MAX_CSR {
            return Err(Status::invalid_argument(format!(
                "a certificate request has at most {MAX_CSR} bytes"
            )));
        }
        hub.must_be_host(node, &app, &host).await?;
        let authority = hub.peers.authority(&app, now).await.map_err(|error| {
            tracing::error!(%app, error = &*error, "cannot use the application's certificate authority");
            Status::unavailable("the control plane cannot use the application's certificate authority")
        })?;
        let signed =
            authority.sign_peer(&csr_pem, &host, agent, now, hub.certificate_life).map_err(unsigned)?;
        tracing::info!(%node, %app, host, agent, "a certificate for TLS between Erlang nodes was signed");
        let ca_pem = authority.roots_pem().to_owned();
        Ok(Response::new(pb::CertifyPeerResponse { certificate_pem: signed.pem, ca_pem }))
    }
}

/// Cuts what the source gives into pieces that fit a message.
fn relay(bytes: ReleaseBytes) -> Answers<pb::ReleaseChunk> {
    Box::pin(bytes.flat_map(|piece| match piece {
        Ok(mut rest) => {
            let pieces = std::iter::from_fn(move || {
                let data = rest.split_to(rest.len().min(MAX_RELEASE_CHUNK));
                (!data.is_empty()).then_some(Ok(pb::ReleaseChunk { data }))
            });
            stream::iter(pieces).left_stream()
        }
        Err(error) => stream::once(std::future::ready(Err(unreadable(error)))).right_stream(),
    }))
}

/// `gate` puts it there for every call but `Enrol`.
fn caller<T>(request: &Request<T>) -> Result<NodeId, Status> {
    let caller = request.extensions().get::<Caller>();
    caller.map(|caller| caller.0).ok_or_else(|| Status::unauthenticated("no certificate was shown"))
}

fn labels(labels: std::collections::HashMap<String, String>) -> Result<BTreeMap<String, String>, Status> {
    let fits = |text: &String| text.len() <= MAX_LABEL && !text.chars().any(char::is_control);
    if labels.len() > label::MOST
        || !labels.iter().all(|(key, value)| !key.is_empty() && fits(key) && fits(value))
    {
        return Err(Status::invalid_argument(format!(
            "a node has at most {} labels of at most {MAX_LABEL} bytes each, without control characters",
            label::MOST
        )));
    }
    Ok(labels.into_iter().collect())
}

fn refused(error: JoinRefused) -> Status {
    let message = error.to_string();
    match error {
        JoinRefused::Token => Status::unauthenticated(message),
        JoinRefused::NameTaken => Status::already_exists(message),
        JoinRefused::Failed(source) => {
            tracing::error!(error = &*source, "cannot record a node that joins");
            Status::unavailable("the control plane cannot write to its database")
        }
    }
}

fn unsigned(error: PkiError) -> Status {
    if let PkiError::Request(_) = error {
        return Status::invalid_argument(error.to_string());
    }
    tracing::error!(error = &error as &dyn std::error::Error, "cannot sign a node's certificate");
    Status::internal("the control plane cannot sign certificates")
}

fn unreadable(error: RelayError) -> Status {
    let message = error.to_string();
    match error {
        RelayError::Gone => Status::not_found(message),
        RelayError::Replaced => Status::failed_precondition(message),
        RelayError::Failed(source) => {
            tracing::warn!(error = &*source, "cannot read a release for an agent");
            Status::unavailable(message)
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn a_release_is_relayed_in_pieces_that_fit_and_in_order() {
        let whole: Vec<u8> =
            (0..MAX_RELEASE_CHUNK * 2 + 7).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let source = stream::iter([Ok(Bytes::new()), Ok(Bytes::from(whole.clone()))]).boxed();
        let pieces: Vec<_> = relay(source).map(|piece| piece.unwrap().data).collect().await;
        assert_eq!(pieces.iter().map(Bytes::len).max(), Some(MAX_RELEASE_CHUNK));
        assert_eq!(pieces.concat(), whole);
    }

    #[test]
    fn labels_are_bounded() {
        let label = |key: &str| [(key.to_owned(), "value".to_owned())].into();
        assert!(labels(label("zone")).is_ok());
        assert!(labels(label("zo\nne")).is_err());
        assert!(labels(label(&"z".repeat(300))).is_err());
        assert!(labels((0..65).map(|n| (n.to_string(), String::new())).collect()).is_err());
    }
}
