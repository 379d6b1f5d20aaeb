//! The change itself, and what makes it last.

use std::time::Duration;

use proto::state::Language;

use super::folder::Folder;
use super::node::{PATIENCE, ask, chars, evaluate, odd, path, standing};
use super::{Fault, Site, blocking, configure, journal};
use crate::dist::connection::Connection;
use crate::dist::term::Term;

/// For a change of code in all processes of an application, one after the other.
const INSTALL: Duration = Duration::from_mins(2);
const PROTOCOLS: &str = include_str!("protocols.erl");

pub(super) async fn install(connection: &Connection, site: &Site) -> Result<(), Fault> {
    let before = standing(connection, &site.to, INSTALL).await?;
    if !before.runs(&site.to) {
        if !before.runs(&site.from) {
            return Err(Fault::here(format!(
                "the node runs {}, not {}; look at it again before an upgrade",
                before.current, site.from
            )));
        }
        change(connection, site).await?;
        let after = standing(connection, &site.to, INSTALL).await?;
        if !after.runs(&site.to) {
            return Err(Fault::here(format!(
                "the install of {} was said to be done, and the node runs {}; deploy it in full",
                site.to, after.current
            )));
        }
    }
    if site.language == Language::Elixir { exchange_protocols(connection, site).await } else { Ok(()) }
}

async fn change(connection: &Connection, site: &Site) -> Result<(), Fault> {
    let theirs = site.clone();
    if !blocking(move || configure::is_laid(&theirs)).await? {
        return Err(Fault::here(format!(
            "nothing of {} was laid for a hot upgrade; begin it again",
            site.to
        )));
    }
    if site.language == Language::Elixir && !configure::is_kept(connection, site).await? {
        configure::configure(connection, site).await?;
    }
    let root = site.root.clone();
    blocking(move || journal::installing(&root)).await?;
    let doing = format!("installing {}", site.to);
    let options = Term::List(vec![Term::Tuple(vec![Term::atom("update_paths"), Term::atom("true")])]);
    let question = ("release_handler", "install_release", vec![chars(&site.to), options]);
    let answer = ask(connection, &doing, question, INSTALL).await?;
    match answer.as_tuple() {
        Some([ok, ..]) if ok.as_atom() == Some("ok") => Ok(()),
        Some([error, reason]) if error.as_atom() == Some("error") => {
            Err(failed(site, reason, reboots(connection).await))
        }
        _ => Err(odd(&doing, &answer)),
    }
}

/// Past its point of no return an install that fails reboots the node, in the same OS process.
async fn reboots(connection: &Connection) -> bool {
    match connection.call("init", "get_status", Vec::new(), PATIENCE).await {
        Ok(status) => {
            let is = status.as_tuple().and_then(|it| it.first()).and_then(Term::as_atom);
            is != Some("started")
        }
        Err(_) => true,
    }
}

fn failed(site: &Site, reason: &Term, reboots: bool) -> Fault {
    let (from, to) = (&site.from, &site.to);
    if let Some([_, _, module, _, why]) = tagged(reason, "code_change_failed") {
        return Fault::package(format!(
            "the code_change of {module} to {to} failed: {}; the node reboots itself in the same OS process, into {from}, \
             and lost its state; correct it or deploy the release in full",
            why.brief()
        ));
    }
    // From here on the new release's settings are in force: the release handler takes them up before it runs the relup, and of what
    // a hook has set it puts back nothing.
    if let Some([_, module]) = tagged(reason, "old_processes") {
        return Fault::touched(format!(
            "processes still run code of {module} from before the last upgrade, so {to} cannot be installed, and {from} has its \
             settings already; deploy it in full"
        ));
    }
    let said = reason.brief();
    let is_before = |tag: &&str| tagged(reason, tag).is_some();
    if !reboots && ["no_matching_relup", "no_such_release", "enoent"].iter().any(is_before) {
        return Fault::here(format!("the node refused to install {to}, and runs {from} as before: {said}"));
    }
    if reboots {
        Fault::package(format!(
            "the install of {to} failed half done: {said}; the node reboots itself in the same OS process, into {from}; \
             deploy it in full"
        ))
    } else {
        Fault::touched(format!(
            "the node gave up the install of {to}: {said}; it runs {from}, with settings that may be of both; deploy it in full"
        ))
    }
}

/// The tuple with this tag, wherever it is in the reason.
fn tagged<'t>(term: &'t Term, tag: &str) -> Option<&'t [Term]> {
    let elements = match term {
        Term::Tuple(elements) => {
            if elements.first().and_then(Term::as_atom) == Some(tag) {
                return Some(elements);
            }
            elements
        }
        Term::List(elements) => elements,
        _ => return None,
    };
    elements.iter().find_map(|it| tagged(it, tag))
}

