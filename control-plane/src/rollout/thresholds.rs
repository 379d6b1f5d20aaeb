//! Replicas whose virtual machine has passed a limit of its application's `monitoring`: which one is started anew for it, and
//! when.
//!
//! Agents say which of them have passed one and restart nothing: here alone it is known whether another replica of the
//! application is away, on whatever host. One is asked for at a time, where no other restart is under way and no rollout moves;
//! then it is like any restart that rolls (`restart`): never with fewer ready than the strategy allows, and the next one once it
//! is stable. A replica that was told to start anew is left alone for the cooldown. Without a control plane nothing is restarted.

use proto::ids::{ReleaseKey, RestartId, Slot};
use proto::replicas::{level_sentence, percent_of};
use proto::state::{HostLevel, Liveness};
use sha2::{Digest as _, Sha256};

use super::draft::Draft;
use super::fault::planted;
use super::place::Standing;
use super::{Happening, HappeningKind, Waiting};
use crate::clock::Time;
use crate::fleet::{ObservedLevel, Place, RestartWish};
use crate::spec::monitoring::Threshold;

/// Whose wish it is, where people's have a name.
const BY: &str = "thresholds";

/// A replica that is to be started anew for a limit.
struct Candidate {
    place: Place,
    percent: u64,
    because: String,
}

