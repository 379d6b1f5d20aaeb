//! One pass over an archive: blocks to headers, headers through the rules, data to whoever asked.

use std::io::{self, Read};

use super::fault::{Fault, HeaderFault, Quoted, StreamFault};
use super::header::{BLOCK, Header, Kind};
use super::pax::{self, Extension};
use super::rules::{Entry, Rules, Said};
use super::stream::Blocks;
use super::{Expected, Limits, shape};
use crate::ids::Digest;

/// More than any path and its attributes take; it bounds what one header may make us hold.
const MAX_EXTENSION: u64 = 64 << 10;

/// Takes what an archive holds, in its order. Every entry's parent folder came before it, or is implied by its path.
pub trait Sink {
    type Error;

    /// After a [`Entry::File`] come its bytes by [`Sink::data`], then [`Sink::end`].
    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), Self::Error>;
    fn data(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
    fn end(&mut self) -> Result<(), Self::Error>;
}

/// What a good archive was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub sha256: Digest,
    /// Of the archive itself.
    pub size: u64,
    /// Of the files in it together.
    pub unpacked: u64,
    pub files: u64,
}

/// Why reading ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    /// The archive itself: reading it again will not help.
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// Whoever took the entries could not go on.
    #[error("the archive's content cannot be written")]
    Sink(E),
}

/// Hands what it holds to `sink`. A fault may come after entries were handed over: whoever keeps them must be able to
/// throw them away.
pub fn read<R: Read, S: Sink>(
    input: R,
    limits: &Limits,
    expected: &Expected<'_>,
    sink: &mut S,
) -> Result<Summary, ReadError<S::Error>> {
    let mut blocks = Blocks::open(input, limits)?;
    let mut rules = Rules::new(limits);
    let mut pending = Pending::default();
    let mut at = Place::default();
    let (mut path, mut target) = (String::new(), String::new());
    loop {
        let Some(block) = blocks.block()? else {
            return Err(Fault::from(StreamFault::Truncated).into());
        };
        if block == &[0; BLOCK] {
            break;
        }
        at.nth += 1;
        let header = Header::parse(block).map_err(|why| at.fault(why))?;
        if header.kind.is_extension() {
            let body = extension(&mut blocks, header.size, &at)?;
            pending.take(header.kind, &body).map_err(|why| at.fault(why))?;
            continue;
        }
        let said = pending.apply(header).map_err(|why| at.fault(why))?;
        at.near.clone_from(&said.path);
        let Some(entry) = rules.admit(&said, &mut path, &mut target)? else { continue };
        sink.entry(&entry).map_err(ReadError::Sink)?;
        if let Entry::File { size, .. } = entry {
            let mut left = size;
            while left > 0 {
                let data = blocks.data(left)?;
                left -= data.len() as u64;
                sink.data(data).map_err(ReadError::Sink)?;
            }
            sink.end().map_err(ReadError::Sink)?;
            blocks.skip(padding(size))?;
        }
    }
    if !pending.is_empty() {
        return Err(at.fault(HeaderFault::DanglingExtension).into());
    }
    let (sha256, size) = blocks.finish()?;
    if rules.seen().is_empty() {
        return Err(Fault::from(StreamFault::NoEntries).into());
    }
    shape::check(expected, rules.seen()).map_err(Fault::from)?;
    Ok(Summary { sha256, size, unpacked: rules.unpacked(), files: rules.files() })
}

impl Kind {
    fn is_extension(self) -> bool {
        matches!(self, Self::Extended | Self::GlobalExtended | Self::LongName | Self::LongLink)
    }
}

/// Where in the archive we are, for messages.
#[derive(Default)]
struct Place {
    nth: u64,
    near: Vec<u8>,
}

impl Place {
    fn fault(&self, why: HeaderFault) -> Fault {
        Fault::Header { nth: self.nth, near: Quoted::bytes(&self.near), why }
    }
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

fn extension<R: Read, E>(blocks: &mut Blocks<R>, size: u64, at: &Place) -> Result<Vec<u8>, ReadError<E>> {
    if size > MAX_EXTENSION {
        return Err(at.fault(HeaderFault::HugeExtension(size)).into());
    }
    let mut body = Vec::new();
    let mut left = size;
    while left > 0 {
        let data = blocks.data(left)?;
        left -= data.len() as u64;
        body.extend_from_slice(data);
    }
    blocks.skip(padding(size))?;
    Ok(body)
}

/// What extended headers said of the entry to come. Nothing may be said twice: two readers could take different words.
#[derive(Default)]
struct Pending {
    pax: Option<Extension>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.name.is_none() && self.link.is_none()
    }

    fn take(&mut self, kind: Kind, body: &[u8]) -> Result<(), HeaderFault> {
        let long = |body: &[u8]| body.strip_suffix(b"\0").unwrap_or(body).to_vec();
        let twice = match kind {
            Kind::Extended => self.pax.replace(pax::parse(body)?).is_some(),
            Kind::LongName => self.name.replace(long(body)).is_some(),
            Kind::LongLink => self.link.replace(long(body)).is_some(),
            _ => {
                pax::check_global(body)?;
                false
            }
        };
        if twice { Err(HeaderFault::NamedTwice) } else { Ok(()) }
    }

    fn apply(&mut self, header: Header) -> Result<Said, HeaderFault> {
        let pax = self.pax.take().unwrap_or_default();
        let one = |pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>, plain: Vec<u8>| match (pax, gnu) {
            (Some(_), Some(_)) => Err(HeaderFault::NamedTwice),
            (Some(long), None) | (None, Some(long)) => Ok(long),
            (None, None) => Ok(plain),
        };
        Ok(Said {
            kind: header.kind,
            path: one(pax.path, self.name.take(), header.name)?,
            link: one(pax.link, self.link.take(), header.link)?,
            mode: header.mode,
            size: header.size,
            extended_size: pax.size,
            sparse: pax.sparse,
        })
    }
}
