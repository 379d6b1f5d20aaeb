//! What a new configuration changes of the applications: all of it or nothing.

use std::collections::BTreeSet;

use proto::ids::{AppName, NodeId};
use sea_orm::sea_query::{Expr, ExprTrait, LockType};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
};

use super::Source;
use crate::clock::Time;
use crate::db::configurations::{self, NewVersion};
use crate::db::connection::Db;
use crate::db::entity::applications::application;
use crate::db::entity::row::{json, millis};
use crate::db::error::{DbError, Fault, doing, taken};
use crate::db::events::{self, AuditEntry, NewEvent};
use crate::db::{assignments, nodes, restarts, settings};
use crate::fleet::RestartWish;
use crate::spec::AppSpec;

/// An application as it is to be from now on.
#[derive(Clone)]
pub struct NewApplication {
    pub spec: AppSpec,
    pub source: Source,
    /// Kept where the application exists already.
    pub cookie: Vec<u8>,
}

/// What a new configuration changes.
#[derive(Clone, Default)]
pub struct ApplicationsDiff {
    /// New ones, and known ones whose settings changed.
    pub put: Vec<NewApplication>,
    /// No longer configured: their replicas are withdrawn, their history stays.
    pub dropped: Vec<AppName>,
    /// As they were, save for the secrets that are opened for agents.
    pub retold: Vec<AppName>,
    /// What concerns hosts has changed: every node is told anew.
    pub every_node: bool,
    /// Settings of which there is one, stored with the rest.
    pub remembered: Vec<(&'static str, String)>,
    /// The configuration that says so, where it is another one: nothing is stored where it was planned against one that is
    /// no longer in force.
    pub version: Option<NewVersion>,
    /// What has to be started anew for it.
    pub restarts: Vec<(AppName, RestartWish)>,
    /// What is told of it.
    pub events: Vec<NewEvent>,
    /// Who asked for it; `None`: a start did.
    pub audit: Option<AuditEntry>,
}

impl Db {
    /// Applies a configuration: all of it or nothing. Returns the nodes whom it concerns; their generations are raised.
    pub async fn put_applications(
        &self,
        diff: ApplicationsDiff,
        now: Time,
    ) -> Result<BTreeSet<NodeId>, DbError> {
        doing("store the applications", async {
            let tx = self.write().await?;
            let ApplicationsDiff {
                put,
                dropped,
                retold,
                every_node,
                remembered,
                version,
                restarts,
                events,
                audit,
            } = diff;
            // First, so that who comes second holds nothing that others wait for.
            if let Some(version) = version {
                configurations::insert(&tx, version, now).await?;
            }
            let mut told_anew = retold;
            for new in put {
                let app = new.spec.name.clone();
                if put_one(&tx, new, now).await? {
                    told_anew.push(app);
                }
            }
            for app in dropped {
                drop_one(&tx, &app, now).await?;
            }
            for (key, value) in remembered {
                settings::put(&tx, key, &value).await?;
            }
            let mut holders = if every_node { nodes::all_ids(&tx).await? } else { BTreeSet::new() };
            for app in told_anew {
                holders.extend(assignments::holders(&tx, &app).await?);
            }
            let raised = nodes::raise(&tx, holders).await?;
            for wish in restarts {
                // Where nothing is to run, nothing is to be replaced.
                if !assignments::holders(&tx, &wish.0).await?.is_empty() {
                    restarts::insert(&tx, &[wish]).await?;
                }
            }
            events::insert(&tx, &events).await?;
            events::insert_audit(&tx, audit.as_ref()).await?;
            tx.commit().await?;
            Ok(raised.into_keys().collect())
        })
        .await
    }
}

/// Whether an application that existed has other settings now. Also where agents are not told of what differs: the same
/// assignment sent again changes nothing.
async fn put_one(tx: &impl ConnectionTrait, new: NewApplication, now: Time) -> Result<bool, Fault> {
    let NewApplication { spec, source, cookie } = new;
    let settings = json(&spec)?;
    let known =
        application::Entity::find_by_id(spec.name.as_str()).lock(LockType::NoKeyUpdate).one(tx).await?;
    if let Some(known) = known {
        let differs = known.spec != settings;
        application::Entity::update_many()
            .col_expr(application::Column::Spec, Expr::value(settings))
            .col_expr(application::Column::Configured, Expr::value(true))
            .col_expr(application::Column::Source, Expr::value(source.word()))
            .col_expr(application::Column::UpdatedAt, Expr::value(millis(now)))
            .col_expr(application::Column::Generation, Expr::col(application::Column::Generation).add(1))
            .filter(application::Column::Name.eq(known.name))
            .exec(tx)
            .await?;
        return Ok(differs);
    }
    let row = application::Model {
        name: spec.name.to_string(),
        spec: settings,
        configured: true,
        source: source.word().to_owned(),
        wish_version: None,
        wish_sha256: None,
        wish_by: None,
        wish_pinned: false,
        wish_at: None,
        in_force_version: None,
        in_force_sha256: None,
        cookie,
        generation: 0,
        created_at: millis(now),
        updated_at: millis(now),
        placed: None,
    };
    let what = format!("an application named {}", row.name);
    row.into_active_model().insert(tx).await.map_err(taken(what))?;
    Ok(false)
}

async fn drop_one(tx: &impl ConnectionTrait, app: &AppName, now: Time) -> Result<(), Fault> {
    application::Entity::update_many()
        .col_expr(application::Column::Configured, Expr::value(false))
        .col_expr(application::Column::UpdatedAt, Expr::value(millis(now)))
        .col_expr(application::Column::Generation, Expr::col(application::Column::Generation).add(1))
        .filter(application::Column::Name.eq(app.as_str()))
        .exec(tx)
        .await?;
    Ok(())
}
