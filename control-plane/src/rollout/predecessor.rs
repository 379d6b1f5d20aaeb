//! The release that a rollout comes from may not have outlived its own watch when the newer one took its place. Its watch goes on
//! beneath it, in the row of the rollout that gave way.
//!
//! ```text
//!   Watching ── a newer wish ──▶ Superseded ── its time is over ───▶ Done
//!      ▲                          │      └──── crash loop ─────────▶ Reverted: the newer one comes from what was good before
//!      └── the newer one is back ─┘
//! ```
//! The newer rollout itself goes on after a crash loop, for it may be the cure. Slots that the other release left broken get what is
//! in force now when something else is waited for; the others get the newer release in their turn.

use proto::ids::ReleaseKey;
use proto::state::RolloutPhase;

use super::draft::Draft;
use super::fault::planted;
use super::gate::Failure;
use super::told::Bearer;
use super::waiting::span;
use super::{HappeningKind, Progress, Rollout};
use crate::clock::Time;

impl Rollout {
    /// Its crashes count: in its watch, or beneath the rollout that it gave way to.
    pub(super) fn is_watched(&self) -> bool {
        self.phase == RolloutPhase::Watching || self.progress.watch_began.is_some()
    }

    pub(super) fn watched_since(&self) -> Time {
        self.progress.watch_began.unwrap_or(self.phase_since)
    }

    /// What its watch needs in order to go on beneath another rollout.
    pub(super) fn its_watch(&self) -> Option<Progress> {
        if self.phase != RolloutPhase::Watching {
            return None;
        }
        let Progress { failed, watched_from, watched, own_runs_kept, .. } = self.progress.clone();
        Some(Progress {
            own_runs_kept,
            failed,
            watched_from,
            watched,
            watch_began: Some(self.phase_since),
            ..Progress::default()
        })
    }
}

