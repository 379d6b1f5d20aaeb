//! Reading a term from a peer whom nobody trusts: of no depth, number or length beyond what the reader is ready to hold, and
//! nothing is set aside for what has not come.

use bytes::{Buf, Bytes};

use super::{Atom, BigInteger, Pid, Port, Reference, Term};

/// No term within more others is read, whatever a reader allows: each level takes some of a thread's stack, here and where
/// the term is shown or dropped.
const DEEPEST: u16 = 200;

/// What a reader is ready to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Terms within terms; never more than 200.
    pub depth: u16,
    /// All terms together, keys and elements included.
    pub terms: u32,
}

impl Default for Limits {
    /// A hundred levels, as deep as data is in practice and far from the end of a stack; a million terms, some 70 MB.
    fn default() -> Self {
        Self { depth: 100, terms: 1_000_000 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the term ends before it is complete")]
    Short,
    #[error("the term has version {0}, not 131")]
    Version(u8),
    #[error("{0} is no tag of a term that a peer may send")]
    Tag(u8),
    #[error("a term is nested in more than {0} others")]
    TooDeep(u16),
    #[error("there are more than {0} terms in it")]
    TooMany(u32),
    #[error("{0} is not formed as it should be")]
    Malformed(&'static str),
}

/// Takes one term with its version from the front of `from`; what follows it stays there.
///
/// # Errors
/// Where it is not a term, is more than `limits`, or ends early; what is left in `from` then means nothing.
pub fn decode(from: &mut Bytes, limits: Limits) -> Result<Term, DecodeError> {
    match u8_of(from)? {
        131 => Reader::new(limits).term(from, 0),
        version => Err(DecodeError::Version(version)),
    }
}

/// The first `count` elements of a tuple; what follows them is not read, and may be missing.
///
/// # Errors
/// Where it is no tuple of as many, or these are more than `limits`.
pub fn decode_front(from: &mut Bytes, count: usize, limits: Limits) -> Result<Vec<Term>, DecodeError> {
    match u8_of(from)? {
        131 => {}
        version => return Err(DecodeError::Version(version)),
    }
    let arity = match u8_of(from)? {
        104 => usize::from(u8_of(from)?),
        105 => length(from)?,
        tag => return Err(DecodeError::Tag(tag)),
    };
    if arity < count {
        return Err(DecodeError::Malformed("a tuple"));
    }
    Reader::new(limits).terms(from, count, 0)
}

struct Reader {
    left: u32,
    limits: Limits,
}

impl Reader {
    fn new(limits: Limits) -> Self {
        Self { left: limits.terms, limits: Limits { depth: limits.depth.min(DEEPEST), ..limits } }
    }

    fn term(&mut self, from: &mut Bytes, depth: u16) -> Result<Term, DecodeError> {
        if depth > self.limits.depth {
            return Err(DecodeError::TooDeep(self.limits.depth));
        }
        if from.first() == Some(&112) {
            return self.fun(from, depth);
        }
        let tag = u8_of(from)?;
        Ok(match tag {
            97 => Term::Integer(u8_of(from)?.into()),
            98 => Term::Integer(from.try_get_i32().map_err(short)?.into()),
            110 => {
                let length = u8_of(from)?;
                integer(from, length.into())?
            }
            111 => {
                let length = length(from)?;
                integer(from, length)?
            }
            70 => float(from.try_get_f64().map_err(short)?)?,
            99 => old_float(&take(from, 31)?)?,
            100 | 115 | 118 | 119 => Term::Atom(atom_of(tag, from)?),
            104 => {
                let length = u8_of(from)?;
                Term::Tuple(self.terms(from, length.into(), depth)?)
            }
            105 => {
                let length = length(from)?;
                Term::Tuple(self.terms(from, length, depth)?)
            }
            106 => Term::List(Vec::new()),
            107 => {
                let length = from.try_get_u16().map_err(short)?;
                self.count(length.into())?;
                let bytes = take(from, length.into())?;
                Term::List(bytes.iter().map(|byte| Term::Integer((*byte).into())).collect())
            }
            108 => self.list(from, depth)?,
            116 => self.map(from, depth)?,
            109 => {
                let length = length(from)?;
                Term::Binary(take(from, length)?)
            }
            77 => bit_string(from)?,
            88 | 103 => Term::Pid(pid(tag, from)?),
            89 | 102 | 120 => Term::Port(port(tag, from)?),
            90 | 114 => Term::Reference(reference(tag, from)?),
            113 => {
                let (module, function) = (atom(from)?, atom(from)?);
                match (u8_of(from)?, u8_of(from)?) {
                    (97, arity) => Term::Export { module, function, arity },
                    _ => return Err(DecodeError::Malformed("the arity of a function")),
                }
            }
            tag => return Err(DecodeError::Tag(tag)),
        })
    }

    fn count(&mut self, terms: u32) -> Result<(), DecodeError> {
        self.left = self.left.checked_sub(terms).ok_or(DecodeError::TooMany(self.limits.terms))?;
        Ok(())
    }

    /// No room is made for more than can be there, because each takes a byte at least; nor, in all of a term together, for more
    /// than are allowed, because they are counted before room is made for them.
    fn terms(&mut self, from: &mut Bytes, length: usize, depth: u16) -> Result<Vec<Term>, DecodeError> {
        if length > from.len() {
            return Err(DecodeError::Short);
        }
        self.count(u32::try_from(length).unwrap_or(u32::MAX))?;
        let mut terms = Vec::with_capacity(length);
        for _ in 0..length {
            terms.push(self.term(from, depth + 1)?);
        }
        Ok(terms)
    }

    fn list(&mut self, from: &mut Bytes, depth: u16) -> Result<Term, DecodeError> {
        let length = length(from)?;
        let mut elements = self.terms(from, length, depth)?;
        self.count(1)?;
        Ok(match self.term(from, depth + 1)? {
            // Erlang writes a list of small numbers as a string even where it is the rest of a list.
            Term::List(rest) => {
                elements.extend(rest);
                Term::List(elements)
            }
            tail if elements.is_empty() => tail,
            tail => Term::ImproperList(elements, Box::new(tail)),
        })
    }

    fn map(&mut self, from: &mut Bytes, depth: u16) -> Result<Term, DecodeError> {
        let length = length(from)?;
        let terms = self.terms(from, length.checked_mul(2).ok_or(DecodeError::Short)?, depth)?;
        let mut terms = terms.into_iter();
        Ok(Term::Map(std::iter::from_fn(|| Some((terms.next()?, terms.next()?))).collect()))
    }

    /// Kept as it is, and walked through once so that what is passed back is a term.
    fn fun(&mut self, from: &mut Bytes, depth: u16) -> Result<Term, DecodeError> {
        const MALFORMED: DecodeError = DecodeError::Malformed("a fun");
        let mut head = from.clone();
        head.advance(1);
        // The size counts itself, not the tag.
        let raw = take(from, length(&mut head)?.checked_add(1).ok_or(MALFORMED)?)?;
        let mut inside = raw.clone();
        // Tag, size, arity, uniq and index.
        take(&mut inside, 1 + 4 + 1 + 16 + 4)?;
        let free = length(&mut inside)?;
        // Module, old index, old uniq and the process that made it; then its variables.
        self.count(4)?;
        for _ in 0..4 {
            self.term(&mut inside, depth + 1)?;
        }
        self.terms(&mut inside, free, depth)?;
        if inside.is_empty() { Ok(Term::Fun(raw)) } else { Err(MALFORMED) }
    }
}

fn short(_: bytes::TryGetError) -> DecodeError {
    DecodeError::Short
}

fn u8_of(from: &mut Bytes) -> Result<u8, DecodeError> {
    from.try_get_u8().map_err(short)
}

fn u32_of(from: &mut Bytes) -> Result<u32, DecodeError> {
    from.try_get_u32().map_err(short)
}

fn length(from: &mut Bytes) -> Result<usize, DecodeError> {
    usize::try_from(u32_of(from)?).map_err(|_| DecodeError::Short)
}

fn take(from: &mut Bytes, length: usize) -> Result<Bytes, DecodeError> {
    if length > from.len() { Err(DecodeError::Short) } else { Ok(from.split_to(length)) }
}

fn atom(from: &mut Bytes) -> Result<Atom, DecodeError> {
    let tag = u8_of(from)?;
    atom_of(tag, from)
}

fn atom_of(tag: u8, from: &mut Bytes) -> Result<Atom, DecodeError> {
    let (length, latin1) = match tag {
        115 | 119 => (usize::from(u8_of(from)?), tag == 115),
        100 | 118 => (usize::from(from.try_get_u16().map_err(short)?), tag == 100),
        _ => return Err(DecodeError::Malformed("a name")),
    };
    let text = take(from, length)?;
    let text = match latin1 && !text.is_ascii() {
        true => Bytes::from(text.iter().map(|byte| char::from(*byte)).collect::<String>()),
        false => text,
    };
    Atom::from_checked(text).ok_or(DecodeError::Malformed("an atom"))
}

fn integer(from: &mut Bytes, length: usize) -> Result<Term, DecodeError> {
    let negative = match u8_of(from)? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::Malformed("a number")),
    };
    let magnitude = take(from, length)?;
    let big = BigInteger { negative, magnitude };
    let unsigned = BigInteger { negative: false, ..big.clone() }.to_u64();
    let small = unsigned.and_then(|it| {
        let it = i128::from(it);
        i64::try_from(if negative { -it } else { it }).ok()
    });
    Ok(small.map_or(Term::Big(big), Term::Integer))
}

/// Erlang knows no other.
fn float(number: f64) -> Result<Term, DecodeError> {
    if number.is_finite() { Ok(Term::Float(number)) } else { Err(DecodeError::Malformed("a float")) }
}

/// As text, up to the first 0.
fn old_float(text: &Bytes) -> Result<Term, DecodeError> {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let number =
        text.get(..end).and_then(|it| std::str::from_utf8(it).ok()).and_then(|it| it.trim().parse().ok());
    float(number.ok_or(DecodeError::Malformed("a float"))?)
}

fn bit_string(from: &mut Bytes) -> Result<Term, DecodeError> {
    let length = length(from)?;
    let last_bits = u8_of(from)?;
    let bytes = take(from, length)?;
    match last_bits {
        8 => Ok(Term::Binary(bytes)),
        1..=7 if !bytes.is_empty() => Ok(Term::BitString { bytes, last_bits }),
        _ => Err(DecodeError::Malformed("a bit string")),
    }
}

fn pid(tag: u8, from: &mut Bytes) -> Result<Pid, DecodeError> {
    let (node, id, serial) = (atom(from)?, u32_of(from)?, u32_of(from)?);
    let creation = if tag == 103 { u8_of(from)?.into() } else { u32_of(from)? };
    Ok(Pid { node, id, serial, creation })
}

fn port(tag: u8, from: &mut Bytes) -> Result<Port, DecodeError> {
    let node = atom(from)?;
    let id = if tag == 120 { from.try_get_u64().map_err(short)? } else { u32_of(from)?.into() };
    let creation = if tag == 102 { u8_of(from)?.into() } else { u32_of(from)? };
    Ok(Port { node, id, creation })
}

fn reference(tag: u8, from: &mut Bytes) -> Result<Reference, DecodeError> {
    let length = from.try_get_u16().map_err(short)?;
    // Three in every release; five where it is a process alias.
    if !(1..=5).contains(&length) {
        return Err(DecodeError::Malformed("a reference"));
    }
    let node = atom(from)?;
    let creation = if tag == 114 { u8_of(from)?.into() } else { u32_of(from)? };
    let words = (0..length).map(|_| u32_of(from)).collect::<Result<_, _>>()?;
    Ok(Reference { node, creation, words })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::super::{Atom, encode};
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Term, DecodeError> {
        decode(&mut Bytes::copy_from_slice(bytes), Limits::default())
    }

    /// `term_to_binary/1` of OTP 25, in base 16 groups as `erl` printed them.
    #[test]
    fn what_erlang_writes_is_read() {
        let read = |bytes: &[u8]| decoded(bytes).map_or_else(|it| it.to_string(), |it| it.to_string());
        // -1; 256; 1 bsl 64; -(1 bsl 40); 1.5
        assert_eq!(read(&[131, 98, 255, 255, 255, 255]), "-1");
        assert_eq!(read(&[131, 98, 0, 0, 1, 0]), "256");
        assert_eq!(read(&[131, 110, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "#Big<9 bytes>");
        assert_eq!(read(&[131, 110, 6, 1, 0, 0, 0, 0, 0, 1]), "-1099511627776");
        assert_eq!(read(&[131, 70, 63, 248, 0, 0, 0, 0, 0, 0]), "1.5");
        // [1,2|[]] as a string; [a|b]; <<1:1>>; #{a => 1}
        assert_eq!(read(&[131, 107, 0, 2, 1, 2]), "[1,2]");
        assert_eq!(read(&[131, 108, 0, 0, 0, 1, 119, 1, 97, 119, 1, 98]), "[a|b]");
        assert_eq!(read(&[131, 77, 0, 0, 0, 1, 1, 128]), "<<1 bits>>");
        assert_eq!(read(&[131, 116, 0, 0, 0, 1, 119, 1, 97, 97, 1]), "#{a => 1}");
        // `lists:map/2` as a value, and an atom beyond ASCII, in both ways that Erlang knows.
        let export = [131, 113, 119, 5, b'l', b'i', b's', b't', b's', 119, 3, b'm', b'a', b'p', 97, 2];
        assert_eq!(read(&export), "fun lists:map/2");
        for bytes in [&[131, 119, 2, 0xc3, 0xa4][..], &[131, 100, 0, 1, 0xe4]] {
            assert_eq!(decoded(bytes).unwrap().as_atom(), Some("ä"));
        }
    }

    #[test]
    fn a_list_that_goes_on_as_a_string_is_one_list() {
        let bytes = [131, 108, 0, 0, 0, 1, 98, 0, 0, 1, 0, 107, 0, 2, 1, 2];
        let numbers = [256, 1, 2].map(Term::Integer).to_vec();
        assert_eq!(decoded(&bytes), Ok(Term::List(numbers)));
    }

    #[test]
    fn a_term_that_is_nested_too_deep_is_refused_before_the_stack_ends() {
        let nested = |levels: usize| {
            let mut bytes = vec![131];
            bytes.extend([104, 1].repeat(levels));
            bytes.push(106);
            decoded(&bytes)
        };
        assert!(nested(100).is_ok());
        assert_eq!(nested(101), Err(DecodeError::TooDeep(100)));
        assert_eq!(nested(1_000_000), Err(DecodeError::TooDeep(100)));
    }

    #[test]
    fn no_reader_can_allow_a_depth_that_is_more_than_a_stack_holds() {
        let limits = Limits { depth: u16::MAX, ..Limits::default() };
        let nested = |levels: usize| {
            let bytes =
                [&[131][..], &[108, 0, 0, 0, 1].repeat(levels), &[106], &[106].repeat(levels)].concat();
            decode(&mut bytes.into(), limits)
        };
        // Shown and dropped as well.
        assert_eq!(nested(200).unwrap().to_string().len(), 402);
        for levels in [201, 60_000] {
            assert_eq!(nested(levels), Err(DecodeError::TooDeep(200)));
        }
    }

    #[test]
    fn no_room_is_made_for_what_is_only_announced() {
        // Each level claims a million elements, for which there are bytes enough.
        let mut bytes = vec![131];
        for _ in 0..50 {
            bytes.extend([105, 0, 15, 0, 0]);
        }
        bytes.resize(1_100_000, 106);
        assert_eq!(decoded(&bytes), Err(DecodeError::TooMany(1_000_000)));
        // A list of four billion in ten bytes.
        assert_eq!(decoded(&[131, 108, 255, 255, 255, 255, 106, 106]), Err(DecodeError::Short));
        assert_eq!(decoded(&[131, 109, 255, 255, 255, 255, 0]), Err(DecodeError::Short));
    }

    #[test]
    fn the_front_of_a_tuple_is_read_where_the_rest_is_large_or_cut_off() {
        let whole = [131, 104, 3, 97, 1, 97, 2, 109, 255, 255, 255, 255, 0];
        let front = |count| decode_front(&mut Bytes::copy_from_slice(&whole), count, Limits::default());
        assert_eq!(front(2), Ok(vec![Term::Integer(1), Term::Integer(2)]));
        assert_eq!(front(3), Err(DecodeError::Short));
        assert_eq!(front(4), Err(DecodeError::Malformed("a tuple")));
        let mut list = Bytes::from_static(&[131, 106]);
        assert_eq!(decode_front(&mut list, 1, Limits::default()), Err(DecodeError::Tag(106)));
    }

    #[test]
    fn what_is_no_term_is_named() {
        assert_eq!(decoded(&[]), Err(DecodeError::Short));
        assert_eq!(decoded(&[130, 106]), Err(DecodeError::Version(130)));
        // Compressed terms are not for peers: nobody knows how large they become. Nor is a cached atom without a cache.
        for tag in [80, 82, 0, 255] {
            assert_eq!(decoded(&[131, tag, 0, 0, 0, 0]), Err(DecodeError::Tag(tag)));
        }
        let malformed: [(&[u8], &str); 6] = [
            (&[131, 110, 1, 2, 1], "a number"),
            (&[131, 70, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0], "a float"),
            (&[131, 77, 0, 0, 0, 1, 9, 1], "a bit string"),
            (&[131, 119, 1, 0xff], "an atom"),
            (&[131, 90, 0, 6, 119, 1, 97, 0, 0, 0, 1], "a reference"),
            (&[131, 88, 97, 1, 0, 0, 0, 1], "a name"),
        ];
        for (bytes, what) in malformed {
            assert_eq!(decoded(bytes), Err(DecodeError::Malformed(what)), "{bytes:?}");
        }
    }

    fn any_term() -> impl Strategy<Value = Term> {
        let atom = || "[a-zA-Zäß_@ 0-9]{0,40}".prop_map(|it| Atom::new(&it).unwrap());
        let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let creation = any::<u32>;
        let leaf = prop_oneof![
            any::<i64>().prop_map(Term::Integer),
            (any::<bool>(), prop::collection::vec(any::<u8>(), 9..300)).prop_map(
                |(negative, mut magnitude)| {
                    magnitude.push(1);
                    Term::Big(BigInteger { negative, magnitude: magnitude.into() })
                }
            ),
            any::<f64>().prop_filter("finite", |it| it.is_finite()).prop_map(Term::Float),
            atom().prop_map(Term::Atom),
            bytes().prop_map(Term::Binary),
            (prop::collection::vec(any::<u8>(), 1..9), 1u8..8)
                .prop_map(|(bytes, last_bits)| Term::BitString { bytes: bytes.into(), last_bits }),
            (atom(), any::<u32>(), any::<u32>(), creation())
                .prop_map(|(node, id, serial, creation)| Term::Pid(Pid { node, id, serial, creation })),
            (atom(), any::<u64>(), creation()).prop_map(|(node, id, creation)| Term::Port(Port {
                node,
                id,
                creation
            })),
            (atom(), creation(), prop::collection::vec(any::<u32>(), 1..6))
                .prop_map(|(node, creation, words)| Term::Reference(Reference { node, creation, words })),
            (atom(), atom(), any::<u8>()).prop_map(|(module, function, arity)| Term::Export {
                module,
                function,
                arity
            }),
        ];
        leaf.prop_recursive(5, 60, 8, |inner| {
            let terms = || prop::collection::vec(inner.clone(), 0..8);
            prop_oneof![
                terms().prop_map(Term::Tuple),
                terms().prop_map(Term::List),
                prop::collection::vec(inner.clone(), 1..4)
                    .prop_map(|it| { Term::ImproperList(it, Box::new(Term::atom("tail"))) }),
                prop::collection::vec((inner.clone(), inner.clone()), 0..5).prop_map(Term::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(term in any_term()) {
            let mut bytes = BytesMut::new();
            encode(&term, &mut bytes).unwrap();
            bytes.extend_from_slice(b"rest");
            let mut bytes = bytes.freeze();
            prop_assert_eq!(decode(&mut bytes, Limits::default()).unwrap(), term);
            prop_assert_eq!(&*bytes, b"rest");
        }

        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut versioned = vec![131];
            versioned.extend(&bytes);
            let _ = decoded(&bytes);
            let _ = decoded(&versioned);
        }

        #[test]
        fn a_term_of_which_something_was_changed_is_read_or_refused(
            term in any_term(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = BytesMut::new();
            encode(&term, &mut bytes).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decoded(&bytes);
            let _ = decoded(&bytes[..at]);
        }
    }
}
