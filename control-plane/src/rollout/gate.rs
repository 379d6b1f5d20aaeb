//! May the next slot be told? Which slots are on trial, which have failed, and what the others wait for.

use proto::ids::ReleaseKey;
use proto::state::{Liveness, SlotState, StagingPhase, UpgradeState};

use super::draft::{Draft, Host};
use super::fault::planted;
use super::place::Standing;
use super::sight::Sight;
use super::told::Bearer;
use super::waiting::span;
use super::{Evidence, PreCommandsState, Rollout, Step, Trial, Waiting};
use crate::clock::Time;
use crate::fleet::{Observed, ObservedCheck, ObservedExit, ObservedStaging, Place, PreCommandsOutcome};

/// Crashes of one slot in the watch that make a crash loop.
pub(super) const CRASH_LOOP: u32 = 3;

/// Of a slogan, in characters.
const SLOGAN_IN_A_SENTENCE: usize = 160;

/// A span's time is added up in this many portions.
const PORTIONS: u64 = 10;

/// A portion of a soak, a pause or a watch is no shorter.
const LEAST_PORTION_MS: u64 = 2_000;

/// Why a release is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) place: Option<Place>,
    pub(super) reason: String,
    pub(super) evidence: Evidence,
    /// Their error, where it was the pre-commands that failed.
    pub(super) pre_commands: Option<String>,
    /// It could not be fetched: nobody knows whether it is any good.
    pub(super) never_began: bool,
}

impl Failure {
    pub(super) fn of(place: Place, reason: String, rollout: &Rollout, seen: Option<&Observed>) -> Self {
        let evidence = evidence(place, &rollout.release, seen);
        Self { place: Some(place), reason, evidence, pre_commands: None, never_began: false }
    }
}

impl Rollout {
    /// Whether a run of pre-commands is one of its own.
    pub(super) fn began(&self, run_id: &str) -> bool {
        run_id.starts_with(&self.id.to_string())
    }
}

