//! What was asked of a node and is waited for: whoever stops waiting, by a drop at any moment, leaves nothing behind there.

use bytes::Bytes;

use super::waiting::{Ended, Permits, Ticket};
use super::{Inner, Lost};
use crate::dist::control::{Order, Target};
use crate::dist::term::{Pid, Reference, Term};

pub(super) struct Asked<'c> {
    by: &'c Inner,
    id: Reference,
    ticket: Ticket,
    /// What there is on the node once it was asked, until it ends.
    there: There,
    state: State,
}

pub(super) enum There {
    /// A process that works for us, and what it holds of the connection. The latter is `Some` until it is given up.
    Process(Option<Permits>),
    /// Somebody else's, which we watch.
    Watch(Target),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The node will never hear of it.
    Unsent,
    Sent,
    Over,
}

impl<'c> Asked<'c> {
    /// `longest`: of the message that answers, in bytes.
    pub(super) fn new(by: &'c Inner, id: Reference, there: There, longest: usize) -> Self {
        let ticket = by.waiting.for_process(&id, longest);
        Self { by, id, ticket, there, state: State::Unsent }
    }

    /// Until it ends. `order`: its frame.
    pub(super) async fn ask(mut self, order: Bytes) -> Result<Ended, Lost> {
        // Given up before it is in the outbox, it never gets there.
        if self.by.outbox.send(order).await.is_err() {
            return Err(self.by.lost().await);
        }
        self.state = State::Sent;
        let ended = self.ticket.wait().await;
        self.state = State::Over;
        Ok(ended)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let Inner { waiting, partings, us, .. } = self.by;
        match (self.state, &mut self.there) {
            (State::Over, _) => {}
            (State::Unsent, _) => waiting.forget(&self.id),
            (State::Sent, There::Process(permits)) => {
                if let Some(process) = waiting.give_up(&self.id, permits.take()) {
                    let _ = partings.send(end(us, &self.id, process));
                }
            }
            (State::Sent, There::Watch(who)) => {
                waiting.forget(&self.id);
                let unwatch = Order::Demonitor { by: us.clone(), who: who.clone(), id: self.id.clone() };
                let _ = partings.send(unwatch.frame().unwrap_or_default());
            }
        }
    }
}

/// What ends a process of ours of which we do not want to hear any more.
pub(super) fn end(us: &Pid, id: &Reference, process: Pid) -> Bytes {
    let who = Target::Pid(process.clone());
    let unwatch = Order::Demonitor { by: us.clone(), who, id: id.clone() };
    let kill = Order::Exit { by: us.clone(), who: process, reason: Term::atom("kill") };
    [unwatch, kill].map(|order| order.frame().unwrap_or_default()).concat().into()
}
