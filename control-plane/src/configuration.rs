//! The configuration as desired state: what is in force, what the file would change, and putting another one in force while
//! everything runs.
//!
//! ```text
//!   the file, CLI, API, console ──text──▶ plan ──▶ apply ──▶ a new version, applications, settings: one transaction
//!                                                              │
//!                              agents, planner, bucket watch ◀─┘ told once it is stored
//! ```
//!
//! What differs and when it counts is decided in `config`; which of file and version counts, in `standing`. Both are pure.

mod file;
mod refused;
mod standing;
pub mod start;
mod view;

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use proto::configuration::{Applied, Difference, Origin, Plan};
use proto::ids::{AppName, Digest, NodeId};
use proto::state::Severity;
use tokio::sync::{Mutex, watch};

pub use self::file::{Look, Seen};
pub use self::refused::Refused;
use self::start::{BeginError, Start};
pub(crate) use self::view::summary;
use crate::clock::Clock;
use crate::config::apply::{self, Secrets, Wish, own};
use crate::config::{
    CannotEdit, Config, DatabaseUrl, Fault, Faults, Origin as FaultOrigin, Reading, SecretsFrom, Text, scaled,
};
use crate::db::{AuditEntry, ConfigurationVersion, Db, NewEvent, NewVersion, PageRequest, SealedVersion};
use crate::listen;
use crate::vault::{Purpose, Vault, VaultError};

/// Whom a new configuration concerns.
pub trait Told: Send + Sync {
    /// It is stored. These nodes are told something else by now; the planner may have to act.
    fn told(&self, nodes: &BTreeSet<NodeId>);
}

/// A handle; clones share it.
#[derive(Clone)]
pub struct Configuration(Arc<Parts>);

pub struct Parts {
    pub db: Db,
    pub clock: Clock,
    pub vault: Arc<Vault>,
    pub secrets: Arc<dyn Secrets>,
    pub told: Arc<dyn Told>,
    pub reading: Reading,
    /// What is looked at; `None`: the program was started without a file.
    pub file: Option<PathBuf>,
    /// A changed file is applied by itself.
    pub auto_apply: bool,
    /// What this program was started with.
    pub began: Began,
    seen: watch::Sender<Option<Seen>>,
    looking: Mutex<()>,
    applied: watch::Sender<u64>,
}

/// What does not change while the program runs, whatever is applied.
pub struct Began {
    own: own::Sheet,
    database_url: DatabaseUrl,
    secrets: SecretsFrom,
}

impl Began {
    pub fn with(config: &Config) -> Self {
        let Config { database_url, secrets, .. } = config;
        Self { own: own::sheet(config), database_url: database_url.clone(), secrets: secrets.clone() }
    }
}

/// What a [`Configuration`] is made of.
pub struct NewConfiguration {
    pub db: Db,
    pub clock: Clock,
    pub vault: Arc<Vault>,
    pub secrets: Arc<dyn Secrets>,
    pub told: Arc<dyn Told>,
    pub reading: Reading,
    pub file: Option<PathBuf>,
    /// What that held when the program started.
    pub text: Option<Text>,
    pub began: Began,
}

/// What is to be put in force.
#[derive(Debug)]
pub enum Wanted {
    Text {
        text: Text,
        origin: Origin,
    },
    /// What the file holds, as it was last looked at.
    File,
    /// An earlier version.
    Version(u64),
}

/// Who wants it, and what he saw of it.
#[derive(Debug)]
pub struct Asked {
    pub by: String,
    /// The version that it was planned against.
    pub base: u64,
    /// Of the text that was planned; `None`: nobody looked.
    pub sha256: Option<Digest>,
    /// A person: it is remembered who.
    pub audited: bool,
}

impl Deref for Configuration {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Configuration {
    pub fn new(new: NewConfiguration) -> Self {
        let NewConfiguration { db, clock, vault, secrets, told, reading, file, text, began } = new;
        let seen = text.map(|text| Seen { since: clock.wall(), look: Look::Text(text) });
        let auto_apply = reading.flags().auto_apply;
        Self(Arc::new(Parts {
            db,
            clock,
            vault,
            secrets,
            told,
            reading,
            file,
            auto_apply,
            began,
            seen: watch::Sender::new(seen),
            looking: Mutex::default(),
            applied: watch::Sender::new(0),
        }))
    }

