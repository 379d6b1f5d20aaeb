//! What the steps ask of the node: functions of OTP's release handler, and texts of our own that the node evaluates, so that
//! nothing of ours is loaded there.

use std::path::Path;
use std::time::Duration;

use super::folder::Folder;
use super::journal::Pending;
use super::lay::{description, folder_of, plain};
use super::{Fault, Site, blocking};
use crate::dist::connection::{CallError, Connection};
use crate::dist::term::{Atom, Term};
use crate::releases::otp::Description;

/// A question may stand in line behind an install that a dead agent asked for.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// What the node says of its releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What runs.
    pub current: String,
    /// What is started after a crash.
    pub permanent: Option<String>,
    /// Of the release that is upgraded to, where the node knows it.
    pub to: Option<Status>,
    /// Since the VM booted, which it may have done in the same process.
    pub up_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Unpacked,
    /// It runs, and is not what is started after a crash.
    Current,
    Permanent,
    /// It ran.
    Old,
}

impl Standing {
    /// Whether the node runs it.
    pub fn runs(&self, version: &str) -> bool {
        self.current == version
    }
}

pub(super) async fn standing(
    connection: &Connection,
    to: &str,
    patience: Duration,
) -> Result<Standing, Fault> {
    let doing = "asking the node for its releases";
    let releases =
        ask(connection, doing, ("release_handler", "which_releases", Vec::new()), patience).await?;
    let up =
        ask(connection, doing, ("erlang", "statistics", vec![Term::atom("wall_clock")]), patience).await?;
    let up_ms =
        up.as_tuple().and_then(|it| it.first()).and_then(Term::as_u64).ok_or_else(|| odd(doing, &up))?;
    read(&releases, to, up_ms).ok_or_else(|| odd(doing, &releases))
}

/// `[{Name, Vsn, Libs, Status}]`
fn read(releases: &Term, to: &str, up_ms: u64) -> Option<Standing> {
    let (mut current, mut permanent, mut status) = (None, None, None);
    for release in releases.as_list()? {
        let [_, version, _, is] = release.as_tuple()? else { return None };
        let version = version.as_text()?;
        let is = match is.as_atom()? {
            "current" => Status::Current,
            "permanent" => Status::Permanent,
            "old" => Status::Old,
            _ => Status::Unpacked,
        };
        if version == to {
            status = Some(is);
        }
        match is {
            Status::Current => current = Some(version),
            Status::Permanent => permanent = Some(version),
            Status::Unpacked | Status::Old => {}
        }
    }
    Some(Standing { current: current.or_else(|| permanent.clone())?, permanent, to: status, up_ms })
}

pub(super) async fn unpack(connection: &Connection, site: &Site) -> Result<(), Fault> {
    check_root(connection, site).await?;
    let standing = standing(connection, &site.to, PATIENCE).await?;
    if standing.runs(&site.to) {
        return Ok(());
    }
    if !standing.runs(&site.from) {
        return Err(Fault::here(format!(
            "the node runs {}, not {}; look at it again before an upgrade",
            standing.current, site.from
        )));
    }
    let doing = format!("telling the node of {}", site.to);
    // Of an earlier attempt, or one that ran before: what was laid now counts.
    if standing.to.is_some() {
        remove(connection, &site.to, &doing).await?;
    }
    set_unpacked(connection, site.clone(), &doing).await
}

async fn set_unpacked(connection: &Connection, site: Site, doing: &str) -> Result<(), Fault> {
    let file = path(&site.of_release(&site.to, &format!("{}.rel", site.app)));
    let libraries = blocking(move || new_libraries(&site)).await?;
    let question = ("release_handler", "set_unpacked", vec![file, Term::List(libraries)]);
    let answer = ask(connection, doing, question, PATIENCE).await?;
    match answer.as_tuple() {
        Some([ok, _]) if ok.as_atom() == Some("ok") => Ok(()),
        _ => Err(refused(doing, &answer)),
    }
}

