//! The agent's own way back: a release that took its slot's place and was not stable in its time, while nobody could be
//! asked, makes room for the one before it.
//!
//! ```text
//!   it takes its place ─▶ Counting ─▶ Stable       (from then on it never goes back by itself)
//!                            │ its time is up, and no session
//!                            ▼
//!                         FellBack                 (the other is staged and takes over as any release does)
//! ```
//! While there is a session the control plane decides: it knows of the other hosts. Nothing goes back while the release before
//! still serves: one that cannot be fetched in an outage has done nothing wrong. What was decided is reported, and stands until
//! another wish arrives; an assignment that only says once more what led here is none.

use proto::ids::ReleaseKey;
use serde::{Deserialize, Serialize};

use super::fault::{Fault, planted};
use super::{Action, Health, Note, Process, Replica, Stage, Wanted};
use crate::clock::Time;

/// So long without a session is no hiccup: a control plane that was only begun anew is back by then.
const ALONE_MIN: u64 = 10_000;
/// Time is written down in this many portions. A gap in which no agent ran counts as one at most.
const PORTIONS: u64 = 10;

/// Where a slot goes back to by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// Once for each, however often the assignment arrives.
    pub rollout: String,
    pub release: ReleaseKey,
    /// Milliseconds that the other release has to become stable, from when it took its place.
    pub within: u64,
}

/// How a release does that took its place and has a fallback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    pub rollout: String,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// By `counted_to` it had used up so many milliseconds of its time.
    Counting {
        spent: u64,
        counted_to: Time,
    },
    Stable,
    FellBack {
        because: String,
    },
}

/// Whether there is a session with the control plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    #[default]
    Held,
    Down {
        since: Time,
    },
}

impl Trial {
    /// Nothing is decided yet.
    pub(super) fn counts(&self) -> bool {
        matches!(self.verdict, Verdict::Counting { .. })
    }
}

impl Fallback {
    fn portion(&self) -> u64 {
        (self.within / PORTIONS).max(1)
    }
}

impl Replica {
    /// What the slot is to run: the release that is wanted, or the one that it fell back to.
    pub fn target(&self) -> Option<Wanted> {
        match self.fell_back() {
            Some((fallback, ..)) => Some(Wanted {
                release: fallback.release.clone(),
                pre_commands: None,
                fallback: None,
                hot: None,
            }),
            None => self.wanted().cloned(),
        }
    }

    /// Where it goes back to by itself, from what, and why.
    pub fn fell_back(&self) -> Option<(&Fallback, &ReleaseKey, &str)> {
        let (wanted, fallback) = self.may_fall_back()?;
        match &self.trial {
            Some(Trial { rollout, verdict: Verdict::FellBack { because } })
                if *rollout == fallback.rollout =>
            {
                Some((fallback, &wanted.release, because))
            }
            _ => None,
        }
    }

    /// It was ready for so long without a break that it counts as stable.
    pub(super) fn is_stable(&self, now: Time) -> bool {
        let Process::Up { health: Health::Ready { since }, .. } = self.process else { return false };
        self.policy().is_some_and(|it| now.since(since) >= it.stable_after)
    }

    pub(super) fn linked(&mut self, held: bool, now: Time) {
        // What could not be had without a session is asked for now: its pauses had grown for another reason.
        if let (true, Link::Down { .. }, Stage::Retrying { until, attempt, .. }) =
            (held, self.link, &mut self.stage)
        {
            (*until, *attempt) = (now, 1);
        }
        self.link = match (held, self.link) {
            (true, _) => Link::Held,
            (false, Link::Down { since }) => Link::Down { since },
            (false, Link::Held) => Link::Down { since: now },
        };
    }

    /// A new agent knows of no session. `other_boot`: times of before mean nothing.
    pub(super) fn begin_alone(&mut self, other_boot: bool, now: Time) {
        self.link = Link::Down { since: now };
        if let Some(Trial { verdict: Verdict::Counting { counted_to, .. }, .. }) = &mut self.trial
            && other_boot
        {
            *counted_to = now;
        }
    }

    /// A release that is stable in its place has passed; also one that was to go back and could not yet. Whether that is new.
    pub(super) fn see_stable(&mut self, now: Time) -> bool {
        let passed = self.is_stable(now) && self.is_in_place() && !planted(Fault::FallBackThoughStable);
        match self.trial.as_mut().filter(|it| passed && it.verdict != Verdict::Stable) {
            Some(trial) => {
                trial.verdict = Verdict::Stable;
                true
            }
            None => false,
        }
    }

