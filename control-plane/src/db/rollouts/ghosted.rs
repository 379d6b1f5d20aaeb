//! Releases that failed to become stable: not deployed again until a person clears them.

use proto::ids::{AppName, ReleaseKey, RolloutId, Version};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder};

use crate::clock::Time;
use crate::db::applications;
use crate::db::connection::Db;
use crate::db::entity::rollouts::ghosted;
use crate::db::entity::row::{Row, digest_bytes, json, millis};
use crate::db::error::{DbError, Fault, doing};
use crate::db::events::{self, AuditEntry, NewEvent};
use crate::rollout::{Evidence, Ghost};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ghosted {
    pub app: AppName,
    pub ghost: Ghost,
    pub at: Time,
}

impl Db {
    /// Of one application or of all, the newest first.
    pub async fn ghosted(&self, app: Option<&AppName>) -> Result<Vec<Ghosted>, DbError> {
        doing("list the ghosted releases", async {
            let mut query = ghosted::Entity::find();
            if let Some(app) = app {
                query = query.filter(ghosted::Column::App.eq(app.as_str()));
            }
            let rows = query.order_by_desc(ghosted::Column::At).all(self.reader()).await?;
            rows.into_iter().map(parse).collect()
        })
        .await
    }

    /// Clears all that are ghosted, or those of one version alone; returns which. Events and audit are stored if there were any.
    pub async fn clear_ghosted(
        &self,
        app: &AppName,
        version: Option<&Version>,
        events: &[NewEvent],
        audit: Option<&AuditEntry>,
    ) -> Result<Vec<ReleaseKey>, DbError> {
        doing("clear ghosted releases", async {
            let tx = self.write().await?;
            applications::hold(&tx, app).await?;
            let mut query = ghosted::Entity::find().filter(ghosted::Column::App.eq(app.as_str()));
            let mut delete = ghosted::Entity::delete_many().filter(ghosted::Column::App.eq(app.as_str()));
            if let Some(version) = version {
                query = query.filter(ghosted::Column::Version.eq(version.as_str()));
                delete = delete.filter(ghosted::Column::Version.eq(version.as_str()));
            }
            let mut cleared = Vec::new();
            for row in query.all(&tx).await? {
                cleared.push(parse(row)?.ghost.release);
            }
            if !cleared.is_empty() {
                delete.exec(&tx).await?;
                applications::raise_generation(&tx, app).await?;
                events::insert(&tx, events).await?;
                events::insert_audit(&tx, audit).await?;
            }
            tx.commit().await?;
            cleared.sort();
            Ok(cleared)
        })
        .await
    }
}

pub(in crate::db) async fn all(connection: &impl ConnectionTrait) -> Result<Vec<Ghosted>, Fault> {
    ghosted::Entity::find().all(connection).await?.into_iter().map(parse).collect()
}

/// The newest reason counts where it is ghosted already.
pub(in crate::db) async fn insert(
    tx: &impl ConnectionTrait,
    app: &AppName,
    ghost: &Ghost,
    now: Time,
) -> Result<(), Fault> {
    let Ghost { release, rollout, reason, evidence } = ghost;
    let row = ghosted::Model {
        app: app.to_string(),
        version: release.version.to_string(),
        sha256: digest_bytes(&release.sha256),
        reason: reason.clone(),
        evidence: json(evidence)?,
        rollout: rollout.map(|rollout| rollout.0),
        at: millis(now),
    };
    ghosted::Entity::insert(row.into_active_model())
        .on_conflict(
            OnConflict::columns([ghosted::Column::App, ghosted::Column::Version, ghosted::Column::Sha256])
                .update_columns([
                    ghosted::Column::Reason,
                    ghosted::Column::Evidence,
                    ghosted::Column::Rollout,
                    ghosted::Column::At,
                ])
                .to_owned(),
        )
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

fn parse(model: ghosted::Model) -> Result<Ghosted, Fault> {
    let ghosted::Model { app, version, sha256, reason, evidence, rollout, at } = model;
    let row = Row::new("ghosted_releases", format!("{app} {version}"));
    Ok(Ghosted {
        app: row.text("app", &app)?,
        ghost: Ghost {
            release: row.key(&version, &sha256)?,
            rollout: rollout.map(RolloutId),
            reason,
            evidence: row.json::<Evidence>("evidence", &evidence)?,
        },
        at: row.time("at", at)?,
    })
}
