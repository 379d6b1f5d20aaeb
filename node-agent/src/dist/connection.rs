//! A connection to one node, shared by all who ask it something: who reads, who writes, and who waits for what.
//!
//! ```text
//!   call ──▶ permit ──▶ outbox ──▶ writer ──▶ node          a tick where nothing else was written
//!     ▲                                        │
//!     └──── oneshot ◀── waiting ◀── reader ◀───┘            closed after a minute of silence
//! ```
//! Permits are given in the order in which they were asked for, and each caller has a few of its own first: whoever asks a
//! thousand things at once stands in line with a few of them, and others with theirs.
//! Who gives up waiting leaves nothing behind: the process that worked for it is ended on the node. Who asks says how much of
//! an answer it is ready to hold: of a longer one nothing is, and the connection lives on.

mod asked;
mod reader;
mod waiting;
mod writer;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::asked::{Asked, There};
use self::reader::{Awaited, Reader};
use self::waiting::{Ended, Permits, Waiting};
use super::control::{MessageError, Order, Reason, Target};
use super::frame::Frames;
use super::handshake::{Local, Peer};
use super::term::{Atom, DecodeError, EncodeError, Limits, Pid, Reference, Term};

/// What is held of a connection, and how long it may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// No longer message is held, in bytes, whoever asked for it.
    pub longest: usize,
    /// Of each answer, likewise.
    pub limits: Limits,
    /// Calls at a time; more wait for their turn.
    pub calls: usize,
    /// Of these, calls of one caller.
    pub calls_of_one: usize,
    /// Something is written at least this often, which shows the node that we are alive. What the node writes is answered
    /// sooner, so that one with a shorter `net_ticktime` than ours hears of us in time.
    pub tick: Duration,
    /// A node that says nothing for this long is gone. It is asked once half of it is over, so that a node that shows its life
    /// more rarely by itself is not.
    pub silence: Duration,
}

/// How much of an answer whoever asks is ready to hold. Where the connection's settings allow less, that counts.
#[derive(Clone, Copy, Debug)]
pub struct Cap {
    /// Of the message that answers, in bytes.
    pub longest: usize,
    /// Of the term in it.
    pub limits: Limits,
}

impl Settings {
    fn cap(&self, asked: Cap) -> Cap {
        let Limits { depth, terms } = asked.limits;
        Cap {
            longest: asked.longest.min(self.longest),
            limits: Limits { depth: depth.min(self.limits.depth), terms: terms.min(self.limits.terms) },
        }
    }
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
            silence: Duration::from_mins(1),
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

impl Lost {
    fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match error.kind() {
            // Over TLS a node that is killed says no farewell.
            UnexpectedEof | ConnectionReset | BrokenPipe => Self::ClosedByPeer,
            _ => Self::Failed(error.to_string()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("the answer has {length} bytes, of which {longest} are allowed")]
    TooLarge { length: usize, longest: usize },
    #[error("the answer cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    #[error("the question cannot be sent: {0}")]
    Unsendable(#[from] EncodeError),
    #[error("it failed on the node with {class}: {}", reason.brief())]
    Raised { class: Class, reason: Term },
    #[error("the node did not start it: {}", .0.brief())]
    NotStarted(Term),
    /// The process that worked for it was ended from outside.
    #[error("it was ended on the node: {}", .0.brief())]
    Ended(Term),
}

/// How a call failed on the node, as Erlang tells these apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Throw,
    Exit,
    Error,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Throw => "throw",
            Self::Exit => "exit",
            Self::Error => "error",
        })
    }
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
    /// What is said where nobody waits any more, and must not be lost where the outbox is full. At most one for each call and
    /// watch that got through the outbox, which takes no more of these while the node takes nothing.
    partings: mpsc::UnboundedSender<Bytes>,
    waiting: Arc<Waiting>,
    permits: Arc<Semaphore>,
    lost: watch::Receiver<Option<Lost>>,
    _closes: DropGuard,
}

impl Inner {
    async fn lost(&self) -> Lost {
        let mut lost = self.lost.clone();
        match lost.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or(Lost::ClosedHere),
            Err(_) => Lost::ClosedHere,
        }
    }
}

