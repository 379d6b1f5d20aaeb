//! The handshake of OTP 23 and later, from the side that dials. Each step takes what the one before it made, so that none can
//! be left out or come twice. See "Distribution Handshake" in the ERTS User's Guide.
//!
//! ```text
//!   us ── name ──▶ peer      Hello
//!   us ◀─ status ─ peer      ok, or why not
//!   us ◀ challenge peer      Challenged
//!   us ── answer ▶ peer      md5 of the cookie and its challenge, and a challenge of ours
//!   us ◀── proof ─ peer      it knows the cookie too
//! ```

use std::fmt;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use md5::{Digest as _, Md5};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::flags;
use super::term::Atom;

/// No message of the handshake is longer: a name of 255 characters and some numbers.
const LONGEST: usize = 2048;

/// Who we are to other nodes.
#[derive(Clone, Debug)]
pub struct Local {
    /// With the `@` and the host. The same for as long as this host has its agent, because each name that a node has seen stays
    /// in its table of atoms.
    pub name: Atom,
    /// Tells this life of the agent from the one before. Not 0.
    pub creation: u32,
}

/// Who answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub name: Atom,
    pub creation: u32,
    pub flags: u64,
}

/// How messages of the handshake are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// In two bytes: over TCP.
    Short,
    /// In four: over TLS.
    Long,
}

#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the connection failed while {1} was awaited")]
    Io(#[source] io::Error, Step),
    #[error("the node closed the connection while {0} was awaited")]
    Closed(Step),
    /// It closes the connection without a word, and says why in its own log.
    #[error("the node does not accept the cookie")]
    CookieRefused,
    /// Whoever answers does not know the cookie, and is not trusted.
    #[error("the node does not know the cookie")]
    CookieUnknown,
    /// Whoever holds it may be a connection of our own that the node has not seen end yet: then it is free soon.
    #[error("another is connected to the node as {0}, or about to be")]
    NameTaken(Atom),
    #[error("the node does not let {0} in: {1:?}")]
    NotAllowed(Atom, String),
    #[error("the node calls itself {found}, not {wanted}")]
    OtherNode { wanted: Atom, found: Atom },
    #[error("the node is too old: it lacks {0}, which OTP 25 has")]
    TooOld(&'static str),
    #[error("what the node sends is no message of a handshake: {0}")]
    Malformed(&'static str),
}

/// What is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Status,
    Challenge,
    Proof,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Status => "its word on our name",
            Self::Challenge => "its challenge",
            Self::Proof => "its proof that it knows the cookie",
        })
    }
}

/// Shakes hands with the node called `wanted`.
///
/// # Errors
/// Where the stream fails or the two do not agree. Bounded by the caller's time.
pub async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    lengths: Lengths,
    local: &Local,
    wanted: &Atom,
    cookie: &SecretString,
) -> Result<Peer, HandshakeError> {
    let mut line = Line { stream, lengths };
    let hello = Hello { local, wanted };
    line.send(&hello.message(), Step::Status).await?;
    let greeted = match hello.status(&line.receive(Step::Status).await?) {
        Err(taken @ HandshakeError::NameTaken(_)) => {
            // That we do not insist: it would wait for the other connection to end, and we with it.
            let _ = line.send(b"sfalse", Step::Status).await;
            return Err(taken);
        }
        status => status?,
    };
    let challenged = greeted.challenge(line.receive(Step::Challenge).await?)?;
    let (answered, answer) = challenged.answer(cookie, rand::random());
    line.send(&answer, Step::Proof).await?;
    let proof = line.receive(Step::Proof).await.map_err(|error| match error {
        HandshakeError::Closed(Step::Proof) => HandshakeError::CookieRefused,
        error => error,
    })?;
    answered.proof(&proof)
}

