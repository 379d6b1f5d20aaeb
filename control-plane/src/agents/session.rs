//! One agent's session: what is assigned goes out whenever it rises, what the agent says comes in and lands on the board.
//!
//! A task each. It holds no state that matters: when it ends, the agent dials again and both go on from their generations.

use std::sync::Arc;
use std::time::Duration;

use proto::agent::{PROTOCOL, negotiate};
use proto::ids::{AppName, NodeId};
use proto::pb;
use proto::pb::agent_message::Kind as Said;
use proto::pb::control_message::Kind as Told;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tonic::{Status, Streaming};

use super::roster::{Ending, Seat};
use super::told::Events;
use super::{Hub, Notice, lease};

/// A hello is the first thing that an agent sends.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// An agent that takes nothing for this long is as good as gone: it will dial again.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages on their way to one agent. They are few: assignments, acknowledgements.
const OUTGOING: usize = 16;

/// After an assignment could not be made.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Nodes come and go with replicas; who misses one asks for it every two seconds.
const SIBLINGS_LOOK: Duration = Duration::from_secs(1);

/// What goes to the agent.
pub(super) type Outgoing = mpsc::Receiver<Result<pb::ControlMessage, Status>>;

/// An agent has said hello and may be spoken to.
pub(super) struct Session {
    hub: Arc<Hub>,
    node: NodeId,
    incoming: Streaming<pb::AgentMessage>,
    outgoing: mpsc::Sender<Result<pb::ControlMessage, Status>>,
    seat: Seat,
    /// Looks for a new assignment also when nobody said that there was one. It goes on while the agent talks.
    look: Interval,
    /// Set while the last try to make an assignment has failed.
    retry_at: Option<Instant>,
    events: Events,
    /// Of the assignment that the agent holds, as far as we know.
    generation: u64,
    /// Of which applications it is told where their other nodes are.
    fleets: Vec<AppName>,
    /// What it was told of them, and how the board's names stood then; `None`: of other applications.
    siblings: pb::Siblings,
    names: Option<u64>,
    /// When to look whether that has changed.
    siblings_look: Interval,
}

/// Why a session's loop is left.
enum Over {
    /// The agent went: nothing can be said to it.
    Gone,
    Told(Status),
}

impl Session {
    /// Waits for the hello, and settles on a protocol, before the call is answered: so a refusal is its answer.
    pub(super) async fn open(
        hub: Arc<Hub>,
        node: NodeId,
        mut incoming: Streaming<pb::AgentMessage>,
    ) -> Result<(Self, Outgoing), Status> {
        let hello = match timeout(HELLO_TIMEOUT, incoming.message()).await {
            Ok(Ok(Some(pb::AgentMessage { kind: Some(Said::Hello(hello)) }))) => hello,
            Ok(Ok(_)) => return Err(Status::invalid_argument("a session begins with a hello")),
            Ok(Err(status)) => return Err(status),
            Err(_) => return Err(Status::deadline_exceeded("no hello came")),
        };
        let protocol = settle(&hello)?;
        let (now, wall) = (hub.clock.now(), hub.clock.wall());
        hub.registry.hello(node, &hello, wall).await.map_err(|error| {
            tracing::error!(%node, error = &*error, "cannot record a node's hello");
            Status::unavailable("the control plane cannot write to its database")
        })?;
        let seat =
            hub.roster.begin(node).ok_or_else(|| Status::unavailable("the control plane is stopping"))?;
        for error in hub.board().hello(node, &hello, (now, wall)) {
            tracing::warn!(%node, %error, "a node reports a slot that cannot be read");
        }
        hub.changed();
        hub.notify(Notice::Connected { node, agent_version: hello.agent_version.clone() });
        let (outgoing, receiver) = mpsc::channel(OUTGOING);
        let generation = hello.generation;
        let mut look = interval(hub.look_again);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.reset();
        let events = Events::new(node, hello.clock_unix_ms, wall);
        let mut siblings_look = interval(SIBLINGS_LOOK);
        siblings_look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let session = Self {
            hub,
            node,
            incoming,
            outgoing,
            seat,
            look,
            retry_at: None,
            events,
            generation,
            fleets: Vec::new(),
            siblings: pb::Siblings::default(),
            names: None,
            siblings_look,
        };
        let welcome = Told::Welcome(pb::Welcome {
            protocol,
            heartbeat_interval_ms: u64::try_from(lease::HEARTBEAT.as_millis()).unwrap_or(u64::MAX),
            clock_unix_ms: wall.0,
            host: Some(session.hub.host_settings.clone()),
            acknowledges_events: true,
        });
        // An empty channel of our own has room.
        drop(session.outgoing.try_send(Ok(pb::ControlMessage { kind: Some(welcome) })));
        Ok((session, receiver))
    }

    pub(super) async fn run(mut self) {
        tracing::debug!(node = %self.node, "session begins");
        let over = loop {
            if let Err(over) = self.step().await {
                break over;
            }
        };
        self.hub.roster.finish(self.node, self.seat.number);
        match over {
            Over::Gone => tracing::debug!(node = %self.node, "session ends: the agent went"),
            Over::Told(status) => {
                tracing::debug!(node = %self.node, reason = status.message(), "session ends");
                // Where there is no room the agent reads nothing anyway: the end of the stream has to tell it.
                drop(self.outgoing.try_send(Err(status)));
            }
        }
    }

