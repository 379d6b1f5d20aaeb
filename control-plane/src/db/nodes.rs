//! Nodes: how one joins, what it says of itself, and how it is removed.

mod certificates;
mod generations;

use std::collections::BTreeMap;

use proto::ids::{NodeId, NodeName};
use proto::state::Service;
use sea_orm::sea_query::{CaseStatement, Expr, ExprTrait, LockType};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
};
use serde::{Deserialize, Serialize};

pub use self::certificates::{Certificate, NewCertificate};
pub(super) use self::generations::{all_ids, raise};
use super::connection::Db;
use super::entity::nodes::{assignment, node};
use super::entity::row::{Row, json, millis};
use super::error::{DbError, Fault, doing, missing, taken};
use super::events::{self, AuditEntry, NewEvent};
use super::{ROWS_PER_STATEMENT, access, applications};
use crate::clock::Time;

/// A host that joined and was not removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolledNode {
    pub id: NodeId,
    pub name: NodeName,
    pub labels: BTreeMap<String, String>,
    pub service: Service,
    pub agent_version: String,
    /// Of the host's last boot that its agent reported; empty: it never did.
    pub boot_id: String,
    pub inventory: Option<Inventory>,
    /// Raised with every change of its assignments.
    pub generation: u64,
    pub enrolled_at: Time,
    pub last_seen_at: Option<Time>,
}

/// What an agent says of its host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    pub hostname: String,
    pub os: String,
    pub kernel: String,
    pub arch: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    /// The agent's user; "root" where it can switch users.
    pub user: String,
    /// OTP release of the host's `erl`; empty: none.
    pub erl: String,
    /// What replicas can be limited in there.
    pub limits: Vec<String>,
    /// Why not in all of them; empty: nothing is missing.
    pub limits_fault: String,
}

/// What an agent says when its session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloFacts {
    pub agent_version: String,
    pub boot_id: String,
    pub inventory: Inventory,
}

/// A node that wants to join, with the certificate made for it.
#[derive(Clone, Debug)]
pub struct Enrolment {
    pub id: NodeId,
    pub name: NodeName,
    /// The node's own; the join token's are added and win.
    pub labels: BTreeMap<String, String>,
    pub agent_version: String,
    pub token_hash: [u8; 32],
    pub certificate: NewCertificate,
}

impl Db {
    /// Takes one use from the join token, adds the node and its first certificate: all of it or nothing. `Missing`: the
    /// token is unknown, used up or expired. `Taken`: another node has the name.
    pub async fn enrol(
        &self,
        enrolment: &Enrolment,
        now: Time,
        events: &[NewEvent],
    ) -> Result<EnrolledNode, DbError> {
        doing("enrol a node", async {
            let tx = self.write().await?;
            let Enrolment { id, name, labels, agent_version, token_hash, certificate } = enrolment;
            let mut labels = labels.clone();
            labels.extend(access::consume_join_token(&tx, token_hash, now).await?);
            let row = node::Model {
                id: id.0,
                name: name.to_string(),
                labels: json(&labels)?,
                agent_version: agent_version.clone(),
                boot_id: String::new(),
                inventory: None,
                // Above the 0 of an agent that was told nothing: what concerns every host it is told at once.
                generation: 1,
                enrolled_at: millis(now),
                last_seen_at: None,
                removed_at: None,
                service: Service::Open.word().to_owned(),
            };
            let what = format!("a node named {name}");
            let stored = row.into_active_model().insert(&tx).await.map_err(taken(what))?;
            certificates::insert(&tx, *id, certificate, now).await?;
            events::insert(&tx, events).await?;
            tx.commit().await?;
            parse(stored)
        })
        .await
    }

