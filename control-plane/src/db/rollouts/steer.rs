//! A person holds a rollout up, lets it go on, or gives it up.

use proto::ids::RolloutId;
use sea_orm::{ConnectionTrait, EntityTrait};

use super::{parse, store};
use crate::db::applications;
use crate::db::connection::Db;
use crate::db::entity::rollouts::rollout;
use crate::db::error::{DbError, Fault, doing, missing};
use crate::db::events::{self, AuditEntry, NewEvent};
use crate::rollout::{Held, Rollout, Said, Steering};

impl Db {
    /// Does to a rollout what a person asks; a plan that was made before is not stored. The inner error says why it cannot be
    /// done: nothing was written then.
    pub async fn steer_rollout(
        &self,
        id: RolloutId,
        steering: Steering,
        said: Said,
        event: &NewEvent,
        audit: &AuditEntry,
    ) -> Result<Result<(), Held>, DbError> {
        doing("steer a rollout", async {
            let tx = self.write().await?;
            let app = find(&tx, id).await?.app;
            applications::hold(&tx, &app).await?;
            // Once more, now that nobody else decides for it.
            let steered = match find(&tx, id).await?.steered(steering, said) {
                Ok(steered) => steered,
                Err(held) => return Ok(Err(held)),
            };
            store(&tx, &steered).await?;
            applications::raise_generation(&tx, &app).await?;
            events::insert(&tx, std::slice::from_ref(event)).await?;
            events::insert_audit(&tx, Some(audit)).await?;
            tx.commit().await?;
            Ok(Ok(()))
        })
        .await
    }
}

async fn find(tx: &impl ConnectionTrait, id: RolloutId) -> Result<Rollout, Fault> {
    let found = rollout::Entity::find_by_id(id.0).one(tx).await?.map(parse).transpose()?;
    found.ok_or_else(|| missing(format!("rollout {id}")))
}
