//! Generations of nodes: raised with everything that changes what a node is told, in the transaction that changes it.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::NodeId;
use sea_orm::sea_query::{Expr, ExprTrait, LockType};
use sea_orm::{ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use crate::db::ROWS_PER_STATEMENT;
use crate::db::entity::nodes::node;
use crate::db::entity::row::Row;
use crate::db::error::Fault;

/// Every node that was not removed.
pub(in crate::db) async fn all_ids(tx: &impl ConnectionTrait) -> Result<BTreeSet<NodeId>, Fault> {
    let ids = node::Entity::find()
        .select_only()
        .column(node::Column::Id)
        .filter(node::Column::RemovedAt.is_null())
        .into_tuple::<uuid::Uuid>()
        .all(tx)
        .await?;
    Ok(ids.into_iter().map(NodeId).collect())
}

/// One more for each, in the order of their ids, so that two transactions for the same nodes never wait for each other.
/// Nodes that were removed are not in the answer.
pub(in crate::db) async fn raise(
    tx: &impl ConnectionTrait,
    nodes: BTreeSet<NodeId>,
) -> Result<BTreeMap<NodeId, u64>, Fault> {
    let nodes: Vec<NodeId> = nodes.into_iter().collect();
    let mut generations = BTreeMap::new();
    for batch in nodes.chunks(ROWS_PER_STATEMENT) {
        let present = Condition::all()
            .add(node::Column::Id.is_in(batch.iter().map(|node| node.0)))
            .add(node::Column::RemovedAt.is_null());
        let held = node::Entity::find()
            .filter(present.clone())
            .order_by_asc(node::Column::Id)
            .lock(LockType::NoKeyUpdate)
            .all(tx)
            .await?;
        node::Entity::update_many()
            .col_expr(node::Column::Generation, Expr::col(node::Column::Generation).add(1))
            .filter(present)
            .exec(tx)
            .await?;
        for row in held {
            let before = Row::new("nodes", row.id).number("generation", row.generation)?;
            generations.insert(NodeId(row.id), before + 1);
        }
    }
    Ok(generations)
}
