//! Rollouts as they are listed, the releases that failed in one, and what each place was told to run and when.
//!
//! A rollout is written by `plans`, save that a person pauses it.

mod ghosted;
mod history;
mod record;
mod steer;

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::{AppName, ReleaseKey, RolloutId};
use proto::state::RolloutPhase;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
};

use super::connection::Db;
use super::entity::rollouts::rollout;
use super::entity::row::{Row, digest_bytes, json, millis, sha256_of, version_of};
use super::error::{DbError, Fault, doing, taken};
use super::{Page, PageRequest, ROWS_PER_STATEMENT};
use crate::fleet::Wish;
use crate::rollout::Rollout;

pub use ghosted::Ghosted;
pub use history::HistoryEntry;
pub use record::RolloutRecord;

pub(super) use ghosted::{all as all_ghosted, insert as insert_ghost};
pub(super) use history::{Placed, begin as begin_history, end as end_history};
pub(super) use record::write as write_record;

/// Further back nobody rolls back without naming a version.
const LOOKED_BACK: u64 = 100;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutFilter {
    /// `None`: of every application.
    pub app: Option<AppName>,
    /// Those alone that are not over.
    pub under_way: bool,
}

impl Db {
    pub async fn rollout(&self, id: RolloutId) -> Result<Option<Rollout>, DbError> {
        doing("read a rollout", async { by_id(self.reader(), id).await }).await
    }

    /// Those of them that there are.
    pub async fn rollouts_named(
        &self,
        ids: &BTreeSet<RolloutId>,
    ) -> Result<BTreeMap<RolloutId, Rollout>, DbError> {
        doing("read some rollouts", async {
            let mut found = BTreeMap::new();
            let ids: Vec<RolloutId> = ids.iter().copied().collect();
            for some in ids.chunks(ROWS_PER_STATEMENT) {
                let query =
                    rollout::Entity::find().filter(rollout::Column::Id.is_in(some.iter().map(|id| id.0)));
                for row in query.all(self.reader()).await? {
                    let rollout = parse(row)?;
                    found.insert(rollout.id, rollout);
                }
            }
            Ok(found)
        })
        .await
    }

    /// Newest first. Also an application's history: each entry is a rollout and what became of it.
    pub async fn rollouts(
        &self,
        filter: &RolloutFilter,
        page: PageRequest<RolloutId>,
    ) -> Result<Page<Rollout, RolloutId>, DbError> {
        doing("list the rollouts", async {
            let mut query = rollout::Entity::find().order_by_desc(rollout::Column::Id).limit(page.rows() + 1);
            if let Some(after) = page.after {
                query = query.filter(rollout::Column::Id.lt(after.0));
            }
            if let Some(app) = &filter.app {
                query = query.filter(rollout::Column::App.eq(app.as_str()));
            }
            if filter.under_way {
                query = query.filter(rollout::Column::FinishedAt.is_null());
            }
            let rows = query.all(self.reader()).await?;
            let found = rows.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            Ok(Page::cut(found, &page, |rollout| rollout.id))
        })
        .await
    }
}

impl Db {
    /// The releases that stood their watch in the last rollouts of an application, the newest first, each once.
    pub async fn good_releases(&self, app: &AppName) -> Result<Vec<ReleaseKey>, DbError> {
        doing("list the releases that were good", async {
            let rows = rollout::Entity::find()
                .filter(rollout::Column::App.eq(app.as_str()))
                .filter(rollout::Column::Phase.eq(RolloutPhase::Done.word()))
                .order_by_desc(rollout::Column::Id)
                .limit(LOOKED_BACK)
                .all(self.reader())
                .await?;
            let mut good: Vec<ReleaseKey> = Vec::new();
            for rollout in rows {
                let release = parse(rollout)?.release;
                if !good.contains(&release) {
                    good.push(release);
                }
            }
            Ok(good)
        })
        .await
    }
}

pub(super) async fn under_way(connection: &impl ConnectionTrait) -> Result<Vec<Rollout>, Fault> {
    let rows = rollout::Entity::find().filter(rollout::Column::FinishedAt.is_null()).all(connection).await?;
    rows.into_iter().map(parse).collect()
}

