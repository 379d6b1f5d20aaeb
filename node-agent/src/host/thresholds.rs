//! When a host's memory or disk has passed a limit, and which replica is restarted for it. Pure.
//!
//! Levels rise and fall as `gauge` has it. A restart is the last resort of a host that would otherwise run out
//! of memory: the largest ready replica, one at a time, with a pause between two that grows while restarts do not help.
//!
//! ```text
//!   normal ──3 looks ≥ warning──▶ warning ──3 looks ≥ restart──▶ exceeded: restart the largest, then wait
//!      ▲◀── < warning − 2 ───────────┘ ◀────── < restart − 2 ───────┘        (cooldown; ready again; nothing moves)
//! ```

use std::fmt;

use proto::ids::{AppName, Slot};
use proto::state::HostLevel;
use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::gauge::{Bounds, Gauge};

/// Where restarts do not help the pause doubles, from at least this up to at most an hour (or the cooldown, if that is longer).
const LEAST_DOUBLED: u64 = 30_000;
const LONGEST_PAUSE: u64 = 3_600_000;
/// What was restarted is waited for twice as long as the pause, and at least twice this.
const LEAST_PATIENCE: u64 = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Figure {
    Memory,
    Disk,
}

impl Figure {
    pub fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// In percent of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub warning: u32,
    /// `None`: nothing is restarted.
    pub restart: Option<u32>,
    /// Milliseconds, at least, between two restarts.
    pub cooldown: u64,
}

/// What is watched. `None`: not watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub memory: Option<Limit>,
    pub disk: Option<Limit>,
}

impl Limits {
    pub fn of(self, figure: Figure) -> Option<Limit> {
        match figure {
            Figure::Memory => self.memory,
            Figure::Disk => self.disk,
        }
    }

    pub fn watch_nothing(self) -> bool {
        self == Self::default()
    }
}

/// A replica of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub app: AppName,
    pub slot: Slot,
    pub pid: u32,
    /// Resident, with its children where that can be told.
    pub bytes: u64,
    pub standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Ready for so long that it counts as stable: may be restarted.
    Ready,
    /// It is starting or stopping.
    Moving,
    /// Its release is being exchanged or on trial: its rollout looks after it.
    Deploying,
    /// It does not run, or not well.
    Other,
}

/// One look at the host. `None`: that figure could not be had.
pub struct Look<'a> {
    pub now: Time,
    pub memory: Option<f64>,
    pub disk: Option<f64>,
    pub replicas: &'a [Candidate],
}

/// A level that is another one now.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub figure: Figure,
    pub level: HostLevel,
    pub percent: f64,
    pub limit: Limit,
}

/// Why no replica is restarted although the memory is above its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// After a restart, so many milliseconds longer.
    Cooldown { app: AppName, slot: Slot, left: u64 },
    /// What was restarted is not ready again.
    NotReadyAgain { app: AppName, slot: Slot },
    /// Another one is starting or stopping.
    Moving { app: AppName, slot: Slot },
    /// None is ready, save those whose release is being exchanged.
    NobodyReady,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cooldown { app, slot, left } => write!(
                f,
                "slot {slot} of {app} was restarted for it; the next restart is in {} s at the earliest",
                left.div_ceil(1_000)
            ),
            Self::NotReadyAgain { app, slot } => {
                write!(f, "slot {slot} of {app} was restarted for it and is not ready again yet")
            }
            Self::Moving { app, slot } => {
                write!(f, "nothing is restarted while slot {slot} of {app} is starting or stopping")
            }
            Self::NobodyReady => f.write_str("no replica is ready that could be restarted"),
        }
    }
}

/// What is to be done after a look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    pub changes: Vec<Change>,
    pub restart: Option<Candidate>,
    pub waiting: Option<Waiting>,
}

/// What must survive the agent, so that its successor neither warns nor restarts a second time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thresholds {
    memory: Gauge,
    disk: Gauge,
    restarted: Option<Restarted>,
    /// Restarts in a row after which the memory was still above its limit.
    futile: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Restarted {
    app: AppName,
    slot: Slot,
    at: Time,
}

