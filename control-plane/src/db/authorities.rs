//! Certificate authorities: the agents' and one per application. Keys come and go encrypted; nothing here can read them.

use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
};
use uuid::Uuid;

use super::connection::Db;
use super::entity::access::authority;
use super::entity::row::{Row, millis};
use super::error::{DbError, Fault, doing, missing};
use super::settings;
use crate::clock::Time;

#[derive(Clone, PartialEq, Eq)]
pub struct NewAuthority {
    /// Whom it certifies: `agents`, or `application:{name}`.
    pub kind: String,
    pub certificate_pem: String,
    pub encrypted_key: Vec<u8>,
    pub created_at: Time,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    pub id: Uuid,
    pub kind: String,
    pub certificate_pem: String,
    pub encrypted_key: Vec<u8>,
    pub created_at: Time,
    /// Signs nothing any more, is still trusted.
    pub retired_at: Option<Time>,
}

/// Keys are encrypted and all the same nobody's business in a log.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({} {})", self.kind, self.id)
    }
}

impl Db {
    /// The authorities of a kind, the newest first: the first that is not retired signs, all are trusted.
    pub async fn authorities(&self, kind: &str) -> Result<Vec<Authority>, DbError> {
        doing("read the certificate authorities", async {
            authority::Entity::find()
                .filter(authority::Column::Kind.eq(kind))
                .order_by_desc(authority::Column::Id)
                .all(self.reader())
                .await?
                .into_iter()
                .map(parse)
                .collect()
        })
        .await
    }

    pub async fn add_authority(&self, new: &NewAuthority) -> Result<Authority, DbError> {
        doing("store a certificate authority", async { insert(self.writer(), new).await }).await
    }

    /// Stores it where the kind has none yet, and returns what the kind has: of two programs that start at once on a fresh
    /// database both use the same.
    pub async fn first_authority(&self, new: &NewAuthority) -> Result<Vec<Authority>, DbError> {
        let lock = format!("authority:{}", new.kind);
        doing("store the first certificate authority", async {
            let tx = self.write().await?;
            // Two writers meet at this row on PostgreSQL; on SQLite there is one writer anyhow.
            settings::hold(&tx, &lock).await?;
            let stored = authority::Entity::find()
                .filter(authority::Column::Kind.eq(&new.kind))
                .order_by_desc(authority::Column::Id)
                .all(&tx)
                .await?;
            if !stored.is_empty() {
                return stored.into_iter().map(parse).collect();
            }
            let first = insert(&tx, new).await?;
            tx.commit().await?;
            Ok(vec![first])
        })
        .await
    }

    pub async fn retire_authority(&self, id: Uuid, now: Time) -> Result<(), DbError> {
        doing("retire a certificate authority", async {
            let changed = authority::Entity::update_many()
                .col_expr(authority::Column::RetiredAt, Expr::value(millis(now)))
                .filter(authority::Column::Id.eq(id))
                .exec(self.writer())
                .await?;
            if changed.rows_affected == 0 { Err(missing("such certificate authority")) } else { Ok(()) }
        })
        .await
    }
}

async fn insert(connection: &impl ConnectionTrait, new: &NewAuthority) -> Result<Authority, Fault> {
    let NewAuthority { kind, certificate_pem, encrypted_key, created_at } = new.clone();
    let row = authority::Model {
        id: Uuid::now_v7(),
        kind,
        certificate: certificate_pem,
        encrypted_key,
        created_at: millis(created_at),
        retired_at: None,
    };
    parse(row.into_active_model().insert(connection).await?)
}

fn parse(model: authority::Model) -> Result<Authority, Fault> {
    let authority::Model { id, kind, certificate, encrypted_key, created_at, retired_at } = model;
    let row = Row::new("authorities", id);
    Ok(Authority {
        id,
        kind,
        certificate_pem: certificate,
        encrypted_key,
        created_at: row.time("created_at", created_at)?,
        retired_at: row.time_or_none("retired_at", retired_at)?,
    })
}
