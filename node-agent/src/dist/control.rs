//! Messages between nodes: a control tuple that says what it is about, and for some a term that goes with it. Pure. See
//! "Protocol between Connected Nodes" in the ERTS User's Guide for the numbers.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::term::{
    Atom, DecodeError, EncodeError, Limits, Pid, Reference, Term, decode, decode_front, encode,
};

/// A message is passed through as it is: no atom cache, no fragments.
const PASS_THROUGH: u8 = 112;

const SEND: i64 = 2;
const REG_SEND: i64 = 6;
const MONITOR_P: i64 = 19;
const DEMONITOR_P: i64 = 20;
const MONITOR_P_EXIT: i64 = 21;
const SEND_SENDER: i64 = 22;
const PAYLOAD_EXIT2: i64 = 26;
const PAYLOAD_MONITOR_P_EXIT: i64 = 28;
const SPAWN_REQUEST: i64 = 29;
const SPAWN_REPLY: i64 = 31;

/// What we tell a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Starts a process that we watch from its first moment on.
    Spawn {
        id: Reference,
        by: Pid,
        module: Atom,
        function: Atom,
        arguments: Vec<Term>,
    },
    /// Says `message` to whoever goes by this name.
    SendNamed {
        by: Pid,
        to: Atom,
        message: Term,
    },
    Send {
        to: Pid,
        message: Term,
    },
    Monitor {
        by: Pid,
        who: Target,
        id: Reference,
    },
    Demonitor {
        by: Pid,
        who: Target,
        id: Reference,
    },
    /// Ends a process for this reason.
    Exit {
        by: Pid,
        who: Pid,
        reason: Term,
    },
}

/// A process, by what it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Pid(Pid),
    Name(Atom),
}

impl From<Target> for Term {
    fn from(target: Target) -> Self {
        match target {
            Target::Pid(pid) => Self::Pid(pid),
            Target::Name(name) => Self::Atom(name),
        }
    }
}

impl Order {
    /// As a whole frame, its length included.
    ///
    /// # Errors
    /// Where it is too large for the format.
    pub fn frame(self) -> Result<Bytes, EncodeError> {
        let number = Term::Integer;
        let nobody = || Term::atom("");
        let (control, payload) = match self {
            Self::Spawn { id, by, module, function, arguments } => {
                let arity = i64::try_from(arguments.len()).unwrap_or(i64::MAX);
                let what = Term::Tuple(vec![Term::Atom(module), Term::Atom(function), number(arity)]);
                let (by, leader) = (Term::Pid(by.clone()), Term::Pid(by));
                let options = Term::List(vec![Term::atom("monitor")]);
                let control = vec![number(SPAWN_REQUEST), Term::Reference(id), by, leader, what, options];
                (control, Some(Term::List(arguments)))
            }
            Self::SendNamed { by, to, message } => {
                (vec![number(REG_SEND), Term::Pid(by), nobody(), Term::Atom(to)], Some(message))
            }
            Self::Send { to, message } => (vec![number(SEND), nobody(), Term::Pid(to)], Some(message)),
            Self::Monitor { by, who, id } => {
                (vec![number(MONITOR_P), Term::Pid(by), who.into(), Term::Reference(id)], None)
            }
            Self::Demonitor { by, who, id } => {
                (vec![number(DEMONITOR_P), Term::Pid(by), who.into(), Term::Reference(id)], None)
            }
            Self::Exit { by, who, reason } => {
                (vec![number(PAYLOAD_EXIT2), Term::Pid(by), Term::Pid(who)], Some(reason))
            }
        };
        let mut frame = BytesMut::new();
        frame.put_u32(0);
        frame.put_u8(PASS_THROUGH);
        encode(&Term::Tuple(control), &mut frame)?;
        if let Some(payload) = payload {
            encode(&payload, &mut frame)?;
        }
        let length = u32::try_from(frame.len() - 4).map_err(|_| EncodeError::of("a message"))?;
        if let Some(head) = frame.first_chunk_mut::<4>() {
            *head = length.to_be_bytes();
        }
        Ok(frame.freeze())
    }
}

/// What a node tells us, as far as it concerns us.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// What we asked to be started was, or was not.
    Spawned { id: Reference, result: Result<Pid, Term> },
    /// What we watched has ended. `reason` is not read yet: it may be what somebody waits for, and large.
    Down { id: Reference, reason: Reason },
    /// Somebody speaks to one of our processes.
    Message { to: Pid, message: Payload },
    /// Links, and what else is nobody's business here.
    Nothing,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    Read(Term),
    Payload(Payload),
}

