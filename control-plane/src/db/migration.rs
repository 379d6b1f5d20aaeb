//! The database's tables as a list of changes, applied in order and only forward.
//!
//! One file per change, never edited once released, and none imports an entity: entities move on, changes stay what they
//! were. Changes that this program does not know mean that a newer one was here. It says in the settings which change a
//! program has to know so that the later ones do not matter to it: they only added what may be missing. Who knows that one
//! goes on, who does not is refused in words; neither changes a table.

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
mod m20261128_000014_history_of_upgrades;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, SqliteTransactionMode, TransactionOptions,
    TransactionTrait,
};
use sea_orm_migration::{MigrationTrait, MigratorTrait};

use super::connection::Db;
use super::error::{DbError, doing};
use super::settings;

/// Whoever knows this change may use the tables as the last one leaves them: raised with the first change after which the
/// version before can no longer read or write them, and then to that change, in the version after it.
const NEEDS: &str = "m20261128_000014_history_of_upgrades";
/// The settings that say so to an older program, and who the newest was.
const NEEDS_KEY: &str = "database_needs";
const PROGRAM_KEY: &str = "database_program";
const VERSION: &str = env!("CARGO_PKG_VERSION");

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
            Box::new(m20261128_000014_history_of_upgrades::Migration),
        ]
    }
}

/// The last that this program knows.
pub(super) fn last_change() -> String {
    Migrator::migrations().iter().map(|it| it.name().to_owned()).max().unwrap_or_default()
}

impl Db {
    /// The change of its tables that a program has to know to use the database. `None`: no program has said so yet.
    pub async fn needs(&self) -> Result<Option<String>, DbError> {
        self.setting(NEEDS_KEY).await
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
    let options = TransactionOptions {
        // It reads, and then writes.
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let tx = connection.begin_with_options(options).await.map_err(failed)?;
    if tx.get_database_backend() == DbBackend::Postgres {
        tx.execute_unprepared(LOCK).await.map_err(failed)?;
    }
    let known: Vec<String> =
        Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    Migrator::install(&tx).await.map_err(failed)?;
    let applied = Migrator::get_migration_models(&tx).await.map_err(failed)?;
    let applied: Vec<String> = applied.into_iter().map(|it| it.version).collect();
    if let Some(change) = applied.iter().filter(|it| !known.contains(it)).max() {
        let (program, needs) = doing("read which program the database needs", async {
            let program = settings::get(&tx, PROGRAM_KEY).await?;
            Ok((
                program.unwrap_or_else(|| "of a newer version".to_owned()),
                settings::get(&tx, NEEDS_KEY).await?,
            ))
        })
        .await?;
        let knows = needs.as_ref().is_some_and(|it| known.contains(it));
        if !knows || known.iter().any(|it| !applied.contains(it)) {
            return Err(DbError::Newer { change: change.clone(), program, this: VERSION });
        }
        tracing::warn!(
            "the database was last used by deployex {program}, which made the change {change}; that only added to it, and \
             this one, {VERSION}, goes on without what was added"
        );
        return tx.commit().await.map_err(failed);
    }
    Migrator::up(&tx, None).await.map_err(failed)?;
    doing("say which program the database needs", async {
        settings::put(&tx, NEEDS_KEY, NEEDS).await?;
        settings::put(&tx, PROGRAM_KEY, VERSION).await
    })
    .await?;
    tx.commit().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_program_has_to_know_is_a_change_of_this_one() {
        let names: Vec<_> = Migrator::migrations().iter().map(|it| it.name().to_owned()).collect();
        assert!(names.iter().any(|it| it == NEEDS));
        assert!(names.is_sorted(), "which of two is the later one, their names say to other programs");
    }
}
