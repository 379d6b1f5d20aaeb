//! A person holds a rollout up, or lets it go on.

use proto::ids::RolloutId;
use proto::state::RolloutPhase;
use sea_orm::{ConnectionTrait, EntityTrait};

use super::{parse, store};
use crate::db::applications;
use crate::db::connection::Db;
use crate::db::entity::rollouts::rollout;
use crate::db::error::{DbError, Fault, doing, missing};
use crate::db::events::{self, AuditEntry, NewEvent};
use crate::rollout::{Paused, Rollout};

impl Db {
    /// Pauses a rollout that moves, or (`None`) resumes it; a plan that was made before is not stored. `Conflict`: it moves no
    /// more, or is as it is to be.
    pub async fn set_paused(
        &self,
        id: RolloutId,
        paused: Option<&Paused>,
        event: &NewEvent,
        audit: &AuditEntry,
    ) -> Result<(), DbError> {
        doing("pause or resume a rollout", async {
            let tx = self.write().await?;
            let app = find(&tx, id).await?.app;
            applications::hold(&tx, &app).await?;
            // Once more, now that nobody else decides for it.
            let mut found = find(&tx, id).await?;
            let moves = matches!(found.phase, RolloutPhase::Pending | RolloutPhase::Running);
            if !moves || found.progress.paused.is_some() == paused.is_some() {
                return Err(Fault::Conflict(format!("rollout {id}")));
            }
            found.progress.paused = paused.cloned();
            store(&tx, &found).await?;
            applications::raise_generation(&tx, &app).await?;
            events::insert(&tx, std::slice::from_ref(event)).await?;
            events::insert_audit(&tx, Some(audit)).await?;
            Ok(tx.commit().await?)
        })
        .await
    }
}

async fn find(tx: &impl ConnectionTrait, id: RolloutId) -> Result<Rollout, Fault> {
    let found = rollout::Entity::find_by_id(id.0).one(tx).await?.map(parse).transpose()?;
    found.ok_or_else(|| missing(format!("rollout {id}")))
}
