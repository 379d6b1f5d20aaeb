//! Restarts that a person asked for, or a limit that a replica has passed: which slot is started anew next, and when that is over.
//!
//! One named replica is started anew at once, whatever goes on: that is what was asked for. Everything wider rolls: one slot
//! at a time, the next once the last is stable, and never with fewer ready than the strategy allows; `start_first` borrows the
//! spare slot for it. It waits while a rollout moves, because what a rollout gives anew is started anew by that. A replica that
//! has passed a limit (`thresholds`) is restarted in the same way.
//!
//! A start does for every restart that was asked for before it, so two of the same thing cost no more than one.

use proto::ids::{ReleaseKey, Slot};
use proto::state::Liveness;

use super::draft::{Draft, Host};
use super::fault::planted;
use super::place::{NodeSlots, Standing};
use super::waiting::span;
use super::{Happening, HappeningKind, RestartOver, Step, Waiting};
use crate::clock::Time;
use crate::fleet::{Place, RestartWish, ToldRestart};

/// What one wish calls for now.
enum Turn {
    /// It goes on; later ones wait for it.
    Goes,
    /// `Some`: why not all of it was done, a sentence's end.
    Over(Option<String>),
}

impl<'a> Draft<'a> {
    /// Named replicas, in every phase.
    pub(super) fn restart_named(&mut self) {
        let fleet = self.fleet;
        for wish in fleet.restarts.iter().filter(|wish| wish.named().is_some()) {
            if let Turn::Over(failure) = self.restart_one(wish) {
                self.restart_is_over(wish, failure);
            }
        }
    }

    /// Of a replica that this very plan takes away.
    pub(super) fn end_named(&mut self) {
        let fleet = self.fleet;
        for wish in &fleet.restarts {
            if wish.named().is_some_and(|place| self.release_at(place).is_none()) {
                self.restart_is_over(wish, Some(NOTHING.to_owned()));
            }
        }
    }

    /// All others, while no rollout moves. `target`: what runs, or is to.
    pub(super) fn restart_rolling(&mut self, target: Option<&ReleaseKey>) {
        let fleet = self.fleet;
        for wish in fleet.restarts.iter().filter(|wish| wish.named().is_none()) {
            let turn = match target {
                Some(target) => self.restart_next(wish, target),
                None => Turn::Over(Some(NOTHING.to_owned())),
            };
            match turn {
                Turn::Goes => return,
                Turn::Over(failure) => self.restart_is_over(wish, failure),
            }
        }
        if let Some(target) = target
            && let Some(wish) = self.ask_for_limits(target)
            && let Turn::Over(failure) = self.restart_next(&wish, target)
        {
            self.restart_is_over(&wish, failure);
        }
    }

    fn restart_one(&mut self, wish: &RestartWish) -> Turn {
        let Some(place) = wish.place() else { return Turn::Over(None) };
        let (Some(host), Some(release)) = (self.host(place.node), self.release_at(place).cloned()) else {
            return Turn::Over(Some(NOTHING.to_owned()));
        };
        if self.has_been_told(place) {
            return Turn::Goes;
        }
        if host.is(Liveness::Lost) {
            return Turn::Over(Some(format!("{} is not connected", host.node.name)));
        }
        if !self.is_due(wish, place) {
            return match self.standing(place) {
                Standing::Stable => Turn::Over(None),
                _ => self.await_stable(host, place, wish.at),
            };
        }
        if host.is(Liveness::Suspect) {
            self.wait(Waiting::NodeSuspect { node: host.node.name.clone() });
        } else {
            self.start_anew(wish, place, release);
        }
        Turn::Goes
    }

