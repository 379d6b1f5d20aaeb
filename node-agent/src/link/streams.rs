//! What the control plane asks for through the session and is given as a stream of its own: a log that is read, or one answer.
//!
//! Each is a task, and all of them together are bounded. It ends when nobody reads it any more, and with it what it does.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use proto::agent::MAX_STREAM_CHUNK;
use proto::pb;
use proto::pb::open_stream::Kind;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::Wiring;
use super::bulk::{ANSWER_TIMEOUT, Bulk};
use crate::logs;

/// Streams at once: each is a person looking at something.
const STREAMS: usize = 32;

/// Who can have an expression evaluated by what runs here: the supervisor, and another in tests.
pub trait Evaluate: Send + Sync {
    /// What is to be waited for. Dropped, it ends on the node as well.
    ///
    /// # Errors
    /// Where it cannot be evaluated: why, a sentence.
    fn evaluate(&self, wish: pb::Evaluate) -> Result<BoxFuture<'static, pb::Evaluated>, String>;
}

/// Begins what is asked for; `Err`: why not, a sentence.
pub(super) fn open(wiring: &Wiring, bulk: &Arc<Bulk>, open: pb::OpenStream) -> Result<(), String> {
    let pb::OpenStream { stream_id: id, kind } = open;
    let kind = kind.ok_or("this agent is too old for that: upgrade it")?;
    if wiring.streams.len() >= STREAMS {
        return Err("too many streams are open on this node".to_owned());
    }
    let (bulk, ending) = (Arc::clone(bulk), wiring.ending.clone());
    match kind {
        Kind::FollowLog(wish) => {
            let follow = logs::Follow::new(&wiring.logs, &wish).map_err(|error| error.to_string())?;
            wiring.streams.spawn(serve(bulk, id, ending, |chunks| follow.run(chunks)));
        }
        Kind::ReadLogo(wish) => {
            let logos = wiring.logos.clone();
            wiring.streams.spawn(serve(bulk, id, ending, |chunks| async move {
                match logos.give(wish).await {
                    Ok(logo) => give(logo.to_bytes().into(), &chunks).await,
                    Err(why) => say(why, &chunks).await,
                }
            }));
        }
        Kind::Evaluate(wish) => {
            let evaluation = wiring.evaluate.evaluate(wish)?;
            wiring.streams.spawn(serve(bulk, id, ending, |chunks| async move {
                give(evaluation.await.to_bytes().into(), &chunks).await;
            }));
        }
    }
    Ok(())
}

/// Over the second connection, until either end has enough. Nothing is begun before the control plane has taken the stream.
async fn serve<F: Future<Output = ()>>(
    bulk: Arc<Bulk>,
    id: String,
    ending: CancellationToken,
    work: impl FnOnce(mpsc::Sender<pb::StreamChunk>) -> F,
) {
    let (sender, mut answer) = match bulk.stream(&id).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot open a stream");
            return;
        }
    };
    tokio::select! {
        biased; // when nobody reads any more, nothing is done any more
        () = ending.cancelled() => {}
        _ = answer.message() => {}
        () = work(sender) => read_out(answer).await,
    }
}

/// What was sent last is still on its way: the control plane ends the call when it has read it all.
async fn read_out(mut answer: Streaming<pb::StreamChunk>) {
    drop(timeout(ANSWER_TIMEOUT, answer.message()).await);
}

/// Why there is nothing to be given.
async fn say(error: String, chunks: &mpsc::Sender<pb::StreamChunk>) {
    // A reader that has gone needs no reason.
    drop(chunks.send(pb::StreamChunk { error, ..Default::default() }).await);
}

async fn give(mut rest: Bytes, chunks: &mpsc::Sender<pb::StreamChunk>) {
    while !rest.is_empty() {
        let data = rest.split_to(rest.len().min(MAX_STREAM_CHUNK));
        // Nobody reads any more: then nobody needs it.
        if chunks.send(pb::StreamChunk { data, ..Default::default() }).await.is_err() {
            return;
        }
    }
}
