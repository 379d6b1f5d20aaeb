//! Sign-ins that last: found by the hash of what the browser holds.

use sea_orm::sea_query::Expr;
use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder};
use uuid::Uuid;

use super::users::{self, User};
use crate::clock::Time;
use crate::db::connection::Db;
use crate::db::entity::access::{session, user};
use crate::db::entity::row::{Row, millis};
use crate::db::error::{DbError, Fault, doing, missing};
use crate::db::events::{self, AuditEntry};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSession {
    pub hash: [u8; 32],
    pub user: String,
    pub created_at: Time,
    pub expires_at: Time,
    pub address: String,
    pub user_agent: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: Uuid,
    pub user: String,
    pub created_at: Time,
    pub last_used_at: Time,
    pub expires_at: Time,
    pub address: String,
    pub user_agent: String,
}

impl Db {
    pub async fn add_session(
        &self,
        new: &NewSession,
        audit: Option<&AuditEntry>,
    ) -> Result<Session, DbError> {
        doing("begin a session", async {
            let NewSession { hash, user, created_at, expires_at, address, user_agent } = new.clone();
            let row = session::Model {
                id: Uuid::now_v7(),
                hash: hash.to_vec(),
                user_name: user,
                created_at: millis(created_at),
                last_used_at: millis(created_at),
                expires_at: millis(expires_at),
                address,
                user_agent,
            };
            let tx = self.write().await?;
            let stored = row.into_active_model().insert(&tx).await?;
            events::insert_audit(&tx, audit).await?;
            tx.commit().await?;
            parse(stored)
        })
        .await
    }

    /// The session and its user, where it has not expired.
    pub async fn session(&self, hash: &[u8; 32], now: Time) -> Result<Option<(Session, User)>, DbError> {
        doing("look a session up", async {
            let tx = self.read().await?;
            let found = session::Entity::find()
                .filter(session::Column::Hash.eq(hash.to_vec()))
                .filter(session::Column::ExpiresAt.gt(millis(now)))
                .one(&tx)
                .await?;
            let Some(row) = found else { return Ok(None) };
            let Some(user) = user::Entity::find_by_id(&row.user_name).one(&tx).await? else {
                return Ok(None);
            };
            Ok(Some((parse(row)?, users::parse(user)?)))
        })
        .await
    }

    /// It was used; it may be given longer.
    pub async fn touch_session(&self, id: Uuid, now: Time, expires_at: Time) -> Result<(), DbError> {
        doing("note that a session was used", async {
            session::Entity::update_many()
                .col_expr(session::Column::LastUsedAt, Expr::value(millis(now)))
                .col_expr(session::Column::ExpiresAt, Expr::value(millis(expires_at)))
                .filter(session::Column::Id.eq(id))
                .exec(self.writer())
                .await?;
            Ok(())
        })
        .await
    }

    /// The newest first; of one user or of all.
    pub async fn sessions(&self, user: Option<&str>, now: Time) -> Result<Vec<Session>, DbError> {
        doing("list the sessions", async {
            let mut query = session::Entity::find()
                .filter(session::Column::ExpiresAt.gt(millis(now)))
                .order_by_desc(session::Column::Id);
            if let Some(user) = user {
                query = query.filter(session::Column::UserName.eq(user));
            }
            query.all(self.reader()).await?.into_iter().map(parse).collect()
        })
        .await
    }

    pub async fn end_session(&self, id: Uuid, audit: Option<&AuditEntry>) -> Result<(), DbError> {
        doing("end a session", async {
            let tx = self.write().await?;
            let deleted = session::Entity::delete_by_id(id).exec(&tx).await?;
            if deleted.rows_affected == 0 {
                return Err(missing(format!("session {id}")));
            }
            events::insert_audit(&tx, audit).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    /// Forgets the expired ones; returns how many.
    pub async fn forget_expired_sessions(&self, now: Time) -> Result<u64, DbError> {
        doing("forget expired sessions", async {
            let deleted = session::Entity::delete_many()
                .filter(session::Column::ExpiresAt.lte(millis(now)))
                .exec(self.writer())
                .await?;
            Ok(deleted.rows_affected)
        })
        .await
    }
}

fn parse(model: session::Model) -> Result<Session, Fault> {
    let session::Model { id, hash: _, user_name, created_at, last_used_at, expires_at, address, user_agent } =
        model;
    let row = Row::new("sessions", id);
    Ok(Session {
        id,
        user: user_name,
        created_at: row.time("created_at", created_at)?,
        last_used_at: row.time("last_used_at", last_used_at)?,
        expires_at: row.time("expires_at", expires_at)?,
        address,
        user_agent,
    })
}
