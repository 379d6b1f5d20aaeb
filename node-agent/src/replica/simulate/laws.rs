//! The rules that are looked at when something is done, and after every step. See [`Invariant`] for what each is called.

use super::*;

impl World {
    pub(super) fn folders_rest(&self, what: &str) -> Checked {
        match &self.alive {
            Some(alive) if alive.known => violated(
                Invariant::FoldersRestWhileAProcessRuns,
                format!("{what} was asked for while {alive:?}"),
            ),
            _ => Ok(()),
        }
    }

    pub(super) fn pre_commands_passed(&self, release: &ReleaseKey) -> Checked {
        let wished = self
            .replica
            .wanted()
            .filter(|it| it.release == *release)
            .and_then(|it| it.pre_commands.as_ref())
            .filter(|it| it.count > 0 && !self.pre_spared.contains(&it.run_id));
        match wished {
            Some(run) if self.pre_log.get(&run.run_id) != Some(&run.count) => violated(
                Invariant::NothingTakesOverBeforeItsPreCommandsPassed,
                format!("{run:?}, passed so far {:?}", self.pre_log.get(&run.run_id)),
            ),
            _ => Ok(()),
        }
    }

    pub(super) fn slowed_down(&mut self) -> Checked {
        let now = self.now;
        self.starts.retain(|it| now.since(*it) < 10_000);
        self.starts.push(now);
        if self.starts.len() > 8 {
            return violated(
                Invariant::CrashLoopsAreSlowedDown,
                format!("{} starts in 10 s", self.starts.len()),
            );
        }
        Ok(())
    }

    /// Who is told to stop has its grace, whatever becomes of ledgers and agents.
    pub(super) fn told_to_stop(&mut self, ticket: Ticket, grace: u64) -> Checked {
        let now = self.now;
        let stale = self.replica.current.as_ref().is_some_and(|it| ticket < it.since);
        let Some(alive) = self.alive.as_mut().filter(|it| it.ticket == ticket) else { return Ok(()) };
        if grace == 0 && !stale && alive.spared_until.is_none_or(|until| now < until) {
            return violated(Invariant::NothingIsKilledBeforeItsGrace, format!("{alive:?}"));
        }
        alive.spared_until.get_or_insert(now.plus(grace));
        Ok(())
    }

    pub(super) fn stopped_with_cause(&self, ticket: Ticket, grace: u64) -> Checked {
        let replica = &self.replica;
        let target = replica.target();
        let staged = target.as_ref().is_some_and(|it| {
            replica.stage == Stage::Staged { release: it.release.clone() } && !self.is_to_be_upgraded(it)
        });
        let stale = replica.current.as_ref().is_some_and(|it| ticket < it.since);
        let condemned = self.condemned.contains(&ticket);
        // Nor to make room for what it is.
        let is_what_is_wanted = self.alive.as_ref().is_some_and(|it| {
            it.ticket == ticket
                && !it.denied
                && target.as_ref().is_some_and(|wanted| wanted.release == it.release)
        });
        if condemned
            || replica.wanted().is_none()
            || (staged && !is_what_is_wanted)
            || stale
            || replica.restart_is_due()
            || grace == 0
        {
            return Ok(());
        }
        violated(Invariant::NothingIsStoppedWithoutCause, format!("{ticket:?} in {replica:?}"))
    }

