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
use super::{HappeningKind, PreCommandsState, Progress, Rollout, Trial};
use crate::clock::Time;
use crate::fleet::Place;

/// Its rollout, which was superseded in its watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    pub rollout: RolloutId,
    /// What was good before it.
    pub from: ReleaseKey,
    /// When its watch began.
    pub since: Time,
    /// How much of its watch is over.
    pub watched: Trial,
    pub watched_from: BTreeMap<Place, u32>,
    pub failed: BTreeMap<NodeId, String>,
}

impl Predecessor {
    /// Of a rollout that gives way. `None`: there is nothing before it that was good.
    pub(super) fn of(rollout: &Rollout) -> Option<Self> {
        let before = rollout.progress.predecessor.as_ref();
        if rollout.phase != RolloutPhase::Watching {
            // It never was in force: what comes after it comes from where it came from.
            return before.cloned();
        }
        Some(Self {
            rollout: rollout.id,
            // What it came from itself, if that was never judged either, is no way back.
            from: before.map(|it| it.from.clone()).or_else(|| rollout.from.clone())?,
            since: rollout.phase_since,
            watched: rollout.progress.watched,
            watched_from: rollout.progress.watched_from.clone(),
            failed: rollout.progress.failed.clone(),
        })
    }

    /// Its rollout as it was in its watch. `successor`: the one that comes from it.
    fn watched(&mut self, release: ReleaseKey, successor: &Rollout) -> Rollout {
        // They may be many: lent, and given back.
        let (watched_from, failed) =
            (std::mem::take(&mut self.watched_from), std::mem::take(&mut self.failed));
        Rollout {
            id: self.rollout,
            app: successor.app.clone(),
            release,
            from: Some(self.from.clone()),
            wished_at: successor.wished_at,
            phase: RolloutPhase::Watching,
            reason: None,
            pre_commands: PreCommandsState::NotNeeded,
            progress: Progress { failed, watched_from, ..Progress::default() },
            by: successor.by.clone(),
            started_at: self.since,
            phase_since: self.since,
            finished_at: None,
        }
    }
}

impl Draft<'_> {
    /// True where it failed, so that there is another way back.
    pub(super) fn watch_predecessor(&mut self, rollout: &mut Rollout) -> bool {
        let Some(mut before) = rollout.progress.predecessor.take() else { return false };
        let Some(release) = rollout.from.clone() else { return false };
        let no_way = self.fleet.ghosted.contains(&before.from)
            || self.plan.ghosts.iter().any(|ghost| ghost.release == before.from);
        if no_way {
            return false;
        }
        // On the way back to it nobody knows better than its slots whether it runs.
        let goes_back = rollout.phase == RolloutPhase::Reverting;
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
            // What crashed while nobody looked was looked at before its time was counted.
            if goes_back || self.count_watch(&mut before.watched) > 0 {
                let Progress { watched_from, failed, .. } = watched.progress;
                rollout.progress.predecessor = Some(Predecessor { watched_from, failed, ..before });
            }
            return false;
        };
        self.lower(rollout, &watched, failure, before.from);
        true
    }

    fn lower(&mut self, rollout: &mut Rollout, watched: &Rollout, failure: Failure, to: ReleaseKey) {
        let Failure { place, reason, evidence, .. } = failure;
        self.plan.way_back_changed = true;
        if !self.ghost(watched, place, &reason, evidence) {
            let text =
                format!("{reason}; not ghosted, because it outlived its watch before: {to} is the way back");
            self.happened(HappeningKind::NodeFailed, watched, place, text);
        }
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