pub(super) async fn under_way_of(
    connection: &impl ConnectionTrait,
    app: &AppName,
) -> Result<Option<Rollout>, Fault> {
    let row = rollout::Entity::find()
        .filter(rollout::Column::App.eq(app.as_str()))
        .filter(rollout::Column::FinishedAt.is_null())
        .one(connection)
        .await?;
    row.map(parse).transpose()
}

/// From what to what a rollout goes that is under way.
pub(super) struct Move {
    pub(super) id: RolloutId,
    pub(super) app: AppName,
    pub(super) release: ReleaseKey,
    pub(super) from: ReleaseKey,
    pub(super) phase: RolloutPhase,
}

/// Those of these applications, without first deployments.
pub(super) async fn moves_of(connection: &impl ConnectionTrait, apps: &[&str]) -> Result<Vec<Move>, Fault> {
    type Columns = (uuid::Uuid, String, String, Vec<u8>, Option<String>, Option<Vec<u8>>, String);
    let rows = rollout::Entity::find()
        .select_only()
        .columns([
            rollout::Column::Id,
            rollout::Column::App,
            rollout::Column::Version,
            rollout::Column::Sha256,
            rollout::Column::FromVersion,
            rollout::Column::FromSha256,
            rollout::Column::Phase,
        ])
        .filter(rollout::Column::FinishedAt.is_null())
        .filter(rollout::Column::App.is_in(apps.iter().copied()))
        .into_tuple::<Columns>()
        .all(connection)
        .await?;
    let mut moves = Vec::new();
    for (id, app, version, sha256, from_version, from_sha256, phase) in rows {
        let row = Row::new("rollouts", id);
        let Some(from) = row.key_or_none(from_version.as_deref(), from_sha256.as_deref())? else { continue };
        moves.push(Move {
            id: RolloutId(id),
            app: row.text("app", &app)?,
            release: row.key(&version, &sha256)?,
            from,
            phase: row.word("phase", &phase, RolloutPhase::from_word)?,
        });
    }
    Ok(moves)
}

/// A row whose texts were not made sense of yet.
pub(super) struct Unread(rollout::Model);

impl Unread {
    pub(super) fn is(&self, id: RolloutId) -> bool {
        self.0.id == id.0
    }

    pub(super) fn read(self) -> Result<Rollout, Fault> {
        parse(self.0)
    }
}

/// The newest one that is over.
pub(super) async fn last_over(
    connection: &impl ConnectionTrait,
    app: &AppName,
) -> Result<Option<Unread>, Fault> {
    let row = rollout::Entity::find()
        .filter(rollout::Column::App.eq(app.as_str()))
        .filter(rollout::Column::FinishedAt.is_not_null())
        .order_by_desc(rollout::Column::Id)
        .one(connection)
        .await?;
    Ok(row.map(Unread))
}

/// The newest one that is over of those that carried out a wish.
pub(super) async fn last_of_wish(
    connection: &impl ConnectionTrait,
    app: &AppName,
    wish: &Wish,
) -> Result<Option<Unread>, Fault> {
    let row = rollout::Entity::find()
        .filter(rollout::Column::App.eq(app.as_str()))
        .filter(rollout::Column::FinishedAt.is_not_null())
        .filter(rollout::Column::WishedAt.eq(millis(wish.at)))
        .filter(rollout::Column::Version.eq(wish.release.version.as_str()))
        .filter(rollout::Column::Sha256.eq(digest_bytes(&wish.release.sha256)))
        .order_by_desc(rollout::Column::Id)
        .one(connection)
        .await?;
    Ok(row.map(Unread))
}

/// The newest one that is over of those that brought a release and were not taken back.
pub(super) async fn last_that_brought(
    connection: &impl ConnectionTrait,
    app: &AppName,
    release: &ReleaseKey,
) -> Result<Option<Unread>, Fault> {
    let brought = [RolloutPhase::Done, RolloutPhase::Superseded];
    let row = rollout::Entity::find()
        .filter(rollout::Column::App.eq(app.as_str()))
        .filter(rollout::Column::Version.eq(release.version.as_str()))
        .filter(rollout::Column::Sha256.eq(digest_bytes(&release.sha256)))
        .filter(rollout::Column::Phase.is_in(brought.map(RolloutPhase::word)))
        .order_by_desc(rollout::Column::Id)
        .one(connection)
        .await?;
    Ok(row.map(Unread))
}