impl Draft<'_> {
    /// `rollout` gave way in its watch. What it came from itself, if that was never judged either, is no way back.
    pub(super) fn watch_beneath(&mut self, rollout: Rollout) {
        let from = match self.drop_predecessor() {
            // Of a first deployment there was nothing, and what is rolled out once more is no way back from itself: what was
            // never judged is a better one than none.
            Some(before) => before.from.filter(|it| *it != rollout.release).or_else(|| rollout.from.clone()),
            None => rollout.from.clone(),
        };
        self.predecessor = Some(Rollout { from, ..rollout });
    }

    /// Nobody comes from it any more.
    pub(super) fn drop_predecessor(&mut self) -> Option<Rollout> {
        let mut before = self.predecessor.take()?;
        before.progress = Progress::default();
        self.plan.predecessors.push(before.clone());
        Some(before)
    }

    /// True where it failed, so that there is another way back. What crashed while nobody looked is looked at before its time is
    /// counted.
    pub(super) fn watch_predecessor(&mut self, rollout: &mut Rollout) -> bool {
        let Some(mut before) = self.predecessor.take() else { return false };
        let is_ghosted = |release: &ReleaseKey| {
            self.fleet.ghosted.contains(release) || self.plan.ghosts.iter().any(|it| it.release == *release)
        };
        let no_way = before.from.as_ref().is_some_and(is_ghosted);
        if no_way || rollout.from.as_ref() != Some(&before.release) || planted!(ForgetPredecessors) {
            self.predecessor = Some(before);
            self.drop_predecessor();
            rollout.progress.predecessor = None;
            return false;
        }
        let failure = loop {
            match self.crash_loop(&mut before) {
                Some(failure) if self.tolerates(&before, &failure) => {
                    self.note_tolerated(&mut before, &failure);
                }
                failure => break failure,
            }
        };
        match (failure, before.from.clone()) {
            // What is rolled out is no way back from itself.
            (Some(failure), Some(to)) if to != rollout.release => self.lower(rollout, before, failure, to),
            // There is nothing to go back to: it stays, and is not said to be good.
            (Some(_), _) => {
                self.predecessor = Some(before);
                self.drop_predecessor();
                rollout.progress.predecessor = None;
                return false;
            }
            (None, _) => {
                self.predecessor = Some(before);
                return false;
            }
        }
        true
    }

    /// Adds up its watch once it is known what its slots are told: time counts while it shows itself somewhere. True where that is over.
    pub(super) fn count_predecessor(&mut self) -> bool {
        let Some(mut before) = self.predecessor.take_if(|_| self.rollout.is_some()) else { return false };
        let Some(mut rollout) = self.rollout.take() else { return false };
        // Where all were told the newer one nothing is to be seen of it, and on the way back to it, it begins anew.
        let shows_itself = rollout.phase.moves()
            && self.in_force.as_ref() == Some(&before.release)
            && (self.bearers(&before.release).iter().any(Bearer::is_stable) || planted!(CountUnseen));
        let over = shows_itself && self.count_watch(&mut before.progress.watched) == 0;
        if over {
            let text = format!("{} outlived its watch beneath its successor", before.release.version);
            self.happened(HappeningKind::DeploymentDone, &before, None, text);
            self.judged(&mut rollout, before, RolloutPhase::Done, None);
        } else {
            if !shows_itself {
                self.rest_watch(&mut before.progress.watched);
            }
            self.predecessor = Some(before);
        }
        self.rollout = Some(rollout);
        over
    }

    fn lower(&mut self, rollout: &mut Rollout, before: Rollout, failure: Failure, to: ReleaseKey) {
        let Failure { place, reason, evidence, .. } = failure;
        // Nobody goes back by itself from what is in force already.
        self.plan.way_back_changed |= rollout.phase.moves();
        if !self.ghost(&before, place, &reason, evidence) {
            let text =
                format!("{reason}; not ghosted, because it outlived its watch before: {to} is the way back");
            self.happened(HappeningKind::NodeFailed, &before, place, text);
        }
        if self.in_force.as_ref() == Some(&before.release) {
            self.set_in_force(Some(to.clone()));
        }
        rollout.from = Some(to.clone());
        let version = before.release.version.clone();
        self.judged(rollout, before, RolloutPhase::Reverted, Some(reason.clone()));
        if rollout.phase != RolloutPhase::Reverting {
            return;
        }
        let first = rollout.reason.take().map(|because| format!("{because}; ")).unwrap_or_default();
        let because = format!("{first}and {version}: {reason}");
        let text = format!("back from {} to {}: {because}", rollout.release.version, to.version);
        self.enter(rollout, RolloutPhase::Reverting);
        rollout.reason = Some(because);
        self.happened(HappeningKind::DeploymentReverting, rollout, None, text);
    }

    fn judged(
        &mut self,
        rollout: &mut Rollout,
        mut before: Rollout,
        phase: RolloutPhase,
        because: Option<String>,
    ) {
        before.phase = phase;
        before.reason = because;
        before.progress = Progress::default();
        before.phase_since = self.now;
        before.finished_at = Some(self.now);
        rollout.progress.predecessor = None;
        self.tried_and_over(&before);
        self.plan.predecessors.push(before);
    }

    /// The one that took its place is back from where it went: what is left of its watch is watched as before.
    pub(super) fn watch_again(&mut self) {
        let Some(mut before) = self.predecessor.take() else { return };
        if self.in_force.as_ref() != Some(&before.release) || planted!(ForgetTheRestOfAWatch) {
            self.predecessor = Some(before);
            self.drop_predecessor();
            return;
        }
        let whole = self.fleet.spec.as_ref().map_or(0, |spec| spec.deploy.watch.0);
        let left = span(whole.saturating_sub(before.progress.watched.spent_ms));
        before.phase_since = before.watched_since();
        before.progress.watch_began = None;
        before.phase = RolloutPhase::Watching;
        before.reason = None;
        before.finished_at = None;
        let text = format!("{} is watched on: {left} of its watch are left", before.release.version);
        self.happened(HappeningKind::DeploymentTakenUp, &before, None, text);
        self.take_up(before);
    }
}
