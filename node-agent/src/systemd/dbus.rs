//! As much of D-Bus as one call needs: its handshake, the form of a call, and whether the answer is an error.
//!
//! A whole library for it would be heavier than all else in the agent. Calls wait, at most as long as they are told to; whoever
//! has other things to do makes them on a thread of their own. What a peer sends is capped.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer of ours is a path or a sentence.
const MOST_BYTES: usize = 64 << 10;
/// Signals and answers that may come before the one that is waited for.
const MOST_MESSAGES: usize = 64;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// Fields of a header, by the numbers of the specification.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Why a call brought nothing about.
#[derive(Debug)]
pub enum CallError {
    Io(io::Error),
    /// The peer's own words: the name of the error, and what it says.
    Refused(String, String),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Refused(name, said) if said.is_empty() => f.write_str(name),
            Self::Refused(_, said) => f.write_str(said),
        }
    }
}

impl std::error::Error for CallError {}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whom to call, and what.
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

/// A connection to a bus, on which one call is made after the other.
pub(super) struct Bus {
    stream: BufReader<UnixStream>,
    serial: u32,
}

impl Bus {
    /// `patience`: of each single wait.
    pub(super) fn connect(socket: &Path, uid: u32, patience: Duration) -> Result<Self, CallError> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut bus = Self { stream: BufReader::new(stream), serial: 0 };
        // Each digit of the number by its own.
        let mut hello = "\0AUTH EXTERNAL ".to_owned();
        for digit in uid.to_string().bytes() {
            let _ = write!(hello, "{digit:02x}");
        }
        hello.push_str("\r\n");
        bus.send(hello.as_bytes())?;
        let mut line = Vec::new();
        bus.stream.by_ref().take(512).read_until(b'\n', &mut line)?;
        if !line.starts_with(b"OK ") {
            return Err(malformed("the bus does not let us in").into());
        }
        bus.send(b"BEGIN\r\n")?;
        let hello = Method {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
        };
        bus.call(&hello, "", &[])?;
        Ok(bus)
    }

    /// Waits for the answer, and passes over all that comes before.
    pub(super) fn call(
        &mut self,
        method: &Method<'_>,
        signature: &str,
        body: &[u8],
    ) -> Result<(), CallError> {
        self.serial += 1;
        let message = call(method, self.serial, signature, body)?;
        self.send(&message)?;
        for _ in 0..MOST_MESSAGES {
            let answer = Answer::read(&mut self.stream)?;
            if answer.to != Some(self.serial) {
                continue;
            }
            return match answer.kind {
                METHOD_RETURN => Ok(()),
                ERROR => Err(CallError::Refused(answer.error, answer.said)),
                _ => Err(malformed("no answer to a call").into()),
            };
        }
        Err(malformed("the bus does not answer").into())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn call(method: &Method<'_>, serial: u32, signature: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(body.len()).map_err(|_| malformed("too long a call"))?;
    let mut fields = Writer::default();
    for (field, kind, value) in [
        (PATH, "o", method.path),
        (INTERFACE, "s", method.interface),
        (MEMBER, "s", method.member),
        (DESTINATION, "s", method.destination),
    ] {
        fields.align(8);
        fields.0.push(field);
        fields.signature(kind);
        fields.string(value);
    }
    if !signature.is_empty() {
        fields.align(8);
        fields.0.push(SIGNATURE);
        fields.signature("g");
        fields.signature(signature);
    }
    // Little endian, no flags, version 1. The fields begin at 16, so they are aligned as they were written.
    let mut message = vec![b'l', METHOD_CALL, 0, 1];
    message.extend_from_slice(&length.to_le_bytes());
    message.extend_from_slice(&serial.to_le_bytes());
    message.extend_from_slice(&u32::try_from(fields.0.len()).unwrap_or(u32::MAX).to_le_bytes());
    message.extend_from_slice(&fields.0);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend_from_slice(body);
    Ok(message)
}

/// What of an answer matters.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    kind: u8,
    to: Option<u32>,
    error: String,
    said: String,
}

impl Answer {
    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut start = [0; 16];
        from.read_exact(&mut start)?;
        let big = match start[0] {
            b'l' => false,
            b'B' => true,
            _ => return Err(malformed("no message of D-Bus")),
        };
        let number = |at: usize| number(&start, at, big).unwrap_or(0);
        let (body, fields) = (number(4), number(12).next_multiple_of(8));
        if body.saturating_add(fields) > MOST_BYTES {
            return Err(malformed("too long an answer"));
        }
        let mut rest = vec![0; fields + body];
        from.read_exact(&mut rest)?;
        let (fields, body) = rest.split_at(fields);
        let mut answer = Self { kind: start[1], to: None, error: String::new(), said: String::new() };
        let mut is_said = false;
        let mut at = 0;
        while let Some((field, kind, value, next)) = field(fields, at, big) {
            match (field, kind) {
                (REPLY_SERIAL, b'u') => answer.to = Some(u32::try_from(value).unwrap_or(u32::MAX)),
                (ERROR_NAME, b's') => answer.error = text(fields, value, big),
                (SIGNATURE, b'g') => is_said = fields.get(value + 1) == Some(&b's'),
                _ => {}
            }
            at = next;
        }
        if is_said {
            answer.said = text(body, 0, big);
        }
        Ok(answer)
    }
}

