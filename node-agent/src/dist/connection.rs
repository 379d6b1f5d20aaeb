//! A connection to one node, shared by all who ask it something: who reads, who writes, and who waits for what.
//!
//! ```text
//!   call ──▶ permit ──▶ outbox ──▶ writer ──▶ node          a tick where nothing else was written
//!     ▲                                        │
//!     └──── oneshot ◀── waiting ◀── reader ◀───┘            closed after a minute of silence
//! ```
//! Permits are given in the order in which they were asked for, and each caller has a few of its own first: whoever asks a
//! thousand things at once stands in line with a few of them, and others with theirs.
//! Who gives up waiting leaves nothing behind: the process that worked for it is ended on the node.

mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{AcquireError, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::codec::FramedRead;
use tokio_util::sync::CancellationToken;

use self::waiting::{Ended, Waiting};
use super::control::{self, MessageError, Order, Payload, Reason, Target, Told};
use super::frame::{Frame, Frames};
use super::handshake::{Local, Peer};
use super::term::{Atom, DecodeError, EncodeError, Limits, Pid, Reference, Term};

/// What is held of a connection, and how long it may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// No longer message is held, in bytes.
    pub longest: usize,
    /// Of each answer.
    pub limits: Limits,
    /// Calls at a time; more wait for their turn.
    pub calls: usize,
    /// Of these, calls of one caller.
    pub calls_of_one: usize,
    /// What is written at least this often shows the node that we are alive.
    pub tick: Duration,
    /// A node that says nothing for this long is gone.
    pub silence: Duration,
}

impl Default for Settings {
    /// 16 MB, 64 calls, 16 of one caller; 15 and 60 s, as Erlang has it by itself (`net_ticktime`).
    fn default() -> Self {
        Self {
            longest: 16 << 20,
            limits: Limits::default(),
            calls: 64,
            calls_of_one: 16,
            tick: Duration::from_secs(15),
            silence: Duration::from_secs(60),
        }
    }
}