async fn exchange_protocols(connection: &Connection, site: &Site) -> Result<(), Fault> {
    let doing = format!("exchanging the consolidated protocols for those of {}", site.to);
    let given = vec![("New", path(&site.of_release(&site.to, "consolidated"))), ("To", chars(&site.to))];
    let answer =
        evaluate(connection, &doing, PROTOCOLS, given, PATIENCE).await.map_err(|it| it.fault(&doing))?;
    match (answer.as_atom(), answer.as_tuple()) {
        (Some("none"), _) => Ok(()),
        (_, Some([ok, _])) if ok.as_atom() == Some("ok") => Ok(()),
        (_, Some([tag, module])) if tag.as_atom() == Some("not_loaded") => Err(Fault::package(format!(
            "{doing}: {} cannot be loaded; deploy the release in full",
            module.as_text().unwrap_or_default()
        ))),
        _ => Err(odd(&doing, &answer)),
    }
}

pub(super) async fn permanent(connection: &Connection, site: &Site) -> Result<(), Fault> {
    let before = standing(connection, &site.to, INSTALL).await?;
    if !before.runs(&site.to) {
        return Err(Fault::here(format!(
            "the node runs {}, not {}, which cannot be made permanent; deploy it in full",
            before.current, site.to
        )));
    }
    // What is started after a power cut is on the disk first.
    let root = site.root.clone();
    blocking(move || Folder::open(&root)?.flush_disk()).await?;
    if before.permanent.as_deref() != Some(&site.to) {
        let doing = format!("making {} permanent", site.to);
        let question = ("release_handler", "make_permanent", vec![chars(&site.to)]);
        let answer = ask(connection, &doing, question, PATIENCE).await?;
        if answer.as_atom() != Some("ok") {
            return Err(Fault::here(format!(
                "{doing}: the node's release handler refused: {}",
                answer.brief()
            )));
        }
    }
    let theirs = site.clone();
    blocking(move || start_from(&theirs)).await
}

/// The start script of relx names the version that it starts; Elixir's reads it.
fn start_from(site: &Site) -> Result<(), Fault> {
    let root = Folder::open(&site.root)?;
    let bin = root.enter("bin")?;
    let own = format!("{}-{}", site.app, site.to);
    if site.language == Language::Erlang
        && let Some((_, mode)) = bin.kind(&own)?
    {
        let script = bin.read(&own, 4 << 20)?.unwrap_or_default();
        if bin.read(&site.app, 4 << 20)?.as_ref() != Some(&script) {
            bin.put(&site.app, &script, mode, site.owner)?;
        }
    }
    let releases = root.enter("releases")?;
    let start = releases.read("start_erl.data", 4 << 10)?.unwrap_or_default();
    let start = String::from_utf8_lossy(&start);
    if start.split_whitespace().nth(1) != Some(&site.to) {
        return Err(Fault::here(format!(
            "releases/start_erl.data says {:?} after {} was made permanent; deploy it in full",
            start.trim(),
            site.to
        )));
    }
    releases.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        let [app, from, to] = ["demo", "1", "2"].map(str::to_owned);
        Site {
            root: "/r".into(),
            incoming: "/n".into(),
            app,
            language: Language::Elixir,
            from,
            to,
            owner: None,
        }
    }

    #[test]
    fn a_failed_code_change_is_named_and_the_packages_fault() {
        let why = Term::atom("badmatch");
        let pid = Term::atom("pid");
        let reason =
            vec![Term::atom("code_change_failed"), pid, Term::atom("demo_counter"), Term::atom("v"), why];
        let nested = Term::Tuple(vec![Term::atom("EXIT"), Term::List(vec![Term::Tuple(reason)])]);
        let fault = failed(&site(), &nested, true);
        assert!(fault.is_of_package());
        let text = fault.to_string();
        assert!(text.contains("code_change of demo_counter") && text.contains("badmatch"), "{text}");
        assert!(text.contains("reboots itself in the same OS process"), "{text}");
    }

    #[test]
    fn what_was_refused_before_anything_changed_is_told_apart_from_what_was_given_up() {
        let old = Term::Tuple(vec![Term::atom("old_processes"), Term::atom("demo")]);
        let fault = failed(&site(), &old, false);
        assert!(!fault.is_of_package() && fault.to_string().contains("code of demo"), "{fault}");
        assert!(fault.has_touched_what_runs());
        let missing = Term::Tuple(vec![Term::atom("enoent"), Term::atom("relup")]);
        let fault = failed(&site(), &missing, false);
        assert!(!fault.has_touched_what_runs() && !fault.is_of_package(), "{fault}");
        let given_up = failed(&site(), &Term::atom("enospc"), false);
        assert!(given_up.has_touched_what_runs() && !given_up.is_of_package());
        assert!(failed(&site(), &Term::atom("undef"), true).is_of_package());
    }
}
