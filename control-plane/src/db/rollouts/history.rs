//! What each place was told to run, from when to when, how, and in which rollout.

use std::collections::BTreeMap;

use proto::apps::DeploymentKind;
use proto::ids::{AppName, NodeId, ReleaseKey, RolloutId};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
    QuerySelect,
};
use uuid::Uuid;

use crate::clock::Time;
use crate::db::connection::Db;
use crate::db::entity::rollouts::history;
use crate::db::entity::row::{Row, digest_bytes, millis, sha256_of, slot_number, version_of};
use crate::db::error::{DbError, Fault, doing};
use crate::db::{Page, PageRequest};
use crate::fleet::Place;
use crate::rollout::Rollout;

/// One release at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    pub app: AppName,
    pub place: Place,
    pub release: ReleaseKey,
    /// `Hot`: it was told to be upgraded while it runs. Where that failed the next entry says how it went on.
    pub kind: DeploymentKind,
    /// What the place was told before, or was upgraded of. `None`: nothing.
    pub from: Option<ReleaseKey>,
    /// The rollout that put it there: it says by whom and with what outcome. `None`: a place was filled or put right.
    pub rollout: Option<RolloutId>,
    pub since: Time,
    /// `None`: it is what the place is told to run.
    pub until: Option<Time>,
}

/// Rows in one statement: well below what either engine takes.
const ROWS_PER_STATEMENT: usize = 500;

impl Db {
    /// How the places of these rollouts were told to take their release; a rollout that told none is missing.
    pub async fn deployment_kinds(
        &self,
        rollouts: &[Rollout],
    ) -> Result<BTreeMap<RolloutId, DeploymentKind>, DbError> {
        doing("read how releases were brought", async { kinds(self.reader(), rollouts).await }).await
    }

    /// Of one place of an application, the newest first.
    pub async fn place_history(
        &self,
        app: &AppName,
        place: Place,
        page: PageRequest<Uuid>,
    ) -> Result<Page<HistoryEntry, Uuid>, DbError> {
        doing("list what a place ran", async {
            let mut query = history::Entity::find()
                .filter(history::Column::App.eq(app.as_str()))
                .filter(history::Column::Node.eq(place.node.0))
                .filter(history::Column::Slot.eq(slot_number(place.slot)))
                .order_by_desc(history::Column::Id)
                .limit(page.rows() + 1);
            if let Some(after) = page.after {
                query = query.filter(history::Column::Id.lt(after));
            }
            let rows = Page::cut(query.all(self.reader()).await?, &page, |row| row.id);
            let items = rows.items.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            Ok(Page { items, next: rows.next })
        })
        .await
    }
}

async fn kinds(
    reader: &impl ConnectionTrait,
    rollouts: &[Rollout],
) -> Result<BTreeMap<RolloutId, DeploymentKind>, Fault> {
    let mut found: BTreeMap<RolloutId, DeploymentKind> = BTreeMap::new();
    for some in rollouts.chunks(ROWS_PER_STATEMENT) {
        let rows: Vec<(Uuid, String, String)> = history::Entity::find()
            .select_only()
            .columns([history::Column::Rollout, history::Column::Version, history::Column::Kind])
            .distinct()
            .filter(history::Column::Rollout.is_in(some.iter().map(|it| it.id.0)))
            .into_tuple()
            .all(reader)
            .await?;
        for (id, version, kind) in rows {
            let id = RolloutId(id);
            // What it went back to is no part of it.
            if !some.iter().any(|it| it.id == id && it.release.version.as_str() == version) {
                continue;
            }
            let kind = read_kind(&kind);
            let so_far = found.entry(id).or_insert(kind);
            if *so_far != kind {
                *so_far = DeploymentKind::Mixed;
            }
        }
    }
    Ok(found)
}

/// These places are told something else from now on.
pub(in crate::db) async fn end(
    tx: &impl ConnectionTrait,
    app: &AppName,
    places: &[Place],
    now: Time,
) -> Result<(), Fault> {
    for batch in places.chunks(ROWS_PER_STATEMENT) {
        let any = batch.iter().fold(Condition::any(), |any, place| {
            any.add(
                Condition::all()
                    .add(history::Column::Node.eq(place.node.0))
                    .add(history::Column::Slot.eq(slot_number(place.slot))),
            )
        });
        history::Entity::update_many()
            .col_expr(history::Column::Until, Expr::value(millis(now)))
            .filter(history::Column::App.eq(app.as_str()))
            .filter(history::Column::Until.is_null())
            .filter(any)
            .exec(tx)
            .await?;
    }
    Ok(())
}

/// What a place is told to run from now on.
pub(in crate::db) struct Placed<'a> {
    pub(in crate::db) place: Place,
    pub(in crate::db) release: &'a ReleaseKey,
    pub(in crate::db) kind: DeploymentKind,
    pub(in crate::db) from: Option<&'a ReleaseKey>,
}

pub(in crate::db) async fn begin(
    tx: &impl ConnectionTrait,
    app: &AppName,
    placed: &[Placed<'_>],
    rollout: Option<RolloutId>,
    now: Time,
) -> Result<(), Fault> {
    for batch in placed.chunks(ROWS_PER_STATEMENT) {
        let rows = batch.iter().map(|Placed { place, release, kind, from }| history::Model {
            id: Uuid::now_v7(),
            app: app.to_string(),
            node: place.node.0,
            slot: slot_number(place.slot),
            version: release.version.to_string(),
            sha256: digest_bytes(&release.sha256),
            kind: kind.word().to_owned(),
            rollout: rollout.map(|rollout| rollout.0),
            since: millis(now),
            until: None,
            from_version: version_of(*from),
            from_sha256: sha256_of(*from),
        });
        history::Entity::insert_many(rows.map(IntoActiveModel::into_active_model))
            .exec_without_returning(tx)
            .await?;
    }
    Ok(())
}

/// A word of a newer program is no damage.
fn read_kind(text: &str) -> DeploymentKind {
    let known = [DeploymentKind::Full, DeploymentKind::Hot].into_iter().find(|kind| kind.word() == text);
    known.unwrap_or(DeploymentKind::Unknown)
}

fn parse(model: history::Model) -> Result<HistoryEntry, Fault> {
    let history::Model {
        id,
        app,
        node,
        slot,
        version,
        sha256,
        kind,
        rollout,
        since,
        until,
        from_version,
        from_sha256,
    } = model;
    let row = Row::new("history", id);
    Ok(HistoryEntry {
        app: row.text("app", &app)?,
        place: Place { node: NodeId(node), slot: row.slot("slot", slot)? },
        release: row.key(&version, &sha256)?,
        kind: read_kind(&kind),
        from: row.key_or_none(from_version.as_deref(), from_sha256.as_deref())?,
        rollout: rollout.map(RolloutId),
        since: row.time("since", since)?,
        until: row.time_or_none("until", until)?,
    })
}
