//! Which slots are brought to a release while what runs there runs on, and what follows when one of them cannot be.
//!
//! A slot is told so where its package allows it from exactly what runs there. One that fails before it changes anything goes
//! on as it was: its next word, of this plan, is a full deployment, as if nothing had been tried. What would fail like that on
//! every host, or has cost a virtual machine its state, is tried nowhere else in the same rollout.

use proto::hot_upgrade::{HotUpgradePolicy, way};
use proto::ids::ReleaseKey;
use proto::state::{Language, Liveness, RolloutPhase, SlotState, UpgradeState};

use super::draft::{Draft, Host};
use super::fault::planted;
use super::gate::Failure;
use super::place::Standing;
use super::sight::Sight;
use super::{HappeningKind, Rollout, Step};
use crate::fleet::{Hot, Observed, ObservedUpgrade, Place};

/// So often a slot is told to be upgraded in one rollout where something else than the upgrade is in its way.
const MOST_TRIES: u32 = 3;

/// Ways between releases that were asked for already: of an application there are a handful.
pub(super) type Ways = Vec<(ReleaseKey, ReleaseKey, bool)>;

impl Observed {
    /// Why what runs would not be upgraded where it may be deployed in full, whatever the package is like.
    pub(crate) fn in_the_way(&self) -> Option<String> {
        let connected = self.erlang.as_ref().is_some_and(|it| it.connected_since.is_some());
        if !self.hot_upgrades {
            return Some("its agent knows no hot upgrades".to_owned());
        }
        if !self.waiting_settings.is_empty() {
            let settings = self.waiting_settings.join(", ");
            return Some(format!("{settings} changed since it was started, which takes a start"));
        }
        if !self.serves() {
            return Some("it is not ready".to_owned());
        }
        let because = self.erlang.as_ref().map(|it| it.because.as_str()).filter(|it| !it.is_empty());
        (!connected).then(|| match because {
            Some(because) => format!("its agent is not connected to its Erlang node: {because}"),
            None => "its agent is not connected to an Erlang node of it".to_owned(),
        })
    }

    fn serves(&self) -> bool {
        matches!(self.state, SlotState::Ready | SlotState::Stable)
    }

    /// What ends a try that is neither of the package nor of the install: a full disk, a process that ended, a host that lost its
    /// power, a wish that was taken back. What runs is what it was, and the next try may well pass.
    fn was_hindered(&self) -> bool {
        self.failed_upgrade().is_some_and(|it| !it.of_package && !it.spoiled)
    }

    /// The upgrade that failed there last.
    fn failed_upgrade(&self) -> Option<&ObservedUpgrade> {
        self.upgrade.as_deref().filter(|it| it.state == UpgradeState::Failed)
    }
}

/// It was told to be upgraded, could not be, and runs on as it was.
pub(super) fn was_left_as_it_was<'a>(sight: &Sight<'a>) -> Option<&'a Observed> {
    let (hot, seen) = (sight.assigned.hot.as_ref()?, sight.report?);
    // Where nothing else was allowed, it was started anew as it was.
    let waits = |it: &&ObservedUpgrade| it.attempt == hot.attempt && (!it.spoiled || hot.required);
    let failed = seen.failed_upgrade().filter(waits)?;
    // What is only to be upgraded has to serve first: it was just started anew.
    if hot.required && seen.was_hindered() && !seen.serves() {
        return None;
    }
    (seen.running.as_ref() == Some(&failed.from)).then_some(seen)
}

/// What the `number`th try is called of all that are made `of` one thing.
fn nth(of: &str, number: u32) -> String {
    if number == 1 { of.to_owned() } else { format!("{of}.{number}") }
}

/// `None`: it is of another thing.
fn number_of(attempt: &str, of: &str) -> Option<u32> {
    match attempt.strip_prefix(of)? {
        "" => Some(1),
        rest => rest.strip_prefix('.')?.parse().ok(),
    }
}

/// How it stands that runs on as it was; `told`: by this plan.
pub(super) fn standing_as_it_was(
    told: Option<&Option<ReleaseKey>>,
    sight: Option<&Sight<'_>>,
) -> Option<Standing> {
    let seen = sight.filter(|_| told.is_none()).and_then(was_left_as_it_was)?;
    Some(match seen.state {
        SlotState::Stable => Standing::Stable,
        SlotState::Ready => Standing::Ready,
        _ => Standing::Unready,
    })
}

/// The rollout that this plan is about, as far as it decides how a release comes to a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moving {
    attempt: String,
    /// No further slot is upgraded in it.
    given_up: bool,
    /// Its release is not in force yet, and it does not go back.
    moves: bool,
    /// It goes back, because its release is not good.
    has_failed: bool,
}

impl Rollout {
    /// What its slots are told to be upgraded for. The way back is a try of its own.
    fn attempt(&self) -> String {
        match self.phase {
            RolloutPhase::Reverting => format!("{}-back", self.id),
            _ => self.id.to_string(),
        }
    }
}

