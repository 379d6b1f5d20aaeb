//! When a figure has passed a limit, and when it is below it again. Pure.
//!
//! Levels rise only when several looks in a row agree, and fall only some points below where they rose, so that a figure that
//! plays around a limit is one event and not a hundred.

use proto::state::HostLevel;
use serde::{Deserialize, Serialize};

use crate::clock::Time;

/// A spike is no pressure: so many looks in a row are above a limit before it counts as passed.
const LOOKS: u8 = 3;
/// Percentage points below a limit at which it counts as kept again.
const SLACK: f64 = 2.0;

/// In percent of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub warning: u32,
    /// `None`: nothing is restarted.
    pub restart: Option<u32>,
}

impl Bounds {
    /// Which of them is passed, `slack` points below them included.
    fn level(self, percent: f64, slack: f64) -> HostLevel {
        let passed = |limit: u32| percent >= f64::from(limit) - slack;
        match self.restart {
            Some(restart) if passed(restart) => HostLevel::Exceeded,
            _ if passed(self.warning) => HostLevel::Warning,
            _ => HostLevel::Normal,
        }
    }
}

/// Where a figure stands, and since when. What is on the rise does not outlive the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gauge {
    pub level: HostLevel,
    pub since: Time,
    /// Looks in a row that were above `level`, and the least of what they saw.
    #[serde(skip)]
    rising: Option<(HostLevel, u8)>,
}

impl Default for Gauge {
    fn default() -> Self {
        Self { level: HostLevel::Normal, since: Time(0), rising: None }
    }
}

impl Gauge {
    /// `true`: the level is another one now.
    pub fn look(&mut self, bounds: Bounds, percent: f64, now: Time) -> bool {
        let seen = bounds.level(percent, 0.0);
        if seen > self.level {
            let (least, looks) = self.rising.map_or((seen, 0), |(least, looks)| (least.min(seen), looks));
            let looks = looks.saturating_add(1);
            self.rising = Some((least, looks));
            return looks >= LOOKS && self.become_(least, now);
        }
        self.rising = None;
        // Still above what is left for falling: it stays.
        let left = bounds.level(percent, SLACK).min(self.level);
        left < self.level && self.become_(left, now)
    }

    fn become_(&mut self, level: HostLevel, now: Time) -> bool {
        *self = Self { level, since: now, rising: None };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_rise_when_several_looks_agree_and_fall_with_slack() {
        use HostLevel::{Exceeded, Normal, Warning};
        let bounds = Bounds { warning: 75, restart: Some(90) };
        let stories: [(&[f64], &[HostLevel]); 8] = [
            (&[74.9; 9], &[]),
            (&[80.0, 80.0, 10.0, 80.0, 80.0], &[]),
            (&[80.0; 9], &[Warning]),
            (&[80.0, 80.0, 80.0, 74.0, 76.0, 73.1, 75.0], &[Warning]),
            (&[80.0, 80.0, 80.0, 72.9], &[Warning, Normal]),
            (&[95.0; 4], &[Exceeded]),
            (&[95.0, 80.0, 95.0, 95.0, 95.0, 95.0], &[Warning, Exceeded]),
            (&[95.0, 95.0, 95.0, 88.5, 87.9, 10.0], &[Exceeded, Warning, Normal]),
        ];
        for (percents, levels) in stories {
            let (mut gauge, mut told) = (Gauge::default(), Vec::new());
            for (percent, now) in percents.iter().zip(1..) {
                if gauge.look(bounds, *percent, Time(now)) {
                    told.push(gauge.level);
                }
            }
            assert_eq!(told, levels, "{percents:?}");
        }
    }
}
