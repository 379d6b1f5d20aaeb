//! The way from one release to the other, which the node works out from the appups, and whether it could go it.

use super::node::{PATIENCE, ask, chars, evaluate, odd, path, standing};
use super::{Fault, Site, blocking, journal};
use crate::dist::connection::Connection;
use crate::dist::term::Term;

const RELUP: &str = include_str!("relup.erl");

pub(super) async fn relup(connection: &Connection, site: &Site) -> Result<(), Fault> {
    if standing(connection, &site.to, PATIENCE).await?.runs(&site.to) {
        return Ok(());
    }
    let root = site.root.clone();
    let down = blocking(move || journal::pending(&root)).await?.is_some_and(|it| it.down);
    let doing = format!("working out the way from {} to {}", site.from, site.to);
    let given = vec![
        ("Down", Term::atom(if down { "true" } else { "false" })),
        ("From", chars(&site.from)),
        ("FromRel", path(&site.of_release(&site.from, &site.app))),
        ("Libs", path(&site.root.join("lib/*/ebin"))),
        ("Out", path(&site.root.join("releases").join(&site.to))),
        ("To", chars(&site.to)),
        ("ToRel", path(&site.of_release(&site.to, &site.app))),
    ];
    let answer = evaluate(connection, &doing, RELUP, given, PATIENCE).await.map_err(|it| it.fault(&doing))?;
    if answer.as_atom() == Some("ok") {
        return Ok(());
    }
    Err(match (answer.as_atom(), answer.as_tuple()) {
        (Some("restarts"), _) => Fault::package(format!(
            "the way from {} to {} restarts the emulator, as its appups or another OTP ask for; deploy it in full",
            site.from, site.to
        )),
        (Some("without"), _) => Fault::package(format!(
            "the appups of {} do not say how it comes from {}; add that to them or deploy it in full",
            site.to, site.from
        )),
        (_, Some([tag, why])) if tag.as_atom() == Some("not_written") => Fault::here(format!(
            "{doing}: the node could not write releases/{}/relup: {}",
            site.to,
            why.brief()
        )),
        (_, Some([tag, why])) if tag.as_atom() == Some("error") => {
            let words = why.as_text().unwrap_or_else(|| why.brief().to_string());
            let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
            let words: String = words.chars().take(1_000).collect();
            Fault::package(format!(
                "{doing} failed: {words}; correct the appup or deploy the release in full"
            ))
        }
        _ => odd(&doing, &answer),
    })
}

pub(super) async fn check(connection: &Connection, site: &Site) -> Result<(), Fault> {
    if standing(connection, &site.to, PATIENCE).await?.runs(&site.to) {
        return Ok(());
    }
    let doing = format!("looking whether {} could be installed", site.to);
    let question = ("release_handler", "check_install_release", vec![chars(&site.to)]);
    let answer = ask(connection, &doing, question, PATIENCE).await?;
    match answer.as_tuple() {
        Some([ok, version, ..]) if ok.as_atom() == Some("ok") => match version.as_text() {
            Some(version) if version == site.from => Ok(()),
            // What it says where there is no relup, and nothing was looked at.
            _ => Err(Fault::here(format!(
                "{doing}: there is no way from {} to it; work it out again",
                site.from
            ))),
        },
        _ => Err(Fault::here(format!("{doing}: the node's release handler refused: {}", answer.brief()))),
    }
}
