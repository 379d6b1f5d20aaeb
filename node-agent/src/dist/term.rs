//! Terms of Erlang as they cross the wire: what a node tells us and what we tell it.
//!
//! Nothing here knows what a term means. Texts and binaries are slices of the frame that they came in; keep a copy of what is
//! to outlive it. See the External Term Format in the ERTS User's Guide.

mod decode;
mod encode;

use std::fmt::{self, Write as _};

use bytes::Bytes;

pub use self::decode::{DecodeError, Limits, decode, decode_front};
pub use self::encode::{EncodeError, encode};

/// The longest atom, in bytes: 255 characters of at most four.
const MAX_ATOM_BYTES: usize = 255 * 4;

/// What is shown of a term where it is mentioned, in characters.
const BRIEF: usize = 500;

/// A term.
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    Integer(i64),
    /// One that does not fit into 64 bits.
    Big(BigInteger),
    Float(f64),
    Atom(Atom),
    Binary(Bytes),
    /// The last byte counts for its first `last_bits` bits only: 1 to 7.
    BitString {
        bytes: Bytes,
        last_bits: u8,
    },
    Tuple(Vec<Term>),
    /// Strings too: a list of characters.
    List(Vec<Term>),
    /// Its last tail is no list. Never empty.
    ImproperList(Vec<Term>, Box<Term>),
    /// In the order of the wire.
    Map(Vec<(Term, Term)>),
    Pid(Pid),
    Port(Port),
    Reference(Reference),
    /// As it came, tag included: passed back unread.
    Fun(Bytes),
    /// `fun Module:Function/Arity`.
    Export {
        module: Atom,
        function: Atom,
        arity: u8,
    },
}

/// A name of up to 255 characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Atom(Bytes);

/// `text` is longer than 255 characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an atom has 255 characters at most, and {0:?}… has more")]
pub struct AtomTooLong(String);

impl Atom {
    /// One of this program's own; no longer than 255 bytes.
    pub const fn of(text: &'static str) -> Self {
        assert!(text.len() <= 255, "an atom has 255 characters at most");
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Of any text.
    pub fn new(text: &str) -> Result<Self, AtomTooLong> {
        if text.chars().nth(255).is_some() {
            return Err(AtomTooLong(text.chars().take(20).collect()));
        }
        Ok(Self(Bytes::copy_from_slice(text.as_bytes())))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        // Checked by whoever made it.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn from_checked(text: Bytes) -> Option<Self> {
        let fits = |it: &str| it.len() <= 255 || it.chars().nth(255).is_none();
        let checked = text.len() <= MAX_ATOM_BYTES && std::str::from_utf8(&text).is_ok_and(fits);
        checked.then_some(Self(text))
    }
}

impl PartialEq<str> for Atom {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other.as_bytes()
    }
}

impl fmt::Debug for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As Erlang writes it: in quotes where it must be.
impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.as_str();
        let plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '@');
        if text.starts_with(|it: char| it.is_ascii_lowercase()) && text.chars().all(plain) {
            return f.write_str(text);
        }
        write!(f, "'{}'", text.escape_debug().to_string().replace('\'', "\\'"))
    }
}

/// An integer of any size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BigInteger {
    pub negative: bool,
    /// The least significant byte first.
    pub magnitude: Bytes,
}

impl BigInteger {
    /// Where 64 bits without a sign hold it.
    pub fn to_u64(&self) -> Option<u64> {
        let digits = self.magnitude.len() - self.magnitude.iter().rev().take_while(|it| **it == 0).count();
        let mut bytes = [0; 8];
        bytes.get_mut(..digits)?.copy_from_slice(self.magnitude.get(..digits)?);
        (!self.negative).then(|| u64::from_le_bytes(bytes))
    }
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid {
    pub node: Atom,
    pub id: u32,
    pub serial: u32,
    /// Which life of the node it belongs to.
    pub creation: u32,
}

/// As another node sees it: `<id.serial>` with the node's name, because the first number is the viewer's own.
impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}.{}> on {}", self.id, self.serial, self.node.as_str())
    }
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    pub node: Atom,
    pub id: u64,
    pub creation: u32,
}