impl Draft<'_> {
    fn rollback_timeout(&self) -> u64 {
        self.fleet.spec.as_ref().map_or(u64::MAX, |spec| spec.rollback_timeout.0)
    }

    fn portion(&self) -> u64 {
        portion_of(self.rollback_timeout())
    }

    /// Adds up a watch that goes on; what is left of it, in milliseconds.
    pub(super) fn count_watch(&mut self, watched: &mut Trial) -> u64 {
        let span = self.fleet.spec.as_ref().map_or(0, |spec| spec.deploy.watch.0);
        self.count_span(watched, span)
    }

    /// It goes on later.
    pub(super) fn rest_watch(&self, watched: &mut Trial) {
        let span = self.fleet.spec.as_ref().map_or(0, |spec| spec.deploy.watch.0);
        *watched = watched.kept(false, self.now, portion_of_a_span(span));
    }

    /// Adds up a span that goes on, and says what is left of it: an hour in which nobody planned, or a clock that was put forward,
    /// uses up no more than a portion.
    pub(super) fn count_span(&mut self, counted: &mut Trial, span: u64) -> u64 {
        let portion = if planted!(CountTheGap) { span } else { portion_of_a_span(span) };
        let spent = counted.spent(self.now, portion);
        if spent >= span {
            return 0;
        }
        *counted = counted.kept(true, self.now, portion);
        let left = span.saturating_sub(counted.spent_ms);
        if let Some(since) = counted.counting_since {
            self.wake_at(since.plus(portion.min(left)));
        }
        span.saturating_sub(counted.spent(self.now, portion))
    }

    /// How long a slot may take: a slot that runs the pre-commands first gets their time beside its own.
    fn patience(&self, rollout: &Rollout, place: Place) -> u64 {
        let leads = match &rollout.pre_commands {
            PreCommandsState::RunBy { place: leader, .. } => *leader == place,
            PreCommandsState::EveryReplica => true,
            _ => false,
        };
        let pre_commands =
            self.fleet.spec.as_ref().filter(|_| leads).map(|spec| spec.deploy.pre_commands_timeout.0);
        self.rollback_timeout().saturating_add(pre_commands.unwrap_or(0))
    }

    /// As far as is known: a suspect node's slots are what they were.
    pub(super) fn is_stable(&self, place: Place) -> bool {
        let known = self.host(place.node).is_some_and(|host| !host.is(Liveness::Lost));
        known && self.standing(place) == Standing::Stable
    }

    /// The first failure that calls for going back, of a rollout that is still moving.
    pub(super) fn failure(&self, rollout: &Rollout) -> Option<Failure> {
        if let Some(failure) = self.pre_commands_failure(rollout) {
            return Some(failure);
        }
        if let Some(failure) = self.upgrade_failure(rollout) {
            return Some(failure);
        }
        let counts = |place: &Place| !rollout.progress.failed.contains_key(&place.node);
        let mut told = self.bearers(&rollout.release);
        told.retain(|bearer| counts(&bearer.place) && !bearer.host.is(Liveness::Lost));
        let by_itself = told.iter().find_map(|bearer| self.fallback_failure(rollout, *bearer));
        let staging = || told.iter().find_map(|bearer| self.staging_failure(rollout, *bearer));
        by_itself.or_else(staging).or_else(|| {
            let trials = rollout.progress.trials.iter().filter(|(place, _)| counts(place));
            trials.into_iter().find_map(|(place, trial)| self.trial_failure(rollout, *place, *trial))
        })
    }

    fn pre_commands_failure(&self, rollout: &Rollout) -> Option<Failure> {
        match &rollout.pre_commands {
            PreCommandsState::RunBy { place, run_id } => {
                self.run_failure(rollout, place, run_id, self.fleet.observed.get(place)?)
            }
            PreCommandsState::EveryReplica => self.bearers(&rollout.release).iter().find_map(|bearer| {
                let run_id = bearer.assigned?.pre_commands_run.as_ref().filter(|run| rollout.began(run))?;
                self.run_failure(rollout, &bearer.place, run_id, bearer.report?)
            }),
            _ => None,
        }
    }

    fn run_failure(
        &self,
        rollout: &Rollout,
        place: &Place,
        run_id: &str,
        seen: &Observed,
    ) -> Option<Failure> {
        let report = seen.pre_commands.as_ref().filter(|report| report.run_id == run_id)?;
        let PreCommandsOutcome::Failed { error, output } = &report.outcome else { return None };
        let reason = format!("its pre-commands failed on {}: {error}", self.named(*place));
        let evidence = Evidence {
            pre_commands_output: output.clone(),
            ..evidence(*place, &rollout.release, Some(seen))
        };
        let pre_commands = Some(error.clone());
        Some(Failure { evidence, pre_commands, ..Failure::of(*place, reason, rollout, None) })
    }

    /// Its agent had lost us, and has done what is to be done with all the others: there is nothing to wait for. Of another
    /// rollout it is told anew.
    fn fallback_failure(&self, rollout: &Rollout, bearer: Bearer<'_>) -> Option<Failure> {
        let (place, seen) = (bearer.place, bearer.report?);
        let fell_back = seen.fell_back.as_ref().filter(|it| it.rollout == rollout.id.to_string())?;
        let reason = format!("{} fell back by itself: {}", self.named(place), fell_back.because);
        Some(Failure::of(place, reason, rollout, Some(seen)))
    }

    fn staging_failure(&self, rollout: &Rollout, bearer: Bearer<'_>) -> Option<Failure> {
        let (place, seen) = (bearer.place, bearer.report?);
        let staging = seen.staging.as_ref()?;
        if staging.phase != StagingPhase::Failed || staging.release != rollout.release {
            return None;
        }
        if self.leads_too_late(rollout, place) {
            return None;
        }
        let reason = format!("{} cannot be given it: {}", self.named(place), staging.error);
        Some(Failure::of(place, reason, rollout, Some(seen)))
    }

    /// What it was told to run the pre-commands in is not what counts: it was lost, and reports their failure after another slot
    /// was told to run them, or it did so for a rollout before this one.
    pub(super) fn leads_too_late(&self, rollout: &Rollout, place: Place) -> bool {
        let Some(report) = self.report(place).and_then(|seen| seen.pre_commands.as_ref()) else {
            return false;
        };
        let counts = match &rollout.pre_commands {
            PreCommandsState::RunBy { run_id, .. } => report.run_id == *run_id,
            PreCommandsState::EveryReplica => rollout.began(&report.run_id),
            PreCommandsState::NotNeeded | PreCommandsState::Waiting | PreCommandsState::Passed => false,
            PreCommandsState::Failed { .. } => return false,
        };
        // What a slot says of the last run that it knows, it says for as long as it knows no other.
        let told_run = self.fleet.assigned.get(&place).and_then(|it| it.pre_commands_run.as_ref());
        let failed = matches!(report.outcome, PreCommandsOutcome::Failed { .. });
        failed && !counts && Some(&report.run_id) == told_run
    }

    fn trial_failure(&self, rollout: &Rollout, place: Place, trial: Trial) -> Option<Failure> {
        let patience = self.patience(rollout, place);
        let spent = trial.spent(self.now, self.portion());
        let told = self.release_at(place) == Some(&rollout.release);
        if spent < patience || !told || self.is_stable(place) || planted!(NeverGiveUp) {
            return None;
        }
        let seen = self.report(place);
        let detail = seen.map(|seen| detail(seen, Some(&rollout.release))).filter(|text| !text.is_empty());
        let detail = detail.map(|text| format!(" ({text})")).unwrap_or_default();
        let reason = format!("{} was not stable within {}{detail}", self.named(place), span(patience));
        let never_began = seen.is_some_and(|seen| cannot_be_fetched(seen, &rollout.release));
        Some(Failure { never_began, ..Failure::of(place, reason, rollout, seen) })
    }

    /// Keeps the trials in step with what this plan tells and what was reported.
    pub(super) fn keep_trials(&mut self, rollout: &mut Rollout) {
        let (now, portion) = (self.now, self.portion());
        let told = self.bearers(&rollout.release);
        // Both are in the order of places.
        let mut before = std::mem::take(&mut rollout.progress.trials).into_iter().peekable();
        for bearer in told.into_iter().filter(|it| !rollout.progress.failed.contains_key(&it.place.node)) {
            let place = bearer.place;
            while before.next_if(|(at, _)| *at < place).is_some() {}
            let before = before.next_if(|(at, _)| *at == place).map(|(_, trial)| trial);
            let away = bearer.host.is(Liveness::Lost) && !planted!(CountLostTime);
            let stable = bearer.is_stable();
            // While it is stable its trial rests, and is not forgotten: a slot that is stable now and then gets nowhere.
            // One that could not be upgraded has not begun: it waits to be told anew.
            let begins = !self.is_being_restarted(place) && !self.is_left_as_it_was(place);
            let counts = !away && !stable && begins;
            let trial = match before {
                Some(trial) => trial.kept(counts, now, portion),
                None if counts => Trial::started(now),
                None => continue,
            };
            let trial = if planted!(WriteEveryTime) {
                Trial { spent_ms: trial.spent_ms + 1, ..trial }
            } else {
                trial
            };
            if let Some(since) = trial.counting_since {
                let left = self.patience(rollout, place).saturating_sub(trial.spent_ms);
                self.wake_at(since.plus(portion.min(left)));
            }
            rollout.progress.trials.insert(place, trial);
        }
    }

    /// A slot that crashed again and again since the watch began. Also begins to count for slots seen for the first time.
    pub(super) fn crash_loop(&self, rollout: &mut Rollout) -> Option<Failure> {
        let limit = if planted!(OneCrashIsALoop) { 1 } else { CRASH_LOOP };
        let (watched, began) = (rollout.is_watched(), rollout.watched_since());
        // Both are in the order of places.
        let mut watched_from = std::mem::take(&mut rollout.progress.watched_from);
        let mut known = watched_from.iter_mut().peekable();
        let mut new = Vec::new();
        let mut loops = None;
        for bearer in self.bearers(&rollout.release) {
            let place = bearer.place;
            if rollout.progress.failed.contains_key(&place.node) {
                continue;
            }
            let Some(seen) = bearer
                .report
                .filter(|seen| bearer.standing.is_ready() || seen.running.as_ref() == Some(&rollout.release))
            else {
                continue;
            };
            let count = seen.crashes_since_deploy;
            while known.next_if(|(at, _)| **at < place).is_some() {}
            let base = match known.next_if(|(at, _)| **at == place) {
                Some((_, base)) => {
                    *base = count.min(*base);
                    *base
                }
                None => {
                    let since = bearer.assigned.map_or(self.now, |assigned| assigned.since);
                    // A slot that was told in the watch has crashed in the watch. A canary had to become stable first.
                    let before = since < began || began == self.now || !watched;
                    let base = if before { count } else { 0 };
                    new.push((place, base));
                    base
                }
            };
            let crashes = count - base;
            if crashes >= limit && !bearer.host.is(Liveness::Lost) && !self.is_all_there_is(rollout, place) {
                loops = Some((place, crashes, seen));
                break;
            }
        }
        watched_from.extend(new);
        rollout.progress.watched_from = watched_from;
        let (place, crashes, seen) = loops?;
        let detail = seen
            .last_exit
            .as_ref()
            .map(|exit| match exit.because.is_empty() {
                true => format!(", last by {}", exit.cause),
                false => format!(", last: {}", exit.because),
            })
            .unwrap_or_default();
        let when = if watched { "in its watch" } else { "as a canary" };
        let reason = format!("{} crashed {crashes} times {when}{detail}", self.named(place));
        Some(Failure::of(place, reason, rollout, Some(seen)))
    }

    /// The release ran everywhere, runs elsewhere still, and there is none to go back to: to take it down would help nobody,
    /// least of all for the sake of a host that joined since.
    fn is_all_there_is(&self, rollout: &Rollout, crashing: Place) -> bool {
        // Of a lost node what it said last counts here: an outage is no reason to give up what it runs.
        let runs = |it: &Bearer<'_>| it.standing == Standing::Stable || self.is_being_restarted(it.place);
        // A spare slot, or one that is too many by now, is about to go.
        let stays = |it: &Bearer<'_>| it.place.slot.number() <= self.replicas_on(it.place.node);
        let elsewhere = |it: &Bearer<'_>| it.place != crashing && stays(it) && runs(it);
        // One that gave way is not taken down.
        rollout.from.is_none()
            && rollout.progress.watch_began.is_none()
            && self.bearers(&rollout.release).iter().any(elsewhere)
            && !planted!(TakeAllDown)
    }

    /// What a slot that is not stable waits for. `trial`: of the rollout that put it on trial.
    pub(super) fn wait_for(&mut self, host: Host<'_>, place: Place, rollout: Option<&Rollout>) {
        let (node, slot) = (host.node.name.clone(), place.slot);
        let waiting = match self.report(place) {
            Some(Observed { upgrade: Some(upgrade), .. })
                if matches!(upgrade.state, UpgradeState::Running | UpgradeState::Undoing) =>
            {
                Waiting::Upgrading { node, slot, step: upgrade.step.clone() }
            }
            None => Waiting::ToBeTakenUp { node, slot },
            Some(Observed { state: SlotState::Ready, ready_since: Some(since), .. }) => {
                let stable_after = self.fleet.spec.as_ref().map_or(0, |spec| spec.deploy.stable_after.0);
                Waiting::ToStayReady {
                    node,
                    slot,
                    left_ms: stable_after.saturating_sub(self.now.since(*since)),
                }
            }
            Some(Observed { pre_commands: Some(run), .. })
                if run.outcome == PreCommandsOutcome::Running
                    && rollout.is_some_and(|it| it.pre_commands == PreCommandsState::EveryReplica) =>
            {
                Waiting::OwnPreCommands { node, slot }
            }
            Some(seen) => {
                let left_ms = rollout.map(|rollout| {
                    let trial = rollout.progress.trials.get(&place).copied().unwrap_or_default();
                    self.patience(rollout, place).saturating_sub(trial.spent(self.now, self.portion()))
                });
                let detail = detail(seen, self.release_at(place));
                Waiting::ToBecomeReady { node, slot, state: seen.state, detail, left_ms }
            }
        };
        self.wait(waiting);
    }

    /// "slot 2 on node-3"
    pub(super) fn named(&self, place: Place) -> String {
        match self.fleet.nodes.get(&place.node) {
            Some(node) => format!("slot {} on {}", place.slot, node.name),
            None => format!("slot {} on node {}", place.slot, place.node),
        }
    }

    /// The end of a span that began with the present phase. A clock that was put back while nobody planned begins it anew.
    pub(super) fn phase_end(&mut self, rollout: &mut Rollout, millis: u64) -> Time {
        if self.now < rollout.phase_since {
            rollout.phase_since = self.now;
        }
        rollout.phase_since.plus(millis)
    }

    /// A slot that is told to go back has as long for it as any other: many that go back one after the other take many times
    /// that. Ends all the same, because each is told once.
    pub(super) fn revert_end(&mut self, rollout: &mut Rollout) -> Time {
        let timeout = self.rollback_timeout();
        let begun = self.phase_end(rollout, timeout);
        if planted!(HurryReverts) {
            return begun;
        }
        let (from, now) = (rollout.from.as_ref(), self.now);
        let told_now = self.plan.steps.iter().any(|step| match step {
            Step::Assign { release, .. } => from == Some(release),
            Step::Withdraw { .. } => from.is_none(),
            Step::Forget { .. } | Step::Restart { .. } => false,
        });
        let stays = |it: &&Sight<'_>| it.release == from && self.told.at(it.place).is_none();
        let told = self.sights.all().iter().filter(stays).map(|it| it.assigned.since);
        let last = if told_now { Some(now) } else { told.filter(|since| *since <= now).max() };
        last.map_or(begun, |last| begun.max(last.plus(timeout)))
    }
}

