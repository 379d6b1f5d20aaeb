//! Events that the control plane has not said to have recorded: kept, numbered, and told again. Pure.

use std::collections::VecDeque;

use proto::pb;

/// More wait with whoever tells them.
const MOST: usize = 256;

/// So many acknowledged heartbeats without progress, and what is kept is told again: something of it was dropped.
const AGAIN_AFTER: u32 = 15;

#[derive(Default)]
pub(super) struct Unrecorded {
    last: u64,
    kept: VecDeque<pb::AgentEvent>,
    heartbeats: u32,
}

impl Unrecorded {
    pub(super) fn has_room(&self) -> bool {
        self.kept.len() < MOST
    }

    /// Numbers an event that is about to be told, and keeps it.
    pub(super) fn keep(&mut self, mut event: pb::AgentEvent) -> pb::AgentEvent {
        self.last += 1;
        event.sequence = self.last;
        self.kept.push_back(event.clone());
        event
    }

    /// In their order.
    pub(super) fn all(&self) -> Vec<pb::AgentEvent> {
        self.kept.iter().cloned().collect()
    }

    /// With each heartbeat's answer: everything up to this sequence is recorded. Returns what is to be told again.
    pub(super) fn recorded(&mut self, up_to: u64) -> Vec<pb::AgentEvent> {
        let before = self.kept.len();
        while self.kept.front().is_some_and(|event| event.sequence <= up_to) {
            self.kept.pop_front();
        }
        let stands_still = self.kept.len() == before && before > 0;
        self.heartbeats = if stands_still { self.heartbeats + 1 } else { 0 };
        if self.heartbeats < AGAIN_AFTER {
            return Vec::new();
        }
        self.heartbeats = 0;
        self.all()
    }

    /// The control plane is older than this and acknowledges nothing.
    pub(super) fn forget(&mut self) {
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(events: &[pb::AgentEvent]) -> Vec<u64> {
        events.iter().map(|event| event.sequence).collect()
    }

    #[test]
    fn what_is_recorded_is_forgotten_and_what_stands_still_is_told_again() {
        let mut events = Unrecorded::default();
        for _ in 0..3 {
            events.keep(pb::AgentEvent::default());
        }
        assert_eq!(events.recorded(1), []);
        assert_eq!(numbers(&events.all()), [2, 3]);
        for _ in 1..AGAIN_AFTER {
            assert_eq!(events.recorded(1), []);
        }
        assert_eq!(numbers(&events.recorded(1)), [2, 3]);
        assert_eq!(events.recorded(1), [], "and waits anew");
        assert_eq!(events.recorded(9), []);
        for _ in 0..2 * AGAIN_AFTER {
            assert_eq!(events.recorded(9), [], "nothing is kept");
        }
        assert_eq!(events.keep(pb::AgentEvent::default()).sequence, 4);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut events = Unrecorded::default();
        while events.has_room() {
            events.keep(pb::AgentEvent::default());
        }
        assert_eq!(events.all().len(), MOST);
        events.recorded(1);
        assert!(events.has_room());
    }
}
