//! From the files of a release to its [`Package`]. What cannot be read is a fault of the package or of one appup, in words;
//! never a reason to refuse the release.

use std::collections::{BTreeMap, BTreeSet};

use super::matcher::{Matcher, Versions};
use super::terms::{self, Term};
use super::{Appup, CORE, Jellyfish, Package};
use crate::ids::AppName;

/// The files that were kept of a release, by path.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) kept: BTreeMap<String, Vec<u8>>,
    /// Larger than any such file is.
    pub(crate) too_large: BTreeSet<String>,
    /// More than are kept together.
    pub(crate) too_many: bool,
}

const MAX_LIBS: usize = 1_000;
/// Of an appup, in each direction.
const MAX_MATCHERS: usize = 200;
/// Of names, versions and expressions.
const MAX_TEXT: usize = 256;
/// Of all that is stored of a package.
const MAX_PACKAGE: usize = 256 << 10;

/// Whether a file of a release is one that is read here.
pub(crate) fn is_wanted(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["releases", "start_erl.data"] => true,
        ["releases", name] | ["releases", _, name] => named(name, ".rel"),
        ["lib", _, "ebin", name] => named(name, ".appup") || *name == "jellyfish.json",
        ["lib", _, "priv", "appup", name] => named(name, ".appup"),
        _ => false,
    }
}

/// Such files are named in small letters, whatever file system they come from.
fn named(path: &str, end: &str) -> bool {
    path.ends_with(end)
}

pub(crate) fn read(app: &AppName, files: &Files) -> Package {
    let mut package = match release(app, files) {
        Ok(package) => package,
        Err(fault) => return Package { fault: Some(fault), ..Package::default() },
    };
    if files.too_many {
        package.fault = Some("it holds more appups and .rel files than are looked into".to_owned());
        return package;
    }
    for (lib, version) in &package.libs {
        if CORE.contains(&lib.as_str()) {
            // A new one of these is never loaded into a running VM.
            continue;
        }
        let folders = [format!("lib/{lib}-{version}"), format!("lib/{lib}")];
        let places = folders.iter().flat_map(|folder| {
            [format!("{folder}/ebin/{lib}.appup"), format!("{folder}/priv/appup/{lib}.appup")]
        });
        for path in places {
            if let Some(found) = appup(&path, files) {
                package.appups.insert(lib.clone(), found);
                break;
            }
        }
        for folder in &folders {
            match jellyfish(&format!("{folder}/ebin/jellyfish.json"), files) {
                None => {}
                Some(Ok(found)) => package.jellyfish.push(found),
                Some(Err(fault)) => {
                    let appup = package.appups.entry(lib.clone()).or_default();
                    appup.fault.get_or_insert(fault);
                }
            }
        }
    }
    if size(&package) > MAX_PACKAGE {
        package.appups.clear();
        package.jellyfish.clear();
        package.fault = Some("its appups have more entries than are kept".to_owned());
    }
    package
}

fn release(app: &AppName, files: &Files) -> Result<Package, String> {
    let path = rel_path(app, started(files).as_deref(), files)?;
    let in_file = |what: String| format!("{path}: {what}");
    if files.too_large.contains(path) {
        return Err(in_file("it is too large to be looked into".to_owned()));
    }
    let bytes = files.kept.get(path).map(Vec::as_slice).unwrap_or_default();
    let terms = terms::parse(bytes).map_err(|fault| in_file(fault.to_string()))?;
    let package = terms.iter().find_map(described);
    let package = package.ok_or_else(|| in_file("it does not describe a release".to_owned()))?;
    if package.libs.len() > MAX_LIBS {
        return Err(in_file(format!("more than {MAX_LIBS} libs")));
    }
    Ok(package)
}

/// The version that the start script starts.
fn started(files: &Files) -> Option<String> {
    let text = String::from_utf8_lossy(files.kept.get("releases/start_erl.data")?);
    text.split_whitespace().nth(1).map(str::to_owned)
}

/// The file that describes the release which the start script starts.
fn rel_path<'a>(app: &AppName, started: Option<&str>, files: &'a Files) -> Result<&'a str, String> {
    let all = || files.kept.keys().chain(&files.too_large).filter(|it| named(it, ".rel"));
    let Some(version) = started else {
        return Err("it has no releases/start_erl.data that names a version".to_owned());
    };
    let version = cut(version);
    let likely = [
        format!("releases/{version}/{app}.rel"),
        format!("releases/{app}-{version}.rel"),
        format!("releases/{app}.rel"),
    ];
    let named = likely.iter().find_map(|path| all().find(|it| *it == path));
    let within = format!("releases/{version}/");
    let path = named.or_else(|| all().find(|it| it.starts_with(&within)));
    path.map(String::as_str).ok_or_else(|| format!("it has no {}", likely[0]))
}

