//! What earlier hot upgrades left in the folder: releases that are neither what ran nor what runs, and their libraries, as long as
//! nobody uses them. Of a release whose library is in use its `.rel` stays, which says later what is to go.

use std::collections::BTreeSet;

use super::folder::Folder;
use super::lay::{description, folder_of};
use super::node::{PATIENCE, drop_release, evaluate, odd, standing};
use super::{Fault, Site, blocking};
use crate::dist::connection::Connection;
use crate::dist::term::Term;
use crate::releases::otp::Description;

/// Every folder that code was loaded from, or would be.
const IN_USE: &str = "[unicode:characters_to_binary(It) || It <- lists:usort(
    code:get_path() ++ [filename:dirname(It) || {_, It} <- code:all_loaded(), is_list(It)])].";

/// One release that leaves.
struct Leaving {
    version: String,
    /// What nobody needs any more.
    libraries: Vec<String>,
    /// What is needed yet, for the release alone: code that an upgrade did not change is that of the earlier library.
    in_use: bool,
}

pub(super) async fn tidy(connection: &Connection, site: &Site) -> Result<Vec<String>, Fault> {
    let doing = "asking the node for the code that it uses";
    let now = standing(connection, &site.to, PATIENCE).await?;
    let answer =
        evaluate(connection, doing, IN_USE, Vec::new(), PATIENCE).await.map_err(|it| it.fault(doing))?;
    let in_use: Option<Vec<String>> =
        answer.as_list().map(|it| it.iter().filter_map(Term::as_text).collect());
    let in_use = in_use.ok_or_else(|| odd(doing, &answer))?;
    let mut kept = vec![site.from.clone(), site.to.clone(), now.current];
    kept.extend(now.permanent);
    let theirs = site.clone();
    let leaving = blocking(move || leaving(&theirs, &kept, &in_use)).await?;
    let mut gone = Vec::new();
    for release in leaving {
        drop_release(connection, &release.version).await?;
        gone.push(release.version.clone());
        let theirs = site.clone();
        blocking(move || remove(&theirs, &release)).await?;
    }
    Ok(gone)
}

fn leaving(site: &Site, kept: &[String], in_use: &[String]) -> Result<Vec<Leaving>, Fault> {
    let root = Folder::open(&site.root)?;
    let libraries_of = |version: &str| -> Result<Vec<String>, Fault> {
        let text = description(&root, site, version)?;
        let unreadable =
            || Fault::here(format!("the .rel of {version} cannot be read, so nothing was removed"));
        let description = Description::read(&text).ok_or_else(unreadable)?;
        Ok(description.libraries.iter().map(|(app, version)| folder_of(app, version)).collect())
    };
    let mut of_kept: BTreeSet<String> = BTreeSet::new();
    for version in kept {
        of_kept.extend(libraries_of(version)?);
    }
    let in_use: BTreeSet<&str> = in_use.iter().flat_map(|it| it.split('/')).collect();
    let there = root.enter("lib")?.names()?;
    let releases = root.enter("releases")?;
    let mut leaving = Vec::new();
    for name in releases.names()? {
        let Some(version) = name.to_str().filter(|it| !it.starts_with('.')) else { continue };
        let is_folder = releases.kind(version)?.is_some_and(|(kind, _)| kind.is_dir());
        if !is_folder || kept.iter().any(|it| it == version) {
            continue;
        }
        // Something else than a release is none of our business.
        let Ok(libraries) = libraries_of(version) else { continue };
        let own = |it: &String| !of_kept.contains(it) && there.contains(&it.as_str().into());
        let (in_use, libraries): (Vec<_>, Vec<_>) =
            libraries.into_iter().filter(own).partition(|it| in_use.contains(it.as_str()));
        let in_use = !in_use.is_empty();
        let entries = releases.enter(version)?.names()?.len();
        if !in_use || !libraries.is_empty() || entries > 1 {
            leaving.push(Leaving { version: version.to_owned(), libraries, in_use });
        }
    }
    Ok(leaving)
}

/// The libraries first: which ones, only the release's own folder knows.
fn remove(site: &Site, release: &Leaving) -> Result<(), Fault> {
    let root = Folder::open(&site.root)?;
    let libraries = root.enter("lib")?;
    for library in &release.libraries {
        libraries.remove(library)?;
    }
    root.enter("bin")?.remove(format!("{}-{}", site.app, release.version))?;
    let releases = root.enter("releases")?;
    releases.remove(format!("{}-{}.rel", site.app, release.version))?;
    if !release.in_use {
        return releases.remove(&release.version);
    }
    let folder = releases.enter(&release.version)?;
    for name in folder.names()? {
        if !name.as_encoded_bytes().ends_with(b".rel") {
            folder.remove(name)?;
        }
    }
    Ok(())
}