    /// Counts the time of a release that is on trial, and ends it.
    pub(super) fn keep_trial(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some((wanted, fallback)) = self.may_fall_back() else {
            self.trial = None;
            return;
        };
        let (from, fallback) = (wanted.release.clone(), fallback.clone());
        self.trial.take_if(|it| it.rollout != fallback.rollout);
        if self.trial.as_ref().is_none_or(Trial::counts) {
            if !self.is_in_place() && !planted(Fault::FallBackBeforeItMoved) {
                self.trial = None;
                return;
            }
            let fresh = Trial {
                rollout: fallback.rollout.clone(),
                verdict: Verdict::Counting { spent: 0, counted_to: now },
            };
            self.trial.get_or_insert(fresh);
        }
        self.see_stable(now);
        let Some(Trial { verdict, .. }) = &mut self.trial else { return };
        let Verdict::Counting { spent, counted_to } = verdict else { return };
        let left = fallback.within.saturating_sub(*spent);
        let portion = fallback.portion().min(left);
        let stretch = now.since(*counted_to).min(portion);
        let is_over = stretch == left || planted(Fault::FallBackAtOnce);
        let is_alone = match self.link {
            Link::Held => planted(Fault::FallBackWhileLinked),
            Link::Down { since } => now.since(since) >= ALONE_MIN,
        };
        if is_over && is_alone && !planted(Fault::NeverFallBack) {
            let because = format!(
                "{} was not stable within {} s, and there was no control plane to ask: back to {}",
                from.version,
                fallback.within.div_ceil(1_000),
                fallback.release.version
            );
            let to = fallback.release;
            actions.push(Action::Note(Note::FellBack { from, to, because: because.clone() }));
            *verdict = Verdict::FellBack { because };
        } else if stretch == portion && left > 0 {
            *spent = spent.saturating_add(stretch);
            *counted_to = now;
        }
    }

    /// When a trial is to be looked at again.
    pub(super) fn trial_deadline(&self) -> Option<Time> {
        let (_, fallback) = self.may_fall_back()?;
        let Verdict::Counting { spent, counted_to } = &self.trial.as_ref()?.verdict else { return None };
        match (fallback.within.saturating_sub(*spent), self.link) {
            (0, Link::Held) => None,
            (0, Link::Down { since }) => Some(since.plus(ALONE_MIN)),
            (left, _) => Some(counted_to.plus(fallback.portion().min(left))),
        }
    }

    fn may_fall_back(&self) -> Option<(&Wanted, &Fallback)> {
        let wanted = self.wanted()?;
        wanted.fallback.as_deref().filter(|it| it.release != wanted.release).map(|it| (wanted, it))
    }

