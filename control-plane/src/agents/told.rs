//! The events of one agent's session: each is passed on once and in order, dated by our clock, and acknowledged when it is
//! recorded. Pure.
//!
//! An agent keeps what is not acknowledged and tells it again, so that neither a full queue nor a broken connection loses it.
//! What was recorded and not yet acknowledged when a session broke is recorded twice: better than not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::ids::NodeId;
use proto::pb;

use super::Told;
use crate::clock::Time;

pub(super) struct Events {
    node: NodeId,
    /// By how much the agent's clock is ahead of ours.
    ahead_ms: i64,
    /// The last sequence that was passed on.
    passed: u64,
    /// One that could not be passed on: nothing above it counts before it has come again.
    dropped: Option<u64>,
    recorded: Arc<AtomicU64>,
}

impl Events {
    /// `agent`: what its clock shows at the moment `wall`.
    pub(super) fn new(node: NodeId, agent: u64, wall: Time) -> Self {
        let mut events = Self { node, ahead_ms: 0, passed: 0, dropped: None, recorded: Arc::default() };
        events.clock_shown(agent, wall);
        events
    }

    /// What the agent's clock, which may be set at any time, shows at the moment `wall`.
    pub(super) fn clock_shown(&mut self, agent: u64, wall: Time) {
        // An agent that shows nothing is not half a century behind.
        if agent != 0 {
            let ahead = i128::from(agent) - i128::from(wall.0);
            self.ahead_ms = i64::try_from(ahead).unwrap_or_default();
        }
    }

    pub(super) fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Acquire)
    }

    /// `pass` says whether it was taken.
    pub(super) fn hear(&mut self, event: pb::AgentEvent, wall: Time, pass: impl FnOnce(Told) -> bool) {
        let sequence = event.sequence;
        if !self.is_due(sequence) {
            return;
        }
        let (node, at) = (self.node, self.when(event.at_unix_ms, wall));
        let taken = pass(Told { node, event, at, recorded: Arc::clone(&self.recorded) });
        match (sequence, taken) {
            // An older agent, which forgets what it has sent.
            (0, _) => {}
            (_, true) => (self.passed, self.dropped) = (sequence, None),
            (_, false) => self.dropped = Some(sequence),
        }
    }

    fn is_due(&self, sequence: u64) -> bool {
        let first_again = self.dropped.is_none_or(|dropped| sequence <= dropped);
        sequence == 0 || (sequence > self.passed && first_again)
    }

    /// Never in the future; where the agent does not say, now.
    fn when(&self, at: u64, wall: Time) -> Time {
        let by_ours = i128::from(at) - i128::from(self.ahead_ms);
        let by_ours = u64::try_from(by_ours).ok().filter(|_| at != 0);
        by_ours.map_or(wall, |at| Time(at).min(wall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Time = Time(1_800_000_000_000);

    fn events(agent: u64) -> Events {
        Events::new(NodeId(uuid::Uuid::nil()), agent, WALL)
    }

    fn event(sequence: u64) -> pb::AgentEvent {
        pb::AgentEvent { sequence, ..Default::default() }
    }

    #[test]
    fn an_event_of_an_outage_keeps_its_time_by_our_clock() {
        let hour = 3_600_000;
        let when = |agent: u64, at: u64| {
            let mut told = None;
            let event = pb::AgentEvent { at_unix_ms: at, ..event(0) };
            events(agent).hear(event, WALL.plus(5), |it| told.replace(it).is_none());
            told.unwrap().at
        };
        assert_eq!(when(WALL.0, WALL.0 - hour), Time(WALL.0 - hour));
        assert_eq!(when(WALL.0 + 2 * hour, WALL.0 + hour), Time(WALL.0 - hour), "its clock is ahead");
        assert_eq!(when(WALL.0 - hour, WALL.0 - 2 * hour), Time(WALL.0 - hour), "its clock is behind");
        assert_eq!(when(WALL.0, WALL.0 + hour), WALL.plus(5), "never in the future");
        assert_eq!(when(WALL.0, 0), WALL.plus(5), "it does not say");
        assert_eq!(when(0, WALL.0 - 1), Time(WALL.0 - 1), "its clock is not known");
        let mut set = events(WALL.0);
        set.clock_shown(WALL.0 + hour, WALL);
        assert_eq!(set.when(WALL.0 + hour - 5, WALL), Time(WALL.0 - 5), "its clock was set meanwhile");
    }

    #[test]
    fn what_was_dropped_comes_again_before_what_follows_it_and_nothing_comes_twice() {
        let mut events = events(WALL.0);
        let mut passed = Vec::new();
        let mut hear = |sequence, room: bool| {
            events.hear(event(sequence), WALL, |told| {
                passed.extend(room.then_some(told.event.sequence));
                room
            });
        };
        hear(7, true);
        hear(8, false);
        hear(9, true);
        hear(7, true);
        for again in [8, 9, 9, 10] {
            hear(again, true);
        }
        assert_eq!(passed, [7, 8, 9, 10]);
        events.recorded.store(9, Ordering::Release);
        assert_eq!(events.recorded(), 9);
    }
}
