//! One session, from hello to its end: orders come in and go to the supervisor, what is observed goes out when it changes.
//!
//! The supervisor persists before it reports; so what goes out here is always already true after a crash.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::agent::{MAX_MESSAGE, PROTOCOL};
use proto::ids::{AppName, Slot};
use proto::pb;
use proto::pb::agent_client::AgentClient;
use proto::pb::agent_message::Kind as Say;
use proto::pb::control_message::Kind as Told;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Wiring;
use super::bulk::Bulk;
use super::dial::{LinkError, dial};
use super::hello::{hello, in_short};
use super::identity::Identity;
use super::streams;
use crate::clock;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that takes nothing for this long is as good as gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Without a word from the control plane for so many heartbeats the connection is given up, even if TCP says nothing.
const SILENT_HEARTBEATS: u32 = 4;

/// Whatever the control plane asks for, within reason.
const HEARTBEATS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// Messages on their way out: one report for each slot of an ordinary host.
const OUTGOING: usize = 64;

pub(super) struct Session<'a> {
    pub(super) wiring: &'a mut Wiring,
    pub(super) bulk: &'a Arc<Bulk>,
    outgoing: mpsc::Sender<pb::AgentMessage>,
    incoming: Streaming<pb::ControlMessage>,
    heartbeat: Duration,
    sequence: u64,
    heard: Instant,
    reported: BTreeMap<(AppName, Slot), pb::SlotReport>,
    /// The generation with which that was reported: an agent without slots would else say it in its hello alone.
    stored: u64,
    /// The control plane says which events it has recorded.
    acknowledges: bool,
    /// Not yet taken by the supervisor.
    waiting: Option<pb::Assignment>,
}

