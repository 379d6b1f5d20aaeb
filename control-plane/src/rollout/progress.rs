//! What a rollout must remember between two plans that neither assignments nor reports tell: kept with it, as JSON.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::{NodeId, RolloutId};
use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::fleet::Place;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// How often a slot was told to run the pre-commands: the next run's number.
    pub pre_commands_runs: u32,
    /// Slots that were told to run the release, and were not stable on it at first.
    pub trials: BTreeMap<Place, Trial>,
    /// Set where a person paused it: no further slot is told the release. Those that were are judged as ever: a release that
    /// fails is taken back.
    pub paused: Option<Said>,
    /// The nodes that are moved now, or were last.
    pub batch: Option<Batch>,
    /// The batch behind which a person let it go on.
    pub promoted: Option<Promoted>,
    /// Where each replica runs its own pre-commands: of how many it is kept that they passed.
    #[serde(default, skip_serializing_if = "none_kept")]
    pub own_runs_kept: u32,
    /// Nodes on which the release failed, which was tolerated, and how.
    pub failed: BTreeMap<NodeId, String>,
    /// Why no further slot is hot-upgraded in it, a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hot_given_up: Option<String>,
    /// Set where a person gave it up. Stays with a rollout that is over: its wish is not tried again.
    pub aborted: Option<Said>,
    /// It was taken back without being ghosted, because it never ran where it failed. Stays with a rollout that is over: its wish
    /// is not tried again.
    pub never_began: bool,
    /// What was not back when the revert's time was over, a sentence. Stays with a rollout that is over.
    pub left: Option<String>,
    /// Crash counts of each place when the watch began, so that the watch counts its own.
    pub watched_from: BTreeMap<Place, u32>,
    /// How much of its watch is over.
    pub watched: Trial,
    /// Of one that gave way in its watch: when that began. Its watch goes on beneath the rollout that names it.
    pub watch_began: Option<Time>,
    /// The rollout of what it comes from, where that was watched still when this one took its place.
    #[serde(rename = "watched_beneath")]
    pub predecessor: Option<RolloutId>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn none_kept(kept: &u32) -> bool {
    *kept == 0
}

/// On whose word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub by: String,
    pub at: Time,
}

/// Nodes whose slots are moved side by side; the next ones come when all of it is stable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The first is 1.
    pub number: u32,
    /// The others wait behind it for longer.
    pub canary: bool,
    pub nodes: BTreeSet<NodeId>,
    /// Since when all of it has been stable without a break; `None`: it is not.
    pub stable_since: Option<Time>,
    /// How much of the pause or the soak behind it is over.
    #[serde(default)]
    pub rested: Trial,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoted {
    /// Its number.
    pub batch: u32,
    #[serde(flatten)]
    pub said: Said,
}

/// How much of a span is over: of the time that a slot has to become stable, of a watch, of a pause.
///
/// The time of a slot counts while it is not stable, its node is up and somebody plans. Time is added up in portions, and a gap longer than a portion counts
/// as one: an hour without a control plane, or a wall clock that was put forward, uses up no more than that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    pub spent_ms: u64,
    /// `None`: it rests, because the slot is stable or its node is away.
    pub counting_since: Option<Time>,
}

impl Trial {
    pub fn started(now: Time) -> Self {
        Self { spent_ms: 0, counting_since: Some(now) }
    }

    /// How much is used up by `now`, of which a stretch counts for `portion` at most.
    pub fn spent(self, now: Time, portion: u64) -> u64 {
        let stretch = self.counting_since.map_or(0, |since| now.since(since).min(portion));
        self.spent_ms.saturating_add(stretch)
    }

    /// The same trial as it is to be kept: paused, carried on, or with a full portion added up. Unchanged in between, so
    /// that planning again writes nothing.
    #[must_use]
    pub fn kept(self, counts: bool, now: Time, portion: u64) -> Self {
        match (counts, self.counting_since) {
            (false, Some(_)) => Self { spent_ms: self.spent(now, portion), counting_since: None },
            (true, None) => Self { counting_since: Some(now), ..self },
            (true, Some(since)) if now < since => Self { counting_since: Some(now), ..self },
            (true, Some(since)) if now.since(since) >= portion => {
                Self { spent_ms: self.spent(now, portion), counting_since: Some(now) }
            }
            (false, None) | (true, Some(_)) => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_adds_up_its_portions() {
        let mut trial = Trial::started(Time(0));
        for second in 1..=30 {
            trial = trial.kept(true, Time(second * 1_000), 5_000);
        }
        assert_eq!(trial.spent(Time(31_000), 5_000), 31_000);
    }

    #[test]
    fn an_hour_in_which_nobody_planned_counts_as_one_portion() {
        let trial = Trial::started(Time(0));
        assert_eq!(trial.spent(Time(3_600_000), 5_000), 5_000);
        assert_eq!(
            trial.kept(false, Time(3_600_000), 5_000),
            Trial { spent_ms: 5_000, counting_since: None }
        );
    }

    #[test]
    fn time_while_its_node_is_away_does_not_count() {
        let away = Trial::started(Time(0)).kept(false, Time(2_000), 5_000);
        let back = away.kept(true, Time(900_000), 5_000);
        assert_eq!(back.spent(Time(901_000), 5_000), 3_000);
    }

    #[test]
    fn a_clock_that_was_put_back_does_not_stop_a_trial() {
        let trial = Trial::started(Time(10_000)).kept(true, Time(4_000), 5_000);
        assert_eq!(trial.spent(Time(7_000), 5_000), 3_000);
    }

    #[test]
    fn progress_survives_json() {
        let place = Place {
            node: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            slot: "2".parse().unwrap(),
        };
        let progress = Progress {
            pre_commands_runs: 1,
            trials: [(place, Trial::started(Time(7)))].into(),
            paused: Some(Said { by: "ann".to_owned(), at: Time(9) }),
            batch: Some(Batch {
                number: 2,
                canary: false,
                nodes: [place.node].into(),
                stable_since: Some(Time(8)),
                rested: Trial::started(Time(8)),
            }),
            promoted: Some(Promoted { batch: 1, said: Said { by: "bob".to_owned(), at: Time(6) } }),
            own_runs_kept: 5,
            failed: [(place.node, "it does not start".to_owned())].into(),
            hot_given_up: Some("slot 1 on node-1 has no appup".to_owned()),
            aborted: None,
            never_began: true,
            left: Some("node-1 is lost".to_owned()),
            watched_from: [(place, 3)].into(),
            watched: Trial { spent_ms: 4, counting_since: None },
            watch_began: Some(Time(3)),
            predecessor: Some(RolloutId(uuid::Uuid::from_u128(7))),
        };
        let json = serde_json::to_string(&progress).unwrap();
        assert_eq!(serde_json::from_str::<Progress>(&json).unwrap(), progress);
        assert_eq!(serde_json::from_str::<Progress>("{}").unwrap(), Progress::default());
        // Of a database before the watch had a row of its own.
        let older = r#"{"predecessor":{"rollout":"00000000-0000-0000-0000-000000000007"}}"#;
        assert_eq!(serde_json::from_str::<Progress>(older).unwrap(), Progress::default());
    }
}
