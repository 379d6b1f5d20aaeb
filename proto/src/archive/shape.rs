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
    ShapeFault::Missing { language: expected.language, missing, found, hint: hint(expected, &all, seen) }
}

fn hint(expected: &Expected<'_>, tops: &BTreeSet<&str>, seen: &HashMap<Box<str>, Seen>) -> Hint {
    let folder = |path: &str| seen.get(path) == Some(&Seen::Folder);
    let is_shipment = expected.language == Language::Gleam;
    if folder(SHIPMENT) {
        return if is_shipment { Hint::None } else { Hint::LooksLike("a Gleam shipment") };
    }
    if folder("bin") && folder("lib") && folder("releases") {
        if is_shipment {
            return Hint::LooksLike("an Elixir or Erlang release");
        }
        // Beside the start script lie others, all with an extension or a hyphen in their name.
        let script = |path: &str| {
            let name = path.strip_prefix("bin/")?;
            name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_').then(|| name.to_owned())
        };
        let scripts: BTreeSet<String> = seen.keys().filter_map(|path| script(path)).collect();
        return scripts.first().map_or(Hint::None, |name| Hint::Named(Quoted::new(name)));
    }
    match tops.first() {
        Some(top) if tops.len() == 1 && folder(&format!("{top}/releases")) => {
            Hint::Wrapped((*top).to_owned())
        }
        _ => Hint::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(app: &str, language: Language, folders: &[&str], scripts: &[&str]) -> String {
        let folders = folders.iter().map(|it| ((*it).into(), Seen::Folder));
        let scripts = scripts.iter().map(|it| (format!("bin/{it}").into(), Seen::File { mode: 0o755 }));
        let seen = folders.chain(scripts).collect();
        let app = app.parse().unwrap();
        check(&Expected { app: &app, language }, &seen).unwrap_err().to_string()
    }

    #[test]
    fn what_an_archive_is_instead_is_said() {
        let release = ["bin", "lib", "releases"];
        let other_name = said("shop", Language::Elixir, &release, &["store", "store.bat"]);
        assert!(
            other_name.contains("a release named \"store\"") && !other_name.contains("language"),
            "{other_name}"
        );
        let other_language = said("shop", Language::Gleam, &release, &["shop"]);
        assert!(
            other_language.contains("an Elixir or Erlang release: the application may be"),
            "{other_language}"
        );
        let shipment = said("shop", Language::Erlang, &[SHIPMENT], &[]);
        assert!(shipment.contains("a Gleam shipment"), "{shipment}");
    }
}
