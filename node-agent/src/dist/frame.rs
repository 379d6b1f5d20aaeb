//! Frames: what comes after the handshake is cut into messages by their length, and an empty one only shows that its sender is
//! alive.
//!
//! A frame that is longer than we are ready to hold does not end the connection: its beginning, which says what it is about, is
//! kept, and the rest is thrown away as it comes. How much that is may depend on what the beginning says, which is asked for
//! before room is made for the rest.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Decoder;

/// How much of a frame that is too long is kept, in bytes: more than the control messages that we get ever have.
const KEPT: usize = 4096;

/// A message of more bytes is large: its memory is given back with it.
const LARGE: usize = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A sign of life.
    Tick,
    Message(Bytes),
    /// The beginning of a message of `length` bytes.
    TooLong {
        beginning: Bytes,
        length: usize,
    },
}

/// How much of a message is held.
pub trait Allow {
    /// No longer message that begins with this is held, in bytes. Not asked about short ones.
    fn longest(&self, beginning: &Bytes) -> usize;
}

/// The same for all.
impl Allow for usize {
    fn longest(&self, _: &Bytes) -> usize {
        *self
    }
}

/// Takes frames from a stream, whole, however they arrive: it is safe to give up waiting for one.
#[derive(Debug)]
pub struct Frames<A> {
    allow: A,
    /// How much of a message is looked at before it is allowed, and kept where it is not, in bytes.
    kept: usize,
    /// The one that is coming was found to be allowed.
    allowed: bool,
    skipping: Option<Skipping>,
    /// A large message was taken from the buffer, whose memory may be as large.
    roomy: bool,
}

#[derive(Debug)]
struct Skipping {
    beginning: Bytes,
    length: usize,
    left: usize,
}

impl<A: Allow> Frames<A> {
    pub fn new(allow: A) -> Self {
        Self { allow, kept: KEPT, allowed: false, skipping: None, roomy: false }
    }

    /// As if beginnings were this short, so that a few bytes reach all of it.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn that_keep(kept: usize, allow: A) -> Self {
        Self { kept, ..Self::new(allow) }
    }
}

impl<A: Allow> Decoder for Frames<A> {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, from: &mut BytesMut) -> io::Result<Option<Frame>> {
        if let Some(mut skipping) = self.skipping.take() {
            let now = skipping.left.min(from.len());
            from.advance(now);
            skipping.left -= now;
            if skipping.left > 0 {
                self.skipping = Some(skipping);
                return Ok(None);
            }
            return Ok(Some(Frame::TooLong { beginning: skipping.beginning, length: skipping.length }));
        }
        let Some(head) = from.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).map_err(io::Error::other)?;
        if length == 0 {
            from.advance(4);
            return Ok(Some(Frame::Tick));
        }
        if length > self.kept && !self.allowed {
            let Some(beginning) = from.get(4..4 + self.kept) else { return Ok(None) };
            let beginning = Bytes::copy_from_slice(beginning);
            if length > self.allow.longest(&beginning) {
                from.advance(4 + self.kept);
                self.skipping = Some(Skipping { beginning, length, left: length - self.kept });
                return self.decode(from);
            }
            self.allowed = true;
        }
        if from.len() < 4 + length {
            from.reserve(4 + length - from.len());
            return Ok(None);
        }
        self.allowed = false;
        from.advance(4);
        let message = from.split_to(length).freeze();
        self.roomy |= length > LARGE;
        if self.roomy && from.len() <= LARGE {
            // The room of a large message is not to be kept by what comes after it.
            *from = BytesMut::from(&from[..]);
            self.roomy = false;
        }
        Ok(Some(Frame::Message(message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(frames: &mut Frames<impl Allow>, bytes: &[u8], step: usize) -> Vec<Frame> {
        let mut buffer = BytesMut::new();
        let mut seen = Vec::new();
        for piece in bytes.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = frames.decode(&mut buffer).unwrap() {
                seen.push(frame);
            }
        }
        assert!(buffer.is_empty());
        seen
    }

    fn framed(length: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(length).unwrap().to_be_bytes().to_vec();
        bytes.extend((0..length).map(|at| u8::try_from(at % 251).unwrap()));
        bytes
    }

    #[test]
    fn frames_come_whole_however_they_are_cut() {
        let bytes = [framed(3), framed(0), framed(5000), framed(9000), framed(1)].concat();
        for step in [1, 3, 4, 5, 4095, 4096, 4100, usize::MAX] {
            let seen = all(&mut Frames::new(6000_usize), &bytes, step);
            let message = |length: usize| Frame::Message(Bytes::from(framed(length).split_off(4)));
            let beginning = Bytes::from(framed(KEPT).split_off(4));
            let expected = [
                message(3),
                Frame::Tick,
                message(5000),
                Frame::TooLong { beginning, length: 9000 },
                message(1),
            ];
            assert_eq!(seen, expected, "{step}");
        }
    }

    /// Allows what begins with a 1.
    struct Ones;

    impl Allow for Ones {
        fn longest(&self, beginning: &Bytes) -> usize {
            assert_eq!(beginning.len(), KEPT);
            if beginning.first() == Some(&1) { 1 << 20 } else { 0 }
        }
    }

    #[test]
    fn what_a_message_begins_with_decides_how_much_of_it_is_held() {
        let framed = |first: u8, length: usize| {
            let mut bytes = u32::try_from(length).unwrap().to_be_bytes().to_vec();
            bytes.resize(4 + length, first);
            bytes
        };
        let bytes = [framed(1, 9000), framed(2, 9000), framed(2, KEPT), framed(1, 9001)].concat();
        for step in [1, 4099, 4100, 4101, usize::MAX] {
            let lengths: Vec<_> = all(&mut Frames::new(Ones), &bytes, step)
                .into_iter()
                .map(|frame| match frame {
                    Frame::Message(message) => (true, message.len()),
                    Frame::TooLong { length, .. } => (false, length),
                    Frame::Tick => (true, 0),
                })
                .collect();
            assert_eq!(lengths, [(true, 9000), (false, 9000), (true, KEPT), (true, 9001)], "{step}");
        }
    }

    #[test]
    fn the_room_of_a_large_message_goes_with_it() {
        let mut frames = Frames::new(1_usize << 20);
        let mut buffer = BytesMut::from(&[framed(1 << 20), framed(3)].concat()[..]);
        assert!(matches!(frames.decode(&mut buffer), Ok(Some(Frame::Message(_)))));
        assert!(matches!(frames.decode(&mut buffer), Ok(Some(Frame::Message(_)))));
        // Where it were the room of the large one, that would be given back here.
        buffer.reserve(1);
        assert!(buffer.capacity() < LARGE, "{}", buffer.capacity());
    }

    #[test]
    fn nothing_is_set_aside_for_a_frame_that_is_too_long() {
        let mut frames = Frames::new(6000_usize);
        let mut buffer = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        buffer.extend_from_slice(&[0; KEPT]);
        for _ in 0..1000 {
            assert_eq!(frames.decode(&mut buffer).unwrap(), None);
            assert!(buffer.capacity() < 64 * 1024, "{}", buffer.capacity());
            buffer.extend_from_slice(&[0; 8192]);
        }
    }
}