/// A reference: of up to five words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    pub node: Atom,
    pub creation: u32,
    pub words: Vec<u32>,
}

impl Term {
    /// An atom of this program's own.
    pub const fn atom(text: &'static str) -> Self {
        Self::Atom(Atom::of(text))
    }

    /// Where it is an atom.
    pub fn as_atom(&self) -> Option<&str> {
        match self {
            Self::Atom(atom) => Some(atom.as_str()),
            _ => None,
        }
    }

    /// Where it is a tuple.
    pub fn as_tuple(&self) -> Option<&[Term]> {
        match self {
            Self::Tuple(elements) => Some(elements),
            _ => None,
        }
    }

    /// Where it is a proper list.
    pub fn as_list(&self) -> Option<&[Term]> {
        match self {
            Self::List(elements) => Some(elements),
            _ => None,
        }
    }

    /// Where it is an integer from 0 to 2^64 - 1.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Integer(it) => u64::try_from(*it).ok(),
            Self::Big(it) => it.to_u64(),
            _ => None,
        }
    }

    /// The text of a binary, an atom or a list of characters. Erlang tells none of them from what is no text.
    pub fn as_text(&self) -> Option<String> {
        match self {
            Self::Binary(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Self::Atom(atom) => Some(atom.as_str().to_owned()),
            Self::List(elements) => {
                let character = |it: &Term| char::from_u32(u32::try_from(it.as_u64()?).ok()?);
                elements.iter().map(character).collect()
            }
            _ => None,
        }
    }

    /// As it is written, but no longer than some lines: it may be what users of an application wrote.
    pub fn brief(&self) -> impl fmt::Display {
        Brief(self)
    }

    /// The value of a key that is an atom, in a map or a list of pairs.
    pub fn get(&self, key: &str) -> Option<&Term> {
        let named = |it: &Term| it.as_atom() == Some(key);
        match self {
            Self::Map(pairs) => pairs.iter().find(|(it, _)| named(it)).map(|(_, value)| value),
            Self::List(elements) => elements.iter().find_map(|element| match element.as_tuple()? {
                [it, value] if named(it) => Some(value),
                _ => None,
            }),
            _ => None,
        }
    }
}

/// The empty list.
impl Default for Term {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl From<&str> for Term {
    /// A binary.
    fn from(text: &str) -> Self {
        Self::Binary(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<i64> for Term {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

/// Much as Erlang writes it, for messages and logs.
impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(it) => write!(f, "{it}"),
            Self::Big(it) => match it.to_u64() {
                Some(it) => write!(f, "{it}"),
                None => write!(f, "{}#Big<{} bytes>", if it.negative { "-" } else { "" }, it.magnitude.len()),
            },
            Self::Float(it) => write!(f, "{it:?}"),
            Self::Atom(it) => write!(f, "{it}"),
            Self::Binary(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => write!(f, "<<\"{}\">>", text.escape_debug()),
                Err(_) => write!(f, "<<{} bytes>>", bytes.len()),
            },
            Self::BitString { bytes, last_bits } => {
                write!(f, "<<{} bits>>", bytes.len().saturating_sub(1) * 8 + usize::from(*last_bits))
            }
            Self::Tuple(elements) => list(f, "{", elements, "}"),
            Self::List(elements) => match self.as_text().filter(|text| is_printable(text)) {
                Some(text) => write!(f, "\"{}\"", text.escape_debug()),
                None => list(f, "[", elements, "]"),
            },
            Self::ImproperList(elements, tail) => {
                list(f, "[", elements, "")?;
                write!(f, "|{tail}]")
            }
            Self::Map(pairs) => {
                f.write_str("#{")?;
                for (index, (key, value)) in pairs.iter().enumerate() {
                    write!(f, "{}{key} => {value}", if index == 0 { "" } else { "," })?;
                }
                f.write_str("}")
            }
            Self::Pid(pid) => write!(f, "{pid}"),
            Self::Port(port) => write!(f, "#Port<{}> on {}", port.id, port.node.as_str()),
            Self::Reference(it) => {
                f.write_str("#Ref<")?;
                for (index, word) in it.words.iter().rev().enumerate() {
                    write!(f, "{}{word}", if index == 0 { "" } else { "." })?;
                }
                write!(f, "> on {}", it.node.as_str())
            }
            Self::Fun(_) => f.write_str("#Fun"),
            Self::Export { module, function, arity } => write!(f, "fun {module}:{function}/{arity}"),
        }
    }
}

struct Brief<'t>(&'t Term);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cut = Cut { into: f, left: BRIEF };
        match write!(cut, "{}", self.0) {
            Err(fmt::Error) if cut.left == 0 => f.write_str("…"),
            written => written,
        }
    }
}