/// A term that is not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    /// # Errors
    /// Where it is no term, or more than `limits`.
    pub fn read(mut self, limits: Limits) -> Result<Term, DecodeError> {
        decode(&mut self.0, limits)
    }

    /// The first `count` elements of a tuple, however large the others are.
    ///
    /// # Errors
    /// Where it is no tuple of as many, or these are more than `limits`.
    pub fn front(mut self, count: usize, limits: Limits) -> Result<Vec<Term>, DecodeError> {
        decode_front(&mut self.0, count, limits)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("a message begins with {0}, not with 112")]
    Header(u8),
    #[error("its control message cannot be read: {0}")]
    Control(#[from] DecodeError),
    #[error("its control message is none: {0}")]
    Malformed(&'static str),
}

/// Control messages are small, but for what a start is refused with, which may be any term.
pub const CONTROL: Limits = Limits { depth: 50, terms: 10_000 };

/// Reads what a message is about. What follows its control message stays unread.
///
/// # Errors
/// Where it is no message; nothing that comes after it on the same connection can be trusted then.
pub fn read(mut message: Bytes) -> Result<Told, MessageError> {
    match message.try_get_u8() {
        Ok(PASS_THROUGH) => {}
        Ok(other) => return Err(MessageError::Header(other)),
        Err(_) => return Err(MessageError::Malformed("it is empty")),
    }
    let Term::Tuple(control) = decode(&mut message, CONTROL)? else {
        return Err(MessageError::Malformed("no tuple"));
    };
    let payload = Payload(message);
    let mut control = control.into_iter();
    let Some(Term::Integer(kind)) = control.next() else {
        return Err(MessageError::Malformed("no number"));
    };
    let mut next = || control.next().unwrap_or_default();
    Ok(match (kind, next(), next(), next(), next()) {
        (SPAWN_REPLY, Term::Reference(id), _, _, Term::Pid(pid)) => Told::Spawned { id, result: Ok(pid) },
        (SPAWN_REPLY, Term::Reference(id), _, _, why) => Told::Spawned { id, result: Err(why) },
        (MONITOR_P_EXIT, _, _, Term::Reference(id), reason) => {
            Told::Down { id, reason: Reason::Read(reason) }
        }
        (PAYLOAD_MONITOR_P_EXIT, _, _, Term::Reference(id), _) => {
            Told::Down { id, reason: Reason::Payload(payload) }
        }
        (SEND | SEND_SENDER, _, Term::Pid(to), _, _) => Told::Message { to, message: payload },
        (SPAWN_REPLY, ..) => return Err(MessageError::Malformed("a reply to a spawn")),
        (MONITOR_P_EXIT | PAYLOAD_MONITOR_P_EXIT, ..) => {
            return Err(MessageError::Malformed("an end of what is watched"));
        }
        (SEND | SEND_SENDER, ..) => return Err(MessageError::Malformed("a message")),
        _ => Told::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(id: u32) -> Pid {
        Pid { node: Atom::of("agent@host"), id, serial: 0, creation: 7 }
    }

    fn reference(word: u32) -> Reference {
        Reference { node: Atom::of("agent@host"), creation: 7, words: vec![word, 0, 0] }
    }

    fn message(control: Vec<Term>, payload: Option<Term>) -> Bytes {
        let mut bytes = BytesMut::from(&[PASS_THROUGH][..]);
        encode(&Term::Tuple(control), &mut bytes).unwrap();
        if let Some(payload) = payload {
            encode(&payload, &mut bytes).unwrap();
        }
        bytes.freeze()
    }

    #[test]
    fn a_call_is_a_process_that_is_watched_from_its_first_moment() {
        let order = Order::Spawn {
            id: reference(5),
            by: pid(1),
            module: Atom::of("erpc"),
            function: Atom::of("execute_call"),
            arguments: vec![Term::Integer(1)],
        };
        let mut frame = order.frame().unwrap();
        assert_eq!(usize::try_from(frame.get_u32()).unwrap(), frame.len());
        assert_eq!(frame.get_u8(), PASS_THROUGH);
        let control = decode(&mut frame, Limits::default()).unwrap();
        assert_eq!(
            control.to_string(),
            "{29,#Ref<0.0.5> on agent@host,<1.0> on agent@host,<1.0> on agent@host,{erpc,execute_call,1},[monitor]}"
        );
        assert_eq!(decode(&mut frame, Limits::default()), Ok(Term::List(vec![Term::Integer(1)])));
        assert!(frame.is_empty());
    }

    #[test]
    fn what_is_told_is_read_as_far_as_it_concerns_us() {
        let number = Term::Integer;
        let (id, us, them) = (Term::Reference(reference(5)), Term::Pid(pid(1)), Term::Pid(pid(9)));
        let spawned = message(vec![number(31), id.clone(), us.clone(), number(0), them.clone()], None);
        assert_eq!(read(spawned), Ok(Told::Spawned { id: reference(5), result: Ok(pid(9)) }));
        let refused =
            message(vec![number(31), id.clone(), us.clone(), number(0), Term::atom("badarg")], None);
        assert_eq!(read(refused), Ok(Told::Spawned { id: reference(5), result: Err(Term::atom("badarg")) }));
        let down =
            message(vec![number(28), them.clone(), us.clone(), id.clone()], Some(Term::atom("normal")));
        let Ok(Told::Down { id: of, reason: Reason::Payload(reason) }) = read(down) else { panic!() };
        assert_eq!((of, reason.read(Limits::default())), (reference(5), Ok(Term::atom("normal"))));
        let old = message(vec![number(21), them.clone(), us.clone(), id, Term::atom("kill")], None);
        assert_eq!(read(old), Ok(Told::Down { id: reference(5), reason: Reason::Read(Term::atom("kill")) }));
        let said = message(vec![number(22), them.clone(), us.clone()], Some(number(3)));
        assert!(matches!(read(said), Ok(Told::Message { to, .. }) if to == pid(1)));
        // A link, and something that no release sends yet.
        for kind in [1, 99] {
            assert_eq!(read(message(vec![number(kind), them.clone(), us.clone()], None)), Ok(Told::Nothing));
        }
    }

    #[test]
    fn what_is_no_message_is_named() {
        assert_eq!(read(Bytes::from_static(&[131, 68])), Err(MessageError::Header(131)));
        assert_eq!(read(Bytes::new()), Err(MessageError::Malformed("it is empty")));
        assert_eq!(read(Bytes::from_static(&[112, 131, 106])), Err(MessageError::Malformed("no tuple")));
        for kind in [2, 21, 22, 28, 31] {
            let short = message(vec![Term::Integer(kind), Term::atom("x")], None);
            assert!(matches!(read(short), Err(MessageError::Malformed(_))), "{kind}");
        }
    }
}
