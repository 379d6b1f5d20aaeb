//! The versions of the configuration, numbered without a gap; the highest is in force.
//!
//! A new one is stored in the transaction of what it changes ([`insert`]), and only while the version that it was planned
//! against is still the highest: of two people who apply at once the second is told.

use proto::configuration::{Difference, Origin};
use proto::ids::Digest;
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
};
use sea_orm_migration::SchemaManager;

use super::connection::Db;
use super::entity::configurations::configuration;
use super::entity::row::{Row, digest_bytes, integer, json, millis};
use super::error::{DbError, Fault, doing, taken};
use super::{Page, PageRequest, settings};
use crate::clock::Time;

/// So many versions are kept. Older ones are forgotten with a new one.
const KEPT: u64 = 100;

/// A version that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVersion {
    /// The version that it was planned against; its own number is one more. 0: there was none.
    pub base: u64,
    /// Sealed by the caller.
    pub text: Vec<u8>,
    pub sha256: Digest,
    /// What the watched file held at that time.
    pub file_sha256: Option<Digest>,
    pub by: String,
    pub origin: Origin,
    pub changes: Difference,
}

/// One that was put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationVersion {
    pub number: u64,
    pub sha256: Digest,
    pub file_sha256: Option<Digest>,
    pub by: String,
    pub at: Time,
    pub origin: Origin,
    pub changes: Difference,
}

/// With its text, still sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedVersion {
    pub version: ConfigurationVersion,
    pub text: Vec<u8>,
}

impl Db {
    /// The one in force.
    pub async fn newest_configuration(&self) -> Result<Option<SealedVersion>, DbError> {
        doing("read the configuration in force", async { newest(self.reader()).await }).await
    }

    pub async fn configuration(&self, number: u64) -> Result<Option<SealedVersion>, DbError> {
        doing("read a version of the configuration", async {
            let row = configuration::Entity::find_by_id(integer(number)).one(self.reader()).await?;
            row.map(parse).transpose()
        })
        .await
    }

    /// Newest first, without their texts.
    pub async fn configurations(
        &self,
        page: PageRequest<u64>,
    ) -> Result<Page<ConfigurationVersion, u64>, DbError> {
        doing("list the versions of the configuration", async {
            let mut query = configuration::Entity::find()
                .order_by_desc(configuration::Column::Number)
                .limit(page.rows() + 1);
            if let Some(after) = page.after {
                query = query.filter(configuration::Column::Number.lt(integer(after)));
            }
            let rows = query.all(self.reader()).await?;
            let versions =
                rows.into_iter().map(|row| Ok(parse(row)?.version)).collect::<Result<Vec<_>, Fault>>()?;
            Ok(Page::cut(versions, &page, |it| it.number))
        })
        .await
    }

    /// Of a database that may not have been brought up to date yet, which is left as it is.
    pub async fn peek_at_configuration(url: &str) -> Result<Option<SealedVersion>, DbError> {
        let db = Self::connect(url).await?;
        let found = doing("look for the configuration in force", async {
            let is_there = SchemaManager::new(db.reader()).has_table("configurations").await?;
            if is_there { newest(db.reader()).await } else { Ok(None) }
        })
        .await;
        db.close().await?;
        found
    }
}

async fn newest(connection: &impl ConnectionTrait) -> Result<Option<SealedVersion>, Fault> {
    let newest = configuration::Entity::find().order_by_desc(configuration::Column::Number);
    newest.one(connection).await?.map(parse).transpose()
}

/// Returns its number. `Conflict`: another became the highest meanwhile.
pub(super) async fn insert(tx: &impl ConnectionTrait, new: NewVersion, now: Time) -> Result<u64, Fault> {
    settings::hold(tx, "configuration").await?;
    let highest: Option<i64> = configuration::Entity::find()
        .select_only()
        .column(configuration::Column::Number)
        .order_by_desc(configuration::Column::Number)
        .into_tuple()
        .one(tx)
        .await?;
    let NewVersion { base, text, sha256, file_sha256, by, origin, changes } = new;
    if highest.unwrap_or_default() != integer(base) {
        return Err(Fault::Conflict("the configuration".to_owned()));
    }
    let number = base.saturating_add(1);
    let row = configuration::Model {
        number: integer(number),
        text,
        sha256: digest_bytes(&sha256),
        file_sha256: file_sha256.as_ref().map(digest_bytes),
        by,
        at: millis(now),
        origin: origin.to_string(),
        changes: json(&changes)?,
    };
    let what = format!("version {number} of the configuration");
    let inserted = configuration::Entity::insert(row.into_active_model()).exec_without_returning(tx).await;
    inserted.map_err(taken(what))?;
    configuration::Entity::delete_many()
        .filter(configuration::Column::Number.lte(integer(number.saturating_sub(KEPT))))
        .exec(tx)
        .await?;
    Ok(number)
}

fn parse(model: configuration::Model) -> Result<SealedVersion, Fault> {
    let configuration::Model { number, text, sha256, file_sha256, by, at, origin, changes } = model;
    let row = Row::new("configurations", number);
    let version = ConfigurationVersion {
        number: row.number("number", number)?,
        sha256: row.digest("sha256", &sha256)?,
        file_sha256: file_sha256.map(|it| row.digest("file_sha256", &it)).transpose()?,
        by,
        at: row.time("at", at)?,
        origin: row.text("origin", &origin)?,
        changes: row.json("changes", &changes)?,
    };
    Ok(SealedVersion { version, text })
}