pub(super) async fn by_id(
    connection: &impl ConnectionTrait,
    id: RolloutId,
) -> Result<Option<Rollout>, Fault> {
    rollout::Entity::find_by_id(id.0).one(connection).await?.map(parse).transpose()
}

/// The releases of rollouts that stood their watch.
pub(super) async fn proven(connection: &impl ConnectionTrait) -> Result<Vec<(AppName, ReleaseKey)>, Fault> {
    let rows = rollout::Entity::find()
        .select_only()
        .column(rollout::Column::App)
        .column(rollout::Column::Version)
        .column(rollout::Column::Sha256)
        .filter(rollout::Column::Phase.eq(RolloutPhase::Done.word()))
        .distinct()
        .into_tuple::<(String, String, Vec<u8>)>()
        .all(connection)
        .await?;
    rows.into_iter()
        .map(|(app, version, sha256)| {
            let row = Row::new("rollouts", &app);
            Ok((row.text("app", &app)?, row.key(&version, &sha256)?))
        })
        .collect()
}

/// As it is now, whether it was there before or not. `Taken`: the application has another one under way.
pub(super) async fn store(tx: &impl ConnectionTrait, rollout: &Rollout) -> Result<(), Fault> {
    let row = rollout_row(rollout)?;
    rollout::Entity::insert(row.into_active_model())
        .on_conflict(
            OnConflict::column(rollout::Column::Id)
                .update_columns([
                    rollout::Column::WishedAt,
                    rollout::Column::FromVersion,
                    rollout::Column::FromSha256,
                    rollout::Column::Phase,
                    rollout::Column::Reason,
                    rollout::Column::PreCommands,
                    rollout::Column::Progress,
                    rollout::Column::PhaseSince,
                    rollout::Column::FinishedAt,
                ])
                .to_owned(),
        )
        .exec_without_returning(tx)
        .await
        .map_err(taken(format!("a rollout of {} that is not over", rollout.app)))?;
    Ok(())
}

fn rollout_row(rollout: &Rollout) -> Result<rollout::Model, Fault> {
    let Rollout {
        id,
        app,
        release,
        from,
        wished_at,
        phase,
        reason,
        pre_commands,
        progress,
        by,
        started_at,
        phase_since,
        finished_at,
    } = rollout;
    Ok(rollout::Model {
        id: id.0,
        app: app.to_string(),
        version: release.version.to_string(),
        sha256: digest_bytes(&release.sha256),
        from_version: version_of(from.as_ref()),
        from_sha256: sha256_of(from.as_ref()),
        phase: phase.word().to_owned(),
        reason: reason.clone(),
        pre_commands: json(pre_commands)?,
        progress: json(progress)?,
        by: by.clone(),
        wished_at: millis(*wished_at),
        started_at: millis(*started_at),
        phase_since: millis(*phase_since),
        finished_at: finished_at.map(millis),
    })
}

fn parse(model: rollout::Model) -> Result<Rollout, Fault> {
    let rollout::Model {
        id,
        app,
        version,
        sha256,
        from_version,
        from_sha256,
        phase,
        reason,
        pre_commands,
        progress,
        by,
        wished_at,
        started_at,
        phase_since,
        finished_at,
    } = model;
    let row = Row::new("rollouts", id);
    Ok(Rollout {
        id: RolloutId(id),
        app: row.text("app", &app)?,
        release: row.key(&version, &sha256)?,
        from: row.key_or_none(from_version.as_deref(), from_sha256.as_deref())?,
        wished_at: row.time("wished_at", wished_at)?,
        phase: row.word("phase", &phase, RolloutPhase::from_word)?,
        reason,
        pre_commands: row.json("pre_commands", &pre_commands)?,
        progress: row.json("progress", &progress)?,
        by,
        started_at: row.time("started_at", started_at)?,
        phase_since: row.time("phase_since", phase_since)?,
        finished_at: row.time_or_none("finished_at", finished_at)?,
    })
}