    fn restart_next(&mut self, wish: &RestartWish, target: &ReleaseKey) -> Turn {
        if let Some(again) = wish.place().filter(|_| wish.because.is_some())
            && self.is_due(wish, again)
            && !self.is_over_a_limit(again)
        {
            return Turn::Over(Some("it is below its limits again".to_owned()));
        }
        let turn = match (self.on_restart(wish, target), self.first_due(wish, target)) {
            (Some((host, place)), _) => match self.await_stable(host, place, wish.at) {
                Turn::Over(Some(failure)) => {
                    Turn::Over(Some(format!("{failure}; the others were left alone")))
                }
                turn => turn,
            },
            (None, Some((host, due))) => self.restart_on(wish, host, &due, target),
            (None, None) => match self.first_unheard(wish, target) {
                Some((host, place)) => self.await_stable(host, place, wish.at),
                None => Turn::Over(self.missed(wish, target)),
            },
        };
        // The spare of the host that comes next stays where it is lent.
        let next = self.first_due(wish, target).map(|(host, _)| host.id);
        self.lent_to = next.filter(|_| matches!(turn, Turn::Goes));
        turn
    }

    /// The slot that was started anew last, for this wish or by whoever else came between, until it is stable. Those before
    /// it were stable once: what became of them since has other reasons.
    fn on_restart(&self, wish: &RestartWish, target: &ReleaseKey) -> Option<(Host<'a>, Place)> {
        let (mut own, mut any) = (None, None);
        for host in self.hosts().iter().copied() {
            for place in self.covered_on(host, wish, target) {
                let Some((told, begun_at)) = self.told_restart(place) else { continue };
                // Told once more: it is among the first and the last.
                let again = told.id == wish.id && begun_at == wish.generation;
                if again && !host.is(Liveness::Lost) && !self.is_stable(place) {
                    return Some((host, place));
                }
                let newest = Some((begun_at, place, host)).filter(|_| begun_at >= wish.generation);
                any = later(any, newest);
                own = later(own, newest.filter(|_| told.id == wish.id));
            }
        }
        let on_trial = |place: Place, host: Host<'_>| !host.is(Liveness::Lost) && !self.is_stable(place);
        let newest = [own, any].into_iter().flatten();
        newest.map(|(_, place, host)| (host, place)).find(|(host, place)| on_trial(*place, *host))
    }

    /// The slots on a host that the wish is about.
    fn covered_on(&self, host: Host<'_>, wish: &RestartWish, target: &ReleaseKey) -> Vec<Place> {
        let numbers = (1..=self.replicas_on(host.id)).filter_map(|number| Slot::new(u32::from(number)).ok());
        let runs = |place: &Place| wish.covers(*place) && self.release_at(*place) == Some(target);
        numbers.map(|slot| host.place(slot)).filter(runs).collect()
    }

    fn first_due(&self, wish: &RestartWish, target: &ReleaseKey) -> Option<(Host<'a>, Vec<Place>)> {
        self.hosts().iter().copied().filter(|host| !host.is(Liveness::Lost)).find_map(|host| {
            let mut due = self.covered_on(host, wish, target);
            due.retain(|place| self.is_due(wish, *place));
            (!due.is_empty()).then_some((host, due))
        })
    }

    /// A slot that may have to be started anew, for all that its agent has said so far.
    fn first_unheard(&self, wish: &RestartWish, target: &ReleaseKey) -> Option<(Host<'a>, Place)> {
        let unheard = |place: Place| {
            let told = self.assigned(place);
            let begun_at = told.map_or(0, |it| it.begun_at);
            match self.plan.steps.iter().rev().find(|step| step.place() == place) {
                Some(Step::Assign { begins: false, release, .. }) => {
                    let same = told.is_some_and(|it| it.release.as_ref() == Some(release));
                    !same || begun_at < wish.generation
                }
                Some(_) => false,
                None => begun_at < wish.generation && self.standing(place) == Standing::Told,
            }
        };
        self.hosts().iter().copied().filter(|host| !host.is(Liveness::Lost)).find_map(|host| {
            let covered = self.covered_on(host, wish, target);
            covered.into_iter().find(|place| unheard(*place)).map(|place| (host, place))
        })
    }

    /// What could not be done of a wish of which nothing more can be: hosts that were away are not waited for.
    fn missed(&self, wish: &RestartWish, target: &ReleaseKey) -> Option<String> {
        let (mut any, mut away) = (false, Vec::new());
        for host in self.hosts().iter().copied() {
            let covered = self.covered_on(host, wish, target);
            any |= !covered.is_empty();
            // One that was told and lost before it said that it was stable may never have heard of it.
            let undone =
                |place: &Place| self.is_due(wish, *place) || self.standing(*place) != Standing::Stable;
            if host.is(Liveness::Lost) && covered.iter().any(undone) {
                away.push(host.node.name.to_string());
            }
        }
        match (any, away.as_slice()) {
            (false, _) => Some(NOTHING.to_owned()),
            (true, []) => None,
            (true, [one]) => Some(format!("{one} was not connected")),
            (true, many) => Some(format!("{} were not connected", many.join(", "))),
        }
    }

