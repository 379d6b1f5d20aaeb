//! The two ends of planning: the snapshot that a plan is made from, and the plan that is stored.
//!
//! A plan is stored only while the application's generation is the one that it was made from, all of it in one transaction:
//! rollouts and what is kept of them, assignments with their nodes' new generations, the release in force, ghosts, events,
//! history.

mod snapshot;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use proto::hot_upgrade::{HotUpgradePolicy, Package};
use proto::ids::{AppName, NodeId, ReleaseKey};
use proto::state::Language;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use serde_json::{Map, Value};

use self::snapshot::Loaded;
use super::connection::Db;
use super::entity::applications::application;
use super::entity::row::{integer, json, sha256_of, version_of};
use super::error::{DbError, Fault, doing};
use super::events::{self, NewEvent};
use super::{assignments, releases, restarts, rollouts};
use crate::clock::Time;
use crate::fleet::AppFleet;
use crate::rollout::{Happening, InForce, Plan, Rollout};

impl Db {
    /// Every application that is configured, or of which something is still to be withdrawn, as of one instant. What agents
    /// say (liveness, what they stored and observe), and whether secrets are missing, is the caller's to fill in: until then
    /// every node counts as lost.
    pub async fn load_app_fleets(&self) -> Result<Vec<AppFleet>, DbError> {
        doing("load what plans are made from", async {
            let tx = self.read().await?;
            let mut loaded = Loaded::load(&tx).await?;
            let mut fleets = Vec::new();
            for application in std::mem::take(&mut loaded.applications) {
                let fleet = loaded.fleet_of(application);
                if fleet.spec.is_some() || !fleet.assigned.is_empty() || fleet.rollout.is_some() {
                    fleets.push(Box::pin(with_earlier_rollouts(&tx, fleet)).await?);
                }
            }
            Ok(fleets)
        })
        .await
    }

    /// Stores a plan; returns the nodes whose assignment changed. `Conflict`: the application or a node is no longer what
    /// the plan was made from; nothing was written.
    pub async fn store_plan(
        &self,
        app: &AppName,
        generation: u64,
        plan: &Plan,
        now: Time,
    ) -> Result<BTreeSet<NodeId>, DbError> {
        doing("store a plan", async {
            let tx = self.write().await?;
            raise_from(&tx, app, generation, plan.in_force.as_ref()).await?;
            // Those that are over first: an application has one rollout under way.
            let rows = || plan.rollouts.iter().chain(&plan.predecessors);
            for over in [true, false] {
                for rollout in rows().filter(|it| it.finished_at.is_some() == over) {
                    rollouts::store(&tx, rollout).await?;
                }
            }
            let rollout = match plan.rollouts.last() {
                Some(rollout) => Some(rollout.id),
                None => rollouts::under_way_of(&tx, app).await?.map(|rollout| rollout.id),
            };
            if let Some(placed) = &plan.placed {
                place(&tx, app, placed).await?;
            }
            // Raised with those that are told something, in one order: one after the other they could wait for an apply that waits
            // for them.
            let concerned = match plan.way_back_changed {
                true => assignments::holders(&tx, app).await?,
                false => BTreeSet::new(),
            };
            let told = steps::write(&tx, app, &plan.steps, concerned, rollout, generation + 1, now).await?;
            for ghost in &plan.ghosts {
                rollouts::insert_ghost(&tx, app, ghost, now).await?;
            }
            for recorded in &plan.records {
                rollouts::write_record(&tx, recorded).await?;
            }
            // Before it is said to be over, which it may be at once.
            if let Some(wish) = &plan.asked {
                restarts::ask(&tx, app, wish).await?;
            }
            for over in &plan.restarts {
                restarts::end(&tx, over, now).await?;
            }
            let happened: Vec<_> = plan.events.iter().map(|it| event(app, it, now)).collect();
            events::insert(&tx, &happened).await?;
            tx.commit().await?;
            Ok(told)
        })
        .await
    }
}