impl Draft<'_> {
    /// Before anything is told for it.
    pub(super) fn moves(&mut self, rollout: Option<&Rollout>) {
        self.moving = rollout.map(|it| {
            let ghosted = |release: &ReleaseKey| {
                let now = self.plan.ghosts.iter().any(|ghost| ghost.release == *release);
                now || self.fleet.ghosted.contains(release)
            };
            Moving {
                attempt: it.attempt(),
                given_up: it.progress.hot_given_up.is_some() && it.phase != RolloutPhase::Reverting,
                moves: it.phase.moves(),
                has_failed: it.phase == RolloutPhase::Reverting && ghosted(&it.release),
            }
        });
    }

    /// How `release` is to come to a slot; `None`: what runs there ends first, or nothing does.
    pub(super) fn hot_to(&self, place: Place, release: &ReleaseKey) -> Option<Hot> {
        // Whoever knows of no package knows of no way.
        if self.fleet.packages.is_empty() || planted!(NeverHot) {
            return None;
        }
        // Nor is anything kept where nothing is in force.
        let spec = self.fleet.spec.as_ref().filter(|_| self.in_force.is_some())?;
        if spec.deploy.hot_upgrade == HotUpgradePolicy::Never {
            return None;
        }
        let seen = self.fleet.observed.get(&place).filter(|it| it.hot_upgrades)?;
        let from = seen.running.clone().filter(|it| it != release)?;
        let moving = self.moving.as_ref();
        // What has failed is not trusted with the way back either.
        if moving.is_some_and(|it| it.has_failed) {
            return None;
        }
        let of = match moving {
            Some(moving) => moving.attempt.clone(),
            None => Hot::outside_of_any(&self.fleet.app, self.fleet.generation),
        };
        let failed = seen.failed_upgrade();
        let same = failed.is_some_and(|it| it.to == *release && it.from == from);
        let number = failed.and_then(|it| number_of(&it.attempt, &of));
        let (attempt, tried) = match number {
            None => (of, same && moving.is_none()),
            // From what ran there before.
            Some(number) if !same => (nth(&of, number + 1), false),
            Some(number) if self.may_try_again(seen, number) => (nth(&of, number + 1), false),
            Some(number) => (nth(&of, number), true),
        };
        // What is in force is kept, and so is what serves and can be upgraded. Whatever else runs is a leftover of another rollout;
        // back, to what is in force, and in a rollout that went on in full already, a slot may be told in full as well.
        let is_to_be_kept = self.in_force.as_ref() == Some(&from) || (seen.serves() && !tried);
        let required =
            self.requires_hot() && moving.is_some_and(|it| it.moves && !it.given_up) && is_to_be_kept;
        if !required {
            let given_up = moving.is_some_and(|it| it.given_up);
            // Nobody is served by what is not ready, and into what cannot be talked to nothing can be brought.
            let apt = seen.in_the_way().is_none() && self.leads(&from, release);
            if (tried || given_up || !apt) && !planted!(HotWhateverFailed) {
                return None;
            }
        }
        Some(Hot { attempt, from, required })
    }

    /// Where nothing else is allowed, what has nothing to do with the upgrade does not end it.
    fn may_try_again(&self, seen: &Observed, number: u32) -> bool {
        let moves = self.moving.as_ref().is_some_and(|it| it.moves);
        self.requires_hot() && moves && seen.was_hindered() && number < MOST_TRIES
    }

    /// Whether the packages lead from one to the other.
    fn leads(&self, from: &ReleaseKey, to: &ReleaseKey) -> bool {
        let known =
            self.ways.borrow().iter().find(|(a, b, _)| a == from && b == to).map(|(.., leads)| *leads);
        known.unwrap_or_else(|| {
            let leads = self.full_because(from, to).is_none();
            self.ways.borrow_mut().push((from.clone(), to.clone(), leads));
            leads
        })
    }

    /// Why it would be a full deployment, a sentence.
    fn full_because(&self, from: &ReleaseKey, to: &ReleaseKey) -> Option<String> {
        let package = |key: &ReleaseKey| self.fleet.packages.get(key);
        let spec = self.fleet.spec.as_ref();
        let (language, policy) = spec
            .map_or((Language::Gleam, HotUpgradePolicy::Never), |it| (it.language, it.deploy.hot_upgrade));
        let way = way((&from.version, package(from)), (&to.version, package(to)), language, policy);
        way.because().map(ToString::to_string)
    }

    /// Where nothing but a hot upgrade is allowed and there is no way for one from what is in force.
    pub(super) fn is_refused_as_full(&self, release: &ReleaseKey) -> Option<String> {
        let spec = self.fleet.spec.as_ref()?;
        let from = self.in_force.as_ref()?;
        let required = spec.deploy.hot_upgrade == HotUpgradePolicy::Require;
        if !required || from == release || planted!(FullThoughHotIsRequired) {
            return None;
        }
        self.full_because(from, release).or_else(|| self.agent_in_the_way(from))
    }

    /// It would take a deployment of what runs there for a full one.
    fn agent_in_the_way(&self, from: &ReleaseKey) -> Option<String> {
        let is_lost =
            |place: &Place| self.hosts().iter().any(|it| it.id == place.node && it.is(Liveness::Lost));
        let mut running = self.fleet.observed.iter().filter(|(_, it)| it.running.as_ref() == Some(from));
        let (place, _) = running.find(|(place, it)| !it.hot_upgrades && !is_lost(place))?;
        Some(format!("the agent of {} knows no hot upgrades; upgrade it first", self.named(*place)))
    }

    /// Gives up hot upgrades for the rest of the rollout where one has shown that they will not do.
    pub(super) fn hear_of_upgrades(&mut self, rollout: &mut Rollout) {
        if rollout.progress.hot_given_up.is_some() || self.requires_hot() || planted!(HotWhateverFailed) {
            return;
        }
        let id = rollout.attempt();
        let shows = |seen: &&Observed| {
            let of_it = |it: &ObservedUpgrade| number_of(&it.attempt, &id).is_some();
            seen.failed_upgrade().is_some_and(|it| of_it(it) && !seen.was_hindered())
        };
        let mut told = self.bearers(&rollout.release).into_iter();
        let shown = told.find_map(|it| Some((it.place, it.report.filter(shows)?)));
        let Some((place, seen)) = shown else { return };
        let Some(failed) = seen.failed_upgrade() else { return };
        let because = format!("{} could not be hot-upgraded: {}", self.named(place), failed.because);
        rollout.progress.hot_given_up = Some(because.clone());
        self.moves(Some(rollout));
        let text = format!("{because}; {} goes on as a full deployment", rollout.release.version);
        self.happened(HappeningKind::HotUpgradeGivenUp, rollout, Some(place), text);
    }

    /// What was to be upgraded, could not be, and was started anew as what is wanted all the same: told so, for its history.
    pub(super) fn tell_what_came_in_full(&mut self, rollout: &Rollout) {
        let release = &rollout.release;
        let came = self.bearers(release).into_iter().filter_map(|it| {
            let (assigned, seen) = (it.assigned?, it.report?);
            let failed = seen.failed_upgrade()?;
            let of_it = assigned.hot.as_ref().is_some_and(|hot| hot.attempt == failed.attempt);
            // What serves already would count as away until it has heard of it.
            let runs_it = seen.running.as_ref() == Some(release) && !it.standing.is_ready();
            (of_it && runs_it).then(|| (it.place, assigned.pre_commands_run.clone()))
        });
        let came: Vec<_> = came.collect();
        for (place, pre_commands_run) in came {
            let (release, told) = (release.clone(), Some(release.clone()));
            self.tell(told, Step::Assign { place, release, pre_commands_run, begins: false, hot: None });
        }
    }

    pub(super) fn requires_hot(&self) -> bool {
        self.fleet.spec.as_ref().is_some_and(|it| it.deploy.hot_upgrade == HotUpgradePolicy::Require)
    }

    /// A slot that could not be upgraded where nothing else is allowed.
    pub(super) fn upgrade_failure(&self, rollout: &Rollout) -> Option<Failure> {
        if !self.requires_hot() || rollout.progress.hot_given_up.is_some() {
            return None;
        }
        let id = rollout.attempt();
        let counts = |place: &Place| !rollout.progress.failed.contains_key(&place.node);
        let mut told = self.bearers(&rollout.release).into_iter().filter(|it| counts(&it.place));
        told.find_map(|bearer| {
            let seen = bearer.report?;
            // What was left over by another rollout says nothing of a way from what is in force.
            let from_in_force = |it: &&ObservedUpgrade| Some(&it.from) == self.in_force.as_ref();
            let failed = seen.failed_upgrade().filter(from_in_force)?;
            let number = number_of(&failed.attempt, &id)?;
            let told = bearer.assigned.and_then(|it| it.hot.as_ref());
            let ours = told.is_some_and(|it| it.attempt == failed.attempt);
            let goes_on = self.may_try_again(seen, number) || seen.running.as_ref() == Some(&rollout.release);
            let reason = format!(
                "{} could not be hot-upgraded, at the step {}, and deploy.hot_upgrade is `require`: {}",
                self.named(bearer.place),
                failed.step,
                failed.because
            );
            (ours && !goes_on).then(|| Failure::of(bearer.place, reason, rollout, Some(seen)))
        })
    }

    /// It was told to be upgraded, could not be, and is to be told anew.
    pub(super) fn is_left_as_it_was(&self, place: Place) -> bool {
        !self.has_been_told(place) && self.sights.at(place).and_then(was_left_as_it_was).is_some()
    }

    /// It can be upgraded where it is.
    pub(super) fn is_in_place(&self, host: Host<'_>, slot: proto::ids::Slot, target: &ReleaseKey) -> bool {
        self.hot_to(host.place(slot), target).is_some()
    }
}
