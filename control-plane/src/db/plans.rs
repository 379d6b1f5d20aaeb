//! The two ends of planning: the snapshot that a plan is made from, and the plan that is stored.
//!
//! A plan is stored only while the application's generation is the one that it was made from, all of it in one transaction:
//! rollouts, assignments with their nodes' new generations, the release in force, ghosts, events, history.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::{AppName, NodeId, ReleaseKey, RolloutId};
use proto::state::Liveness;
use sea_orm::sea_query::{Expr, ExprTrait, LockType, OnConflict};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect,
};
use serde_json::{Map, Value};

use super::applications::{self, Application};
use super::assignments::{self, Parsed};
use super::connection::Db;
use super::entity::applications::{application, release};
use super::entity::nodes::{assignment, node};
use super::entity::row::{Row, integer, millis, sha256_of, slot_number, version_of};
use super::error::{DbError, Fault, doing};
use super::events::{self, NewEvent};
use super::nodes::{self, EnrolledNode};
use super::releases::{self, BucketState};
use super::rollouts;
use crate::clock::Time;
use crate::fleet::{AppFleet, Assigned, Node, Place, Wish, WishedBy};
use crate::rollout::{Happening, InForce, Plan, Rollout, Step};

/// Rows in one statement: well below what either engine takes.
const ROWS_PER_STATEMENT: usize = 500;

