//! Laying the new release beside the one that runs, in the same folder: its own `releases/VERSION`, the libraries that are
//! not there yet, and files outside of both that are new or changed. Code that the running release uses is never touched; what
//! else lies in the way is set aside.

use proto::hot_upgrade::{Appup, Direction};

use super::beam_file::is_same_code;
use super::beside;
use super::folder::Folder;
use super::journal::{self, Journal, Pending, Saved, is_name};
use super::{Fault, Site};
use crate::releases::otp::Description;

/// Of a `.rel` and an appup: theirs are kilobytes.
const SMALL: u64 = 4 << 20;
/// Of a module, as packed.
const MODULE: u64 = 64 << 20;

pub(super) fn lay(site: &Site) -> Result<(), Fault> {
    if ![&site.app, &site.from, &site.to].into_iter().all(|it| is_name(it)) {
        return Err(Fault::package("the names of the application or its versions are no names of folders"));
    }
    if site.from == site.to {
        return Err(Fault::package(format!("{} runs already; there is nothing to upgrade", site.to)));
    }
    let root = Folder::open(&site.root)?;
    if let Some(earlier) = Journal::read(&root)? {
        if earlier.pending.installing {
            return Err(Fault::here(format!(
                "an install of {} was begun in {}; it is to be settled or undone first",
                earlier.pending.to,
                site.root.display()
            )));
        }
        journal::undo(&site.root)?;
    }
    let incoming = Folder::open(&site.incoming)?;
    let texts = [description(&root, site, &site.from)?, description(&incoming, site, &site.to)?];
    let [from, to] = [&texts[0], &texts[1]].map(|text| {
        let unreadable = "a .rel of the release cannot be read; build it with mix release or rebar3";
        Description::read(text).ok_or_else(|| Fault::package(unreadable))
    });
    let (from, to) = (from?, to?);
    if from.erts != to.erts {
        return Err(Fault::package(format!(
            "{} runs on ERTS {} and {} is built for ERTS {}; another emulator takes a restart: deploy it in full",
            site.from, from.erts, site.to, to.erts
        )));
    }
    let down = is_downgrade(site, &root, &incoming, &from, &to)?;
    let mut journal = Journal {
        pending: Pending {
            from: site.from.clone(),
            to: site.to.clone(),
            app: site.app.clone(),
            language: site.language,
            down,
            installing: false,
        },
        laid: Vec::new(),
        replaced: Vec::new(),
        saved: [
            "releases/RELEASES".to_owned(),
            "releases/start_erl.data".to_owned(),
            format!("bin/{}", site.app),
        ]
        .iter()
        .map(|path| Saved::of(&root, path))
        .collect::<Result<_, _>>()?,
    };
    plan(site, &root, &incoming, &from, &mut journal)?;
    let appups = appups_to_copy(&root, &from, &to, down)?;
    journal.laid.extend(appups.iter().map(|(path, _)| path.clone()));
    journal.write(&root)?;

    for path in &journal.replaced {
        journal::set_aside(&root, path)?;
    }
    let copied = |path: &&String| !appups.iter().any(|(appup, _)| appup == *path);
    for path in journal.laid.iter().filter(copied).chain(&journal.replaced) {
        let (into, name) = journal::parent(&root, path)?;
        let (of, _) = journal::parent(&incoming, path)?;
        into.take(&of, name, path, site.owner)?;
    }
    for (path, bytes) in &appups {
        let (into, name) = journal::parent(&root, path)?;
        into.put(name, bytes, 0o644, site.owner)?;
    }
    for (app, version) in &to.libraries {
        let (libraries, name) = (root.enter("lib")?, folder_of(app, version));
        if !libraries.has(&name)? {
            continue;
        }
        let library = libraries.enter(name)?;
        if let Some(bytes) = misplaced_appup(&library, plain(app))? {
            library.enter("ebin")?.put(&format!("{}.appup", plain(app)), &bytes, 0o644, site.owner)?;
        }
    }
    Ok(())
}

/// What is laid, and what of it lies in the way.
fn plan(
    site: &Site,
    root: &Folder,
    incoming: &Folder,
    from: &Description<'_>,
    journal: &mut Journal,
) -> Result<(), Fault> {
    let runs: Vec<String> = from.libraries.iter().map(|(app, version)| folder_of(app, version)).collect();
    let (libraries, there) = (incoming.enter("lib")?, root.enter("lib")?);
    let mut paths = vec![format!("releases/{}", site.to)];
    for name in libraries.names()? {
        let Some(name) = name.to_str() else { continue };
        if runs.iter().any(|it| it == name) {
            compare(site, name, &libraries, &there)?;
        } else {
            paths.push(format!("lib/{name}"));
        }
    }
    let script = format!("{}-{}", site.app, site.to);
    if incoming.enter("bin")?.has(&script)? {
        paths.push(format!("bin/{script}"));
    }
    paths.extend(beside::changed(site, root, incoming)?);
    for path in paths {
        let (folder, name) = journal::parent(root, &path)?;
        if folder.has(name)? { journal.replaced.push(path) } else { journal.laid.push(path) }
    }
    Ok(())
}