    async fn step(&mut self) -> Result<(), Over> {
        tokio::select! {
            biased; // an end comes before all, and what the agent says (it keeps it alive) before what it is told
            _ = self.seat.ending.changed() => Err(Over::Told(farewell(*self.seat.ending.borrow()))),
            () = self.outgoing.closed() => Err(Over::Gone),
            message = self.incoming.message() => match message {
                Ok(Some(message)) => self.hear(message).await,
                Ok(None) | Err(_) => Err(Over::Gone),
            },
            Some(order) = self.seat.orders.recv() => self.tell(order).await,
            () = self.seat.wake.notified() => self.assign().await,
            _ = self.look.tick() => self.assign().await,
            _ = self.siblings_look.tick(), if !self.fleets.is_empty() => self.tell_siblings().await,
            Some(()) = reached(self.retry_at) => self.assign().await,
        }
    }

    async fn hear(&mut self, message: pb::AgentMessage) -> Result<(), Over> {
        let (node, now) = (self.node, self.hub.clock.now());
        match message.kind {
            Some(Said::Heartbeat(heartbeat)) => {
                let wall = self.hub.clock.wall();
                if self.hub.board().heartbeat(node, &heartbeat, now) {
                    self.hub.changed();
                }
                self.hub.board().clock_shown(node, heartbeat.clock_unix_ms, wall);
                self.events.clock_shown(heartbeat.clock_unix_ms, wall);
                let sequence = heartbeat.sequence;
                let events = self.events.recorded();
                self.tell(Told::Ack(pb::HeartbeatAck { sequence, events })).await?;
            }
            Some(Said::Slot(report)) => {
                let read = self.hub.board().report(node, &report, now);
                match read {
                    Ok(()) => self.hub.changed(),
                    Err(error) => tracing::warn!(%node, %error, "a node reports a slot that cannot be read"),
                }
            }
            Some(Said::Event(event)) => {
                let (hub, wall) = (&self.hub, self.hub.clock.wall());
                self.events.hear(event, wall, |told| hub.notify(Notice::Event(told)));
            }
            Some(Said::StreamRefused(refused)) => {
                self.hub.streams.refuse(node, &refused.stream_id, &refused.error);
            }
            Some(Said::Hello(_)) => {
                return Err(Over::Told(Status::invalid_argument("a hello is said once")));
            }
            // A newer agent's word that we do not know.
            None => {}
        }
        Ok(())
    }

    async fn assign(&mut self) -> Result<(), Over> {
        self.retry_at = None;
        let assignment = self.hub.assignments.assignment(self.node).await;
        if let Ok(assignment) = &assignment {
            let fleets = fleets(assignment);
            if fleets != self.fleets {
                (self.fleets, self.names) = (fleets, None);
            }
        }
        match assignment {
            Ok(assignment) if assignment.generation > self.generation => {
                self.generation = assignment.generation;
                self.tell(Told::Assignment(assignment)).await
            }
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::error!(node = %self.node, error = &*error, "cannot make a node's assignment");
                self.retry_at = Some(Instant::now() + TRY_AGAIN);
                Ok(())
            }
        }
    }

    /// Where it is something else than was told last.
    async fn tell_siblings(&mut self) -> Result<(), Over> {
        let siblings = {
            let board = self.hub.board();
            if self.names.replace(board.names()) == Some(board.names()) {
                return Ok(());
            }
            let of = |app: &AppName| pb::SiblingsOf {
                app: app.to_string(),
                nodes: board.siblings(app, self.node),
            };
            pb::Siblings { applications: self.fleets.iter().map(of).collect() }
        };
        if siblings == self.siblings {
            return Ok(());
        }
        self.siblings = siblings.clone();
        self.tell(Told::Siblings(siblings)).await
    }

    async fn tell(&mut self, kind: Told) -> Result<(), Over> {
        let message = pb::ControlMessage { kind: Some(kind) };
        match timeout(SEND_TIMEOUT, self.outgoing.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Over::Gone),
            Err(_) => Err(Over::Told(Status::aborted("nothing was taken for too long"))),
        }
    }
}

/// The applications whose replicas there are to be connected to those on other hosts.
fn fleets(assignment: &pb::Assignment) -> Vec<AppName> {
    let of_fleet = assignment.applications.iter().filter(|it| it.cluster() == pb::Cluster::Fleet);
    of_fleet.filter_map(|it| it.name.parse().ok()).collect()
}

/// `None` at once where there is nothing to wait for.
async fn reached(at: Option<Instant>) -> Option<()> {
    sleep_until(at?).await;
    Some(())
}

fn settle(hello: &pb::Hello) -> Result<u32, Status> {
    negotiate(PROTOCOL, hello.protocol_min..=hello.protocol_max).ok_or_else(|| {
        let older = if hello.protocol_max < *PROTOCOL.start() { "agent" } else { "control plane" };
        Status::failed_precondition(format!(
            "no common protocol: this control plane ({}) speaks {} to {}, the agent ({}) {} to {}; upgrade the {older}",
            env!("CARGO_PKG_VERSION"),
            PROTOCOL.start(),
            PROTOCOL.end(),
            hello.agent_version.chars().take(40).collect::<String>(),
            hello.protocol_min,
            hello.protocol_max,
        ))
    })
}

fn farewell(ending: Option<Ending>) -> Status {
    match ending {
        Some(Ending::Removed) => Status::permission_denied("this node was removed from the fleet"),
        Some(Ending::Replaced) => Status::aborted(
            "another session of this node began: if that was not this agent, two hosts hold the same identity",
        ),
        Some(Ending::Stopping) | None => Status::unavailable("the control plane is stopping"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_to_upgrade_is_said() {
        let hello = |min, max| pb::Hello { protocol_min: min, protocol_max: max, ..Default::default() };
        assert_eq!(settle(&hello(1, 9)).unwrap(), 1);
        assert!(settle(&hello(2, 3)).unwrap_err().message().ends_with("upgrade the control plane"));
        assert!(settle(&hello(0, 0)).unwrap_err().message().ends_with("upgrade the agent"));
    }
}
