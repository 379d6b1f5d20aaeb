//! The release that a rollout comes from may not have outlived its own watch when the newer one took its place. It is watched on
//! beneath it: a crash loop ghosts it, and the rollout comes from what was good before.
//!
//! The rollout itself goes on, for it may be the cure. Slots that the other release left broken get what is in force now when
//! something else is waited for; the others get the newer release in their turn.

use std::collections::BTreeMap;

use proto::ids::{NodeId, ReleaseKey, RolloutId};
use proto::state::RolloutPhase;
use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::gate::Failure;
use super::{HappeningKind, PreCommandsState, Progress, Rollout};
use crate::clock::Time;
use crate::fleet::Place;

/// Its rollout, which was superseded in its watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    pub rollout: RolloutId,
    /// What it took the place of.
    pub from: ReleaseKey,
    /// When its watch began.
    pub since: Time,
    /// When it would have ended.
    pub until: Time,
    pub watched_from: BTreeMap<Place, u32>,
    pub failed: BTreeMap<NodeId, String>,
}

impl Predecessor {
    /// `None`: it outlived its watch, or there is nothing before it that was good.
    pub(super) fn of(rollout: &Rollout, left_ms: u64, now: Time) -> Option<Self> {
        if rollout.phase != RolloutPhase::Watching {
            // It never was in force: what comes after it comes from where it came from.
            return rollout.progress.predecessor.clone();
        }
        Some(Self {
            rollout: rollout.id,
            from: rollout.from.clone()?,
            since: rollout.phase_since,
            until: now.plus(left_ms),
            watched_from: rollout.progress.watched_from.clone(),
            failed: rollout.progress.failed.clone(),
        })
    }

    /// Its rollout as it was in its watch. `successor`: the one that comes from it.
    fn watched(&self, release: ReleaseKey, successor: &Rollout) -> Rollout {
        let progress = Progress {
            watched_from: self.watched_from.clone(),
            failed: self.failed.clone(),
            ..Progress::default()
        };
        Rollout {
            id: self.rollout,
            release,
            from: Some(self.from.clone()),
            phase: RolloutPhase::Watching,
            phase_since: self.since,
            reason: None,
            pre_commands: PreCommandsState::NotNeeded,
            progress,
            ..successor.clone()
        }
    }
}

impl Draft<'_> {
    /// True where it failed, so that there is another way back.
    pub(super) fn watch_predecessor(&mut self, rollout: &mut Rollout) -> bool {
        let Some(before) = rollout.progress.predecessor.take() else { return false };
        let Some(release) = rollout.from.clone() else { return false };
        // On the way back to it nobody knows better than its slots whether it runs.
        let goes_back = rollout.phase == RolloutPhase::Reverting;
        if self.now >= before.until && !goes_back {
            return false;
        }
        let mut watched = before.watched(release, rollout);
        let failure = loop {
            match self.crash_loop(&mut watched) {
                Some(failure) if self.tolerates(&watched, &failure) => {
                    self.note_tolerated(&mut watched, &failure);
                }
                failure => break failure,
            }
        };
        let Some(failure) = failure else {
            if !goes_back {
                self.wake_at(before.until);
            }
            let Progress { watched_from, failed, .. } = watched.progress;
            rollout.progress.predecessor = Some(Predecessor { watched_from, failed, ..before });
            return false;
        };
        self.lower(rollout, &watched, failure, before.from);
        true
    }

    fn lower(&mut self, rollout: &mut Rollout, watched: &Rollout, failure: Failure, to: ReleaseKey) {
        let Failure { place, reason, evidence, .. } = failure;
        self.ghost(watched, place, &reason, evidence);
        if self.in_force.as_ref() == Some(&watched.release) {
            self.set_in_force(Some(to.clone()));
        }
        rollout.from = Some(to.clone());
        if rollout.phase != RolloutPhase::Reverting {
            return;
        }
        let first = rollout.reason.take().map(|because| format!("{because}; ")).unwrap_or_default();
        let because = format!("{first}and {}: {reason}", watched.release.version);
        let text = format!("back from {} to {}: {because}", rollout.release.version, to.version);
        self.enter(rollout, RolloutPhase::Reverting);
        rollout.reason = Some(because);
        self.happened(HappeningKind::DeploymentReverting, rollout, place, text);
    }
}
