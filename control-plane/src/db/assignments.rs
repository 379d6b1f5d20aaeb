//! What each place was last told to run, and all that one node is to run as one snapshot.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::{AppName, NodeId, ReleaseKey, RestartId, RolloutId, Slot};
use proto::state::Strategy;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect};

use super::applications;
use super::connection::Db;
use super::entity::applications::{application, release};
use super::entity::nodes::{assignment, node};
use super::entity::row::Row;
use super::error::{DbError, Fault, doing, missing};
use super::releases::{self, Release};
use super::{restarts, rollouts, settings};
use crate::fleet::{Assigned, Hot, Place, ToldRestart};
use crate::rollout::has_way_back;
use crate::spec::monitoring::HostMonitoring;
use crate::spec::{AppSpec, Millis};

/// All that a node is to run, as of one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeAssignment {
    pub generation: u64,
    /// Those of which a slot is wanted.
    pub applications: BTreeMap<AppName, WantedApplication>,
    /// Withdrawn places are not among them: an agent empties what is not listed.
    pub slots: BTreeMap<(AppName, Slot), WantedSlot>,
    /// `None`: no configuration was applied by a version that knows of it.
    pub monitoring: Option<HostMonitoring>,
}

#[derive(Clone, PartialEq)]
pub struct WantedApplication {
    pub spec: AppSpec,
    /// Encrypted, as it was given.
    pub cookie: Vec<u8>,
}

impl std::fmt::Debug for WantedApplication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WantedApplication").field("spec", &self.spec).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedSlot {
    pub release: Release,
    /// Set where this slot is to run the pre-commands: the run's id.
    pub pre_commands_run: Option<String>,
    /// What runs is to be started anew, once.
    pub restart: Option<RestartId>,
    /// Which limit it has passed; `None`: somebody asked for it.
    pub restart_because: Option<String>,
    /// Where its agent goes back to if it loses us before the release is stable.
    pub fallback: Option<WantedFallback>,
    /// How the release comes there; `None`: what ran ends before it.
    pub hot: Option<Hot>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedFallback {
    pub release: Release,
    /// From when the other took its place.
    pub within: Millis,
    pub rollout: RolloutId,
}

impl Db {
    /// `Missing`: the node was removed, or never joined.
    pub async fn node_assignment(&self, node: NodeId) -> Result<NodeAssignment, DbError> {
        doing("load what a node is to run", async {
            let tx = self.read().await?;
            let row = node::Entity::find_by_id(node.0)
                .filter(node::Column::RemovedAt.is_null())
                .one(&tx)
                .await?
                .ok_or_else(|| missing(format!("node {node}")))?;
            let generation = Row::new("nodes", node).number("generation", row.generation)?;
            let places = assignment::Entity::find()
                .filter(assignment::Column::Node.eq(node.0))
                .filter(assignment::Column::Version.is_not_null())
                .all(&tx)
                .await?;
            let mut names: Vec<String> = places.iter().map(|row| row.app.clone()).collect();
            names.sort();
            names.dedup();
            let monitoring = settings::get(&tx, HostMonitoring::SETTING).await?;
            let row = Row::new("settings", HostMonitoring::SETTING);
            let monitoring = monitoring.map(|it| row.json("value", &it)).transpose()?;
            let mut wanted = NodeAssignment {
                generation,
                applications: BTreeMap::new(),
                slots: BTreeMap::new(),
                monitoring,
            };
            let rows = application::Entity::find()
                .filter(application::Column::Name.is_in(names.iter().map(String::as_str)))
                .all(&tx)
                .await?;
            for row in rows {
                let stored = applications::parse(row)?;
                let application = WantedApplication { spec: stored.spec, cookie: stored.cookie };
                wanted.applications.insert(application.spec.name.clone(), application);
            }
            let recorded = recorded_of_node(&tx, node).await?;
            let under_way = restarts::reasons_under_way(&tx).await?;
            let moving = moving(&tx, &wanted.applications).await?;
            for row in places {
                let Parsed { app, place, assigned, .. } = parse(row)?;
                let Some(key) = assigned.release else { continue };
                let release = recorded
                    .iter()
                    .find(|it| it.app == app && it.key == key)
                    .cloned()
                    .ok_or_else(|| missing(format!("recorded release {key} of {app}")))?;
                let fallback = moving.get(&app).filter(|it| it.release == key).map(|it| it.fallback.clone());
                // One that is over is not said again: an agent that lost its memory would do it once more.
                let restart = assigned.restart.map(|it| it.id).filter(|id| under_way.contains_key(id));
                let restart_because = restart.and_then(|id| under_way.get(&id).cloned().flatten());
                let pre_commands_run = assigned.pre_commands_run;
                let hot = assigned.hot;
                let slot = WantedSlot { release, pre_commands_run, restart, restart_because, fallback, hot };
                wanted.slots.insert((app, place.slot), slot);
            }
            Ok(wanted)
        })
        .await
    }
}