    /// A slot goes back once its release had its time in its place, was never stable and nobody was there; and it does then.
    pub(super) fn goes_back_rightly(&mut self, before: &Replica) -> Checked {
        let now = self.now;
        let went = |it: &Replica| it.fell_back().map(|(fallback, ..)| fallback.rollout.clone());
        let (was, is) = (went(before), went(&self.replica));
        let stable = self.replica.is_stable(now) || before.is_stable(now);
        let next = &self.replica;
        let wish = next.wanted().and_then(|it| Some((it, it.fallback.as_ref()?)));
        let wish = wish.filter(|(wanted, fallback)| wanted.release != fallback.release);
        let lies = |it: &Replica, wanted: &Wanted| {
            it.current.as_ref().is_some_and(|current| current.release == wanted.release)
        };
        let placed = wish.filter(|(wanted, _)| lies(next, wanted));
        self.in_place = placed.map(|(_, fallback)| match self.in_place.take() {
            Some(known) if known.0 == fallback.rollout => known,
            _ => (fallback.rollout.clone(), now, now),
        });
        let alone = self.alone_since.is_some_and(|since| now.since(since) >= 10_000);
        let place = placed.zip(self.in_place.as_ref());
        let place = place.filter(|(_, (rollout, ..))| alone && !stable && !self.was_stable.contains(rollout));
        let may = place.is_some_and(|((_, fallback), (_, since, _))| now.since(*since) >= fallback.within);
        if is.is_some() && is != was && !may {
            let detail = format!("{is:?}, alone: {alone}, in place: {:?}, {now:?}", self.in_place);
            return violated(Invariant::NobodyGoesBackWhoNeedNot, detail);
        }
        let passed = matches!(&next.trial, Some(Trial { verdict: Verdict::Stable, .. }));
        let must = place.is_some_and(|((_, fallback), (.., since))| now.since(*since) >= fallback.within);
        if must && !passed && is.is_none() {
            let detail = format!("in place: {:?}, {now:?}, {next:?}", self.in_place);
            return violated(Invariant::WhoIsLeftAloneGoesBack, detail);
        }
        // The new release has all the time that the first of any has.
        if is != was {
            self.starts.clear();
        }
        Ok(())
    }

    /// What a slot has gone back from does not take its place anew for the same wish.
    pub(super) fn went_over(&mut self, release: &ReleaseKey) -> Checked {
        let replica = &self.replica;
        if let Some((fallback, ..)) = replica.fell_back().filter(|(it, ..)| it.release == *release) {
            self.went_back.insert(fallback.rollout.clone());
            return Ok(());
        }
        let again = replica.wanted().and_then(|it| it.fallback.as_ref());
        match again.filter(|it| it.release != *release && self.went_back.contains(&it.rollout)) {
            Some(fallback) => violated(Invariant::NobodyGoesBackTwice, format!("{release} for {fallback:?}")),
            None => Ok(()),
        }
    }

    /// The repetition of a stop is one of what was stopped.
    pub(super) fn stopped_drained(&self, ticket: Ticket, grace: u64) -> Checked {
        let hangs =
            self.replica.condemned.as_ref().is_some_and(|(_, why)| why.charge == Charge::Unresponsive);
        let is_over = self.alive.as_ref().is_none_or(|it| it.ticket != ticket);
        if is_over
            || grace == 0
            || hangs
            || self.served != Some(ticket)
            || self.drained.is_some_and(|it| self.now >= it)
        {
            return Ok(());
        }
        violated(
            Invariant::NothingIsStoppedWhileItIsSentRequests,
            format!("{ticket:?} was ready, drained: {:?}", self.drained),
        )
    }

    pub(super) fn check(&self, before: &Replica) -> Checked {
        let next = &self.replica;
        let generation = |it: &Replica| it.assignment.as_ref().map_or(0, |it| it.generation);
        if generation(next) < generation(before) {
            return violated(
                Invariant::GenerationsOnlyGrow,
                format!("{} → {}", generation(before), generation(next)),
            );
        }
        if next.crash_restarts < before.crash_restarts || next.forced_restarts < before.forced_restarts {
            return violated(Invariant::CountsOnlyGrow, format!("{before:?} → {next:?}"));
        }
        if next.crash_restarts > self.crashes {
            return violated(Invariant::OnlyCrashesAreCounted, format!("{} crashes, {next:?}", self.crashes));
        }
        if let (Restart::Done { request: done }, Restart::Due { request: due }) =
            (&before.restart, &next.restart)
            && done == due
        {
            return violated(Invariant::RestartsAreDoneOnce, due.clone());
        }
        if let Process::Up { ticket, .. } = next.process
            && self.condemned.contains(&ticket)
        {
            return violated(Invariant::TheCondemnedEnd, format!("{ticket:?} goes on in {next:?}"));
        }
        if let Process::BackingOff { until } = next.process
            && until.since(self.now) > POLICY.backoff_max
        {
            return violated(Invariant::PausesAreCapped, format!("{} ms", until.since(self.now)));
        }
        self.says_what_runs()?;
        let (again, actions) = decide(next, Event::Tick, self.now);
        if again != *next || !actions.is_empty() {
            return violated(Invariant::ATickAddsNothing, format!("{next:?} → {again:?}, {actions:?}"));
        }
        Ok(())
    }
}