impl<'a> Session<'a> {
    pub(super) async fn open(
        identity: &Identity,
        wiring: &'a mut Wiring,
        bulk: &'a Arc<Bulk>,
    ) -> Result<Self, LinkError> {
        let wire = dial(&identity.control_plane, Arc::clone(&identity.tls)).await?;
        let observed = wiring.observed.borrow_and_update().clone();
        let told = in_short(&observed);
        let hello = hello(wiring, observed.generation, told.values().cloned().collect());
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        // An empty channel of our own has room.
        drop(outgoing.try_send(pb::AgentMessage { kind: Some(Say::Hello(hello)) }));
        let mut client = AgentClient::new(wire.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let silent = |_| LinkError::Silent;
        let mut incoming = timeout(ANSWER_TIMEOUT, client.session(ReceiverStream::new(messages)))
            .await
            .map_err(silent)?
            .map_err(|status| wire.explain(status))?
            .into_inner();
        let first = timeout(ANSWER_TIMEOUT, incoming.message()).await.map_err(silent)?;
        let Some(pb::ControlMessage { kind: Some(Told::Welcome(welcome)) }) =
            first.map_err(LinkError::of_status)?
        else {
            return Err(LinkError::Protocol("it began without a welcome"));
        };
        if !PROTOCOL.contains(&welcome.protocol) {
            return Err(LinkError::Protocol("it chose a version that was not offered"));
        }
        let interval = welcome.heartbeat_interval_ms.clamp(*HEARTBEATS.start(), *HEARTBEATS.end());
        Ok(Self {
            wiring,
            bulk,
            outgoing,
            incoming,
            heartbeat: Duration::from_millis(interval),
            sequence: 0,
            heard: Instant::now(),
            reported: told,
            stored: observed.generation,
            acknowledges: welcome.acknowledges_events,
            waiting: None,
        })
    }

    /// Until it breaks; the caller stops it by dropping it.
    pub(super) async fn run(mut self) -> LinkError {
        let mut beat = interval(self.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A handle of its own: waiting for room borrows it while the rest of the session goes on.
        let orders = self.wiring.orders.clone();
        if let Err(error) = self.begin().await {
            return error;
        }
        loop {
            let step = tokio::select! {
                biased; // the heartbeat keeps us alive, and then orders come before reports
                _ = beat.tick() => self.beat().await,
                message = self.incoming.message() => match message {
                    Ok(Some(message)) => self.hear(message).await,
                    Ok(None) => Err(LinkError::Ended("without a reason".to_owned())),
                    Err(status) => Err(LinkError::of_status(status)),
                },
                Ok(place) = orders.reserve(), if self.waiting.is_some() => {
                    if let Some(assignment) = self.waiting.take() {
                        place.send(assignment);
                    }
                    Ok(())
                }
                Ok(()) = self.wiring.observed.changed() => self.report().await,
                Some(event) = self.wiring.events.recv(), if self.wiring.unrecorded.has_room() => {
                    let event = self.wiring.unrecorded.keep(event);
                    self.tell(vec![event]).await
                }
            };
            if let Err(error) = step {
                return error;
            }
        }
    }

    /// What the hello left out, and what may have been lost with the session before.
    async fn begin(&mut self) -> Result<(), LinkError> {
        self.report().await?;
        self.tell(self.wiring.unrecorded.all()).await
    }

    async fn beat(&mut self) -> Result<(), LinkError> {
        if self.heard.elapsed() > self.heartbeat * SILENT_HEARTBEATS + SEND_TIMEOUT {
            return Err(LinkError::Silent);
        }
        self.sequence += 1;
        let fresh = self.wiring.samples.has_changed().unwrap_or(false);
        let sample = fresh.then(|| self.wiring.samples.borrow_and_update().clone()).flatten();
        let (host, replicas) =
            sample.map_or((None, Vec::new()), |sample| (Some(sample.host), sample.replicas));
        let limits = if host.is_some() { self.wiring.limits.borrow_and_update().clone() } else { Vec::new() };
        let (vms, vm_samples_dropped) = self.wiring.vm_samples.take(clock::now());
        let telemetry = self.wiring.telemetry.take(clock::now());
        let heartbeat = pb::Heartbeat {
            sequence: self.sequence,
            clock_unix_ms: clock::unix_ms(),
            host,
            replicas,
            limits,
            vms,
            vm_samples_dropped,
            telemetry,
            generation: self.stored,
        };
        self.say(Say::Heartbeat(heartbeat)).await
    }

    async fn hear(&mut self, message: pb::ControlMessage) -> Result<(), LinkError> {
        self.heard = Instant::now();
        match message.kind {
            // A snapshot: one that still waits is out of date.
            Some(Told::Assignment(assignment)) => self.waiting = Some(assignment),
            Some(Told::Siblings(siblings)) => {
                self.wiring.siblings.send_replace(siblings);
            }
            Some(Told::OpenStream(open)) => return self.open_stream(open).await,
            Some(Told::RestartAgent(_)) => self.wiring.begin_anew.notify_one(),
            Some(Told::Welcome(_)) => return Err(LinkError::Protocol("it welcomed twice")),
            Some(Told::Ack(ack)) => {
                let again = self.wiring.unrecorded.recorded(ack.events);
                return self.tell(again).await;
            }
            // A newer control plane may say what we do not know.
            None => {}
        }
        Ok(())
    }

    /// Events that are kept until they are recorded, where that is ever said.
    async fn tell(&mut self, events: Vec<pb::AgentEvent>) -> Result<(), LinkError> {
        for event in events {
            self.say(Say::Event(event)).await?;
        }
        if !self.acknowledges {
            self.wiring.unrecorded.forget();
        }
        Ok(())
    }

    async fn open_stream(&mut self, open: pb::OpenStream) -> Result<(), LinkError> {
        let stream_id = open.stream_id.clone();
        match streams::open(self.wiring, self.bulk, open) {
            Ok(()) => Ok(()),
            Err(error) => self.say(Say::StreamRefused(pb::StreamRefused { stream_id, error })).await,
        }
    }

    /// Sends what differs from what was sent last.
    async fn report(&mut self) -> Result<(), LinkError> {
        let observed = self.wiring.observed.borrow_and_update().clone();
        for (place, report) in &observed.slots {
            if self.reported.get(place) != Some(report) {
                self.say(Say::Slot(report.clone())).await?;
            }
        }
        // A slot that the agent holds no more is empty.
        for ((app, slot), last) in &self.reported {
            if !observed.slots.contains_key(&(app.clone(), *slot)) {
                let gone = pb::SlotReport {
                    app: app.to_string(),
                    slot: u32::from(slot.number()),
                    generation: observed.generation.max(last.generation),
                    state: pb::SlotState::Empty.into(),
                    ..Default::default()
                };
                self.say(Say::Slot(gone)).await?;
            }
        }
        (self.reported, self.stored) = (observed.slots, observed.generation);
        Ok(())
    }

    async fn say(&self, kind: Say) -> Result<(), LinkError> {
        let message = pb::AgentMessage { kind: Some(kind) };
        match timeout(SEND_TIMEOUT, self.outgoing.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(LinkError::Ended("it takes nothing any more".to_owned())),
            Err(_) => Err(LinkError::Silent),
        }
    }
}
