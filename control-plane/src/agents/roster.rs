//! Who is connected: the connections of each node, to cut them, and the one session it may have, to reach it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::ids::NodeId;
use proto::pb;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// What a session may be told besides what is assigned: few and small.
const ORDERS: usize = 64;

/// Why a session is ended from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Removed,
    Replaced,
    Stopping,
}

/// How the rest of the control plane reaches a session.
#[derive(Clone)]
pub(super) struct Handle {
    number: u64,
    pub(super) wake: Arc<Notify>,
    pub(super) orders: mpsc::Sender<pb::control_message::Kind>,
    ending: watch::Sender<Option<Ending>>,
}

/// The session's own end of its [`Handle`].
pub(super) struct Seat {
    pub(super) number: u64,
    pub(super) wake: Arc<Notify>,
    pub(super) orders: mpsc::Receiver<pb::control_message::Kind>,
    pub(super) ending: watch::Receiver<Option<Ending>>,
}

#[derive(Default)]
struct Entry {
    /// Cancelled to cut every connection that was made while it stood here.
    cut: CancellationToken,
    session: Option<Handle>,
}

#[derive(Default)]
pub(super) struct Roster {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    nodes: HashMap<NodeId, Entry>,
    sessions_ever: u64,
    stopping: bool,
}

impl Roster {
    /// A connection of a node: it is to end when the token is cancelled.
    pub(super) fn connected(&self, node: NodeId) -> CancellationToken {
        self.lock().nodes.entry(node).or_default().cut.clone()
    }

    /// A session begins, and the one that the node had ends. `None`: none begins any more.
    pub(super) fn begin(&self, node: NodeId) -> Option<Seat> {
        let mut inner = self.lock();
        if inner.stopping {
            return None;
        }
        inner.sessions_ever += 1;
        let number = inner.sessions_ever;
        let wake = Arc::new(Notify::new());
        let (orders, seat_orders) = mpsc::channel(ORDERS);
        let (ending, seat_ending) = watch::channel(None);
        let handle = Handle { number, wake: Arc::clone(&wake), orders, ending };
        if let Some(older) = inner.nodes.entry(node).or_default().session.replace(handle) {
            older.ending.send_replace(Some(Ending::Replaced));
        }
        Some(Seat { number, wake, orders: seat_orders, ending: seat_ending })
    }

    /// A session has ended; a newer one of the node is left alone.
    pub(super) fn finish(&self, node: NodeId, number: u64) {
        if let Some(entry) = self.lock().nodes.get_mut(&node) {
            entry.session.take_if(|session| session.number == number);
        }
    }

    pub(super) fn session(&self, node: NodeId) -> Option<Handle> {
        self.lock().nodes.get(&node)?.session.clone()
    }

    /// Ends session and connections of a node at once.
    pub(super) fn cut(&self, node: NodeId) {
        let Some(entry) = self.lock().nodes.remove(&node) else { return };
        if let Some(session) = entry.session {
            session.ending.send_replace(Some(Ending::Removed));
        }
        entry.cut.cancel();
    }

    /// Tells every session that the control plane stops. No other begins.
    pub(super) fn stop(&self) {
        let mut inner = self.lock();
        inner.stopping = true;
        for session in inner.nodes.values().filter_map(|entry| entry.session.as_ref()) {
            session.ending.send_replace(Some(Ending::Stopping));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        NodeId(uuid::Uuid::now_v7())
    }

    #[test]
    fn a_second_session_ends_the_first_and_outlives_it() {
        let (roster, node) = (Roster::default(), node());
        let first = roster.begin(node).unwrap();
        let second = roster.begin(node).unwrap();
        assert_eq!(*first.ending.borrow(), Some(Ending::Replaced));
        roster.finish(node, first.number);
        assert!(roster.session(node).is_some());
        roster.finish(node, second.number);
        assert!(roster.session(node).is_none());
    }

    #[test]
    fn cutting_a_node_reaches_every_connection_made_before_and_none_after() {
        let (roster, node) = (Roster::default(), node());
        let before = [roster.connected(node), roster.connected(node)];
        let session = roster.begin(node).unwrap();
        roster.cut(node);
        assert!(before.iter().all(CancellationToken::is_cancelled));
        assert_eq!(*session.ending.borrow(), Some(Ending::Removed));
        assert!(!roster.connected(node).is_cancelled());
    }

    #[test]
    fn no_session_begins_once_the_control_plane_stops() {
        let roster = Roster::default();
        let session = roster.begin(node()).unwrap();
        roster.stop();
        assert_eq!(*session.ending.borrow(), Some(Ending::Stopping));
        assert!(roster.begin(node()).is_none());
    }
}