    /// The next of a host's slots, where enough others are ready.
    fn restart_on(&mut self, wish: &RestartWish, host: Host<'_>, due: &[Place], target: &ReleaseKey) -> Turn {
        if planted!(RestartAllAtOnce) || planted!(HurryForLimits) && wish.because.is_some() {
            for place in due {
                self.start_anew(wish, *place, target.clone());
            }
            return Turn::Goes;
        }
        if host.is(Liveness::Suspect) {
            self.wait(Waiting::NodeSuspect { node: host.node.name.clone() });
            return Turn::Goes;
        }
        let slots = self.slots_of(host, target);
        let views = || slots.slots.iter().filter(|view| due.contains(&host.place(view.slot)));
        if let Some(view) = views().find(|view| view.standing == Standing::Told) {
            return self.await_stable(host, host.place(view.slot), wish.at);
        }
        let serves_nobody = views().find(|view| !view.standing.is_ready());
        let room = self.room_on(host.id);
        if let Some(view) = serves_nobody.or_else(|| views().find(|view| slots.may_replace(**view, room))) {
            self.start_anew(wish, host.place(view.slot), target.clone());
            return Turn::Goes;
        }
        self.make_room(wish, host, &slots, target)
    }

    /// Enough others must be ready first: the spare, where the strategy has one, or those that are not.
    fn make_room(
        &mut self,
        wish: &RestartWish,
        host: Host<'_>,
        slots: &NodeSlots,
        target: &ReleaseKey,
    ) -> Turn {
        let spare = slots.spare.map(|spare| host.place(spare));
        match spare {
            Some(spare) if self.release_at(spare).is_none() => {
                self.assign(spare, target, None);
                return Turn::Goes;
            }
            Some(spare) if !self.standing(spare).is_ready() => {
                return self.await_stable(host, spare, wish.at);
            }
            Some(_) | None => {}
        }
        match slots.wanted().find(|view| !view.standing.is_ready()).map(|view| host.place(view.slot)) {
            Some(unready) => self.await_stable(host, unready, wish.at),
            None => {
                if let Some(view) = slots.wanted().next() {
                    self.wait_for_others(host, view.slot, Vec::new());
                }
                Turn::Goes
            }
        }
    }

    /// It was neither told to start anew nor given a release since, and its agent has taken up what it was told last.
    fn is_due(&self, wish: &RestartWish, place: Place) -> bool {
        let before = self.assigned(place).is_some_and(|it| it.begun_at < wish.generation);
        before && self.standing(place) != Standing::Told && !self.has_been_told(place)
    }

    /// Nobody knows when what runs there was begun.
    fn is_unknown(&self, place: Place) -> bool {
        self.assigned(place).is_none_or(|it| it.begun_at == 0)
    }

    /// What it was told to start anew for, by this plan or before it, with the application's generation of that.
    fn told_restart(&self, place: Place) -> Option<(ToldRestart, u64)> {
        match self.plan.steps.iter().rev().find(|step| step.place() == place) {
            Some(Step::Restart { restart, only_since, .. }) => {
                let begun_at = only_since.unwrap_or(self.fleet.generation + 1);
                Some((ToldRestart { id: *restart, at: self.now }, begun_at))
            }
            Some(_) => None,
            None => self.assigned(place).and_then(|it| Some((it.restart?, it.begun_at))),
        }
    }

    /// It is away because somebody asked for that, and not for too long.
    pub(super) fn is_being_restarted(&self, place: Place) -> bool {
        let patience = self.patience_with_restarts();
        self.told_restart(place)
            .is_some_and(|(told, _)| told.at <= self.now && self.now.since(told.at) < patience)
    }

