//! Bringing to the disk what was laid into a slot, once it was launched. Nobody waits for it, and it holds nothing that
//! anybody waits for: a slot is stopped, swapped and removed meanwhile as at any other time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;

use super::super::Shared;
use super::{SlotContext, chain};

/// A program that starts needs the disk more, and what slots that start together laid is flushed together. A power cut
/// before costs what was staged being staged again from the host's copy.
const AFTER: Duration = Duration::from_secs(5);

/// Bears repeating: what is on the disk costs a look.
pub(in crate::supervisor) fn flush(shared: &Arc<Shared>, context: &Arc<SlotContext>) {
    let (shared, context) = (shared.clone(), context.clone());
    shared.tracker.clone().spawn(async move {
        let turn = async {
            sleep(AFTER).await;
            shared.flushing.lock().await
        };
        let _turn = tokio::select! {
            // An agent that stops leaves it to the next one.
            biased;
            () = shared.cancel.cancelled() => return,
            turn = turn => turn,
        };
        if let Err(error) = context.folder.flush().await {
            let fault = chain(&error);
            warn!(slot = %context.id, fault, "what lies in the slot is not known to outlive a power cut");
        }
    });
}
