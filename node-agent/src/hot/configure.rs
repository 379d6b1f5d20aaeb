//! The runtime configuration of the new release: Elixir's is resolved on the node and applied by the install, relx's is rendered
//! into the file that the install reads.

use super::folder::Folder;
use super::node::{PATIENCE, ask, chars, evaluate, odd, path, standing};
use super::{Fault, Site, blocking, journal, lay, relx};
use crate::dist::connection::Connection;
use crate::dist::term::Term;
use crate::releases::otp::Description;
use proto::state::Language;

/// What is kept on the node is kept under this and the version.
pub(super) const KEY: &str = "deployex_hot_upgrade";
const CONFIGURE: &str = include_str!("configure.erl");
const KEPT: &str = "persistent_term:get({deployex_hot_upgrade, To}, none) =/= none.";
/// Of a template.
const MOST: u64 = 4 << 20;

pub(super) async fn configure(connection: &Connection, site: &Site) -> Result<(), Fault> {
    if standing(connection, &site.to, PATIENCE).await?.runs(&site.to) {
        return Ok(());
    }
    match site.language {
        Language::Erlang => render(connection, site).await,
        _ => resolve(connection, site).await,
    }
}

/// Whether an install would find what it applies: a VM that was restarted meanwhile has lost it.
pub(super) async fn is_kept(connection: &Connection, site: &Site) -> Result<bool, Fault> {
    let doing = "looking for the runtime configuration on the node";
    let answer = evaluate(connection, doing, KEPT, vec![("To", chars(&site.to))], PATIENCE).await;
    Ok(answer.map_err(|it| it.fault(doing))?.as_atom() == Some("true"))
}

async fn resolve(connection: &Connection, site: &Site) -> Result<(), Fault> {
    let doing = format!("resolving the runtime configuration of {}", site.to);
    let theirs = site.clone();
    let ebins = blocking(move || new_code(&theirs)).await?;
    let given = vec![
        ("Ebins", Term::List(ebins.iter().map(|it| chars(it)).collect())),
        ("From", chars(&site.from)),
        ("Relup", path(&site.of_release(&site.to, "relup"))),
        ("SysConfig", path(&site.of_release(&site.to, "sys.config"))),
        ("To", chars(&site.to)),
    ];
    let answer =
        evaluate(connection, &doing, CONFIGURE, given, PATIENCE).await.map_err(|it| it.fault(&doing))?;
    if matches!(answer.as_atom(), Some("ok" | "none")) {
        return Ok(());
    }
    let words = |it: &Term| it.as_text().unwrap_or_else(|| it.brief().to_string());
    Err(match (answer.as_atom(), answer.as_tuple()) {
        (Some("no_sys_config"), _) => Fault::package(format!(
            "releases/{}/sys.config cannot be read; build the release with mix release",
            site.to
        )),
        (_, Some([tag, why])) => match tag.as_atom() {
            Some("failed") => Fault::package(format!(
                "{doing} failed: {}; correct its runtime.exs or its environment, or deploy it in full",
                words(why)
            )),
            Some("changed") => Fault::package(format!(
                "{doing}: its configuration provider {} is another one than the running release's, which would be asked; \
                 deploy it in full",
                words(why)
            )),
            Some("not_written") => Fault::here(format!(
                "{doing}: the node could not write releases/{}/relup: {}",
                site.to,
                words(why)
            )),
            _ => odd(&doing, &answer),
        },
        _ => odd(&doing, &answer),
    })
}

/// Folders with code that the running release has not.
fn new_code(site: &Site) -> Result<Vec<String>, Fault> {
    let root = Folder::open(&site.root)?;
    let text = lay::description(&root, site, &site.from)?;
    let unreadable = || Fault::package("a .rel of the release cannot be read");
    let from = Description::read(&text).ok_or_else(unreadable)?;
    let text = lay::description(&root, site, &site.to)?;
    let to = Description::read(&text).ok_or_else(unreadable)?;
    let new = to.libraries.iter().filter(|it| !from.libraries.contains(it));
    let ebin = |(app, version): &(&str, &str)| {
        site.root.join("lib").join(lay::folder_of(app, version)).join("ebin").to_string_lossy().into_owned()
    };
    Ok(new.map(ebin).collect())
}

/// As the release's start script would, with the environment that the VM was started with.
async fn render(connection: &Connection, site: &Site) -> Result<(), Fault> {
    let doing = format!("rendering the configuration of {}", site.to);
    let environment = ask(connection, &doing, ("os", "getenv", Vec::new()), PATIENCE).await?;
    let environment: Vec<(String, String)> = environment
        .as_list()
        .ok_or_else(|| odd(&doing, &environment))?
        .iter()
        .filter_map(|it| {
            it.as_text()?.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect();
    let theirs = site.clone();
    let has_config = blocking(move || {
        let folder = Folder::open(&theirs.root)?.enter("releases")?.enter(&theirs.to)?;
        render_file(&folder, "vm.args", &theirs, &environment)?;
        render_file(&folder, "sys.config", &theirs, &environment)?;
        folder.has("sys.config")
    })
    .await?;
    if !has_config {
        return Ok(());
    }
    let file = site.of_release(&site.to, "sys.config");
    let read = ask(connection, &doing, ("file", "consult", vec![path(&file)]), PATIENCE).await?;
    match read.as_tuple() {
        Some([ok, _]) if ok.as_atom() == Some("ok") => Ok(()),
        _ => Err(Fault::here(format!(
            "{doing}: releases/{}/sys.config is no configuration once the environment is put in; \
             give the application the variables that it names",
            site.to
        ))),
    }
}

fn render_file(
    folder: &Folder,
    name: &str,
    site: &Site,
    environment: &[(String, String)],
) -> Result<(), Fault> {
    let value = |name: &str| environment.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str());
    let template = match folder.read(format!("{name}.src"), MOST)? {
        Some(template) => template,
        None if value("RELX_REPLACE_OS_VARS").is_some_and(|it| !it.is_empty()) => {
            let original = format!("{name}.orig");
            match (folder.read(&original, MOST)?, folder.read(name, MOST)?) {
                (Some(original), _) => original,
                (None, Some(template)) => {
                    folder.put(&original, &template, 0o600, site.owner)?;
                    template
                }
                (None, None) => return Ok(()),
            }
        }
        None => return Ok(()),
    };
    let rendered = relx::render(&String::from_utf8_lossy(&template), value);
    folder.put(name, rendered.as_bytes(), 0o600, site.owner)
}

/// The journal says what was laid; nothing is configured for what was not.
pub(super) fn is_laid(site: &Site) -> Result<bool, Fault> {
    Ok(journal::pending(&site.root)?.is_some_and(|it| it.to == site.to))
}