fn number(bytes: &[u8], at: usize, big: bool) -> Option<usize> {
    let four: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    let number = if big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) };
    usize::try_from(number).ok()
}

fn text(bytes: &[u8], at: usize, big: bool) -> String {
    let read = || {
        let length = number(bytes, at, big)?;
        bytes.get(at + 4..(at + 4).checked_add(length)?)
    };
    String::from_utf8_lossy(read().unwrap_or_default()).into_owned()
}

/// The field at `at`: its number, the type of its value, the value of a number or where else it lies, and where the next begins.
fn field(fields: &[u8], at: usize, big: bool) -> Option<(u8, u8, usize, usize)> {
    let at = at.next_multiple_of(8);
    let (name, kind) = (*fields.get(at)?, *fields.get(at + 2)?);
    if name == 0 || fields.get(at + 1) != Some(&1) {
        return None;
    }
    let value = at + 4;
    Some(match kind {
        b'u' => (name, kind, number(fields, value, big)?, value + 4),
        b'g' => (name, kind, value, value + 2 + usize::from(*fields.get(value)?)),
        b's' | b'o' => (name, kind, value, value.checked_add(number(fields, value, big)?)?.checked_add(5)?),
        _ => return None,
    })
}

/// Values, each at the alignment that it needs. What is written has to begin at a multiple of eight.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(super) fn number(&mut self, value: u32) {
        self.align(4);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn long(&mut self, value: u64) {
        self.align(8);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn string(&mut self, value: &str) {
        self.number(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
    }

    pub(super) fn signature(&mut self, value: &str) {
        self.0.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
    }

    /// What `write` writes, as an array of things that begin at `alignment`.
    pub(super) fn array(&mut self, alignment: usize, write: impl FnOnce(&mut Self)) {
        self.number(0);
        let length_at = self.0.len() - 4;
        // The padding before the first one is not counted.
        self.align(alignment);
        let from = self.0.len();
        write(self);
        let length = u32::try_from(self.0.len() - from).unwrap_or(u32::MAX);
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    pub(super) fn structure(&mut self) {
        self.align(8);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An answer as a bus gives it.
    pub(crate) fn answer(kind: u8, to: u32, error: &str, said: &str) -> Vec<u8> {
        let mut fields = Writer::default();
        fields.0.push(REPLY_SERIAL);
        fields.signature("u");
        fields.number(to);
        if !error.is_empty() {
            fields.structure();
            fields.0.push(ERROR_NAME);
            fields.signature("s");
            fields.string(error);
        }
        fields.structure();
        fields.0.push(SIGNATURE);
        fields.signature("g");
        fields.signature("s");
        let mut body = Writer::default();
        body.string(said);
        let mut message = vec![b'l', kind, 0, 1];
        message.extend_from_slice(&u32::try_from(body.0.len()).unwrap().to_le_bytes());
        message.extend_from_slice(&77_u32.to_le_bytes());
        message.extend_from_slice(&u32::try_from(fields.0.len()).unwrap().to_le_bytes());
        message.extend_from_slice(&fields.0);
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend_from_slice(&body.0);
        message
    }

    #[test]
    fn an_answer_is_read_to_its_last_byte_and_no_further() {
        let mut bytes = answer(ERROR, 3, "org.example.No", "not today");
        let read = Answer::read(&mut bytes.as_slice()).unwrap();
        let (error, said) = ("org.example.No".to_owned(), "not today".to_owned());
        assert_eq!(read, Answer { kind: ERROR, to: Some(3), error, said });
        let whole = bytes.len();
        bytes.extend_from_slice(&answer(METHOD_RETURN, 4, "", ""));
        let mut rest = bytes.as_slice();
        Answer::read(&mut rest).unwrap();
        assert_eq!(rest.len(), bytes.len() - whole);
        assert_eq!(Answer::read(&mut rest).unwrap().to, Some(4));
        for end in 0..whole {
            assert!(Answer::read(&mut &bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn no_answer_of_any_bytes_is_too_much() {
        let whole = answer(ERROR, 3, "org.example.No", "not today");
        for at in 0..whole.len() {
            for byte in [0, 1, 7, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                // Whatever it is taken for, nothing breaks.
                let _ = Answer::read(&mut bytes.as_slice());
            }
        }
    }

    #[test]
    fn a_call_is_laid_out_as_the_specification_has_it() {
        let method = Method { destination: "a.b", path: "/a", interface: "a.c", member: "D" };
        let bytes = call(&method, 9, "s", &[1, 2, 3]).unwrap();
        assert_eq!(bytes[..12], [b'l', 1, 0, 1, 3, 0, 0, 0, 9, 0, 0, 0]);
        let fields = usize::from(bytes[12]);
        assert_eq!(bytes[16..28], [1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'a', 0, 0]);
        assert_eq!(bytes.len(), (16 + fields).next_multiple_of(8) + 3);
        let mut array = Writer::default();
        array.array(8, |it| it.long(5));
        assert_eq!(array.0, [8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0], "the padding is not counted");
    }
}