/// What has the same name and version is taken for the same by OTP, which would then not load it.
fn compare(site: &Site, library: &str, incoming: &Folder, there: &Folder) -> Result<(), Fault> {
    let modules = |of: &Folder| -> Result<Option<(Folder, Vec<std::ffi::OsString>)>, Fault> {
        let library = of.enter(library)?;
        if !library.has("ebin")? {
            return Ok(None);
        }
        let ebin = library.enter("ebin")?;
        let mut names = ebin.names()?;
        names.retain(|it| it.as_encoded_bytes().ends_with(b".beam"));
        Ok(Some((ebin, names)))
    };
    let (new, old) = match (modules(incoming)?, modules(there)?) {
        (Some(new), Some(old)) if new.1 == old.1 => (new, old),
        (None, None) => return Ok(()),
        _ => return Err(other_code(site, library, None)),
    };
    for name in &new.1 {
        let (one, other) = (new.0.read(name, MODULE)?, old.0.read(name, MODULE)?);
        if !matches!((one, other), (Some(one), Some(other)) if is_same_code(&one, &other)) {
            return Err(other_code(site, library, name.to_str()));
        }
    }
    Ok(())
}

fn other_code(site: &Site, library: &str, module: Option<&str>) -> Fault {
    let which = module.map_or_else(String::new, |it| format!(" ({it})"));
    Fault::package(format!(
        "lib/{library} of {} has other code{which} under the same version, which a hot upgrade would not load; \
         give it a version of its own or deploy the release in full",
        site.to
    ))
}

/// By the appups: those of the new release know how to come from the running one, or those of the running one how to go back.
/// Where neither does, by the versions.
fn is_downgrade(
    site: &Site,
    root: &Folder,
    incoming: &Folder,
    from: &Description<'_>,
    to: &Description<'_>,
) -> Result<bool, Fault> {
    let leads = |appup: &Option<Appup>, version: &str, direction| {
        appup.as_ref().is_some_and(|it| it.entry(version, direction).is_some())
    };
    let (mut up, mut down, mut without) = (false, false, [None, None]);
    let (its_way, way_back) = (
        format!("which says how it comes from {} without a restart", site.from),
        format!("which says how it goes back to {} without a restart", site.to),
    );
    for (app, version) in &to.libraries {
        let Some((_, before)) = from.libraries.iter().find(|(it, before)| it == app && before != version)
        else {
            continue;
        };
        let new = appup(incoming, app, version)?;
        let old = appup(root, app, before)?;
        up |= leads(&new, before, Direction::Up);
        down |= leads(&old, version, Direction::Down);
        for (without, (appup, release)) in without.iter_mut().zip([(&new, &site.to), (&old, &site.from)]) {
            if appup.is_none() {
                without.get_or_insert(format!("{} of {release}", plain(app)));
            }
        }
    }
    let down = !up && (down || is_older(&site.to, &site.from));
    let [new, old] = without;
    let (library, way) = if down { (old, way_back) } else { (new, its_way) };
    match library {
        Some(library) => Err(Fault::package(format!(
            "there is no appup for {library}, {way}; add one to the release or deploy it in full"
        ))),
        None => Ok(down),
    }
}

fn appup(of: &Folder, app: &str, version: &str) -> Result<Option<Appup>, Fault> {
    let libraries = of.enter("lib")?;
    let name = folder_of(app, version);
    if !libraries.has(&name)? {
        return Ok(None);
    }
    let library = libraries.enter(&name)?;
    let found = match placed_appup(&library, plain(app))? {
        Some(bytes) => Some(bytes),
        None => misplaced_appup(&library, plain(app))?,
    };
    Ok(found.map(|it| Appup::read(&it)))
}

fn placed_appup(library: &Folder, app: &str) -> Result<Option<Vec<u8>>, Fault> {
    if library.has("ebin")? { library.enter("ebin")?.read(format!("{app}.appup"), SMALL) } else { Ok(None) }
}