fn described(term: &Term) -> Option<Package> {
    let [Term::Atom(kind), Term::Tuple(named), Term::Tuple(erts), Term::List(libs)] = tuple(term)? else {
        return None;
    };
    let ([name, _], [_, erts]) = (named.as_slice(), erts.as_slice()) else { return None };
    if kind != "release" {
        return None;
    }
    let lib = |term: &Term| match tuple(term)? {
        [name, version, ..] => Some((word(name)?, word(version)?)),
        _ => None,
    };
    let libs = libs.iter().map(lib).collect::<Option<_>>()?;
    Some(Package { erts: word(erts)?, name: word(name)?, libs, ..Package::default() })
}

/// `None`: there is none.
fn appup(path: &str, files: &Files) -> Option<Appup> {
    if files.too_large.contains(path) {
        let fault = Some("it is too large to be looked into".to_owned());
        return Some(Appup { fault, ..Appup::default() });
    }
    Some(Appup::read(files.kept.get(path)?))
}

impl Appup {
    /// From the text of the file. What cannot be read of it is its `fault`.
    pub fn read(bytes: &[u8]) -> Self {
        appup_of(bytes).unwrap_or_else(|fault| Self { fault: Some(fault), ..Self::default() })
    }
}

fn appup_of(bytes: &[u8]) -> Result<Appup, String> {
    let terms = terms::parse(bytes).map_err(|fault| fault.to_string())?;
    let shape = || "it is no {Version, [{From, Script}], [{To, Script}]}".to_owned();
    let [term] = terms.as_slice() else { return Err(shape()) };
    let Some([to, Term::List(up), Term::List(down)]) = tuple(term) else { return Err(shape()) };
    let read = || {
        let all = |entries: &[Term]| entries.iter().map(matcher).collect::<Option<Vec<_>>>();
        Some((word(to)?, all(up)?, all(down)?))
    };
    match read() {
        None => Err(shape()),
        Some((_, up, down)) if up.len().max(down.len()) > MAX_MATCHERS => {
            Err(format!("more than {MAX_MATCHERS} entries"))
        }
        Some((to, up, down)) => Ok(Appup { to, up, down, fault: None }),
    }
}

fn matcher(entry: &Term) -> Option<Matcher> {
    let [versions, Term::List(script), ..] = tuple(entry)? else { return None };
    let versions = match versions {
        Term::Text(_) => Versions::Exact(word(versions)?),
        Term::Binary(_) => Versions::Expression(word(versions)?),
        _ => return None,
    };
    let restart =
        |it: &Term| matches!(it, Term::Atom(it) if it == "restart_new_emulator" || it == "restart_emulator");
    Some(Matcher { versions, restarts: script.iter().any(restart) })
}

/// `None`: there is none.
fn jellyfish(path: &str, files: &Files) -> Option<Result<Jellyfish, String>> {
    let bytes = files.kept.get(path)?;
    let read: Result<Jellyfish, _> = serde_json::from_slice(bytes);
    Some(match read {
        Ok(Jellyfish { name, kind, from, to }) => {
            Ok(Jellyfish { name: cut(&name), kind: cut(&kind), from: cut(&from), to: cut(&to) })
        }
        Err(error) => Err(format!("jellyfish.json beside it cannot be read: {error}")),
    })
}

fn tuple(term: &Term) -> Option<&[Term]> {
    match term {
        Term::Tuple(items) => Some(items),
        _ => None,
    }
}

/// A name or a version. One that is longer than any is not one.
fn word(term: &Term) -> Option<String> {
    match term {
        Term::Atom(text) | Term::Text(text) | Term::Binary(text) if text.len() <= MAX_TEXT => {
            Some(text.clone())
        }
        _ => None,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// About as long as it is when it is stored.
fn size(package: &Package) -> usize {
    let libs = package.libs.iter().map(|(lib, version)| lib.len() + version.len() + 6);
    let appups = package.appups.iter().map(|(lib, appup)| {
        let matchers = appup.up.iter().chain(&appup.down);
        let matchers: usize = matchers.map(|it| it.to_string().len() + 32).sum();
        lib.len() + appup.to.len() + matchers + 32
    });
    let jellyfish = package.jellyfish.iter().map(|it| it.name.len() + it.from.len() + it.to.len() + 48);
    libs.chain(appups).chain(jellyfish).sum()
}
