//! A plan's steps as rows: what each place is told from now on, with the new generations of their nodes, and the history.

use std::collections::{BTreeMap, BTreeSet};

use proto::apps::DeploymentKind;
use proto::ids::{AppName, NodeId, ReleaseKey, RolloutId};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, Set};

use crate::clock::Time;
use crate::db::assignments;
use crate::db::entity::nodes::assignment;
use crate::db::entity::row::{integer, json, millis, sha256_of, slot_number, version_of};
use crate::db::error::Fault;
use crate::db::rollouts::Placed;
use crate::db::{ROWS_PER_STATEMENT, nodes, rollouts};
use crate::fleet::{Assigned, Hot, Place};
use crate::rollout::Step;

/// Returns the nodes whose assignment is another one now: those that are told something, and `concerned`. `begun_at`: the
/// application's generation from now on. Forgetting a place that was withdrawn changes none.
pub(super) async fn write(
    tx: &impl ConnectionTrait,
    app: &AppName,
    steps: &[Step],
    concerned: BTreeSet<NodeId>,
    rollout: Option<RolloutId>,
    begun_at: u64,
    now: Time,
) -> Result<BTreeSet<NodeId>, Fault> {
    let mut changed: BTreeMap<Place, Told<'_>> = BTreeMap::new();
    let (mut forgotten, mut restarted) = (Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Assign { place, release, pre_commands_run, begins, hot } => {
                let (pre_commands_run, hot) = (pre_commands_run.as_ref(), hot.as_ref());
                let told = Told { release: Some(release), pre_commands_run, begins: *begins, hot };
                changed.insert(*place, told);
            }
            Step::Withdraw { place } => {
                changed
                    .insert(*place, Told { release: None, pre_commands_run: None, begins: true, hot: None });
            }
            Step::Forget { place } => forgotten.push(*place),
            Step::Restart { place, restart, only_since } => {
                restarted.push((*place, *restart, only_since.unwrap_or(begun_at)));
            }
        }
    }
    let before = assigned_before(tx, app, &changed).await?;
    let told = changed.keys().chain(restarted.iter().map(|(place, ..)| place));
    let nodes: BTreeSet<NodeId> = told.map(|place| place.node).collect();
    let generations = nodes::raise(tx, nodes.union(&concerned).copied().collect()).await?;
    if let Some(removed) = nodes.iter().find(|node| !generations.contains_key(node)) {
        return Err(Fault::Conflict(format!("node {removed}")));
    }
    let rows = changed.iter().map(|(place, told)| {
        Ok(assignment::Model {
            node: place.node.0,
            app: app.to_string(),
            slot: slot_number(place.slot),
            version: version_of(told.release),
            sha256: sha256_of(told.release),
            pre_commands_run: told.pre_commands_run.cloned(),
            generation: generations.get(&place.node).copied().map(integer).unwrap_or_default(),
            since: millis(now),
            rollout: rollout.map(|rollout| rollout.0),
            begun_at: integer(told.begun_at(begun_at, before.get(place))),
            restart: None,
            restart_at: None,
            hot: told.hot.map(json).transpose()?,
        })
    });
    upsert(tx, rows.collect::<Result<Vec<_>, Fault>>()?).await?;
    for (place, restart, begun_at) in restarted {
        let row = assignment::ActiveModel {
            node: Set(place.node.0),
            app: Set(app.to_string()),
            slot: Set(slot_number(place.slot)),
            generation: Set(generations.get(&place.node).copied().map(integer).unwrap_or_default()),
            begun_at: Set(integer(begun_at)),
            restart: Set(Some(restart.0)),
            restart_at: Set(Some(millis(now))),
            ..Default::default()
        };
        // The release stays as it is.
        assignment::Entity::update(row).exec(tx).await?;
    }
    for place in forgotten {
        let id = (place.node.0, app.to_string(), slot_number(place.slot));
        assignment::Entity::delete_by_id(id).exec(tx).await?;
    }
    let moved: Vec<_> = changed
        .iter()
        .filter(|(place, told)| told.is_another_than(before.get(place), app, rollout))
        .collect();
    let places: Vec<_> = moved.iter().map(|(place, _)| **place).collect();
    rollouts::end_history(tx, app, &places, now).await?;
    let placed: Vec<_> =
        moved.iter().filter_map(|(place, told)| told.placed(**place, before.get(place))).collect();
    rollouts::begin_history(tx, app, &placed, rollout, now).await?;
    Ok(generations.into_keys().collect())
}

/// What a place is to run from now on.
struct Told<'a> {
    release: Option<&'a ReleaseKey>,
    pre_commands_run: Option<&'a String>,
    begins: bool,
    hot: Option<&'a Hot>,
}

impl<'a> Told<'a> {
    /// Worth an entry of the history: another release, or the same one after it could not be brought in hot.
    fn is_another_than(&self, before: Option<&Assigned>, app: &AppName, rollout: Option<RolloutId>) -> bool {
        if before.and_then(|it| it.release.as_ref()) != self.release {
            return true;
        }
        let tried = before.and_then(|it| it.hot.as_ref()).is_some_and(|it| it.is_of(app, rollout));
        tried && self.hot.is_none()
    }

    fn placed(&self, place: Place, before: Option<&'a Assigned>) -> Option<Placed<'a>> {
        let release = self.release?;
        let told_before = before.and_then(|it| match it.release.as_ref() {
            // The second try: from where the first one began.
            Some(same) if same == release => it.hot.as_ref().map(|hot| &hot.from),
            other => other,
        });
        let (kind, from) = match self.hot {
            Some(hot) => (DeploymentKind::Hot, Some(&hot.from)),
            None => (DeploymentKind::Full, told_before),
        };
        Some(Placed { place, release, kind, from })
    }

    /// What does not begin by this was begun when it was told the same before, or nobody knows when.
    fn begun_at(&self, now: u64, before: Option<&Assigned>) -> u64 {
        // An upgrade starts nothing anew.
        let same = before.filter(|it| self.hot.is_some() || it.release.as_ref() == self.release);
        if self.begins { now } else { same.map_or(0, |it| it.begun_at) }
    }
}

/// What the places were told so far.
async fn assigned_before(
    tx: &impl ConnectionTrait,
    app: &AppName,
    changed: &BTreeMap<Place, Told<'_>>,
) -> Result<BTreeMap<Place, Assigned>, Fault> {
    if changed.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = assignment::Entity::find().filter(assignment::Column::App.eq(app.as_str())).all(tx).await?;
    rows.into_iter().map(|row| assignments::parse(row).map(|it| (it.place, it.assigned))).collect()
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
                    assignment::Column::BegunAt,
                    assignment::Column::Restart,
                    assignment::Column::RestartAt,
                    assignment::Column::Hot,
                ])
                .to_owned(),
            )
            .exec_without_returning(tx)
            .await?;
    }
    Ok(())
}
