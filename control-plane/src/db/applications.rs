//! Applications: what they are to be, whose word for a release counts, and which release is in force.

mod configuration;

use std::collections::BTreeMap;

use proto::ids::{AppName, NodeId, ReleaseKey};
use sea_orm::sea_query::{Expr, ExprTrait, LockType};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

pub use self::configuration::{ApplicationsDiff, NewApplication};
use super::connection::Db;
use super::entity::applications::application;
use super::entity::row::{Row, millis, sha256_of, version_of};
use super::error::{DbError, Fault, UnknownWord, doing, missing};
use super::events::{self, AuditEntry, NewEvent};
use crate::clock::Time;
use crate::spec::AppSpec;

/// Where an application's settings come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `deployex.yaml` owns it.
    Yaml,
    Api,
}

impl Source {
    fn word(self) -> &'static str {
        match self {
            Self::Yaml => "yaml",
            Self::Api => "api",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Yaml, Self::Api].into_iter().find(|it| it.word() == word)
    }
}

/// A release that a person asked for; it counts until the bucket names another, or for ever where it is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualWish {
    pub release: ReleaseKey,
    pub by: String,
    pub pinned: bool,
    pub at: Time,
}

#[derive(Clone, PartialEq)]
pub struct Application {
    pub spec: AppSpec,
    /// `false`: it was removed from the configuration; its row stays for its history.
    pub configured: bool,
    pub source: Source,
    pub manual: Option<ManualWish>,
    pub in_force: Option<ReleaseKey>,
    /// Random, one per application, encrypted by the caller.
    pub cookie: Vec<u8>,
    /// Raised by whatever a plan is made from: settings, wishes, ghosts, plans.
    pub generation: u64,
    pub created_at: Time,
    pub updated_at: Time,
    /// [`AppFleet::placed`](crate::fleet::AppFleet::placed).
    pub placed: BTreeMap<NodeId, u16>,
}

impl std::fmt::Debug for Application {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Application")
            .field("spec", &self.spec)
            .field("configured", &self.configured)
            .field("manual", &self.manual)
            .field("in_force", &self.in_force)
            .finish_non_exhaustive()
    }
}

impl Db {
    /// Configured or not, by name.
    pub async fn applications(&self) -> Result<Vec<Application>, DbError> {
        doing("list the applications", async { all(self.reader()).await }).await
    }

    pub async fn application(&self, app: &AppName) -> Result<Option<Application>, DbError> {
        doing("read an application", async {
            let row = application::Entity::find_by_id(app.as_str()).one(self.reader()).await?;
            row.map(parse).transpose()
        })
        .await
    }

    /// A person asks for a release, or (`None`) takes the wish or pin back. The release must be recorded.
    pub async fn set_manual_wish(
        &self,
        app: &AppName,
        wish: Option<&ManualWish>,
        events: &[NewEvent],
        audit: Option<&AuditEntry>,
    ) -> Result<(), DbError> {
        doing("store the wish for a release", async {
            let tx = self.write().await?;
            hold(&tx, app).await?;
            if let Some(wish) = wish {
                super::releases::must_be_recorded(&tx, app, &wish.release).await?;
            }
            write_manual_wish(&tx, app, wish).await?;
            events::insert(&tx, events).await?;
            events::insert_audit(&tx, audit).await?;
            Ok(tx.commit().await?)
        })
        .await
    }
}

/// The application's row, held until the transaction ends: whoever else decides something for it waits. (On SQLite every
/// writer waits for the one before it anyhow.)
pub(super) async fn hold(tx: &impl ConnectionTrait, app: &AppName) -> Result<Application, Fault> {
    let row = application::Entity::find_by_id(app.as_str()).lock(LockType::NoKeyUpdate).one(tx).await?;
    row.map(parse).transpose()?.ok_or_else(|| missing(format!("application {app}")))
}

/// Something of a node changed, which any application may be planned from.
pub(super) async fn raise_all_generations(tx: &impl ConnectionTrait) -> Result<(), Fault> {
    application::Entity::update_many()
        .col_expr(application::Column::Generation, Expr::col(application::Column::Generation).add(1))
        .exec(tx)
        .await?;
    Ok(())
}

/// Something that plans are made from changed: a plan made before is no longer stored.
pub(super) async fn raise_generation(tx: &impl ConnectionTrait, app: &AppName) -> Result<(), Fault> {
    let raised = application::Entity::update_many()
        .col_expr(application::Column::Generation, Expr::col(application::Column::Generation).add(1))
        .filter(application::Column::Name.eq(app.as_str()))
        .exec(tx)
        .await?;
    if raised.rows_affected == 0 { Err(missing(format!("application {app}"))) } else { Ok(()) }
}

pub(super) async fn all(connection: &impl ConnectionTrait) -> Result<Vec<Application>, Fault> {
    let rows = application::Entity::find().order_by_asc(application::Column::Name).all(connection).await?;
    let mut found = rows.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    // Engines differ in how they order text.
    found.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    Ok(found)
}

pub(super) async fn write_manual_wish(
    tx: &impl ConnectionTrait,
    app: &AppName,
    wish: Option<&ManualWish>,
) -> Result<(), Fault> {
    let release = wish.map(|wish| &wish.release);
    let changed = application::Entity::update_many()
        .col_expr(application::Column::WishVersion, Expr::value(version_of(release)))
        .col_expr(application::Column::WishSha256, Expr::value(sha256_of(release)))
        .col_expr(application::Column::WishBy, Expr::value(wish.map(|wish| wish.by.clone())))
        .col_expr(application::Column::WishPinned, Expr::value(wish.is_some_and(|wish| wish.pinned)))
        .col_expr(application::Column::WishAt, Expr::value(wish.map(|wish| millis(wish.at))))
        .col_expr(application::Column::Generation, Expr::col(application::Column::Generation).add(1))
        .filter(application::Column::Name.eq(app.as_str()))
        .exec(tx)
        .await?;
    if changed.rows_affected == 0 { Err(missing(format!("application {app}"))) } else { Ok(()) }
}

pub(super) fn parse(model: application::Model) -> Result<Application, Fault> {
    let application::Model {
        name,
        spec,
        configured,
        source,
        wish_version,
        wish_sha256,
        wish_by,
        wish_pinned,
        wish_at,
        in_force_version,
        in_force_sha256,
        cookie,
        generation,
        created_at,
        updated_at,
        placed,
    } = model;
    let row = Row::new("applications", &name);
    let spec: AppSpec = row.json("spec", &spec)?;
    if spec.name.as_str() != name {
        return Err(row.corrupt("spec", UnknownWord(spec.name.to_string())));
    }
    let manual = match row.key_or_none(wish_version.as_deref(), wish_sha256.as_deref())? {
        None => None,
        Some(release) => Some(ManualWish {
            release,
            by: wish_by.unwrap_or_default(),
            pinned: wish_pinned,
            at: row.time("wish_at", wish_at.unwrap_or_default())?,
        }),
    };
    Ok(Application {
        spec,
        configured,
        source: row.word("source", &source, Source::from_word)?,
        manual,
        in_force: row.key_or_none(in_force_version.as_deref(), in_force_sha256.as_deref())?,
        cookie,
        generation: row.number("generation", generation)?,
        created_at: row.time("created_at", created_at)?,
        updated_at: row.time("updated_at", updated_at)?,
        placed: placed.map(|placed| row.json("placed", &placed)).transpose()?.unwrap_or_default(),
    })
}