async fn with_earlier_rollouts(tx: &impl ConnectionTrait, fleet: AppFleet) -> Result<AppFleet, Fault> {
    let last = rollouts::last_over(tx, &fleet.app).await?;
    let tried = match &fleet.wanted {
        Some(wish) => rollouts::last_of_wish(tx, &fleet.app, wish).await?,
        None => None,
    };
    let brought = match &fleet.in_force {
        Some(release) => rollouts::last_that_brought(tx, &fleet.app, release).await?,
        None => None,
    };
    let predecessor = match fleet.rollout.as_ref().and_then(|it| it.progress.predecessor) {
        Some(id) => rollouts::by_id(tx, id).await?,
        None => None,
    };
    // Most of these are the same row, and the one of a watch may hold many thousand places: each is made sense of once.
    let mut known: Vec<Rollout> = Vec::new();
    known.extend(predecessor.as_ref().map(without_its_watch));
    let mut read = |row: Option<rollouts::Unread>| -> Result<Option<Rollout>, Fault> {
        let Some(row) = row else { return Ok(None) };
        if let Some(rollout) = known.iter().find(|it| row.is(it.id)) {
            return Ok(Some(rollout.clone()));
        }
        let rollout = without_its_watch(&row.read()?);
        known.push(rollout.clone());
        Ok(Some(rollout))
    };
    let (last, tried, brought) = (read(last)?, read(tried)?, read(brought)?);
    let packages = packages(tx, &fleet).await?;
    Ok(AppFleet { last, tried, brought, predecessor, packages, ..fleet })
}

/// Of what it may move between, while it moves.
async fn packages(
    tx: &impl ConnectionTrait,
    fleet: &AppFleet,
) -> Result<BTreeMap<ReleaseKey, Package>, Fault> {
    let wanted = fleet.wanted.as_ref().map(|it| &it.release);
    let moves = fleet.rollout.is_some() || (wanted.is_some() && wanted != fleet.in_force.as_ref());
    let may_be_hot = fleet.spec.as_ref().is_some_and(|spec| {
        spec.language != Language::Gleam && spec.deploy.hot_upgrade != HotUpgradePolicy::Never
    });
    if !moves || !may_be_hot {
        return Ok(BTreeMap::new());
    }
    let moving = fleet.rollout.iter().flat_map(|it| std::iter::once(&it.release).chain(&it.from));
    let keys: BTreeSet<ReleaseKey> = moving.chain(wanted).chain(&fleet.in_force).cloned().collect();
    releases::packages(tx, &fleet.app, &keys).await
}

/// Of what is over nobody asks for its places, which may be many thousands: the watch that goes on is in the predecessor's.
fn without_its_watch(rollout: &Rollout) -> Rollout {
    let mut rollout = rollout.clone();
    rollout.progress.watched_from.clear();
    rollout
}

/// The compare-and-set.
async fn raise_from(
    tx: &impl ConnectionTrait,
    app: &AppName,
    generation: u64,
    in_force: Option<&InForce>,
) -> Result<(), Fault> {
    let mut raise = application::Entity::update_many()
        .col_expr(application::Column::Generation, Expr::col(application::Column::Generation).add(1))
        .filter(application::Column::Name.eq(app.as_str()))
        .filter(application::Column::Generation.eq(integer(generation)));
    if let Some(in_force) = in_force {
        let release = match in_force {
            InForce::Release(release) => Some(release),
            InForce::Nothing => None,
        };
        raise = raise
            .col_expr(application::Column::InForceVersion, Expr::value(version_of(release)))
            .col_expr(application::Column::InForceSha256, Expr::value(sha256_of(release)));
    }
    let raised = raise.exec(tx).await?;
    if raised.rows_affected == 0 { Err(Fault::Conflict(format!("application {app}"))) } else { Ok(()) }
}

async fn place(
    tx: &impl ConnectionTrait,
    app: &AppName,
    placed: &BTreeMap<NodeId, u16>,
) -> Result<(), Fault> {
    application::Entity::update_many()
        .col_expr(application::Column::Placed, Expr::value(json(placed)?))
        .filter(application::Column::Name.eq(app.as_str()))
        .exec(tx)
        .await?;
    Ok(())
}

fn event(app: &AppName, happening: &Happening, now: Time) -> NewEvent {
    let Happening { kind, place, rollout, release, text } = happening;
    let mut data = Map::new();
    if let Some(release) = release {
        data.insert("version".to_owned(), Value::String(release.version.to_string()));
        data.insert("sha256".to_owned(), Value::String(release.sha256.to_string()));
    }
    NewEvent {
        app: Some(app.clone()),
        node: place.map(|place| place.node),
        slot: place.map(|place| place.slot),
        rollout: *rollout,
        data,
        ..NewEvent::new(now, kind.word(), kind.severity(), text.clone())
    }
}
