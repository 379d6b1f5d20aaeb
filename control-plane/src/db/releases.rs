//! Recorded releases: what each tarball was when it was read, and what is run before it starts.

mod buckets;

use std::collections::{BTreeMap, BTreeSet};

use proto::hot_upgrade::Package;
use proto::ids::{AppName, ReleaseKey, Version};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder};

pub(super) use self::buckets::all_buckets;
pub use self::buckets::{BucketFault, BucketState};
use super::applications;
use super::connection::Db;
use super::entity::applications::release;
use super::entity::row::{Row, digest_bytes, integer, json, millis};
use super::error::{DbError, Fault, doing, missing};
use super::events::{self, NewEvent};
use crate::clock::Time;

/// One version of an application, as its tarball was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub app: AppName,
    pub key: ReleaseKey,
    /// Of the tarball, in bytes.
    pub size: u64,
    /// What `current.json` says the tarball's hash is, as written there.
    pub declared_hash: Option<String>,
    pub pre_commands: Vec<String>,
    /// Of the tarball's object when it was read.
    pub etag: Option<String>,
    pub recorded_at: Time,
    /// What hot upgrades go by; `None` where the language has none, or where an earlier version recorded it.
    pub package: Option<Package>,
}

impl Db {
    /// Records a release once: a second time changes nothing. Returns whether it was new; the events are stored if so.
    pub async fn record_release(&self, release: &Release, events: &[NewEvent]) -> Result<bool, DbError> {
        doing("record a release", async {
            let tx = self.write().await?;
            let new = release::Entity::insert(release_row(release)?.into_active_model())
                .on_conflict(
                    OnConflict::columns([
                        release::Column::App,
                        release::Column::Version,
                        release::Column::Sha256,
                    ])
                    .do_nothing()
                    .to_owned(),
                )
                .exec_without_returning(&tx)
                .await?
                > 0;
            if new {
                events::insert(&tx, events).await?;
            }
            tx.commit().await?;
            Ok(new)
        })
        .await
    }

    /// Newest first.
    pub async fn releases(&self, app: &AppName) -> Result<Vec<Release>, DbError> {
        doing("list an application's releases", async {
            release::Entity::find()
                .filter(release::Column::App.eq(app.as_str()))
                .order_by_desc(release::Column::RecordedAt)
                .order_by_asc(release::Column::Sha256)
                .all(self.reader())
                .await?
                .into_iter()
                .map(parse_release)
                .collect()
        })
        .await
    }

    pub async fn release(&self, app: &AppName, key: &ReleaseKey) -> Result<Option<Release>, DbError> {
        doing("read a release", async { find(self.reader(), app, key).await }).await
    }

