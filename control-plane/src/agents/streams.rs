//! Streams on demand: the control plane asks through the session, the agent dials in with the stream's id, and whoever asked
//! reads at their own pace.
//!
//! Nothing is buffered here: HTTP/2's window is the bound, so a slow reader slows the agent's read and nothing else. Dropping
//! the reader ends the agent's side; the agent's end ends the reader.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::agent::MAX_STREAM_CHUNK;
use proto::ids::NodeId;
use proto::pb;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tonic::{Status, Streaming};

/// The agent has to dial perhaps, then to open a file.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams at once over all agents: each is a person looking at something.
const STREAMS: usize = 1_024;

#[derive(Debug, thiserror::Error)]
pub enum OpenStreamError {
    #[error("the node is not connected")]
    NotConnected,
    #[error("the node did not answer within {} seconds", OPEN_TIMEOUT.as_secs())]
    TimedOut,
    #[error("{0}")]
    Refused(String),
    #[error("too many streams are open: close one first")]
    TooMany,
}

/// A stream that an agent has opened for us.
pub struct AgentStream {
    chunks: Streaming<pb::StreamChunk>,
    /// Its end tells the agent that nobody reads any more.
    _reading: mpsc::Sender<Result<pb::StreamChunk, Status>>,
    _place: Arc<OwnedSemaphorePermit>,
}

/// Why a stream ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum StreamEnded {
    #[error("{0}")]
    ByAgent(String),
    #[error("the connection to the node broke")]
    Broken(#[source] Box<Status>),
    #[error("the node sent more than was agreed")]
    TooLarge,
}

impl AgentStream {
    /// `None`: the stream is at its end.
    pub async fn next(&mut self) -> Option<Result<pb::StreamChunk, StreamEnded>> {
        match self.chunks.message().await {
            Ok(Some(chunk)) if !chunk.error.is_empty() => Some(Err(StreamEnded::ByAgent(chunk.error))),
            Ok(Some(chunk)) if chunk.data.len() > MAX_STREAM_CHUNK => Some(Err(StreamEnded::TooLarge)),
            Ok(Some(chunk)) => Some(Ok(chunk)),
            Ok(None) => None,
            Err(status) => Some(Err(StreamEnded::Broken(Box::new(status)))),
        }
    }

    /// One answer, in pieces up to the stream's end: all of it, and no more than `most` bytes.
    pub async fn whole(mut self, most: usize) -> Result<Vec<u8>, StreamEnded> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.next().await {
            let data = chunk?.data;
            if whole.len() + data.len() > most {
                return Err(StreamEnded::TooLarge);
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole)
    }
}

/// What the agent's call becomes once it has named a stream that is waited for.
type Joined = (Streaming<pb::StreamChunk>, mpsc::Sender<Result<pb::StreamChunk, Status>>);

struct Awaited {
    node: NodeId,
    answer: oneshot::Sender<Result<Joined, OpenStreamError>>,
}

/// The streams that were asked for and are not open yet, by an id that nobody can guess.
pub(super) struct Streams {
    awaited: Mutex<HashMap<String, Awaited>>,
    places: Arc<Semaphore>,
}

/// A stream that was asked for. Dropping it takes the question back.
pub(super) struct Asked<'a> {
    pub(super) id: String,
    streams: &'a Streams,
    answer: oneshot::Receiver<Result<Joined, OpenStreamError>>,
    place: Arc<OwnedSemaphorePermit>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { awaited: Mutex::default(), places: Arc::new(Semaphore::new(STREAMS)) }
    }
}

impl Streams {
    pub(super) fn ask(&self, node: NodeId) -> Result<Asked<'_>, OpenStreamError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| OpenStreamError::TooMany)?;
        let id = format!("{:032x}", rand::random::<u128>());
        let (answer, receiver) = oneshot::channel();
        self.lock().insert(id.clone(), Awaited { node, answer });
        Ok(Asked { id, streams: self, answer: receiver, place: Arc::new(place) })
    }

    /// The agent has dialled in. `None`: nobody waits for that stream of that node.
    pub(super) fn join(&self, node: NodeId, id: &str, joined: Joined) -> Option<()> {
        self.take(node, id)?.answer.send(Ok(joined)).ok()
    }

    pub(super) fn refuse(&self, node: NodeId, id: &str, why: &str) {
        if let Some(awaited) = self.take(node, id) {
            let why = why.chars().take(500).collect();
            // Whoever asked may have gone: then nobody needs the answer.
            drop(awaited.answer.send(Err(OpenStreamError::Refused(why))));
        }
    }

    /// An id is good for one use by one node; another node's guess leaves it as it is.
    fn take(&self, node: NodeId, id: &str) -> Option<Awaited> {
        let mut awaited = self.lock();
        if awaited.get(id)?.node == node { awaited.remove(id) } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Awaited>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked<'_> {
    pub(super) async fn opened(mut self) -> Result<AgentStream, OpenStreamError> {
        let answer = tokio::time::timeout(OPEN_TIMEOUT, &mut self.answer).await;
        let (chunks, reading) = match answer {
            Ok(Ok(answer)) => answer?,
            Ok(Err(_)) => return Err(OpenStreamError::NotConnected),
            Err(_) => return Err(OpenStreamError::TimedOut),
        };
        Ok(AgentStream { chunks, _reading: reading, _place: Arc::clone(&self.place) })
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.streams.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        NodeId(uuid::Uuid::now_v7())
    }

    #[tokio::test]
    async fn a_refusal_reaches_whoever_asked() {
        let (streams, node) = (Streams::default(), node());
        let asked = streams.ask(node).unwrap();
        streams.refuse(node, &asked.id, "no such log");
        assert!(matches!(asked.opened().await, Err(OpenStreamError::Refused(why)) if why == "no such log"));
    }

    #[tokio::test]
    async fn another_node_cannot_answer() {
        let (streams, one) = (Streams::default(), node());
        let asked = streams.ask(one).unwrap();
        streams.refuse(node(), &asked.id, "mine now");
        assert!(streams.take(one, &asked.id).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_never_dials_is_given_up_and_forgotten() {
        let streams = Streams::default();
        let asked = streams.ask(node()).unwrap();
        assert!(matches!(asked.opened().await, Err(OpenStreamError::TimedOut)));
        assert!(streams.lock().is_empty());
        assert_eq!(streams.places.available_permits(), STREAMS);
    }
}