    /// Rises with every configuration that is put in force.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// What would count if the program began anew. `file`: as flags, variables and file say now.
    pub async fn at_next_start(
        &self,
        file: Config,
        secrets: &crate::secrets::Secrets,
    ) -> Result<Config, BeginError> {
        Start::config_of_next(file, secrets, self).await
    }

    /// What applying the text would do, against what is in force now.
    pub async fn plan(&self, text: &Text, name: &str) -> Result<Plan, Refused> {
        let config = self.read(&Wanted::Text { text: text.clone(), origin: Origin::Api }, name, text)?;
        let base = self.newest().await?.map_or(0, |it| it.number);
        self.planned(&config, base).await
    }

    async fn planned(&self, config: &Config, base: u64) -> Result<Plan, Refused> {
        let (difference, entangled) = apply::difference(config, &self.db).await?;
        let own = config.notices.iter().cloned().chain(config.not_yet_in_force());
        let notices = entangled.iter().map(apply::entangled_notice).chain(own).collect();
        Ok(Plan { base, sha256: config.text.sha256(), difference, notices })
    }

    /// Puts another configuration in force: all of it or nothing, and only while `base` still is.
    pub async fn apply(&self, wanted: Wanted, asked: Asked) -> Result<Applied, Refused> {
        let (text, name, origin) = self.text_of(&wanted).await?;
        if asked.sha256.is_some_and(|sha256| sha256 != text.sha256()) {
            return Err(Refused::OtherText { name });
        }
        let config = self.read(&wanted, &name, &text)?;
        self.check_certificate(&config, &name).await?;
        let newest = self.newest().await?;
        let base = newest.as_ref().map_or(0, |it| it.number);
        if base != asked.base {
            return Err(self.outrun(asked.base).await?);
        }
        if newest.is_some_and(|it| it.sha256 == text.sha256()) {
            let sentence = format!("Version {base} is in force already.");
            let awaits_restart = apply::awaits_restart(&self.began.own, &self.db).await?;
            return Ok(Applied { number: base, difference: Difference::default(), awaits_restart, sentence });
        }
        let (changes, entangled) = apply::difference(&config, &self.db).await?;
        let number = base.saturating_add(1);
        let version = NewVersion {
            base,
            text: sealed(&self.vault, number, &text)?,
            sha256: text.sha256(),
            file_sha256: self.file_sha256(),
            by: asked.by.clone(),
            origin,
            changes: changes.clone(),
        };
        let wish = self.wish(&asked, &version, number);
        let done = match apply::apply(&config, &self.db, &*self.secrets, Some(version), wish).await {
            Err(error) if error.is_conflict() => return Err(self.outrun(asked.base).await?),
            other => other?,
        };
        self.told.told(&done.nodes);
        self.applied.send_modify(|count| *count = count.wrapping_add(1));
        let awaits_restart = apply::awaits_restart(&self.began.own, &self.db).await?;
        let sentence = view::said_of(number, &changes, &entangled, &awaits_restart);
        Ok(Applied { number, difference: changes, awaits_restart, sentence })
    }

    /// Puts what is in force in force once more, with another number of replicas of one application. Whatever else is written there
    /// stays as it is.
    pub async fn scale(
        &self,
        app: &AppName,
        count: NonZeroU16,
        by: String,
        origin: Origin,
    ) -> Result<Applied, Refused> {
        let none = || CannotEdit::NoApplication(app.clone());
        let newest = self.db.newest_configuration().await?.ok_or_else(none)?;
        let text = scaled(&unsealed(&self.vault, &newest)?, app, count)?;
        let asked = Asked { by, base: newest.version.number, sha256: None, audited: true };
        Box::pin(self.apply(Wanted::Text { text, origin }, asked)).await
    }

    fn wish(&self, asked: &Asked, version: &NewVersion, number: u64) -> Wish {
        let (by, now) = (asked.by.clone(), self.clock.wall());
        let what = match version.origin {
            Origin::Restore(earlier) => {
                format!("restored version {earlier} of the configuration as version {number}")
            }
            origin => format!("applied version {number} of the configuration ({origin})"),
        };
        let text = format!("{by} {what}: {}", version.changes.counted());
        let mut headline = NewEvent::new(now, "configuration_applied", Severity::Info, text);
        headline.data.insert("version".to_owned(), number.into());
        let action = match version.origin {
            Origin::Restore(_) => "configuration.restore",
            _ => "configuration.apply",
        };
        let audit = asked.audited.then(|| AuditEntry {
            at: now,
            who: by.clone(),
            what: action.to_owned(),
            object: format!("version {number}"),
            detail: format!("{} ({})", version.changes.counted(), version.origin),
        });
        Wish { by, at_start: false, audit, headline: Some(headline), now, planned_at: self.clock.now() }
    }

