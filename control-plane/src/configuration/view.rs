//! The configuration as the API shows it.

use std::collections::BTreeSet;

use proto::configuration::{
    Change, Class, Configuration as View, Difference, FileState, Version, VersionSummary, WatchedFile,
};
use proto::ids::AppName;

use super::refused::field_error;
use super::standing::{Relation, relation};
use super::{Configuration, Look, Refused, Wanted, unsealed};
use crate::config::{Text, apply};
use crate::db::ConfigurationVersion;

impl Configuration {
    /// What is in force, what the file says, and what waits.
    pub async fn view(&self) -> Result<View, Refused> {
        self.look().await;
        let newest = self.newest().await?;
        let seen = self.seen.borrow().clone();
        let file = match (&self.file, seen) {
            (Some(path), Some(seen)) => {
                let path = path.display().to_string();
                let state = match seen.look {
                    Look::Text(text) => self.state(&path, &text, newest.as_ref()).await?,
                    Look::Unreadable(why) => FileState::Unreadable { why },
                };
                Some(WatchedFile { path, since: seen.since.into(), state })
            }
            _ => None,
        };
        let awaits_restart = apply::awaits_restart(&self.began.own, &self.db).await?;
        Ok(View { in_force: newest.map(summary), file, auto_apply: self.auto_apply, awaits_restart })
    }

    async fn state(
        &self,
        path: &str,
        text: &Text,
        newest: Option<&ConfigurationVersion>,
    ) -> Result<FileState, Refused> {
        let relation = relation(text.sha256(), newest);
        if relation == Relation::InForce {
            return Ok(FileState::InForce);
        }
        let base = newest.map_or(0, |it| it.number);
        let plan = match self.read(&Wanted::File, path, text) {
            Ok(config) => self.planned(&config, base).await?,
            Err(Refused::Faults(faults)) => {
                return Ok(FileState::Faulty { faults: faults.faults.iter().map(field_error).collect() });
            }
            Err(other) => return Err(other),
        };
        Ok(match relation {
            Relation::Overridden => FileState::Overridden { plan },
            _ => FileState::Pending { plan },
        })
    }

    /// `None`: there is none of that number. `masked`: for who may not see secrets.
    pub async fn version(&self, number: u64, masked: bool) -> Result<Option<Version>, Refused> {
        let Some(sealed) = self.db.configuration(number).await? else { return Ok(None) };
        let text = unsealed(&self.vault, &sealed)?;
        let yaml = if masked { text.masked() } else { text.written() };
        Ok(Some(Version { summary: summary(sealed.version), yaml, masked }))
    }
}

pub(crate) fn summary(version: ConfigurationVersion) -> VersionSummary {
    let ConfigurationVersion { number, sha256, file_sha256: _, by, at, origin, changes } = version;
    VersionSummary { number, sha256, by, at: at.into(), origin, changes }
}

/// For who applied it.
pub(super) fn said_of(
    number: u64,
    changes: &Difference,
    entangled: &BTreeSet<AppName>,
    awaits_restart: &[Change],
) -> String {
    let mut sentences = vec![format!("Version {number} is in force: {}.", changes.counted())];
    sentences.extend(entangled.iter().map(|app| format!("{}.", apply::entangled_notice(app))));
    let replaced: Vec<&str> = changes
        .applications
        .iter()
        .filter(|app| app.changes.iter().any(|it| it.class == Class::FullDeploy))
        .filter(|app| !entangled.contains(&app.name))
        .map(|app| app.name.as_str())
        .collect();
    if !replaced.is_empty() {
        sentences.push(format!("Every replica of {} is replaced, one by one.", replaced.join(", ")));
    }
    let waits: Vec<&str> = awaits_restart.iter().map(|it| it.key.as_str()).collect();
    match waits.as_slice() {
        [] => {}
        [one] => sentences.push(format!("{one} waits for a restart of the control plane.")),
        many => sentences.push(format!("{} wait for a restart of the control plane.", many.join(", "))),
    }
    sentences.join(" ")
}