impl Connection {
    /// Takes over a stream on which hands were shaken. The second is the connection's work, for a task of the caller's: it is
    /// done once the connection is no more, which whoever waits has been told then.
    pub fn new<S>(
        stream: S,
        local: &Local,
        peer: Peer,
        settings: Settings,
        cancel: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<S>)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let us = Pid { node: local.name.clone(), id: 1, serial: 0, creation: local.creation };
        let (outbox, to_write) = mpsc::channel(settings.calls.max(1));
        let (partings, last_to_write) = mpsc::unbounded_channel();
        let waiting = Arc::new(Waiting::default());
        let (say_lost, lost) = watch::channel(None);
        let (from_node, to_node) = tokio::io::split(stream);
        let reader = Reader {
            from_node,
            frames: Frames::new(Awaited { waiting: waiting.clone(), longest: settings.longest }),
            waiting: waiting.clone(),
            outbox: outbox.clone(),
            partings: partings.clone(),
            us: us.clone(),
            silence: settings.silence,
        };
        let calls = settings.calls.max(1);
        let permits = Arc::new(Semaphore::new(calls));
        let free = permits.clone();
        let others = move || free.available_permits() + 1 < calls;
        let writer = writer::write(to_node, to_write, last_to_write, settings.tick, others);
        let mut end = End { waiting: waiting.clone(), say_lost, why: Lost::ClosedHere };
        let cancelled = cancel.clone();
        let work = async move {
            end.why = tokio::select! {
                biased; // stopping comes before all; answers before questions
                () = cancelled.cancelled() => Lost::ClosedHere,
                why = reader.read() => why,
                why = writer => why,
            };
            drop(end);
        };
        let inner = Inner {
            peer,
            settings,
            us,
            // Such that no reference of an earlier connection of this agent is taken for one of this.
            last_reference: AtomicU64::new(u64::from(rand::random::<u32>()) << 18),
            outbox,
            partings,
            waiting,
            permits,
            lost,
            _closes: cancel.drop_guard(),
        };
        (Self { own_permits: own_permits(&settings), inner: Arc::new(inner) }, work)
    }

    /// The same connection for another caller, who waits for nobody else's calls beyond a few.
    #[must_use]
    pub fn for_another(&self) -> Self {
        Self { inner: self.inner.clone(), own_permits: own_permits(&self.inner.settings) }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.inner.peer
    }

    /// What we are called there.
    pub fn us(&self) -> &Atom {
        &self.inner.us.node
    }

    /// Until it is no more; says why.
    pub async fn lost(&self) -> Lost {
        self.inner.lost().await
    }

    /// What `module:function(arguments...)` returns on the node, in a process of its own: no more than the connection's
    /// settings allow.
    ///
    /// # Errors
    /// As of [`Self::call_within`].
    pub async fn call(
        &self,
        module: &'static str,
        function: &'static str,
        arguments: Vec<Term>,
        patience: Duration,
    ) -> Result<Term, CallError> {
        let Settings { longest, limits, .. } = self.inner.settings;
        self.call_within(Cap { longest, limits }, module, function, arguments, patience).await
    }

    /// As [`Self::call`], of an answer that is no more than `cap`.
    ///
    /// # Errors
    /// Where it fails there, does not answer within `patience` (waiting for its turn included), answers more than is allowed,
    /// or the connection is lost. What was begun on the node is ended, also where this future is dropped.
    pub async fn call_within(
        &self,
        cap: Cap,
        module: &'static str,
        function: &'static str,
        arguments: Vec<Term>,
        patience: Duration,
    ) -> Result<Term, CallError> {
        let cap = self.inner.settings.cap(cap);
        let deadline = Instant::now() + patience;
        let late = |_| CallError::TimedOut(patience);
        let permits = timeout_at(deadline, self.permits()).await.map_err(late)??;
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
        let asked = Asked::new(&self.inner, id.clone(), There::Process(Some(permits)), cap.longest);
        let ended = timeout_at(deadline, asked.ask(frame)).await.map_err(late)??;
        returned(&id, reason(ended, cap.limits)?)
    }

    /// Until the process, or whoever goes by the name, ends; its reason. `noproc`: there is none.
    ///
    /// # Errors
    /// Where the connection is lost. Who stops waiting stops watching.
    pub async fn watch(&self, who: Target) -> Result<Term, CallError> {
        let id = self.next_reference();
        let frame = Order::Monitor { by: self.inner.us.clone(), who: who.clone(), id: id.clone() }.frame()?;
        let Settings { longest, limits, .. } = self.inner.settings;
        let ended = Asked::new(&self.inner, id, There::Watch(who), longest).ask(frame).await?;
        reason(ended, limits)
    }

    async fn permits(&self) -> Result<Permits, CallError> {
        let closed = |_| Lost::ClosedHere;
        // The caller's own first, so that none of the others' is held by who waits for one of its own.
        let own = self.own_permits.clone().acquire_owned().await.map_err(closed)?;
        let shared = self.inner.permits.clone().acquire_owned().await.map_err(closed)?;
        Ok(Permits { _own: own, _shared: shared })
    }

    fn next_reference(&self) -> Reference {
        let number = self.inner.last_reference.fetch_add(1, Ordering::Relaxed);
        // Only 18 bits of the first word count.
        let [low, high] =
            [number & 0x3_ffff, (number >> 18) & 0xffff_ffff].map(|it| u32::try_from(it).unwrap_or(0));
        let Pid { node, creation, .. } = &self.inner.us;
        Reference { node: node.clone(), creation: *creation, words: vec![low, high, 0] }
    }
}

fn reason(ended: Ended, limits: Limits) -> Result<Term, CallError> {
    match ended {
        Ended::Process(Reason::Read(reason)) => Ok(reason),
        Ended::Process(Reason::Payload(payload)) => Ok(payload.read(limits)?),
        Ended::TooLarge { length, longest } => Err(CallError::TooLarge { length, longest }),
        Ended::NotStarted(why) => Err(CallError::NotStarted(why)),
        Ended::Lost(why) => Err(why.into()),
    }
}

fn own_permits(settings: &Settings) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(settings.calls_of_one.max(1)))
}

/// Tells all who wait that the connection is no more, however its work ended: where it is dropped half done, too.
struct End {
    waiting: Arc<Waiting>,
    say_lost: watch::Sender<Option<Lost>>,
    why: Lost,
}

impl Drop for End {
    fn drop(&mut self) {
        self.say_lost.send_replace(Some(self.why.clone()));
        self.waiting.all_lost(&self.why);
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
    let class = match class.as_atom() {
        Some("return") => return Ok(value),
        Some("throw") => Class::Throw,
        Some("exit") => Class::Exit,
        _ => Class::Error,
    };
    Err(CallError::Raised { class, reason: value })
}

#[cfg(test)]
mod tests;