    /// The text, what it is called in messages, and where it comes from.
    async fn text_of(&self, wanted: &Wanted) -> Result<(Text, String, Origin), Refused> {
        match wanted {
            Wanted::Text { text, origin } => Ok((text.clone(), "the configuration".to_owned(), *origin)),
            Wanted::File => {
                let path = self.file.as_ref().ok_or(Refused::NoFile)?.display().to_string();
                match self.seen.borrow().as_ref().map(|it| &it.look) {
                    Some(Look::Text(text)) => Ok((text.clone(), path, Origin::File)),
                    Some(Look::Unreadable(why)) => Err(Refused::FileUnreadable { path, why: why.clone() }),
                    None => Err(Refused::NoFile),
                }
            }
            Wanted::Version(number) => {
                let sealed = self.db.configuration(*number).await?;
                let sealed = sealed.ok_or(Refused::NoVersion { number: *number })?;
                let text = unsealed(&self.vault, &sealed)?;
                Ok((text, format!("version {number}"), Origin::Restore(*number)))
            }
        }
    }

    /// What the database is and where secrets come from, is read before the database is: only the file can change it.
    fn read(&self, wanted: &Wanted, name: &str, text: &Text) -> Result<Config, Refused> {
        let config = self.reading.read(name, text)?;
        let of_file = matches!(wanted, Wanted::File) || self.file_sha256() == Some(text.sha256());
        let Began { own: _, database_url, secrets } = &self.began;
        let others = [
            ("database_url", config.database_url.expose() != database_url.expose()),
            ("secrets_adapter", config.secrets.adapter != secrets.adapter),
            ("secrets_path", config.secrets.path != secrets.path),
        ];
        let fault = |key: &str| Fault {
            origin: FaultOrigin::WholeFile,
            path: key.to_owned(),
            found: "another value than the one in use".to_owned(),
            advice:
                "it is read before the database is: change it where `deployex serve` reads it at its start"
                    .to_owned(),
        };
        let faults: Vec<Fault> =
            others.iter().filter(|(_, differs)| *differs && !of_file).map(|(key, _)| fault(key)).collect();
        if faults.is_empty() {
            return Ok(config);
        }
        Err(Faults { file: Some(name.to_owned()), faults }.into())
    }

    /// The next start would refuse it, and nobody would know why it does not come back.
    async fn check_certificate(&self, config: &Config, name: &str) -> Result<(), Refused> {
        let Some(files) = config.console.tls.clone() else { return Ok(()) };
        let checked = tokio::task::spawn_blocking(move || listen::check(&files)).await;
        let Ok(Err(error)) = checked else { return Ok(()) };
        let fault = Fault {
            origin: FaultOrigin::WholeFile,
            path: "tls".to_owned(),
            found: crate::error::chain(&error),
            advice: "certificate and key must be there and belong together".to_owned(),
        };
        Err(Faults { file: Some(name.to_owned()), faults: vec![fault] }.into())
    }

    async fn newest(&self) -> Result<Option<ConfigurationVersion>, Refused> {
        Ok(self.db.newest_configuration().await?.map(|it| it.version))
    }

    /// Who came first.
    async fn outrun(&self, base: u64) -> Result<Refused, Refused> {
        let page = self.db.configurations(PageRequest::newest(PageRequest::<u64>::MAX)).await?;
        let between = page.items.into_iter().filter(|it| it.number > base).collect();
        Ok(Refused::Outrun { base, between })
    }

    fn file_sha256(&self) -> Option<Digest> {
        match self.seen.borrow().as_ref().map(|it| &it.look) {
            Some(Look::Text(text)) => Some(text.sha256()),
            _ => None,
        }
    }
}

fn context(number: u64) -> String {
    format!("configurations/{number}")
}

fn sealed(vault: &Vault, number: u64, text: &Text) -> Result<Vec<u8>, VaultError> {
    vault.seal(Purpose::Settings, &context(number), text.bytes())
}

fn unsealed(vault: &Vault, sealed: &SealedVersion) -> Result<Text, VaultError> {
    let plain = vault.unseal(Purpose::Settings, &context(sealed.version.number), &sealed.text)?;
    Ok(Text::from(plain.as_slice()))
}
