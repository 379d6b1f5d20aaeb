//! What agents have to tell beside their state is written down as events; and what nobody needs any more is forgotten.

use std::sync::atomic::Ordering;
use std::time::Duration;

use proto::ids::NodeId;
use proto::pb;
use proto::state::{Liveness, Severity};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::agents::{Notice, Told, Turned};
use crate::clock::{Clock, Time};
use crate::db::{Db, DbError, NewEvent};
use crate::error::chain;

/// Written in one transaction.
const BATCH: usize = 256;
const FORGET_EVERY: Duration = Duration::from_hours(1);
/// Events are kept for 90 days.
const KEEP_EVENTS: u64 = 90 * 24 * 3_600_000;
/// Of an agent's own text, in characters.
const LONGEST_TEXT: usize = 2_000;
/// Of its words: kinds, and what its data are called.
const LONGEST_WORD: usize = 64;
/// Data of one event.
const MOST_DATA: usize = 32;
/// How long a batch is tried again.
const PATIENCE: Duration = Duration::from_mins(10);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Until whoever sends them has gone. Agents are told what is recorded, and keep the rest.
pub(super) async fn record(
    db: Db,
    mut notices: mpsc::Receiver<Notice>,
    clock: Clock,
    cancel: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while notices.recv_many(&mut batch, BATCH).await > 0 {
        let now = clock.wall();
        let told = batch.iter().filter_map(|notice| match notice {
            Notice::Event(told) => Some((told.recorded.clone(), told.event.sequence)),
            _ => None,
        });
        let told: Vec<_> = told.collect();
        let events: Vec<NewEvent> = batch.drain(..).filter_map(|notice| event(notice, now)).collect();
        match insist(|| db.record_events(&events), &cancel).await {
            Ok(()) => {}
            // Agents that are up tell them to whoever starts next.
            Err(error) if cancel.is_cancelled() => {
                tracing::warn!(
                    count = events.len(),
                    error = chain(&error),
                    "events are not recorded any more"
                );
                continue;
            }
            Err(error) => {
                tracing::error!(count = events.len(), error = chain(&error), "events of agents were lost");
            }
        }
        for (recorded, sequence) in told {
            recorded.fetch_max(sequence, Ordering::AcqRel);
        }
    }
}

/// A database that is restarted or fails over is back within [`PATIENCE`]. What it refuses for as long as that, it will
/// refuse for ever, and what comes after it must not wait any longer.
async fn insist<W: Future<Output = Result<(), DbError>>>(
    write: impl Fn() -> W,
    cancel: &CancellationToken,
) -> Result<(), DbError> {
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let Err(error) = write().await else { return Ok(()) };
        if cancel.is_cancelled() || begun.elapsed() >= PATIENCE {
            return Err(error);
        }
        tracing::warn!(error = chain(&error), "events of agents cannot be recorded; trying again");
        let _ = cancel.run_until_cancelled(sleep(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn event(notice: Notice, now: Time) -> Option<NewEvent> {
    match notice {
        Notice::Connected { .. } => None,
        Notice::Turned(Turned { node, was, is }) => turned(node, was, is, now),
        Notice::Event(event) => Some(told(event)),
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

fn told(told: Told) -> NewEvent {
    let Told { node, event, at, recorded: _ } = told;
    let pb::AgentEvent { at_unix_ms: _, kind, app, slot, text, data, sequence: _ } = event;
    let severity = match kind.as_str() {
        "crash_restart" | "fell_back" | "watchdog_threshold_warning" | "watchdog_threshold_exceeded" => {
            Severity::Warning
        }
        kind if kind.ends_with("_refused") => Severity::Warning,
        kind if kind.ends_with("_failed") => Severity::Error,
        _ => Severity::Info,
    };
    let mut event = NewEvent::new(at, short(&kind, LONGEST_WORD), severity, short(&text, LONGEST_TEXT));
    event.node = Some(node);
    event.app = app.parse().ok();
    event.slot = proto::ids::Slot::new(slot).ok();
    let data = data.into_iter().take(MOST_DATA);
    event.data =
        data.map(|(key, value)| (short(&key, LONGEST_WORD), short(&value, LONGEST_TEXT).into())).collect();
    event
}

/// Without what a database may refuse: PostgreSQL takes no NUL.
fn short(text: &str, most: usize) -> String {
    text.chars().filter(|it| !it.is_control() || *it == '\n').take(most).collect()
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
            sleep(FORGET_EVERY).await;
        }
    };
    // Each of these is one transaction: broken off, it is done the next time.
    let _ = cancel.run_until_cancelled(forget).await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;
    use std::sync::Arc;

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

    fn of_an_agent(event: pb::AgentEvent) -> Told {
        Told { node: NodeId(uuid::Uuid::nil()), event, at: Time(7), recorded: Arc::default() }
    }

    #[test]
    fn what_an_agent_tells_is_cut_and_names_only_what_can_exist() {
        let long = "x".repeat(10_000);
        let event = pb::AgentEvent {
            kind: "crash_restart".to_owned(),
            app: "../etc".to_owned(),
            slot: 0,
            text: format!("a\0b{long}"),
            data: (0..100).map(|n| (format!("{n}{long}"), long.clone())).collect(),
            ..pb::AgentEvent::default()
        };
        let stored = told(of_an_agent(event));
        assert_eq!((stored.app, stored.slot, stored.text.len()), (None, None, LONGEST_TEXT));
        assert!(stored.text.starts_with("ab"));
        assert_eq!((stored.severity, stored.at), (Severity::Warning, Time(7)));
        assert_eq!(stored.data.len(), MOST_DATA);
        let fits = |(key, value): (&String, &serde_json::Value)| {
            key.len() == LONGEST_WORD && value.as_str().unwrap().len() == LONGEST_TEXT
        };
        assert!(stored.data.iter().all(fits));
        let kind = pb::AgentEvent { kind: long, ..pb::AgentEvent::default() };
        assert_eq!(told(of_an_agent(kind)).kind.len(), LONGEST_WORD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_away_for_a_while_loses_nothing_and_one_that_refuses_holds_up_nobody_for_ever()
    {
        let (tries, running) = (Cell::new(0), CancellationToken::new());
        let failing = |until: u32| {
            let tries = &tries;
            move || {
                tries.set(tries.get() + 1);
                let done = tries.get() > until;
                ready(done.then_some(()).ok_or_else(|| DbError::UnknownEngine { url: String::new() }))
            }
        };
        assert!(insist(failing(5), &running).await.is_ok());
        assert_eq!(tries.get(), 6);
        let begun = Instant::now();
        assert!(insist(failing(u32::MAX), &running).await.is_err());
        assert!(begun.elapsed() < PATIENCE + LONGEST_PAUSE);
        running.cancel();
        let before = tries.get();
        assert!(insist(failing(u32::MAX), &running).await.is_err());
        assert_eq!(tries.get(), before + 1);
    }
}
