//! Which slot of one node is told what next, on the way from whatever its slots run to the target. Pure: looks at the slots
//! of one node alone; whether it is the node's turn is decided elsewhere.
//!
//! ```text
//!   start_first   spare slot N + 1 ─▶ stable ─▶ slots 1..N in place, one by one ─▶ spare withdrawn
//!   stop_first                                  slots 1..N in place, one by one
//!   hot                                         slots 1..N as they run, one by one
//! ```
//! The one rule: a ready slot is replaced only while enough others are ready, of which `room` may be missing because of what we
//! do. A slot that is not ready can be replaced at any time: nobody is served by it.

use proto::ids::Slot;

use super::fault::planted;

/// How a slot stands to what it was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It was told nothing, or to stop.
    Vacant,
    /// It was told a release and has not reported since.
    Told,
    /// It reports, and is not ready.
    Unready,
    Ready,
    Stable,
}

impl Standing {
    pub(super) fn is_ready(self) -> bool {
        self >= Self::Ready
    }
}

/// One slot as it stands to the target.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotView {
    pub(super) slot: Slot,
    /// It was told the target.
    pub(super) on_target: bool,
    pub(super) standing: Standing,
    /// It was told another release, could not be upgraded to that, and runs the target.
    pub(super) runs_it: bool,
    /// It is not there, serves, and can be brought there without an end of what runs.
    pub(super) in_place: bool,
}

/// The slots 1..=N of a node, and the spare where the strategy has one.
#[derive(Clone, Debug)]
pub(super) struct NodeSlots {
    pub(super) slots: Vec<SlotView>,
    pub(super) replicas: u16,
    pub(super) spare: Option<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// A release that has yet to show itself: the spare first, then no more at a time than may be missing.
    OneByOne,
    /// A release that is known to be good: all that serve nobody at once, those that serve as they may be missing.
    Settle,
    /// The same for a release that is good elsewhere and may not be so on this node: what serves goes once those that were told
    /// it are stable.
    CatchUp,
}

/// What a node's slots call for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// All of 1..=N were told the target, and no other slot is left.
    Settled,
    Assign(Vec<Slot>),
    Withdraw(Slot),
    /// This slot was told something else and has not reported since: what it would cost to replace it is not known.
    TakingUp(Slot),
    /// This slot waits for those others to be ready; none: for replicas elsewhere.
    Wait {
        slot: Slot,
        others: Vec<Slot>,
    },
}

impl NodeSlots {
    /// `room`: how many of the node's replicas may be missing at a time because of what we do.
    pub(super) fn next(&self, pace: Pace, room: u64) -> Next {
        let off: Vec<SlotView> = self.wanted().filter(|view| !view.on_target).copied().collect();
        let spare_works = self.spare().is_some_and(|spare| spare.standing.is_ready());
        let early = planted!(WithdrawSpareEarly) && spare_works && self.wanted().any(|view| view.on_target);
        if off.is_empty() || early {
            return self.without_spare();
        }
        match pace {
            Pace::OneByOne => self.one_by_one(&off, room),
            Pace::Settle => self.settle(&off, room),
            Pace::CatchUp => self.catch_up(&off, room),
        }
    }

    /// Whether `room` makes no difference to what is next.
    pub(super) fn all_told(&self) -> bool {
        self.wanted().all(|view| view.on_target)
    }