impl Thresholds {
    /// Takes a look in. At most one replica is to be restarted for it.
    pub fn look(&mut self, limits: Limits, look: &Look<'_>) -> Verdict {
        let mut verdict = Verdict::default();
        for (figure, percent) in [(Figure::Memory, look.memory), (Figure::Disk, look.disk)] {
            let gauge = match figure {
                Figure::Memory => &mut self.memory,
                Figure::Disk => &mut self.disk,
            };
            match (limits.of(figure), percent) {
                // Nobody asks any more: what was passed is forgotten without a word.
                (None, _) => *gauge = Gauge::default(),
                (Some(_), None) => {}
                (Some(limit), Some(percent)) => {
                    if gauge.look(limit.bounds(), percent, look.now) {
                        verdict.changes.push(Change { figure, level: gauge.level, percent, limit });
                    }
                }
            }
        }
        match (self.memory.level, limits.memory) {
            (HostLevel::Exceeded, Some(limit)) => match self.whom(limit.cooldown, look) {
                Ok(candidate) => {
                    self.restart(candidate, look.now);
                    verdict.restart = Some(candidate.clone());
                }
                Err(waiting) => verdict.waiting = Some(waiting),
            },
            _ => self.futile = 0,
        }
        verdict
    }

    /// Nothing was restarted after the last look: its replica had ended meanwhile, or was about to. `before`: what the look began
    /// with. The next look finds another.
    pub fn nothing_restarted(&mut self, before: &Self) {
        self.restarted.clone_from(&before.restarted);
        self.futile = before.futile;
    }

    /// Where a figure stands, and since when.
    pub fn level(&self, figure: Figure) -> (HostLevel, Time) {
        let gauge = match figure {
            Figure::Memory => &self.memory,
            Figure::Disk => &self.disk,
        };
        (gauge.level, gauge.since)
    }

    /// The largest that may be restarted now.
    fn whom<'a>(&self, cooldown: u64, look: &Look<'a>) -> Result<&'a Candidate, Waiting> {
        if let Some(Restarted { app, slot, at }) = &self.restarted {
            let left = self.pause(cooldown).saturating_sub(look.now.since(*at));
            if left > 0 {
                return Err(Waiting::Cooldown { app: app.clone(), slot: *slot, left });
            }
            let again = look.replicas.iter().find(|it| it.app == *app && it.slot == *slot);
            // Nor for ever: one that does not come back must not keep the host from being relieved.
            let patience = self.pause(cooldown).max(LEAST_PATIENCE).saturating_mul(2);
            if again.is_some_and(|it| it.standing != Standing::Ready) && look.now.since(*at) < patience {
                return Err(Waiting::NotReadyAgain { app: app.clone(), slot: *slot });
            }
        }
        let moving = look.replicas.iter().find(|it| it.standing == Standing::Moving);
        // One that starts for ever must not keep the host from being relieved for ever.
        if let Some(moving) = moving.filter(|_| look.now.since(self.memory.since) < cooldown) {
            return Err(Waiting::Moving { app: moving.app.clone(), slot: moving.slot });
        }
        let ready = look.replicas.iter().filter(|it| it.standing == Standing::Ready && it.bytes > 0);
        // Of equals the first: the same whoever decides again.
        ready.rev().max_by_key(|it| it.bytes).ok_or(Waiting::NobodyReady)
    }

    fn pause(&self, cooldown: u64) -> u64 {
        match self.futile {
            0 => cooldown,
            times => {
                let doubled = cooldown.max(LEAST_DOUBLED).saturating_mul(1 << times.min(16));
                doubled.min(LONGEST_PAUSE.max(cooldown))
            }
        }
    }

    fn restart(&mut self, candidate: &Candidate, now: Time) {
        let is_again = self.restarted.as_ref().is_some_and(|it| it.at >= self.memory.since);
        self.futile = if is_again { self.futile.saturating_add(1) } else { 0 };
        self.restarted = Some(Restarted { app: candidate.app.clone(), slot: candidate.slot, at: now });
    }
}