impl Db {
    /// Every application that is configured, or of which something is still to be withdrawn, as of one instant. What agents
    /// say (liveness, what they stored and observe) is the caller's to fill in: until then every node counts as lost.
    pub async fn load_app_fleets(&self) -> Result<Vec<AppFleet>, DbError> {
        doing("load what plans are made from", async {
            let tx = self.read().await?;
            let mut loaded = Loaded::load(&tx).await?;
            let mut fleets = Vec::new();
            for application in std::mem::take(&mut loaded.applications) {
                let last = rollouts::last_over(&tx, &application.spec.name).await?;
                let fleet = loaded.fleet_of(application);
                if fleet.spec.is_some() || !fleet.assigned.is_empty() || fleet.rollout.is_some() {
                    fleets.push(AppFleet { last, ..fleet });
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
            for over in [true, false] {
                for rollout in plan.rollouts.iter().filter(|it| it.finished_at.is_some() == over) {
                    rollouts::store(&tx, rollout).await?;
                }
            }
            let rollout = match plan.rollouts.last() {
                Some(rollout) => Some(rollout.id),
                None => rollouts::under_way_of(&tx, app).await?.map(|rollout| rollout.id),
            };
            let nodes = write_steps(&tx, app, &plan.steps, rollout, now).await?;
            if let Some(ghost) = &plan.ghost {
                rollouts::insert_ghost(&tx, app, ghost, rollout, now).await?;
            }
            let told: Vec<_> = plan.events.iter().map(|it| event(app, it, now)).collect();
            events::insert(&tx, &told).await?;
            tx.commit().await?;
            Ok(nodes)
        })
        .await
    }
}

/// Everything, not yet sorted by application.
struct Loaded {
    applications: Vec<Application>,
    buckets: BTreeMap<AppName, BucketState>,
    with_pre_commands: BTreeSet<(AppName, ReleaseKey)>,
    nodes: Vec<EnrolledNode>,
    assigned: BTreeMap<AppName, BTreeMap<Place, Assigned>>,
    ghosted: BTreeMap<AppName, BTreeSet<ReleaseKey>>,
    proven: BTreeMap<AppName, BTreeSet<ReleaseKey>>,
    under_way: BTreeMap<AppName, Rollout>,
}

impl Loaded {
    async fn load(tx: &DatabaseTransaction) -> Result<Self, Fault> {
        let mut assigned: BTreeMap<AppName, BTreeMap<Place, Assigned>> = BTreeMap::new();
        for row in assignment::Entity::find().all(tx).await? {
            let Parsed { app, place, assigned: it } = assignments::parse(row)?;
            assigned.entry(app).or_default().insert(place, it);
        }
        let mut ghosted: BTreeMap<AppName, BTreeSet<ReleaseKey>> = BTreeMap::new();
        for it in rollouts::all_ghosted(tx).await? {
            ghosted.entry(it.app).or_default().insert(it.ghost.release);
        }
        let mut proven: BTreeMap<AppName, BTreeSet<ReleaseKey>> = BTreeMap::new();
        for (app, release) in rollouts::proven(tx).await? {
            proven.entry(app).or_default().insert(release);
        }
        let mut with_pre_commands = BTreeSet::new();
        for row in release::Entity::find().filter(release::Column::PreCommands.ne("[]")).all(tx).await? {
            let it = releases::parse_release(row)?;
            with_pre_commands.insert((it.app, it.key));
        }
        let under_way = rollouts::under_way(tx).await?.into_iter();
        Ok(Self {
            applications: applications::all(tx).await?,
            buckets: releases::all_buckets(tx).await?,
            with_pre_commands,
            nodes: nodes::all(tx).await?,
            assigned,
            ghosted,
            proven,
            under_way: under_way.map(|rollout| (rollout.app.clone(), rollout)).collect(),
        })
    }

    fn fleet_of(&mut self, application: Application) -> AppFleet {
        let app = application.spec.name.clone();
        let wanted = self.wish(&application);
        let Application { spec, configured, in_force, generation, .. } = application;
        let spec = configured.then_some(spec);
        let assigned = self.assigned.remove(&app).unwrap_or_default();
        let mut nodes = BTreeMap::new();
        for node in &self.nodes {
            let eligible = spec.as_ref().is_some_and(|spec| has_labels(node, &spec.nodes));
            if eligible || assigned.keys().any(|place| place.node == node.id) {
                let name = node.name.clone();
                nodes.insert(node.id, Node { name, liveness: Liveness::Lost, eligible, stored: 0 });
            }
        }
        AppFleet {
            generation,
            spec,
            wanted,
            in_force,
            ghosted: self.ghosted.remove(&app).unwrap_or_default(),
            proven: self.proven.remove(&app).unwrap_or_default(),
            rollout: self.under_way.remove(&app),
            last: None,
            nodes,
            assigned,
            observed: BTreeMap::new(),
            app,
        }
    }

    /// A person's wish counts before the bucket's: one that is not pinned goes when the bucket names another release.
    fn wish(&self, application: &Application) -> Option<Wish> {
        let app = &application.spec.name;
        let (release, by, at) = match &application.manual {
            Some(manual) => (manual.release.clone(), WishedBy::Person(manual.by.clone()), manual.at),
            None => {
                let bucket = self.buckets.get(app)?;
                (bucket.wish.clone()?, WishedBy::Bucket, bucket.wished_at.unwrap_or(bucket.since))
            }
        };
        let pre_commands = self.with_pre_commands.contains(&(app.clone(), release.clone()));
        Some(Wish { release, pre_commands, by, at })
    }
}

fn has_labels(node: &EnrolledNode, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| node.labels.get(key) == Some(value))
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

/// Returns the nodes whose assignment is another one now. Forgetting a place that was withdrawn changes none.
async fn write_steps(
    tx: &impl ConnectionTrait,
    app: &AppName,
    steps: &[Step],
    rollout: Option<RolloutId>,
    now: Time,
) -> Result<BTreeSet<NodeId>, Fault> {
    let mut changed: BTreeMap<Place, (Option<&ReleaseKey>, Option<&String>)> = BTreeMap::new();
    let mut forgotten = Vec::new();
    for step in steps {
        match step {
            Step::Assign { place, release, pre_commands_run } => {
                changed.insert(*place, (Some(release), pre_commands_run.as_ref()));
            }
            Step::Withdraw { place } => {
                changed.insert(*place, (None, None));
            }
            Step::Forget { place } => forgotten.push(*place),
        }
    }
    let before = releases_before(tx, app, &changed).await?;
    let generations = raise_nodes(tx, changed.keys().map(|place| place.node).collect()).await?;
    let rows: Vec<_> = changed
        .iter()
        .map(|(place, (release, pre_commands_run))| assignment::Model {
            node: place.node.0,
            app: app.to_string(),
            slot: slot_number(place.slot),
            version: version_of(*release),
            sha256: sha256_of(*release),
            pre_commands_run: pre_commands_run.cloned(),
            generation: generations.get(&place.node).copied().map(integer).unwrap_or_default(),
            since: millis(now),
            rollout: rollout.map(|rollout| rollout.0),
        })
        .collect();
    upsert(tx, rows).await?;
    for place in forgotten {
        let id = (place.node.0, app.to_string(), slot_number(place.slot));
        assignment::Entity::delete_by_id(id).exec(tx).await?;
    }
    let moved: Vec<_> = changed
        .iter()
        .filter(|(place, (release, _))| before.get(place).and_then(Option::as_ref) != *release)
        .collect();
    let places: Vec<_> = moved.iter().map(|(place, _)| **place).collect();
    rollouts::end_history(tx, app, &places, now).await?;
    let placed: Vec<_> =
        moved.iter().filter_map(|(place, (release, _))| release.map(|release| (**place, release))).collect();
    rollouts::begin_history(tx, app, &placed, rollout, now).await?;
    Ok(generations.into_keys().collect())
}

/// What the places were told to run so far.
async fn releases_before(
    tx: &impl ConnectionTrait,
    app: &AppName,
    changed: &BTreeMap<Place, (Option<&ReleaseKey>, Option<&String>)>,
) -> Result<BTreeMap<Place, Option<ReleaseKey>>, Fault> {
    if changed.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = assignment::Entity::find().filter(assignment::Column::App.eq(app.as_str())).all(tx).await?;
    rows.into_iter().map(|row| assignments::parse(row).map(|it| (it.place, it.assigned.release))).collect()
}

/// One more for each, in the order of their ids, so that two plans for the same nodes never wait for each other.
async fn raise_nodes(
    tx: &impl ConnectionTrait,
    nodes: BTreeSet<NodeId>,
) -> Result<BTreeMap<NodeId, u64>, Fault> {
    let nodes: Vec<NodeId> = nodes.into_iter().collect();
    let mut generations = BTreeMap::new();
    for batch in nodes.chunks(ROWS_PER_STATEMENT) {
        let present = Condition::all()
            .add(node::Column::Id.is_in(batch.iter().map(|node| node.0)))
            .add(node::Column::RemovedAt.is_null());
        let held = node::Entity::find()
            .filter(present.clone())
            .order_by_asc(node::Column::Id)
            .lock(LockType::NoKeyUpdate)
            .all(tx)
            .await?;
        node::Entity::update_many()
            .col_expr(node::Column::Generation, Expr::col(node::Column::Generation).add(1))
            .filter(present)
            .exec(tx)
            .await?;
        for row in held {
            let before = Row::new("nodes", row.id).number("generation", row.generation)?;
            generations.insert(NodeId(row.id), before + 1);
        }
    }
    match nodes.iter().find(|node| !generations.contains_key(node)) {
        Some(removed) => Err(Fault::Conflict(format!("node {removed}"))),
        None => Ok(generations),
    }
}

async fn upsert(tx: &impl ConnectionTrait, rows: Vec<assignment::Model>) -> Result<(), Fault> {
    for batch in rows.chunks(ROWS_PER_STATEMENT) {
        assignment::Entity::insert_many(batch.iter().cloned().map(IntoActiveModel::into_active_model))
            .on_conflict(
                OnConflict::columns([
                    assignment::Column::Node,
                    assignment::Column::App,
                    assignment::Column::Slot,
                ])
                .update_columns([
                    assignment::Column::Version,
                    assignment::Column::Sha256,
                    assignment::Column::PreCommandsRun,
                    assignment::Column::Generation,
                    assignment::Column::Since,
                    assignment::Column::Rollout,
                ])
                .to_owned(),
            )
            .exec_without_returning(tx)
            .await?;
    }
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
