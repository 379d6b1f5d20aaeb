//! What is kept of a rollout for people: written with the plans of it, and read for its page alone.

use proto::ids::RolloutId;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, Set};

use crate::db::connection::Db;
use crate::db::entity::rollouts::{rollout_batch, rollout_record};
use crate::db::entity::row::{Row, json};
use crate::db::error::{DbError, Fault, doing};
use crate::rollout::{Drawn, EndedNode, Record, Recorded, Runs};

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutRecord {
    /// In the order in which they were drawn.
    pub drawn: Vec<Drawn>,
    /// Pre-commands that passed.
    pub ran: Option<Runs>,
    /// In the order in which they are visited; empty: it has not ended, or an earlier version has not kept it.
    pub ended: Vec<EndedNode>,
}

impl Db {
    pub async fn rollout_record(&self, id: RolloutId) -> Result<RolloutRecord, DbError> {
        doing("read what is kept of a rollout", async {
            let batches = rollout_batch::Entity::find()
                .filter(rollout_batch::Column::Rollout.eq(id.0))
                .order_by_asc(rollout_batch::Column::Number)
                .all(self.reader())
                .await?;
            let drawn = batches.into_iter().map(parse).collect::<Result<_, _>>()?;
            let found = rollout_record::Entity::find_by_id(id.0).one(self.reader()).await?;
            let Some(rollout_record::Model { rollout: _, ran, ended }) = found else {
                return Ok(RolloutRecord { drawn, ..RolloutRecord::default() });
            };
            let row = Row::new("rollout_records", id);
            let ran = ran.map(|text| row.json("ran", &text)).transpose()?;
            let ended = ended.map(|text| row.json("ended", &text)).transpose()?.unwrap_or_default();
            Ok(RolloutRecord { drawn, ran, ended })
        })
        .await
    }
}

pub(in crate::db) async fn write(tx: &impl ConnectionTrait, recorded: &Recorded) -> Result<(), Fault> {
    let Recorded { rollout, what } = recorded;
    let mut record = rollout_record::ActiveModel { rollout: Set(rollout.0), ..Default::default() };
    let column = match what {
        Record::Drawn(drawn) => return write_batch(tx, *rollout, drawn).await,
        Record::Ran(ran) => {
            record.ran = Set(Some(json(ran)?));
            rollout_record::Column::Ran
        }
        Record::Ended(nodes) => {
            record.ended = Set(Some(json(nodes)?));
            rollout_record::Column::Ended
        }
    };
    rollout_record::Entity::insert(record)
        .on_conflict(OnConflict::column(rollout_record::Column::Rollout).update_column(column).to_owned())
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

async fn write_batch(tx: &impl ConnectionTrait, rollout: RolloutId, drawn: &Drawn) -> Result<(), Fault> {
    let Drawn { number, canary, nodes } = drawn;
    let row = rollout_batch::ActiveModel {
        rollout: Set(rollout.0),
        number: Set(i32::try_from(*number).unwrap_or(i32::MAX)),
        canary: Set(*canary),
        nodes: Set(json(nodes)?),
    };
    rollout_batch::Entity::insert(row)
        .on_conflict(
            OnConflict::columns([rollout_batch::Column::Rollout, rollout_batch::Column::Number])
                .update_columns([rollout_batch::Column::Canary, rollout_batch::Column::Nodes])
                .to_owned(),
        )
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

fn parse(model: rollout_batch::Model) -> Result<Drawn, Fault> {
    let rollout_batch::Model { rollout, number, canary, nodes } = model;
    let row = Row::new("rollout_batches", format!("{rollout} {number}"));
    let number = u32::try_from(row.number("number", number.into())?).unwrap_or(u32::MAX);
    Ok(Drawn { number, canary, nodes: row.json("nodes", &nodes)? })
}