    /// The same bytes lie in the bucket as another object now.
    pub async fn set_release_etag(&self, app: &AppName, key: &ReleaseKey, etag: &str) -> Result<(), DbError> {
        doing("store where a release lies", async {
            let tx = self.write().await?;
            release::Entity::update_many()
                .col_expr(release::Column::Etag, Expr::value(etag))
                .filter(release::Column::App.eq(app.as_str()))
                .filter(release::Column::Version.eq(key.version.as_str()))
                .filter(release::Column::Sha256.eq(digest_bytes(&key.sha256)))
                .exec(&tx)
                .await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// What an earlier version recorded has been looked into.
    pub async fn set_release_package(
        &self,
        app: &AppName,
        key: &ReleaseKey,
        package: &Package,
    ) -> Result<(), DbError> {
        doing("store what a release's package holds", async {
            let tx = self.write().await?;
            release::Entity::update_many()
                .col_expr(release::Column::Package, Expr::value(json(package)?))
                .filter(release::Column::App.eq(app.as_str()))
                .filter(release::Column::Version.eq(key.version.as_str()))
                .filter(release::Column::Sha256.eq(digest_bytes(&key.sha256)))
                .exec(&tx)
                .await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// What is run before the release starts is no longer what was recorded; a plan that was made before is not stored.
    /// The events are stored where it differs.
    pub async fn set_pre_commands(
        &self,
        app: &AppName,
        key: &ReleaseKey,
        pre_commands: &[String],
        events: &[NewEvent],
    ) -> Result<(), DbError> {
        doing("store a release's pre-commands", async {
            let tx = self.write().await?;
            applications::hold(&tx, app).await?;
            let known = find(&tx, app, key).await?;
            let known = known.ok_or_else(|| missing(format!("recorded release {key} of {app}")))?;
            if known.pre_commands != pre_commands {
                release::Entity::update_many()
                    .col_expr(release::Column::PreCommands, Expr::value(json(pre_commands)?))
                    .filter(release::Column::App.eq(app.as_str()))
                    .filter(release::Column::Version.eq(key.version.as_str()))
                    .filter(release::Column::Sha256.eq(digest_bytes(&key.sha256)))
                    .exec(&tx)
                    .await?;
                applications::raise_generation(&tx, app).await?;
                events::insert(&tx, events).await?;
            }
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// All tarballs that were recorded under a version, the newest first.
    pub async fn releases_of_version(
        &self,
        app: &AppName,
        version: &Version,
    ) -> Result<Vec<Release>, DbError> {
        doing("look a version up", async {
            release::Entity::find()
                .filter(release::Column::App.eq(app.as_str()))
                .filter(release::Column::Version.eq(version.as_str()))
                .order_by_desc(release::Column::RecordedAt)
                .order_by_asc(release::Column::Sha256)
                .all(self.reader())
                .await?
                .into_iter()
                .map(parse_release)
                .collect()
        })
        .await
    }
}

pub(super) async fn find(
    connection: &impl ConnectionTrait,
    app: &AppName,
    key: &ReleaseKey,
) -> Result<Option<Release>, Fault> {
    let id = (app.to_string(), key.version.to_string(), digest_bytes(&key.sha256));
    release::Entity::find_by_id(id).one(connection).await?.map(parse_release).transpose()
}

/// Assignments and wishes name releases whose size and pre-commands are known.
pub(super) async fn must_be_recorded(
    tx: &impl ConnectionTrait,
    app: &AppName,
    key: &ReleaseKey,
) -> Result<(), Fault> {
    match find(tx, app, key).await? {
        Some(_) => Ok(()),
        None => Err(missing(format!("recorded release {key} of {app}"))),
    }
}

/// Of those of the releases that have one.
pub(super) async fn packages(
    tx: &impl ConnectionTrait,
    app: &AppName,
    keys: &BTreeSet<ReleaseKey>,
) -> Result<BTreeMap<ReleaseKey, Package>, Fault> {
    let rows = release::Entity::find()
        .filter(release::Column::App.eq(app.as_str()))
        .filter(release::Column::Version.is_in(keys.iter().map(|key| key.version.as_str())))
        .all(tx)
        .await?;
    let mut found = BTreeMap::new();
    for row in rows {
        let Release { key, package, .. } = parse_release(row)?;
        found.extend(package.filter(|_| keys.contains(&key)).map(|package| (key, package)));
    }
    Ok(found)
}

fn release_row(release: &Release) -> Result<release::Model, Fault> {
    let Release { app, key, size, declared_hash, pre_commands, etag, recorded_at, package } = release;
    Ok(release::Model {
        app: app.to_string(),
        version: key.version.to_string(),
        sha256: digest_bytes(&key.sha256),
        size: integer(*size),
        declared_hash: declared_hash.clone(),
        pre_commands: json(pre_commands)?,
        etag: etag.clone(),
        recorded_at: millis(*recorded_at),
        package: package.as_ref().map(json).transpose()?,
    })
}

pub(super) fn parse_release(model: release::Model) -> Result<Release, Fault> {
    let release::Model {
        app,
        version,
        sha256,
        size,
        declared_hash,
        pre_commands,
        etag,
        recorded_at,
        package,
    } = model;
    let row = Row::new("releases", format!("{app} {version}"));
    Ok(Release {
        app: row.text("app", &app)?,
        key: row.key(&version, &sha256)?,
        size: row.number("size", size)?,
        declared_hash,
        pre_commands: row.json("pre_commands", &pre_commands)?,
        etag,
        recorded_at: row.time("recorded_at", recorded_at)?,
        package: package.map(|package| row.json("package", &package)).transpose()?,
    })
}
