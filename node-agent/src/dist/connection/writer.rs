//! What goes to the node, as much in one go as is there, and a tick where there is nothing.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt as _, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::Lost;

/// A frame of no length: we are alive.
pub(super) const TICK: Bytes = Bytes::from_static(&[0; 4]);

/// Writes until that fails. `others`: whether more than one call is under way.
pub(super) async fn write<S: AsyncWrite>(
    mut to_node: WriteHalf<S>,
    mut outbox: mpsc::Receiver<Bytes>,
    mut partings: mpsc::UnboundedReceiver<Bytes>,
    tick: Duration,
    others: impl Fn() -> bool,
) -> Lost {
    let mut batch = BytesMut::new();
    loop {
        let mut parting = None;
        tokio::select! {
            biased; // nothing is lost by the order, because all that is there is taken below
            Some(frame) = outbox.recv() => {
                batch.extend_from_slice(&frame);
                // Answers come in bunches, and those who have them ask again: one writing for all is less work, for the node too.
                if others() {
                    yield_now().await;
                }
            }
            frame = partings.recv() => parting = frame,
            () = sleep(tick) => batch.extend_from_slice(&TICK),
        }
        // A parting never overtakes what it takes back: that was in the outbox before it was here.
        let there = partings.len();
        for _ in 0..outbox.len() {
            if let Ok(frame) = outbox.try_recv() {
                batch.extend_from_slice(&frame);
            }
        }
        for frame in parting.into_iter().chain((0..there).filter_map(|_| partings.try_recv().ok())) {
            batch.extend_from_slice(&frame);
        }
        let written = async {
            to_node.write_all(&batch).await?;
            to_node.flush().await
        };
        if let Err(error) = written.await {
            return Lost::of(&error);
        }
        batch.clear();
    }
}