fn portion_of(span: u64) -> u64 {
    (span / PORTIONS).max(1)
}

/// Of a soak, a pause, a watch: a look that comes late costs nothing of a short one.
pub(super) fn portion_of_a_span(span: u64) -> u64 {
    portion_of(span).max(LEAST_PORTION_MS)
}

/// Its agent tries again and again to get the release, from a bucket that is away or to a disk that is full.
fn cannot_be_fetched(seen: &Observed, release: &ReleaseKey) -> bool {
    let tries = |staging: &ObservedStaging| {
        staging.release == *release && staging.phase == StagingPhase::Fetching && !staging.error.is_empty()
    };
    seen.running.as_ref() != Some(release) && seen.staging.as_ref().is_some_and(tries)
}

/// What is wrong with a slot, in its own words. `wanted`: what it was told to run.
fn detail(seen: &Observed, wanted: Option<&ReleaseKey>) -> String {
    if !seen.fault.is_empty() {
        return seen.fault.clone();
    }
    if let Some(staging) = seen.staging.as_ref().filter(|staging| !staging.error.is_empty()) {
        return staging.error.clone();
    }
    let crashed = seen.last_exit.as_ref().filter(|exit| !exit.asked_for && seen.crashes_since_deploy > 0);
    let how = |exit: &ObservedExit| match (exit.because.is_empty(), exit.slogan.is_empty()) {
        (false, _) => exit.because.clone(),
        (true, true) => exit.cause.to_string(),
        (true, false) => format!("{}: {}", exit.cause, short(&exit.slogan)),
    };
    // Where the agent ended it for a check, that is said already.
    let said = crashed.is_some_and(|exit| !exit.because.is_empty());
    let check = failed_check(seen, wanted).filter(|_| !said).map(ObservedCheck::sentence);
    crashed.map(how).into_iter().chain(check).collect::<Vec<_>>().join("; ")
}

