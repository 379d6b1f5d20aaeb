//! Certificates of nodes: each is remembered by its serial, so that it can be revoked.

use std::collections::BTreeMap;

use proto::ids::NodeId;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
};

use super::hold;
use crate::clock::Time;
use crate::db::connection::Db;
use crate::db::entity::nodes::certificate;
use crate::db::entity::row::{Row, millis};
use crate::db::error::{DbError, Fault, doing, taken};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCertificate {
    /// Lower-case hex.
    pub serial: String,
    pub not_after: Time,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub serial: String,
    pub node: NodeId,
    pub issued_at: Time,
    pub not_after: Time,
    pub revoked_at: Option<Time>,
}

impl Db {
    /// Another certificate for a node that was not removed. The ones before it stay valid until they expire.
    pub async fn renew_certificate(
        &self,
        node: NodeId,
        certificate: &NewCertificate,
        now: Time,
    ) -> Result<(), DbError> {
        doing("renew a node's certificate", async {
            let tx = self.write().await?;
            hold(&tx, node).await?;
            insert(&tx, node, certificate, now).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    /// A certificate of ours by its serial; one that we do not know was never issued by this database.
    pub async fn certificate(&self, serial: &str) -> Result<Option<Certificate>, DbError> {
        doing("look a certificate up", async {
            let row = certificate::Entity::find_by_id(serial).one(self.reader()).await?;
            row.map(parse).transpose()
        })
        .await
    }

    /// When the newest certificate of each node ends; those that were revoked do not count.
    pub async fn certificates_end(&self) -> Result<BTreeMap<NodeId, Time>, DbError> {
        doing("read when certificates end", async {
            let rows = certificate::Entity::find()
                .select_only()
                .column(certificate::Column::Node)
                .column_as(certificate::Column::NotAfter.max(), "ends")
                .filter(certificate::Column::RevokedAt.is_null())
                .group_by(certificate::Column::Node)
                .into_tuple::<(uuid::Uuid, i64)>()
                .all(self.reader())
                .await?;
            let ends =
                |(node, ends)| Ok((NodeId(node), Row::new("certificates", node).time("not_after", ends)?));
            rows.into_iter().map(ends).collect()
        })
        .await
    }

    /// Whether a certificate no longer counts: revoked, or unknown.
    pub async fn is_revoked(&self, serial: &str) -> Result<bool, DbError> {
        Ok(self.certificate(serial).await?.is_none_or(|certificate| certificate.revoked_at.is_some()))
    }
}

pub(super) async fn insert(
    tx: &impl ConnectionTrait,
    node: NodeId,
    certificate: &NewCertificate,
    now: Time,
) -> Result<(), Fault> {
    let NewCertificate { serial, not_after } = certificate;
    let row = certificate::Model {
        serial: serial.clone(),
        node: node.0,
        issued_at: millis(now),
        not_after: millis(*not_after),
        revoked_at: None,
    };
    let what = format!("a certificate with the serial {serial}");
    row.into_active_model().insert(tx).await.map_err(taken(what))?;
    Ok(())
}

pub(super) async fn revoke_all(tx: &impl ConnectionTrait, node: NodeId, now: Time) -> Result<(), Fault> {
    certificate::Entity::update_many()
        .col_expr(certificate::Column::RevokedAt, Expr::value(millis(now)))
        .filter(certificate::Column::Node.eq(node.0))
        .filter(certificate::Column::RevokedAt.is_null())
        .exec(tx)
        .await?;
    Ok(())
}

fn parse(model: certificate::Model) -> Result<Certificate, Fault> {
    let certificate::Model { serial, node, issued_at, not_after, revoked_at } = model;
    let row = Row::new("certificates", &serial);
    Ok(Certificate {
        node: NodeId(node),
        issued_at: row.time("issued_at", issued_at)?,
        not_after: row.time("not_after", not_after)?,
        revoked_at: row.time_or_none("revoked_at", revoked_at)?,
        serial,
    })
}
