//! Which agent reads what another wrote.
//!
//! Every file begins with one line: `deployex-ledger FORM SHA256 VERSION`. The form says how it is read; the version, which a
//! file of earlier agents lacks, is for people. Within a form fields are only ever added, each with what it is where it is
//! missing, and who does not know one passes it over: so the version before reads what this one writes, and a downgrade by one
//! works. Where that cannot be held the form rises: first a version reads the new one and writes the old, then the next writes
//! it. Nothing written in a form that is too new is touched: the agent does not begin, and what runs goes on.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::super::Paths;
use super::Runtime;
use crate::program::VERSION;
use crate::replica::Charge;

/// The newest form that this version reads.
pub(crate) const READS: u32 = 1;
/// The form that it writes: the version before reads it.
pub(crate) const WRITES: u32 = 1;

const MAGIC: &str = "deployex-ledger";
/// What else lies beside the ledgers and says its form in its first line: the keepers' records.
const RECORDS: [&str; 2] = ["process", "exit"];
/// No first line is longer.
const LINE: usize = 160;

pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut framed = format!("{MAGIC} {WRITES} {} {VERSION}\n", checksum(payload)).into_bytes();
    framed.extend_from_slice(payload);
    framed
}

pub(super) enum Framed<'a> {
    Whole { payload: &'a [u8], writer: String },
    Torn,
    Newer { form: u32, writer: String },
}

pub(super) fn unframe(bytes: &[u8]) -> Framed<'_> {
    let Some((line, payload)) = first_line(bytes) else { return Framed::Torn };
    let mut words = line.split(' ');
    let (magic, form, sum) = (words.next(), words.next().and_then(|it| it.parse::<u32>().ok()), words.next());
    match (magic, form) {
        (Some(MAGIC), Some(form)) if form > READS => Framed::Newer { form, writer: writer(words.next()) },
        (Some(MAGIC), Some(1..)) if sum == Some(checksum(payload).as_str()) => {
            Framed::Whole { payload, writer: writer(words.next()) }
        }
        _ => Framed::Torn,
    }
}

fn first_line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().take(LINE).position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).unwrap_or_default(), &bytes[end + 1..]))
}

fn writer(version: Option<&str>) -> String {
    version.map_or_else(|| "another deployex-agent".to_owned(), |it| format!("deployex-agent {it}"))
}

fn checksum(payload: &[u8]) -> String {
    proto::ids::Digest(Sha256::digest(payload).into()).to_string()
}

/// The form of what lies there and who wrote it, where that is too new for this agent.
fn too_new(path: &Path) -> Option<(u32, String)> {
    // Opening a pipe would be to wait for its writer; what cannot be read is said by whoever needs it.
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut begins = Vec::new();
    File::open(path).ok()?.take(LINE as u64).read_to_end(&mut begins).ok()?;
    let mut words = first_line(&begins)?.0.split(' ');
    let (magic, form) = (words.next()?, words.next()?.parse::<u32>().ok()?);
    (form > READS && (magic == MAGIC || RECORDS.contains(&magic))).then(|| (form, writer(words.nth(1))))
}

/// Looked at before anything is read: whatever was set aside by then would have to be put back by hand.
pub(in crate::supervisor) fn none_is_too_new(paths: &Paths) -> anyhow::Result<()> {
    let folders = paths.ledgers().context("cannot look for what earlier agents wrote")?;
    for path in folders.iter().flat_map(|folder| files(folder)) {
        let Some((form, writer)) = too_new(&path) else { continue };
        anyhow::bail!(
            "{} was written by {writer} in form {form}, and this is deployex-agent {VERSION}, which reads up to form {READS}: \
             begin that version again, or one that is not so far from it. Nothing was changed, and the replicas go on",
            path.display()
        );
    }
    Ok(())
}

/// What was set aside once is no state any more.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(%error, folder = %folder.display(), "cannot look for what earlier agents wrote");
            }
            return Vec::new();
        }
    };
    let is_state = |path: &PathBuf| path.extension().is_none();
    entries.flatten().map(|entry| entry.path()).filter(is_state).collect()
}

/// A machine in whose memory a newer agent wrote words that this one lacks: without those that decide nothing here, and with
/// the nearest that is known for why a process is to end. `None`: there is more that is not understood, and it is not guessed at.
pub(super) fn without_what_may_be_forgotten(payload: &[u8]) -> Option<Runtime> {
    let mut whole: Value = serde_json::from_slice(payload).ok()?;
    if let Some(charge) = whole.pointer_mut("/replica/condemned/1/charge")
        && Charge::deserialize(&*charge).is_err()
    {
        // Whatever it was charged with, it ends, and nothing is held against its release.
        *charge = Value::from("OverLimit");
    }
    let (upgraded, last_exit) = ("/replica/upgraded", "/replica/last_exit");
    // As little as will do.
    for forgotten in [&[][..], &[last_exit], &[upgraded], &[upgraded, last_exit]] {
        let mut value = whole.clone();
        for path in forgotten {
            if let Some(field) = value.pointer_mut(path) {
                *field = Value::Null;
            }
        }
        if let Ok(runtime) = serde_json::from_value::<Runtime>(value) {
            tracing::warn!(
                "a newer agent wrote more about a slot than this one understands; it goes on with the rest"
            );
            return Some(runtime);
        }
    }
    None
}

#[cfg(test)]
mod tests;
