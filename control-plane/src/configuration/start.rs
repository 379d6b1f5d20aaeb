//! What a start puts in force: found out before any port is bound, from the file and from what the database remembers.

use proto::configuration::{Difference, Origin};
use proto::ids::Digest;

use super::standing::{Counts, at_start};
use super::{Parts, sealed, unsealed};
use crate::clock::Clock;
use crate::config::apply::{self, ApplyError, Secrets, Wish};
use crate::config::{Config, Faults, Reading, Text};
use crate::db::{ConfigurationVersion, Db, DbError, NewVersion, SealedVersion};
use crate::secrets::Secrets as LoadedSecrets;
use crate::vault::{Vault, VaultError};

/// Who put a configuration in force that nobody asked for.
pub const BY_START: &str = "start";

#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("what is in force cannot be opened")]
    Vault(#[from] VaultError),
    #[error(
        "version {number} of the configuration, which {by} applied, is in force and cannot be read any more; mend the file that \
         `deployex serve` is started with: a file that changed counts"
    )]
    Faults {
        number: u64,
        by: String,
        #[source]
        faults: Faults,
    },
}

/// What counts.
#[derive(Clone, Debug)]
pub struct Start {
    pub config: Config,
    /// What the file holds that the program was started with.
    pub file: Option<Text>,
    /// In force before.
    newest: Option<ConfigurationVersion>,
    counts: Counts,
}

impl Start {
    /// `file`: as flags, variables and file say. `vault`: where there may be a database already.
    pub async fn decide(file: Config, reading: &Reading, vault: Option<&Vault>) -> Result<Self, BeginError> {
        let newest = match vault {
            Some(_) => Db::peek_at_configuration(file.database_url.expose()).await?,
            None => None,
        };
        Self::of(file, reading, newest, vault)
    }

    /// `newest`: what was put in force last, in the database that the file names.
    fn of(
        file: Config,
        reading: &Reading,
        newest: Option<SealedVersion>,
        vault: Option<&Vault>,
    ) -> Result<Self, BeginError> {
        let text = file.file.is_some().then(|| file.text.clone());
        let counts = at_start(text.as_ref().map(Text::sha256), newest.as_ref().map(|it| &it.version));
        let config = match (&newest, vault, counts) {
            (Some(newest), Some(vault), Counts::Version) => in_force(&file, reading, vault, newest)?,
            _ => file,
        };
        Ok(Self { config, file: text, newest: newest.map(|it| it.version), counts })
    }

    /// What a start with this file would put in force, as far as this program's database tells: one that moves elsewhere with
    /// it is not asked.
    pub(super) async fn config_of_next(
        file: Config,
        secrets: &LoadedSecrets,
        now: &Parts,
    ) -> Result<Config, BeginError> {
        // Beside SQLite the key may lie where the data lies, and stays there.
        let kept = secrets.secret_key_base.is_none() && file.database_url.is_sqlite();
        let key = if kept { None } else { Some(Vault::open(secrets.secret_key_base.as_ref(), None)?) };
        if file.database_url.expose() != now.began.database_url.expose() {
            return Ok(file);
        }
        let newest = now.db.newest_configuration().await?;
        // Whatever counts, what is sealed there must open.
        let vault = key.as_ref().unwrap_or(&now.vault);
        if let Some(newest) = &newest {
            unsealed(vault, newest)?;
        }
        Ok(Self::of(file, &now.reading, newest, Some(vault))?.config)
    }

    /// What stays in force although the file says something else.
    pub fn overrides(&self) -> Option<&ConfigurationVersion> {
        self.newest.as_ref().filter(|_| self.counts == Counts::Version)
    }

    /// Puts it in force.
    pub async fn apply(
        &self,
        db: &Db,
        vault: &Vault,
        secrets: &dyn Secrets,
        clock: Clock,
    ) -> Result<(), ApplyError> {
        let sha256 = self.config.text.sha256();
        let is_known = self.newest.as_ref().is_some_and(|it| it.sha256 == sha256);
        let version = if is_known || self.counts == Counts::Version {
            None
        } else {
            let (changes, _) = apply::difference(&self.config, db).await?;
            Some(self.version(vault, sha256, changes)?)
        };
        let (now, planned_at) = (clock.wall(), clock.now());
        let wish =
            Wish { by: BY_START.to_owned(), at_start: true, audit: None, headline: None, now, planned_at };
        apply::apply(&self.config, db, secrets, version, wish).await?;
        Ok(())
    }

    fn version(&self, vault: &Vault, sha256: Digest, changes: Difference) -> Result<NewVersion, VaultError> {
        let base = self.newest.as_ref().map_or(0, |it| it.number);
        Ok(NewVersion {
            base,
            text: sealed(vault, base.saturating_add(1), &self.config.text)?,
            sha256,
            file_sha256: self.file.as_ref().map(Text::sha256),
            by: BY_START.to_owned(),
            origin: Origin::File,
            changes,
        })
    }
}

/// What the database and the secrets are, was needed to come so far: of these the file is right.
fn in_force(
    file: &Config,
    reading: &Reading,
    vault: &Vault,
    newest: &SealedVersion,
) -> Result<Config, BeginError> {
    let (number, by) = (newest.version.number, newest.version.by.clone());
    let text = unsealed(vault, newest)?;
    let config = reading.read(&format!("version {number}"), &text).map_err(|faults| BeginError::Faults {
        number,
        by,
        faults,
    })?;
    let Config { file, data_dir, database_url, secrets, .. } = file.clone();
    Ok(Config { file, data_dir, database_url, secrets, ..config })
}
