//! How a rollout begins, turns and ends.
//!
//! ```text
//!             ┌────────────▶ Superseded ◀── a newer wish, from any of these ──┐      (see `predecessor` for what is watched on)
//!   wish ─▶ Pending ─▶ Running ─▶ Watching ─▶ Done                            │
//!                         │          │ crash loop                             │
//!            not stable, pre-commands failed, cannot be staged                │
//!                         ▼          ▼                                        │
//!                      Reverting ───────▶ Reverted, or Failed where there is nothing to go back to
//! ```

use proto::ids::{ReleaseKey, RolloutId};
use proto::state::{Liveness, RolloutPhase};
use sha2::{Digest as _, Sha256};

use super::draft::{Draft, Host};
use super::fault::planted;
use super::gate::Failure;
use super::{Evidence, Ghost, HappeningKind, PreCommandsState, Progress, Rollout, Trial, Waiting};
use crate::clock::Time;
use crate::fleet::{AppFleet, Place, Wish, WishedBy};
use crate::spec::PreCommandsRun;

/// What became of a rollout in the face of the newest wish.
pub(super) enum Heeded {
    Same(Rollout),
    /// It goes back now.
    Turned(Rollout),
    Over,
}

impl Rollout {
    pub(super) fn carries_out(&self, wish: &Wish) -> bool {
        self.release == wish.release && self.wished_at == wish.at
    }
}