    /// What is wanted lies in the slot's `current`.
    fn is_in_place(&self) -> bool {
        let current = self.current.as_ref().map(|it| &it.release);
        current.is_some() && current == self.wanted().map(|it| &it.release)
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::Digest;

    use super::super::{
        Assignment, Current, Event, Policy, PreCommandFailure, PreCommandsRun, PrepareFailure, Ticket, decide,
    };
    use super::*;

    const POLICY: Policy = Policy {
        stable_after: 3_000,
        stop_grace: 0,
        backoff_min: 0,
        backoff_max: 0,
        reset_after: 0,
        pre_command_timeout: 0,
        drain: 0,
    };

    fn release(number: u8) -> ReleaseKey {
        ReleaseKey { version: format!("{number}.0").parse().unwrap(), sha256: Digest([number; 32]) }
    }

    fn wish(generation: u64, rollout: &str) -> Event {
        let fallback = Fallback { rollout: rollout.to_owned(), release: release(1), within: 40_000 };
        let wanted = Some(Wanted {
            release: release(2),
            pre_commands: None,
            fallback: Some(Box::new(fallback)),
            hot: None,
        });
        Event::Assigned(Assignment { generation, wanted, policy: POLICY, restart: None })
    }

    /// Release 2 lies in its place since now and runs; it is not ready, and there is no session.
    fn unready() -> Replica {
        let process = Process::Up { ticket: Ticket(2), pid: 7, since: Time(0), health: Health::Starting };
        let current = Some(Current { release: release(2), since: Ticket(1) });
        let up = Replica { current, process, ..Replica::default() };
        let told = decide(&up, wish(1, "first"), Time(0)).0;
        decide(&told, Event::Linked { held: false }, Time(0)).0
    }

    /// Lets time pass as the slot's task does, deadline for deadline.
    fn pass(mut replica: Replica, from: u64, until: u64) -> Replica {
        let mut now = Time(from);
        while let Some(at) = replica.deadline(now).filter(|at| *at <= Time(until)) {
            now = now.max(at);
            replica = decide(&replica, Event::Tick, now).0;
        }
        decide(&replica, Event::Tick, Time(until)).0
    }

    fn goes_back(replica: &Replica) -> bool {
        replica.target().is_some_and(|it| it.release == release(1))
    }

    #[test]
    fn a_slot_that_is_left_alone_goes_back_once_its_time_is_up() {
        let late = pass(unready(), 0, 39_999);
        assert!(!goes_back(&late));
        let (gone, actions) = decide(&late, Event::Tick, Time(40_000));
        assert!(goes_back(&gone), "{gone:?}");
        assert!(
            actions.iter().any(|it| matches!(it, Action::Prepare { release: it, .. } if *it == release(1)))
        );
        let (_, _, because) = gone.fell_back().unwrap();
        assert_eq!(
            because,
            "2.0 was not stable within 40 s, and there was no control plane to ask: back to 1.0"
        );
        // Said once more it is the same wish; of another rollout it is another.
        assert!(goes_back(&decide(&gone, wish(2, "first"), Time(41_000)).0));
        assert!(!goes_back(&decide(&gone, wish(2, "second"), Time(41_000)).0));
    }

    #[test]
    fn while_there_is_a_session_nothing_goes_back_and_without_one_not_at_once() {
        let linked = decide(&unready(), Event::Linked { held: true }, Time(0)).0;
        let waits = pass(linked, 0, 90_000);
        assert!(!goes_back(&waits));
        assert_eq!(waits.deadline(Time(90_000)), None, "nothing is looked at in vain");
        let lost = decide(&waits, Event::Linked { held: false }, Time(90_000)).0;
        assert!(!goes_back(&lost));
        assert!(!goes_back(&pass(lost.clone(), 90_000, 99_999)));
        assert!(goes_back(&pass(lost, 90_000, 100_000)));
    }

    #[test]
    fn who_was_stable_once_never_goes_back() {
        let ready = decide(&unready(), Event::Probed { ticket: Ticket(2), passed: true }, Time(1_000)).0;
        // It fails after it was stable, and before anybody looked.
        let fails = Event::Probed { ticket: Ticket(2), passed: false };
        let passed = decide(&ready, fails.clone(), Time(4_000)).0;
        assert!(!goes_back(&pass(passed, 4_000, 500_000)));
        let failed = decide(&ready, fails, Time(3_999)).0;
        assert!(goes_back(&pass(failed, 3_999, 500_000)));
    }

    #[test]
    fn who_becomes_stable_before_the_other_can_be_brought_stays() {
        let gone = pass(unready(), 0, 40_000);
        let ready = decide(&gone, Event::Probed { ticket: Ticket(2), passed: true }, Time(41_000)).0;
        assert!(goes_back(&ready));
        let stable = pass(ready, 41_000, 44_000);
        assert!(!goes_back(&stable) && stable.stage == Stage::None, "{stable:?}");
    }

    #[test]
    fn what_could_not_be_had_without_a_session_is_asked_for_as_soon_as_there_is_one() {
        let cut_off = decide(&Replica::default(), Event::Linked { held: false }, Time(0)).0;
        let mut waits = decide(&cut_off, wish(1, "first"), Time(0)).0;
        let mut now = Time(0);
        for ticket in 1..6 {
            let failure = PrepareFailure { error: "nobody is there".to_owned(), permanent: false };
            let failed = Event::Prepared { ticket: Ticket(ticket), result: Err(failure) };
            waits = decide(&waits, failed, now).0;
            now = waits.deadline(now).unwrap();
            waits = if ticket < 5 { decide(&waits, Event::Tick, now).0 } else { waits };
        }
        let early = Time(now.0 - 15_000);
        let (asks, actions) = decide(&waits, Event::Linked { held: true }, early);
        assert!(matches!(actions[..], [Action::Prepare { ticket: Ticket(6), .. }]), "{asks:?}");
    }

    #[test]
    fn pre_commands_that_failed_and_are_no_longer_asked_for_hold_nothing_up() {
        let failure = PreCommandFailure { error: "exit status 1".to_owned(), output: String::new() };
        let run = PreCommandsRun::failed("late".to_owned(), failure);
        let stage = |error: &str| Stage::Failed { release: release(2), error: error.to_owned() };
        let failed = Replica { pre_commands: Some(run), stage: stage("exit status 1"), ..Replica::default() };
        assert!(matches!(decide(&failed, wish(1, "first"), Time(0)).0.stage, Stage::Fetching { .. }));
        // Nor is what failed for another reason tried again and again.
        let hostile = Replica { stage: stage("its archive climbs out"), ..failed };
        assert_eq!(decide(&hostile, wish(1, "first"), Time(0)).0.stage, hostile.stage);
    }

    #[test]
    fn an_agent_that_begins_anew_goes_on_counting_and_takes_its_time_to_find_the_control_plane() {
        use super::super::recover::{Boot, Found};
        let late = pass(unready(), 0, 39_000);
        let found = Found::Running { ticket: Ticket(2), pid: 7 };
        // An hour without an agent counts as one portion of the time.
        let (next, _) = late.recover(found, Found::Nothing, Boot::Present, Time(3_600_000));
        assert!(!goes_back(&pass(next.clone(), 3_600_000, 3_609_999)));
        assert!(goes_back(&pass(next, 3_600_000, 3_610_000)));
        let early = pass(unready(), 0, 4_000);
        let (next, _) = early.recover(found, Found::Nothing, Boot::Present, Time(3_600_000));
        assert!(!goes_back(&pass(next, 3_600_000, 3_630_000)));
    }

    #[test]
    fn a_ledger_of_an_earlier_version_knows_of_no_way_back() {
        let mut written = serde_json::to_value(unready()).unwrap();
        let replica = written.as_object_mut().unwrap();
        assert!(replica.remove("trial").is_some() && !replica.contains_key("link"));
        replica["assignment"]["wanted"].as_object_mut().unwrap().remove("fallback").unwrap();
        let read: Replica = serde_json::from_value(written).unwrap();
        assert_eq!((read.fell_back(), read.trial.clone()), (None, None));
        assert!(!goes_back(&pass(read, 0, 500_000)));
    }
}