struct Line<'s, S> {
    stream: &'s mut S,
    lengths: Lengths,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<'_, S> {
    async fn send(&mut self, message: &[u8], next: Step) -> Result<(), HandshakeError> {
        let mut framed = BytesMut::with_capacity(message.len() + 4);
        match self.lengths {
            Lengths::Short => framed.put_u16(u16::try_from(message.len()).unwrap_or(u16::MAX)),
            Lengths::Long => framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX)),
        }
        framed.put_slice(message);
        let sent = async {
            self.stream.write_all(&framed).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| broken(error, next))
    }

    async fn receive(&mut self, step: Step) -> Result<Bytes, HandshakeError> {
        let length = match self.lengths {
            Lengths::Short => self.stream.read_u16().await.map(usize::from),
            Lengths::Long => self.stream.read_u32().await.map(|it| usize::try_from(it).unwrap_or(usize::MAX)),
        };
        let length = length.map_err(|error| broken(error, step))?;
        if length > LONGEST {
            return Err(HandshakeError::Malformed("it is too long"));
        }
        let mut message = vec![0; length];
        self.stream.read_exact(&mut message).await.map_err(|error| broken(error, step))?;
        Ok(message.into())
    }
}

fn broken(error: io::Error, step: Step) -> HandshakeError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            HandshakeError::Closed(step)
        }
        _ => HandshakeError::Io(error, step),
    }
}

struct Hello<'l> {
    local: &'l Local,
    wanted: &'l Atom,
}

impl<'l> Hello<'l> {
    fn message(&self) -> BytesMut {
        let name = self.local.name.as_str().as_bytes();
        let mut message = BytesMut::new();
        message.put_u8(b'N');
        message.put_u64(flags::OURS);
        message.put_u32(self.local.creation);
        message.put_u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
        message.put_slice(name);
        message
    }

    fn status(self, message: &[u8]) -> Result<Greeted<'l>, HandshakeError> {
        let [b's', status @ ..] = message else { return Err(HandshakeError::Malformed("no status")) };
        match status {
            b"ok" | b"ok_simultaneous" => Ok(Greeted { wanted: self.wanted }),
            b"alive" | b"nok" => Err(HandshakeError::NameTaken(self.local.name.clone())),
            other => {
                let said = String::from_utf8_lossy(other.get(..64).unwrap_or(other)).into_owned();
                Err(HandshakeError::NotAllowed(self.local.name.clone(), said))
            }
        }
    }
}

struct Greeted<'l> {
    wanted: &'l Atom,
}

impl Greeted<'_> {
    fn challenge(self, mut message: Bytes) -> Result<Challenged, HandshakeError> {
        const MALFORMED: HandshakeError = HandshakeError::Malformed("no challenge");
        let short = |_| MALFORMED;
        if message.try_get_u8().map_err(short)? != b'N' {
            // The challenge of OTP 22 begins with an `n`.
            return Err(HandshakeError::TooOld("HANDSHAKE_23"));
        }
        let flags = message.try_get_u64().map_err(short)?;
        let challenge = message.try_get_u32().map_err(short)?;
        let creation = message.try_get_u32().map_err(short)?;
        let length = usize::from(message.try_get_u16().map_err(short)?);
        let name = message.get(..length).and_then(|it| std::str::from_utf8(it).ok()).ok_or(MALFORMED)?;
        let name = Atom::new(name).map_err(|_| MALFORMED)?;
        if name != *self.wanted {
            return Err(HandshakeError::OtherNode { wanted: self.wanted.clone(), found: name });
        }
        if let Some(lacks) = flags::lacking(flags) {
            return Err(HandshakeError::TooOld(lacks));
        }
        Ok(Challenged { peer: Peer { name, creation, flags }, challenge })
    }
}

struct Challenged {
    peer: Peer,
    challenge: u32,
}

impl Challenged {
    fn answer(self, cookie: &SecretString, ours: u32) -> (Answered, BytesMut) {
        let mut message = BytesMut::new();
        message.put_u8(b'r');
        message.put_u32(ours);
        message.put_slice(&digest(cookie, self.challenge));
        (Answered { peer: self.peer, proof: digest(cookie, ours) }, message)
    }
}

struct Answered {
    peer: Peer,
    proof: [u8; 16],
}

impl Answered {
    fn proof(self, message: &[u8]) -> Result<Peer, HandshakeError> {
        match message {
            [b'a', proof @ ..] if *proof == self.proof => Ok(self.peer),
            [b'a', ..] => Err(HandshakeError::CookieUnknown),
            _ => Err(HandshakeError::Malformed("no proof")),
        }
    }
}

fn digest(cookie: &SecretString, challenge: u32) -> [u8; 16] {
    let mut digest = Md5::new();
    digest.update(cookie.expose_secret().as_bytes());
    digest.update(challenge.to_string().as_bytes());
    digest.finalize().into()
}
