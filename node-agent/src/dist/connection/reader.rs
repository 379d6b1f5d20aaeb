//! What comes from the node: each message goes to whoever waits for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::codec::Decoder as _;

use super::waiting::Waiting;
use super::writer::TICK;
use super::{Lost, asked};
use crate::dist::control::{self, CONTROL, Order, Payload, Target, Told};
use crate::dist::frame::{Allow, Frame, Frames};
use crate::dist::term::{Atom, Pid, Reference, Term};

/// What is read in one go where no more is known to come, in bytes.
const ROOM: usize = 16 * 1024;

/// A node that writes hears of us this often at least. It takes one that was silent for as long as its `net_ticktime` for
/// dead, and shows its own life four times in that: this holds for the shortest that can be set, which is one second.
const ANSWER: Duration = Duration::from_millis(200);

pub(super) struct Reader<S> {
    pub(super) from_node: ReadHalf<S>,
    pub(super) frames: Frames<Awaited>,
    pub(super) waiting: Arc<Waiting>,
    pub(super) outbox: mpsc::Sender<Bytes>,
    pub(super) partings: mpsc::UnboundedSender<Bytes>,
    pub(super) us: Pid,
    pub(super) silence: Duration,
}

impl<S: AsyncRead> Reader<S> {
    pub(super) async fn read(mut self) -> Lost {
        let mut buffer = BytesMut::new();
        let mut answered: Option<Instant> = None;
        let mut was_asked = false;
        loop {
            buffer.reserve(ROOM);
            // Bytes count, not messages: a large one may take its time.
            match timeout(self.silence / 2, self.from_node.read_buf(&mut buffer)).await {
                Err(_) if was_asked => return Lost::Silent(self.silence),
                Err(_) => {
                    was_asked = true;
                    // Where the outbox is full, something else is written, or the node takes nothing.
                    let _ = self.outbox.try_send(are_you_there(&self.us));
                    continue;
                }
                Ok(Err(error)) => return Lost::of(&error),
                Ok(Ok(0)) => return Lost::ClosedByPeer,
                Ok(Ok(_)) => was_asked = false,
            }
            if answered.is_none_or(|it| it.elapsed() >= ANSWER) {
                answered = Some(Instant::now());
                // Where the outbox is full, something else is written.
                let _ = self.outbox.try_send(TICK);
            }
            loop {
                match self.frames.decode(&mut buffer) {
                    Ok(Some(frame)) => match self.take(frame) {
                        Ok(()) => {}
                        Err(why) => return why,
                    },
                    Ok(None) => break,
                    Err(error) => return Lost::of(&error),
                }
            }
        }
    }

    fn take(&self, frame: Frame) -> Result<(), Lost> {
        let (message, whole, length) = match frame {
            Frame::Tick => return Ok(()),
            Frame::Message(message) => {
                let length = message.len();
                (message, true, length)
            }
            Frame::TooLong { beginning, length } => (beginning, false, length),
        };
        match control::read(message)? {
            Told::Spawned { id, result: Ok(process) } => {
                if let Some(process) = self.waiting.started(&id, process) {
                    let _ = self.partings.send(asked::end(&self.us, &id, process));
                }
            }
            Told::Spawned { id, result: Err(why) } => self.waiting.not_started(&id, why),
            Told::Down { id, reason } => self.waiting.ended(&id, whole.then_some(reason), length),
            Told::Message { to, message } if to == self.us => self.refuse_output(message),
            Told::Message { .. } | Told::Nothing => {}
        }
        Ok(())
    }

    /// We lead the group of what we start there, and what it prints is sent to us: it is told that this goes nowhere, or it
    /// would wait for ever.
    fn refuse_output(&self, message: Payload) {
        // What it prints, the fourth, is not read.
        let Ok(request) = message.front(3, CONTROL) else { return };
        if let [Term::Atom(kind), Term::Pid(from), reply_as] = request.as_slice()
            && kind == "io_request"
        {
            let error = Term::Tuple(vec![Term::atom("error"), Term::atom("enotsup")]);
            let reply = Term::Tuple(vec![Term::atom("io_reply"), reply_as.clone(), error]);
            if let Ok(frame) = (Order::Send { to: from.clone(), message: reply }).frame() {
                let _ = self.outbox.try_send(frame);
            }
        }
    }
}

/// How much is held of a message: as much as whoever waits for it allows.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) waiting: Arc<Waiting>,
    /// No longer message is held, whatever it is about, in bytes.
    pub(super) longest: usize,
}

impl Allow for Awaited {
    fn longest(&self, beginning: &Bytes) -> usize {
        match control::read(beginning.clone()) {
            Ok(Told::Down { id, .. }) => self.waiting.longest(&id).min(self.longest),
            // Of these no more is of use than what they begin with.
            Ok(Told::Spawned { .. } | Told::Message { .. } | Told::Nothing) => 0,
            // It may be a control message that goes on.
            Err(_) => self.longest,
        }
    }
}

/// What every node answers at once, so that one that shows its life more rarely than we allow (a `net_ticktime` longer than
/// ours) is not taken for dead: whether a name that nobody can have is nobody's. The node learns no name by it.
fn are_you_there(us: &Pid) -> Bytes {
    // Of no call: their third word is 0.
    let id = Reference { node: us.node.clone(), creation: us.creation, words: vec![0, 0, 1] };
    let order = Order::Monitor { by: us.clone(), who: Target::Name(Atom::of("undefined")), id };
    order.frame().unwrap_or(TICK)
}