/// Where rebar3's plugin leaves it, and OTP does not look for it.
fn misplaced_appup(library: &Folder, app: &str) -> Result<Option<Vec<u8>>, Fault> {
    if !library.has("ebin")? || placed_appup(library, app)?.is_some() || !library.has("priv")? {
        return Ok(None);
    }
    let private = library.enter("priv")?;
    if private.has("appup")? { private.enter("appup")?.read(format!("{app}.appup"), SMALL) } else { Ok(None) }
}

/// Of the running release, whose appups say how to go back from it.
fn appups_to_copy(
    root: &Folder,
    from: &Description<'_>,
    to: &Description<'_>,
    down: bool,
) -> Result<Vec<(String, Vec<u8>)>, Fault> {
    let mut appups = Vec::new();
    for (app, version) in from.libraries.iter().filter(|it| down && !to.libraries.contains(it)) {
        let name = folder_of(app, version);
        let library = root.enter("lib")?.enter(&name)?;
        if let Some(bytes) = misplaced_appup(&library, plain(app))? {
            appups.push((format!("lib/{name}/ebin/{}.appup", plain(app)), bytes));
        }
    }
    Ok(appups)
}

/// The text of what a release is made of.
pub(super) fn description(root: &Folder, site: &Site, version: &str) -> Result<String, Fault> {
    let releases = root.enter("releases")?;
    let missing = || {
        Fault::package(format!(
            "{} has no description (releases/{version}/{}.rel); build it with mix release or rebar3",
            version, site.app
        ))
    };
    if !releases.has(version)? {
        return Err(missing());
    }
    let folder = releases.enter(version)?;
    let own = format!("{}.rel", site.app);
    let bytes = match folder.read(&own, SMALL)? {
        Some(bytes) => bytes,
        None => {
            let names = folder.names()?;
            let other =
                names.iter().find(|it| it.as_encoded_bytes().ends_with(b".rel")).ok_or_else(missing)?;
            folder.read(other, SMALL)?.ok_or_else(missing)?
        }
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// In `lib`.
pub(super) fn folder_of(app: &str, version: &str) -> String {
    format!("{}-{version}", plain(app))
}

pub(super) fn plain(app: &str) -> &str {
    app.trim_matches('\'')
}

/// As versions mostly are compared: numbers first, then whether there is something behind a dash.
fn is_older(one: &str, other: &str) -> bool {
    let split = |version: &str| {
        let (numbers, rest) = version.split_once('-').map_or((version, None), |(it, rest)| (it, Some(rest)));
        let numbers: Vec<u64> = numbers.split('.').map(|it| it.parse().unwrap_or(0)).collect();
        (numbers, rest.is_none(), rest.map(str::to_owned))
    };
    split(one) < split(other)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proto::state::Language;

    use super::*;

    #[test]
    fn the_way_back_is_found_by_what_the_appup_means_and_not_by_what_it_looks_like() {
        let folder = tempfile::tempdir().unwrap();
        let [root, incoming] = ["current", "new"].map(|it| folder.path().join(it));
        let put = |root: &Path, version: &str, appup: Option<&str>| {
            let ebin = root.join(format!("lib/demo-{version}/ebin"));
            std::fs::create_dir_all(&ebin).unwrap();
            appup.inspect(|it| std::fs::write(ebin.join("demo.appup"), it).unwrap());
        };
        put(&root, "9", Some(r#"{"9", [], [{<<"1[0-9]">>, []}]}."#));
        put(&incoming, "10", None);
        let [app, from, to] = ["demo", "9", "10"].map(str::to_owned);
        let (language, owner) = (Language::Erlang, None);
        let site = Site { root: root.clone(), incoming: incoming.clone(), app, language, from, to, owner };
        let rel = |version: &str| {
            format!(r#"{{release,{{"demo","{version}"}},{{erts,"13"}},[{{demo,"{version}"}}]}}."#)
        };
        let [old, new] = [rel("9"), rel("10")];
        let [old, new] = [&old, &new].map(|it| Description::read(it).unwrap());
        let look = || {
            let [root, incoming] = [&root, &incoming].map(|it| Folder::open(it).unwrap());
            is_downgrade(&site, &root, &incoming, &old, &new)
        };
        assert!(look().unwrap(), "to a version that looks newer");
        put(&root, "9", Some(r#"{"9", [{"10", []}], []}."#));
        let fault = look().unwrap_err().to_string();
        assert!(fault.contains("no appup for demo of 10"), "{fault}");
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (older, newer) in
            [("0.9.0", "0.10.0"), ("1.0.0-rc.1", "1.0.0"), ("1.0.0-a", "1.0.0-b"), ("1", "1.1")]
        {
            assert!(is_older(older, newer) && !is_older(newer, older), "{older} {newer}");
        }
        assert!(!is_older("1.0.0", "1.0.0"));
    }
}