/// The folder that we change is the one that it runs from.
async fn check_root(connection: &Connection, site: &Site) -> Result<(), Fault> {
    let doing = "asking the node for its folder";
    let answer = ask(connection, doing, ("code", "root_dir", Vec::new()), PATIENCE).await?;
    let theirs = answer.as_text().ok_or_else(|| odd(doing, &answer))?;
    let root = site.root.clone();
    blocking(move || {
        let same = match (std::fs::canonicalize(&theirs), std::fs::canonicalize(&root)) {
            (Ok(theirs), Ok(ours)) => theirs == ours,
            _ => false,
        };
        let other = || {
            Fault::here(format!(
                "the node runs from {theirs}, not from {}; a release with its own ERTS is needed for hot upgrades",
                root.display()
            ))
        };
        if same { Ok(()) } else { Err(other()) }
    })
    .await
}

/// `[{App, Vsn, LibDir}]` of what the running release has not.
fn new_libraries(site: &Site) -> Result<Vec<Term>, Fault> {
    let root = Folder::open(&site.root)?;
    let texts = [&site.from, &site.to].map(|version| description(&root, site, version));
    let [from, to] = texts;
    let (from, to) = (from?, to?);
    let unreadable = || Fault::package("a .rel of the release cannot be read");
    let from = Description::read(&from).ok_or_else(unreadable)?;
    let to = Description::read(&to).ok_or_else(unreadable)?;
    let new = to.libraries.iter().filter(|it| !from.libraries.contains(it));
    let libraries = new.filter(|(app, version)| site.root.join("lib").join(folder_of(app, version)).is_dir());
    libraries
        .map(|(app, version)| {
            let app = Atom::new(plain(app)).map_err(|_| unreadable())?;
            Ok(Term::Tuple(vec![Term::Atom(app), chars(version), path(&site.root.join("lib"))]))
        })
        .collect()
}

async fn remove(connection: &Connection, version: &str, doing: &str) -> Result<(), Fault> {
    let question = ("release_handler", "set_removed", vec![chars(version)]);
    let answer = ask(connection, doing, question, PATIENCE).await?;
    let gone = || answer.to_string().contains("no_such_release");
    if answer.as_atom() == Some("ok") || gone() { Ok(()) } else { Err(refused(doing, &answer)) }
}

/// What an undo takes back on the node.
pub(super) async fn forget(connection: &Connection, root: &Path, pending: &Pending) -> Result<(), Fault> {
    let standing = standing(connection, &pending.to, PATIENCE).await?;
    if standing.runs(&pending.to) || standing.permanent.as_deref() == Some(&pending.to) {
        return Err(Fault::here(format!(
            "{} is installed in {} already; it cannot be undone, but downgraded",
            pending.to,
            root.display()
        )));
    }
    let doing = format!("making the node forget {}", pending.to);
    if standing.to.is_some() {
        remove(connection, &pending.to, &doing).await?;
    }
    let key = Term::Tuple(vec![Term::atom(super::configure::KEY), chars(&pending.to)]);
    ask(connection, &doing, ("persistent_term", "erase", vec![key]), PATIENCE).await?;
    Ok(())
}

/// The release that was to come lay there before and was known, as one that ran: so it is again, once its files are back. It is
/// told as one that is unpacked, which can be all that one that ran can.
pub(super) async fn remember(connection: &Connection, root: &Path, pending: &Pending) -> Result<(), Fault> {
    let Pending { from, to, app, language, .. } = pending.clone();
    let (root, incoming) = (root.to_owned(), root.to_owned());
    let doing = format!("making the node remember {to}");
    let site = Site { root, incoming, app, language, from, to, owner: None };
    set_unpacked(connection, site, &doing).await
}

/// Takes a release out of what the node knows; it was removed from the folder or is about to be.
pub(super) async fn drop_release(connection: &Connection, version: &str) -> Result<(), Fault> {
    remove(connection, version, &format!("making the node forget {version}")).await
}

