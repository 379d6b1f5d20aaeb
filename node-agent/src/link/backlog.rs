//! Events that wait until the control plane can be told: in their order, and never more than a few hundred. Where more happens
//! while it is away, the oldest of the kind that there is most of goes first, so that a thousand crashes hide nothing else; how
//! many went is told with the rest.

use std::collections::{BTreeMap, VecDeque};

use proto::pb;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clock;

/// Some hundred bytes each.
const MOST: usize = 512;

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<pb::AgentEvent>,
    of_kind: BTreeMap<String, usize>,
    dropped: BTreeMap<String, u64>,
}

impl Backlog {
    fn push(&mut self, event: pb::AgentEvent) {
        if self.waiting.len() >= MOST {
            self.drop_one();
        }
        *self.of_kind.entry(event.kind.clone()).or_default() += 1;
        self.waiting.push_back(event);
    }

    fn drop_one(&mut self) {
        let most = self.of_kind.iter().max_by_key(|(_, count)| **count).map(|(kind, _)| kind.clone());
        let oldest = self.waiting.iter().position(|it| Some(&it.kind) == most.as_ref());
        if let Some(oldest) = oldest.and_then(|at| self.waiting.remove(at)) {
            warn!(
                event = oldest.text,
                "too many events wait for the control plane; this one is in the log alone"
            );
            self.forget(&oldest.kind);
            *self.dropped.entry(oldest.kind).or_default() += 1;
        }
    }

    fn forget(&mut self, kind: &str) {
        if let Some(count) = self.of_kind.get_mut(kind) {
            *count -= 1;
            if *count == 0 {
                self.of_kind.remove(kind);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.dropped.is_empty()
    }

    /// The oldest; before it, what is missing.
    fn pop(&mut self, now_unix_ms: u64) -> Option<pb::AgentEvent> {
        let dropped = std::mem::take(&mut self.dropped);
        if !dropped.is_empty() {
            let kinds = dropped.iter().map(|(kind, count)| format!("{count} of {kind}")).collect::<Vec<_>>();
            let text = format!(
                "events of this node that waited for the control plane were too many, and the oldest are in the agent's \
                 log alone: {}",
                kinds.join(", ")
            );
            let kind = "events_dropped".to_owned();
            return Some(pb::AgentEvent { at_unix_ms: now_unix_ms, kind, text, ..Default::default() });
        }
        let event = self.waiting.pop_front()?;
        self.forget(&event.kind);
        Some(event)
    }
}

/// Takes whatever happens, at once, and hands it on as fast as it is taken.
pub(super) async fn relay(
    mut events: mpsc::Receiver<pb::AgentEvent>,
    told: mpsc::Sender<pb::AgentEvent>,
    cancel: CancellationToken,
) {
    let mut backlog = Backlog::default();
    loop {
        tokio::select! {
            biased; // stopping comes before all, and what happens before what is told of it
            () = cancel.cancelled() => return,
            Some(event) = events.recv() => backlog.push(event),
            Ok(room) = told.reserve(), if !backlog.is_empty() => {
                if let Some(event) = backlog.pop(clock::unix_ms()) {
                    room.send(event);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;

    fn event(kind: &str, number: usize) -> pb::AgentEvent {
        pb::AgentEvent { kind: kind.to_owned(), text: number.to_string(), ..Default::default() }
    }

    #[test]
    fn a_flood_of_one_kind_hides_no_other_and_what_is_missing_is_told() {
        let mut backlog = Backlog::default();
        backlog.push(event("forced_restart", 0));
        for number in 0..2 * MOST {
            backlog.push(event("crash_restart", number));
        }
        backlog.push(event("restarted_for_memory", 1));
        assert_eq!(backlog.waiting.len(), MOST);
        let told: Vec<_> = std::iter::from_fn(|| backlog.pop(7)).collect();
        assert_eq!((told[0].kind.as_str(), told[0].at_unix_ms), ("events_dropped", 7));
        assert!(told[0].text.ends_with(&format!(": {} of crash_restart", MOST + 2)), "{}", told[0].text);
        assert_eq!(told[1].kind, "forced_restart");
        // The newest of the flood, in their order.
        assert_eq!(told[2].text, (MOST + 2).to_string());
        assert_eq!(told[told.len() - 2].text, (2 * MOST - 1).to_string());
        assert_eq!(told.last().unwrap().kind, "restarted_for_memory");
        assert!(backlog.is_empty() && backlog.of_kind.is_empty());
    }

    #[tokio::test]
    async fn what_happens_is_taken_while_nobody_is_told() {
        let (happens, events) = mpsc::channel(1);
        let (told, mut hears) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let tracker = TaskTracker::new();
        let relay = tracker.spawn(relay(events, told, cancel.clone()));
        for number in 0..100 {
            happens.send(event("crash_restart", number)).await.unwrap();
        }
        for number in 0..100 {
            assert_eq!(hears.recv().await.unwrap().text, number.to_string());
        }
        cancel.cancel();
        relay.await.unwrap();
    }
}
