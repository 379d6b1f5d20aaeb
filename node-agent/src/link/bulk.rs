//! The second connection, for all that is large: releases, and streams that the control plane asks for. Dialled when it is
//! first needed, and again when it broke.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use proto::agent::{MAX_MESSAGE, MAX_RELEASE_CHUNK};
use proto::ids::{AppName, ReleaseKey};
use proto::pb;
use proto::pb::agent_client::AgentClient;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::dial::{LinkError, dial};
use super::identity::Identity;
use crate::releases::{Chunks, Fetch, FetchError};

pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Chunks of a stream on their way to the control plane; a slow reader there stops the reading here.
const STREAM_CHUNKS: usize = 4;

type Client = AgentClient<Channel>;
/// Where chunks are put, and where it is said that nobody reads them any more.
type Opened = (mpsc::Sender<pb::StreamChunk>, Streaming<pb::StreamChunk>);

pub(super) struct Bulk {
    identity: watch::Receiver<Arc<Identity>>,
    /// With the identity it was dialled with: after a renewal the old one would soon be refused.
    client: Mutex<Option<(Arc<Identity>, Client)>>,
}

impl Bulk {
    pub(super) fn new(identity: watch::Receiver<Arc<Identity>>) -> Self {
        Self { identity, client: Mutex::new(None) }
    }

    pub(super) async fn client(&self) -> Result<Client, LinkError> {
        let current = Arc::clone(&self.identity.borrow());
        let mut client = self.client.lock().await;
        if let Some((identity, client)) = client.as_ref()
            && Arc::ptr_eq(identity, &current)
        {
            return Ok(client.clone());
        }
        let wire = dial(&current.control_plane, Arc::clone(&current.tls)).await?;
        let dialled = AgentClient::new(wire.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        *client = Some((current, dialled.clone()));
        Ok(dialled)
    }

    /// After a call failed without an answer of the control plane.
    async fn forget(&self) {
        self.client.lock().await.take();
    }

    /// Answers a request for a stream. What is put into the sender goes up; the answer's end says that nobody reads any more.
    pub(super) async fn stream(&self, id: &str) -> Result<Opened, LinkError> {
        once_more(|| self.stream_once(id)).await
    }

    async fn stream_once(&self, id: &str) -> Result<Opened, LinkError> {
        let (sender, chunks) = mpsc::channel(STREAM_CHUNKS);
        let first = pb::StreamChunk { stream_id: id.to_owned(), ..Default::default() };
        let first = futures_util::stream::once(std::future::ready(first));
        let outgoing = first.chain(ReceiverStream::new(chunks));
        let answer = timeout(ANSWER_TIMEOUT, self.client().await?.stream(outgoing)).await;
        Ok((sender, self.heard(answer).await?.into_inner()))
    }

    pub(super) async fn heard<T>(
        &self,
        answer: Result<Result<T, Status>, tokio::time::error::Elapsed>,
    ) -> Result<T, LinkError> {
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => {
                if matches!(
                    status.code(),
                    Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
                ) {
                    self.forget().await;
                }
                Err(LinkError::of_status(status))
            }
            Err(_) => {
                self.forget().await;
                Err(LinkError::Silent)
            }
        }
    }
}

/// That the connection broke, with an earlier control plane say, is found out by the first call after that, which is made once
/// more over another one.
pub(super) async fn once_more<T, F>(call: impl Fn() -> F) -> Result<T, LinkError>
where
    F: Future<Output = Result<T, LinkError>>,
{
    match call().await {
        Err(LinkError::Broken(_)) => call().await,
        answer => answer,
    }
}

impl Bulk {
    /// What the control plane answers, or why nothing was heard of it.
    async fn fetch_once(
        &self,
        request: &pb::FetchReleaseRequest,
    ) -> Result<Result<Chunks, FetchError>, LinkError> {
        let mut client = match self.client().await {
            Ok(client) => client,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "no connection to fetch a release over");
                return Ok(Err(FetchError::NotConnected));
            }
        };
        let answer = match timeout(ANSWER_TIMEOUT, client.fetch_release(request.clone())).await {
            Ok(Err(status)) if status.code() == Code::NotFound => return Ok(Err(FetchError::Gone)),
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                return Ok(Err(FetchError::Changed));
            }
            answer => self.heard(answer).await?,
        };
        Ok(Ok(answer.into_inner().map(read_chunk).boxed()))
    }
}

#[async_trait]
impl Fetch for Bulk {
    async fn open(&self, app: &AppName, key: &ReleaseKey, offset: u64) -> Result<Chunks, FetchError> {
        let request = pb::FetchReleaseRequest { app: app.to_string(), key: Some(key.into()), offset };
        let answer = once_more(|| self.fetch_once(&request)).await;
        answer.unwrap_or_else(|error| Err(FetchError::Interrupted(error.into())))
    }
}

fn read_chunk(chunk: Result<pb::ReleaseChunk, Status>) -> Result<bytes::Bytes, FetchError> {
    match chunk {
        Ok(chunk) if chunk.data.len() <= MAX_RELEASE_CHUNK => Ok(chunk.data),
        Ok(_) => Err(FetchError::Interrupted("a piece is larger than agreed".into())),
        Err(status) => match status.code() {
            Code::NotFound => Err(FetchError::Gone),
            Code::FailedPrecondition => Err(FetchError::Changed),
            _ => Err(FetchError::Interrupted(Box::new(status))),
        },
    }
}
