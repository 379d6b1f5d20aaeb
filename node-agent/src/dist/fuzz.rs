//! What is fuzzed of the protocol: each target takes bytes as they might come from anybody, and panics where something that must
//! hold for all bytes does not. Not in an installed agent.
//!
//! `recorded/TARGET` holds what a real OTP sent: where fuzzing starts from. `cargo xtask fuzz dist` lets a fuzzer that sees what
//! it reaches change it; the tests below do so blindly, with a seed, in every run.

// Panics are what it is for.
#![allow(clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use secrecy::SecretString;
use tokio_util::codec::Decoder as _;

use super::control::{self, CONTROL, Reason, Told};
use super::epmd;
use super::frame::{Allow, Frame, Frames};
use super::handshake::{Lengths, Local, shake_hands};
use super::term::{Atom, Limits, Term, decode, decode_front, encode};

/// Something to be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also of its folder in `recorded`.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// All there are.
pub const TARGETS: [Target; 5] = [
    Target { name: "frames", run: frames },
    Target { name: "terms", run: terms },
    Target { name: "messages", run: messages },
    Target { name: "handshake", run: handshake },
    Target { name: "epmd", run: of_epmd },
];

/// The beginning of a message as this target has it, in bytes.
const KEPT: usize = 16;

/// No longer message is held, in bytes.
const LONGEST: usize = 1024;

/// Such that what a message begins with matters.
#[derive(Clone, Copy, Debug)]
struct FirstByte;

impl Allow for FirstByte {
    fn longest(&self, beginning: &Bytes) -> usize {
        assert_eq!(beginning.len(), KEPT, "only a whole beginning is judged");
        LONGEST.min(usize::from(beginning.first().copied().unwrap_or(0)) * 8)
    }
}

/// Frames are the same however the bytes are cut, none is longer than allowed, and no room is made for one that is.
fn frames(bytes: &[u8]) {
    let whole = cut(bytes, bytes.len().max(1));
    for step in [1, 3, KEPT + 4, 1 + bytes.len() % 61] {
        assert!(whole == cut(bytes, step), "cut into pieces of {step} bytes they are others");
    }
    let mut taken = 0;
    for frame in whole {
        taken += 4;
        match frame {
            Frame::Tick => {}
            Frame::Message(message) => {
                let allowed =
                    if message.len() > KEPT { FirstByte.longest(&message.slice(..KEPT)) } else { KEPT };
                assert!(message.len() <= allowed, "{} bytes of {allowed} are held", message.len());
                taken += message.len();
                messages(&message);
            }
            Frame::TooLong { beginning, length } => {
                assert!(length > FirstByte.longest(&beginning), "what is allowed is skipped");
                taken += length;
            }
        }
    }
    assert!(taken <= bytes.len(), "more is taken than came");
}

fn cut(bytes: &[u8], step: usize) -> Vec<Frame> {
    let mut frames = Frames::that_keep(KEPT, FirstByte);
    let mut buffer = BytesMut::new();
    let mut seen = Vec::new();
    for piece in bytes.chunks(step) {
        buffer.extend_from_slice(piece);
        while let Ok(Some(frame)) = frames.decode(&mut buffer) {
            seen.push(frame);
        }
        let most = 2 * (4 + LONGEST + step + bytes.len());
        assert!(buffer.capacity() <= most, "room for {} bytes is made", buffer.capacity());
    }
    seen
}

/// What is read is within the limits, and what is written of it is read as the same and written as the same.
fn terms(bytes: &[u8]) {
    for limits in [Limits::default(), Limits { depth: 4, terms: 20 }] {
        let mut rest = Bytes::copy_from_slice(bytes);
        let Ok(term) = decode(&mut rest, limits) else { continue };
        let (depth, terms) = extent(&term);
        assert!(depth <= usize::from(limits.depth), "{depth} levels");
        assert!(terms <= u64::from(limits.terms) + 1, "{terms} terms");
        assert!(term.brief().to_string().chars().count() <= 501, "it is mentioned at length");
        let written = written(&term);
        let mut unread = written.clone();
        match decode(&mut unread, Limits::default()) {
            Ok(again) => {
                assert!(again == term, "{term} is written as {again}");
                assert!(unread.is_empty(), "something is left of {term}");
                assert!(self::written(&again) == written, "{term} is written in two ways");
            }
            Err(error) => panic!("{term} is written so that it cannot be read: {error}"),
        }
    }
    for count in [0, 1, 3] {
        if let Ok(front) = decode_front(&mut Bytes::copy_from_slice(bytes), count, CONTROL) {
            assert_eq!(front.len(), count, "of the front");
        }
    }
}

fn written(term: &Term) -> Bytes {
    let mut bytes = BytesMut::new();
    match encode(term, &mut bytes) {
        Ok(()) => bytes.freeze(),
        Err(error) => panic!("{error}"),
    }
}

/// How many levels below it, and how many terms in it.
fn extent(term: &Term) -> (usize, u64) {
    let inner: Vec<&Term> = match term {
        Term::Tuple(elements) | Term::List(elements) => elements.iter().collect(),
        Term::ImproperList(elements, tail) => elements.iter().chain([&**tail]).collect(),
        Term::Map(pairs) => pairs.iter().flat_map(|(key, value)| [key, value]).collect(),
        _ => Vec::new(),
    };
    inner
        .into_iter()
        .map(extent)
        .fold((0, 1), |(depth, terms), (below, more)| (depth.max(below + 1), terms + more))
}

/// What a message is about is read or refused; so is what goes with it, by whoever it is for.
fn messages(bytes: &[u8]) {
    match control::read(Bytes::copy_from_slice(bytes)) {
        Ok(Told::Down { reason: Reason::Payload(payload), .. }) => {
            let _ = payload.read(Limits::default());
        }
        Ok(Told::Message { message, .. }) => {
            if let Ok(front) = message.front(3, CONTROL) {
                assert_eq!(front.len(), 3, "of the front");
            }
        }
        Ok(_) | Err(_) => {}
    }
}

/// Whoever does not know the cookie is not let in, whatever he says.
fn handshake(bytes: &[u8]) {
    let local = Local { name: Atom::of("agent@127.0.0.1"), creation: 7 };
    let cookie = SecretString::from("oats-and-honey");
    for lengths in [Lengths::Short, Lengths::Long] {
        let mut stream = tokio::io::join(bytes, tokio::io::sink());
        let wanted = Atom::of("shop@127.0.0.1");
        match shake_hands(&mut stream, lengths, &local, &wanted, &cookie).now_or_never() {
            Some(Err(error)) => assert!(error.to_string().len() < 2048, "a long word on {}", bytes.len()),
            Some(Ok(peer)) => panic!("{peer:?} is let in"),
            None => panic!("all of it is there, and more is waited for"),
        }
    }
}

/// A port is one only behind a word that says so.
fn of_epmd(bytes: &[u8]) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 4369));
    let mut stream = tokio::io::join(bytes, tokio::io::sink());
    let answered = epmd::ask(&mut stream, address, "shop").now_or_never();
    let said = match bytes {
        [119, 0, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    };
    match answered {
        Some(answer) => assert_eq!(answer.ok(), said, "the port"),
        None => panic!("all of it is there, and more is waited for"),
    }
}

#[cfg(test)]
mod tests;
