//! Restarts that people asked for, or limits that were passed: those that are under way, and what became of the others.

use std::collections::BTreeMap;

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
        ask(tx, app, &RestartWish { generation, ..wish.clone() }).await?;
    }
    Ok(())
}

/// Of a generation that the application has by now.
pub(super) async fn ask(tx: &impl ConnectionTrait, app: &AppName, wish: &RestartWish) -> Result<(), Fault> {
    let row = restart::Model {
        id: wish.id.0,
        app: app.to_string(),
        generation: integer(wish.generation),
        node: wish.node.map(|node| node.0),
        slot: wish.slot.map(slot_number),
        by: wish.by.clone(),
        because: wish.because.clone(),
        at: millis(wish.at),
        finished_at: None,
        failure: None,
    };
    restart::Entity::insert(row.into_active_model()).exec_without_returning(tx).await?;
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

/// When a restart for a limit was given up last, of each application of which one ever was.
pub(super) async fn given_up(connection: &impl ConnectionTrait) -> Result<BTreeMap<AppName, Time>, Fault> {
    let rows = restart::Entity::find()
        .select_only()
        .column(restart::Column::App)
        .column_as(restart::Column::FinishedAt.max(), "given_up")
        .filter(restart::Column::Because.is_not_null())
        .filter(restart::Column::Failure.is_not_null())
        .filter(restart::Column::FinishedAt.is_not_null())
        .group_by(restart::Column::App)
        .into_tuple::<(String, i64)>()
        .all(connection)
        .await?;
    rows.into_iter()
        .map(|(app, at)| {
            let row = Row::new("restarts", &app);
            Ok((row.text("app", &app)?, row.time("finished_at", at)?))
        })
        .collect()
}

/// Each with the limit that it is for, where it is for one.
pub(super) async fn reasons_under_way(
    connection: &impl ConnectionTrait,
) -> Result<BTreeMap<RestartId, Option<String>>, Fault> {
    let rows = restart::Entity::find()
        .select_only()
        .column(restart::Column::Id)
        .column(restart::Column::Because)
        .filter(restart::Column::FinishedAt.is_null())
        .into_tuple::<(uuid::Uuid, Option<String>)>()
        .all(connection)
        .await?;
    Ok(rows.into_iter().map(|(id, because)| (RestartId(id), because)).collect())
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
    let restart::Model { id, app, generation, node, slot, by, because, at, finished_at, failure } = model;
    let row = Row::new("restarts", id);
    let wish = RestartWish {
        id: RestartId(id),
        generation: row.number("generation", generation)?,
        node: node.map(NodeId),
        slot: slot.map(|slot| row.slot("slot", slot)).transpose()?,
        by,
        because,
        at: row.time("at", at)?,
    };
    let finished_at = row.time_or_none("finished_at", finished_at)?;
    Ok(Restart { app: row.text("app", &app)?, wish, finished_at, failure })
}