/// Why a connection is no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("the node closed the connection")]
    ClosedByPeer,
    #[error("the connection failed: {0}")]
    Failed(String),
    #[error("the node was silent for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the node sent what is no message: {0}")]
    Nonsense(#[from] MessageError),
    #[error("the connection was closed here")]
    ClosedHere,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    Lost(#[from] Lost),
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("the answer has {length} bytes, of which {longest} are allowed")]
    TooLarge { length: usize, longest: usize },
    #[error("the answer cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    #[error("the question cannot be sent: {0}")]
    Unsendable(#[from] EncodeError),
    /// What was called threw, exited or failed: `class` is `throw`, `exit` or `error`.
    #[error("it failed on the node with {class}: {reason}")]
    Raised { class: &'static str, reason: Term },
    #[error("the node did not start it: {0}")]
    NotStarted(Term),
    /// The process that worked for it was ended from outside.
    #[error("it was ended on the node: {0}")]
    Ended(Term),
}

/// One caller's share of a connection; a clone is the same caller. The connection is closed with its token, or when the last
/// share is gone.
#[derive(Clone, Debug)]
pub struct Connection {
    inner: Arc<Inner>,
    own_permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct Inner {
    peer: Peer,
    settings: Settings,
    us: Pid,
    last_reference: AtomicU64,
    outbox: mpsc::Sender<Bytes>,
    waiting: Arc<Waiting>,
    permits: Semaphore,
    lost: watch::Receiver<Option<Lost>>,
    cancel: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Connection {
    /// Takes over a stream on which hands were shaken.
    pub fn start<S>(stream: S, local: &Local, peer: Peer, settings: Settings, cancel: &CancellationToken) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let cancel = cancel.child_token();
        let us = Pid { node: local.name.clone(), id: 1, serial: 0, creation: local.creation };
        let (outbox, to_write) = mpsc::channel(settings.calls.max(1));
        let waiting = Arc::new(Waiting::default());
        let (say_lost, lost) = watch::channel(None);
        let (from_node, to_node) = tokio::io::split(stream);
        let reader = Reader {
            frames: FramedRead::new(from_node, Frames::new(settings.longest)),
            waiting: waiting.clone(),
            outbox: outbox.downgrade(),
            us: us.clone(),
            settings,
        };
        let writer = write(to_node, to_write, settings.tick);
        let (end, ended) = (cancel.clone(), waiting.clone());
        tokio::spawn(async move {
            let why = tokio::select! {
                biased;
                () = end.cancelled() => Lost::ClosedHere,
                why = reader.read() => why,
                why = writer => why,
            };
            say_lost.send_replace(Some(why.clone()));
            ended.all_lost(&why);
        });
        let inner = Inner {
            peer,
            settings,
            us,
            // Such that no reference of an earlier connection of this agent is taken for one of this.
            last_reference: AtomicU64::new(u64::from(rand::random::<u32>()) << 18),
            outbox,
            waiting,
            permits: Semaphore::new(settings.calls.max(1)),
            lost,
            cancel,
        };
        Self { inner: Arc::new(inner), own_permits: Arc::new(Semaphore::new(settings.calls_of_one.max(1))) }
    }

    /// The same connection for another caller, who waits for nobody else's calls beyond a few.
    #[must_use]
    pub fn for_another(&self) -> Self {
        let own = self.inner.settings.calls_of_one.max(1);
        Self { inner: self.inner.clone(), own_permits: Arc::new(Semaphore::new(own)) }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.inner.peer
    }

    /// Until it is no more; says why.
    pub async fn lost(&self) -> Lost {
        let mut lost = self.inner.lost.clone();
        match lost.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or(Lost::ClosedHere),
            Err(_) => Lost::ClosedHere,
        }
    }

    /// What `module:function(arguments...)` returns on the node, in a process of its own.
    ///
    /// # Errors
    /// Where it fails there, does not answer within `patience` (waiting for its turn included), answers more than is allowed,
    /// or the connection is lost. What was begun on the node is ended, also where this future is dropped.
    pub async fn call(
        &self,
        module: &'static str,
        function: &'static str,
        arguments: Vec<Term>,
        patience: Duration,
    ) -> Result<Term, CallError> {
        let deadline = Instant::now() + patience;
        let late = |_| CallError::TimedOut(patience);
        let permits = async { Ok::<_, AcquireError>((self.own_permits.acquire().await?, self.inner.permits.acquire().await?)) };
        let permits = timeout_at(deadline, permits).await.map_err(late)?;
        let _permits = permits.map_err(|_| CallError::Lost(Lost::ClosedHere))?;
        let id = self.next_reference();
        let order = Order::Spawn {
            id: id.clone(),
            by: self.inner.us.clone(),
            module: Atom::of("erpc"),
            function: Atom::of("execute_call"),
            arguments: vec![
                Term::Reference(id.clone()),
                Term::Atom(Atom::of(module)),
                Term::Atom(Atom::of(function)),
                Term::List(arguments),
            ],
        };
        let frame = order.frame()?;
        let mut ended = Abandon { connection: self, id: Some(id.clone()), rest: self.inner.waiting.for_process(&id) };
        let answer = async {
            self.send(frame).await?;
            Ok::<_, CallError>(ended.rest.wait().await)
        };
        let answer = timeout_at(deadline, answer).await.map_err(late)??;
        ended.id = None;
        returned(&id, self.reason(answer)?)
    }

    fn reason(&self, ended: Ended) -> Result<Term, CallError> {
        match ended {
            Ended::Process(Reason::Read(reason)) => Ok(reason),
            Ended::Process(Reason::Payload(payload)) => Ok(payload.read(self.inner.settings.limits)?),
            Ended::TooLarge(length) => {
                Err(CallError::TooLarge { length, longest: self.inner.settings.longest })
            }
            Ended::NotStarted(why) => Err(CallError::NotStarted(why)),
            Ended::Lost(why) => Err(why.into()),
        }
    }

    /// Until the process, or whoever goes by the name, ends; its reason. `noproc`: there is none.
    ///
    /// # Errors
    /// Where the connection is lost. Who stops waiting stops watching.
    pub async fn watch(&self, who: Target) -> Result<Term, CallError> {
        let id = self.next_reference();
        let (by, target) = (self.inner.us.clone(), who.clone());
        let frame = Order::Monitor { by, who: target, id: id.clone() }.frame()?;
        let mut watching =
            Unwatch { connection: self, who: Some((who, id.clone())), rest: self.inner.waiting.for_process(&id) };
        self.send(frame).await?;
        let ended = watching.rest.wait().await;
        watching.who = None;
        self.reason(ended)
    }

    async fn send(&self, frame: Bytes) -> Result<(), CallError> {
        match self.inner.outbox.send(frame).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.lost().await.into()),
        }
    }

    /// Said where nobody waits any more; a node that takes nothing now is told nothing.
    fn say(&self, order: Order) {
        if let Ok(frame) = order.frame() {
            let _ = self.inner.outbox.try_send(frame);
        }
    }

    fn next_reference(&self) -> Reference {
        let number = self.inner.last_reference.fetch_add(1, Ordering::Relaxed);
        // Only 18 bits of the first word count.
        let [low, high] = [number & 0x3_ffff, (number >> 18) & 0xffff_ffff].map(|it| u32::try_from(it).unwrap_or(0));
        let Pid { node, creation, .. } = &self.inner.us;
        Reference { node: node.clone(), creation: *creation, words: vec![low, high, 0] }
    }
}

/// Ends on the node what nobody waits for any more.
struct Abandon<'c> {
    connection: &'c Connection,
    /// `None`: it is over.
    id: Option<Reference>,
    rest: waiting::Ticket,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let by = self.connection.inner.us.clone();
        if let Some(process) = self.connection.inner.waiting.give_up(&id) {
            self.connection.say(Order::Demonitor { by: by.clone(), who: Target::Pid(process.clone()), id });
            self.connection.say(Order::Exit { by, who: process, reason: Term::atom("kill") });
        }
    }
}

struct Unwatch<'c> {
    connection: &'c Connection,
    who: Option<(Target, Reference)>,
    rest: waiting::Ticket,
}