    /// Its move to the target has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.slots.iter().any(|view| view.on_target)
    }

    /// Its move is over: every slot was told the target, and the spare is gone.
    pub(super) fn has_moved(&self) -> bool {
        self.all_told() && matches!(self.without_spare(), Next::Settled)
    }

    pub(super) fn wanted(&self) -> impl Iterator<Item = &SlotView> {
        self.slots.iter().filter(|view| view.slot.number() <= self.replicas)
    }

    pub(super) fn vacant(&self) -> Vec<Slot> {
        self.wanted().filter(|view| view.standing == Standing::Vacant).map(|view| view.slot).collect()
    }

    fn spare(&self) -> Option<&SlotView> {
        self.slots.iter().find(|view| Some(view.slot) == self.spare)
    }

    fn one_by_one(&self, off: &[SlotView], room: u64) -> Next {
        if let Some(view) = off.iter().find(|view| view.standing == Standing::Told) {
            return Next::TakingUp(view.slot);
        }
        // What runs on serves meanwhile: nobody has to stand in for it. One after the other all the same.
        if let Some(first) = off.iter().find(|view| view.in_place) {
            let others: Vec<Slot> = self.on_their_way();
            return match others.is_empty() || planted!(UpgradeAllAtOnce) {
                true => Next::Assign(vec![first.slot]),
                false => Next::Wait { slot: first.slot, others },
            };
        }
        if let Some(spare) = self.spare()
            && off.iter().any(|view| view.standing != Standing::Vacant)
            && !spare.on_target
            && self.may_replace(*spare, room)
        {
            return Next::Assign(vec![spare.slot]);
        }
        let dispensable = self.dispensable(room);
        let serving_nobody = off.iter().filter(|view| !view.standing.is_ready());
        let serving = off.iter().filter(|view| view.standing.is_ready()).take(dispensable);
        let at_once: Vec<Slot> =
            serving_nobody.chain(serving).take(dispensable.max(1)).map(|view| view.slot).collect();
        if at_once.is_empty() { self.wait(off) } else { Next::Assign(at_once) }
    }

    fn settle(&self, off: &[SlotView], room: u64) -> Next {
        let mut assign: Vec<Slot> =
            off.iter().filter(|view| !view.standing.is_ready()).map(|view| view.slot).collect();
        let serving = || off.iter().filter(|view| view.standing.is_ready());
        let in_turn = self.on_their_way().is_empty() || planted!(UpgradeAllAtOnce);
        let may = |view: &&&SlotView| {
            (view.in_place && in_turn) || (!view.in_place && self.may_replace(***view, room))
        };
        if let Some(view) = serving().find(|view| may(&view)) {
            assign.push(view.slot);
        } else if serving().any(|view| !view.in_place)
            && let Some(spare) = self.spare()
            && !spare.on_target
            && !spare.standing.is_ready()
        {
            assign.push(spare.slot);
        }
        if assign.is_empty() { self.wait(off) } else { Next::Assign(assign) }
    }

    fn on_their_way(&self) -> Vec<Slot> {
        let on_their_way = self.slots.iter().filter(|it| it.on_target && !it.standing.is_ready());
        on_their_way.map(|view| view.slot).collect()
    }

    fn catch_up(&self, off: &[SlotView], room: u64) -> Next {
        let on_their_way = self.slots.iter().filter(|it| it.on_target && it.standing != Standing::Stable);
        let on_their_way: Vec<Slot> = on_their_way.map(|view| view.slot).collect();
        if on_their_way.is_empty() || planted!(CatchUpAtOnce) {
            return self.settle(off, room);
        }
        let serve_nobody: Vec<Slot> =
            off.iter().filter(|view| !view.standing.is_ready()).map(|view| view.slot).collect();
        match (serve_nobody.is_empty(), off.first()) {
            (true, Some(first)) => Next::Wait { slot: first.slot, others: on_their_way },
            _ => Next::Assign(serve_nobody),
        }
    }

    /// Every slot was told the target: the spare has done its work once they are ready, or when it serves nobody.
    fn without_spare(&self) -> Next {
        let unready = || self.wanted().filter(|view| !view.standing.is_ready()).map(|view| view.slot);
        match self.spare() {
            Some(spare) if spare.standing == Standing::Vacant || planted!(KeepSpare) => Next::Settled,
            Some(spare) if !spare.standing.is_ready() || unready().next().is_none() => {
                Next::Withdraw(spare.slot)
            }
            Some(spare) if planted!(WithdrawSpareEarly) => Next::Withdraw(spare.slot),
            Some(spare) => Next::Wait { slot: spare.slot, others: unready().collect() },
            None => Next::Settled,
        }
    }

    /// Nobody is served by it, or enough others are ready.
    pub(super) fn may_replace(&self, view: SlotView, room: u64) -> bool {
        !view.standing.is_ready() || self.dispensable(room) > 0
    }

    /// How many of those that are ready may be taken away at once.
    fn dispensable(&self, room: u64) -> usize {
        if planted!(ReplaceWithoutOthers) {
            return self.slots.len();
        }
        let ready = self.slots.iter().filter(|view| view.standing.is_ready()).count();
        let needed = usize::from(self.replicas).saturating_sub(usize::try_from(room).unwrap_or(usize::MAX));
        ready.saturating_sub(needed)
    }

    fn wait(&self, off: &[SlotView]) -> Next {
        let Some(first) = off.first() else { return Next::Settled };
        let others = self
            .slots
            .iter()
            .filter(|view| view.slot != first.slot && !view.standing.is_ready())
            .filter(|view| view.standing != Standing::Vacant || view.slot.number() <= self.replicas)
            .map(|view| view.slot)
            .collect();
        Next::Wait { slot: first.slot, others }
    }
}
