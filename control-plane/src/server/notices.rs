//! What agents have to tell beside their state is written down as events; and what nobody needs any more is forgotten.

use std::time::Duration;

use proto::ids::NodeId;
use proto::pb;
use proto::state::{Liveness, Severity};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::agents::{Notice, Turned};
use crate::clock::{Clock, Time};
use crate::db::{Db, NewEvent};
use crate::error::chain;

/// Written in one transaction.
const BATCH: usize = 256;
const FORGET_EVERY: Duration = Duration::from_hours(1);
/// Events are kept for 90 days.
const KEEP_EVENTS: u64 = 90 * 24 * 3_600_000;
/// Of an agent's own text.
const LONGEST_TEXT: usize = 2_000;

/// Until whoever sends them has gone.
pub(super) async fn record(db: Db, mut notices: mpsc::Receiver<Notice>, clock: Clock) {
    let mut batch = Vec::with_capacity(BATCH);
    while notices.recv_many(&mut batch, BATCH).await > 0 {
        let now = clock.wall();
        let events: Vec<NewEvent> = batch.drain(..).filter_map(|notice| event(notice, now)).collect();
        if let Err(error) = db.record_events(&events).await {
            tracing::error!(count = events.len(), error = chain(&error), "events of agents were lost");
        }
    }
}

fn event(notice: Notice, now: Time) -> Option<NewEvent> {
    match notice {
        Notice::Connected { .. } => None,
        Notice::Turned(Turned { node, was, is }) => turned(node, was, is, now),
        Notice::Event { node, event } => Some(told(node, event, now)),
    }
}

fn turned(node: NodeId, was: Liveness, is: Liveness, now: Time) -> Option<NewEvent> {
    let (kind, severity, text) = match (was, is) {
        (_, Liveness::Lost) => ("node_lost", Severity::Error, "is not heard any more"),
        (Liveness::Lost, Liveness::Up) => ("node_back", Severity::Info, "is connected"),
        // Silent for a moment: nothing is decided from it, and nothing is worth remembering.
        _ => return None,
    };
    let mut event = NewEvent::new(now, kind, severity, text);
    event.node = Some(node);
    Some(event)
}

fn told(node: NodeId, told: pb::AgentEvent, now: Time) -> NewEvent {
    let pb::AgentEvent { at_unix_ms: _, kind, app, slot, text, data } = told;
    let severity = match kind.as_str() {
        "crash_restart" => Severity::Warning,
        kind if kind.ends_with("_failed") => Severity::Error,
        _ => Severity::Info,
    };
    let text: String = text.chars().take(LONGEST_TEXT).collect();
    let mut event = NewEvent::new(now, kind, severity, text);
    event.node = Some(node);
    event.app = app.parse().ok();
    event.slot = proto::ids::Slot::new(slot).ok();
    event.data = data.into_iter().map(|(key, value)| (key, value.into())).collect();
    event
}

/// Expired sessions, dead tokens and old events.
pub(super) async fn forget_old(db: Db, clock: Clock, cancel: CancellationToken) {
    let forget = async {
        loop {
            let now = clock.wall();
            let done = async {
                db.forget_expired_sessions(now).await?;
                db.forget_dead_join_tokens(now).await?;
                db.forget_events_before(Time(now.0.saturating_sub(KEEP_EVENTS))).await
            };
            if let Err(error) = done.await {
                tracing::warn!(error = chain(&error), "what is old could not be forgotten; trying again");
            }
            tokio::time::sleep(FORGET_EVERY).await;
        }
    };
    // Each of these is one transaction: broken off, it is done the next time.
    let _ = cancel.run_until_cancelled(forget).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_node_and_its_return_are_remembered_and_a_moments_silence_is_not() {
        let node = NodeId(uuid::Uuid::nil());
        let kind = |was, is| turned(node, was, is, Time(0)).map(|event| event.kind);
        assert_eq!(kind(Liveness::Suspect, Liveness::Lost).as_deref(), Some("node_lost"));
        assert_eq!(kind(Liveness::Lost, Liveness::Up).as_deref(), Some("node_back"));
        assert_eq!(kind(Liveness::Up, Liveness::Suspect), None);
        assert_eq!(kind(Liveness::Suspect, Liveness::Up), None);
    }

    #[test]
    fn what_an_agent_tells_is_cut_and_names_only_what_can_exist() {
        let event = pb::AgentEvent {
            kind: "crash_restart".to_owned(),
            app: "../etc".to_owned(),
            slot: 0,
            text: "x".repeat(10_000),
            ..pb::AgentEvent::default()
        };
        let stored = told(NodeId(uuid::Uuid::nil()), event, Time(0));
        assert_eq!((stored.app, stored.slot, stored.text.len()), (None, None, LONGEST_TEXT));
        assert_eq!(stored.severity, Severity::Warning);
    }
}
