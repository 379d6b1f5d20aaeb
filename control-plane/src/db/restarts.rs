//! Restarts that people asked for: those that are under way, and what became of the others.

use std::collections::BTreeSet;

use proto::ids::{AppName, NodeId, RestartId};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect, Set,
};

use super::applications;
use super::connection::Db;
use super::entity::restarts::restart;
use super::entity::row::{Row, integer, millis, slot_number};
use super::error::{DbError, Fault, doing};
use super::events::{self, AuditEntry, NewEvent};
use crate::clock::Time;
use crate::fleet::RestartWish;
use crate::rollout::RestartOver;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    pub app: AppName,
    pub wish: RestartWish,
    pub finished_at: Option<Time>,
    /// Why not all of it was done, a sentence.
    pub failure: Option<String>,
}

impl Db {
    /// Stores the wishes, all or none, with the generation to which each raises its application; a plan that was made before
    /// is no longer stored. `Missing`: no such application.
    pub async fn ask_for_restarts(
        &self,
        wishes: &[(AppName, RestartWish)],
        events: &[NewEvent],
        audit: Option<&AuditEntry>,
    ) -> Result<(), DbError> {
        doing("store the wish for a restart", async {
            let tx = self.write().await?;
            insert(&tx, wishes).await?;
            events::insert(&tx, events).await?;
            events::insert_audit(&tx, audit).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    pub async fn restart(&self, id: RestartId) -> Result<Option<Restart>, DbError> {
        doing("read a restart", async {
            restart::Entity::find_by_id(id.0).one(self.reader()).await?.map(parse).transpose()
        })
        .await
    }
}

/// Within a transaction of whatever makes them necessary.
pub(super) async fn insert(
    tx: &impl ConnectionTrait,
    wishes: &[(AppName, RestartWish)],
) -> Result<(), Fault> {
    for (app, wish) in wishes {
        applications::raise_generation(tx, app).await?;
        let generation = applications::hold(tx, app).await?.generation;
        let row = restart::Model {
            id: wish.id.0,
            app: app.to_string(),
            generation: integer(generation),
            node: wish.node.map(|node| node.0),
            slot: wish.slot.map(slot_number),
            by: wish.by.clone(),
            at: millis(wish.at),
            finished_at: None,
            failure: None,
        };
        restart::Entity::insert(row.into_active_model()).exec_without_returning(tx).await?;
    }
    Ok(())
}

/// The oldest first.
pub(super) async fn under_way(connection: &impl ConnectionTrait) -> Result<Vec<Restart>, Fault> {
    let rows = restart::Entity::find()
        .filter(restart::Column::FinishedAt.is_null())
        .order_by_asc(restart::Column::Generation)
        .all(connection)
        .await?;
    rows.into_iter().map(parse).collect()
}

pub(super) async fn ids_under_way(connection: &impl ConnectionTrait) -> Result<BTreeSet<RestartId>, Fault> {
    let ids = restart::Entity::find()
        .select_only()
        .column(restart::Column::Id)
        .filter(restart::Column::FinishedAt.is_null())
        .into_tuple::<uuid::Uuid>()
        .all(connection)
        .await?;
    Ok(ids.into_iter().map(RestartId).collect())
}

pub(super) async fn end(tx: &impl ConnectionTrait, over: &RestartOver, now: Time) -> Result<(), Fault> {
    let row = restart::ActiveModel {
        id: Set(over.id.0),
        finished_at: Set(Some(millis(now))),
        failure: Set(over.failure.clone()),
        ..Default::default()
    };
    restart::Entity::update(row).exec(tx).await?;
    Ok(())
}

fn parse(model: restart::Model) -> Result<Restart, Fault> {
    let restart::Model { id, app, generation, node, slot, by, at, finished_at, failure } = model;
    let row = Row::new("restarts", id);
    let wish = RestartWish {
        id: RestartId(id),
        generation: row.number("generation", generation)?,
        node: node.map(NodeId),
        slot: slot.map(|slot| row.slot("slot", slot)).transpose()?,
        by,
        at: row.time("at", at)?,
    };
    let finished_at = row.time_or_none("finished_at", finished_at)?;
    Ok(Restart { app: row.text("app", &app)?, wish, finished_at, failure })
}
