//! What each application's bucket last said: the release that it names, and what is wrong with it.

use std::collections::BTreeMap;

use proto::ids::{AppName, ReleaseKey};
use proto::state::FaultKind;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ConnectionTrait, EntityTrait, IntoActiveModel};

use super::must_be_recorded;
use crate::clock::Time;
use crate::db::applications;
use crate::db::connection::Db;
use crate::db::entity::applications::bucket;
use crate::db::entity::row::{Row, millis, sha256_of, version_of};
use crate::db::error::{DbError, Fault, doing};
use crate::db::events::{self, NewEvent};

/// What the bucket of an application last said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketState {
    /// Of the last `current.json` that was looked at, good or bad.
    pub etag: Option<String>,
    /// The release that the last good `current.json` names.
    pub wish: Option<ReleaseKey>,
    /// When it began to name that release.
    pub wished_at: Option<Time>,
    /// What is wrong with the last `current.json` or its tarball.
    pub fault: Option<BucketFault>,
    /// Since when the last `current.json` is the last.
    pub named_at: Time,
    /// When wish or fault last changed.
    pub since: Time,
}

/// Why the last word of a bucket is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketFault {
    pub kind: FaultKind,
    /// A sentence for people.
    pub text: String,
}

impl Db {
    pub async fn bucket(&self, app: &AppName) -> Result<Option<BucketState>, DbError> {
        doing("read what a bucket said", async {
            let row = bucket::Entity::find_by_id(app.as_str()).one(self.reader()).await?;
            row.map(|row| parse_bucket(row).map(|(_, state)| state)).transpose()
        })
        .await
    }

    pub async fn buckets(&self) -> Result<BTreeMap<AppName, BucketState>, DbError> {
        doing("read what the buckets said", async { all_buckets(self.reader()).await }).await
    }

    /// The bucket names a recorded release. Clears its fault, and a person's wish that is not pinned where the bucket now
    /// names another release than before. Returns whether wish or fault changed; the events are stored if so.
    pub async fn set_bucket_wish(
        &self,
        app: &AppName,
        etag: Option<&str>,
        wish: &ReleaseKey,
        now: Time,
        events: &[NewEvent],
    ) -> Result<bool, DbError> {
        doing("store the release that a bucket names", async {
            let tx = self.write().await?;
            let application = applications::hold(&tx, app).await?;
            must_be_recorded(&tx, app, wish).await?;
            let before = bucket_before(&tx, app).await?;
            let renamed = before.as_ref().and_then(|it| it.wish.as_ref()) != Some(wish);
            let changed = renamed || before.as_ref().is_some_and(|it| it.fault.is_some());
            let wished_at = before.as_ref().and_then(|it| it.wished_at).filter(|_| !renamed).unwrap_or(now);
            let state = BucketState {
                etag: etag.map(str::to_owned),
                wish: Some(wish.clone()),
                wished_at: Some(wished_at),
                fault: None,
                named_at: named_at(before.as_ref(), etag, now),
                since: before.filter(|_| !changed).map_or(now, |it| it.since),
            };
            store_bucket(&tx, app, &state).await?;
            if renamed {
                applications::raise_generation(&tx, app).await?;
            }
            if renamed && application.manual.is_some_and(|manual| !manual.pinned) {
                applications::write_manual_wish(&tx, app, None).await?;
            }
            if changed {
                events::insert(&tx, events).await?;
            }
            tx.commit().await?;
            Ok(changed)
        })
        .await
    }

    /// What the bucket holds cannot be used, or (`None`) can again. The wish stays what it was. Returns whether the fault
    /// changed; the events are stored if so.
    pub async fn set_bucket_fault(
        &self,
        app: &AppName,
        etag: Option<&str>,
        fault: Option<&BucketFault>,
        now: Time,
        events: &[NewEvent],
    ) -> Result<bool, DbError> {
        doing("store what is wrong with a bucket", async {
            let tx = self.write().await?;
            applications::hold(&tx, app).await?;
            let before = bucket_before(&tx, app).await?;
            let changed = before.as_ref().and_then(|it| it.fault.as_ref()) != fault;
            let since = before.as_ref().filter(|_| !changed).map_or(now, |it| it.since);
            let state = BucketState {
                etag: etag.map(str::to_owned),
                wish: before.as_ref().and_then(|it| it.wish.clone()),
                wished_at: before.as_ref().and_then(|it| it.wished_at),
                fault: fault.cloned(),
                named_at: named_at(before.as_ref(), etag, now),
                since,
            };
            store_bucket(&tx, app, &state).await?;
            if changed {
                events::insert(&tx, events).await?;
            }
            tx.commit().await?;
            Ok(changed)
        })
        .await
    }
}

pub(in crate::db) async fn all_buckets(
    connection: &impl ConnectionTrait,
) -> Result<BTreeMap<AppName, BucketState>, Fault> {
    bucket::Entity::find().all(connection).await?.into_iter().map(parse_bucket).collect()
}

async fn bucket_before(tx: &impl ConnectionTrait, app: &AppName) -> Result<Option<BucketState>, Fault> {
    let row = bucket::Entity::find_by_id(app.as_str()).one(tx).await?;
    row.map(|row| parse_bucket(row).map(|(_, state)| state)).transpose()
}

/// It begins anew with every other `current.json`.
fn named_at(before: Option<&BucketState>, etag: Option<&str>, now: Time) -> Time {
    before.filter(|it| it.etag.as_deref() == etag).map_or(now, |it| it.named_at)
}

async fn store_bucket(tx: &impl ConnectionTrait, app: &AppName, state: &BucketState) -> Result<(), Fault> {
    let BucketState { etag, wish, wished_at, fault, named_at, since } = state;
    let row = bucket::Model {
        app: app.to_string(),
        etag: etag.clone(),
        wish_version: version_of(wish.as_ref()),
        wish_sha256: sha256_of(wish.as_ref()),
        wished_at: wished_at.map(millis),
        fault: fault.as_ref().map(|it| it.text.clone()),
        fault_kind: fault.as_ref().map(|it| it.kind.word().to_owned()),
        named_at: Some(millis(*named_at)),
        since: millis(*since),
    };
    bucket::Entity::insert(row.into_active_model())
        .on_conflict(
            OnConflict::column(bucket::Column::App)
                .update_columns([
                    bucket::Column::Etag,
                    bucket::Column::WishVersion,
                    bucket::Column::WishSha256,
                    bucket::Column::WishedAt,
                    bucket::Column::Fault,
                    bucket::Column::FaultKind,
                    bucket::Column::NamedAt,
                    bucket::Column::Since,
                ])
                .to_owned(),
        )
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

fn parse_bucket(model: bucket::Model) -> Result<(AppName, BucketState), Fault> {
    let bucket::Model { app, etag, wish_version, wish_sha256, wished_at, fault, fault_kind, named_at, since } =
        model;
    let row = Row::new("buckets", &app);
    let kind = match &fault_kind {
        Some(word) => row.word("fault_kind", word, FaultKind::from_word)?,
        // Before it was told apart.
        None => FaultKind::Broken,
    };
    let since = row.time("since", since)?;
    let state = BucketState {
        etag,
        wish: row.key_or_none(wish_version.as_deref(), wish_sha256.as_deref())?,
        wished_at: row.time_or_none("wished_at", wished_at)?,
        fault: fault.map(|text| BucketFault { kind, text }),
        named_at: row.time_or_none("named_at", named_at)?.unwrap_or(since),
        since,
    };
    Ok((row.text("app", &app)?, state))
}