impl Draft<'_> {
    /// The wish that this plan is to carry out, where it is time for one: of those that have passed a limit, the one that uses
    /// the most of what it may.
    pub(super) fn ask_for_limits(&mut self, target: &ReleaseKey) -> Option<RestartWish> {
        if self.plan.asked.is_some() {
            return self.plan.asked.clone();
        }
        // Of thousands of replicas that are all within their limits nothing more is asked than this.
        let passed = |it: &ObservedLevel| it.level == HostLevel::Exceeded;
        let mut vms = self.fleet.observed.values().filter_map(|seen| seen.vm.as_ref());
        if !vms.any(|vm| vm.levels.iter().any(passed)) {
            return None;
        }
        let is_over = |wish: &RestartWish| self.plan.restarts.iter().any(|over| over.id == wish.id);
        if !self.fleet.restarts.iter().all(is_over) || self.is_being_told() {
            return None;
        }
        // One that is not stable is away, or may be at any moment: where it stays so, a restart would be asked for, given up and
        // asked for again for ever.
        let steady = self.all_steady(target)?;
        let mut chosen: Option<Candidate> = None;
        for place in steady {
            let found = self.candidate(place);
            // Of equals the first.
            if found.as_ref().is_some_and(|it| chosen.as_ref().is_none_or(|than| it.percent > than.percent)) {
                chosen = found;
            }
        }
        let wish = self.wish_for(chosen?);
        let (what, because) = (self.restarted(&wish), wish.because.as_deref().unwrap_or_default());
        let text = format!("{what} is to be started anew: {because}");
        let (kind, release) = (HappeningKind::RestartRequested, Some(target.clone()));
        self.plan.events.push(Happening { kind, place: wish.place(), rollout: None, release, text });
        self.plan.asked = Some(wish.clone());
        Some(wish)
    }

    /// A place was told something that its agent has not taken up, or is on its way out: what is away by that is not known yet.
    fn is_being_told(&self) -> bool {
        self.fleet.assigned.keys().any(|place| {
            let lost = self.fleet.nodes.get(&place.node).is_none_or(|node| node.liveness == Liveness::Lost);
            let withdrawn = self.release_at(*place).is_none() && !self.forgets(*place);
            !lost && (withdrawn || self.standing(*place) == Standing::Told)
        })
    }

    /// Whether what its agent said last of a place is that it has passed a limit for which it is to be restarted.
    pub(super) fn is_over_a_limit(&self, place: Place) -> bool {
        self.passed(place).next().is_some()
    }

    /// Replicas that stay, where all of them are stable on what they are to run. Who is lost is not waited for.
    fn all_steady(&self, target: &ReleaseKey) -> Option<Vec<Place>> {
        let seen = self.hosts().iter().filter(|host| !host.is(Liveness::Lost));
        let places = seen.flat_map(|host| {
            let numbers = 1..=self.replicas_on(host.id);
            numbers.filter_map(|number| Slot::new(number.into()).ok()).map(|slot| host.place(slot))
        });
        let is_steady = |place: Place| {
            let up = self.host(place.node).is_some_and(|host| host.is(Liveness::Up));
            up && self.release_at(place) == Some(target) && self.standing(place) == Standing::Stable
        };
        places.map(|place| is_steady(place).then_some(place)).collect()
    }

    /// `None`: it is within its limits, or it is too early, which is said.
    fn candidate(&mut self, place: Place) -> Option<Candidate> {
        let (mut chosen, mut early) = (None::<Candidate>, None::<(Time, String)>);
        for (level, threshold) in self.passed(place) {
            let ObservedLevel { figure, count, limit, .. } = level;
            let because = format!("threshold: {}", level_sentence(figure, count, limit));
            match self.cooldown_end(place, threshold) {
                Some(end) => early = early.filter(|it| it.0 <= end).or(Some((end, because))),
                None => {
                    let percent = percent_of(count, limit);
                    chosen = chosen.filter(|it| it.percent >= percent).or(Some(Candidate {
                        place,
                        percent,
                        because,
                    }));
                }
            }
        }
        if let (None, Some((end, because))) = (&chosen, early) {
            let left_ms = end.since(self.now);
            if let Some(node) = self.fleet.nodes.get(&place.node) {
                let (node, slot) = (node.name.clone(), place.slot);
                self.wait(Waiting::Cooldown { node, slot, because, left_ms });
            }
            self.wake_at(end);
        }
        chosen
    }

    /// Where its configuration asks for a restart still: its agent may not have heard yet that it does not.
    fn passed(&self, place: Place) -> impl Iterator<Item = (ObservedLevel, Threshold)> {
        let monitoring = self.fleet.spec.as_ref().map(|spec| spec.monitoring);
        let levels = self.report(place).and_then(|it| it.vm.as_ref()).map_or(&[][..], |vm| &vm.levels);
        let exceeded = levels.iter().copied().filter(|it| it.level == HostLevel::Exceeded);
        exceeded.filter_map(move |level| {
            let threshold = monitoring?.of(level.figure)?;
            threshold.restart.map(|_| (level, threshold))
        })
    }

    /// Of what was started anew not long ago, by whosever wish, and of a restart for a limit that was given up, whichever that
    /// was about. `None`: it is over. A clock that was put back ends it.
    fn cooldown_end(&self, place: Place, threshold: Threshold) -> Option<Time> {
        let told = self.assigned(place).and_then(|it| it.restart).map(|it| it.at);
        let begun = told.into_iter().chain(self.given_up()).filter(|at| *at <= self.now).max()?;
        let end = begun.plus(threshold.cooldown.0);
        (self.now < end && !planted!(IgnoreCooldowns)).then_some(end)
    }

    fn given_up(&self) -> Option<Time> {
        let mut over = self.plan.restarts.iter().filter(|over| over.failure.is_some());
        let is_ours =
            |id: RestartId| self.fleet.restarts.iter().any(|wish| wish.id == id && wish.because.is_some());
        if over.any(|over| is_ours(over.id)) { Some(self.now) } else { self.fleet.given_up }
    }

    fn wish_for(&self, candidate: Candidate) -> RestartWish {
        let Candidate { place, because, .. } = candidate;
        let generation = self.fleet.generation + 1;
        // The same fleet gives the same plan, ids included.
        let seed = format!("{} {generation} {place} {because}", self.fleet.app);
        let hash = Sha256::digest(seed.as_bytes());
        let mut random = [0; 10];
        random.copy_from_slice(&hash[..10]);
        RestartWish {
            id: RestartId(uuid::Builder::from_unix_timestamp_millis(self.now.0, &random).into_uuid()),
            generation,
            node: Some(place.node),
            slot: Some(place.slot),
            by: BY.to_owned(),
            because: Some(because),
            at: self.now,
        }
    }
}
