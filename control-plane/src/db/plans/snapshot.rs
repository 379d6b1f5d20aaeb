//! What plans are made from, loaded whole as of one instant and then sorted by application.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::{AppName, ReleaseKey};
use proto::state::Liveness;
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter};

use crate::db::applications::{self, Application};
use crate::db::assignments::{self, Parsed};
use crate::db::entity::applications::release;
use crate::db::entity::nodes::assignment;
use crate::db::error::Fault;
use crate::db::nodes::{self, EnrolledNode};
use crate::db::releases::{self, BucketState};
use crate::db::restarts::{given_up, under_way as restarts_under_way};
use crate::db::rollouts;
use crate::fleet::{AppFleet, Assigned, Node, Place, RestartWish, Wish, WishedBy};
use crate::rollout::Rollout;

/// Everything, not yet sorted by application.
pub(super) struct Loaded {
    pub(super) applications: Vec<Application>,
    buckets: BTreeMap<AppName, BucketState>,
    with_pre_commands: BTreeSet<(AppName, ReleaseKey)>,
    nodes: Vec<EnrolledNode>,
    assigned: BTreeMap<AppName, BTreeMap<Place, Assigned>>,
    ghosted: BTreeMap<AppName, BTreeSet<ReleaseKey>>,
    proven: BTreeMap<AppName, BTreeSet<ReleaseKey>>,
    under_way: BTreeMap<AppName, Rollout>,
    restarts: BTreeMap<AppName, Vec<RestartWish>>,
    given_up: BTreeMap<AppName, crate::clock::Time>,
}

impl Loaded {
    pub(super) async fn load(tx: &DatabaseTransaction) -> Result<Self, Fault> {
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
        let mut restarts: BTreeMap<AppName, Vec<RestartWish>> = BTreeMap::new();
        for it in restarts_under_way(tx).await? {
            restarts.entry(it.app).or_default().push(it.wish);
        }
        Ok(Self {
            applications: applications::all(tx).await?,
            buckets: releases::all_buckets(tx).await?,
            with_pre_commands,
            nodes: nodes::all(tx).await?,
            assigned,
            ghosted,
            proven,
            under_way: under_way.map(|rollout| (rollout.app.clone(), rollout)).collect(),
            restarts,
            given_up: given_up(tx).await?,
        })
    }

    pub(super) fn fleet_of(&mut self, application: Application) -> AppFleet {
        let app = application.spec.name.clone();
        let wanted = self.wish(&application);
        let Application { spec, configured, in_force, generation, placed, .. } = application;
        let spec = configured.then_some(spec);
        let assigned = self.assigned.remove(&app).unwrap_or_default();
        let mut nodes = BTreeMap::new();
        for node in &self.nodes {
            let eligible = spec.as_ref().is_some_and(|spec| has_labels(node, &spec.nodes));
            if eligible || assigned.keys().any(|place| place.node == node.id) {
                let EnrolledNode { name, labels, service, .. } = node.clone();
                let liveness = Liveness::Lost;
                nodes.insert(node.id, Node { name, liveness, eligible, labels, service, stored: 0 });
            }
        }
        AppFleet {
            generation,
            spec,
            untold: None,
            wanted,
            in_force,
            ghosted: self.ghosted.remove(&app).unwrap_or_default(),
            proven: self.proven.remove(&app).unwrap_or_default(),
            rollout: self.under_way.remove(&app),
            last: None,
            tried: None,
            brought: None,
            predecessor: None,
            restarts: self.restarts.remove(&app).unwrap_or_default(),
            given_up: self.given_up.remove(&app),
            nodes,
            placed,
            assigned,
            packages: BTreeMap::new(),
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
