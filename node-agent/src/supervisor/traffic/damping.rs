//! Keeps out for a while who comes and goes, so that a check that flaps does not make NGINX read its configuration with every
//! flap: each reading leaves old workers behind, for as long as somebody is connected to them. Pure.
//!
//! Who is to get no more requests is taken out at once, always. Who is ready is put in at once too, unless it was put in a
//! moment ago and has been out since: then it waits, each time longer, until it has come less often for a while. What every
//! slot does in a deployment, a restart or after a crash is to go and come once, and that waits for nothing.

use std::collections::BTreeMap;

use super::{Entry, SlotId, Slots};
use crate::clock::Time;

/// Between two times that a slot is put in, in milliseconds: first …
const HOLD_MIN: u64 = 3_000;
/// … doubling to this. Nobody is sent to a slot that is kept out, and it may be the only one.
const HOLD_MAX: u64 = 12_000;
/// A slot that was put in longer ago than this begins anew.
const QUIET: u64 = 60_000;

#[derive(Debug, Default)]
pub(super) struct Damping(BTreeMap<SlotId, Past>);

/// Of one slot.
#[derive(Debug, Default)]
struct Past {
    is_in: bool,
    put_in: Time,
    /// Counted from then.
    hold: u64,
}

impl Damping {
    /// The slots as they are to be looked at now: one that is kept out is not ready. And when that is over for the first.
    pub(super) fn damp(&mut self, slots: &Slots, now: Time) -> (Slots, Option<Time>) {
        let mut slots = slots.clone();
        let mut over = None;
        for (id, entry) in &mut slots {
            let Entry::Told(standing) = entry else { continue };
            let past = self.0.entry(id.clone()).or_default();
            if let Some(until) = past.kept_out(standing.is_ready, now) {
                standing.is_ready = false;
                over = Some(over.map_or(until, |it: Time| it.min(until)));
            }
        }
        (slots, over)
    }
}

impl Past {
    /// Until when, if it is.
    fn kept_out(&mut self, is_ready: bool, now: Time) -> Option<Time> {
        if !is_ready || self.is_in {
            self.is_in = is_ready;
            return None;
        }
        let until = self.put_in.plus(self.hold);
        if now < until {
            return Some(until);
        }
        let is_again = self.hold > 0 && now.since(self.put_in) < QUIET;
        let hold = if is_again { self.hold.saturating_mul(2).min(HOLD_MAX) } else { HOLD_MIN };
        *self = Self { is_in: true, put_in: now, hold };
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;

    const BEGUN: u64 = 1_000_000;

    fn id(slot: u32) -> SlotId {
        SlotId { app: "shop".parse().unwrap(), slot: proto::ids::Slot::new(slot).unwrap() }
    }

    fn slots(ready: &[bool]) -> Slots {
        let entry = |is_ready: &bool| {
            let is_ready = *is_ready;
            Entry::Told(Standing { generation: 1, is_wanted: true, nginx: None, ports: Vec::new(), is_ready })
        };
        (1..).map(id).zip(ready.iter().map(entry)).collect()
    }

    fn listed(slots: &Slots) -> Vec<bool> {
        slots.values().map(|it| matches!(it, Entry::Told(standing) if standing.is_ready)).collect()
    }

    /// How often what is listed changes in a minute, and whether who is not ready ever is.
    fn changes(ready: impl Fn(u64) -> Vec<bool>) -> usize {
        let mut damping = Damping::default();
        let (mut last, mut changes) = (Vec::new(), 0);
        for at in (0..60_000).step_by(100) {
            let ready = ready(at);
            let now = listed(&damping.damp(&slots(&ready), Time(BEGUN + at)).0);
            assert!(now.iter().zip(&ready).all(|(listed, ready)| *ready || !listed), "at {at}");
            changes += usize::from(now != last);
            last = now;
        }
        changes
    }

    #[test]
    fn who_comes_and_goes_all_the_time_is_put_in_now_and_then() {
        let flaps = |at: u64| (at / 100).is_multiple_of(2);
        let changes_of = |count: usize| changes(|at| vec![flaps(at); count]);
        // At 0, 3, 9, 21, 33, 45 and 57 s, and out each time.
        assert_eq!(changes_of(1), 14);
        // Some of them in turn.
        assert!(changes(|at| vec![flaps(at), !flaps(at), true]) < 30);
    }

    #[test]
    fn who_goes_and_comes_once_waits_for_nothing() {
        // Four slots, one after the other, each out for half a second.
        let is_out = |slot: u64, at: u64| (5_000 + slot * 1_000..5_500 + slot * 1_000).contains(&at);
        let mut damping = Damping::default();
        for at in (0..20_000).step_by(100) {
            let ready: Vec<bool> = (0..4).map(|slot| !is_out(slot, at)).collect();
            let (damped, over) = damping.damp(&slots(&ready), Time(BEGUN + at));
            assert_eq!((listed(&damped), over), (ready, None), "at {at}");
        }
    }

    #[test]
    fn who_is_kept_out_is_looked_at_again_and_is_forgiven_after_a_while() {
        let mut damping = Damping::default();
        let mut damp = |is_ready, at| {
            let (damped, over) = damping.damp(&slots(&[is_ready]), Time(BEGUN + at));
            (listed(&damped)[0], over)
        };
        assert_eq!(damp(true, 0), (true, None));
        assert_eq!(damp(false, 100), (false, None));
        assert_eq!(damp(true, 200), (false, Some(Time(BEGUN + HOLD_MIN))));
        assert_eq!(damp(true, HOLD_MIN), (true, None));
        damp(false, HOLD_MIN + 100);
        assert_eq!(damp(true, HOLD_MIN + 200), (false, Some(Time(BEGUN + 3 * HOLD_MIN))));
        assert_eq!(damp(true, HOLD_MIN + QUIET), (true, None));
        damp(false, HOLD_MIN + QUIET + 100);
        let over = Time(BEGUN + HOLD_MIN + QUIET + HOLD_MIN);
        assert_eq!(damp(true, HOLD_MIN + QUIET + 200), (false, Some(over)));
    }
}