/// Fails once as many characters were written.
struct Cut<'f, 'b> {
    into: &'f mut fmt::Formatter<'b>,
    left: usize,
}

impl fmt::Write for Cut<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.char_indices().nth(self.left).map_or(text.len(), |(at, _)| at);
        let (fits, rest) = text.split_at(end);
        self.left = if rest.is_empty() { self.left - fits.chars().count() } else { 0 };
        self.into.write_str(fits)?;
        if rest.is_empty() { Ok(()) } else { Err(fmt::Error) }
    }
}

fn is_printable(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|it| !it.is_control() || matches!(it, '\n' | '\r' | '\t'))
}

fn list(f: &mut fmt::Formatter<'_>, open: &str, elements: &[Term], close: &str) -> fmt::Result {
    f.write_str(open)?;
    for (index, element) in elements.iter().enumerate() {
        write!(f, "{}{element}", if index == 0 { "" } else { "," })?;
    }
    f.write_str(close)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_written_as_erlang_writes_them() {
        let term = Term::Tuple(vec![
            Term::atom("ok"),
            Term::atom("Elixir.Shop"),
            Term::List(vec![Term::Integer(104), Term::Integer(105)]),
            Term::List(vec![Term::Integer(1), Term::Float(2.0)]),
            Term::Map(vec![(Term::from("key"), Term::List(Vec::new()))]),
            Term::ImproperList(vec![Term::Integer(1)], Box::new(Term::atom("tail"))),
        ]);
        assert_eq!(term.to_string(), r#"{ok,'Elixir.Shop',"hi",[1,2.0],#{<<"key">> => []},[1|tail]}"#);
    }

    #[test]
    fn a_term_is_mentioned_briefly() {
        let list = |length| Term::List(vec![Term::atom("ä"); length]);
        assert_eq!(list(3).brief().to_string(), "['ä','ä','ä']");
        let long = list(1_000_000).brief().to_string();
        assert!(long.starts_with("['ä','ä',") && long.ends_with('…'), "{long}");
        assert_eq!(long.chars().count(), BRIEF + 1);
    }

    #[test]
    fn an_atom_has_255_characters_however_many_bytes_those_take() {
        assert!(Atom::new(&"ä".repeat(255)).is_ok());
        let error = Atom::new(&"ä".repeat(256)).unwrap_err();
        assert!(error.to_string().contains("255"), "{error}");
        assert!(Atom::from_checked(Bytes::from("ä".repeat(256))).is_none());
    }

    #[test]
    fn what_is_beyond_64_bits_is_no_number_here() {
        let big = |negative, magnitude: &'static [u8]| {
            Term::Big(BigInteger { negative, magnitude: Bytes::from_static(magnitude) }).as_u64()
        };
        assert_eq!(big(false, &[0xff; 8]), Some(u64::MAX));
        assert_eq!(big(false, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Some(1));
        assert_eq!(big(false, &[0, 0, 0, 0, 0, 0, 0, 0, 1]), None);
        assert_eq!(big(true, &[1]), None);
    }

    #[test]
    fn keys_are_found_in_maps_and_in_lists_of_pairs() {
        let pair = (Term::atom("total"), Term::Integer(7));
        let list = Term::List(vec![Term::atom("x"), Term::Tuple(vec![pair.0.clone(), pair.1.clone()])]);
        for term in [Term::Map(vec![pair]), list] {
            assert_eq!(term.get("total").and_then(Term::as_u64), Some(7));
            assert_eq!(term.get("x"), None);
        }
    }
}
