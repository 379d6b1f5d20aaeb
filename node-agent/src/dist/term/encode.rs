//! Writing a term. Versioned by the 131 that every whole term begins with.

use bytes::{BufMut, BytesMut};

use super::{Atom, BigInteger, Term};

/// It has more of something than the format can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a term of {0} is too large to be sent")]
pub struct EncodeError(&'static str);

impl EncodeError {
    /// `what`: "a list".
    pub fn of(what: &'static str) -> Self {
        Self(what)
    }
}

/// Appends the term with its version.
///
/// # Errors
/// Where a length does not fit into 32 bits; `into` then ends in the middle of the term.
pub fn encode(term: &Term, into: &mut BytesMut) -> Result<(), EncodeError> {
    into.put_u8(131);
    put(term, into)
}

fn put(term: &Term, into: &mut BytesMut) -> Result<(), EncodeError> {
    match term {
        Term::Integer(number) => put_integer(*number, into),
        Term::Big(BigInteger { negative, magnitude }) => {
            match u8::try_from(magnitude.len()) {
                Ok(length) => into.put_slice(&[110, length]),
                Err(_) => put_length(111, magnitude.len(), "a number", into)?,
            }
            into.put_u8(u8::from(*negative));
            into.put_slice(magnitude);
        }
        Term::Float(number) => {
            into.put_u8(70);
            into.put_f64(*number);
        }
        Term::Atom(atom) => put_atom(atom, into),
        Term::Binary(bytes) => {
            put_length(109, bytes.len(), "a binary", into)?;
            into.put_slice(bytes);
        }
        Term::BitString { bytes, last_bits } => {
            put_length(77, bytes.len(), "a bit string", into)?;
            into.put_u8(*last_bits);
            into.put_slice(bytes);
        }
        Term::Tuple(elements) => {
            match u8::try_from(elements.len()) {
                Ok(length) => into.put_slice(&[104, length]),
                Err(_) => put_length(105, elements.len(), "a tuple", into)?,
            }
            elements.iter().try_for_each(|element| put(element, into))?;
        }
        Term::List(elements) if elements.is_empty() => into.put_u8(106),
        Term::List(elements) => {
            put_length(108, elements.len(), "a list", into)?;
            elements.iter().try_for_each(|element| put(element, into))?;
            into.put_u8(106);
        }
        Term::ImproperList(elements, tail) => {
            put_length(108, elements.len(), "a list", into)?;
            elements.iter().try_for_each(|element| put(element, into))?;
            put(tail, into)?;
        }
        Term::Map(pairs) => {
            put_length(116, pairs.len(), "a map", into)?;
            for (key, value) in pairs {
                put(key, into)?;
                put(value, into)?;
            }
        }
        Term::Pid(pid) => {
            into.put_u8(88);
            put_atom(&pid.node, into);
            into.put_u32(pid.id);
            into.put_u32(pid.serial);
            into.put_u32(pid.creation);
        }
        Term::Port(port) => {
            into.put_u8(120);
            put_atom(&port.node, into);
            into.put_u64(port.id);
            into.put_u32(port.creation);
        }
        Term::Reference(reference) => {
            into.put_u8(90);
            into.put_u16(u16::try_from(reference.words.len()).map_err(|_| EncodeError("a reference"))?);
            put_atom(&reference.node, into);
            into.put_u32(reference.creation);
            reference.words.iter().for_each(|word| into.put_u32(*word));
        }
        Term::Fun(raw) => into.put_slice(raw),
        Term::Export { module, function, arity } => {
            into.put_u8(113);
            put_atom(module, into);
            put_atom(function, into);
            into.put_slice(&[97, *arity]);
        }
    }
    Ok(())
}

fn put_integer(number: i64, into: &mut BytesMut) {
    if let Ok(small) = u8::try_from(number) {
        into.put_slice(&[97, small]);
    } else if let Ok(number) = i32::try_from(number) {
        into.put_u8(98);
        into.put_i32(number);
    } else {
        let magnitude = number.unsigned_abs().to_le_bytes();
        let digits = 8 - magnitude.iter().rev().take_while(|it| **it == 0).count();
        into.put_slice(&[110, u8::try_from(digits).unwrap_or(8), u8::from(number < 0)]);
        into.put_slice(magnitude.get(..digits).unwrap_or(&magnitude));
    }
}

fn put_atom(atom: &Atom, into: &mut BytesMut) {
    match u8::try_from(atom.0.len()) {
        Ok(length) => into.put_slice(&[119, length]),
        Err(_) => {
            into.put_u8(118);
            // Four times 255 at most.
            into.put_u16(u16::try_from(atom.0.len()).unwrap_or(u16::MAX));
        }
    }
    into.put_slice(&atom.0);
}

fn put_length(tag: u8, length: usize, what: &'static str, into: &mut BytesMut) -> Result<(), EncodeError> {
    into.put_u8(tag);
    into.put_u32(u32::try_from(length).map_err(|_| EncodeError(what))?);
    Ok(())
}