/// A rollout that stops what ran before the new release is known to be good.
struct Moving {
    release: ReleaseKey,
    fallback: WantedFallback,
}

/// Those of these applications. Their progress, which grows with the fleet, is not read.
async fn moving(
    tx: &impl ConnectionTrait,
    applications: &BTreeMap<AppName, WantedApplication>,
) -> Result<BTreeMap<AppName, Moving>, Fault> {
    let stop_first = applications.values().filter(|it| it.spec.deploy.strategy == Strategy::StopFirst);
    let names: Vec<&str> = stop_first.map(|it| it.spec.name.as_str()).collect();
    let mut found = BTreeMap::new();
    if names.is_empty() {
        return Ok(found);
    }
    for it in rollouts::moves_of(tx, &names).await? {
        let rollouts::Move { id, app, release, from, phase } = it;
        let Some(WantedApplication { spec, .. }) = applications.get(&app) else { continue };
        if !has_way_back(phase, spec.deploy.strategy) {
            continue;
        }
        // One that is recorded no more cannot be brought to anybody either.
        let Some(before) = recorded(tx, &app, &from).await? else { continue };
        let fallback = WantedFallback { release: before, within: spec.rollback_timeout, rollout: id };
        found.insert(app, Moving { release, fallback });
    }
    Ok(found)
}

async fn recorded(
    tx: &impl ConnectionTrait,
    app: &AppName,
    key: &ReleaseKey,
) -> Result<Option<Release>, Fault> {
    let rows = release::Entity::find()
        .filter(release::Column::App.eq(app.as_str()))
        .filter(release::Column::Version.eq(key.version.as_str()))
        .all(tx)
        .await?;
    let releases = rows.into_iter().map(releases::parse_release).collect::<Result<Vec<_>, _>>()?;
    Ok(releases.into_iter().find(|it| it.key == *key))
}

/// The nodes that are told of an application.
pub(super) async fn holders(tx: &impl ConnectionTrait, app: &AppName) -> Result<BTreeSet<NodeId>, Fault> {
    let nodes = assignment::Entity::find()
        .select_only()
        .column(assignment::Column::Node)
        .filter(assignment::Column::App.eq(app.as_str()))
        .filter(assignment::Column::Version.is_not_null())
        .distinct()
        .into_tuple::<uuid::Uuid>()
        .all(tx)
        .await?;
    Ok(nodes.into_iter().map(NodeId).collect())
}

/// The releases that a node's places name.
async fn recorded_of_node(tx: &impl ConnectionTrait, node: NodeId) -> Result<Vec<Release>, Fault> {
    let versions = assignment::Entity::find()
        .select_only()
        .column(assignment::Column::App)
        .column(assignment::Column::Version)
        .filter(assignment::Column::Node.eq(node.0))
        .filter(assignment::Column::Version.is_not_null())
        .distinct()
        .into_tuple::<(String, String)>()
        .all(tx)
        .await?;
    let mut found = Vec::new();
    for (app, version) in versions {
        let rows = release::Entity::find()
            .filter(release::Column::App.eq(app))
            .filter(release::Column::Version.eq(version))
            .all(tx)
            .await?;
        for row in rows {
            found.push(releases::parse_release(row)?);
        }
    }
    Ok(found)
}

pub(super) struct Parsed {
    pub(super) app: AppName,
    pub(super) place: Place,
    pub(super) assigned: Assigned,
}

pub(super) fn parse(model: assignment::Model) -> Result<Parsed, Fault> {
    let assignment::Model {
        node,
        app,
        slot,
        version,
        sha256,
        pre_commands_run,
        generation,
        since,
        rollout: _,
        begun_at,
        restart,
        restart_at,
        hot,
    } = model;
    let row = Row::new("assignments", format!("{node} {app} {slot}"));
    Ok(Parsed {
        app: row.text("app", &app)?,
        place: Place { node: NodeId(node), slot: row.slot("slot", slot)? },
        assigned: Assigned {
            release: row.key_or_none(version.as_deref(), sha256.as_deref())?,
            pre_commands_run,
            generation: row.number("generation", generation)?,
            since: row.time("since", since)?,
            begun_at: row.number("begun_at", begun_at)?,
            restart: match (restart, row.time_or_none("restart_at", restart_at)?) {
                (Some(id), Some(at)) => Some(ToldRestart { id: RestartId(id), at }),
                _ => None,
            },
            hot: hot.map(|hot| row.json("hot", &hot)).transpose()?,
        },
    })
}
