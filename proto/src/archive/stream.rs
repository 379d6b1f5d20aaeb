//! From packed bytes to tar blocks: hashes and counts what goes in, inflates, counts what comes out, and ends a bomb.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;
use sha2::{Digest as _, Sha256};

use super::fault::{Fault, LimitFault, StreamFault};
use super::header::BLOCK;
use super::{Limits, ReadError};
use crate::ids::Digest;

const PACKED_BUFFER: usize = 64 << 10;
const TAR_BUFFER: usize = 128 << 10;
/// Archivers fill their last record with zeros: 10 KiB by default, up to this with large blocking factors.
const MAX_PADDING: u64 = 1 << 20;

/// The packed bytes, hashed as they are consumed.
struct Packed<R> {
    inner: BufReader<R>,
    hash: Sha256,
    bytes: u64,
    limit: u64,
    /// What stopped the reading on this side of the decoder, which would only say that its input ended.
    stopped: Option<Stop>,
}

enum Stop {
    Io(io::Error),
    TooLarge,
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(into)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: Read> BufRead for Packed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.bytes > self.limit {
            self.stopped = Some(Stop::TooLarge);
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        loop {
            match self.inner.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    self.stopped = Some(Stop::Io(error));
                    return Err(kind.into());
                }
            }
        }
        Ok(self.inner.buffer())
    }

    fn consume(&mut self, n: usize) {
        self.hash.update(&self.inner.buffer()[..n]);
        self.bytes += n as u64;
        self.inner.consume(n);
    }
}

/// The tar inside, block by block.
pub(super) struct Blocks<R> {
    decoder: GzDecoder<Packed<R>>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes that came out of the decoder.
    unpacked: u64,
    limits: Limits,
}

impl<R: Read> Blocks<R> {
    pub(super) fn open<E>(input: R, limits: &Limits) -> Result<Self, ReadError<E>> {
        let inner = BufReader::with_capacity(PACKED_BUFFER, input);
        let mut packed =
            Packed { inner, hash: Sha256::new(), bytes: 0, limit: limits.archive_bytes, stopped: None };
        match packed.fill_buf() {
            Ok([]) => return Err(Fault::from(StreamFault::Empty).into()),
            Ok([0x1f, ..]) => {}
            Ok(_) => return Err(Fault::from(StreamFault::NotGzip).into()),
            Err(error) => return Err(ReadError::Read(error)),
        }
        Ok(Self {
            decoder: GzDecoder::new(packed),
            buffer: vec![0; TAR_BUFFER],
            start: 0,
            end: 0,
            unpacked: 0,
            limits: *limits,
        })
    }

    /// The next whole block; `None` where the data ends before its first byte.
    pub(super) fn block<E>(&mut self) -> Result<Option<&[u8; BLOCK]>, ReadError<E>> {
        while self.end - self.start < BLOCK {
            if self.fill()? == 0 {
                return if self.end == self.start { Ok(None) } else { Err(truncated()) };
            }
        }
        let block = self.buffer[self.start..].first_chunk::<BLOCK>();
        self.start += BLOCK;
        Ok(block)
    }

    /// Some of the next `wanted` bytes (at least one, where any are wanted).
    pub(super) fn data<E>(&mut self, wanted: u64) -> Result<&[u8], ReadError<E>> {
        if self.start == self.end && wanted > 0 && self.fill()? == 0 {
            return Err(truncated());
        }
        let there = self.end - self.start;
        let n = usize::try_from(wanted).map_or(there, |wanted| wanted.min(there));
        let from = self.start;
        self.start += n;
        Ok(&self.buffer[from..from + n])
    }

    pub(super) fn skip<E>(&mut self, mut bytes: u64) -> Result<(), ReadError<E>> {
        while bytes > 0 {
            bytes -= self.data(bytes)?.len() as u64;
        }
        Ok(())
    }

    /// After the end mark: zeros alone, then the end of the packed data, then nothing. Gives the digest and the size.
    pub(super) fn finish<E>(mut self) -> Result<(Digest, u64), ReadError<E>> {
        let mut padding = 0;
        loop {
            let rest = &self.buffer[self.start..self.end];
            padding += rest.len() as u64;
            if rest.iter().any(|&byte| byte != 0) || padding > MAX_PADDING {
                return Err(Fault::from(StreamFault::TrailingData).into());
            }
            self.start = self.end;
            if self.fill()? == 0 {
                break;
            }
        }
        match self.decoder.get_mut().fill_buf() {
            Ok([]) => {}
            Ok(_) => return Err(Fault::from(StreamFault::TrailingCompressed).into()),
            Err(error) => return Err(self.explain(error)),
        }
        let packed = self.decoder.into_inner();
        Ok((Digest(packed.hash.finalize().into()), packed.bytes))
    }

    fn fill<E>(&mut self) -> Result<usize, ReadError<E>> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let n = match self.decoder.read(&mut self.buffer[self.end..]) {
            Ok(n) => n,
            Err(error) => return Err(self.explain(error)),
        };
        self.end += n;
        self.unpacked += n as u64;
        let packed = self.decoder.get_ref().bytes;
        if self.unpacked > Limits::RATIO_FROM && self.unpacked / self.limits.ratio > packed {
            return Err(Fault::from(LimitFault::Ratio(self.limits.ratio)).into());
        }
        Ok(n)
    }

    fn explain<E>(&mut self, error: io::Error) -> ReadError<E> {
        match self.decoder.get_mut().stopped.take() {
            Some(Stop::Io(error)) => ReadError::Read(error),
            Some(Stop::TooLarge) => Fault::from(LimitFault::ArchiveBytes(self.limits.archive_bytes)).into(),
            None if error.kind() == io::ErrorKind::UnexpectedEof => truncated(),
            None if self.unpacked == 0 && self.decoder.header().is_none() => {
                Fault::from(StreamFault::NotGzip).into()
            }
            None => Fault::from(StreamFault::Damaged).into(),
        }
    }
}

fn truncated<E>() -> ReadError<E> {
    Fault::from(StreamFault::Truncated).into()
}
