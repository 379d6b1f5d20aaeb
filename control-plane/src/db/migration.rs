//! The database's tables as a list of changes, applied in order and only forward.
//!
//! One file per change, never edited once released, and none imports an entity: entities move on, changes stay what they
//! were. Changes that this program does not know mean that a newer one was here: it is refused in words.

#![allow(
    elided_lifetimes_in_paths,
    reason = "the trait's signature elides one, and async_trait wants the same"
)]

mod m20261123_000001_applications;
mod m20261123_000002_nodes;
mod m20261123_000003_rollouts;
mod m20261123_000004_access;
mod m20261123_000005_records;
mod m20261123_000006_bucket_faults;
mod m20261123_000007_restarts;
mod m20261126_000008_placement;
mod m20261126_000009_configurations;
mod m20261127_000010_rollout_records;
mod m20261127_000011_threshold_restarts;
mod m20261128_000012_release_packages;
mod m20261128_000013_hot_upgrades;

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, TransactionTrait};
use sea_orm_migration::{MigrationTrait, MigratorTrait};

use super::error::DbError;

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_applications::Migration),
            Box::new(m20261123_000002_nodes::Migration),
            Box::new(m20261123_000003_rollouts::Migration),
            Box::new(m20261123_000004_access::Migration),
            Box::new(m20261123_000005_records::Migration),
            Box::new(m20261123_000006_bucket_faults::Migration),
            Box::new(m20261123_000007_restarts::Migration),
            Box::new(m20261126_000008_placement::Migration),
            Box::new(m20261126_000009_configurations::Migration),
            Box::new(m20261127_000010_rollout_records::Migration),
            Box::new(m20261127_000011_threshold_restarts::Migration),
            Box::new(m20261128_000012_release_packages::Migration),
            Box::new(m20261128_000013_hot_upgrades::Migration),
        ]
    }
}

/// Two programs that start on one PostgreSQL at once bring it up to date one after the other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(6801457361029)";

/// Brings the tables up to date: all of it or nothing.
pub(super) async fn migrate(connection: &DatabaseConnection) -> Result<(), DbError> {
    let failed = |source: DbErr| DbError::Failed {
        doing: "bring the database's tables up to date",
        source: Box::new(source),
    };
    let tx = connection.begin().await.map_err(failed)?;
    if tx.get_database_backend() == DbBackend::Postgres {
        tx.execute_unprepared(LOCK).await.map_err(failed)?;
    }
    let known: Vec<String> =
        Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    Migrator::install(&tx).await.map_err(failed)?;
    for applied in Migrator::get_migration_models(&tx).await.map_err(failed)? {
        if !known.contains(&applied.version) {
            return Err(DbError::Newer { change: applied.version });
        }
    }
    Migrator::up(&tx, None).await.map_err(failed)?;
    tx.commit().await.map_err(failed)
}