    /// Removes a node for ever: revokes its certificates, forgets its assignments, gives its name back. What it still runs
    /// is its own affair from here on.
    pub async fn remove_node(
        &self,
        node: NodeId,
        now: Time,
        events: &[NewEvent],
        audit: Option<&AuditEntry>,
    ) -> Result<(), DbError> {
        doing("remove a node", async {
            let tx = self.write().await?;
            hold(&tx, node).await?;
            node::Entity::update_many()
                .col_expr(node::Column::RemovedAt, Expr::value(millis(now)))
                .col_expr(node::Column::Generation, Expr::col(node::Column::Generation).add(1))
                .filter(node::Column::Id.eq(node.0))
                .exec(&tx)
                .await?;
            certificates::revoke_all(&tx, node, now).await?;
            assignment::Entity::delete_many().filter(assignment::Column::Node.eq(node.0)).exec(&tx).await?;
            events::insert(&tx, events).await?;
            events::insert_audit(&tx, audit).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    /// Changes what is planned with a node: its labels, or whether replicas are kept away from it; `None` leaves as it is. A
    /// plan that was made before is not stored. `Missing`: it was removed.
    pub async fn change_node(
        &self,
        node: NodeId,
        labels: Option<&BTreeMap<String, String>>,
        service: Option<Service>,
        event: &NewEvent,
        audit: &AuditEntry,
    ) -> Result<(), DbError> {
        doing("change a node", async {
            let tx = self.write().await?;
            let found = hold(&tx, node).await?;
            let (labels, service) = (labels.unwrap_or(&found.labels), service.unwrap_or(found.service));
            node::Entity::update_many()
                .col_expr(node::Column::Labels, Expr::value(json(labels)?))
                .col_expr(node::Column::Service, Expr::value(service.word()))
                .filter(node::Column::Id.eq(node.0))
                .exec(&tx)
                .await?;
            applications::raise_all_generations(&tx).await?;
            events::insert(&tx, std::slice::from_ref(event)).await?;
            events::insert_audit(&tx, Some(audit)).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    /// By name.
    pub async fn nodes(&self) -> Result<Vec<EnrolledNode>, DbError> {
        doing("list the nodes", async { all(self.reader()).await }).await
    }

    pub async fn node(&self, node: NodeId) -> Result<Option<EnrolledNode>, DbError> {
        doing("read a node", async {
            let row = node::Entity::find_by_id(node.0)
                .filter(node::Column::RemovedAt.is_null())
                .one(self.reader())
                .await?;
            row.map(parse).transpose()
        })
        .await
    }

    pub async fn node_by_name(&self, name: &NodeName) -> Result<Option<EnrolledNode>, DbError> {
        doing("look a node up by its name", async {
            let row = node::Entity::find()
                .filter(node::Column::Name.eq(name.as_str()))
                .filter(node::Column::RemovedAt.is_null())
                .one(self.reader())
                .await?;
            row.map(parse).transpose()
        })
        .await
    }

    /// A session began. `Missing`: the node was removed.
    pub async fn record_hello(&self, node: NodeId, facts: &HelloFacts, now: Time) -> Result<(), DbError> {
        doing("store what an agent said of its host", async {
            let HelloFacts { agent_version, boot_id, inventory } = facts;
            let changed = node::Entity::update_many()
                .col_expr(node::Column::AgentVersion, Expr::value(agent_version.as_str()))
                .col_expr(node::Column::BootId, Expr::value(boot_id.as_str()))
                .col_expr(node::Column::Inventory, Expr::value(json(inventory)?))
                .col_expr(node::Column::LastSeenAt, Expr::value(millis(now)))
                .filter(node::Column::Id.eq(node.0))
                .filter(node::Column::RemovedAt.is_null())
                .exec(self.writer())
                .await?;
            if changed.rows_affected == 0 { Err(missing(format!("node {node}"))) } else { Ok(()) }
        })
        .await
    }

    /// Many at once, because every node is heard all the time: written now and then by whoever knows.
    pub async fn touch_nodes(&self, heard: &[(NodeId, Time)]) -> Result<(), DbError> {
        doing("note when nodes were last heard", async {
            let tx = self.write().await?;
            let mut heard = heard.to_vec();
            // In one order, so that two writers on PostgreSQL never wait for each other.
            heard.sort();
            for batch in heard.chunks(ROWS_PER_STATEMENT) {
                let at = batch.iter().fold(CaseStatement::new(), |case, (node, at)| {
                    case.case(Expr::col(node::Column::Id).eq(node.0), Expr::value(millis(*at)))
                });
                node::Entity::update_many()
                    .col_expr(
                        node::Column::LastSeenAt,
                        at.finally(Expr::col(node::Column::LastSeenAt)).into(),
                    )
                    .filter(node::Column::Id.is_in(batch.iter().map(|(node, _)| node.0)))
                    .exec(&tx)
                    .await?;
            }
            Ok(tx.commit().await?)
        })
        .await
    }
}

pub(super) async fn all(connection: &impl ConnectionTrait) -> Result<Vec<EnrolledNode>, Fault> {
    let rows = node::Entity::find().filter(node::Column::RemovedAt.is_null()).all(connection).await?;
    let mut found = rows.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The node's row, held until the transaction ends.
async fn hold(tx: &impl ConnectionTrait, node: NodeId) -> Result<EnrolledNode, Fault> {
    let row = node::Entity::find_by_id(node.0)
        .filter(node::Column::RemovedAt.is_null())
        .lock(LockType::NoKeyUpdate)
        .one(tx)
        .await?;
    row.map(parse).transpose()?.ok_or_else(|| missing(format!("node {node}")))
}

fn parse(model: node::Model) -> Result<EnrolledNode, Fault> {
    let node::Model {
        id,
        name,
        labels,
        agent_version,
        boot_id,
        inventory,
        generation,
        enrolled_at,
        last_seen_at,
        removed_at: _,
        service,
    } = model;
    let row = Row::new("nodes", id);
    Ok(EnrolledNode {
        id: NodeId(id),
        name: row.text("name", &name)?,
        labels: row.json("labels", &labels)?,
        service: row.word("service", &service, Service::from_word)?,
        agent_version,
        boot_id,
        inventory: inventory.map(|inventory| row.json("inventory", &inventory)).transpose()?,
        generation: row.number("generation", generation)?,
        enrolled_at: row.time("enrolled_at", enrolled_at)?,
        last_seen_at: row.time_or_none("last_seen_at", last_seen_at)?,
    })
}