impl Limit {
    fn bounds(self) -> Bounds {
        Bounds { warning: self.warning, restart: self.restart }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Limit = Limit { warning: 75, restart: Some(90), cooldown: 300_000 };
    const DISK: Limit = Limit { warning: 90, restart: None, cooldown: 300_000 };
    const LIMITS: Limits = Limits { memory: Some(MEMORY), disk: Some(DISK) };

    fn replica(app: &str, slot: u32, mib: u64, standing: Standing) -> Candidate {
        let (app, slot) = (app.parse().unwrap(), Slot::new(slot).unwrap());
        Candidate { app, slot, pid: 7, bytes: mib << 20, standing }
    }

    /// A host that is looked at every five seconds.
    struct Host {
        thresholds: Thresholds,
        limits: Limits,
        now: Time,
        replicas: Vec<Candidate>,
    }

    impl Host {
        fn new() -> Self {
            let replicas = vec![
                replica("blog", 1, 40, Standing::Ready),
                replica("shop", 1, 700, Standing::Ready),
                replica("shop", 2, 900, Standing::Ready),
            ];
            Self { thresholds: Thresholds::default(), limits: LIMITS, now: Time(0), replicas }
        }

        fn memory(&mut self, percent: f64) -> Verdict {
            self.now = self.now.plus(5_000);
            let look = Look { now: self.now, memory: Some(percent), disk: None, replicas: &self.replicas };
            self.thresholds.look(self.limits, &look)
        }

        /// The levels that were told, and who was restarted when.
        fn through(&mut self, percents: &[f64]) -> (Vec<HostLevel>, Vec<(u64, String)>) {
            let (mut levels, mut restarts) = (Vec::new(), Vec::new());
            for percent in percents {
                let verdict = self.memory(*percent);
                levels.extend(verdict.changes.iter().map(|it| it.level));
                restarts.extend(
                    verdict.restart.map(|it| (self.now.0 / 1_000, format!("{}/{}", it.app, it.slot))),
                );
            }
            (levels, restarts)
        }
    }

    #[test]
    fn the_largest_is_restarted_once_within_the_cooldown() {
        let mut host = Host::new();
        let (_, restarts) = host.through(&[95.0; 60]);
        assert_eq!(restarts, [(15, "shop/2".to_owned())]);
        let waiting = host.memory(95.0).waiting.unwrap().to_string();
        assert_eq!(
            waiting,
            "slot 2 of shop was restarted for it; the next restart is in 10 s at the earliest"
        );
        // It took its memory with it, and the next one is the largest.
        host.replicas[2].bytes = 100 << 20;
        assert_eq!(host.through(&[95.0; 3]).1, [(315, "shop/1".to_owned())]);
    }

    #[test]
    fn who_does_not_come_back_is_not_waited_for_for_ever() {
        let mut host = Host::new();
        assert_eq!(host.through(&[95.0; 3]).1.len(), 1);
        host.replicas[2].standing = Standing::Other;
        // Twice the cooldown.
        assert_eq!(host.through(&[95.0; 119]).1, []);
        let waiting = host.memory(95.0).waiting.map(|it| it.to_string());
        assert_eq!(waiting, None, "the other is restarted");
        assert_eq!(host.thresholds.restarted.as_ref().map(|it| it.slot.number()), Some(1));
    }

    #[test]
    fn a_restart_that_nobody_took_does_not_count() {
        let mut host = Host::new();
        host.through(&[95.0; 2]);
        let before = host.thresholds.clone();
        assert!(host.memory(95.0).restart.is_some());
        host.thresholds.nothing_restarted(&before);
        assert!(host.memory(95.0).restart.is_some(), "at the next look");
        assert_eq!(host.thresholds.futile, 0);
    }

    #[test]
    fn where_restarts_do_not_help_they_become_rare() {
        let mut host = Host::new();
        let (_, restarts) = host.through(&vec![95.0; 3_000]);
        let at: Vec<u64> = restarts.iter().map(|it| it.0).collect();
        let apart: Vec<u64> = at.windows(2).map(|it| it[1] - it[0]).collect();
        assert_eq!(apart, [300, 600, 1_200, 2_400, 3_600, 3_600]);
        // Once the memory is free again, it begins from the cooldown.
        host.through(&[10.0]);
        let (_, restarts) = host.through(&[95.0; 1_000]);
        let at: Vec<u64> = restarts.iter().map(|it| it.0).collect();
        assert_eq!(at[1] - at[0], 300);
    }

    #[test]
    fn one_at_a_time_and_nobody_who_is_being_deployed() {
        let mut host = Host::new();
        host.replicas[2].standing = Standing::Deploying;
        assert_eq!(host.through(&[95.0; 3]).1, [(15, "shop/1".to_owned())]);
        // Long after the cooldown it is not ready again: nobody else is stopped meanwhile.
        host.replicas[1].standing = Standing::Other;
        host.replicas[2].standing = Standing::Ready;
        assert_eq!(host.through(&[95.0; 110]).1, []);
        let again = Waiting::NotReadyAgain { app: "shop".parse().unwrap(), slot: Slot::new(1).unwrap() };
        assert_eq!(host.memory(95.0).waiting, Some(again));
        host.replicas[1].standing = Standing::Ready;
        assert!(host.memory(95.0).restart.is_some());
    }

    #[test]
    fn one_that_starts_is_waited_for_and_not_for_ever() {
        let mut host = Host::new();
        host.replicas[0].standing = Standing::Moving;
        host.through(&[95.0; 3]);
        let moving = Waiting::Moving { app: "blog".parse().unwrap(), slot: Slot::new(1).unwrap() };
        assert_eq!(host.memory(95.0).waiting, Some(moving));
        assert_eq!(host.through(&[95.0; 100]).1, [(315, "shop/2".to_owned())]);
    }

    #[test]
    fn without_a_ready_replica_it_says_so() {
        let mut host = Host::new();
        host.replicas.clear();
        let (levels, restarts) = host.through(&[95.0; 3]);
        assert_eq!((levels, restarts.len()), (vec![HostLevel::Exceeded], 0));
        assert_eq!(host.memory(95.0).waiting, Some(Waiting::NobodyReady));
    }

    #[test]
    fn a_successor_goes_on_where_the_agent_was() {
        let mut host = Host::new();
        host.through(&[95.0; 10]);
        let stored = serde_json::to_string(&host.thresholds).unwrap();
        host.thresholds = serde_json::from_str(&stored).unwrap();
        let (levels, restarts) = host.through(&[95.0; 50]);
        assert_eq!((levels, restarts), (vec![], vec![]), "neither told nor done again");
        assert_eq!(serde_json::from_str::<Thresholds>("{}").unwrap(), Thresholds::default());
    }

    #[test]
    fn a_disk_is_warned_of_and_restarts_nothing() {
        let mut host = Host::new();
        let mut levels = Vec::new();
        for (at, percent) in [95.0, 96.0, 97.0, 99.0, 100.0, 88.5, 87.0].into_iter().enumerate() {
            let now = Time(at as u64 * 5_000);
            let look = Look { now, memory: Some(10.0), disk: Some(percent), replicas: &host.replicas };
            let verdict = host.thresholds.look(LIMITS, &look);
            assert_eq!(verdict.restart, None);
            levels.extend(verdict.changes.into_iter().map(|it| (it.figure, it.level)));
        }
        assert_eq!(levels, [(Figure::Disk, HostLevel::Warning), (Figure::Disk, HostLevel::Normal)]);
    }

    #[test]
    fn other_limits_count_from_the_next_look() {
        let mut host = Host::new();
        host.through(&[80.0; 3]);
        host.limits.memory = None;
        assert_eq!(host.memory(99.0), Verdict::default());
        assert_eq!(host.thresholds.level(Figure::Memory).0, HostLevel::Normal);
        host.limits.memory = Some(Limit { restart: None, ..MEMORY });
        let (levels, restarts) = host.through(&[99.0; 9]);
        assert_eq!((levels, restarts), (vec![HostLevel::Warning], vec![]));
    }

    #[test]
    fn whatever_a_host_does_two_restarts_are_never_closer_than_the_cooldown() {
        for seed in 1..200_u64 {
            let (mut host, mut dice) = (Host::new(), seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut roll = |sides: u64| {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                dice % sides
            };
            let mut last: Option<Time> = None;
            for _ in 0..2_000 {
                for replica in &mut host.replicas {
                    replica.bytes = roll(1 << 30);
                    replica.standing = match roll(8) {
                        0 => Standing::Moving,
                        1 => Standing::Deploying,
                        2 => Standing::Other,
                        _ => Standing::Ready,
                    };
                }
                #[expect(clippy::cast_precision_loss, reason = "up to a hundred")]
                let percent = 70.0 + roll(31) as f64;
                let verdict = host.memory(percent);
                if roll(50) == 0 {
                    let stored = serde_json::to_string(&host.thresholds).unwrap();
                    host.thresholds = serde_json::from_str(&stored).unwrap();
                }
                let Some(victim) = verdict.restart else { continue };
                let ready = host.replicas.iter().filter(|it| it.standing == Standing::Ready);
                assert_eq!(Some(victim.bytes), ready.map(|it| it.bytes).max(), "seed {seed}");
                assert!(last.is_none_or(|at| host.now.since(at) >= MEMORY.cooldown), "seed {seed}");
                last = Some(host.now);
            }
        }
    }
}
