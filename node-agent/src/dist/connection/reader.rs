//! What comes from the node: each message goes to whoever waits for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::codec::Decoder as _;

use super::waiting::{Ended, Waiting};
use super::writer::TICK;
use super::{Lost, asked};
use crate::dist::control::{self, CONTROL, Order, Payload, Told};
use crate::dist::frame::{Frame, Frames};
use crate::dist::term::{Pid, Term};

/// What is read in one go where no more is known to come, in bytes.
const ROOM: usize = 16 * 1024;

/// A node that writes hears of us this often at least. It takes one that was silent for as long as its `net_ticktime` for
/// dead, and shows its own life four times in that: this holds for the shortest that can be set, which is one second.
const ANSWER: Duration = Duration::from_millis(200);

pub(super) struct Reader<S> {
    pub(super) from_node: ReadHalf<S>,
    pub(super) frames: Frames,
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
        loop {
            buffer.reserve(ROOM);
            // Bytes count, not messages: a large one may take its time.
            match timeout(self.silence, self.from_node.read_buf(&mut buffer)).await {
                Err(_) => return Lost::Silent(self.silence),
                Ok(Err(error)) => return Lost::of(&error),
                Ok(Ok(0)) => return Lost::ClosedByPeer,
                Ok(Ok(_)) => {}
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
        let (message, length) = match frame {
            Frame::Tick => return Ok(()),
            Frame::Message(message) => (message, None),
            Frame::TooLong { beginning, length } => (beginning, Some(length)),
        };
        match control::read(message)? {
            Told::Spawned { id, result: Ok(process) } => {
                if let Some(process) = self.waiting.started(&id, process) {
                    let _ = self.partings.send(asked::end(&self.us, &id, process));
                }
            }
            Told::Spawned { id, result: Err(why) } => self.waiting.ended(&id, Ended::NotStarted(why)),
            Told::Down { id, reason } => {
                let ended = length.map_or(Ended::Process(reason), Ended::TooLarge);
                self.waiting.ended(&id, ended);
            }
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
