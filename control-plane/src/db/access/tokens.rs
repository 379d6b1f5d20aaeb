//! Tokens: for programs that use the API, and for nodes that join. Shown once to whoever made them, stored hashed.

use std::collections::BTreeMap;

use proto::ids::TokenId;
use proto::state::Role;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder,
};
use uuid::Uuid;

use crate::clock::Time;
use crate::db::connection::Db;
use crate::db::entity::access::api_token;
use crate::db::entity::nodes::join_token;
use crate::db::entity::row::{Row, json, millis};
use crate::db::error::{DbError, Fault, doing, missing, taken};
use crate::db::events::{self, AuditEntry, NewEvent};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewApiToken {
    pub name: String,
    pub hash: [u8; 32],
    pub role: Role,
    pub created_at: Time,
    /// `None`: never.
    pub expires_at: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    pub id: TokenId,
    pub name: String,
    pub role: Role,
    pub created_at: Time,
    pub expires_at: Option<Time>,
    pub last_used_at: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJoinToken {
    pub hash: [u8; 32],
    pub uses: u16,
    /// Given to every node that joins with it.
    pub labels: BTreeMap<String, String>,
    pub created_by: String,
    pub created_at: Time,
    pub expires_at: Time,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    pub id: TokenId,
    pub uses_left: u16,
    pub labels: BTreeMap<String, String>,
    pub created_by: String,
    pub created_at: Time,
    pub expires_at: Time,
}

impl Db {
    pub async fn add_api_token(
        &self,
        new: &NewApiToken,
        events: &[NewEvent],
        audit: Option<&AuditEntry>,
    ) -> Result<ApiToken, DbError> {
        doing("create a token", async {
            let NewApiToken { name, hash, role, created_at, expires_at } = new.clone();
            let what = format!("a token named {name}");
            let row = api_token::Model {
                id: Uuid::now_v7(),
                name,
                hash: hash.to_vec(),
                role: role.word().to_owned(),
                created_at: millis(created_at),
                expires_at: expires_at.map(millis),
                last_used_at: None,
            };
            let tx = self.write().await?;
            let stored = row.into_active_model().insert(&tx).await.map_err(taken(what))?;
            events::insert(&tx, events).await?;
            events::insert_audit(&tx, audit).await?;
            tx.commit().await?;
            parse_api(stored)
        })
        .await
    }

    /// The token with this hash, where it has not expired.
    pub async fn api_token(&self, hash: &[u8; 32], now: Time) -> Result<Option<ApiToken>, DbError> {
        doing("look a token up", async {
            let alive = Condition::any()
                .add(api_token::Column::ExpiresAt.is_null())
                .add(api_token::Column::ExpiresAt.gt(millis(now)));
            let row = api_token::Entity::find()
                .filter(api_token::Column::Hash.eq(hash.to_vec()))
                .filter(alive)
                .one(self.reader())
                .await?;
            row.map(parse_api).transpose()
        })
        .await
    }

    /// Oldest first, expired ones too.
    pub async fn api_tokens(&self) -> Result<Vec<ApiToken>, DbError> {
        doing("list the tokens", async {
            let rows =
                api_token::Entity::find().order_by_asc(api_token::Column::Id).all(self.reader()).await?;
            rows.into_iter().map(parse_api).collect()
        })
        .await
    }

    pub async fn touch_api_token(&self, id: TokenId, now: Time) -> Result<(), DbError> {
        doing("note that a token was used", async {
            api_token::Entity::update_many()
                .col_expr(api_token::Column::LastUsedAt, Expr::value(millis(now)))
                .filter(api_token::Column::Id.eq(id.0))
                .exec(self.writer())
                .await?;
            Ok(())
        })
        .await
    }

    pub async fn revoke_api_token(
        &self,
        id: TokenId,
        events: &[NewEvent],
        audit: Option<&AuditEntry>,
    ) -> Result<(), DbError> {
        doing("revoke a token", async {
            let tx = self.write().await?;
            let deleted = api_token::Entity::delete_by_id(id.0).exec(&tx).await?;
            if deleted.rows_affected == 0 {
                return Err(missing(format!("token {id}")));
            }
            events::insert(&tx, events).await?;
            events::insert_audit(&tx, audit).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    /// The object of the audit is the token's id, which is made here.
    pub async fn add_join_token(
        &self,
        new: &NewJoinToken,
        events: &[NewEvent],
        audit: Option<AuditEntry>,
    ) -> Result<JoinToken, DbError> {
        doing("create a join token", async {
            let NewJoinToken { hash, uses, labels, created_by, created_at, expires_at } = new.clone();
            let row = join_token::Model {
                id: Uuid::now_v7(),
                hash: hash.to_vec(),
                uses_left: i32::from(uses),
                labels: json(&labels)?,
                created_by,
                created_at: millis(created_at),
                expires_at: millis(expires_at),
            };
            let audit = audit.map(|entry| AuditEntry { object: row.id.to_string(), ..entry });
            let tx = self.write().await?;
            let stored = row.into_active_model().insert(&tx).await?;
            events::insert(&tx, events).await?;
            events::insert_audit(&tx, audit.as_ref()).await?;
            tx.commit().await?;
            parse_join(stored)
        })
        .await
    }

    /// Those that can still be used, the oldest first.
    pub async fn join_tokens(&self, now: Time) -> Result<Vec<JoinToken>, DbError> {
        doing("list the join tokens", async {
            let rows = join_token::Entity::find()
                .filter(join_token::Column::UsesLeft.gt(0))
                .filter(join_token::Column::ExpiresAt.gt(millis(now)))
                .order_by_asc(join_token::Column::Id)
                .all(self.reader())
                .await?;
            rows.into_iter().map(parse_join).collect()
        })
        .await
    }

    /// Forgets used-up and expired ones; returns how many.
    pub async fn forget_dead_join_tokens(&self, now: Time) -> Result<u64, DbError> {
        doing("forget join tokens that cannot be used", async {
            let dead = Condition::any()
                .add(join_token::Column::UsesLeft.lte(0))
                .add(join_token::Column::ExpiresAt.lte(millis(now)));
            let deleted = join_token::Entity::delete_many().filter(dead).exec(self.writer()).await?;
            Ok(deleted.rows_affected)
        })
        .await
    }
}

/// Takes one use, in one statement, so that the last use goes to one node alone; returns the token's labels.
pub(in crate::db) async fn consume_join_token(
    tx: &impl ConnectionTrait,
    hash: &[u8; 32],
    now: Time,
) -> Result<BTreeMap<String, String>, Fault> {
    let taken = join_token::Entity::update_many()
        .col_expr(join_token::Column::UsesLeft, Expr::col(join_token::Column::UsesLeft).sub(1))
        .filter(join_token::Column::Hash.eq(hash.to_vec()))
        .filter(join_token::Column::UsesLeft.gt(0))
        .filter(join_token::Column::ExpiresAt.gt(millis(now)))
        .exec(tx)
        .await?;
    let unusable = || missing("join token like this (unknown, used up or expired)");
    if taken.rows_affected == 0 {
        return Err(unusable());
    }
    let row = join_token::Entity::find().filter(join_token::Column::Hash.eq(hash.to_vec())).one(tx).await?;
    Ok(parse_join(row.ok_or_else(unusable)?)?.labels)
}

fn parse_api(model: api_token::Model) -> Result<ApiToken, Fault> {
    let api_token::Model { id, name, hash: _, role, created_at, expires_at, last_used_at } = model;
    let row = Row::new("api_tokens", id);
    Ok(ApiToken {
        id: TokenId(id),
        name,
        role: row.word("role", &role, Role::from_word)?,
        created_at: row.time("created_at", created_at)?,
        expires_at: row.time_or_none("expires_at", expires_at)?,
        last_used_at: row.time_or_none("last_used_at", last_used_at)?,
    })
}

fn parse_join(model: join_token::Model) -> Result<JoinToken, Fault> {
    let join_token::Model { id, hash: _, uses_left, labels, created_by, created_at, expires_at } = model;
    let row = Row::new("join_tokens", id);
    Ok(JoinToken {
        id: TokenId(id),
        uses_left: u16::try_from(uses_left).map_err(|error| row.corrupt("uses_left", error))?,
        labels: row.json("labels", &labels)?,
        created_by,
        created_at: row.time("created_at", created_at)?,
        expires_at: row.time("expires_at", expires_at)?,
    })
}