pub(super) async fn ask(
    connection: &Connection,
    doing: &str,
    (module, function, arguments): (&'static str, &'static str, Vec<Term>),
    patience: Duration,
) -> Result<Term, Fault> {
    let answer = connection.call(module, function, arguments, patience).await;
    let answer = answer.map_err(|error| Fault::call(doing, error))?;
    match answer.as_tuple() {
        Some([tag, _]) if tag.as_atom() == Some("badrpc") => Err(odd(doing, &answer)),
        _ => Ok(answer),
    }
}

/// The value of a text of our own, given these names in their order.
pub(super) async fn evaluate(
    connection: &Connection,
    doing: &str,
    text: &'static str,
    given: Vec<(&'static str, Term)>,
    patience: Duration,
) -> Result<Term, CallErrorOrFault> {
    let text = text.chars().map(|it| Term::Integer(u32::from(it).into())).collect();
    let tokens = ask(connection, doing, ("erl_scan", "string", vec![Term::List(text)]), patience).await?;
    let tokens = second(doing, tokens)?;
    let forms = ask(connection, doing, ("erl_parse", "parse_exprs", vec![tokens]), patience).await?;
    let forms = second(doing, forms)?;
    let bindings =
        given.into_iter().map(|(name, value)| Term::Tuple(vec![Term::atom(name), value])).collect();
    let value = connection.call("erl_eval", "exprs", vec![forms, Term::List(bindings)], patience).await;
    Ok(second(doing, value?)?)
}

/// Which of both, where it matters.
#[derive(Debug)]
pub(super) enum CallErrorOrFault {
    Call(CallError),
    Fault(Fault),
}

impl CallErrorOrFault {
    pub(super) fn fault(self, doing: &str) -> Fault {
        match self {
            Self::Call(error) => Fault::call(doing, error),
            Self::Fault(fault) => fault,
        }
    }
}

impl From<Fault> for CallErrorOrFault {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<CallError> for CallErrorOrFault {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// `{ok, It, …}` and `{value, It, …}`
fn second(doing: &str, answer: Term) -> Result<Term, Fault> {
    match &answer {
        Term::Tuple(elements)
            if matches!(elements.first().and_then(Term::as_atom), Some("ok" | "value"))
                && elements.len() > 1 =>
        {
            Ok(elements[1].clone())
        }
        _ => Err(odd(doing, &answer)),
    }
}

pub(super) fn odd(doing: &str, answer: &Term) -> Fault {
    Fault::here(format!("{doing}: it answered something else than was asked: {}", answer.brief()))
}

/// The release handler says no.
pub(super) fn refused(doing: &str, answer: &Term) -> Fault {
    let text = answer.brief().to_string();
    let fault = format!("{doing}: the node's release handler refused: {text}");
    let of_package = ["bad_rel_file", "bad_rel_data", "no_such_directory", "no_such_file"];
    if of_package.into_iter().any(|it| text.contains(it)) {
        Fault::package(fault)
    } else {
        Fault::here(fault)
    }
}

/// A string of Erlang.
pub(super) fn chars(text: &str) -> Term {
    Term::List(text.chars().map(|it| Term::Integer(u32::from(it).into())).collect())
}

pub(super) fn path(path: &Path) -> Term {
    chars(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: &str, status: &'static str) -> Term {
        Term::Tuple(vec![chars("demo"), chars(version), Term::default(), Term::atom(status)])
    }

    #[test]
    fn what_runs_is_current_or_else_permanent() {
        let before = Term::List(vec![release("2", "unpacked"), release("1", "permanent")]);
        let read_before = read(&before, "2", 7).unwrap();
        assert!(read_before.runs("1") && read_before.to == Some(Status::Unpacked) && read_before.up_ms == 7);
        let after = Term::List(vec![release("2", "current"), release("1", "permanent")]);
        let after = read(&after, "2", 7).unwrap();
        assert_eq!((after.current.as_str(), after.permanent.as_deref()), ("2", Some("1")));
        assert_eq!(read(&before, "3", 0).unwrap().to, None);
        assert_eq!(read(&Term::List(vec![release("2", "unpacked")]), "2", 0), None);
        assert_eq!(read(&Term::atom("x"), "2", 0), None);
    }
}