impl Drop for Unwatch<'_> {
    fn drop(&mut self) {
        let Some((who, id)) = self.who.take() else { return };
        self.connection.inner.waiting.forget(&id);
        self.connection.say(Order::Demonitor { by: self.connection.inner.us.clone(), who, id });
    }
}

/// What a process that `erpc` started ended with: its answer, marked with the reference of the call.
fn returned(id: &Reference, reason: Term) -> Result<Term, CallError> {
    let Term::Tuple(elements) = reason else { return Err(CallError::Ended(reason)) };
    let own = matches!(elements.first(), Some(Term::Reference(it)) if it == id);
    if !own {
        return Err(CallError::Ended(Term::Tuple(elements)));
    }
    let mut elements = elements.into_iter().skip(1);
    let (class, value) = (elements.next().unwrap_or_default(), elements.next().unwrap_or_default());
    match class.as_atom() {
        Some("return") => Ok(value),
        Some("throw") => Err(CallError::Raised { class: "throw", reason: value }),
        Some("exit") => Err(CallError::Raised { class: "exit", reason: value }),
        _ => Err(CallError::Raised { class: "error", reason: value }),
    }
}

struct Reader<S> {
    frames: FramedRead<ReadHalf<S>, Frames>,
    waiting: Arc<Waiting>,
    /// Weak, so that the writer ends with the last who asks.
    outbox: mpsc::WeakSender<Bytes>,
    us: Pid,
    settings: Settings,
}

impl<S: AsyncRead + AsyncWrite> Reader<S> {
    async fn read(mut self) -> Lost {
        loop {
            let frame = match timeout(self.settings.silence, self.frames.next()).await {
                Err(_) => return Lost::Silent(self.settings.silence),
                Ok(None) => return Lost::ClosedByPeer,
                Ok(Some(Err(error))) => return failed(&error),
                Ok(Some(Ok(frame))) => frame,
            };
            let (message, length) = match frame {
                Frame::Tick => continue,
                Frame::Message(message) => (message, None),
                Frame::TooLong { beginning, length } => (beginning, Some(length)),
            };
            match control::read(message) {
                Ok(told) => self.told(told, length),
                Err(error) => return error.into(),
            }
        }
    }

    /// `length`: of a message of which only the beginning is there.
    fn told(&self, told: Told, length: Option<usize>) {
        match told {
            Told::Spawned { id, result: Ok(process) } => {
                if let Some(process) = self.waiting.started(&id, process) {
                    self.end(process);
                }
            }
            Told::Spawned { id, result: Err(why) } => self.waiting.ended(&id, Ended::NotStarted(why)),
            Told::Down { id, reason } => {
                let ended = length.map_or(Ended::Process(reason), Ended::TooLarge);
                self.waiting.ended(&id, ended);
            }
            Told::Message { to, message } if to == self.us && length.is_none() => self.refuse_output(message),
            Told::Message { .. } | Told::Nothing => {}
        }
    }

    /// We lead the group of what we start there, and what it prints is sent to us: it is told that this goes nowhere, or it
    /// would wait for ever.
    fn refuse_output(&self, message: Payload) {
        let Ok(Term::Tuple(message)) = message.read(self.settings.limits) else { return };
        if let [Term::Atom(kind), Term::Pid(from), reply_as, ..] = message.as_slice()
            && kind == "io_request"
        {
            let error = Term::Tuple(vec![Term::atom("error"), Term::atom("enotsup")]);
            let reply = Term::Tuple(vec![Term::atom("io_reply"), reply_as.clone(), error]);
            self.say(Order::Send { to: from.clone(), message: reply });
        }
    }

    fn end(&self, process: Pid) {
        self.say(Order::Exit { by: self.us.clone(), who: process, reason: Term::atom("kill") });
    }

    fn say(&self, order: Order) {
        if let (Some(outbox), Ok(frame)) = (self.outbox.upgrade(), order.frame()) {
            let _ = outbox.try_send(frame);
        }
    }
}

/// What is written in one go at most, as far as it is waiting already, in bytes.
const BATCH: usize = 64 * 1024;

async fn write<S: AsyncWrite>(mut to_node: WriteHalf<S>, mut outbox: mpsc::Receiver<Bytes>, tick: Duration) -> Lost {
    let mut batch = BytesMut::new();
    loop {
        match timeout(tick, outbox.recv()).await {
            // An empty frame.
            Err(_) => batch.extend_from_slice(&[0; 4]),
            Ok(None) => return Lost::ClosedHere,
            Ok(Some(frame)) => batch.extend_from_slice(&frame),
        }
        while batch.len() < BATCH
            && let Ok(frame) = outbox.try_recv()
        {
            batch.extend_from_slice(&frame);
        }
        let written = async {
            to_node.write_all(&batch).await?;
            to_node.flush().await
        };
        if let Err(error) = written.await {
            return failed(&error);
        }
        batch.clear();
    }
}

fn failed(error: &std::io::Error) -> Lost {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match error.kind() {
        // Over TLS a node that is killed says no farewell.
        UnexpectedEof | ConnectionReset | BrokenPipe => Lost::ClosedByPeer,
        _ => Lost::Failed(error.to_string()),
    }
}
