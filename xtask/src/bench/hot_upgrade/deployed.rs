//! Ours: a control plane and an agent that keep one replica, which is brought to the other version hot or in full.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::subject::{self, APP, FROM, Subject, TO};
use super::{QUIET, Upgraded};
use crate::bench::fleet::{Fleet, Published};
use crate::bench::now;

const DAY_MS: u64 = 86_400_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Hot,
    Full,
}

pub(super) struct Deployed {
    fleet: Fleet,
    port: u16,
}

impl Deployed {
    pub(super) fn start(subject: &Subject, manner: Manner, port: u16) -> Result<Self> {
        let word = match manner {
            Manner::Hot => "auto",
            Manner::Full => "never",
        };
        let application = format!(
            "  - name: {APP}\n    language: erlang\n    replicas: 1\n    \
             replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 200\n    \
             deploy: {{ strategy: stop_first, hot_upgrade: {word}, stable_after_ms: 500, watch_ms: 0, drain_ms: 0 }}\n"
        );
        let first = Published { app: APP, version: FROM, path: subject.from.clone() };
        let fleet = Fleet::start(&[first], &application)?;
        fleet.stands_on(APP, 1)?;
        Ok(Self { fleet, port })
    }

    /// From the steps that the agent tells of. Nobody asks the control plane meanwhile: that would be measured too.
    pub(super) fn upgrade(&self, subject: &Subject) -> Result<Upgraded> {
        let published = self.publish(subject)?;
        subject::until_serves(self.port, TO)?;
        // It is proved and made permanent meanwhile.
        sleep(QUIET);
        let looked = now();
        let slots = self.fleet.slots(APP)?;
        let upgrade = slots.first().map(|it| &it["upgrade"]).context("there is no replica")?;
        ensure!(
            upgrade["state"] == "done" && upgrade["to"] == TO,
            "the replica was not hot-upgraded to {TO}: {upgrade}; its events: {:?}",
            self.texts()?
        );
        let steps = upgrade["done"].as_array().into_iter().flatten();
        let steps = steps.map(|it| (it["step"].as_str().unwrap_or_default().to_owned(), took(it))).collect();
        let (began, ended) = (self.at("hot_upgrade_started")?, self.at("hot_upgrade_complete")?);
        ensure!(published <= began && began <= ended && ended <= looked, "the clock of the machine was set");
        Ok(Upgraded { began, ended, published: Some(published), steps })
    }

    /// By a stop and a start.
    pub(super) fn replace(&self, subject: &Subject) -> Result<Upgraded> {
        let published = self.publish(subject)?;
        subject::until_serves(self.port, TO)?;
        let ended = now();
        let slots = self.fleet.slots(APP)?;
        let upgrade = slots.first().map(|it| &it["upgrade"]).context("there is no replica")?;
        ensure!(upgrade.is_null(), "the replica was hot-upgraded, and not replaced: {upgrade}");
        Ok(Upgraded { began: published, ended, published: Some(published), steps: Vec::new() })
    }

    fn publish(&self, subject: &Subject) -> Result<Instant> {
        let next = Published { app: APP, version: TO, path: subject.to.clone() };
        self.fleet.publish(&next)?;
        Ok(now())
    }

    /// When the one event of this kind happened.
    #[expect(clippy::disallowed_methods, reason = "an event has a time of day")]
    fn at(&self, kind: &str) -> Result<Instant> {
        let events = self.fleet.events(APP)?;
        let event = events.iter().find(|it| it["kind"] == kind);
        let event = event.with_context(|| format!("there is no event {kind}"))?;
        let then = event["at"].as_str().and_then(ms_of_day);
        let then = then.with_context(|| format!("{} is no time", event["at"]))?;
        let ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let ago = Duration::from_millis(since(then, u64::try_from(ms)? % DAY_MS));
        now().checked_sub(ago).context("the machine runs for less long")
    }

    fn texts(&self) -> Result<Vec<String>> {
        let events = self.fleet.events(APP)?;
        Ok(events.iter().filter_map(|it| it["text"].as_str()).map(str::to_owned).collect())
    }
}

/// Milliseconds of a step.
fn took(step: &Value) -> f64 {
    step["took_ms"].as_f64().unwrap_or(f64::NAN)
}

/// Of `2026-11-23T04:17:44.123Z`.
fn ms_of_day(time: &str) -> Option<u64> {
    let (_, clock) = time.trim_end_matches('Z').split_once('T')?;
    let (whole, thousandths) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = whole.split(':').map(str::parse::<u64>);
    let [hours, minutes, seconds] = [parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?];
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000 + thousandths.parse::<u64>().ok()?)
}

/// Also where midnight was in between.
fn since(then: u64, now: u64) -> u64 {
    (now + DAY_MS - then) % DAY_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_an_event_is_so_long_ago() {
        assert_eq!(ms_of_day("2026-11-23T04:17:44.123Z"), Some(15_464_123));
        assert_eq!(ms_of_day("2026-11-23"), None);
        let midnight = ms_of_day("2026-11-23T23:59:59.900Z").unwrap();
        assert_eq!((since(midnight, 50), since(100, 350)), (150, 250));
    }
}