/// The head of what an Erlang VM said, which goes on with terms that belong to no sentence: all of it is in the evidence.
fn short(slogan: &str) -> std::borrow::Cow<'_, str> {
    match slogan.char_indices().nth(SLOGAN_IN_A_SENTENCE) {
        Some((end, _)) => format!("{}…", slogan.get(..end).unwrap_or_default()).into(),
        None => slogan.into(),
    }
}

/// Of what ran in the slot before, no check says anything about the release in question.
fn failed_check<'a>(seen: &'a Observed, release: Option<&ReleaseKey>) -> Option<&'a ObservedCheck> {
    seen.failed_check.as_ref().filter(|_| seen.running.as_ref() == release)
}

fn evidence(place: Place, release: &ReleaseKey, seen: Option<&Observed>) -> Evidence {
    Evidence {
        place: Some(place),
        last_exit: seen.and_then(|seen| seen.last_exit.clone()),
        failed_check: seen.and_then(|seen| failed_check(seen, Some(release))).cloned(),
        fault: seen.map(|seen| seen.fault.clone()).unwrap_or_default(),
        pre_commands_output: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proto::ids::NodeId;
    use proto::state::{Liveness, RolloutPhase, SlotState, Strategy};

    use super::super::fixture::{fleet, node_id, place, release, seen, store, wish};
    use super::super::{Plan, Step, plan};
    use super::short;
    use crate::clock::Time;
    use crate::fleet::{AppFleet, ObservedFallback};

    struct Moving {
        fleet: AppFleet,
        generations: BTreeMap<NodeId, u64>,
        now: Time,
    }

    impl Moving {
        /// Release 1 is in force on two nodes, and release 2 was told to the first.
        fn new() -> Self {
            let fleet = fleet(Strategy::StopFirst, 1, 2);
            let mut moving = Self { fleet, generations: BTreeMap::new(), now: Time(1_000) };
            moving.fleet.wanted = Some(wish(1, 1));
            moving.until_calm();
            moving.watch_passes();
            moving.fleet.wanted = Some(wish(2, 2));
            moving.plan();
            moving
        }

        fn plan(&mut self) -> Plan {
            let planned = plan(&self.fleet, self.now);
            store(&mut self.fleet, &planned, &mut self.generations, self.now);
            let again = plan(&self.fleet, self.now);
            assert!(again.is_empty(), "{again:?}");
            planned
        }

        /// Plans on while every node that is up does as told.
        fn until_calm(&mut self) {
            loop {
                for (place, assigned) in &self.fleet.assigned {
                    if self.fleet.nodes[&place.node].liveness == Liveness::Up {
                        let stable = seen(SlotState::Stable, assigned.release.clone(), assigned.generation);
                        self.fleet.observed.insert(*place, stable);
                    }
                }
                if self.plan().is_empty() {
                    return;
                }
            }
        }

        fn watch_passes(&mut self) {
            for _ in 0..11 {
                self.now = self.now.plus(3_000);
                self.until_calm();
            }
        }

        fn phase(&self) -> Option<RolloutPhase> {
            self.fleet.rollout.as_ref().map(|it| it.phase)
        }

        /// The slot of the first node runs release 1 again, on its own account.
        fn falls_back(&mut self) {
            let rollout = self.fleet.rollout.as_ref().unwrap().id.to_string();
            let generation = self.fleet.assigned[&place(1, 1)].generation;
            let because = "it was not stable".to_owned();
            let mut observed = seen(SlotState::Stable, Some(release(1)), generation);
            observed.fell_back = Some(ObservedFallback { rollout, because });
            self.fleet.observed.insert(place(1, 1), observed);
        }
    }

    #[test]
    fn of_a_long_slogan_a_reason_has_the_head() {
        assert_eq!(short("boot failed"), "boot failed");
        let long = "é".repeat(200);
        assert_eq!(short(&long), format!("{}…", "é".repeat(160)));
    }

    #[test]
    fn a_slot_that_fell_back_by_itself_fails_the_rollout_at_once_and_is_not_touched_again() {
        let mut moving = Moving::new();
        moving.falls_back();
        let planned = moving.plan();
        let [ghost] = planned.ghosts.as_slice() else { panic!("{planned:?}") };
        assert_eq!(ghost.reason, "slot 1 on node-1 fell back by itself: it was not stable");
        assert_eq!(ghost.evidence.place, Some(place(1, 1)));
        assert_eq!(moving.phase(), Some(RolloutPhase::Reverting));
        let told: Vec<_> = planned.steps.iter().map(Step::place).collect();
        let runs_on = Step::Assign {
            place: place(1, 1),
            release: release(1),
            pre_commands_run: None,
            begins: false,
            hot: None,
        };
        assert_eq!((told, planned.steps.first()), (vec![place(1, 1)], Some(&runs_on)));
        moving.until_calm();
        assert_eq!(moving.phase(), None);
        assert_eq!(moving.fleet.last.as_ref().unwrap().phase, RolloutPhase::Reverted);
    }

    #[test]
    fn a_slot_that_fell_back_while_the_others_moved_on_is_told_anew() {
        let mut moving = Moving::new();
        moving.fleet.nodes.get_mut(&node_id(1)).unwrap().liveness = Liveness::Lost;
        moving.until_calm();
        assert_eq!(moving.phase(), Some(RolloutPhase::Watching));
        moving.falls_back();
        moving.fleet.nodes.get_mut(&node_id(1)).unwrap().liveness = Liveness::Up;
        let planned = moving.plan();
        assert_eq!(planned.ghosts, []);
        let told: Vec<_> = planned.steps.iter().map(Step::place).collect();
        assert_eq!(told, [place(1, 1)]);
        moving.until_calm();
        moving.watch_passes();
        assert_eq!(moving.fleet.last.as_ref().unwrap().phase, RolloutPhase::Done);
        assert!(moving.fleet.ghosted.is_empty());
    }
}