impl Draft<'_> {
    /// Begins a rollout of what is wished, where that is called for; otherwise says why not.
    pub(super) fn begin(&mut self) -> bool {
        let fleet = self.fleet;
        let (Some(spec), Some(wish)) = (&fleet.spec, &fleet.wanted) else { return false };
        if self.in_force.as_ref() == Some(&wish.release) || !self.may_be_tried(wish) {
            return false;
        }
        if self.in_force.is_none() {
            self.drop_predecessor();
        }
        let rollout = Rollout {
            id: rollout_id(fleet, wish, self.now),
            app: fleet.app.clone(),
            release: wish.release.clone(),
            from: self.in_force.clone(),
            wished_at: wish.at,
            phase: RolloutPhase::Pending,
            reason: None,
            pre_commands: match spec.deploy.pre_commands_run {
                _ if !wish.pre_commands => PreCommandsState::NotNeeded,
                PreCommandsRun::Once => PreCommandsState::Waiting,
                PreCommandsRun::EveryReplica => PreCommandsState::EveryReplica,
            },
            progress: Progress {
                paused: self.pause_carried.take(),
                predecessor: self.predecessor.as_ref().map(|it| it.id),
                ..Progress::default()
            },
            by: match &wish.by {
                WishedBy::Bucket => "bucket".to_owned(),
                WishedBy::Person(name) => name.clone(),
            },
            started_at: self.now,
            phase_since: self.now,
            finished_at: None,
        };
        let text = match &rollout.from {
            // The same version published anew: the digests tell them apart.
            Some(from) if from.version == rollout.release.version => {
                format!("{} is rolled out over {from}, wished by {}", rollout.release, rollout.by)
            }
            Some(from) => format!(
                "{} is rolled out over {}, wished by {}",
                rollout.release.version, from.version, rollout.by
            ),
            None => {
                format!(
                    "{} is deployed for the first time, wished by {}",
                    rollout.release.version, rollout.by
                )
            }
        };
        self.happened(HappeningKind::DeploymentStarted, &rollout, None, text);
        self.rollout = Some(rollout);
        true
    }

    /// A ghosted release is not tried at all, and a wish that was tried and taken back is not tried again.
    fn may_be_tried(&mut self, wish: &Wish) -> bool {
        let (app, release) = (self.fleet.app.clone(), wish.release.clone());
        let ghosted_now = self.plan.ghosts.iter().any(|ghost| ghost.release == release);
        if (self.fleet.ghosted.contains(&release) || ghosted_now) && !planted!(DeployGhosted) {
            self.wait(Waiting::Ghosted { app, release });
            return false;
        }
        let back = |it: &&Rollout| matches!(it.phase, RolloutPhase::Reverted | RolloutPhase::Failed);
        let taken_back = self.tried.as_ref().filter(|it| it.carries_out(wish)).filter(back);
        // One that was ghosted and cleared since is tried again: that is what clearing is for.
        let spared = taken_back.is_some_and(|Rollout { progress, .. }| {
            progress.aborted.is_some() || progress.never_began || self.fleet.proven.contains(&release)
        });
        if spared && !planted!(TryAbortedAgain) {
            self.wait(Waiting::TakenBack { app, release });
            return false;
        }
        if let Some(because) = self.is_refused_as_full(&release) {
            self.wait(Waiting::HotUpgradeRequired { app, release, because });
            return false;
        }
        true
    }

    /// Gives way to a newer wish.
    pub(super) fn heed_the_wish(&mut self, mut rollout: Rollout) -> Heeded {
        let fleet = self.fleet;
        if fleet.spec.is_none() {
            self.supersede(rollout, format!("{} is no longer configured", fleet.app));
            self.drop_predecessor();
            return Heeded::Over;
        }
        if let Some(aborted) = rollout.progress.aborted.clone()
            && rollout.phase != RolloutPhase::Reverting
            && !planted!(IgnoreAbort)
        {
            self.turn_back(&mut rollout, format!("{} aborted it", aborted.by), None);
            return Heeded::Turned(rollout);
        }
        let Some(wish) = &fleet.wanted else { return Heeded::Same(rollout) };
        let reverting = rollout.phase == RolloutPhase::Reverting;
        if wish.release == rollout.release {
            if !reverting {
                rollout.wished_at = wish.at;
            }
            return Heeded::Same(rollout);
        }
        // A person who asks for what it came from while it is watched goes back. The bucket deploys: what it names may have
        // pre-commands that are to run.
        let came_from = rollout.phase == RolloutPhase::Watching
            && rollout.from.as_ref() == Some(&wish.release)
            && matches!(wish.by, WishedBy::Person(_));
        if self.in_force.as_ref() == Some(&wish.release) || came_from {
            if reverting {
                return Heeded::Same(rollout);
            }
            self.turn_back(&mut rollout, format!("{} is wished again", wish.release.version), None);
            return Heeded::Turned(rollout);
        }
        if !self.may_be_tried(wish) {
            return Heeded::Same(rollout);
        }
        // What was taken back serves, or fails to, on every node whose turn with the next release has not come: it goes first.
        if reverting
            && let Some(from) = rollout.from.clone()
            && !planted!(BreakOffReverts)
        {
            self.wait(Waiting::BackFirst { wanted: wish.release.clone(), from });
            return Heeded::Same(rollout);
        }
        // Who asks for a release wants it to go; the bucket knows nothing of a pause.
        if wish.by == WishedBy::Bucket {
            self.pause_carried.clone_from(&rollout.progress.paused);
        }
        let its_watch = rollout.its_watch();
        let rollout = self.supersede(rollout, format!("{} is wished instead", wish.release.version));
        if let Some(progress) = its_watch {
            self.watch_beneath(Rollout { progress, ..rollout });
        }
        Heeded::Over
    }

    fn supersede(&mut self, mut rollout: Rollout, because: String) -> Rollout {
        if rollout.phase != RolloutPhase::Reverting {
            self.record_end(&mut rollout, None);
        }
        let text = format!("the rollout of {} ends: {because}", rollout.release.version);
        self.happened(HappeningKind::DeploymentSuperseded, &rollout, None, text);
        rollout.phase = RolloutPhase::Superseded;
        rollout.reason = Some(because);
        self.over(rollout)
    }

    /// Every slot is stable: the release is in force, and watched.
    pub(super) fn watch(&mut self, rollout: &mut Rollout) {
        self.record_own_runs(rollout);
        self.set_in_force(Some(rollout.release.clone()));
        self.enter(rollout, RolloutPhase::Watching);
        rollout.progress.paused = None;
        let names = |hosts: Vec<&Host<'_>>| {
            hosts.iter().map(|host| host.node.name.to_string()).collect::<Vec<_>>().join(", ")
        };
        let failed: Vec<_> =
            self.hosts().iter().filter(|host| rollout.progress.failed.contains_key(&host.id)).collect();
        let is_lost =
            |host: &&Host<'_>| host.is(Liveness::Lost) && !rollout.progress.failed.contains_key(&host.id);
        let lost: Vec<_> = self.hosts().iter().filter(is_lost).collect();
        let mut but = Vec::new();
        if !lost.is_empty() {
            but.push(format!("{}: lost, to catch up when they return", names(lost)));
        }
        if !failed.is_empty() {
            but.push(format!("{}: failed, which is tolerated", names(failed)));
        }
        let version = &rollout.release.version;
        let text = match but.is_empty() {
            true => format!("{version} runs everywhere"),
            false => format!("{version} runs everywhere but on {}", but.join("; and on ")),
        };
        self.happened(HappeningKind::DeploymentComplete, rollout, None, text);
    }

    pub(super) fn outlived(&mut self, mut rollout: Rollout) {
        self.record_end(&mut rollout, None);
        rollout.phase = RolloutPhase::Done;
        let text = format!("{} outlived its watch", rollout.release.version);
        self.happened(HappeningKind::DeploymentDone, &rollout, None, text);
        self.over(rollout);
        self.drop_predecessor();
    }

    /// The release failed: it is ghosted, unless it outlived an earlier watch, and what was moved goes back.
    pub(super) fn fail(&mut self, rollout: &mut Rollout, failure: Failure) {
        let Failure { place, reason, evidence, pre_commands, never_began } = failure;
        if let Some(error) = pre_commands {
            if let Some(place) = place {
                self.record_failed_run(rollout, place, &evidence.pre_commands_output);
            }
            rollout.pre_commands = PreCommandsState::Failed { error };
            self.happened(HappeningKind::PreCommandsFailed, rollout, place, reason.clone());
        }
        if !self.may_be_ghosted(&rollout.release) {
            let text = format!("{reason}; not ghosted, because it outlived its watch before");
            self.turn_back(rollout, text, place);
            return;
        }
        if never_began {
            rollout.progress.never_began = true;
            let text = format!("{reason}; not ghosted, because it never ran there");
            self.turn_back(rollout, text, place);
            return;
        }
        self.ghost(rollout, place, &reason, evidence);
        self.turn_back(rollout, reason, place);
    }

    /// What outlived a watch has shown what it does.
    fn may_be_ghosted(&self, release: &ReleaseKey) -> bool {
        !self.fleet.proven.contains(release)
    }

    /// Its release is not deployed again, unless it outlived a watch before: whether that is so.
    pub(super) fn ghost(
        &mut self,
        rollout: &Rollout,
        place: Option<Place>,
        reason: &str,
        evidence: Evidence,
    ) -> bool {
        if !self.may_be_ghosted(&rollout.release) {
            return false;
        }
        let text = format!("{} is not deployed again until it is cleared: {reason}", rollout.release.version);
        self.happened(HappeningKind::VersionGhosted, rollout, place, text);
        let (release, reason) = (rollout.release.clone(), reason.to_owned());
        self.plan.ghosts.push(Ghost { release, rollout: Some(rollout.id), reason, evidence });
        true
    }

    /// `place`: where it failed.
    fn turn_back(&mut self, rollout: &mut Rollout, because: String, place: Option<Place>) {
        self.record_end(rollout, place.map(|place| (place, because.as_str())));
        if rollout.phase == RolloutPhase::Watching && !planted!(StayInForce) {
            self.set_in_force(rollout.from.clone());
        }
        self.enter(rollout, RolloutPhase::Reverting);
        // To go back is not what was paused.
        rollout.progress.paused = None;
        let text = match &rollout.from {
            Some(from) => format!("back from {} to {}: {because}", rollout.release.version, from.version),
            None => {
                format!("{} is taken down, there is none to go back to: {because}", rollout.release.version)
            }
        };
        rollout.reason = Some(because);
        self.happened(HappeningKind::DeploymentReverting, rollout, None, text);
    }

    /// The revert has come to its end; `left` says what it could not bring to it in its time.
    pub(super) fn reverted(&mut self, mut rollout: Rollout, left: Option<String>) {
        if let Some(left) = &left {
            let because = rollout.reason.take().unwrap_or_default();
            rollout.reason = Some(format!("{because}; not all of it is back: {left}"));
        }
        let (phase, kind, text) = match (&rollout.from, &left) {
            (Some(from), Some(left)) => (
                RolloutPhase::Reverted,
                HappeningKind::RollBackIncomplete,
                format!(
                    "back from {} to {}, but not everywhere within its time: {left}",
                    rollout.release.version, from.version
                ),
            ),
            (Some(from), None) => (
                RolloutPhase::Reverted,
                HappeningKind::DeploymentRolledBack,
                format!("rolled back from {} to {}", rollout.release.version, from.version),
            ),
            (None, _) => (
                RolloutPhase::Failed,
                HappeningKind::DeploymentFailed,
                format!(
                    "the first deployment of {} failed; its slots stay empty until there is another release",
                    rollout.release.version
                ),
            ),
        };
        self.happened(kind, &rollout, None, text);
        rollout.phase = phase;
        rollout.progress.left = left;
        self.over(rollout);
        self.watch_again();
    }

    fn over(&mut self, mut rollout: Rollout) -> Rollout {
        let Progress { aborted, never_began, left, .. } = std::mem::take(&mut rollout.progress);
        rollout.progress = Progress { aborted, never_began, left, ..Progress::default() };
        rollout.phase_since = self.now;
        rollout.finished_at = Some(self.now);
        self.close(rollout.clone());
        rollout
    }

    pub(super) fn enter(&self, rollout: &mut Rollout, phase: RolloutPhase) {
        rollout.phase = phase;
        rollout.phase_since = self.now;
        rollout.progress.trials.clear();
        rollout.progress.watched_from.clear();
        rollout.progress.watched = Trial::default();
    }
}

/// A UUIDv7 made of what it is for: the same fleet gives the same plan, ids included.
fn rollout_id(fleet: &AppFleet, wish: &Wish, now: Time) -> RolloutId {
    let ReleaseKey { version, sha256 } = &wish.release;
    let seed = format!("{} {} {version} {sha256} {}", fleet.app, fleet.generation, wish.at.0);
    let hash = Sha256::digest(seed.as_bytes());
    let mut random = [0; 10];
    random.copy_from_slice(&hash[..10]);
    RolloutId(uuid::Builder::from_unix_timestamp_millis(now.0, &random).into_uuid())
}
