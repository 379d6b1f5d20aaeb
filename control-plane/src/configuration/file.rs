//! The file that the control plane was started with, looked at again and again. What changed in it waits for a person, or with
//! `--auto-apply` is put in force at once; its faults are shown and disturb nothing.

use std::time::Duration;

use proto::configuration::Difference;
use proto::state::Severity;
use tokio_util::sync::CancellationToken;

use super::refused::field_error;
use super::standing::{Relation, relation};
use super::{Asked, Configuration, Refused, Wanted};
use crate::clock::Time;
use crate::config::{Config, Text};
use crate::db::NewEvent;
use crate::error::chain;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// Who is writing it has finished when it is the same after this.
const SETTLED: Duration = Duration::from_millis(200);

/// What it was when it was last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub since: Time,
    pub look: Look,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    Text(Text),
    /// A sentence.
    Unreadable(String),
}

impl Configuration {
    /// Until it is cancelled. Without a file there is nothing to do.
    pub async fn watch_file(self, cancel: CancellationToken) {
        if self.file.is_none() {
            return;
        }
        let look = async {
            loop {
                tokio::time::sleep(EVERY).await;
                self.look().await;
            }
        };
        // One look is one transaction at most: broken off, the next start looks again.
        let _ = Box::pin(cancel.run_until_cancelled(look)).await;
    }

    /// Looks now. Also asked before anything is said of the file, so that who has just written it is answered with that.
    pub async fn look(&self) {
        let _looking = self.looking.lock().await;
        let Some(look) = self.settled().await else { return };
        let is_news = self.seen.borrow().as_ref().is_none_or(|it| it.look != look);
        if is_news {
            self.seen.send_replace(Some(Seen { since: self.clock.wall(), look: look.clone() }));
        }
        let Look::Text(text) = look else { return };
        if let Err(refused) = Box::pin(self.follow(&text, is_news)).await {
            tracing::warn!(error = chain(&refused), "a changed configuration is not in force");
        }
    }

    /// `None`: it is being written.
    async fn settled(&self) -> Option<Look> {
        let look = self.read_file().await?;
        if self.seen.borrow().as_ref().is_some_and(|it| it.look == look) {
            return Some(look);
        }
        tokio::time::sleep(SETTLED).await;
        self.read_file().await.filter(|again| *again == look)
    }

    async fn read_file(&self) -> Option<Look> {
        let path = self.file.clone()?;
        let read = tokio::task::spawn_blocking(move || Config::read_file(&path)).await.ok()?;
        Some(match read {
            Ok(bytes) => Look::Text(Text::from(bytes)),
            Err(error) => Look::Unreadable(error.to_string()),
        })
    }

    async fn follow(&self, text: &Text, is_news: bool) -> Result<(), Refused> {
        let newest = self.newest().await?;
        if relation(text.sha256(), newest.as_ref()) != Relation::Pending || !(is_news || self.auto_apply) {
            return Ok(());
        }
        let base = newest.map_or(0, |it| it.number);
        let path = self.file.as_ref().map(|it| it.display().to_string()).unwrap_or_default();
        let config = match self.read(&Wanted::File, &path, text) {
            Ok(config) => config,
            Err(Refused::Faults(faults)) if is_news => {
                let first = faults.faults.first().map(field_error);
                let first = first.map(|it| format!("{}: {}", it.path, it.message)).unwrap_or_default();
                let text = format!(
                    "{path} has changed and cannot be applied, it has faults; the first: {}",
                    first.trim_start_matches(": ")
                );
                let event = self.config_changed(Severity::Warning, text, &Difference::default());
                return Ok(self.db.record_events(&[event]).await?);
            }
            // Said when it was new.
            Err(Refused::Faults(_)) => return Ok(()),
            Err(other) => return Err(other),
        };
        if is_news {
            let plan = self.planned(&config, base).await?;
            let next = if self.auto_apply { "it is applied" } else { "`deployex apply` applies it" };
            let text = format!("{path} has changed: {}; {next}", plan.difference.counted());
            let event = self.config_changed(Severity::Info, text, &plan.difference);
            self.db.record_events(&[event]).await?;
        }
        if self.auto_apply {
            let asked =
                Asked { by: "auto-apply".to_owned(), base, sha256: Some(text.sha256()), audited: false };
            Box::pin(self.apply(Wanted::File, asked)).await?;
        }
        Ok(())
    }

    fn config_changed(&self, severity: Severity, text: String, difference: &Difference) -> NewEvent {
        let mut event = NewEvent::new(self.clock.wall(), "config_changed", severity, text);
        event.data.insert("changes_count".to_owned(), difference.count().into());
        let mut fields = serde_json::Map::new();
        for app in &difference.applications {
            let prefix = format!("applications[{}]", app.name);
            if app.changes.is_empty() {
                fields.insert(prefix.clone(), app.fate.word().into());
            }
            for change in &app.changes {
                fields.insert(format!("{prefix}.{}", change.key), change.class.word().into());
            }
        }
        for change in &difference.control_plane {
            fields.insert(change.key.clone(), change.class.word().into());
        }
        event.data.insert("fields".to_owned(), fields.into());
        event
    }
}
