//! Whether a sound archive holds what its application's language starts. Pure.

use std::collections::{BTreeSet, HashMap};

use super::Expected;
use super::fault::{Hint, Quoted, ShapeFault};
use super::rules::Seen;
use crate::state::Language;

const SHIPMENT: &str = "erlang-shipment";

pub(super) fn check(expected: &Expected<'_>, seen: &HashMap<Box<str>, Seen>) -> Result<(), ShapeFault> {
    match expected.language {
        Language::Elixir | Language::Erlang => check_release(expected, seen),
        Language::Gleam => check_shipment(expected, seen),
    }
}

fn check_release(expected: &Expected<'_>, seen: &HashMap<Box<str>, Seen>) -> Result<(), ShapeFault> {
    for folder in ["bin", "lib", "releases"] {
        if seen.get(folder) != Some(&Seen::Folder) {
            return Err(missing(expected, format!("the folder {folder}/"), seen));
        }
    }
    let script = format!("bin/{}", expected.app);
    match seen.get(script.as_str()) {
        Some(Seen::Symlink) => Ok(()),
        Some(Seen::File { mode }) if mode & 0o111 != 0 => Ok(()),
        Some(Seen::File { .. }) => Err(ShapeFault::NotExecutable(script)),
        Some(Seen::Folder) | None => {
            let what = format!("its start script {script} (the release must be named as the application)");
            Err(missing(expected, what, seen))
        }
    }
}

fn check_shipment(expected: &Expected<'_>, seen: &HashMap<Box<str>, Seen>) -> Result<(), ShapeFault> {
    if seen.get(SHIPMENT) != Some(&Seen::Folder) {
        return Err(missing(expected, format!("the folder {SHIPMENT}/"), seen));
    }
    if let Some(beside) = tops(seen).find(|top| *top != SHIPMENT) {
        return Err(ShapeFault::BesideShipment(Quoted::new(beside)));
    }
    let app = expected.app;
    let main = format!("{SHIPMENT}/{app}/ebin/{app}@@main.beam");
    match seen.get(main.as_str()) {
        Some(Seen::File { .. }) => Ok(()),
        _ => Err(missing(expected, format!("{main} (the package must be named as the application)"), seen)),
    }
}

fn tops(seen: &HashMap<Box<str>, Seen>) -> impl Iterator<Item = &str> {
    seen.keys().map(AsRef::as_ref).filter(|path: &&str| !path.contains('/'))
}

fn missing(expected: &Expected<'_>, missing: String, seen: &HashMap<Box<str>, Seen>) -> ShapeFault {
    const SHOWN: usize = 6;
    let all: BTreeSet<&str> = tops(seen).collect();
    let mut found =
        all.iter().take(SHOWN).map(|top| Quoted::new(top).to_string()).collect::<Vec<_>>().join(", ");
    if all.len() > SHOWN {
        found.push_str(", …");
    }
    ShapeFault::Missing { language: expected.language, missing, found, hint: hint(&all, seen) }
}

fn hint(tops: &BTreeSet<&str>, seen: &HashMap<Box<str>, Seen>) -> Hint {
    let folder = |path: &str| seen.get(path) == Some(&Seen::Folder);
    if folder(SHIPMENT) {
        return Hint::LooksLike("a Gleam shipment");
    }
    if folder("bin") && folder("lib") && folder("releases") {
        return Hint::LooksLike("an Elixir or Erlang release");
    }
    match tops.first() {
        Some(top) if tops.len() == 1 && folder(&format!("{top}/releases")) => {
            Hint::Wrapped((*top).to_owned())
        }
        _ => Hint::None,
    }
}