    /// The same where the clock was put back since: while it is not ready, it is not to be forgotten.
    pub(super) fn was_restarted_of_late(&self, place: Place) -> bool {
        let told = self.told_restart(place);
        told.is_some_and(|(told, _)| self.now.since(told.at) < self.patience_with_restarts())
    }

    fn patience_with_restarts(&self) -> u64 {
        self.fleet.spec.as_ref().map_or(0, |spec| spec.rollback_timeout.0)
    }

    fn start_anew(&mut self, wish: &RestartWish, place: Place, release: ReleaseKey) {
        // Nobody knows what it has done since: an agent does each wish once.
        let same = self.fleet.restarts.iter().filter(|it| it.named().is_some() && it.named() == wish.named());
        let wish = same.max_by_key(|it| it.generation).unwrap_or(wish);
        let only_since = self.is_unknown(place).then_some(wish.generation);
        self.tell_anew(Step::Restart { place, restart: wish.id, only_since }, release);
        if let Some(host) = self.host(place.node) {
            self.wait(Waiting::ToBeTakenUp { node: host.node.name.clone(), slot: place.slot });
        }
    }

    /// For as long as a slot of a rollout has: then the rest is better left alone. `asked`: nothing counts from before.
    fn await_stable(&mut self, host: Host<'_>, place: Place, asked: Time) -> Turn {
        let patience = self.patience_with_restarts();
        let assigned = self.assigned(place);
        let told = assigned.map(|it| it.restart.map_or(it.since, |told| told.at));
        let until = told.map_or(asked, |told| told.max(asked)).plus(patience);
        // Nothing is held against a node that is away, nor against one that has not spoken since this program began.
        let may_fail = host.is(Liveness::Up) && self.fleet.observed.contains_key(&place);
        if self.now >= until && may_fail {
            let named = self.named(place);
            return Turn::Over(Some(format!("{named} was not stable within {}", span(patience))));
        }
        if may_fail {
            self.wake_at(until);
        }
        if host.is(Liveness::Suspect) {
            self.wait(Waiting::NodeSuspect { node: host.node.name.clone() });
        } else {
            self.wait_for(host, place, None);
        }
        Turn::Goes
    }

    fn restart_is_over(&mut self, wish: &RestartWish, failure: Option<String>) {
        if self.plan.restarts.iter().any(|over| over.id == wish.id) {
            return;
        }
        let what = self.restarted(wish);
        let (kind, text) = match (&failure, &wish.because) {
            (None, Some(because)) => {
                (HappeningKind::RestartComplete, format!("{what} was started anew: {because}"))
            }
            (None, None) => {
                (HappeningKind::RestartComplete, format!("{what} was started anew, as {} asked", wish.by))
            }
            (Some(why), Some(because)) => (
                HappeningKind::RestartFailed,
                format!(
                    "the restart of {what} for a limit that it had passed ({because}) is not complete: {why}"
                ),
            ),
            (Some(why), None) => (
                HappeningKind::RestartFailed,
                format!("the restart of {what} that {} asked for is not complete: {why}", wish.by),
            ),
        };
        let release = self.in_force.clone();
        self.plan.events.push(Happening { kind, place: wish.place(), rollout: None, release, text });
        self.plan.restarts.push(RestartOver { id: wish.id, failure });
    }

    /// "slot 2 of shop on web-1"
    pub(super) fn restarted(&self, wish: &RestartWish) -> String {
        let slot = wish.slot.map(|slot| format!("slot {slot} of ")).unwrap_or_default();
        let node = wish.node.map(|node| match self.fleet.nodes.get(&node) {
            Some(known) => format!(" on {}", known.name),
            None => " on a node that was removed".to_owned(),
        });
        format!("{slot}{}{}", self.fleet.app, node.unwrap_or_default())
    }
}

type Newest<'a> = Option<(u64, Place, Host<'a>)>;

fn later<'a>(one: Newest<'a>, other: Newest<'a>) -> Newest<'a> {
    let when = |it: &Newest<'a>| it.as_ref().map(|(begun_at, place, _)| (*begun_at, *place));
    if when(&other) > when(&one) { other } else { one }
}

const NOTHING: &str = "nothing of it is to run any more";
