//! Has the node of a slot's process count the events that its application asks for, reads them every ten seconds, and takes it
//! all back where nothing is asked for any more. What is counted where, `beam::telemetry` knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proto::pb;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use crate::beam::telemetry::{self, LEASE, Reading, Row, Turn, Value, Wishes};
use crate::clock;
use crate::dist::connection::Connection;
use crate::dist::link::Standing;
use crate::supervisor::acts::chain;
use crate::supervisor::{Shared, SlotId};

const EVERY: Duration = Duration::from_secs(10);
/// A node is met while it boots: until it counts, and as long as it may still load what names an event.
const SOON: Duration = Duration::from_secs(2);
const SOON_TURNS: u32 = 30;
/// In a row, before what was read last counts no more.
const FAILURES: u32 = 3;
/// Where somebody ran in the module that was to be removed.
const REMOVE_AGAIN: Duration = Duration::from_secs(1);

/// Whose events, and which.
pub(super) struct Counted {
    pub(super) id: SlotId,
    pub(super) shared: Arc<Shared>,
    pub(super) wished: watch::Receiver<Vec<String>>,
}

impl Counted {
    /// While there is a connection. Ends with whoever tells how it stands.
    pub(super) async fn run(mut self, mut standing: watch::Receiver<Standing>) {
        loop {
            let connection = match &*standing.borrow_and_update() {
                Standing::Connected { connection, .. } => Some(connection.for_another()),
                Standing::Dialling | Standing::Without(_) => None,
            };
            let counting = async {
                match connection {
                    Some(connection) => self.over(&connection).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased; // a connection that is gone comes before asking over it
                changed = standing.changed() => if changed.is_err() { return },
                () = counting => {}
            }
        }
    }

    /// Until nobody wishes anything any more, for ever.
    async fn over(&mut self, connection: &Connection) {
        loop {
            let wishes = Wishes::of(&self.wished.borrow_and_update());
            let mut wished = self.wished.clone();
            let work = async {
                match wishes {
                    Some(wishes) => self.count(connection, &wishes).await,
                    None => remove(connection, &self.id).await,
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased; // what is wished now comes before what was
                changed = wished.changed() => if changed.is_err() { return },
                () = work => {}
            }
        }
    }

    async fn count(&self, connection: &Connection, wishes: &Wishes) {
        let mut before: Option<Before> = None;
        let mut failed = 0_u32;
        for round in 0_u32.. {
            let sample = match telemetry::turn(connection, wishes, LEASE).await {
                Ok(Turn::Told(reading)) => {
                    let now = Before { at: Instant::now(), counts: counts(&reading) };
                    let sample = self.sample(&reading, before.as_ref(), now.at);
                    (before, failed) = (Some(now), 0);
                    sample
                }
                Ok(Turn::Without(fault)) => self.without(fault),
                Err(error) => {
                    failed += 1;
                    // A VM that is busy for a moment: what was read before is not old yet.
                    if failed < FAILURES && before.is_some() {
                        sleep(SOON).await;
                        continue;
                    }
                    self.without(format!("its events cannot be read: {}", chain(&error)))
                }
            };
            let is_settled = sample.fault.is_empty() && sample.unknown.is_empty();
            self.shared.telemetry.put((self.id.app.clone(), self.id.slot), sample, clock::now());
            sleep(if is_settled || round >= SOON_TURNS { EVERY } else { SOON }).await;
        }
    }

    fn without(&self, fault: String) -> pb::TelemetrySample {
        debug!(id = %self.id, fault, "its events are not counted");
        pb::TelemetrySample { fault, ..self.empty() }
    }

    fn empty(&self) -> pb::TelemetrySample {
        pb::TelemetrySample {
            app: self.id.app.to_string(),
            slot: u32::from(self.id.slot.number()),
            ..Default::default()
        }
    }

    fn sample(&self, reading: &Reading, before: Option<&Before>, now: Instant) -> pb::TelemetrySample {
        let value = |it: &Value| {
            let Value { event, measurement, value } = it.clone();
            pb::TelemetryValue { event, measurement, value }
        };
        pb::TelemetrySample {
            counted_for_ms: reading.up_ms,
            failures: reading.failures,
            unknown: reading.unknown.clone(),
            rows: reading.rows.iter().map(|it| row(it, before, now)).collect(),
            values: reading.values.iter().map(value).collect(),
            ..self.empty()
        }
    }
}

type Label = (String, String, String, u32);

/// What was read before, for rates.
struct Before {
    at: Instant,
    counts: HashMap<Label, u64>,
}

fn label(row: &Row) -> Label {
    (row.event.clone(), row.route.clone(), row.source.clone(), row.status)
}

fn counts(reading: &Reading) -> HashMap<Label, u64> {
    reading.rows.iter().map(|it| (label(it), it.count)).collect()
}

fn row(of: &Row, before: Option<&Before>, now: Instant) -> pb::TelemetryRow {
    let Row { event, route, source, status, count, sum_us, max_us, buckets } = of.clone();
    let per_second = before.map_or(0.0, |before| {
        let passed = now.duration_since(before.at).as_secs_f64().max(0.001);
        per_second(before.counts.get(&label(of)).copied().unwrap_or(0), count, passed)
    });
    pb::TelemetryRow { event, route, source, status, count, per_second, sum_us, max_us, buckets }
}

/// What is less than before began anew.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per_second(before: u64, now: u64, seconds: f64) -> f64 {
    let more = if now < before { now } else { now - before };
    more as f64 / seconds
}

/// Also what an agent before this one began.
async fn remove(connection: &Connection, id: &SlotId) {
    loop {
        let removed = match telemetry::is_there(connection).await {
            Ok(true) => telemetry::remove(connection).await,
            Ok(false) => return,
            Err(error) => Err(error),
        };
        match removed {
            Ok(true) => return info!(%id, "its events are not counted any more"),
            Ok(false) => debug!(%id, "somebody runs in the module that is to be removed"),
            Err(error) => debug!(%id, error = chain(&error), "what counts its events cannot be removed yet"),
        }
        sleep(REMOVE_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(count: u64) -> Reading {
        let row = Row { event: "shop.stop".to_owned(), count, ..Row::default() };
        Reading { rows: vec![row], ..Reading::default() }
    }

    #[test]
    fn a_rate_is_of_the_time_since_the_reading_before_and_one_that_began_anew_is_no_less() {
        let began = Instant::now();
        let before = Before { at: began, counts: counts(&reading(10)) };
        let rate = |count, before: Option<&Before>| {
            row(&reading(count).rows[0], before, began + Duration::from_secs(10)).per_second
        };
        assert!((rate(30, Some(&before)) - 2.0).abs() < 0.001);
        assert!((rate(5, Some(&before)) - 0.5).abs() < 0.001, "counted since it began anew");
        assert!(rate(30, None).abs() < f64::EPSILON, "of the first nobody knows");
    }
}
